// Messages as bytes: what is written is read, and nothing else is.
#include "ha/wire.h"

#include "base/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[] = {"gw-a1", "gw-b1", "gw-c1"};
static const struct wire_cell cell = {.names = names, .members = 3};

static struct ha_id stream_of(uint8_t member, uint64_t counter)
{
    return (struct ha_id){.counter = counter, .chance = 0xc0ffee, .member = member};
}

// A message in memory of its exact length, so that a sanitizer sees one byte too far.
struct bytes {
    uint8_t *bytes;
    size_t length;
};

static struct bytes encode(const struct wire_message *message)
{
    uint8_t head[WIRE_HEAD_MAX];
    size_t length = wire_encode(&cell, message, head);
    struct bytes out = {.bytes = malloc(length + message->body.length), .length = length + message->body.length};
    assert_non_null(out.bytes);
    memcpy(out.bytes, head, length);
    if (message->body.length > 0)
        memcpy(out.bytes + length, message->body.bytes, message->body.length);
    return out;
}

static bool decode_with(struct wire_message *out, const struct wire_cell *in, struct bytes bytes)
{
    struct wire_header header;
    struct sl_error err = {.text = ""};
    bool good = bytes.length >= WIRE_HEADER_BYTES && wire_decode_header(&header, bytes.bytes, WIRE_MESSAGE_MAX, &err) &&
                WIRE_HEADER_BYTES + header.length == bytes.length &&
                wire_decode(out, in, 2, &header, bytes.bytes, &err);
    assert_true(good || err.code == SL_E_CORRUPT || err.code == SL_E_TOO_LARGE || err.code == SL_OK);
    return good;
}

static bool decode(struct wire_message *out, struct bytes bytes)
{
    return decode_with(out, &cell, bytes);
}

static void put_crc_right(struct bytes bytes)
{
    uint32_t content;
    memcpy(&content, bytes.bytes + 8, 4);
    memset(bytes.bytes + 4, 0, 4);
    uint32_t crc = sl_crc32c(bytes.bytes, WIRE_HEADER_BYTES + content);
    memcpy(bytes.bytes + 4, &crc, 4);
}

static struct wire_message *new_message(enum ha_message_kind kind)
{
    struct wire_message *message = calloc(1, sizeof(*message));
    assert_non_null(message);
    message->message.kind = kind;
    return message;
}

// `count` records, each a length and that many bytes.
static struct sl_span records(uint32_t count, uint32_t length)
{
    uint8_t *body = calloc(count, 4 + length);
    assert_non_null(body);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(body + i * (4 + length), &length, 4);
        memset(body + i * (4 + length) + 4, (int)('a' + i), length);
    }
    return (struct sl_span){.bytes = body, .length = (size_t)count * (4 + length)};
}

static void free_body(struct wire_message *message)
{
    free((void *)(uintptr_t)message->body.bytes);
    free(message);
}

static struct wire_message *a_frame(void)
{
    struct wire_message *frame = new_message(HA_FRAME);
    frame->message.stream = stream_of(1, 7);
    frame->message.first = 41;
    frame->message.last = 43;
    frame->message.stated_through = 12;
    frame->message.acked_through = 40;
    frame->message.repair = true;
    frame->count = 3;
    frame->written_wall_ns = INT64_C(1700000000000000000);
    frame->head.lane_count = 2;
    snprintf(frame->head.lanes[0], sizeof(frame->head.lanes[0]), "payments");
    snprintf(frame->head.lanes[1], sizeof(frame->head.lanes[1]), "clicks");
    snprintf(frame->head.predecessor, sizeof(frame->head.predecessor), "gw-b1.6-0000beef");
    frame->head.predecessor_seq = 99;
    frame->body = records(3, 20);
    return frame;
}

