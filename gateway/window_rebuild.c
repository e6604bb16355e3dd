// The window at a start: the snapshot, then every id that the spool has of older streams beyond it.
//
// Happy path: the snapshot says for each stream through which seq it knows it; two threads take the spool's units
// (segments, or the ids of deleted ones), the oldest first, and fill in what lies behind that. Requests wait meanwhile.
//
// Failure modes: no snapshot, or a broken one: more is read from the spool. A unit that cannot be read, is hashed under
// another key, or is missing between others: the window is said to reach back only to its end, and the start goes on,
// because a node that takes no events at all is the worse failure.
#include "gateway/window_internal.h"

#include "base/log.h"
#include "spool/ids.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    READERS = 2,
    LOADERS = 2,
    // Streams beyond these share one origin: dedupe knows 256 names at once.
    NAMED_STREAMS_MAX = 200,
};
#define UNIT_TIME_SLACK_NS (60 * SL_NS_PER_S) // a unit's time is "about"

struct rebuild {
    struct window *window;
    int64_t oldest_ns; // nothing older belongs to the window
    struct spool_ids_unit *units;
    size_t count;
    size_t *order; // indices of units, the oldest first
    size_t streams;
    struct dedupe_filling *filling;
    _Atomic size_t next;
    _Atomic int64_t covered_since_ns;
    _Atomic int64_t earliest_ns; // of what was found in the spool
    _Atomic bool other_key;
    struct unit_notes {
        bool gap;         // ids before it are missing
        bool done;        // nothing of it is missing
        uint64_t through; // what was taken of it, or was known before
    } * notes;
};

static void raise_covered(struct rebuild *rebuild, int64_t wall_ns)
{
    int64_t before = atomic_load(&rebuild->covered_since_ns);
    while (before < wall_ns && !atomic_compare_exchange_weak(&rebuild->covered_since_ns, &before, wall_ns)) {
    }
}

static void lower_earliest(struct rebuild *rebuild, int64_t wall_ns)
{
    int64_t before = atomic_load(&rebuild->earliest_ns);
    while (before > wall_ns && !atomic_compare_exchange_weak(&rebuild->earliest_ns, &before, wall_ns)) {
    }
}

// ---- one unit

struct reading {
    struct rebuild *rebuild;
    struct dedupe_filler *filler; // the thread's
    int64_t now_ns;
    uint32_t origin;
    bool shared;      // an origin of several streams: seqs mean nothing
    bool gap;         // before the next block
    uint64_t through; // of the blocks so far
};

static bool take_block(void *user, const struct spool_ids_unit *unit, const struct spool_ids_block *block)
{
    (void)unit;
    struct reading *reading = user;
    struct window *window = reading->rebuild->window;
    if (window_is_stopping(window))
        return false;
    // Every id of the block stays as long as its last one: never too short. A clock may have been put back.
    int64_t seen_ns = block->last_received_wall_ns < reading->now_ns ? block->last_received_wall_ns : reading->now_ns;
    reading->through = block->first_seq + block->count - 1;
    if (reading->gap)
        raise_covered(reading->rebuild, block->first_received_wall_ns);
    reading->gap = false;
    lower_earliest(reading->rebuild, block->first_received_wall_ns);
    if (seen_ns < reading->rebuild->oldest_ns)
        return true;
    for (uint32_t i = 0; i < block->count; i++) {
        struct dedupe_id id = dedupe_id_load(block->entries[i].id_hash);
        dedupe_filler_add(reading->filler, &id, block->entries[i].payload_hash, seen_ns, reading->origin,
                          reading->shared ? 1 : block->first_seq + i);
    }
    for (uint32_t i = 0; i < block->business_count; i++) {
        struct dedupe_id id = dedupe_id_load(block->business[i].hash);
        struct dedupe_id event = dedupe_id_load(block->entries[block->business[i].index].id_hash);
        dedupe_filler_add(reading->filler, &id, event.words[0], seen_ns, reading->origin,
                          reading->shared ? 1 : block->first_seq + block->business[i].index);
    }
    atomic_fetch_add_explicit(&window->rebuild_ids, block->count, memory_order_relaxed);
    return true;
}

