// Segment header, frame header, records: round trips, limits, and every single flipped bit refused.
#include "base/crc32c.h"
#include "spool/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct segment_header sample_header(void)
{
    struct segment_header header = {.first_seq = 4711,
                                    .counter = 42,
                                    .created_wall_ns = 1700000000000000000,
                                    .size_bytes = 1 << 20,
                                    .predecessor_seq = 99,
                                    .lane_count = 2,
                                    .previous_frame_crc = 0xdeadbeef,
                                    .ids_key_id = {1, 2, 3, 4, 5, 6, 7, 8}};
    memset(header.uuid.bytes, 7, sizeof(header.uuid.bytes));
    memcpy(header.stream, "gw-a1.42-00c0ffee", sizeof("gw-a1.42-00c0ffee"));
    memcpy(header.node, "gw-a1", sizeof("gw-a1"));
    memcpy(header.predecessor, "gw-a1.41-01234567", sizeof("gw-a1.41-01234567"));
    memcpy(header.lanes[0], "main", sizeof("main"));
    memset(header.lanes[1], 'x', SPOOL_NAME_MAX);
    return header;
}

static void segment_header_round_trip(void **state)
{
    (void)state;
    struct segment_header in = sample_header(), out;
    uint8_t block[SPOOL_BLOCK];
    struct sl_error err;
    segment_header_encode(&in, block);
    assert_true(segment_header_decode(&out, block, &err));
    assert_memory_equal(&in, &out, sizeof(in));
}