// All that there is room for, with the longest names.
static struct wire_message *a_heartbeat(uint32_t entries)
{
    struct wire_message *heartbeat = new_message(HA_HEARTBEAT);
    struct ha_message *message = &heartbeat->message;
    message->kafka = true;
    message->silence_ns[0] = 5;
    message->silence_ns[1] = INT64_MAX;
    message->heartbeat_acked_through = 17;
    message->entry_count = entries;
    for (uint32_t i = 0; i < entries; i++) {
        struct ha_entry *entry = &message->entries[i];
        entry->stream = stream_of((uint8_t)(i % 3), UINT64_C(999999999999999999) - i);
        entry->base = i + 1;
        entry->end = 1000 + i;
        entry->flags = (uint8_t)(i % 32);
        entry->head.lane_count = i % (HA_LANES_MAX + 1);
        for (uint32_t lane = 0; lane < entry->head.lane_count; lane++)
            entry->head.lane_ids[lane] = 77 * i + lane;
        entry->head.predecessor = i % 2 ? stream_of((uint8_t)(i % 3), 3) : (struct ha_id){0};
        entry->head.predecessor_seq = i;
    }
    return heartbeat;
}

static void assert_same_entry(const struct ha_entry *a, const struct ha_entry *b)
{
    assert_true(ha_same(a->stream, b->stream));
    assert_int_equal(a->base, b->base);
    assert_int_equal(a->end, b->end);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->head.lane_count, b->head.lane_count);
    assert_memory_equal(a->head.lane_ids, b->head.lane_ids, sizeof(a->head.lane_ids));
    assert_true(ha_same(a->head.predecessor, b->head.predecessor));
    assert_int_equal(a->head.predecessor_seq, b->head.predecessor_seq);
}

static void a_frame_comes_back(void **state)
{
    (void)state;
    struct wire_message *frame = a_frame(), *got = new_message(HA_DURABLE);
    struct bytes bytes = encode(frame);
    assert_true(decode(got, bytes));
    assert_int_equal(got->message.kind, HA_FRAME);
    assert_int_equal(got->message.from, 2);
    assert_true(ha_same(got->message.stream, frame->message.stream));
    assert_int_equal(got->message.first, 41);
    assert_int_equal(got->message.last, 43);
    assert_int_equal(got->message.stated_through, 12);
    assert_int_equal(got->message.acked_through, 40);
    assert_true(got->message.repair);
    assert_int_equal(got->count, 3);
    assert_int_equal(got->written_wall_ns, frame->written_wall_ns);
    assert_memory_equal(&got->head, &frame->head, sizeof(got->head));
    assert_int_equal(got->body.length, frame->body.length);
    assert_memory_equal(got->body.bytes, frame->body.bytes, frame->body.length);
    // The head as the core wants it.
    assert_int_equal(got->message.head.lane_count, 2);
    assert_int_equal(got->message.head.lane_ids[0], sl_crc32c("payments", 8));
    assert_int_equal(got->message.head.lane_ids[1], sl_crc32c("clicks", 6));
    assert_true(ha_same(got->message.head.predecessor, (struct ha_id){.counter = 6, .chance = 0xbeef, .member = 1}));
    assert_int_equal(got->message.head.predecessor_seq, 99);
    free(bytes.bytes);
    free(got);
    free_body(frame);
}

static void a_full_heartbeat_comes_back(void **state)
{
    (void)state;
    for (uint32_t entries = 0; entries <= HA_STREAMS_MAX; entries += 16) {
        struct wire_message *heartbeat = a_heartbeat(entries), *got = new_message(HA_DURABLE);
        struct bytes bytes = encode(heartbeat);
        assert_true(decode(got, bytes));
        assert_int_equal(got->message.kind, HA_HEARTBEAT);
        assert_true(got->message.kafka);
        assert_int_equal(got->message.heartbeat_acked_through, 17);
        assert_memory_equal(got->message.silence_ns, heartbeat->message.silence_ns, sizeof(got->message.silence_ns));
        assert_int_equal(got->message.entry_count, entries);
        for (uint32_t i = 0; i < entries; i++)
            assert_same_entry(&got->message.entries[i], &heartbeat->message.entries[i]);
        free(bytes.bytes);
        free(got);
        free(heartbeat);
    }
}

