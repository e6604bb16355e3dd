// Sums: what is pending, what there is room for, and whether the books agree (DESIGN.md 1.5: spooled = produced +
// pending).
#include "spool/internal.h"

#include <math.h>
#include <string.h>

static uint64_t damaged_records(const struct stream *stream)
{
    uint64_t records = 0;
    for (size_t i = 0; i < stream->damage_count; i++)
        if (stream->damages[i].last_seq >= stream->damages[i].first_seq)
            records += stream->damages[i].last_seq - stream->damages[i].first_seq + 1;
    return records;
}

static uint64_t subtract(uint64_t from, uint64_t what)
{
    return from > what ? from - what : 0;
}

// Seqs are dense from 1, so an older stream's end is the number of its records.
uint64_t stream_pending_events(const struct stream *stream)
{
    uint64_t pending = 0, committed = 0;
    for (uint32_t i = 0; i < stream->lane_count; i++) {
        pending += subtract(stream->lanes[i].appended, stream->lanes[i].committed_records);
        committed += stream->lanes[i].committed_records;
    }
    if (stream_is_copy(stream)) // what is not trimmed
        return subtract(stream->end_seq + 1, stream->base_seq);
    if (stream->uncounted) { // every lane from the first that is pending in any
        uint64_t first = stream_first_pending(stream);
        return first == UINT64_MAX ? 0 : subtract(stream->end_seq + 1, first);
    }
    return stream->written ? pending : subtract(subtract(stream->end_seq, damaged_records(stream)), committed);
}

uint64_t stream_first_pending(const struct stream *stream)
{
    uint64_t first = UINT64_MAX;
    if (stream->scanned && stream->end_seq < stream->base_seq)
        return first;
    for (uint32_t i = 0; i < stream->lane_count; i++) {
        const struct lane_state *lane = &stream->lanes[i];
        bool behind = stream->written ? lane->appended_seq > lane->committed
                                      : !stream->scanned || lane->committed < stream->end_seq;
        if (behind && lane->committed + 1 < first)
            first = lane->committed + 1;
    }
    return first < stream->base_seq ? stream->base_seq : first;
}

static uint64_t last_seq_of(const struct stream *stream, size_t index)
{
    return index + 1 < stream->segment_count    ? stream->segments[index + 1].first_seq - 1
           : stream->scanned || stream->current ? stream->end_seq
                                                : UINT64_MAX;
}

uint64_t stream_pending_bytes(const struct stream *stream, int64_t *oldest_wall_ns)
{
    *oldest_wall_ns = 0;
    uint64_t first = stream_first_pending(stream), bytes = 0;
    if (first == UINT64_MAX)
        return 0;
    for (size_t i = 0; i < stream->segment_count; i++) {
        const struct segment *segment = &stream->segments[i];
        if (last_seq_of(stream, i) < first)
            continue;
        const struct index_entry *entry = segment_index_find(segment, first);
        uint64_t from = entry != NULL ? entry->offset : 0;
        int64_t wall_ns = entry != NULL              ? entry->wall_ns
                          : segment->index_count > 0 ? segment->index[0].wall_ns
                                                     : segment->last_wall_ns;
        bytes += subtract(segment->used_bytes, from);
        if (*oldest_wall_ns == 0)
            *oldest_wall_ns = wall_ns;
    }
    return bytes;
}

void figures_refresh(struct spool *spool)
{
    uint64_t pending = 0;
    for (const struct stream *stream = spool->streams; stream != NULL; stream = stream->next) {
        int64_t oldest;
        if (!stream->gone)
            pending += stream_pending_bytes(stream, &oldest);
    }
    atomic_store_explicit(&spool->pending_bytes, pending, memory_order_relaxed);
}

void figures_room(struct spool *spool)
{
    uint64_t all = 0, largest = 0;
    for (size_t i = 0; i < spool->ready_count; i++) {
        uint64_t usable = segment_usable(spool->ready[i].size_bytes);
        all += usable;
        if (usable > largest)
            largest = usable;
    }
    atomic_store_explicit(&spool->room_ready, all, memory_order_relaxed);
    atomic_store_explicit(&spool->room_ready_largest, largest, memory_order_relaxed);
}

