// The body of an ids frame:
//
//   first seq u64 | count u32 | business count u32 | first received u64 | last received u64 | offset of the ids frame
//   before it u64 | key id 8 bytes
//   | count × (id hash 16 bytes | payload hash u64) | business count × (index u32 | business hash 16 bytes)
//
// Both lists are kept in memory as they are on disk: neither writing nor reading copies them.
#include "spool/frame.h"

#include <stdlib.h>

enum { ENTRY = sizeof(struct ids_entry), BUSINESS = sizeof(struct ids_business) };

void ids_head_encode(const struct ids_head *head, uint8_t bytes[IDS_HEAD_BYTES])
{
    struct sl_writer writer = sl_writer_of(bytes, IDS_HEAD_BYTES);
    sl_write_u64(&writer, head->first_seq);
    sl_write_u32(&writer, head->count);
    sl_write_u32(&writer, head->business_count);
    sl_write_u64(&writer, (uint64_t)head->first_received_wall_ns);
    sl_write_u64(&writer, (uint64_t)head->last_received_wall_ns);
    sl_write_u64(&writer, head->previous_offset);
    sl_write_bytes(&writer, head->key_id, sizeof(head->key_id));
    sl_assert(!writer.failed && writer.position == IDS_HEAD_BYTES);
}

uint64_t ids_body_length(const struct ids_head *head)
{
    return (uint64_t)IDS_HEAD_BYTES + (uint64_t)head->count * ENTRY + (uint64_t)head->business_count * BUSINESS;
}

bool ids_head_decode(struct ids_head *head, const uint8_t *bytes, uint32_t body_length)
{
    struct sl_reader reader = sl_reader_of(bytes, IDS_HEAD_BYTES);
    head->first_seq = sl_read_u64(&reader);
    head->count = sl_read_u32(&reader);
    head->business_count = sl_read_u32(&reader);
    head->first_received_wall_ns = (int64_t)sl_read_u64(&reader);
    head->last_received_wall_ns = (int64_t)sl_read_u64(&reader);
    head->previous_offset = sl_read_u64(&reader);
    struct sl_span key_id = sl_read_span(&reader, sizeof(head->key_id));
    memcpy(head->key_id, key_id.bytes, sizeof(head->key_id));
    return head->first_seq > 0 && head->count > 0 && head->first_seq + head->count > head->first_seq &&
           head->business_count <= head->count && head->previous_offset % SPOOL_BLOCK == 0 &&
           ids_body_length(head) == body_length;
}

bool ids_body_decode(struct ids_head *head, const struct ids_entry **entries, const struct ids_business **business,
                     const uint8_t *body, uint32_t body_length)
{
    if (body_length < IDS_HEAD_BYTES || !ids_head_decode(head, body, body_length))
        return false;
    sl_assert((uintptr_t)body % 8 == 0);
    *entries = (const struct ids_entry *)(const void *)(body + IDS_HEAD_BYTES);
    *business = (const struct ids_business *)(const void *)(*entries + head->count);
    for (uint32_t i = 0; i < head->business_count; i++)
        if ((*business)[i].index >= head->count || (i > 0 && (*business)[i].index <= (*business)[i - 1].index))
            return false;
    return true;
}

// ---- entries on their way

static void *grown(void *list, uint32_t *capacity, uint32_t count, size_t size)
{
    if (count < *capacity)
        return list;
    uint32_t more = *capacity > 0 ? *capacity * 2 : 1024;
    void *larger = realloc(list, more * size);
    if (larger != NULL)
        *capacity = more;
    return larger;
}

