// raw-commit: what this machine's disk allows a group commit. A file of a segment's size, written and synced X KiB at a
// time from its start, again and again: nothing else is done, so no spool on this disk commits more often.
//
// Modes: `zeroed` (zero-filled and synced beforehand, as Sluice's segments are), `fallocated` (extents without data:
// the first write of each turns it into a written one, which the sync has to record), `growing` (each write extends the
// file).
#include "base/clock.h"
#include "base/error.h"
#include "bench/latency.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES = 256 << 20, BLOCK_BYTES_MAX = 4 << 20 };
static const size_t sizes[] = {4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20};
enum { SIZE_COUNT = sizeof(sizes) / sizeof(sizes[0]) };

struct disk_file {
    const char *path;
    const char *mode;
    int fd;
    uint8_t *block; // BLOCK_BYTES_MAX of noise, so that a disk that compresses or skips zeros gains nothing
};

static bool write_at(const struct disk_file *file, size_t length, off_t offset, struct sl_error *err)
{
    ssize_t wrote = pwrite(file->fd, file->block, length, offset);
    if (wrote != (ssize_t)length)
        return sl_fail_errno(err, SL_E_IO, wrote < 0 ? errno : EIO, "write %s", file->path);
    return true;
}

static bool prepare(struct disk_file *file, struct sl_error *err)
{
    file->fd = open(file->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file->fd < 0)
        return sl_fail_errno(err, SL_E_IO, errno, "create %s", file->path);
    if (strcmp(file->mode, "growing") == 0)
        return true;
    int status = posix_fallocate(file->fd, 0, FILE_BYTES);
    if (status != 0)
        return sl_fail_errno(err, SL_E_IO, status, "fallocate %s", file->path);
    if (strcmp(file->mode, "zeroed") == 0)
        for (off_t offset = 0; offset < FILE_BYTES; offset += BLOCK_BYTES_MAX)
            if (!write_at(file, BLOCK_BYTES_MAX, offset, err))
                return false;
    if (fsync(file->fd) != 0)
        return sl_fail_errno(err, SL_E_IO, errno, "sync %s", file->path);
    return true;
}

// Commits for `duration_ns`; fallocated and growing files are measured at most once through, for a second pass would
// meet written blocks.
static bool measure(const struct disk_file *file, size_t size, int64_t duration_ns, struct latency *latency,
                    int64_t *took_ns, struct sl_error *err)
{
    bool once = strcmp(file->mode, "zeroed") != 0;
    latency_reset(latency);
    int64_t start_ns = sl_monotonic_ns(), now_ns = start_ns;
    off_t offset = 0;
    while (now_ns - start_ns < duration_ns) {
        if (!write_at(file, size, offset, err))
            return false;
        if (fdatasync(file->fd) != 0)
            return sl_fail_errno(err, SL_E_IO, errno, "sync %s", file->path);
        int64_t done_ns = sl_monotonic_ns();
        latency_add(latency, (uint64_t)(done_ns - now_ns));
        now_ns = done_ns;
        offset += (off_t)size;
        if (offset + (off_t)size > FILE_BYTES) {
            if (once)
                break;
            offset = 0;
        }
    }
    *took_ns = now_ns - start_ns;
    return true;
}

static bool run(struct disk_file *file, double seconds, bool json, struct sl_error *err)
{
    if (!json)
        printf("%-10s %10s %12s %10s %10s %10s %10s\n", "mode", "KiB", "commits/s", "MB/s", "p50 us", "p99 us",
               "max us");
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        struct latency latency;
        int64_t took_ns = 0;
        bool good = prepare(file, err) &&
                    measure(file, sizes[i], (int64_t)(seconds * (double)SL_NS_PER_S), &latency, &took_ns, err);
        if (file->fd >= 0)
            close(file->fd);
        unlink(file->path);
        if (!good)
            return false;
        double rate = (double)latency.count * (double)SL_NS_PER_S / (double)took_ns;
        const char *format = json ? "{\"mode\":\"%s\",\"kib\":%zu,\"commits_per_second\":%.0f,\"mb_per_second\":%.1f,"
                                    "\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n"
                                  : "%-10s %10zu %12.0f %10.1f %10.1f %10.1f %10.1f\n";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        printf(format, file->mode, sizes[i] >> 10, rate, rate * (double)sizes[i] / 1e6,
               (double)latency_quantile_ns(&latency, 0.5) / 1e3, (double)latency_quantile_ns(&latency, 0.99) / 1e3,
               (double)latency.max_ns / 1e3);
#pragma GCC diagnostic pop
        fflush(stdout);
    }
    return true;
}

int main(int argc, char **argv)
{
    struct disk_file file = {.mode = "zeroed", .fd = -1};
    double seconds = 1;
    bool json = false, understood = true;
    int option;
    while ((option = getopt(argc, argv, "m:t:j")) != -1) {
        if (option == 'm')
            file.mode = optarg;
        else if (option == 't')
            seconds = strtod(optarg, NULL);
        else if (option == 'j')
            json = true;
        else
            understood = false;
    }
    bool known =
        strcmp(file.mode, "zeroed") == 0 || strcmp(file.mode, "fallocated") == 0 || strcmp(file.mode, "growing") == 0;
    if (!understood || optind != argc - 1 || !known || !(seconds > 0)) {
        fprintf(stderr, "usage: raw-commit [-j] [-t SECONDS] [-m zeroed|fallocated|growing] DIRECTORY\n");
        return 2;
    }
    char path[4096];
    snprintf(path, sizeof(path), "%s/raw-commit.%d", argv[optind], (int)getpid());
    file.path = path;
    file.block = (uint8_t *)aligned_alloc(4096, BLOCK_BYTES_MAX);
    sl_assert(file.block != NULL);
    uint64_t noise = 1;
    for (size_t i = 0; i < BLOCK_BYTES_MAX; i++) {
        noise = noise * UINT64_C(6364136223846793005) + 1442695040888963407;
        file.block[i] = (uint8_t)(noise >> 56);
    }
    struct sl_error err;
    bool good = run(&file, seconds, json, &err);
    free(file.block);
    if (!good)
        fprintf(stderr, "raw-commit: %s\n", err.text);
    return good ? 0 : 1;
}