// The window is complete from the end of this unit on only.
static void miss_unit(struct rebuild *rebuild, const struct spool_ids_unit *unit)
{
    raise_covered(rebuild, unit->last_wall_ns);
}

static bool has_all(const struct spool_ids_unit *unit, uint64_t after_seq, const struct spool_ids_result *result)
{
    if (unit->last_seq == UINT64_MAX)
        return !result->damaged;
    uint64_t first = after_seq >= unit->first_seq ? after_seq + 1 : unit->first_seq;
    return first > unit->last_seq || result->ids >= unit->last_seq - first + 1;
}

static void read_unit(struct rebuild *rebuild, struct dedupe_filler *filler, size_t index)
{
    struct window *window = rebuild->window;
    const struct spool_ids_unit *unit = &rebuild->units[index];
    if (unit->last_wall_ns < rebuild->oldest_ns - UNIT_TIME_SLACK_NS) {
        lower_earliest(rebuild, unit->last_wall_ns);
        rebuild->notes[index].done = unit->last_seq != UINT64_MAX;
        rebuild->notes[index].through = unit->last_seq;
        return;
    }
    bool shared = rebuild->streams > NAMED_STREAMS_MAX;
    struct reading reading = {.rebuild = rebuild,
                              .filler = filler,
                              .now_ns = sl_wall_ns(),
                              .shared = shared,
                              .gap = rebuild->notes[index].gap};
    reading.origin = dedupe_origin(window->dedupe, shared ? WINDOW_SHARED_ORIGIN : unit->stream);
    uint64_t after_seq = window_known(window, unit->stream)->through;
    if (after_seq >= unit->last_seq) {
        rebuild->notes[index].done = true;
        rebuild->notes[index].through = after_seq;
        return;
    }
    struct spool_ids_result result = {0};
    struct sl_error err;
    if (reading.origin == UINT32_MAX) {
        sl_logf(SL_WARN, "dedupe", "too many streams at once; ids are not known", SL_STR("stream", unit->stream));
        miss_unit(rebuild, unit);
    } else if (!spool_ids_read(window->spool, unit, after_seq, take_block, &reading, &result, &err)) {
        sl_logf(SL_WARN, "dedupe", "ids of the spool cannot be read", SL_STR("stream", unit->stream),
                SL_UINT("first_seq", unit->first_seq), SL_STR("error", err.text));
        miss_unit(rebuild, unit);
    } else if (result.source == SPOOL_IDS_OTHER_KEY) {
        atomic_store(&rebuild->other_key, true);
        miss_unit(rebuild, unit);
    } else if (result.source == SPOOL_IDS_GONE || !has_all(unit, after_seq, &result)) {
        miss_unit(rebuild, unit);
    } else {
        rebuild->notes[index].done = !result.stopped;
        rebuild->notes[index].through = reading.through > after_seq ? reading.through : after_seq;
    }
}

static void *reader(void *argument)
{
    struct rebuild *rebuild = argument;
    struct dedupe_filler *filler = dedupe_filler_new(rebuild->filling);
    for (;;) {
        size_t next = atomic_fetch_add(&rebuild->next, 1);
        if (next >= rebuild->count || window_is_stopping(rebuild->window))
            break;
        read_unit(rebuild, filler, rebuild->order[next]);
        atomic_fetch_add(&rebuild->window->rebuild_done_bytes, rebuild->units[rebuild->order[next]].bytes);
    }
    dedupe_filler_end(filler);
    return NULL;
}

// ---- the snapshot

static void on_covers(void *user, const char *stream, uint64_t through)
{
    window_known(user, stream)->through = through;
}

// The time from which on it is complete; INT64_MIN: there is none.
static int64_t load_snapshot(struct window *window)
{
    struct dedupe_snapshot_info info;
    struct sl_error err;
    if (!dedupe_snapshot_load(window->dedupe, &window->key, &window->storage, window->dir, LOADERS, on_covers, window,
                              sl_wall_ns(), &info, &err)) {
        if (err.code != SL_E_NOT_FOUND)
            sl_logf(SL_WARN, "dedupe", "the snapshot is not used; the spool's ids are read instead",
                    SL_STR("error", err.text));
        window->known_count = 0;
        return INT64_MIN;
    }
    pthread_mutex_lock(&window->lock);
    window->snapshot_wall_ns = info.written_wall_ns;
    pthread_mutex_unlock(&window->lock);
    atomic_fetch_add(&window->rebuild_ids, info.entries);
    window_check_memory(window, info.claims_per_second, "before the restart");
    return info.covered_since_wall_ns;
}

