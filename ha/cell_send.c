// Records to the peers: from memory where they are still there, else from the spool.
//
// A peer's outbox holds ranges of seqs, no bytes; bytes are taken when the session has room for them. So a slow peer
// costs its session's output and nothing else, and what was sent to the other is not held up by it.
#include "ha/cell_internal.h"

#include <stdlib.h>
#include <string.h>

// ---- the tap

static struct spool_frame *tap_at(const struct tap *tap, size_t index)
{
    return tap->frames[(tap->first + index) % tap->capacity];
}

static uint64_t last_of(const struct spool_frame *frame)
{
    return frame->header.first_seq + frame->header.count - 1;
}

static void tap_drop_first(struct tap *tap)
{
    struct spool_frame *frame = tap_at(tap, 0);
    tap->bytes -= frame->header.body_length;
    tap->first = (tap->first + 1) % tap->capacity;
    tap->count--;
    spool_frame_release(frame);
}

static void grow_tap(struct tap *tap)
{
    size_t capacity = tap->capacity == 0 ? 256 : 2 * tap->capacity;
    struct spool_frame **frames = calloc(capacity, sizeof(*frames));
    sl_assert(frames != NULL);
    for (size_t i = 0; i < tap->count; i++)
        frames[i] = tap_at(tap, i);
    free(tap->frames);
    tap->frames = frames;
    tap->first = 0;
    tap->capacity = capacity;
}

void tap_add(struct tap *tap, struct spool_frame *frame, size_t most_bytes, uint64_t synced, uint32_t incarnation)
{
    if (tap->count == tap->capacity)
        grow_tap(tap);
    tap->frames[(tap->first + tap->count++) % tap->capacity] = frame;
    tap->bytes += frame->header.body_length;
    // What is not synced yet cannot be read from the spool.
    while (tap->bytes > most_bytes && tap->count > 1 &&
           (tap_at(tap, 0)->incarnation != incarnation || last_of(tap_at(tap, 0)) <= synced))
        tap_drop_first(tap);
}

void tap_clear(struct tap *tap)
{
    while (tap->count > 0)
        tap_drop_first(tap);
    free(tap->frames);
    *tap = (struct tap){0};
}

// The frame that holds the record; NULL: it is not in memory.
static struct spool_frame *tap_find(const struct tap *tap, uint32_t incarnation, uint64_t seq)
{
    size_t low = 0, high = tap->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct spool_frame *frame = tap_at(tap, middle);
        if (frame->incarnation < incarnation || (frame->incarnation == incarnation && last_of(frame) < seq))
            low = middle + 1;
        else
            high = middle;
    }
    struct spool_frame *frame = low < tap->count ? tap_at(tap, low) : NULL;
    bool holds = frame != NULL && frame->incarnation == incarnation && frame->header.first_seq <= seq;
    return holds ? spool_frame_retain(frame) : NULL;
}

// ---- reading

static const struct own_stream *own_of(const struct cell *cell, struct ha_id id)
{
    for (size_t i = 0; i < OWN_STREAMS; i++)
        if (cell->own[i].there && ha_same(cell->own[i].id, id))
            return &cell->own[i];
    return NULL;
}

static void close_reader(struct outbox *outbox)
{
    if (outbox->reader != NULL)
        spool_reader_close(outbox->reader);
    outbox->reader = NULL;
}

static bool place_reader(struct cell *cell, struct outbox *outbox, struct ha_id id, uint64_t seq)
{
    struct sl_error err;
    if (outbox->reader != NULL && ha_same(outbox->reading, id)) {
        if (outbox->reader_next == seq)
            return true;
        if (spool_reader_seek(outbox->reader, seq, &err))
            return true;
    }
    close_reader(outbox);
    char stream[SPOOL_STREAM_ID_MAX];
    cell_text(cell, id, stream);
    outbox->reading = id;
    if (spool_reader_open(&outbox->reader, cell->spool, stream, seq, &err))
        return true;
    sl_logf(SL_WARN, "ha", "a copy cannot be read for a peer", SL_STR("stream", stream), SL_STR("error", err.text));
    outbox->reader = NULL;
    return false;
}

// The frame that holds the record, from the disk; NULL: it is not there (any more, or not yet).
static struct spool_frame *read_frame(struct cell *cell, struct outbox *outbox, struct ha_id id, uint64_t seq)
{
    if (!place_reader(cell, outbox, id, seq))
        return NULL;
    struct spool_frame *frame;
    struct spool_damage damage;
    struct sl_error err;
    if (spool_reader_next(outbox->reader, 0, &frame, &damage, &err) != SPOOL_READ_FRAME) {
        close_reader(outbox);
        return NULL;
    }
    outbox->reader_next = last_of(frame) + 1;
    if (frame->header.first_seq <= seq && seq <= last_of(frame))
        return frame;
    spool_frame_release(frame);
    return NULL;
}

// ---- the outbox

static struct range *range_at(const struct outbox *outbox, size_t index)
{
    return &outbox->ranges[(outbox->first + index) % outbox->capacity];
}

