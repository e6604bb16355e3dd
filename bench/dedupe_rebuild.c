// How long a start waits for its window. A spool is filled with records of so many ids, as they would have come; then
// the gateway's own rebuild is run, with the files out of the page cache: from the spool's ids alone, and from a
// snapshot that holds nine of ten and the spool's ids of the rest.
#include "base/clock.h"
#include "base/crc32c.h"
#include "bench/dedupe_bench.h"
#include "bench/dedupe_tables.h"
#include "gateway/window.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BATCHES = 4, RECORDS = 10000, BYTES_PER_ID = 32, CHECK_EVERY = 1000 };
static const double RATE = 120000; // ids a second
static const int64_t window_ns = 24 * 3600 * SL_NS_PER_S;

struct bench {
    const char *dir;
    uint64_t ids;
    int64_t last_ns; // when the last of them was received
    struct window *window;
    struct spool *spool;

    pthread_mutex_t mutex;
    pthread_cond_t back;
    struct spool_batch *idle; // with mutex
    unsigned open;            // with mutex
    bool failed;              // with mutex
    uint64_t through;         // of the stream that the snapshot holds
};
static struct bench bench = {.mutex = PTHREAD_MUTEX_INITIALIZER, .back = PTHREAD_COND_INITIALIZER};

static int64_t received_ns(uint64_t number)
{
    return bench.last_ns - (int64_t)((double)(bench.ids - number) / RATE * (double)SL_NS_PER_S);
}

// ---- the node, but for what does not matter here

static bool open_node(struct sl_error *err)
{
    uint64_t memory = bench.ids * BYTES_PER_ID, least = dedupe_memory_min();
    struct window_options window = {.storage = &storage_posix,
                                    .spool_dir = bench.dir,
                                    .window_ns = window_ns,
                                    .memory_bytes = memory > least ? memory : least,
                                    .snapshot_every_ns = window_ns};
    static const char *const lanes[] = {"main"};
    struct spool_options spool = {.storage = &storage_posix,
                                  .dir = bench.dir,
                                  .node = "bench",
                                  .segment_bytes = 256 << 20,
                                  .max_bytes = UINT64_C(200) << 30,
                                  .retain_ns = window_ns,
                                  .prepared = 2,
                                  .append_bytes = 64 << 20,
                                  .ids_window_ns = window_ns,
                                  .lanes = lanes,
                                  .lane_count = 1};
    if (!window_new(&bench.window, &window, err))
        return false;
    memcpy(spool.ids_key_id, window_key(bench.window)->id, sizeof(spool.ids_key_id));
    if (!spool_open(&bench.spool, &spool, err)) {
        window_free(bench.window);
        return false;
    }
    return true;
}

static bool close_node(struct sl_error *err)
{
    window_free(bench.window);
    return spool_close(bench.spool, err);
}

// ---- records

static void done(struct spool_batch *batch)
{
    pthread_mutex_lock(&bench.mutex);
    bench.failed |= batch->outcome != SPOOL_SYNCED;
    batch->next = bench.idle;
    bench.idle = batch;
    bench.open--;
    pthread_cond_signal(&bench.back);
    pthread_mutex_unlock(&bench.mutex);
}

static struct spool_batch *take_batch(void)
{
    pthread_mutex_lock(&bench.mutex);
    while (bench.idle == NULL)
        pthread_cond_wait(&bench.back, &bench.mutex);
    struct spool_batch *batch = bench.idle;
    bench.idle = batch->next;
    bench.open++;
    pthread_mutex_unlock(&bench.mutex);
    return batch;
}

static bool submit(uint64_t from, uint64_t to, struct sl_error *err)
{
    static const char payload[] = "{}";
    struct spool_batch *batch = take_batch();
    record_buffer_cut(&batch->records, 0, 0);
    struct record record = {.kind = RECORD_EVENT,
                            .received_wall_ns = received_ns(from),
                            .payload_crc = sl_crc32c(payload, sizeof(payload) - 1),
                            .source = sl_span_of("s"),
                            .lane = sl_span_of("main"),
                            .topic = sl_span_of("t"),
                            .event_id = sl_span_of("e"),
                            .payload = {payload, sizeof(payload) - 1}};
    for (uint64_t i = from; i < to; i++) {
        struct table_key key = table_key_of(i);
        memcpy(record.id_hash, key.id, sizeof(record.id_hash));
        record.payload_hash = key.payload_hash;
        if (!record_append(&batch->records, &record, NULL, 0))
            return sl_fail(err, SL_E_NO_MEMORY, "records");
    }
    batch->lane_counts[0] = batch->records.count;
    batch->done = done;
    return spool_submit(bench.spool, batch) || sl_fail(err, SL_E_UNAVAILABLE, "the spool takes nothing");
}

static bool append(uint64_t from, uint64_t to, struct sl_error *err)
{
    bool good = true;
    for (uint64_t i = from; i < to && good; i += RECORDS)
        good = submit(i, to - i < RECORDS ? to : i + RECORDS, err);
    pthread_mutex_lock(&bench.mutex);
    while (bench.open > 0 && good)
        pthread_cond_wait(&bench.back, &bench.mutex);
    bool failed = bench.failed;
    pthread_mutex_unlock(&bench.mutex);
    return good && (!failed || sl_fail(err, SL_E_IO, "the spool failed"));
}

// ---- files

static const char *path_of(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", bench.dir, name);
    return path;
}

