// How long a start waits for its window: a snapshot of so many ids, written, dropped from the page cache, and loaded.
#include "base/clock.h"
#include "bench/dedupe_bench.h"
#include "bench/dedupe_tables.h"
#include "dedupe/dedupe.h"
#include "spool/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { FILL_BATCH = 100, BYTES_PER_ID = 32 };
static const double RATE = 120000; // ids a second

static const char own_stream[] = "bench.1-00000001";
static const int64_t window_ns = 24 * 3600 * SL_NS_PER_S;

static uint64_t through(void *user, const char *stream)
{
    (void)stream;
    return *(const uint64_t *)user;
}

static void covers(void *user, const char *stream, uint64_t seq)
{
    *(bool *)user = strcmp(stream, own_stream) == 0 && seq > 0;
}

static double seconds_since(int64_t start_ns)
{
    return (double)(sl_monotonic_ns() - start_ns) / (double)SL_NS_PER_S;
}

// Two threads, as they come in: in the order of their seqs, at the rate of the payments case, so that the generations
// are as full of time as they would be.
struct filling {
    struct dedupe *dedupe;
    uint64_t ids;
    int64_t now_ns;
    _Atomic uint64_t next, others;
};

static void fill_batch(struct filling *filling, uint64_t from, uint64_t to)
{
    int64_t wall_ns = filling->now_ns - (int64_t)((double)(filling->ids - from) / RATE * (double)SL_NS_PER_S);
    for (uint64_t i = from; i < to; i++) {
        struct table_key key = table_key_of(i);
        dedupe_prefetch(filling->dedupe, &(struct dedupe_id){{key.id[0], key.id[1]}});
    }
    for (uint64_t i = from; i < to; i++) {
        struct table_key key = table_key_of(i);
        struct dedupe_id id = {{key.id[0], key.id[1]}};
        struct dedupe_claim claim;
        struct dedupe_found found;
        if (dedupe_claim(filling->dedupe, &id, key.payload_hash, wall_ns, &claim, &found) == DEDUPE_NEW)
            dedupe_settle(filling->dedupe, &claim, i + 1);
        else
            atomic_fetch_add(&filling->others, 1);
    }
}

static void *fill_part(void *user)
{
    struct filling *filling = user;
    for (;;) {
        uint64_t from = atomic_fetch_add(&filling->next, FILL_BATCH), to = from + FILL_BATCH;
        if (from >= filling->ids)
            return NULL;
        fill_batch(filling, from, to < filling->ids ? to : filling->ids);
    }
}

static bool fill(struct dedupe *dedupe, uint64_t ids, int64_t now_ns, struct sl_error *err)
{
    struct filling filling = {.dedupe = dedupe, .ids = ids, .now_ns = now_ns};
    pthread_t other;
    sl_assert(pthread_create(&other, NULL, fill_part, &filling) == 0);
    fill_part(&filling);
    pthread_join(other, NULL);
    return filling.others == 0 ||
           sl_fail(err, SL_E_INVALID, "%llu ids are not new", (unsigned long long)filling.others);
}

// Every thousandth id has to be there.
static bool check(struct dedupe *dedupe, uint64_t ids, struct sl_error *err)
{
    for (uint64_t i = 0; i < ids; i += 1000) {
        struct table_key key = table_key_of(i);
        struct dedupe_found found;
        struct dedupe_id id = {{key.id[0], key.id[1]}};
        if (dedupe_look(dedupe, &id, key.payload_hash, &found) != DEDUPE_DUPLICATE || found.seq != i + 1)
            return sl_fail(err, SL_E_NOT_FOUND, "id %llu is not there", (unsigned long long)i);
    }
    return true;
}

static bool drop_from_cache(const char *path, uint64_t *bytes, struct sl_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    int failed = end < 0 ? errno : posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (fd >= 0)
        close(fd);
    *bytes = (uint64_t)end;
    return failed == 0 || sl_fail_errno(err, SL_E_IO, failed, "%s", path);
}

static bool make_window(struct dedupe **out, uint64_t ids, int64_t now_ns, struct sl_error *err)
{
    uint64_t memory = ids * BYTES_PER_ID, least = dedupe_memory_min();
    struct dedupe_options options = {
        .memory_bytes = memory > least ? memory : least, .window_ns = window_ns, .now_wall_ns = now_ns};
    return dedupe_new(out, &options, err);
}

static bool write_snapshot(uint64_t ids, const struct dedupe_key *key, const char *dir, int64_t now_ns, double *write_s,
                           struct sl_error *err)
{
    struct dedupe *dedupe;
    int64_t first_ns = now_ns - (int64_t)((double)ids / RATE * (double)SL_NS_PER_S) - SL_NS_PER_S;
    if (!make_window(&dedupe, ids, first_ns, err))
        return false;
    dedupe_own_stream(dedupe, own_stream);
    bool good = fill(dedupe, ids, now_ns, err);
    struct dedupe_snapshot_writing how = {.through = through, .user = &ids};
    int64_t start_ns = sl_monotonic_ns();
    good = good && dedupe_snapshot_write(dedupe, key, &storage_posix, dir, &how, now_ns, err);
    *write_s = seconds_since(start_ns);
    dedupe_free(dedupe);
    return good;
}

static bool rebuild(uint64_t ids, unsigned threads, const char *dir, struct sl_error *err)
{
    struct dedupe_key key = {.bytes = {1, 2, 3}};
    dedupe_key_derive(&key);
    int64_t now_ns = sl_wall_ns();
    double write_s = 0;
    uint64_t bytes = 0;
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/snapshot", dir);
    if (access(path, F_OK) != 0 && !write_snapshot(ids, &key, dir, now_ns, &write_s, err))
        return false;
    if (!drop_from_cache(path, &bytes, err))
        return false;
    struct dedupe *dedupe;
    struct dedupe_snapshot_info info;
    bool covered = false;
    int64_t start_ns = sl_monotonic_ns();
    if (!make_window(&dedupe, ids, now_ns, err))
        return false;
    double new_s = seconds_since(start_ns);
    bool good = dedupe_snapshot_load(dedupe, &key, &storage_posix, dir, threads, covers, &covered, now_ns, &info, err);
    double load_s = seconds_since(start_ns);
    struct dedupe_figures figures;
    dedupe_figures(dedupe, now_ns, &figures);
    good = good && check(dedupe, ids, err);
    dedupe_free(dedupe);
    if (good && (!covered || info.entries != ids || figures.evicted > 0))
        good = sl_fail(err, SL_E_INVALID, "%llu entries, %llu let go", (unsigned long long)info.entries,
                       (unsigned long long)figures.evicted);
    if (good)
        printf(
            "{\"ids\":%llu,\"threads\":%u,\"bytes\":%llu,\"write_s\":%.2f,\"load_s\":%.2f,\"of_it_memory_s\":%.2f}\n",
            (unsigned long long)ids, threads, (unsigned long long)bytes, write_s, load_s, new_s);
    return good;
}

int bench_rebuild(uint64_t ids, unsigned threads, const char *dir)
{
    struct sl_error err;
    bool good = rebuild(ids, threads, dir, &err);
    if (!good)
        fprintf(stderr, "dedupe-bench: %s\n", err.text);
    return good ? 0 : 1;
}
