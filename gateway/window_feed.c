// Ids of other nodes' events, as their records become durable here: a duplicate is caught whichever gateway of the cell
// it comes to.
//
// Happy path: the replication thread hands in the records of each store; their ids are inserted as durable in that
// stream, at once.
//
// Until the window is rebuilt nothing may be inserted (the snapshot is being loaded into it). Streams that grow
// meanwhile are noted with the first seq that was not taken; when the rebuild has ended their ids are read from the
// spool, again and again until nothing more has been noted, and only then are they taken directly.
#include "gateway/window_internal.h"

#include "base/log.h"
#include "spool/ids.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Under feed_lock. Made when there is none.
static struct fed_stream *fed_stream(struct window *window, const char *stream)
{
    for (size_t i = 0; i < window->fed_count; i++)
        if (strcmp(window->fed[i].stream, stream) == 0)
            return &window->fed[i];
    if (window->fed_count == window->fed_capacity) {
        size_t capacity = window->fed_capacity == 0 ? 16 : 2 * window->fed_capacity;
        struct fed_stream *larger = realloc(window->fed, capacity * sizeof(*larger));
        sl_assert(larger != NULL); // some hundred bytes a stream
        window->fed = larger;
        window->fed_capacity = capacity;
    }
    struct fed_stream *fed = &window->fed[window->fed_count++];
    *fed = (struct fed_stream){.from = 0};
    snprintf(fed->stream, sizeof(fed->stream), "%s", stream);
    return fed;
}

static void insert(struct window *window, uint32_t origin, const struct record_ids *ids, uint64_t seq)
{
    static const uint8_t none[RECORD_HASH_BYTES];
    if (memcmp(ids->entry.id_hash, none, sizeof(none)) == 0)
        return; // taken where nothing was deduplicated
    struct dedupe_id id = dedupe_id_load(ids->entry.id_hash);
    dedupe_insert(window->dedupe, &id, ids->entry.payload_hash, ids->received_wall_ns, origin, seq);
    if (!ids->has_business_hash)
        return;
    struct dedupe_id business = dedupe_id_load(ids->business_hash);
    dedupe_insert(window->dedupe, &business, id.words[0], ids->received_wall_ns, origin, seq);
}

static void warn_no_origin(struct window *window, const char *stream)
{
    int64_t now_ns = sl_monotonic_ns();
    if (window->no_origin_warned_ns != 0 && now_ns - window->no_origin_warned_ns < 60 * SL_NS_PER_S)
        return;
    window->no_origin_warned_ns = now_ns;
    sl_logf(SL_WARN, "dedupe", "too many streams at once; ids of a peer's events are not known here",
            SL_STR("stream", stream));
}

void window_replica(struct window *window, const char *stream, uint64_t first_seq, uint32_t count, const void *body,
                    size_t length)
{
    pthread_mutex_lock(&window->feed_lock);
    struct fed_stream *fed = fed_stream(window, stream);
    bool live = window->live;
    if (!live && (fed->behind == 0 || first_seq < fed->behind))
        fed->behind = first_seq;
    pthread_mutex_unlock(&window->feed_lock);
    if (!live)
        return;
    uint32_t origin = ingest_name_origin(window->ingest, stream);
    if (origin == UINT32_MAX) {
        warn_no_origin(window, stream);
        return;
    }
    struct sl_reader reader = sl_reader_of(body, length);
    struct record_ids ids;
    uint64_t seq = first_seq;
    for (; seq < first_seq + count && record_ids_next(&reader, &ids); seq++)
        insert(window, origin, &ids, seq);
    atomic_fetch_add_explicit(&window->fed_ids, seq - first_seq, memory_order_relaxed);
    // Only now: a snapshot that says so has them.
    pthread_mutex_lock(&window->feed_lock);
    fed = fed_stream(window, stream);
    if (fed->from == 0)
        fed->from = first_seq;
    if (seq - 1 > fed->through)
        fed->through = seq - 1;
    pthread_mutex_unlock(&window->feed_lock);
}

// ---- after the rebuild

struct catching_up {
    struct window *window;
    uint32_t origin;
    uint64_t through;
};

static void insert_block(struct window *window, uint32_t origin, const struct spool_ids_block *block)
{
    struct record_ids ids = {.received_wall_ns = block->last_received_wall_ns};
    for (uint32_t i = 0, business = 0; i < block->count; i++) {
        ids.entry = block->entries[i];
        ids.has_business_hash = business < block->business_count && block->business[business].index == i;
        if (ids.has_business_hash)
            memcpy(ids.business_hash, block->business[business++].hash, sizeof(ids.business_hash));
        insert(window, origin, &ids, block->first_seq + i);
    }
    atomic_fetch_add_explicit(&window->fed_ids, block->count, memory_order_relaxed);
}

