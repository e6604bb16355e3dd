// The streams that this process writes, one after the other (incarnations), and how far each has come: here, in another
// zone, in Kafka. And how far the streams have come that it does not write, in which first events of duplicates lie.
//
// A process seals its stream and goes on with another one when a peer has taken the old one over, or could
// (docs/protocol-ha.md). Requests stay tied to the stream that took their events, so the last OWN_STREAMS of them are
// kept in a ring; a request that waits for one which has left it is refused. Sealing takes seconds, and requests wait
// for less than that times the ring.
//
// A place of the ring is read without a lock: whoever reads looks at its tag before and after.
#include "gateway/ingest_internal.h"

#include <stdio.h>
#include <string.h>

static void raise(_Atomic uint64_t *position, uint64_t to)
{
    uint64_t before = atomic_load(position);
    while (before < to && !atomic_compare_exchange_weak(position, &before, to)) {
    }
}

static uint32_t name_origin(struct ingest *ingest, const char *stream);

// ---- the ring

void ingest_open_stream(struct ingest *ingest, uint32_t incarnation, const char *id)
{
    struct own_stream *stream = &ingest->own[incarnation % OWN_STREAMS];
    uint32_t origin = DEDUPE_ORIGIN_OWN;
    if (incarnation > 0 && ingest->dedupe != NULL)
        origin = name_origin(ingest, id);
    atomic_store(&stream->tag, 0);
    atomic_store(&stream->id, id);
    atomic_store(&stream->origin, origin);
    atomic_store(&stream->peer_synced, 0);
    for (uint32_t lane = 0; lane < SPOOL_LANES_MAX; lane++)
        atomic_store(&stream->committed[lane], 0);
    atomic_store(&stream->tag, incarnation + 1);
    atomic_store(&ingest->own_count, incarnation + 1);
}

struct own_stream *ingest_own_stream(struct ingest *ingest, uint32_t incarnation)
{
    struct own_stream *stream = &ingest->own[incarnation % OWN_STREAMS];
    if (atomic_load(&stream->tag) == incarnation + 1)
        return stream;
    pthread_mutex_lock(&ingest->own_lock);
    for (uint32_t next = atomic_load(&ingest->own_count); next <= incarnation; next++) {
        const char *id = spool_incarnation_id(ingest->spool, next);
        if (id == NULL)
            break;
        ingest_open_stream(ingest, next, id);
    }
    pthread_mutex_unlock(&ingest->own_lock);
    return atomic_load(&stream->tag) == incarnation + 1 ? stream : NULL;
}

static uint64_t committed_in(const struct own_stream *stream, uint32_t lanes)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t lane = 0; lane < SPOOL_LANES_MAX; lane++) {
        if ((lanes & UINT32_C(1) << lane) == 0)
            continue;
        uint64_t committed = atomic_load(&stream->committed[lane]);
        if (committed < least)
            least = committed;
    }
    return least;
}

bool ingest_positions(struct ingest *ingest, uint32_t incarnation, uint32_t lanes, struct ack_positions *out)
{
    const struct own_stream *stream = ingest_own_stream(ingest, incarnation);
    if (stream == NULL)
        return false;
    out->peer_synced = atomic_load(&stream->peer_synced);
    out->kafka_committed = committed_in(stream, lanes);
    return atomic_load(&stream->tag) == incarnation + 1;
}

const char *ingest_stream_id(struct ingest *ingest, uint32_t incarnation)
{
    const struct own_stream *stream = ingest_own_stream(ingest, incarnation);
    // One that has left the ring keeps its name; the spool remembers it.
    return stream != NULL ? atomic_load(&stream->id) : spool_incarnation_id(ingest->spool, incarnation);
}

uint32_t ingest_newest_incarnation(const struct ingest *ingest)
{
    return atomic_load(&ingest->own_count) - 1;
}

uint32_t ingest_origin_of(struct ingest *ingest, uint32_t incarnation)
{
    const struct own_stream *stream = ingest_own_stream(ingest, incarnation);
    return stream != NULL ? atomic_load(&stream->origin) : UINT32_MAX;
}

// ---- what moves them

static void wake_loops(struct ingest *ingest, bool commit)
{
    if (!atomic_load_explicit(&ingest->attached, memory_order_acquire))
        return;
    for (uint32_t i = 0; i < ingest->loop_count; i++) {
        struct ingest_loop *loop = &ingest->loops[i];
        if (!atomic_exchange(commit ? &loop->commit_posted : &loop->zone_posted, true))
            http_loop_post(loop->http, commit ? &loop->commit_task : &loop->zone_task);
    }
}

void ingest_note_committed(struct ingest *ingest, const char *id, const char *lane_name, uint64_t through)
{
    size_t lane = spool_lane_index(ingest->spool, lane_name);
    if (lane >= SPOOL_LANES_MAX)
        return;
    bool moved = false;
    for (uint32_t i = 0; i < OWN_STREAMS; i++) {
        struct own_stream *stream = &ingest->own[i];
        uint32_t tag = atomic_load(&stream->tag);
        if (tag == 0 || strcmp(atomic_load(&stream->id), id) != 0)
            continue;
        // A place that changes meanwhile must not get the old stream's position.
        pthread_mutex_lock(&ingest->own_lock);
        moved = atomic_load(&stream->tag) == tag;
        if (moved)
            raise(&stream->committed[lane], through);
        pthread_mutex_unlock(&ingest->own_lock);
    }
    if (moved)
        wake_loops(ingest, true);
}

