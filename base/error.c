#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const code_words[] = {
#define X(code, word) [code] = word,
    SL_ERROR_CODES(X)
#undef X
};

const char *sl_code_word(enum sl_code code)
{
    return (size_t)code < sizeof(code_words) / sizeof(code_words[0]) ? code_words[code] : "unknown";
}

static void fill(struct sl_error *err, enum sl_code code, int sys_errno, const char *format, va_list args)
{
    sl_assert(code != SL_OK);
    err->code = code;
    err->sys_errno = sys_errno;
    int length = vsnprintf(err->text, sizeof(err->text), format, args);
    if (length < 0)
        err->text[0] = '\0';
}

bool sl_fail(struct sl_error *err, enum sl_code code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(err, code, 0, format, args);
    va_end(args);
    return false;
}

bool sl_fail_errno(struct sl_error *err, enum sl_code code, int sys_errno, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(err, code, sys_errno, format, args);
    va_end(args);
    char reason[128];
    size_t length = strlen(err->text);
    // GNU strerror_r: returns the text, which may or may not be in the buffer.
    snprintf(err->text + length, sizeof(err->text) - length, ": %s", strerror_r(sys_errno, reason, sizeof(reason)));
    return false;
}

bool sl_wrap(struct sl_error *err, const char *format, ...)
{
    char inner[sizeof(err->text)];
    memcpy(inner, err->text, sizeof(inner));
    va_list args;
    va_start(args, format);
    int length = vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    if (length < 0 || (size_t)length + 2 >= sizeof(err->text))
        return false;
    memcpy(err->text + length, ": ", 2);
    size_t room = sizeof(err->text) - (size_t)length - 3, wanted = strlen(inner);
    size_t copied = wanted < room ? wanted : room; // the end is cut: the place comes first
    memcpy(err->text + length + 2, inner, copied);
    err->text[(size_t)length + 2 + copied] = '\0';
    return false;
}

_Noreturn void sl_panic(const char *file, int line, const char *expression)
{
    // Not through the logger: whatever broke may hold its lock.
    fprintf(stderr, "{\"level\":\"fatal\",\"component\":\"assert\",\"message\":\"%s:%d: assertion failed\"}\n", file,
            line);
    fprintf(stderr, "sluice: %s:%d: assertion failed: %s\n", file, line, expression);
    abort();
}