static bool take_block(void *user, const struct spool_ids_unit *unit, const struct spool_ids_block *block)
{
    (void)unit;
    struct catching_up *catching_up = user;
    struct window *window = catching_up->window;
    if (window_is_stopping(window))
        return false;
    insert_block(window, catching_up->origin, block);
    catching_up->through = block->first_seq + block->count - 1;
    return true;
}

// What the spool has of the stream from `behind` on. A unit that cannot be read was logged by the spool; its ids are
// unknown here, and its events would be taken again if they were sent to this node.
static void read_stream(struct window *window, const char *stream, uint64_t behind)
{
    struct catching_up catching_up = {.window = window, .origin = ingest_name_origin(window->ingest, stream)};
    struct spool_ids_unit *units;
    struct sl_error err;
    size_t count;
    if (catching_up.origin == UINT32_MAX) {
        warn_no_origin(window, stream);
        return;
    }
    if (!spool_ids_list(window->spool, &units, &count, &err)) {
        sl_logf(SL_WARN, "dedupe", "the spool's ids cannot be listed", SL_STR("error", err.text));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct spool_ids_result result;
        if (strcmp(units[i].stream, stream) != 0 || units[i].last_seq < behind)
            continue;
        if (!spool_ids_read(window->spool, &units[i], behind - 1, take_block, &catching_up, &result, &err))
            sl_logf(SL_WARN, "dedupe", "ids of the spool cannot be read", SL_STR("stream", stream),
                    SL_UINT("first_seq", units[i].first_seq), SL_STR("error", err.text));
    }
    free(units);
    pthread_mutex_lock(&window->feed_lock);
    struct fed_stream *fed = fed_stream(window, stream);
    if (catching_up.through > 0 && (fed->from == 0 || behind < fed->from))
        fed->from = behind;
    if (catching_up.through > fed->through)
        fed->through = catching_up.through;
    pthread_mutex_unlock(&window->feed_lock);
}

void window_feed_begin(struct window *window)
{
    for (;;) {
        char stream[SPOOL_STREAM_ID_MAX];
        uint64_t behind = 0;
        pthread_mutex_lock(&window->feed_lock);
        for (size_t i = 0; i < window->fed_count && behind == 0; i++) {
            behind = window->fed[i].behind;
            window->fed[i].behind = 0;
            memcpy(stream, window->fed[i].stream, sizeof(stream));
        }
        if (behind == 0)
            window->live = true;
        pthread_mutex_unlock(&window->feed_lock);
        if (behind == 0 || window_is_stopping(window))
            return;
        read_stream(window, stream, behind);
    }
}

bool window_fed_name(struct window *window, size_t index, char out[SPOOL_STREAM_ID_MAX])
{
    pthread_mutex_lock(&window->feed_lock);
    bool there = index < window->fed_count;
    if (there)
        memcpy(out, window->fed[index].stream, SPOOL_STREAM_ID_MAX);
    pthread_mutex_unlock(&window->feed_lock);
    return there;
}

uint64_t window_fed_through(struct window *window, const char *stream, uint64_t known_through, bool known)
{
    uint64_t through = known_through;
    pthread_mutex_lock(&window->feed_lock);
    for (size_t i = 0; i < window->fed_count; i++) {
        const struct fed_stream *fed = &window->fed[i];
        if (strcmp(fed->stream, stream) != 0 || fed->behind != 0 || fed->through <= known_through)
            continue;
        // Of a stream that was not there at the start everything came this way.
        if (!known || fed->from <= known_through + 1)
            through = fed->through;
    }
    pthread_mutex_unlock(&window->feed_lock);
    return through;
}

// ---- from peers

bool window_is_live(struct window *window)
{
    pthread_mutex_lock(&window->feed_lock);
    bool live = window->live;
    pthread_mutex_unlock(&window->feed_lock);
    return live;
}

void window_ids(struct window *window, const char *stream, const struct spool_ids_block *block, uint64_t in_kafka)
{
    uint32_t origin = ingest_name_origin(window->ingest, stream);
    if (origin == UINT32_MAX) {
        warn_no_origin(window, stream);
        return;
    }
    insert_block(window, origin, block);
    if (in_kafka > 0)
        ingest_note_older(window->ingest, origin, stream, in_kafka);
}