static bool add_one(struct ids_buffer *buffer, const struct record_ids *ids)
{
    struct ids_entry *entries = grown(buffer->entries, &buffer->capacity, buffer->count, sizeof(*entries));
    if (entries == NULL)
        return false;
    buffer->entries = entries;
    if (ids->has_business_hash) {
        struct ids_business *business =
            grown(buffer->business, &buffer->business_capacity, buffer->business_count, sizeof(*business));
        if (business == NULL)
            return false;
        buffer->business = business;
        business += buffer->business_count++;
        business->index = buffer->count;
        memcpy(business->hash, ids->business_hash, sizeof(business->hash));
    }
    if (buffer->count == 0 || ids->received_wall_ns < buffer->first_received_wall_ns)
        buffer->first_received_wall_ns = ids->received_wall_ns;
    if (buffer->count == 0 || ids->received_wall_ns > buffer->last_received_wall_ns)
        buffer->last_received_wall_ns = ids->received_wall_ns;
    entries[buffer->count++] = ids->entry;
    return true;
}

bool ids_buffer_add(struct ids_buffer *buffer, const void *records, size_t length)
{
    uint32_t count = buffer->count, business_count = buffer->business_count;
    int64_t first = buffer->first_received_wall_ns, last = buffer->last_received_wall_ns;
    struct sl_reader reader = sl_reader_of(records, length);
    struct record_ids ids;
    bool good = true;
    while (good && record_ids_next(&reader, &ids))
        good = add_one(buffer, &ids);
    if (good && !reader.failed)
        return true;
    buffer->count = count;
    buffer->business_count = business_count;
    buffer->first_received_wall_ns = first;
    buffer->last_received_wall_ns = last;
    return false;
}

bool ids_buffer_append(struct ids_buffer *buffer, const struct ids_head *head, const struct ids_entry *entries,
                       const struct ids_business *business)
{
    uint32_t next_business = 0;
    for (uint32_t i = 0; i < head->count; i++) {
        struct record_ids ids = {.entry = entries[i], .received_wall_ns = head->first_received_wall_ns};
        if (i + 1 == head->count)
            ids.received_wall_ns = head->last_received_wall_ns;
        ids.has_business_hash = next_business < head->business_count && business[next_business].index == i;
        if (ids.has_business_hash)
            memcpy(ids.business_hash, business[next_business++].hash, sizeof(ids.business_hash));
        if (!add_one(buffer, &ids))
            return false;
    }
    return true;
}

// How many of the first business entries are of the first `count` records.
static uint32_t business_before(const struct ids_buffer *buffer, uint32_t count)
{
    uint32_t low = 0, high = buffer->business_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (buffer->business[middle].index < count)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t ids_buffer_head(const struct ids_buffer *buffer, uint32_t body_max, struct ids_head *head)
{
    sl_assert(body_max >= IDS_HEAD_BYTES + ENTRY + BUSINESS);
    uint32_t most = (body_max - IDS_HEAD_BYTES) / ENTRY;
    *head = (struct ids_head){.first_seq = buffer->first_seq,
                              .count = buffer->count < most ? buffer->count : most,
                              .first_received_wall_ns = buffer->first_received_wall_ns,
                              .last_received_wall_ns = buffer->last_received_wall_ns};
    for (;;) {
        head->business_count = business_before(buffer, head->count);
        uint64_t length = ids_body_length(head);
        if (length <= body_max)
            return head->count;
        uint64_t over = length - body_max;
        head->count -= (uint32_t)((over + ENTRY + BUSINESS - 1) / (ENTRY + BUSINESS));
    }
}

void ids_buffer_drop(struct ids_buffer *buffer, const struct ids_head *head)
{
    sl_assert(head->count <= buffer->count && head->business_count <= buffer->business_count);
    buffer->first_seq += head->count;
    buffer->count -= head->count;
    buffer->business_count -= head->business_count;
    if (buffer->count > 0)
        memmove(buffer->entries, buffer->entries + head->count, buffer->count * sizeof(*buffer->entries));
    for (uint32_t i = 0; i < buffer->business_count; i++) {
        buffer->business[i] = buffer->business[head->business_count + i];
        buffer->business[i].index -= head->count;
    }
}

void ids_buffer_reset(struct ids_buffer *buffer, uint64_t first_seq)
{
    buffer->first_seq = first_seq;
    buffer->count = buffer->business_count = 0;
}

void ids_buffer_free(struct ids_buffer *buffer)
{
    free(buffer->entries);
    free(buffer->business);
    *buffer = (struct ids_buffer){0};
}