static void raise_error(struct spool *spool, uint64_t a, uint64_t b)
{
    uint64_t difference = a > b ? a - b : b - a;
    if (difference > atomic_load_explicit(&spool->conservation_error, memory_order_relaxed))
        atomic_store_explicit(&spool->conservation_error, difference, memory_order_relaxed);
}

static void check_older(struct spool *spool, const struct stream *stream)
{
    uint64_t committed = 0;
    // What others produced of a copy nobody here has counted.
    if (!stream->scanned || stream->lane_count == 0 || stream_is_copy(stream) || stream->uncounted)
        return;
    for (uint32_t i = 0; i < stream->lane_count; i++) {
        if (stream->lanes[i].committed < stream->end_seq)
            return;
        committed += stream->lanes[i].committed_records;
    }
    // A damaged record was produced before it was damaged, or never: either is right.
    uint64_t least = subtract(stream->end_seq, damaged_records(stream));
    if (committed < least)
        raise_error(spool, least, committed);
    else if (committed > stream->end_seq)
        raise_error(spool, stream->end_seq, committed);
}

void figures_check_lane(struct spool *spool, const struct stream *stream, const struct lane_state *lane)
{
    if (!stream->written)
        check_older(spool, stream);
    else if (lane->committed_records > lane->appended || lane->committed >= lane->appended_seq)
        raise_error(spool, lane->appended, lane->committed_records);
}

void spool_figures(struct spool *spool, struct spool_figures *out)
{
    *out = (struct spool_figures){.max_bytes = spool->max_bytes, .seconds_to_full = INFINITY};
    pthread_mutex_lock(&spool->mutex);
    figures_refresh(spool);
    out->bytes = spool->file_bytes;
    out->segments_ready = spool->ready_count;
    for (const struct stream *stream = spool->streams; stream != NULL; stream = stream->next) {
        int64_t oldest;
        if (stream->gone)
            continue;
        bool copy = stream_is_copy(stream);
        *(copy ? &out->copies_bytes : &out->pending_bytes) += stream_pending_bytes(stream, &oldest);
        *(copy ? &out->copies_events : &out->pending_events) += stream_pending_events(stream);
        out->damaged_events += damaged_records(stream);
        out->segments += stream->segment_count;
        if (copy)
            continue;
        if (oldest != 0 && (out->oldest_pending_wall_ns == 0 || oldest < out->oldest_pending_wall_ns))
            out->oldest_pending_wall_ns = oldest;
    }
    double growth = spool->growth_bytes_per_s;
    pthread_mutex_unlock(&spool->mutex);
    if (growth > 1.0)
        out->seconds_to_full = (double)subtract(spool->max_bytes, out->pending_bytes + out->copies_bytes) / growth;
    out->appended_events = atomic_load_explicit(&spool->appended_events, memory_order_relaxed);
    out->committed_events = atomic_load_explicit(&spool->committed_events, memory_order_relaxed);
    out->refused_records = atomic_load_explicit(&spool->refused_records, memory_order_relaxed);
    out->conservation_error = atomic_load_explicit(&spool->conservation_error, memory_order_relaxed);
    out->failed = atomic_load(&spool->failed);
    out->no_space = atomic_load(&spool->no_space);
    out->copied_events = atomic_load_explicit(&spool->copied_events, memory_order_relaxed);
    out->copies_waiting = atomic_load_explicit(&spool->copies_waiting, memory_order_relaxed);
}

