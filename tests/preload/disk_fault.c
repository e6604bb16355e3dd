// LD_PRELOAD shim: makes the disk under one directory slow, full, short or broken, while the process runs.
//
// The storage vtable of spool/ injects faults below the code under test in one process; this shim does it to the real
// binary, between its libc calls and the kernel. It is a test tool and never part of the product.
//
//   SLUICE_FAULT_PREFIX   only files whose absolute path starts with this are touched (required)
//   SLUICE_FAULT_CONTROL  a file of rules, read again at each call in scope; missing or empty: no fault. Replace it by
//                         rename(2), so that it is never read half-written.
//   SLUICE_FAULT_LOG      one line is appended for each fault that was applied, which is how a test proves that it was
//
// A rule is a line: OPERATION [errno=NAME] [delay_ms=N] [hang=1] [short=N] [after=N] [count=N] [path=TEXT]
// - OPERATION: pwrite pwritev fdatasync fsync sync_file_range fallocate create pread preadv ftruncate rename, or: all.
//   pwritev stands for pwritev2 too, fallocate for posix_fallocate, create for any open that has O_CREAT.
// - errno: the call fails with it (EIO, ENOSPC, EDQUOT, EROFS, EINTR, EMFILE, ENFILE, ENOMEM, EAGAIN); nothing is done.
// - delay_ms: the call is late by so much, then carried out (or failed, if errno is there as well).
// - hang: the call waits until the rules change, then goes on as above.
// - short: pwrite, pwritev, pread, preadv: only the first N bytes are transferred, and N returned; N is at least 1.
// - after: the first N matching calls pass unharmed. count: then only N are harmed (default: all).
// - path: only files whose path contains TEXT.
//
// The first rule that matches a call and is not waiting (after) or used up (count) decides. Counting starts anew when
// the text of the rules changes (a comment, `# 2`, is a change). A rule that cannot be read ends the process with a
// message: a fault test with a typing error must not pass.
//
// Threads: everything is behind one mutex but the delays themselves.

// Meson asks for 64-bit offsets everywhere, which renames pwrite to pwrite64 and so on. Here both names are defined.
#undef _FILE_OFFSET_BITS
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { RULES_MAX = 32, CONTROL_MAX = 8192, IOV_LOCAL_MAX = 1024, EXIT_BAD_RULE = 99 };

enum operation {
    OP_PWRITE,
    OP_PWRITEV,
    OP_FDATASYNC,
    OP_FSYNC,
    OP_SYNC_FILE_RANGE,
    OP_FALLOCATE,
    OP_CREATE,
    OP_PREAD,
    OP_PREADV,
    OP_FTRUNCATE,
    OP_RENAME,
    OP_ALL
};

static const char *const operation_names[] = {
    [OP_PWRITE] = "pwrite",
    [OP_PWRITEV] = "pwritev",
    [OP_FDATASYNC] = "fdatasync",
    [OP_FSYNC] = "fsync",
    [OP_SYNC_FILE_RANGE] = "sync_file_range",
    [OP_FALLOCATE] = "fallocate",
    [OP_CREATE] = "create",
    [OP_PREAD] = "pread",
    [OP_PREADV] = "preadv",
    [OP_FTRUNCATE] = "ftruncate",
    [OP_RENAME] = "rename",
    [OP_ALL] = "all",
};

