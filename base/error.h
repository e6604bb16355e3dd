// Errors: a code from one table, and a text that is wrapped outward ("load segment: frame at 8192: body checksum").
//
// Threads: no shared state; a struct sl_error belongs to its caller. Nothing here allocates.
// Convention: a function that can fail returns bool, true for success, and takes `struct sl_error *err` last. On false
// *err is filled; on true it is untouched. `err` is never NULL.
#ifndef SLUICE_BASE_ERROR_H
#define SLUICE_BASE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>

#define SL_MUST_USE       __attribute__((warn_unused_result))
#define SL_PRINTF(fmt, a) __attribute__((format(printf, fmt, a)))

// code, word in logs and JSON
#define SL_ERROR_CODES(X)                                                                                              \
    X(SL_OK, "ok")                                                                                                     \
    X(SL_E_IO, "io")                   /* a system call failed; sys_errno says which way */                            \
    X(SL_E_SYNC, "sync")               /* a write or sync of the spool failed: the stream is dead, exit 4 */           \
    X(SL_E_NO_SPACE, "no-space")       /* the disk or the budget is full; may pass */                                  \
    X(SL_E_CORRUPT, "corrupt")         /* bytes on disk or on the wire do not verify */                                \
    X(SL_E_LOCKED, "locked")           /* another process owns the spool directory, exit 3 */                          \
    X(SL_E_CONFIG, "config")           /* the configuration is wrong, exit 1; text is file:line: ... */                \
    X(SL_E_NOT_FOUND, "not-found")     /* what was asked for is not there */                                           \
    X(SL_E_INVALID, "invalid")         /* input that will never be good */                                             \
    X(SL_E_TOO_LARGE, "too-large")     /* over a documented limit */                                                   \
    X(SL_E_UNAVAILABLE, "unavailable") /* a dependency does not answer; may pass */                                    \
    X(SL_E_FENCED, "fenced")           /* a rival took over */                                                         \
    X(SL_E_REFUSED, "refused")         /* stopped on purpose until a person decides */                                 \
    X(SL_E_NO_MEMORY, "no-memory")

enum sl_code {
#define X(code, word) code,
    SL_ERROR_CODES(X)
#undef X
};

struct sl_error {
    enum sl_code code;
    int sys_errno;  // 0 when no system call was involved
    char text[500]; // always terminated; truncated at the end, so that the place (which comes first) survives
};

// Fills *err and returns false, so that `return sl_fail(err, ...)` reads well.
bool sl_fail(struct sl_error *err, enum sl_code code, const char *format, ...) SL_PRINTF(3, 4);
// The same with ": strerror(sys_errno)" appended. sys_errno is positive.
bool sl_fail_errno(struct sl_error *err, enum sl_code code, int sys_errno, const char *format, ...) SL_PRINTF(4, 5);
// Prefixes the text with "format: " and returns false; code and errno stay.
bool sl_wrap(struct sl_error *err, const char *format, ...) SL_PRINTF(2, 3);
const char *sl_code_word(enum sl_code code);

// Ends the process with a message and a stack frame to look at: for states that must not exist. Stays on in release.
_Noreturn void sl_panic(const char *file, int line, const char *expression);
#define sl_assert(expression) ((expression) ? (void)0 : sl_panic(__FILE__, __LINE__, #expression))

#endif