// ---- the spool

// A copy of another node's stream begins somewhere: what lies before never was here.
static bool is_own(const struct window *window, const char *stream)
{
    const char *current = spool_incarnation_id(window->spool, 0);
    size_t node = strcspn(current, ".");
    return strncmp(stream, current, node + 1) == 0;
}

// What lies between two units of a stream, or before the first of an own one, was let go.
static void find_gaps(struct rebuild *rebuild)
{
    for (size_t i = 0; i < rebuild->count; i++) {
        const struct spool_ids_unit *unit = &rebuild->units[i];
        const struct spool_ids_unit *before = i > 0 ? unit - 1 : NULL;
        bool same = before != NULL && strcmp(before->stream, unit->stream) == 0;
        uint64_t known = window_known(rebuild->window, unit->stream)->through;
        if (same && before->last_seq != UINT64_MAX && before->last_seq > known)
            known = before->last_seq;
        rebuild->notes[i].gap = unit->first_seq > known && unit->first_seq - known > 1 &&
                                !(same && before->last_seq == UINT64_MAX) &&
                                (same || is_own(rebuild->window, unit->stream));
        rebuild->streams += !same;
        atomic_fetch_add(&rebuild->window->rebuild_bytes, unit->bytes);
    }
}

static int older_first(const void *left, const void *right, void *user)
{
    const struct spool_ids_unit *units = user;
    size_t a = *(const size_t *)left, b = *(const size_t *)right;
    if (units[a].last_wall_ns != units[b].last_wall_ns)
        return units[a].last_wall_ns < units[b].last_wall_ns ? -1 : 1;
    return a < b ? -1 : a > b;
}

static void put_in_order(struct rebuild *rebuild)
{
    rebuild->order = calloc(rebuild->count + 1, sizeof(*rebuild->order));
    sl_assert(rebuild->order != NULL); // a word a segment
    for (size_t i = 0; i < rebuild->count; i++)
        rebuild->order[i] = i;
    qsort_r(rebuild->order, rebuild->count, sizeof(*rebuild->order), older_first, rebuild->units);
}

// About so many ids are in the spool and not in the snapshot.
static uint64_t ids_to_read(const struct rebuild *rebuild)
{
    uint64_t ids = 0;
    for (size_t i = 0; i < rebuild->count; i++)
        if (window_known(rebuild->window, rebuild->units[i].stream)->through < rebuild->units[i].last_seq)
            ids += rebuild->units[i].bytes / sizeof(struct ids_entry);
    return ids;
}

static void read_units(struct rebuild *rebuild)
{
    pthread_t threads[READERS];
    size_t started = 0;
    struct dedupe *dedupe = rebuild->window->dedupe;
    rebuild->filling = dedupe_filling_new(dedupe, ids_to_read(rebuild), rebuild->oldest_ns);
    while (started + 1 < READERS && pthread_create(&threads[started], NULL, reader, rebuild) == 0)
        started++;
    reader(rebuild);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    dedupe_filling_end(rebuild->filling, sl_wall_ns());
}

// A stream of which nothing is missing is known to its present end; copies grow, and own streams may be given back a
// tail.
static void note_known(struct rebuild *rebuild)
{
    for (size_t i = 0; i < rebuild->count;) {
        const char *stream = rebuild->units[i].stream;
        bool whole = rebuild->streams <= NAMED_STREAMS_MAX;
        uint64_t through = 0;
        for (; i < rebuild->count && strcmp(rebuild->units[i].stream, stream) == 0; i++) {
            whole = whole && rebuild->notes[i].done;
            through = rebuild->notes[i].through > through ? rebuild->notes[i].through : through;
        }
        if (whole && through > window_known(rebuild->window, stream)->through)
            window_known(rebuild->window, stream)->through = through;
    }
}