static const struct {
    const char *name;
    int number;
} error_names[] = {
    {"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS},   {"EINTR", EINTR},
    {"EMFILE", EMFILE}, {"ENFILE", ENFILE}, {"ENOMEM", ENOMEM}, {"EAGAIN", EAGAIN},
};

struct rule {
    enum operation operation;
    int error; // 0: none
    long delay_ms;
    bool hang;
    size_t short_bytes; // 0: the whole transfer
    unsigned long after;
    unsigned long count; // ULONG_MAX: no limit
    char path[256];      // empty: every file in scope
    unsigned long seen;  // matching calls so far
};

// What is to be done to one call.
struct verdict {
    int error;          // 0: carry it out
    size_t short_bytes; // 0: the whole transfer
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // guards the four below
static struct rule rules[RULES_MAX];
static size_t rule_count;
static char control_text[CONTROL_MAX]; // what `rules` was made from
static unsigned long generation;       // of control_text

// The shim's own files go by bare system calls, so that it never meets itself.
static ssize_t read_whole(const char *path, char *into, size_t size)
{
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    if (fd < 0)
        return -1;
    while (have < size - 1) {
        long got = syscall(SYS_read, fd, into + have, size - 1 - have);
        if (got <= 0)
            break;
        have += (size_t)got;
    }
    syscall(SYS_close, fd);
    into[have] = '\0';
    return (ssize_t)have;
}

static void __attribute__((noreturn)) bad_rule(const char *what, const char *where)
{
    dprintf(STDERR_FILENO, "disk_fault: %s: \"%s\"\n", what, where);
    _exit(EXIT_BAD_RULE);
}

static unsigned long number_of(const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end != '\0')
        bad_rule("not a number", text);
    return value;
}

static int error_of(const char *name)
{
    for (size_t i = 0; i < sizeof error_names / sizeof error_names[0]; i++)
        if (strcmp(name, error_names[i].name) == 0)
            return error_names[i].number;
    bad_rule("unknown errno", name);
}

static enum operation operation_of(const char *name)
{
    for (size_t i = 0; i <= OP_ALL; i++)
        if (strcmp(name, operation_names[i]) == 0)
            return (enum operation)i;
    bad_rule("unknown operation", name);
}

static void set_option(struct rule *rule, char *word)
{
    char *value = strchr(word, '=');
    if (value == NULL)
        bad_rule("not an option", word);
    *value++ = '\0';
    if (strcmp(word, "errno") == 0)
        rule->error = error_of(value);
    else if (strcmp(word, "delay_ms") == 0)
        rule->delay_ms = (long)number_of(value);
    else if (strcmp(word, "hang") == 0)
        rule->hang = number_of(value) != 0;
    else if (strcmp(word, "short") == 0)
        rule->short_bytes = number_of(value);
    else if (strcmp(word, "after") == 0)
        rule->after = number_of(value);
    else if (strcmp(word, "count") == 0)
        rule->count = number_of(value);
    else if (strcmp(word, "path") == 0 && strlen(value) < sizeof rule->path)
        memcpy(rule->path, value, strlen(value) + 1);
    else
        bad_rule("unknown or oversized option", word);
}

static bool transfers(enum operation operation)
{
    return operation == OP_PWRITE || operation == OP_PWRITEV || operation == OP_PREAD || operation == OP_PREADV;
}

static void parse_rules(const char *text)
{
    char copy[CONTROL_MAX], *line_rest = NULL, *word_rest = NULL;
    memcpy(copy, text, strlen(text) + 1);
    rule_count = 0;
    for (char *line = strtok_r(copy, "\n", &line_rest); line != NULL; line = strtok_r(NULL, "\n", &line_rest)) {
        char *word = strtok_r(line, " \t\r", &word_rest);
        if (word == NULL || word[0] == '#' || strcmp(word, "off") == 0)
            continue;
        if (rule_count == RULES_MAX)
            bad_rule("too many rules at", word);
        struct rule *rule = &rules[rule_count++];
        *rule = (struct rule){.operation = operation_of(word), .count = ULONG_MAX};
        while ((word = strtok_r(NULL, " \t\r", &word_rest)) != NULL)
            set_option(rule, word);
        if (rule->error == 0 && rule->delay_ms == 0 && !rule->hang && rule->short_bytes == 0)
            bad_rule("a rule without a fault", operation_names[rule->operation]);
        if (rule->short_bytes != 0 && !transfers(rule->operation))
            bad_rule("short is not for", operation_names[rule->operation]);
    }
}

// Call with the lock held.
static void refresh_rules(void)
{
    static char fresh[CONTROL_MAX];
    const char *path = getenv("SLUICE_FAULT_CONTROL");
    if (path == NULL || read_whole(path, fresh, sizeof fresh) < 0)
        fresh[0] = '\0';
    if (strlen(fresh) == sizeof fresh - 1)
        bad_rule("control file too long", path);
    if (strcmp(fresh, control_text) == 0)
        return;
    memcpy(control_text, fresh, sizeof fresh);
    generation++;
    parse_rules(control_text);
}

static bool in_scope(const char *path)
{
    const char *prefix = getenv("SLUICE_FAULT_PREFIX");
    return prefix != NULL && prefix[0] != '\0' && strncmp(path, prefix, strlen(prefix)) == 0;
}

static void log_fault(const char *operation, const char *path, const struct rule *rule)
{
    const char *log = getenv("SLUICE_FAULT_LOG");
    char line[PATH_MAX + 256];
    if (log == NULL)
        return;
    int length =
        snprintf(line, sizeof line, "%d %s errno=%d delay_ms=%ld hang=%d short=%zu call=%lu path=%s\n", (int)getpid(),
                 operation, rule->error, rule->delay_ms, rule->hang, rule->short_bytes, rule->seen, path);
    long fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || length < 0)
        bad_rule("cannot write SLUICE_FAULT_LOG", log);
    size_t bytes = (size_t)length < sizeof line ? (size_t)length : sizeof line - 1;
    if (syscall(SYS_write, fd, line, bytes) != (long)bytes)
        bad_rule("cannot write SLUICE_FAULT_LOG", log);
    syscall(SYS_close, fd);
}