static void the_longest_content_has_room(void **state)
{
    (void)state;
    char longest[3][SPOOL_NAME_MAX + 1];
    const char *const long_names[] = {longest[0], longest[1], longest[2]};
    const struct wire_cell long_cell = {.names = long_names, .members = 3};
    for (int i = 0; i < 3; i++) {
        memset(longest[i], 'a' + i, SPOOL_NAME_MAX);
        longest[i][SPOOL_NAME_MAX] = '\0';
    }
    struct wire_message *heartbeat = a_heartbeat(HA_STREAMS_MAX), *got = new_message(HA_DURABLE);
    for (uint32_t i = 0; i < HA_STREAMS_MAX; i++) {
        heartbeat->message.entries[i].head.lane_count = HA_LANES_MAX;
        heartbeat->message.entries[i].head.predecessor = heartbeat->message.entries[i].stream;
    }
    uint8_t head[WIRE_HEAD_MAX];
    struct bytes bytes = {.bytes = head, .length = wire_encode(&long_cell, heartbeat, head)};
    assert_true(decode_with(got, &long_cell, bytes));
    free(got);
    free(heartbeat);
}

static void the_short_kinds_come_back(void **state)
{
    (void)state;
    struct wire_message *durable = new_message(HA_DURABLE), *got = new_message(HA_HEARTBEAT);
    durable->message.stream = stream_of(0, 1);
    durable->message.last = UINT64_C(1) << 61;
    struct bytes bytes = encode(durable);
    assert_true(decode(got, bytes));
    assert_int_equal(got->message.kind, HA_DURABLE);
    assert_true(ha_same(got->message.stream, durable->message.stream));
    assert_int_equal(got->message.last, UINT64_C(1) << 61);
    free(bytes.bytes);
    durable->message.kind = HA_REFUSED;
    bytes = encode(durable);
    assert_true(decode(got, bytes));
    assert_int_equal(got->message.kind, HA_REFUSED);
    assert_true(ha_same(got->message.stream, durable->message.stream));
    free(bytes.bytes);
    free(got);
    free(durable);
}

// Every single bit is covered by a checksum, or makes the header say something that does not fit.
static void no_bit_may_change(void **state)
{
    (void)state;
    struct wire_message *frame = a_frame(), *got = new_message(HA_DURABLE);
    struct bytes bytes = encode(frame);
    for (size_t bit = 0; bit < 8 * bytes.length; bit++) {
        bytes.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(decode(got, bytes));
        bytes.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(decode(got, bytes));
    free(bytes.bytes);
    free(got);
    free_body(frame);
}

// A content that is cut short, or has more behind it, with a header that is right about it.
static void no_length_but_its_own(void **state)
{
    (void)state;
    struct wire_message *heartbeat = a_heartbeat(2), *got = new_message(HA_DURABLE);
    struct bytes bytes = encode(heartbeat);
    for (size_t length = 0; length <= bytes.length - WIRE_HEADER_BYTES + 1; length++) {
        struct bytes cut = {.bytes = calloc(1, WIRE_HEADER_BYTES + length), .length = WIRE_HEADER_BYTES + length};
        uint32_t content = (uint32_t)length;
        assert_non_null(cut.bytes);
        memcpy(cut.bytes, bytes.bytes, cut.length < bytes.length ? cut.length : bytes.length);
        memcpy(cut.bytes, &content, 4);
        memcpy(cut.bytes + 8, &content, 4);
        put_crc_right(cut);
        assert_int_equal(decode(got, cut), cut.length == bytes.length);
        free(cut.bytes);
    }
    free(bytes.bytes);
    free(got);
    free(heartbeat);
}

static void values_out_of_range_are_refused(void **state)
{
    (void)state;
    // Of a DURABLE: content is one length byte, the id, the seq.
    static const struct {
        const char *id;
        uint64_t last;
        bool good;
    } cases[] = {
        {"gw-a1.1-00c0ffee", 5, true},   {"gw-a1.1-00c0ffee", UINT64_MAX, false},
        {"gw-x1.1-00c0ffee", 5, false},  // nobody of this cell
        {"gw-a1.01-00c0ffee", 5, false}, // another text of the same id
        {"gw-a1.0-00c0ffee", 5, false},  {"gw-a1.1-00C0FFEE", 5, false},
        {"gw-a1.1-00c0ffe", 5, false},   {"", 5, false},
    };
    struct wire_message *got = new_message(HA_HEARTBEAT);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t buffer[128] = {0};
        uint32_t content = (uint32_t)(1 + strlen(cases[i].id) + 8);
        struct bytes bytes = {.bytes = buffer, .length = WIRE_HEADER_BYTES + content};
        memcpy(buffer, &content, 4);
        memcpy(buffer + 8, &content, 4);
        buffer[12] = WIRE_DURABLE;
        buffer[16] = (uint8_t)strlen(cases[i].id);
        memcpy(buffer + 17, cases[i].id, strlen(cases[i].id));
        memcpy(buffer + 17 + strlen(cases[i].id), &cases[i].last, 8);
        put_crc_right(bytes);
        assert_int_equal(decode(got, bytes), cases[i].good);
    }
    free(got);
}

