// The real storage, in a directory of its own: results and errors are those that storage.h promises.
#include "spool/storage.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const struct storage_ops *ops;
static char dir[200];

static const char *in_dir(const char *name)
{
    static char paths[4][300];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
    return path;
}

static int make(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    ops = storage_posix.ops;
    snprintf(dir, sizeof(dir), "%s/spool-storage-XXXXXX",
             tmp != NULL ? tmp : "/var/tmp"); // not tmpfs: fallocate differs there
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static bool remove_entry(void *user, const char *name, bool is_directory)
{
    (void)user;
    if (is_directory)
        ops->rmdir(NULL, in_dir(name));
    else
        ops->unlink(NULL, in_dir(name));
    return true;
}

static int unmake(void **state)
{
    (void)state;
    ops->list(NULL, dir, remove_entry, NULL);
    return ops->rmdir(NULL, dir);
}

static void files_are_made_written_and_read(void **state)
{
    (void)state;
    int handle = ops->open(NULL, in_dir("a"), STORAGE_CREATE);
    assert_true(handle >= 0);
    assert_int_equal(ops->open(NULL, in_dir("a"), STORAGE_CREATE), -EEXIST);
    assert_int_equal(ops->open(NULL, in_dir("none"), STORAGE_READ), -ENOENT);
    assert_int_equal(ops->allocate(NULL, handle, 64 << 10), 0);
    char letters[] = "abcdefg";
    struct iovec parts[] = {{letters, 3}, {letters, 0}, {letters + 3, 4}};
    assert_int_equal(ops->pwritev(NULL, handle, parts, 3, 100), 0);
    assert_int_equal(ops->fdatasync(NULL, handle), 0);
    char bytes[16];
    assert_int_equal(ops->pread(NULL, handle, bytes, 9, 99), 9);
    assert_memory_equal(bytes, "\0abcdefg\0", 9);
    assert_int_equal(ops->pread(NULL, handle, bytes, 16, (64 << 10) - 5), 5); // fewer only at the end
    assert_int_equal(ops->pread(NULL, handle, bytes, 16, 64 << 10), 0);
    assert_int_equal(ops->truncate(NULL, handle, 103), 0);
    assert_int_equal(ops->pread(NULL, handle, bytes, 16, 100), 3);
    assert_int_equal(ops->close(NULL, handle), 0);
    struct stat st;
    assert_int_equal(stat(in_dir("a"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_read_only_handle_does_not_write(void **state)
{
    (void)state;
    close(ops->open(NULL, in_dir("a"), STORAGE_CREATE));
    int handle = ops->open(NULL, in_dir("a"), STORAGE_READ);
    char letter[] = "x";
    struct iovec part = {letter, 1};
    assert_int_equal(ops->pwritev(NULL, handle, &part, 1, 0), -EBADF);
    assert_int_equal(ops->fdatasync(NULL, handle), 0); // an older stream is settled through such a handle
    ops->close(NULL, handle);
}

// A write that the kernel cuts short goes on; when it cannot go on, that is an error and not a success.
static void a_short_write_is_never_a_success(void **state)
{
    (void)state;
    int handle = ops->open(NULL, in_dir("a"), STORAGE_CREATE);
    struct rlimit before, small = {.rlim_cur = 10000};
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    assert_int_equal(sigaction(SIGXFSZ, &ignore, &old), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    static char bytes[8192];
    struct iovec parts[] = {{bytes, 4096}, {bytes, 8192}};
    int rc = ops->pwritev(NULL, handle, parts, 2, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(sigaction(SIGXFSZ, &old, NULL), 0);
    assert_int_equal(rc, -EFBIG);
    ops->close(NULL, handle);
}

// More than one pwritev(2) takes: the kernel writes at most 2 GiB − 4 KiB a call, and stops where a signal finds it.
static void many_parts_arrive_in_order(void **state)
{
    (void)state;
    enum { PARTS = 1002 };
    int handle = ops->open(NULL, in_dir("a"), STORAGE_CREATE);
    static uint32_t numbers[PARTS][256];
    struct iovec parts[PARTS];
    for (uint32_t i = 0; i < PARTS; i++) {
        for (uint32_t k = 0; k < 256; k++)
            numbers[i][k] = i * 256 + k;
        parts[i] = (struct iovec){numbers[i], sizeof(numbers[i])};
    }
    assert_int_equal(ops->pwritev(NULL, handle, parts, PARTS, 4096), 0);
    static uint32_t back[PARTS * 256];
    assert_int_equal(ops->pread(NULL, handle, back, sizeof(back), 4096), sizeof(back));
    for (uint32_t i = 0; i < PARTS * 256; i++)
        assert_int_equal(back[i], i);
    ops->close(NULL, handle);
}

static void zeroes_past_the_cache_are_zeroes(void **state)
{
    (void)state;
    static _Alignas(4096) char zeros[64 << 10];
    int handle = ops->open(NULL, in_dir("a"), STORAGE_CREATE);
    assert_int_equal(ops->allocate(NULL, handle, 1 << 20), 0);
    ops->bypass_cache(NULL, handle, true);
    struct iovec parts[] = {{zeros, sizeof(zeros)}, {zeros, sizeof(zeros)}};
    assert_int_equal(ops->pwritev(NULL, handle, parts, 2, 64 << 10), 0);
    ops->bypass_cache(NULL, handle, false);
    char text[] = "unaligned";
    struct iovec part = {text, 9};
    assert_int_equal(ops->pwritev(NULL, handle, &part, 1, 70001), 0); // through the cache again
    char bytes[11];
    assert_int_equal(ops->pread(NULL, handle, bytes, 11, 70000), 11);
    assert_memory_equal(bytes, "\0unaligned\0", 11);
    ops->close(NULL, handle);
}

// A file system that takes O_DIRECT and then refuses a write behaves like this one with memory that is not aligned.
static void what_cannot_go_past_the_cache_goes_through_it(void **state)
{
    (void)state;
    int handle = ops->open(NULL, in_dir("direct"), STORAGE_CREATE);
    ops->bypass_cache(NULL, handle, true);
    static char bytes[10000];
    memset(bytes, 'x', sizeof(bytes));
    struct iovec part = {bytes + 1, 9001};
    assert_int_equal(ops->pwritev(NULL, handle, &part, 1, 4096), 0);
    assert_int_equal(ops->fdatasync(NULL, handle), 0);
    char back[9001];
    assert_int_equal(ops->pread(NULL, handle, back, sizeof(back), 4096), sizeof(back));
    assert_memory_equal(back, bytes + 1, sizeof(back));
    ops->close(NULL, handle);
}

static bool count_entry(void *user, const char *name, bool is_directory)
{
    unsigned *seen = user;
    if (strcmp(name, "d") == 0 && is_directory)
        *seen += 1;
    else if (strcmp(name, "f") == 0 && !is_directory)
        *seen += 10;
    else
        *seen += 100;
    return true;
}

static void directories(void **state)
{
    (void)state;
    struct storage_file_info info;
    assert_int_equal(ops->mkdir(NULL, in_dir("d")), 0);
    assert_int_equal(ops->mkdir(NULL, in_dir("d")), -EEXIST);
    close(ops->open(NULL, in_dir("f"), STORAGE_CREATE));
    assert_int_equal(ops->sync_directory(NULL, dir), 0);
    unsigned seen = 0;
    assert_int_equal(ops->list(NULL, dir, count_entry, &seen), 0);
    assert_int_equal(seen, 11);
    assert_int_equal(ops->info(NULL, in_dir("d"), &info), 0);
    assert_true(info.is_directory);
    assert_int_equal(ops->info(NULL, in_dir("f"), &info), 0);
    assert_false(info.is_directory);
    assert_int_equal(info.size_bytes, 0);
    assert_true(info.modified_wall_ns > 0);
    assert_int_equal(ops->info(NULL, in_dir("none"), &info), -ENOENT);
    assert_int_equal(ops->rename(NULL, in_dir("f"), in_dir("d/f")), 0);
    assert_int_equal(ops->rmdir(NULL, in_dir("d")), -ENOTEMPTY);
    assert_int_equal(ops->unlink(NULL, in_dir("d/f")), 0);
    assert_int_equal(ops->unlink(NULL, in_dir("d/f")), -ENOENT);
    assert_int_equal(ops->rmdir(NULL, in_dir("d")), 0);
    assert_int_equal(ops->list(NULL, in_dir("d"), count_entry, &seen), -ENOENT);
    assert_int_equal(ops->sync_directory(NULL, in_dir("d")), -ENOENT);
    uint64_t bytes;
    assert_int_equal(ops->free_bytes(NULL, dir, &bytes), 0);
    assert_true(bytes > 0);
}

static void a_lock_is_exclusive_until_its_handle_closes(void **state)
{
    (void)state;
    int handle = ops->lock(NULL, dir);
    assert_true(handle >= 0);
    assert_int_equal(ops->lock(NULL, dir), -EWOULDBLOCK);
    assert_int_equal(ops->close(NULL, handle), 0);
    handle = ops->lock(NULL, dir);
    assert_true(handle >= 0);
    ops->close(NULL, handle);
}

static void a_link_is_not_followed(void **state)
{
    (void)state;
    close(ops->open(NULL, in_dir("target"), STORAGE_CREATE));
    assert_int_equal(symlink(in_dir("target"), in_dir("link")), 0);
    assert_int_equal(ops->open(NULL, in_dir("link"), STORAGE_WRITE), -ELOOP);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, make, unmake)
    const struct CMUnitTest tests[] = {
        STORY(files_are_made_written_and_read),
        STORY(a_read_only_handle_does_not_write),
        STORY(a_short_write_is_never_a_success),
        STORY(many_parts_arrive_in_order),
        STORY(zeroes_past_the_cache_are_zeroes),
        STORY(what_cannot_go_past_the_cache_goes_through_it),
        STORY(directories),
        STORY(a_lock_is_exclusive_until_its_handle_closes),
        STORY(a_link_is_not_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
