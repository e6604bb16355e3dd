// The last large frames in memory.
//
// They are kept while a reader follows closely, and not when nobody does: while Kafka is away every frame would push
// the writer's buffer out of the CPU's cache, for nothing. A reader that waits for the next frame is close; a frame
// that leaves the ring and was never taken says that nobody is.
#include "spool/internal.h"

static void drop_oldest(struct recent *recent)
{
    struct spool_frame *frame = recent->ring[recent->first].frame;
    recent->ring[recent->first].frame = NULL;
    recent->first = (recent->first + 1) % RECENT_FRAMES;
    recent->count--;
    recent->bytes -= frame->header.body_length;
    spool_frame_release(frame);
}

void recent_clear(struct recent *recent)
{
    while (recent->count > 0)
        drop_oldest(recent);
}

void recent_add(struct recent *recent, struct spool_frame *frame)
{
    if (!recent->followed || frame->header.body_length > RECENT_BYTES)
        return;
    while (recent->count == RECENT_FRAMES ||
           (recent->count > 0 && recent->bytes + frame->header.body_length > RECENT_BYTES)) {
        if (!recent->ring[recent->first].taken) {
            recent->followed = false;
            recent_clear(recent);
            return;
        }
        drop_oldest(recent);
    }
    size_t last = (recent->first + recent->count) % RECENT_FRAMES;
    recent->ring[last].frame = spool_frame_retain(frame);
    recent->ring[last].taken = false;
    recent->count++;
    recent->bytes += frame->header.body_length;
}

struct spool_frame *recent_find(struct recent *recent, uint64_t first_seq, uint64_t offset)
{
    for (size_t i = 0; i < recent->count; i++) {
        size_t at = (recent->first + i) % RECENT_FRAMES;
        const struct frame_header *header = &recent->ring[at].frame->header;
        if (header->first_seq != first_seq || header->offset != offset)
            continue;
        recent->ring[at].taken = true;
        return spool_frame_retain(recent->ring[at].frame);
    }
    return NULL;
}
