// Any bytes as a message between members of a cell: the decoder ends, reads nothing beyond them, and what it takes
// encodes to the same bytes again. The first byte says whether the checksums are put right before (bit 0), or no input
// would ever come past them.
#include "ha/wire.h"

#include "base/crc32c.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"gw-a1", "gw-b1", "gw-c1"};
static const struct wire_cell cell = {.names = names, .members = 3};

static void put_checksums_right(uint8_t *bytes, size_t size)
{
    uint32_t length, content, crc;
    if (size < WIRE_HEADER_BYTES)
        return;
    memcpy(&length, bytes, 4);
    memcpy(&content, bytes + 8, 4);
    if (length > size - WIRE_HEADER_BYTES || content > length)
        return;
    // Of a frame, and of ids, the last four bytes of the content are the body's.
    if ((bytes[12] == WIRE_FRAME || bytes[12] == WIRE_IDS) && content >= 4) {
        crc = sl_crc32c(bytes + WIRE_HEADER_BYTES + content, length - content);
        memcpy(bytes + WIRE_HEADER_BYTES + content - 4, &crc, 4);
    }
    memset(bytes + 4, 0, 4);
    crc = sl_crc32c(bytes, WIRE_HEADER_BYTES + content);
    memcpy(bytes + 4, &crc, 4);
}

static void check_hello(const struct wire_header *header, const uint8_t *bytes)
{
    static uint8_t again[WIRE_HEAD_MAX];
    struct wire_hello hello;
    struct sl_error err = {.text = ""};
    if (!wire_decode_hello(&hello, header, bytes, &err)) {
        sl_assert(err.code == SL_E_CORRUPT && err.text[0] != '\0');
        return;
    }
    sl_assert(hello.self < hello.member_count && hello.member_count <= HA_MEMBERS_MAX);
    size_t length = wire_encode_hello(&hello, again);
    if (hello.version == WIRE_VERSION)
        sl_assert(length == WIRE_HEADER_BYTES + header->length && memcmp(again, bytes, length) == 0);
}

// What the core and the driver go by without looking again.
static void check_limits(const struct wire_message *message)
{
    const struct ha_message *core = &message->message;
    const struct wire_ids *ids = &message->ids;
    if (message->what != WIRE_OF_CORE) {
        sl_assert(core->from == 1 && ids->range_count <= WIRE_RANGES_MAX);
        sl_assert(message->body.length ==
                  ids->count * sizeof(struct ids_entry) + ids->business_count * sizeof(struct ids_business));
        return;
    }
    sl_assert(core->from == 1 && core->entry_count <= HA_STREAMS_MAX);
    for (uint32_t i = 0; i < core->entry_count; i++) {
        const struct ha_entry *entry = &core->entries[i];
        sl_assert(entry->stream.counter != 0 && entry->stream.member < cell.members);
        sl_assert(entry->head.lane_count <= HA_LANES_MAX && entry->end < entry->end + 1);
    }
    if (core->kind != HA_HEARTBEAT)
        sl_assert(core->stream.counter != 0 && core->stream.member < cell.members);
    if (core->kind != HA_FRAME)
        return;
    sl_assert(core->first >= 1 && core->first <= core->last && message->count == core->last - core->first + 1);
    sl_assert(core->head.lane_count == message->head.lane_count && message->head.lane_count <= SPOOL_LANES_MAX);
    struct sl_reader reader = sl_reader_of(message->body.bytes, message->body.length);
    for (uint32_t i = 0; i < message->count; i++)
        sl_read_span(&reader, sl_read_u32(&reader));
    sl_assert(!reader.failed && reader.position == reader.length);
}

static void check_message(const struct wire_header *header, const uint8_t *bytes)
{
    static struct wire_message message;
    static uint8_t again[WIRE_HEAD_MAX];
    struct sl_error err = {.text = ""};
    if (!wire_decode(&message, &cell, 1, header, bytes, &err)) {
        sl_assert(err.code == SL_E_CORRUPT && err.text[0] != '\0');
        return;
    }
    check_limits(&message);
    size_t length = wire_encode(&cell, &message, again);
    sl_assert(length == WIRE_HEADER_BYTES + header->content_length && memcmp(again, bytes, length) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 + WIRE_HEADER_BYTES)
        return 0;
    size_t length = size - 1;
    uint8_t *bytes = malloc(length); // of its exact length, so that a sanitizer sees one byte too far
    sl_assert(bytes != NULL);
    memcpy(bytes, data + 1, length);
    if (data[0] & 1)
        put_checksums_right(bytes, length);
    struct wire_header header;
    struct sl_error err = {.text = ""};
    if (wire_decode_header(&header, bytes, length, &err)) {
        sl_assert(WIRE_HEADER_BYTES + (size_t)header.length <= length && header.content_length <= WIRE_CONTENT_MAX);
        check_message(&header, bytes);
        check_hello(&header, bytes);
        if (!wire_decode_welcome(&header, bytes, &err))
            sl_assert(err.code == SL_E_CORRUPT);
    } else {
        sl_assert(err.text[0] != '\0' && (err.code == SL_E_CORRUPT || err.code == SL_E_TOO_LARGE));
    }
    free(bytes);
    return 0;
}