static bool read_spool(struct rebuild *rebuild)
{
    struct window *window = rebuild->window;
    struct sl_error err;
    if (!spool_ids_list(window->spool, &rebuild->units, &rebuild->count, &err)) {
        sl_logf(SL_WARN, "dedupe", "the spool's ids cannot be listed", SL_STR("error", err.text));
        raise_covered(rebuild, sl_wall_ns());
        return true;
    }
    rebuild->notes = calloc(rebuild->count + 1, sizeof(*rebuild->notes));
    sl_assert(rebuild->notes != NULL); // two bytes a segment
    // Made here, because the readers only look them up.
    for (size_t i = 0; i < rebuild->count; i++)
        window_known(window, rebuild->units[i].stream);
    bool snapshot = atomic_load(&rebuild->covered_since_ns) != INT64_MIN;
    find_gaps(rebuild);
    put_in_order(rebuild);
    read_units(rebuild);
    bool stopped = window_is_stopping(window);
    // Without a snapshot nothing is known of the time before the earliest id.
    int64_t earliest_ns = atomic_load(&rebuild->earliest_ns);
    if (!snapshot)
        raise_covered(rebuild, earliest_ns == INT64_MAX ? sl_wall_ns() : earliest_ns);
    if (!stopped)
        note_known(rebuild);
    free(rebuild->order);
    free(rebuild->notes);
    free(rebuild->units);
    return !stopped;
}

bool window_rebuild(struct window *window)
{
    int64_t started_ns = sl_monotonic_ns();
    struct rebuild rebuild = {.window = window, .oldest_ns = sl_wall_ns() - window->window_ns};
    int64_t snapshot_since_ns = load_snapshot(window);
    uint64_t from_snapshot = atomic_load(&window->rebuild_ids);
    atomic_store(&rebuild.covered_since_ns, snapshot_since_ns);
    atomic_store(&rebuild.earliest_ns, INT64_MAX);
    if (!read_spool(&rebuild))
        return false;
    if (atomic_load(&rebuild.other_key))
        sl_log(SL_WARN, "dedupe",
               "ids in the spool were hashed under another key, or under none: they are not known, and the window "
               "begins anew");
    int64_t now_ns = sl_monotonic_ns(), wall_ns = sl_wall_ns();
    int64_t covered_since_ns = atomic_load(&rebuild.covered_since_ns);
    dedupe_covered_since(window->dedupe, covered_since_ns < rebuild.oldest_ns ? rebuild.oldest_ns : covered_since_ns);
    atomic_store(&window->rebuild_ended_ns, now_ns);
    struct dedupe_figures figures;
    dedupe_figures(window->dedupe, wall_ns, &figures);
    sl_logf(SL_INFO, "dedupe", "the window is complete", SL_UINT("ids", atomic_load(&window->rebuild_ids)),
            SL_UINT("ids_from_snapshot", from_snapshot), SL_UINT("units", rebuild.count),
            SL_REAL("ms", (double)(now_ns - started_ns) / 1e6),
            SL_REAL("window_seconds", (double)figures.covered_ns * 1e-9),
            SL_REAL("configured_seconds", (double)window->window_ns * 1e-9));
    return true;
}

bool window_load(struct window *window, struct spool *spool)
{
    window->spool = spool;
    dedupe_own_stream(window->dedupe, spool_incarnation_id(spool, 0));
    return window_rebuild(window);
}

static void release(struct window *window, const char *stream, uint64_t through)
{
    if (through > 0)
        spool_ids_release(window->spool, stream, through);
}

void window_release_ids(struct window *window)
{
    char fed[SPOOL_STREAM_ID_MAX];
    for (size_t i = 0; i < window->known_count; i++)
        release(window, window->known[i].stream, window_covers(window, window->known[i].stream));
    for (size_t i = 0; window_fed_name(window, i, fed); i++)
        release(window, fed, window_covers(window, fed));
    for (uint32_t i = 0; i <= window->own_incarnation; i++)
        release(window, spool_incarnation_id(window->spool, i), window_own_covers(window, i));
}