static void pause_ms(long milliseconds)
{
    struct timespec left = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static void wait_for_other_rules(unsigned long old)
{
    bool same = true;
    while (same) {
        pause_ms(2);
        pthread_mutex_lock(&lock);
        refresh_rules();
        same = generation == old;
        pthread_mutex_unlock(&lock);
    }
}

static struct verdict judge_path(enum operation operation, const char *path)
{
    struct verdict verdict = {0};
    struct rule hit = {0};
    bool harmed = false;
    unsigned long judged_by;
    int saved_errno = errno;
    if (!in_scope(path))
        return verdict;
    pthread_mutex_lock(&lock);
    refresh_rules();
    for (size_t i = 0; i < rule_count && !harmed; i++) {
        struct rule *rule = &rules[i];
        if ((rule->operation != operation && rule->operation != OP_ALL) || strstr(path, rule->path) == NULL)
            continue;
        rule->seen++;
        harmed = rule->seen > rule->after && rule->seen - rule->after <= rule->count;
        hit = *rule;
    }
    if (harmed)
        log_fault(operation_names[operation], path, &hit);
    judged_by = generation;
    pthread_mutex_unlock(&lock);
    if (harmed) {
        if (hit.hang)
            wait_for_other_rules(judged_by);
        if (hit.delay_ms > 0)
            pause_ms(hit.delay_ms);
        verdict = (struct verdict){.error = hit.error, .short_bytes = hit.short_bytes};
    }
    errno = saved_errno;
    return verdict;
}

// /proc is asked each time: it is right after rename, dup and openat, which a table of descriptors kept here would not
// be.
static struct verdict judge_fd(enum operation operation, int fd)
{
    char link[64], path[PATH_MAX];
    int saved_errno = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    errno = saved_errno;
    if (length < 0)
        return (struct verdict){0};
    path[length] = '\0';
    return judge_path(operation, path);
}

// The path of a name that may not exist yet, relative to dir_fd.
static struct verdict judge_name(enum operation operation, int dir_fd, const char *name)
{
    char link[64], path[PATH_MAX + NAME_MAX + 2];
    int saved_errno = errno;
    if (name[0] == '/')
        return judge_path(operation, name);
    if (dir_fd == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir_fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    errno = saved_errno;
    if (length < 0)
        return (struct verdict){0};
    snprintf(path + length, sizeof path - (size_t)length, "/%s", name);
    return judge_path(operation, path);
}

static void *real(const char *symbol)
{
    void *found = dlsym(RTLD_NEXT, symbol);
    if (found == NULL)
        bad_rule("libc has no", symbol);
    return found;
}

// Declares `next`, the C library's own function of that name. ISO C has no conversion from an object pointer to a
// function pointer, hence the copy; two threads that look it up at once store the same value.
#define REAL(name_)                                                                                                    \
    static __typeof__(name_) *next;                                                                                    \
    if (next == NULL) {                                                                                                \
        void *symbol = real(#name_);                                                                                   \
        memcpy(&next, &symbol, sizeof next);                                                                           \
    }

#define FAIL_IF(verdict_, value_)                                                                                      \
    do {                                                                                                               \
        int error_ = (verdict_).error;                                                                                 \
        if (error_ != 0) {                                                                                             \
            errno = error_;                                                                                            \
            return (value_);                                                                                           \
        }                                                                                                              \
    } while (0)

static size_t cut(size_t bytes, struct verdict verdict)
{
    return verdict.short_bytes != 0 && verdict.short_bytes < bytes ? verdict.short_bytes : bytes;
}

// Copies the vectors, shortened to the verdict's length. Returns their number, 0 when there is nothing to shorten.
static int cut_vectors(struct iovec *into, const struct iovec *from, int count, struct verdict verdict)
{
    size_t left = verdict.short_bytes;
    int used = 0;
    if (left == 0 || count > IOV_LOCAL_MAX)
        return 0;
    while (used < count && left > 0) {
        into[used] = from[used];
        if (into[used].iov_len > left)
            into[used].iov_len = left;
        left -= into[used].iov_len;
        used++;
    }
    return used;
}

#define DEFINE_WRITE(name_)                                                                                            \
    ssize_t name_(int fd, const void *data, size_t bytes, off_t offset)                                                \
    {                                                                                                                  \
        REAL(name_)                                                                                                    \
        struct verdict verdict = judge_fd(OP_PWRITE, fd);                                                              \
        FAIL_IF(verdict, -1);                                                                                          \
        return next(fd, data, cut(bytes, verdict), offset);                                                            \
    }

#define DEFINE_READ(name_)                                                                                             \
    ssize_t name_(int fd, void *data, size_t bytes, off_t offset)                                                      \
    {                                                                                                                  \
        REAL(name_)                                                                                                    \
        struct verdict verdict = judge_fd(OP_PREAD, fd);                                                               \
        FAIL_IF(verdict, -1);                                                                                          \
        return next(fd, data, cut(bytes, verdict), offset);                                                            \
    }

#define DEFINE_VECTOR(name_, operation_)                                                                               \
    ssize_t name_(int fd, const struct iovec *vectors, int count, off_t offset)                                        \
    {                                                                                                                  \
        REAL(name_)                                                                                                    \
        struct verdict verdict = judge_fd(operation_, fd);                                                             \
        struct iovec local[IOV_LOCAL_MAX];                                                                             \
        FAIL_IF(verdict, -1);                                                                                          \
        int used = cut_vectors(local, vectors, count, verdict);                                                        \
        return used > 0 ? next(fd, local, used, offset) : next(fd, vectors, count, offset);                            \
    }

#define DEFINE_VECTOR2(name_, operation_)                                                                              \
    ssize_t name_(int fd, const struct iovec *vectors, int count, off_t offset, int flags)                             \
    {                                                                                                                  \
        REAL(name_)                                                                                                    \
        struct verdict verdict = judge_fd(operation_, fd);                                                             \
        struct iovec local[IOV_LOCAL_MAX];                                                                             \
        FAIL_IF(verdict, -1);                                                                                          \
        int used = cut_vectors(local, vectors, count, verdict);                                                        \
        return used > 0 ? next(fd, local, used, offset, flags) : next(fd, vectors, count, offset, flags);              \
    }

#define DEFINE_FD(name_, operation_, parameters_, arguments_)                                                          \
    int name_ parameters_                                                                                              \
    {                                                                                                                  \
        REAL(name_)                                                                                                    \
        struct verdict verdict = judge_fd(operation_, fd);                                                             \
        FAIL_IF(verdict, -1);                                                                                          \
        return next arguments_;                                                                                        \
    }

// posix_fallocate returns its error instead of setting errno.
#define DEFINE_POSIX_FALLOCATE(name_)                                                                                  \
    int name_(int fd, off_t offset, off_t length)                                                                      \
    {                                                                                                                  \
        REAL(name_)                                                                                                    \
        struct verdict verdict = judge_fd(OP_FALLOCATE, fd);                                                           \
        return verdict.error != 0 ? verdict.error : next(fd, offset, length);                                          \
    }

#define TAKE_MODE(mode_, flags_)                                                                                       \
    mode_t mode_ = 0;                                                                                                  \
    if (((flags_)&O_CREAT) != 0 || ((flags_)&O_TMPFILE) == O_TMPFILE) {                                                \
        va_list rest;                                                                                                  \
        va_start(rest, flags_);                                                                                        \
        mode_ = (mode_t)va_arg(rest, unsigned);                                                                        \
        va_end(rest);                                                                                                  \
    }

#define DEFINE_OPEN(name_)                                                                                             \
    int name_(const char *name, int flags, ...)                                                                        \
    {                                                                                                                  \
        REAL(name_)                                                                                                    \
        TAKE_MODE(mode, flags)                                                                                         \
        if ((flags & O_CREAT) != 0)                                                                                    \
            FAIL_IF(judge_name(OP_CREATE, AT_FDCWD, name), -1);                                                        \
        return next(name, flags, mode);                                                                                \
    }

#define DEFINE_OPENAT(name_)                                                                                           \
    int name_(int dir_fd, const char *name, int flags, ...)                                                            \
    {                                                                                                                  \
        REAL(name_)                                                                                                    \
        TAKE_MODE(mode, flags)                                                                                         \
        if ((flags & O_CREAT) != 0)                                                                                    \
            FAIL_IF(judge_name(OP_CREATE, dir_fd, name), -1);                                                          \
        return next(dir_fd, name, flags, mode);                                                                        \
    }

// Each call has two names in the C library: programs built with 64-bit file offsets use the second one. On the 64-bit
// machines that Sluice runs on both take the same types.
_Static_assert(sizeof(off_t) == 8, "the names with and without 64 share their definitions here");
DEFINE_WRITE(pwrite)
DEFINE_WRITE(pwrite64)
DEFINE_READ(pread)
DEFINE_READ(pread64)
DEFINE_VECTOR(pwritev, OP_PWRITEV)
DEFINE_VECTOR(pwritev64, OP_PWRITEV)
DEFINE_VECTOR(preadv, OP_PREADV)
DEFINE_VECTOR(preadv64, OP_PREADV)
DEFINE_VECTOR2(pwritev2, OP_PWRITEV)
DEFINE_VECTOR2(pwritev64v2, OP_PWRITEV)
DEFINE_VECTOR2(preadv2, OP_PREADV)
DEFINE_VECTOR2(preadv64v2, OP_PREADV)
DEFINE_FD(fdatasync, OP_FDATASYNC, (int fd), (fd))
DEFINE_FD(fsync, OP_FSYNC, (int fd), (fd))
DEFINE_FD(sync_file_range, OP_SYNC_FILE_RANGE, (int fd, off_t offset, off_t length, unsigned flags),
          (fd, offset, length, flags))
DEFINE_FD(fallocate, OP_FALLOCATE, (int fd, int mode, off_t offset, off_t length), (fd, mode, offset, length))
DEFINE_FD(fallocate64, OP_FALLOCATE, (int fd, int mode, off_t offset, off_t length), (fd, mode, offset, length))
DEFINE_FD(ftruncate, OP_FTRUNCATE, (int fd, off_t length), (fd, length))
DEFINE_FD(ftruncate64, OP_FTRUNCATE, (int fd, off_t length), (fd, length))
DEFINE_POSIX_FALLOCATE(posix_fallocate)
DEFINE_POSIX_FALLOCATE(posix_fallocate64)
DEFINE_OPEN(open)
DEFINE_OPEN(open64)
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

int creat(const char *name, mode_t mode)
{
    REAL(creat)
    FAIL_IF(judge_name(OP_CREATE, AT_FDCWD, name), -1);
    return next(name, mode);
}

int rename(const char *from, const char *to)
{
    REAL(rename)
    FAIL_IF(judge_name(OP_RENAME, AT_FDCWD, to), -1);
    return next(from, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    REAL(renameat)
    FAIL_IF(judge_name(OP_RENAME, to_fd, to), -1);
    return next(from_fd, from, to_fd, to);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    REAL(renameat2)
    FAIL_IF(judge_name(OP_RENAME, to_fd, to), -1);
    return next(from_fd, from, to_fd, to, flags);
}