static void a_frame_is_its_records(void **state)
{
    (void)state;
    struct wire_message *frame = a_frame(), *got = new_message(HA_DURABLE);
    // One record more or less than first..last says, and a record that reaches beyond the end.
    for (int64_t change = -1; change <= 1; change++) {
        frame->message.last = (uint64_t)(43 + change);
        frame->count = (uint32_t)(3 + change);
        struct bytes bytes = encode(frame);
        assert_int_equal(decode(got, bytes), change == 0);
        free(bytes.bytes);
    }
    frame->message.last = 43;
    frame->count = 3;
    uint32_t length = 21;
    memcpy((uint8_t *)(uintptr_t)frame->body.bytes + 48, &length, 4);
    struct bytes bytes = encode(frame);
    assert_false(decode(got, bytes));
    free(bytes.bytes);
    free(got);
    free_body(frame);
}

static void another_cell_does_not_understand(void **state)
{
    (void)state;
    const struct wire_cell two = {.names = names, .members = 2};
    struct wire_message *heartbeat = a_heartbeat(1), *got = new_message(HA_DURABLE);
    struct bytes bytes = encode(heartbeat);
    assert_true(decode(got, bytes));
    assert_false(decode_with(got, &two, bytes));
    free(bytes.bytes);
    free(got);
    free(heartbeat);
}

static void headers_have_bounds(void **state)
{
    (void)state;
    struct wire_message *frame = a_frame();
    struct bytes bytes = encode(frame);
    struct wire_header header;
    struct sl_error err;
    assert_true(wire_decode_header(&header, bytes.bytes, bytes.length, &err));
    assert_int_equal(header.kind, WIRE_FRAME);
    assert_int_equal(WIRE_HEADER_BYTES + header.length, bytes.length);
    assert_false(wire_decode_header(&header, bytes.bytes, bytes.length - 1, &err));
    assert_int_equal(err.code, SL_E_TOO_LARGE);
    assert_false(wire_decode_header(&header, bytes.bytes, 0, &err));
    assert_false(wire_decode_header(&header, (const uint8_t *)"GET / HTTP/1.1\r\n", WIRE_MESSAGE_MAX, &err));
    assert_int_equal(err.code, SL_E_CORRUPT);
    free(bytes.bytes);
    free_body(frame);
}

