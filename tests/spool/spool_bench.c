// How fast the spool takes batches, beside the raw rate of write + fdatasync of the same sizes on a zeroed file.
//
//   spool_bench DIR [seconds per row]      prints a table; DIR is created and left to the caller
#include "base/clock.h"
#include "base/crc32c.h"
#include "spool/spool.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { BATCHES_MAX = 64 };

struct bench {
    pthread_mutex_t mutex;
    pthread_cond_t back;
    struct spool_batch *idle;
    unsigned idle_count;
    _Atomic uint64_t bytes, batches;
};

struct slot {
    struct spool_batch batch; // first
    struct bench *bench;
};

static void done(struct spool_batch *batch)
{
    struct slot *slot = (struct slot *)(void *)batch;
    struct bench *bench = slot->bench;
    if (batch->outcome != SPOOL_SYNCED) {
        fprintf(stderr, "a batch failed\n");
        exit(1);
    }
    atomic_fetch_add(&bench->bytes, batch->records.length);
    atomic_fetch_add(&bench->batches, 1);
    pthread_mutex_lock(&bench->mutex);
    batch->next = bench->idle;
    bench->idle = batch;
    bench->idle_count++;
    pthread_cond_signal(&bench->back);
    pthread_mutex_unlock(&bench->mutex);
}

static void fill(struct spool_batch *batch, size_t bytes)
{
    static char payload[1024];
    memset(payload, 'x', sizeof(payload));
    uint32_t crc = sl_crc32c(payload, sizeof(payload));
    while (batch->records.length + 1100 < bytes || batch->records.count == 0) {
        struct record record = {.kind = RECORD_EVENT,
                                .payload_crc = crc,
                                .source = sl_span_of("bench"),
                                .lane = sl_span_of("main"),
                                .topic = sl_span_of("bench.events"),
                                .payload = {.bytes = payload, .length = sizeof(payload)}};
        if (!record_append(&batch->records, &record, NULL, 0))
            exit(1);
    }
    batch->lane_counts[0] = batch->records.count;
    batch->done = done;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

// Holds the last frames as replication does while a peer has not answered. Writer thread.
enum { HELD = 32 };
struct tap {
    struct spool_frame *held[HELD];
    uint64_t count;
};

static void hold(void *user, struct spool_frame *frame)
{
    struct tap *tap = user;
    struct spool_frame **place = &tap->held[tap->count++ % HELD];
    if (*place != NULL)
        spool_frame_release(*place);
    *place = spool_frame_retain(frame);
}

// One thread, `depth` batches in flight.
static void run(struct spool *spool, size_t batch_bytes, unsigned depth, double seconds)
{
    static struct slot slots[BATCHES_MAX];
    struct bench bench = {.mutex = PTHREAD_MUTEX_INITIALIZER, .back = PTHREAD_COND_INITIALIZER};
    memset(slots, 0, sizeof(slots));
    for (unsigned i = 0; i < depth; i++) {
        slots[i].bench = &bench;
        fill(&slots[i].batch, batch_bytes);
        slots[i].batch.next = bench.idle;
        bench.idle = &slots[i].batch;
        bench.idle_count++;
    }
    uint64_t commits_before = histogram_count(spool_commit_histogram(spool));
    double cpu_before = cpu_seconds();
    int64_t start = sl_monotonic_ns(), end = start + (int64_t)(seconds * 1e9);
    while (sl_monotonic_ns() < end) {
        pthread_mutex_lock(&bench.mutex);
        while (bench.idle == NULL)
            pthread_cond_wait(&bench.back, &bench.mutex);
        struct spool_batch *batch = bench.idle;
        bench.idle = batch->next;
        bench.idle_count--;
        pthread_mutex_unlock(&bench.mutex);
        if (!spool_submit(spool, batch))
            exit(1);
    }
    pthread_mutex_lock(&bench.mutex);
    while (bench.idle_count < depth)
        pthread_cond_wait(&bench.back, &bench.mutex);
    pthread_mutex_unlock(&bench.mutex);
    double elapsed = (double)(sl_monotonic_ns() - start) / 1e9;
    uint64_t commits = histogram_count(spool_commit_histogram(spool)) - commits_before;
    printf("spool %8zu B x %2u in flight: %7.0f commits/s %9.1f MB/s  cpu %5.1f%%  %6.1f us cpu/commit\n", batch_bytes,
           depth, (double)commits / elapsed, (double)atomic_load(&bench.bytes) / elapsed / 1e6,
           (cpu_seconds() - cpu_before) / elapsed * 100.0, (cpu_seconds() - cpu_before) * 1e6 / (double)commits);
    for (unsigned i = 0; i < depth; i++)
        record_buffer_free(&slots[i].batch.records);
}

// pwrite + fdatasync over a zeroed file: what the disk gives to one writer.
static void raw(const char *dir, size_t bytes, double seconds)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/raw", dir);
    enum { FILE_BYTES = 256 << 20 };
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char *buffer = calloc(1, 1 << 20);
    if (fd < 0 || buffer == NULL)
        exit(1);
    for (off_t at = 0; at < FILE_BYTES; at += 1 << 20)
        if (pwrite(fd, buffer, 1 << 20, at) < 0)
            exit(1);
    fsync(fd);
    memset(buffer, 'x', 1 << 20);
    int64_t start = sl_monotonic_ns(), end = start + (int64_t)(seconds * 1e9);
    uint64_t count = 0;
    for (off_t at = 0; sl_monotonic_ns() < end; at = at + (off_t)bytes < FILE_BYTES ? at + (off_t)bytes : 0, count++)
        if (pwrite(fd, buffer, bytes, at) < 0 || fdatasync(fd) != 0)
            exit(1);
    double elapsed = (double)(sl_monotonic_ns() - start) / 1e9;
    printf("raw   %8zu B                : %7.0f syncs/s   %9.1f MB/s\n", bytes, (double)count / elapsed,
           (double)count * (double)bytes / elapsed / 1e6);
    close(fd);
    unlink(path);
    free(buffer);
}

