// How fast a start knows ids again: fills a spool with records, closes it, and reads their ids from a cold file cache,
// alone and into a dedupe window.
//
//   ids_bench DIR [million ids] [threads]      DIR is created and left to the caller
#include "base/clock.h"
#include "base/crc32c.h"
#include "dedupe/dedupe.h"
#include "spool/ids.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 4, RECORDS = 10000, THREADS_MAX = 64, AHEAD = 24 };

struct filling {
    pthread_mutex_t mutex;
    pthread_cond_t back;
    struct spool_batch *idle;
};
static struct filling filling = {.mutex = PTHREAD_MUTEX_INITIALIZER, .back = PTHREAD_COND_INITIALIZER};

static void die(const char *what, const struct sl_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err != NULL ? err->text : "failed");
    exit(1);
}

static void give_back(struct spool_batch *batch)
{
    pthread_mutex_lock(&filling.mutex);
    batch->next = filling.idle;
    filling.idle = batch;
    pthread_cond_signal(&filling.back);
    pthread_mutex_unlock(&filling.mutex);
}

static void done(struct spool_batch *batch)
{
    if (batch->outcome != SPOOL_SYNCED)
        die("batch", NULL);
    give_back(batch);
}

static void *make_batch(void)
{
    static const char payload[100] = "{\"amount\":1}";
    struct spool_batch *batch = calloc(1, sizeof(*batch));
    for (int i = 0; i < RECORDS && batch != NULL; i++) {
        struct record record = {.kind = RECORD_EVENT,
                                .received_wall_ns = sl_wall_ns(),
                                .payload_crc = sl_crc32c(payload, sizeof(payload)),
                                .source = sl_span_of("bench"),
                                .lane = sl_span_of("main"),
                                .topic = sl_span_of("bench.events"),
                                .event_id = sl_span_of("0197e1d2-7a3c-7000-8000-000000000001"),
                                .payload = {payload, sizeof(payload)}};
        if (!record_append(&batch->records, &record, NULL, 0))
            die("record", NULL);
    }
    if (batch == NULL)
        die("batch", NULL);
    batch->lane_counts[0] = RECORDS;
    batch->done = done;
    return batch;
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static struct spool *open_spool(const char *dir)
{
    const char *lanes[] = {"main"};
    struct spool_options options = {.storage = &storage_posix,
                                    .dir = dir,
                                    .node = "bench",
                                    .segment_bytes = 256 << 20,
                                    .max_bytes = UINT64_C(200) << 30,
                                    .retain_ns = 3600 * SL_NS_PER_S,
                                    .prepared = 2,
                                    .append_bytes = 64 << 20,
                                    .ids_key_id = {1},
                                    .ids_window_ns = 3600 * SL_NS_PER_S,
                                    .lanes = lanes,
                                    .lane_count = 1};
    struct spool *spool;
    struct sl_error err;
    if (!spool_open(&spool, &options, &err))
        die("open", &err);
    return spool;
}

static void fill(const char *dir, uint64_t ids)
{
    struct spool *spool = open_spool(dir);
    struct sl_error err;
    int64_t before = sl_monotonic_ns();
    for (int i = 0; i < BATCHES; i++)
        give_back(make_batch());
    uint64_t number = 0;
    while (number < ids) {
        pthread_mutex_lock(&filling.mutex);
        while (filling.idle == NULL)
            pthread_cond_wait(&filling.back, &filling.mutex);
        struct spool_batch *batch = filling.idle;
        filling.idle = batch->next;
        pthread_mutex_unlock(&filling.mutex);
        for (size_t at = 0; at < batch->records.length; at = record_buffer_after(&batch->records, at)) {
            uint64_t hash[2] = {mix(2 * number), mix(2 * number + 1)};
            number++;
            record_buffer_mark(&batch->records, at, RECORD_EVENT, 0, (const uint8_t *)hash);
        }
        if (!spool_submit(spool, batch))
            die("submit", NULL);
    }
    if (!spool_close(spool, &err))
        die("close", &err);
    double seconds = (double)(sl_monotonic_ns() - before) / 1e9;
    printf("filled:   %6.1f M ids in %5.1f s\n", (double)ids / 1e6, seconds);
}

static void drop_cache(const char *dir, const char *stream)
{
    char path[2048];
    snprintf(path, sizeof(path), "%s/%s", dir, stream);
    DIR *list = opendir(path);
    if (list == NULL)
        die(path, NULL);
    for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
        snprintf(path, sizeof(path), "%s/%s/%s", dir, stream, entry->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0)
            continue;
        posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
        close(file);
    }
    closedir(list);
}

