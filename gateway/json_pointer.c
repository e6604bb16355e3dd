// JSON Pointers (RFC 6901), compiled once and matched, while an event is read, by the hash of each token.
#include "gateway/json_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

enum { POINTER_TOKENS_MAX = 64, TOKEN_PADDING = 16 };

struct json_seed json_seed;

static void seed_from_kernel(void)
{
    size_t have = 0;
    while (have < sizeof(json_seed.words)) {
        ssize_t got = getrandom((char *)json_seed.words + have, sizeof(json_seed.words) - have, 0);
        sl_assert(got > 0 || errno == EINTR);
        if (got > 0)
            have += (size_t)got;
    }
}

void json_seed_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, seed_from_kernel);
}

// RFC 6901 section 4: "0", or digits without a leading zero.
static int64_t element_of(const uint8_t *token, size_t length)
{
    if (length == 0 || length > 9 || (token[0] == '0' && length > 1))
        return -1;
    int64_t element = 0;
    for (size_t i = 0; i < length; i++) {
        if (token[i] < '0' || token[i] > '9')
            return -1;
        element = element * 10 + (token[i] - '0');
    }
    return element;
}

// Unescapes one token up to the next '/' or the end; returns where it stopped, NULL at a bad escape.
static const char *unescape(const char *text, uint8_t *token, uint32_t *length)
{
    *length = 0;
    for (; *text != '\0' && *text != '/'; text++) {
        uint8_t byte = (uint8_t)*text;
        if (byte == '~') {
            text++;
            if (*text != '0' && *text != '1')
                return NULL;
            byte = *text == '0' ? '~' : '/';
        }
        token[(*length)++] = byte;
    }
    return text;
}

bool json_pointer_compile(struct json_pointer **out, const char *text, struct sl_error *err)
{
    json_seed_init();
    if (text[0] != '/')
        return sl_fail(err, SL_E_INVALID, "a JSON Pointer to a field begins with '/'");
    size_t count = 0;
    for (const char *c = text; *c != '\0'; c++)
        count += *c == '/';
    if (count > POINTER_TOKENS_MAX)
        return sl_fail(err, SL_E_INVALID, "a JSON Pointer has at most %d parts", POINTER_TOKENS_MAX);

    struct json_pointer *pointer = calloc(1, sizeof(*pointer));
    if (pointer == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "JSON Pointer");
    pointer->text = strdup(text);
    pointer->storage = calloc(1, strlen(text) + (count + 1) * TOKEN_PADDING);
    pointer->tokens = calloc(count, sizeof(*pointer->tokens));
    if (pointer->text == NULL || pointer->storage == NULL || pointer->tokens == NULL) {
        json_pointer_free(pointer);
        return sl_fail(err, SL_E_NO_MEMORY, "JSON Pointer");
    }
    uint8_t *free_bytes = pointer->storage;
    for (const char *c = text; *c == '/';) {
        struct json_token *token = &pointer->tokens[pointer->token_count++];
        token->bytes = free_bytes;
        c = unescape(c + 1, free_bytes, &token->length);
        if (c == NULL) {
            json_pointer_free(pointer);
            return sl_fail(err, SL_E_INVALID, "in a JSON Pointer '~' is followed by 0 (for '~') or 1 (for '/')");
        }
        free_bytes += token->length + TOKEN_PADDING;
        token->hash = json_key_hash(token->bytes, token->length);
        token->element = element_of(token->bytes, token->length);
    }
    *out = pointer;
    return true;
}

void json_pointer_free(struct json_pointer *pointer)
{
    if (pointer == NULL)
        return;
    free(pointer->text);
    free(pointer->storage);
    free(pointer->tokens);
    free(pointer);
}

const char *json_pointer_text(const struct json_pointer *pointer)
{
    return pointer->text;
}