static struct wire_hello a_hello(void)
{
    struct wire_hello hello = {.version = WIRE_VERSION,
                               .cluster = "payments",
                               .member_count = 2,
                               .self = 1,
                               .chance = 0x1122334455667788,
                               .dedupe_key_id = {1, 2, 3, 4, 5, 6, 7, 8}};
    snprintf(hello.members[0].name, sizeof(hello.members[0].name), "gw-a1");
    snprintf(hello.members[0].zone, sizeof(hello.members[0].zone), "az-a");
    snprintf(hello.members[1].name, sizeof(hello.members[1].name), "gw-b1");
    snprintf(hello.members[1].zone, sizeof(hello.members[1].zone), "az-b");
    return hello;
}

static bool decode_hello(struct wire_hello *out, struct bytes bytes)
{
    struct wire_header header;
    struct sl_error err;
    return wire_decode_header(&header, bytes.bytes, bytes.length, &err) &&
           wire_decode_hello(out, &header, bytes.bytes, &err);
}

static void a_hello_comes_back(void **state)
{
    (void)state;
    uint8_t buffer[WIRE_HEAD_MAX];
    struct wire_hello hello = a_hello(), got;
    struct bytes bytes = {.bytes = buffer, .length = wire_encode_hello(&hello, buffer)};
    assert_true(decode_hello(&got, bytes));
    assert_memory_equal(&got, &hello, sizeof(got));
    buffer[WIRE_HEADER_BYTES] ^= 1; // the magic
    put_crc_right(bytes);
    assert_false(decode_hello(&got, bytes));
}

// Whatever later versions put behind the members, their names are still understood.
static void a_hello_of_another_version_names_its_sender(void **state)
{
    (void)state;
    uint8_t buffer[WIRE_HEAD_MAX] = {0};
    struct wire_hello hello = a_hello(), got;
    struct bytes bytes = {.bytes = buffer, .length = wire_encode_hello(&hello, buffer) + 5};
    uint32_t content = (uint32_t)(bytes.length - WIRE_HEADER_BYTES), version = WIRE_VERSION + 1;
    memset(buffer + bytes.length - 5, 0x5a, 5);
    memcpy(buffer, &content, 4);
    memcpy(buffer + 8, &content, 4);
    put_crc_right(bytes);
    assert_false(decode_hello(&got, bytes)); // this version has nothing behind
    memcpy(buffer + WIRE_HEADER_BYTES + 8, &version, 4);
    put_crc_right(bytes);
    assert_true(decode_hello(&got, bytes));
    assert_int_equal(got.version, version);
    assert_string_equal(got.members[got.self].name, "gw-b1");
}

static void kinds_have_their_place(void **state)
{
    (void)state;
    uint8_t buffer[WIRE_HEAD_MAX];
    struct wire_hello hello = a_hello();
    struct wire_message *got = new_message(HA_DURABLE);
    struct wire_header header;
    struct sl_error err;
    struct bytes bytes = {.bytes = buffer, .length = wire_encode_welcome(buffer)};
    assert_true(wire_decode_header(&header, buffer, bytes.length, &err));
    assert_true(wire_decode_welcome(&header, buffer, &err));
    assert_false(wire_decode_hello(&hello, &header, buffer, &err));
    assert_false(decode(got, bytes));
    hello = a_hello();
    bytes.length = wire_encode_hello(&hello, buffer);
    assert_false(decode(got, bytes));
    assert_true(wire_decode_header(&header, buffer, bytes.length, &err));
    assert_false(wire_decode_welcome(&header, buffer, &err));
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_comes_back),
        cmocka_unit_test(a_full_heartbeat_comes_back),
        cmocka_unit_test(the_longest_content_has_room),
        cmocka_unit_test(the_short_kinds_come_back),
        cmocka_unit_test(no_bit_may_change),
        cmocka_unit_test(no_length_but_its_own),
        cmocka_unit_test(values_out_of_range_are_refused),
        cmocka_unit_test(a_frame_is_its_records),
        cmocka_unit_test(another_cell_does_not_understand),
        cmocka_unit_test(headers_have_bounds),
        cmocka_unit_test(a_hello_comes_back),
        cmocka_unit_test(a_hello_of_another_version_names_its_sender),
        cmocka_unit_test(kinds_have_their_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