void ingest_note_peer(struct ingest *ingest, uint32_t incarnation, uint64_t peer_synced)
{
    struct own_stream *stream = ingest_own_stream(ingest, incarnation);
    if (stream == NULL)
        return;
    pthread_mutex_lock(&ingest->own_lock);
    bool moved = atomic_load(&stream->tag) == incarnation + 1;
    if (moved)
        raise(&stream->peer_synced, peer_synced);
    pthread_mutex_unlock(&ingest->own_lock);
    if (moved)
        wake_loops(ingest, false);
}

// ---- other streams, by the name that the window gave them

// Under own_lock.
static void rename_origin(struct older_stream *older, const char *name)
{
    atomic_fetch_add(&older->epoch, 1);
    snprintf(older->name, sizeof(older->name), "%s", name);
    atomic_store(&older->through, 0);
    atomic_store(&older->two_zones, 0);
    atomic_fetch_add(&older->epoch, 1);
}

// Under own_lock.
static uint32_t name_origin(struct ingest *ingest, const char *stream)
{
    uint32_t origin = dedupe_origin(ingest->dedupe, stream);
    if (origin < OLDER_ORIGINS_MAX && strcmp(ingest->older[origin].name, stream) != 0)
        rename_origin(&ingest->older[origin], stream);
    return origin;
}

uint32_t ingest_name_origin(struct ingest *ingest, const char *stream)
{
    pthread_mutex_lock(&ingest->own_lock);
    uint32_t origin = name_origin(ingest, stream);
    pthread_mutex_unlock(&ingest->own_lock);
    return origin;
}

void ingest_note_older(struct ingest *ingest, uint32_t origin, const char *stream, uint64_t through)
{
    if (origin >= OLDER_ORIGINS_MAX)
        return;
    struct older_stream *older = &ingest->older[origin];
    char now[SPOOL_STREAM_ID_MAX];
    pthread_mutex_lock(&ingest->own_lock);
    bool known = strcmp(older->name, stream) == 0;
    // Named by the window itself, at a start.
    if (!known && dedupe_origin_name(ingest->dedupe, origin, now, sizeof(now)) && strcmp(now, stream) == 0) {
        rename_origin(older, stream);
        known = true;
    }
    if (known)
        atomic_store(&older->through, through);
    pthread_mutex_unlock(&ingest->own_lock);
}

uint32_t ingest_origin_epoch(const struct ingest *ingest, uint32_t origin)
{
    return origin < OLDER_ORIGINS_MAX ? atomic_load(&ingest->older[origin].epoch) : 0;
}

// Asked of the cell, unless what it said before suffices.
static bool in_two_zones(struct ingest *ingest, uint32_t origin, uint64_t seq)
{
    if (origin >= OLDER_ORIGINS_MAX || ingest->two_zones == NULL)
        return false;
    struct older_stream *older = &ingest->older[origin];
    uint32_t epoch = atomic_load(&older->epoch);
    char name[SPOOL_STREAM_ID_MAX];
    if (atomic_load(&older->two_zones) >= seq && epoch % 2 == 0 && atomic_load(&older->epoch) == epoch)
        return true;
    if (!dedupe_origin_name(ingest->dedupe, origin, name, sizeof(name)))
        return false;
    uint64_t through = ingest->two_zones(ingest->user, name);
    if (epoch % 2 != 0 || atomic_load(&older->epoch) != epoch)
        return false; // it names another stream now
    raise(&older->two_zones, through);
    return through >= seq;
}

void ingest_find_original(struct ingest *ingest, enum ack_level level, uint32_t lanes, uint32_t origin, uint64_t seq,
                          struct ack_original *out)
{
    *out = (struct ack_original){.state = ACK_ORIGINAL_STORED};
    if (level == ACK_DISK)
        return; // it is stored here, whoever wrote it
    for (uint32_t i = 0; i < OWN_STREAMS; i++) {
        const struct own_stream *stream = &ingest->own[i];
        uint32_t tag = atomic_load(&stream->tag);
        if (tag == 0 || atomic_load(&stream->origin) != origin)
            continue;
        bool at_peer = atomic_load(&stream->peer_synced) >= seq, in_kafka = committed_in(stream, lanes) >= seq;
        if (atomic_load(&stream->tag) != tag)
            continue;
        out->at_peer = at_peer;
        out->in_kafka = in_kafka;
    }
    if (!out->in_kafka && ingest->older != NULL && origin < OLDER_ORIGINS_MAX)
        out->in_kafka = atomic_load(&ingest->older[origin].through) >= seq;
    if (level == ACK_AZ2 && !out->in_kafka && !out->at_peer)
        out->at_peer = in_two_zones(ingest, origin, seq);
}