// Time of write and sync so far, as the histogram's bounds have it.
static void print_stalls(struct spool *spool)
{
    const struct histogram *sync = spool_sync_histogram(spool);
    struct spool_figures figures;
    spool_figures(spool, &figures);
    printf("      write and sync so far: p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms; %llu segments, %llu ready\n",
           (double)histogram_quantile(sync, 0.5) / 1e6, (double)histogram_quantile(sync, 0.99) / 1e6,
           (double)histogram_quantile(sync, 0.999) / 1e6, (unsigned long long)figures.segments,
           (unsigned long long)figures.segments_ready);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: spool_bench DIR [seconds [tap]]\n");
        return 2;
    }
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 2.0;
    const char *lanes[] = {"main"};
    struct spool_options options = {.storage = &storage_posix,
                                    .dir = argv[1],
                                    .node = "bench",
                                    .segment_bytes = 256 << 20,
                                    .max_bytes = UINT64_C(40) << 30,
                                    .retain_ns = 0,
                                    .prepared = 2,
                                    .append_bytes = 256 << 20,
                                    .lanes = lanes,
                                    .lane_count = 1};
    struct tap tap = {.count = 0};
    if (argc > 3 && strcmp(argv[3], "tap") == 0) {
        options.on_frame = hold;
        options.user = &tap;
    }
    struct spool *spool;
    struct sl_error err;
    int64_t before = sl_monotonic_ns();
    if (!spool_open(&spool, &options, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("open: %.1f ms\n", (double)(sl_monotonic_ns() - before) / 1e6);
    for (struct spool_figures figures = {0}; figures.segments_ready < 2;) {
        spool_figures(spool, &figures);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    printf("two segments ready: %.1f ms\n", (double)(sl_monotonic_ns() - before) / 1e6);
    const size_t sizes[] = {4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        raw(argv[1], sizes[i], seconds);
        run(spool, sizes[i], 1, seconds);
        run(spool, sizes[i], 2, seconds);
        run(spool, sizes[i], 16, seconds);
        print_stalls(spool);
    }
    for (size_t i = 0; i < HELD; i++)
        if (tap.held[i] != NULL)
            spool_frame_release(tap.held[i]);
    if (!spool_close(spool, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return 0;
}