// All files below, which are durable already.
static void drop_from_cache(const char *path)
{
    DIR *list = opendir(path);
    for (struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL;) {
        char name[PATH_MAX];
        if (entry->d_name[0] == '.' || snprintf(name, sizeof(name), "%s/%s", path, entry->d_name) >= PATH_MAX)
            continue;
        if (entry->d_type == DT_DIR)
            drop_from_cache(name);
        int fd = entry->d_type == DT_REG ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        if (fd >= 0) {
            (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            close(fd);
        }
    }
    if (list != NULL)
        closedir(list);
}

// ---- what is measured

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

// Every thousandth id has to be there, of the seq that it was stored under; and nothing was let go.
static bool check(uint64_t first_stream, struct sl_error *err)
{
    struct dedupe *dedupe = window_dedupe(bench.window);
    for (uint64_t i = 0; i < bench.ids; i += CHECK_EVERY) {
        struct table_key key = table_key_of(i);
        struct dedupe_found found;
        struct dedupe_id id = {{key.id[0], key.id[1]}};
        uint64_t seq = i < first_stream ? i + 1 : i - first_stream + 1;
        if (dedupe_look(dedupe, &id, key.payload_hash, &found) != DEDUPE_DUPLICATE || found.seq != seq)
            return sl_fail(err, SL_E_NOT_FOUND, "id %llu is not there", (unsigned long long)i);
    }
    struct dedupe_figures figures;
    dedupe_figures(dedupe, sl_wall_ns(), &figures);
    if (figures.evicted > 0 || figures.entries != bench.ids)
        return sl_fail(err, SL_E_INVALID, "%llu entries, %llu let go", (unsigned long long)figures.entries,
                       (unsigned long long)figures.evicted);
    int64_t covered_ns = sl_wall_ns() - received_ns(0);
    return figures.covered_ns > covered_ns - 2 * SL_NS_PER_S ||
           sl_fail(err, SL_E_INVALID, "%lld s are covered", (long long)(figures.covered_ns / SL_NS_PER_S));
}

static bool measure(const char *from, uint64_t first_stream, struct sl_error *err)
{
    drop_from_cache(bench.dir);
    int64_t start_ns = sl_monotonic_ns();
    if (!open_node(err))
        return false;
    double opened_s = (double)(sl_monotonic_ns() - start_ns) * 1e-9, cpu_s = cpu_seconds();
    bool good = window_load(bench.window, bench.spool) || sl_fail(err, SL_E_INVALID, "stopped");
    double rebuilt_s = (double)(sl_monotonic_ns() - start_ns) * 1e-9;
    cpu_s = cpu_seconds() - cpu_s;
    good = good && check(first_stream, err);
    struct dedupe_figures figures;
    dedupe_figures(window_dedupe(bench.window), sl_wall_ns(), &figures);
    struct sl_error closing;
    if (!close_node(&closing) && good)
        *err = closing, good = false;
    if (good)
        printf("{\"from\":\"%s\",\"ids\":%llu,\"rebuild_s\":%.2f,\"of_it_opening_s\":%.2f,\"cpu_s\":%.2f,"
               "\"generations\":%llu}\n",
               from, (unsigned long long)bench.ids, rebuilt_s, opened_s, cpu_s,
               (unsigned long long)figures.generations);
    fflush(stdout);
    return good;
}

static uint64_t through(void *user, const char *stream)
{
    (void)user;
    return strcmp(stream, spool_stream(bench.spool)) == 0 ? 0 : bench.through;
}

// The first process: nine of ten ids. The second one knows them again, writes a snapshot and stores the rest.
static bool prepare(uint64_t first_stream, struct sl_error *err)
{
    struct dedupe_snapshot_writing how = {.through = through};
    struct sl_error closing;
    if (!open_node(err))
        return false;
    bool good = append(0, first_stream, err);
    good = close_node(&closing) && good;
    if (!good || !open_node(err))
        return false;
    bench.through = first_stream;
    good = window_load(bench.window, bench.spool) &&
           (mkdir(path_of("dedupe"), 0700) == 0 || sl_fail(err, SL_E_IO, "mkdir"));
    good = good && dedupe_snapshot_write(window_dedupe(bench.window), window_key(bench.window), &storage_posix,
                                         path_of("dedupe"), &how, sl_wall_ns(), err);
    good = good && append(first_stream, bench.ids, err);
    return close_node(&closing) && good;
}

int bench_rebuild(uint64_t ids, const char *dir)
{
    struct sl_error err = {.text = "failed"};
    struct spool_batch batches[BATCHES] = {{.next = NULL}};
    uint64_t first_stream = ids / 10 * 9;
    bench.dir = dir;
    bench.ids = ids;
    bench.last_ns = sl_wall_ns();
    bench.open = BATCHES;
    for (int i = 0; i < BATCHES; i++)
        done(&batches[i]);
    char away[PATH_MAX], there[PATH_MAX];
    snprintf(away, sizeof(away), "%s/snapshot", dir);
    snprintf(there, sizeof(there), "%s/dedupe/snapshot", dir);
    bool good = prepare(first_stream, &err) && rename(there, away) == 0 && measure("spool", first_stream, &err) &&
                rename(away, there) == 0 && measure("snapshot and spool", first_stream, &err);
    for (int i = 0; i < BATCHES; i++)
        record_buffer_free(&batches[i].records);
    if (!good)
        fprintf(stderr, "dedupe-bench: %s\n", err.text);
    return good ? 0 : 1;
}