static void segment_header_refuses_every_flipped_bit(void **state)
{
    (void)state;
    struct segment_header in = sample_header(), out;
    uint8_t block[SPOOL_BLOCK];
    struct sl_error err;
    segment_header_encode(&in, block);
    for (size_t bit = 0; bit < SPOOL_BLOCK * 8; bit++) {
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(segment_header_decode(&out, block, &err));
        assert_int_equal(err.code, SL_E_CORRUPT);
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void patch_crc(uint8_t *bytes, size_t length, size_t at)
{
    memset(bytes + at, 0, 4);
    uint32_t crc = sl_crc32c(bytes, length);
    memcpy(bytes + at, &crc, 4);
}

// A checksum that is right over values that are not.
static void segment_header_refuses_values_out_of_range(void **state)
{
    (void)state;
    const struct {
        size_t at;
        uint8_t value;
        const char *word;
    } cases[] = {{8, 2, "version"}, {32, 0, "first seq"}, {56, 1, "size"}, {76, 17, "lanes"}, {80 + 95, 'x', "stream"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct segment_header in = sample_header(), out;
        uint8_t block[SPOOL_BLOCK];
        struct sl_error err;
        in.first_seq = 1;
        memset(in.stream, 's', sizeof(in.stream) - 1);
        segment_header_encode(&in, block);
        block[cases[i].at] = cases[i].value;
        patch_crc(block, sizeof(block), 12);
        assert_false(segment_header_decode(&out, block, &err));
        assert_non_null(strstr(err.text, cases[i].word));
    }
}

static struct frame_header sample_frame(void)
{
    struct frame_header header = {.kind = FRAME_DATA,
                                  .body_length = 3000,
                                  .body_crc = 1,
                                  .previous_crc = 2,
                                  .count = 3,
                                  .first_seq = 100,
                                  .acked_through = 99,
                                  .written_wall_ns = 1700000000000000000,
                                  .offset = 8192};
    memset(header.uuid.bytes, 9, sizeof(header.uuid.bytes));
    return header;
}

static void frame_header_round_trip(void **state)
{
    (void)state;
    struct frame_header in = sample_frame(), out;
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_header_encode(&in, bytes);
    assert_int_equal(frame_header_decode(&out, bytes), FRAME_HEADER_OK);
    assert_memory_equal(&in, &out, sizeof(in));
    assert_true(spool_all_zero(bytes + 80, 48));
}

static void frame_header_refuses_every_flipped_bit(void **state)
{
    (void)state;
    struct frame_header in = sample_frame(), out;
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_header_encode(&in, bytes);
    for (size_t bit = 0; bit < FRAME_HEADER_BYTES * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(frame_header_decode(&out, bytes), FRAME_HEADER_BAD);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(frame_header_decode(&out, bytes), FRAME_HEADER_ZERO);
    bytes[127] = 1;
    assert_int_equal(frame_header_decode(&out, bytes), FRAME_HEADER_BAD);
}

static void frame_header_refuses_values_out_of_range(void **state)
{
    (void)state;
    struct frame_header good = sample_frame(), cases[14], out;
    for (size_t i = 0; i < 14; i++)
        cases[i] = good;
    cases[0].kind = (enum frame_kind)4;
    cases[1].flags = FRAME_FLAG_STREAM_CLOSED; // on a data frame
    cases[2].body_length = FRAME_BODY_MAX + 1;
    cases[3].count = 0;
    cases[4].first_seq = 0;
    cases[5].acked_through = 100; // told before it was written
    cases[6].offset = 8193;
    cases[7].offset = 0; // the header block's place
    cases[8].first_seq = UINT64_MAX;
    cases[9].kind = FRAME_SEAL; // with records
    cases[10].kind = FRAME_SEAL;
    cases[10].count = 0;        // its body is an offset or nothing
    cases[11].kind = FRAME_IDS; // with records
    cases[12].kind = FRAME_IDS;
    cases[12].count = 0;
    cases[12].body_length = IDS_HEAD_BYTES; // of no record
    cases[13].kind = FRAME_IDS;
    cases[13].count = 0;
    cases[13].flags = 1;
    for (size_t i = 0; i < 14; i++) {
        uint8_t bytes[FRAME_HEADER_BYTES];
        frame_header_encode(&cases[i], bytes);
        assert_int_equal(frame_header_decode(&out, bytes), FRAME_HEADER_BAD);
    }
    // A newer writer's use of the reserved bytes.
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_header_encode(&good, bytes);
    bytes[100] = 1;
    patch_crc(bytes, sizeof(bytes), 4);
    assert_int_equal(frame_header_decode(&out, bytes), FRAME_HEADER_BAD);
}

static void frame_sizes(void **state)
{
    (void)state;
    assert_int_equal(frame_size(0), SPOOL_BLOCK);
    assert_int_equal(frame_size(SPOOL_BLOCK - FRAME_HEADER_BYTES), SPOOL_BLOCK);
    assert_int_equal(frame_size(SPOOL_BLOCK - FRAME_HEADER_BYTES + 1), 2 * SPOOL_BLOCK);
    assert_int_equal(frame_size(FRAME_BODY_MAX), FRAME_BODY_MAX + SPOOL_BLOCK);
}

static void body_checksum_depends_on_the_segment(void **state)
{
    (void)state;
    struct frame_header header = sample_frame();
    header.body_length = 5;
    header.body_crc = sl_crc32c_extend(frame_body_seed(&header.uuid), "hello", 5);
    assert_true(frame_body_verify(&header, "hello"));
    assert_false(frame_body_verify(&header, "hellp"));
    header.uuid.bytes[0] ^= 1;
    assert_false(frame_body_verify(&header, "hello"));
}

// ---- records

static struct record sample_record(void)
{
    return (struct record){.kind = RECORD_QUARANTINED,
                           .flags = RECORD_FLAG_CONFLICT,
                           .id_hash = {1, 2, 3},
                           .payload_hash = UINT64_C(0x8877665544332211),
                           .received_wall_ns = 1234567890123,
                           .payload_crc = 77,
                           .source = sl_span_of("payments"),
                           .lane = sl_span_of("main"),
                           .topic = sl_span_of("payments.events"),
                           .event_id = sl_span_of("id-1"),
                           .has_key = true,
                           .key = sl_span_of("k"),
                           .payload = sl_span_of("{\"a\":1}")};
}

static void assert_span(struct sl_span span, const char *text)
{
    assert_int_equal(span.length, strlen(text));
    assert_memory_equal(span.bytes, text, span.length);
}

static void record_round_trip(void **state)
{
    (void)state;
    struct record_buffer buffer = {0};
    struct record in = sample_record(), out;
    struct record_header_field fields[] = {{sl_span_of("content-type"), sl_span_of("application/json")},
                                           {sl_span_of("empty"), sl_span_of("")}};
    assert_true(record_append(&buffer, &in, fields, 2));
    in.has_key = false;
    in.kind = RECORD_EVENT;
    in.flags = RECORD_FLAG_BUSINESS_DUPLICATE;
    in.has_business_hash = true;
    memset(in.business_hash, 0xb5, sizeof(in.business_hash));
    assert_true(record_append(&buffer, &in, NULL, 0));
    assert_int_equal(buffer.count, 2);

    struct sl_reader reader = sl_reader_of(buffer.bytes, buffer.length);
    assert_true(record_next(&reader, &out));
    assert_int_equal(out.kind, RECORD_QUARANTINED);
    assert_int_equal(out.flags, RECORD_FLAG_CONFLICT);
    assert_true(out.payload_hash == in.payload_hash);
    assert_false(out.has_business_hash);
    assert_int_equal(out.received_wall_ns, in.received_wall_ns);
    assert_int_equal(out.payload_crc, 77);
    assert_memory_equal(out.id_hash, in.id_hash, sizeof(in.id_hash));
    assert_span(out.source, "payments");
    assert_span(out.lane, "main");
    assert_span(out.topic, "payments.events");
    assert_span(out.event_id, "id-1");
    assert_true(out.has_key);
    assert_span(out.key, "k");
    assert_span(out.payload, "{\"a\":1}");
    assert_int_equal(out.header_count, 2);
    struct sl_reader headers = sl_reader_of(out.headers.bytes, out.headers.length);
    struct record_header_field field;
    assert_true(record_header_next(&headers, &field));
    assert_span(field.name, "content-type");
    assert_span(field.value, "application/json");
    assert_true(record_header_next(&headers, &field));
    assert_span(field.name, "empty");
    assert_int_equal(field.value.length, 0);
    assert_false(record_header_next(&headers, &field));
    assert_false(headers.failed);

    assert_true(record_next(&reader, &out));
    assert_int_equal(out.kind, RECORD_EVENT);
    assert_int_equal(out.flags, RECORD_FLAG_BUSINESS_DUPLICATE);
    assert_true(out.has_business_hash);
    assert_memory_equal(out.business_hash, in.business_hash, sizeof(in.business_hash));
    assert_span(out.source, "payments");
    assert_false(out.has_key);
    assert_false(record_next(&reader, &out));
    assert_false(reader.failed);
    record_buffer_free(&buffer);
    assert_null(buffer.bytes);
}

static void record_limits_leave_nothing_behind(void **state)
{
    (void)state;
    struct record_buffer buffer = {0};
    char *big = calloc(1, FRAME_BODY_MAX);
    assert_non_null(big);
    struct record good = sample_record();
    assert_true(record_append(&buffer, &good, NULL, 0));
    size_t length = buffer.length;
    const struct {
        size_t source, lane, topic, id, key, payload;
        bool fits;
    } cases[] = {
        {63, 63, 249, 1024, 65536, 100, true},
        {64, 1, 1, 1, 1, 1, false},
        {1, 64, 1, 1, 1, 1, false},
        {1, 1, 250, 1, 1, 1, false},
        {1, 1, 1, 1025, 1, 1, false},
        {1, 1, 1, 1, 65537, 1, false},
        {1, 1, 1, 1, 1, FRAME_BODY_MAX, false},
        {1, 1, 1, 1, 1, FRAME_BODY_MAX - 100, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct record record = good;
        record.source = (struct sl_span){big, cases[i].source};
        record.lane = (struct sl_span){big, cases[i].lane};
        record.topic = (struct sl_span){big, cases[i].topic};
        record.event_id = (struct sl_span){big, cases[i].id};
        record.key = (struct sl_span){big, cases[i].key};
        record.payload = (struct sl_span){big, cases[i].payload};
        uint32_t count = buffer.count;
        assert_int_equal(record_append(&buffer, &record, NULL, 0), cases[i].fits);
        if (cases[i].fits)
            record_buffer_cut(&buffer, length, count);
        assert_int_equal(buffer.length, length);
        assert_int_equal(buffer.count, 1);
    }
    struct record_header_field fields[RECORD_HEADERS_MAX + 1];
    for (size_t i = 0; i <= RECORD_HEADERS_MAX; i++)
        fields[i] = (struct record_header_field){sl_span_of("n"), sl_span_of("v")};
    assert_false(record_append(&buffer, &good, fields, RECORD_HEADERS_MAX + 1));
    assert_true(record_append(&buffer, &good, fields, RECORD_HEADERS_MAX));
    free(big);
    record_buffer_free(&buffer);
}

static void record_marks(void **state)
{
    (void)state;
    struct record_buffer buffer = {0};
    struct record in = sample_record(), out;
    in.has_business_hash = true;
    memset(in.business_hash, 0xb5, sizeof(in.business_hash));
    in.flags = RECORD_FLAG_BUSINESS_DUPLICATE;
    in.kind = RECORD_EVENT;
    assert_true(record_append(&buffer, &in, NULL, 0));
    size_t second = buffer.length;
    assert_true(record_append(&buffer, &in, NULL, 0));
    assert_int_equal(record_buffer_after(&buffer, 0), second);
    assert_int_equal(record_buffer_after(&buffer, second), buffer.length);
    const uint8_t other[RECORD_HASH_BYTES] = {9, 8, 7};
    record_buffer_mark(&buffer, 0, RECORD_EVENT, 0, NULL);
    record_buffer_mark(&buffer, second, RECORD_QUARANTINED, RECORD_FLAG_CONFLICT, other);
    struct sl_reader reader = sl_reader_of(buffer.bytes, buffer.length);
    assert_true(record_next(&reader, &out));
    assert_int_equal(out.flags, 0);
    assert_memory_equal(out.id_hash, in.id_hash, sizeof(in.id_hash));
    for (int i = 0; i < 2; i++) { // what was not marked is as it was, in both
        assert_true(out.has_key && out.has_business_hash);
        assert_true(out.payload_hash == in.payload_hash && out.payload_crc == in.payload_crc);
        assert_memory_equal(out.business_hash, in.business_hash, sizeof(in.business_hash));
        assert_span(out.event_id, "id-1");
        assert_span(out.payload, "{\"a\":1}");
        if (i == 0)
            assert_true(record_next(&reader, &out));
    }
    assert_int_equal(out.kind, RECORD_QUARANTINED);
    assert_int_equal(out.flags, RECORD_FLAG_CONFLICT);
    assert_memory_equal(out.id_hash, other, sizeof(other));
    assert_false(record_next(&reader, &out));
    assert_false(reader.failed);
    record_buffer_free(&buffer);
}

// Every subset of six records of different sizes, behind one that is not looked at.
static void record_drops(void **state)
{
    (void)state;
    enum { RECORDS = 6 };
    static const char text[] = "0123456789abcdef";
    for (unsigned subset = 0; subset < 1U << RECORDS; subset++) {
        struct record_buffer buffer = {0};
        struct record record = sample_record();
        assert_true(record_append(&buffer, &record, NULL, 0));
        size_t from = buffer.length, offsets[RECORDS];
        for (unsigned i = 0; i < RECORDS; i++) {
            record.payload = (struct sl_span){text, 2 * i};
            record.payload_crc = i;
            offsets[i] = buffer.length;
            assert_true(record_append(&buffer, &record, NULL, 0));
        }
        for (unsigned i = 0; i < RECORDS; i++)
            if (subset & 1U << i)
                record_buffer_drop(&buffer, offsets[i]);
        unsigned dropped = (unsigned)__builtin_popcount(subset);
        assert_int_equal(record_buffer_compact(&buffer, from), dropped);
        assert_int_equal(buffer.count, 1 + RECORDS - dropped);
        struct sl_reader reader = sl_reader_of(buffer.bytes, buffer.length);
        assert_true(record_next(&reader, &record));
        assert_int_equal(record.payload_crc, 77);
        for (unsigned i = 0; i < RECORDS; i++) {
            if (subset & 1U << i)
                continue;
            assert_true(record_next(&reader, &record));
            assert_int_equal(record.payload_crc, i);
            assert_int_equal(record.payload.length, 2 * i);
            assert_memory_equal(record.payload.bytes, text, 2 * i);
        }
        assert_false(record_next(&reader, &record));
        assert_false(reader.failed);
        record_buffer_free(&buffer);
    }
}

// A record that was dropped and is stored all the same is not taken for one.
static void record_dropped_does_not_read(void **state)
{
    (void)state;
    struct record_buffer buffer = {0};
    struct record record = sample_record();
    assert_true(record_append(&buffer, &record, NULL, 0));
    record_buffer_drop(&buffer, 0);
    struct sl_reader reader = sl_reader_of(buffer.bytes, buffer.length);
    assert_false(record_next(&reader, &record));
    assert_true(reader.failed);
    record_buffer_free(&buffer);
}

// Malformed bytes end a walk with reader->failed, whatever they are, and never read beyond the buffer (ASan looks).
static void record_walk_survives_any_damage(void **state)
{
    (void)state;
    struct record_buffer buffer = {0};
    struct record record = sample_record();
    record.has_business_hash = true;
    struct record_header_field field = {sl_span_of("h"), sl_span_of("v")};
    assert_true(record_append(&buffer, &record, &field, 1));
    assert_true(record_append(&buffer, &record, &field, 1));
    for (size_t cut = 0; cut < buffer.length; cut++) { // a cut between two records is an end, elsewhere it is damage
        uint8_t *copy = malloc(cut > 0 ? cut : 1);
        assert_non_null(copy);
        memcpy(copy, buffer.bytes, cut);
        struct sl_reader reader = sl_reader_of(copy, cut);
        uint32_t seen = 0;
        while (record_next(&reader, &record))
            seen++;
        assert_true(reader.failed == (cut % (buffer.length / 2) != 0));
        assert_true(seen < 2);
        free(copy);
    }
    for (size_t i = 0; i < buffer.length; i++) {
        for (int value = 0; value < 256; value += 17) {
            uint8_t *copy = malloc(buffer.length);
            assert_non_null(copy);
            memcpy(copy, buffer.bytes, buffer.length);
            copy[i] = (uint8_t)value;
            struct sl_reader reader = sl_reader_of(copy, buffer.length);
            while (record_next(&reader, &record)) {
                struct sl_reader headers = sl_reader_of(record.headers.bytes, record.headers.length);
                while (record_header_next(&headers, &field)) {
                }
            }
            assert_true(reader.failed || reader.position == reader.length);
            free(copy);
        }
    }
    record_buffer_free(&buffer);
}

// ---- ids

static void add_ids(struct ids_buffer *buffer, uint32_t count, uint32_t business_every)
{
    struct record_buffer records = {0};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = buffer->count + i;
        struct record record = sample_record();
        memcpy(record.id_hash, &number, sizeof(number));
        record.payload_hash = number * 3;
        record.received_wall_ns = 1000 + number;
        record.has_business_hash = business_every > 0 && number % business_every == 0;
        memcpy(record.business_hash, &number, sizeof(number));
        assert_true(record_append(&records, &record, NULL, 0));
    }
    assert_true(ids_buffer_add(buffer, records.bytes, records.length));
    record_buffer_free(&records);
}

// Cut into bodies of any size, all ids come out, once and in order.
static void ids_come_out_of_bodies_of_any_size(void **state)
{
    (void)state;
    for (uint32_t every = 0; every < 4; every++)
        for (uint32_t body_max = IDS_HEAD_BYTES + 44; body_max < IDS_HEAD_BYTES + 600; body_max += 7) {
            struct ids_buffer buffer = {.first_seq = 100};
            add_ids(&buffer, 20, every);
            add_ids(&buffer, 17, every);
            uint64_t next = 100;
            while (buffer.count > 0) {
                struct ids_head head, out;
                assert_true(ids_buffer_head(&buffer, body_max, &head) > 0);
                head.previous_offset = 3 * (uint64_t)SPOOL_BLOCK;
                memcpy(head.key_id, "abcdefgh", sizeof(head.key_id));
                uint64_t length = ids_body_length(&head);
                assert_true(length <= body_max);
                _Alignas(8) uint8_t body[IDS_HEAD_BYTES + 600];
                ids_head_encode(&head, body);
                memcpy(body + IDS_HEAD_BYTES, buffer.entries, head.count * sizeof(*buffer.entries));
                if (head.business_count > 0)
                    memcpy(body + IDS_HEAD_BYTES + head.count * sizeof(*buffer.entries), buffer.business,
                           head.business_count * sizeof(*buffer.business));
                const struct ids_entry *entries;
                const struct ids_business *business;
                assert_true(ids_body_decode(&out, &entries, &business, body, (uint32_t)length));
                assert_memory_equal(&out, &head, sizeof(out));
                assert_int_equal(out.first_seq, next);
                uint32_t seen = 0;
                for (uint32_t i = 0; i < out.count; i++) {
                    uint32_t number = (uint32_t)(next + i - 100), expected = number;
                    assert_memory_equal(entries[i].id_hash, &expected, sizeof(expected));
                    assert_int_equal(entries[i].payload_hash, number * 3);
                    if (every == 0 || number % every != 0)
                        continue;
                    assert_int_equal(business[seen].index, i);
                    assert_memory_equal(business[seen++].hash, &expected, sizeof(expected));
                }
                assert_int_equal(seen, out.business_count);
                next += out.count;
                ids_buffer_drop(&buffer, &head);
            }
            assert_int_equal(next, 137);
            assert_int_equal(buffer.business_count, 0);
            ids_buffer_free(&buffer);
        }
}

static void ids_bodies_that_are_malformed(void **state)
{
    (void)state;
    struct ids_buffer buffer = {.first_seq = 5};
    add_ids(&buffer, 4, 2);
    struct ids_head head, out;
    assert_int_equal(ids_buffer_head(&buffer, IDS_BODY_MAX, &head), 4);
    assert_int_equal(head.business_count, 2);
    assert_int_equal(head.first_received_wall_ns, 1000);
    assert_int_equal(head.last_received_wall_ns, 1003);
    _Alignas(8) uint8_t body[200];
    uint32_t length = (uint32_t)ids_body_length(&head);
    const struct ids_entry *entries;
    const struct ids_business *business;
    for (int how = 0; how < 7; how++) {
        struct ids_head bad = head;
        ids_head_encode(&head, body);
        memcpy(body + IDS_HEAD_BYTES, buffer.entries, 4 * sizeof(*buffer.entries));
        uint8_t *second = body + IDS_HEAD_BYTES + 4 * sizeof(*buffer.entries);
        memcpy(second, buffer.business, 2 * sizeof(*buffer.business));
        second += sizeof(*buffer.business);
        uint32_t used = length;
        if (how == 1)
            bad.first_seq = 0;
        if (how == 2)
            bad.count = 0;
        if (how == 3)
            bad.previous_offset = 17;
        if (how == 4)
            used--;
        if (how == 5)
            second[0] = 4; // there is no such record
        if (how == 6)
            second[0] = 0; // not in order
        if (how > 0 && how < 4)
            ids_head_encode(&bad, body);
        assert_int_equal(ids_body_decode(&out, &entries, &business, body, used), how == 0);
    }
    assert_false(ids_body_decode(&out, &entries, &business, body, IDS_HEAD_BYTES - 1));
    // Records that are malformed leave the buffer as it is.
    assert_false(ids_buffer_add(&buffer, "\x7f\0\0\0", 4));
    assert_int_equal(buffer.count, 4);
    ids_buffer_free(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segment_header_round_trip),
        cmocka_unit_test(segment_header_refuses_every_flipped_bit),
        cmocka_unit_test(segment_header_refuses_values_out_of_range),
        cmocka_unit_test(frame_header_round_trip),
        cmocka_unit_test(frame_header_refuses_every_flipped_bit),
        cmocka_unit_test(frame_header_refuses_values_out_of_range),
        cmocka_unit_test(frame_sizes),
        cmocka_unit_test(body_checksum_depends_on_the_segment),
        cmocka_unit_test(record_round_trip),
        cmocka_unit_test(record_limits_leave_nothing_behind),
        cmocka_unit_test(record_marks),
        cmocka_unit_test(record_drops),
        cmocka_unit_test(record_dropped_does_not_read),
        cmocka_unit_test(record_walk_survives_any_damage),
        cmocka_unit_test(ids_come_out_of_bodies_of_any_size),
        cmocka_unit_test(ids_bodies_that_are_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