void stream_info(const struct stream *stream, struct spool_stream_info *out)
{
    *out = (struct spool_stream_info){
        .counter = stream->counter,
        .current = stream->current,
        .own = strcmp(stream->node, stream->spool->node) == 0,
        .base_seq = stream->base_seq,
        .predecessor_seq = stream->predecessor_seq,
        .lane_count = stream->lane_count,
        .scanned = stream->scanned || stream->current,
        .end_seq = stream->end_seq,
        .damaged = damaged_records(stream),
    };
    memcpy(out->id, stream->id, sizeof(out->id));
    memcpy(out->predecessor, stream->predecessor, sizeof(out->predecessor));
    for (uint32_t i = 0; i < stream->lane_count; i++) {
        memcpy(out->lanes[i], stream->lanes[i].name, sizeof(out->lanes[i]));
        out->committed[i] = stream->lanes[i].committed;
        out->verified[i] = stream->lanes[i].verified;
    }
}

const struct histogram *spool_sync_histogram(const struct spool *spool)
{
    return &spool->sync_ns;
}

const struct histogram *spool_commit_histogram(const struct spool *spool)
{
    return &spool->commit_events;
}

// ---- admission

// It covers what was admitted at the same moment by other loops, and the rest of a segment that is left unused because
// the next frame does not fit.
uint64_t figures_reserve(const struct spool *spool)
{
    return spool->segment_bytes / 4 < GROUP_BYTES ? spool->segment_bytes / 4 : (uint64_t)GROUP_BYTES;
}

// Unproduced bytes from which on that priority waits, and nothing of the highest is taken.
static uint64_t most_pending(const struct spool *spool, enum spool_priority priority)
{
    static const uint64_t percent[SPOOL_PRIORITIES] = {
        [SPOOL_PRIORITY_HIGH] = 95, [SPOOL_PRIORITY_NORMAL] = 85, [SPOOL_PRIORITY_LOW] = 70};
    return spool->max_bytes / 100 * percent[priority];
}

static enum spool_admission admission_of(const struct spool *spool, uint64_t bytes, enum spool_priority priority)
{
    if (atomic_load_explicit(&spool->failed, memory_order_relaxed) ||
        atomic_load_explicit(&spool->stopping, memory_order_relaxed))
        return SPOOL_DEAD;
    uint64_t queued = atomic_load_explicit(&spool->queued_bytes, memory_order_relaxed);
    // One that is larger than the whole allowance must still get through, alone.
    if (queued > 0 && queued + bytes > spool->append_bytes)
        return SPOOL_BUSY;
    uint64_t pending = atomic_load_explicit(&spool->pending_bytes, memory_order_relaxed) + queued + bytes;
    if (pending > most_pending(spool, SPOOL_PRIORITY_HIGH))
        return SPOOL_FULL;
    if (atomic_load_explicit(&spool->no_space, memory_order_relaxed)) {
        uint64_t current = atomic_load_explicit(&spool->room_current, memory_order_relaxed);
        uint64_t ready = atomic_load_explicit(&spool->room_ready, memory_order_relaxed);
        uint64_t largest = atomic_load_explicit(&spool->room_ready_largest, memory_order_relaxed);
        uint64_t needed = queued + bytes + SPOOL_BLOCK + FRAME_HEADER_BYTES;
        bool whole = subtract(current, queued) >= bytes || largest >= bytes;
        if (!whole || current + ready < needed + figures_reserve(spool))
            return SPOOL_FULL;
    }
    return pending > most_pending(spool, priority) ? SPOOL_THROTTLED : SPOOL_ADMITTED;
}

static void raise_bytes(_Atomic uint64_t *most, uint64_t bytes)
{
    uint64_t seen = atomic_load_explicit(most, memory_order_relaxed);
    while (seen < bytes &&
           !atomic_compare_exchange_weak_explicit(most, &seen, bytes, memory_order_relaxed, memory_order_relaxed)) {
    }
}

enum spool_admission spool_admit(struct spool *spool, uint64_t bytes, enum spool_priority priority)
{
    if (bytes <= most_pending(spool, priority)) // more never finds room
        raise_bytes(&spool->asked_bytes[priority], bytes);
    return admission_of(spool, bytes, priority);
}

enum spool_admission spool_would_admit(const struct spool *spool, enum spool_priority priority)
{
    uint64_t bytes = atomic_load_explicit(&spool->asked_bytes[priority], memory_order_relaxed);
    return admission_of(spool, bytes, priority);
}