static void grow_outbox(struct outbox *outbox)
{
    size_t capacity = outbox->capacity == 0 ? 32 : 2 * outbox->capacity;
    struct range *ranges = calloc(capacity, sizeof(*ranges));
    sl_assert(ranges != NULL);
    for (size_t i = 0; i < outbox->count; i++)
        ranges[i] = *range_at(outbox, i);
    free(outbox->ranges);
    outbox->ranges = ranges;
    outbox->first = 0;
    outbox->capacity = capacity;
}

void outbox_add(struct cell *cell, const struct ha_action *send)
{
    struct outbox *outbox = &cell->outboxes[send->peer];
    // The core sends again what has no answer: what still waits here was not even sent.
    for (size_t i = 0; i < outbox->count; i++) {
        struct range *range = range_at(outbox, i);
        // It is in this one, overlaps it, or goes on where it ends.
        if (ha_same(range->send.stream, send->stream) && range->next <= send->first &&
            range->send.last + 1 >= send->first) {
            range->send.stated_through = send->stated_through;
            if (range->send.last < send->last)
                range->send.last = send->last;
            return;
        }
    }
    if (outbox->count == outbox->capacity)
        grow_outbox(outbox);
    outbox->count++;
    *range_at(outbox, outbox->count - 1) = (struct range){.send = *send, .next = send->first};
}

void outbox_clear(struct cell *cell, uint8_t peer)
{
    struct outbox *outbox = &cell->outboxes[peer];
    close_reader(outbox);
    free(outbox->ranges);
    *outbox = (struct outbox){0};
}

static void release_frame(void *frame)
{
    spool_frame_release(frame);
}

// The part of the frame's body that holds first..last.
static struct sl_span cut(const struct spool_frame *frame, uint64_t first, uint64_t last)
{
    if (frame->header.first_seq == first && last_of(frame) == last)
        return (struct sl_span){.bytes = frame->body, .length = frame->header.body_length};
    struct sl_reader reader = sl_reader_of(frame->body, frame->header.body_length);
    struct record record;
    size_t from = 0;
    for (uint64_t seq = frame->header.first_seq; seq <= last; seq++) {
        if (seq == first)
            from = reader.position;
        bool there = record_next(&reader, &record);
        sl_assert(there); // the frame was verified, or made, by this process
    }
    return (struct sl_span){.bytes = frame->body + from, .length = reader.position - from};
}

// False: no session.
static bool send_piece(struct cell *cell, const struct range *range, struct spool_frame *frame, uint64_t last,
                       const struct spool_stream_info *info)
{
    struct wire_message *message = cell_message(cell, WIRE_OF_CORE);
    message->message.kind = HA_FRAME;
    message->message.stream = range->send.stream;
    message->message.first = range->next;
    message->message.last = last;
    message->message.stated_through = range->send.stated_through;
    message->message.acked_through = ha_two_zones(cell->core, range->send.stream);
    message->message.repair = range->send.repair;
    message->head.lane_count = info->lane_count;
    memcpy(message->head.lanes, info->lanes, sizeof(message->head.lanes));
    memcpy(message->head.predecessor, info->predecessor, sizeof(message->head.predecessor));
    message->head.predecessor_seq = info->predecessor_seq;
    message->count = (uint32_t)(last - range->next + 1);
    message->written_wall_ns = frame->header.written_wall_ns;
    message->body = cut(frame, range->next, last);
    return peers_send(cell->peers, range->send.peer, message, release_frame, frame);
}

// Sends of the range while there is room. True: it is done with, sent or not to be had here.
static bool run_range(struct cell *cell, struct outbox *outbox, struct range *range)
{
    const struct own_stream *own = own_of(cell, range->send.stream);
    struct spool_stream_info info;
    char stream[SPOOL_STREAM_ID_MAX];
    cell_text(cell, range->send.stream, stream);
    if (!spool_stream_find(cell->spool, stream, &info))
        return true;
    while (range->next <= range->send.last) {
        if (!peers_has_room(cell->peers, range->send.peer))
            return false;
        struct spool_frame *frame = own != NULL ? tap_find(&cell->tap, own->incarnation, range->next) : NULL;
        if (frame == NULL)
            frame = read_frame(cell, outbox, range->send.stream, range->next);
        if (frame == NULL)
            return true; // the core asks again
        uint64_t last = last_of(frame) < range->send.last ? last_of(frame) : range->send.last;
        if (!send_piece(cell, range, frame, last, &info))
            return true;
        range->next = last + 1;
    }
    return true;
}

void outbox_run(struct cell *cell, uint8_t peer)
{
    struct outbox *outbox = &cell->outboxes[peer];
    while (outbox->count > 0 && run_range(cell, outbox, range_at(outbox, 0))) {
        if (outbox->count == 0)
            return; // the session ended meanwhile
        outbox->first = (outbox->first + 1) % outbox->capacity;
        outbox->count--;
    }
}