// ---- reading

struct reading {
    struct spool *spool;
    struct spool_ids_unit *units;
    size_t count;
    struct dedupe *dedupe; // or NULL
    uint32_t origin;
    _Atomic size_t next;
    _Atomic uint64_t ids, bytes, from_records, sum;
};

static bool take(void *user, const struct spool_ids_unit *unit, const struct spool_ids_block *block)
{
    struct reading *reading = user;
    uint64_t sum = 0;
    (void)unit;
    for (uint32_t i = 0; i < block->count; i++) {
        const struct ids_entry *entry = &block->entries[i];
        struct dedupe_id id = dedupe_id_load(entry->id_hash);
        if (reading->dedupe != NULL && i + AHEAD < block->count) {
            struct dedupe_id later = dedupe_id_load(block->entries[i + AHEAD].id_hash);
            dedupe_prefetch(reading->dedupe, &later);
        }
        sum ^= entry->payload_hash ^ entry->id_hash[0];
        if (reading->dedupe != NULL)
            dedupe_insert(reading->dedupe, &id, entry->payload_hash, block->last_received_wall_ns, reading->origin,
                          block->first_seq + i);
    }
    atomic_fetch_xor(&reading->sum, sum); // or the loop would be optimised away
    return true;
}

static void *read_units(void *argument)
{
    struct reading *reading = argument;
    for (size_t i; (i = atomic_fetch_add(&reading->next, 1)) < reading->count;) {
        struct spool_ids_result result;
        struct sl_error err;
        if (!spool_ids_read(reading->spool, &reading->units[i], 0, take, reading, &result, &err))
            die("read", &err);
        atomic_fetch_add(&reading->ids, result.ids);
        atomic_fetch_add(&reading->bytes, result.bytes);
        atomic_fetch_add(&reading->from_records, result.source == SPOOL_IDS_RECORDS);
    }
    return NULL;
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void read_all(const char *dir, uint64_t ids, unsigned threads, bool insert)
{
    struct reading reading = {.spool = open_spool(dir)};
    struct sl_error err;
    pthread_t started[THREADS_MAX];
    struct dedupe_options options = {
        .memory_bytes = ids * 36 + dedupe_memory_min(), .window_ns = 3600 * SL_NS_PER_S, .now_wall_ns = sl_wall_ns()};
    if (insert && !dedupe_new(&reading.dedupe, &options, &err))
        die("window", &err);
    if (!spool_ids_list(reading.spool, &reading.units, &reading.count, &err))
        die("list", &err);
    if (reading.count > 0)
        drop_cache(dir, reading.units[0].stream);
    if (insert)
        reading.origin = dedupe_origin(reading.dedupe, reading.units[0].stream);
    int64_t before = sl_monotonic_ns();
    double cpu_before = cpu_seconds();
    for (unsigned i = 0; i < threads; i++)
        pthread_create(&started[i], NULL, read_units, &reading);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(started[i], NULL);
    double seconds = (double)(sl_monotonic_ns() - before) / 1e9;
    double cpu = cpu_seconds() - cpu_before;
    printf(
        "%s %6.1f M ids in %5.2f s (CPU %.2f s), %u threads, %.1f M/s, %.1f bytes an id, %zu units, %u from records\n",
        insert ? "inserted:" : "read:    ", (double)reading.ids / 1e6, seconds, cpu, threads,
        (double)reading.ids / 1e6 / seconds, (double)reading.bytes / (double)reading.ids, reading.count,
        (unsigned)reading.from_records);
    free(reading.units);
    if (insert)
        dedupe_free(reading.dedupe);
    if (!spool_close(reading.spool, &err))
        die("close", &err);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: ids_bench DIR [million ids] [threads]\n");
        return 2;
    }
    uint64_t ids = (argc > 2 ? strtoull(argv[2], NULL, 10) : 50) * 1000000;
    unsigned threads = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 2;
    if (threads < 1 || threads > THREADS_MAX)
        return 2;
    fill(argv[1], ids);
    read_all(argv[1], ids, threads, false);
    read_all(argv[1], ids, threads, true);
    return 0;
}
