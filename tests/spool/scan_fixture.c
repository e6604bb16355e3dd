#include "tests/spool/scan_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void fail_on(const struct sl_error *err)
{
    fail_msg("%s", err->text);
}

static void add_segment(struct fixture *f, struct preparer *preparer, struct stream_log *log)
{
    struct sl_error err;
    struct ready_segment ready;
    struct segment_uuid uuid;
    memset(uuid.bytes, (int)(f->segment_count + 1), sizeof(uuid.bytes));
    if (!preparer_begin(preparer, SEGMENT, &err) || !preparer_finish(preparer, &ready, &err) ||
        !stream_log_activate(log, &ready, &uuid, 1, &err))
        fail_on(&err);
    f->segments[f->segment_count++] = log->header.first_seq;
}

// A body of `count` records whose bytes have no zero in them.
static void add_frame(struct fixture *f, struct stream_log *log, uint32_t count, size_t payload_bytes)
{
    static char payload[SEGMENT];
    struct record_buffer buffer = {0};
    memset(payload, 'p', sizeof(payload));
    for (uint32_t i = 0; i < count; i++) {
        struct record record = {.kind = RECORD_EVENT,
                                .source = sl_span_of("s"),
                                .lane = sl_span_of("main"),
                                .topic = sl_span_of("t"),
                                .payload = {payload, payload_bytes}};
        assert_true(record_append(&buffer, &record, NULL, 0));
    }
    struct iovec parts[3];
    parts[1] = (struct iovec){buffer.bytes, buffer.length};
    struct sl_error err;
    f->frame_segment[f->frame_count] = f->segment_count - 1;
    if (!stream_log_append(log, parts, 1, count, 7, &f->frames[f->frame_count++], &err))
        fail_on(&err);
    record_buffer_free(&buffer);
}

// Three segments of four frames each (the last one of each has 5,000 bytes, so several sectors and two blocks). The
// last segment is not sealed, as after a crash.
static void fixture_make(struct fixture *f, bool ids)
{
    memset(f, 0, sizeof(*f));
    f->ids = ids;
    f->disk = disk_new(64 << 20);
    f->storage = disk_storage(f->disk);
    f->pool = frame_pool_new();
    f->base_seq = 1;
    struct preparer preparer;
    struct stream_log log;
    struct sl_error err;
    assert_int_equal(f->storage.ops->mkdir(f->storage.context, "/spool"), 0);
    assert_int_equal(f->storage.ops->mkdir(f->storage.context, "/spool/s"), 0);
    if (!preparer_init(&preparer, &f->storage, "/spool", &err))
        fail_on(&err);
    stream_log_init(&log, &f->storage, "/spool/s");
    snprintf(log.header.stream, sizeof(log.header.stream), "gw.1-00000000");
    memset(log.header.ids_key_id, ids ? 0x1d : 0, sizeof(log.header.ids_key_id));
    for (int segment = 0; segment < 3; segment++) {
        add_segment(f, &preparer, &log);
        log.ids_body_max = IDS_HEAD_BYTES + 3 * sizeof(struct ids_entry) + sizeof(struct ids_business);
        add_frame(f, &log, 2, 100);
        add_frame(f, &log, 1, 3000);
        add_frame(f, &log, 3, 5000);
        add_frame(f, &log, 2, 2500);
        uint64_t closed_size, *ids_offset = f->ids_offset[segment];
        ids_offset[0] = log.last_ids_offset;
        ids_offset[1] = log.offset;
        ids_offset[2] = log.offset + SPOOL_BLOCK;
        f->seal_offset[segment] = log.offset + (ids && segment < 2 ? 2 * (uint64_t)SPOOL_BLOCK : 0);
        if (segment < 2 && !stream_log_seal(&log, false, 7, &closed_size, &err))
            fail_on(&err);
        assert_true(segment == 2 || log.offset == f->seal_offset[segment] + SPOOL_BLOCK);
    }
    stream_log_release(&log);
}

void fixture_free(struct fixture *f)
{
    frame_pool_release(f->pool);
    assert_int_equal(disk_open_handles(f->disk), 0);
    disk_free(f->disk);
}

// The same on a disk of its own.
struct fixture fixture_copy(const struct fixture *f)
{
    struct fixture copy = *f;
    copy.disk = disk_crash(f->disk, DISK_KEEP_ALL, 0);
    copy.storage = disk_storage(copy.disk);
    copy.pool = frame_pool_new();
    return copy;
}

void fixture_path(const struct fixture *f, size_t segment, char path[SPOOL_PATH_MAX])
{
    segment_path(path, "/spool/s", f->segments[segment]);
}

static bool source(void *user, uint64_t at_least, struct scan_segment *out)
{
    const struct fixture *f = user;
    for (size_t i = 0; i < f->segment_count; i++) {
        if (f->segments[i] < at_least)
            continue;
        *out = (struct scan_segment){.first_seq = f->segments[i],
                                     .last = i + 1 == f->segment_count,
                                     .limit = UINT64_MAX,
                                     .base_seq = f->base_seq};
        return true;
    }
    return false;
}

void fixture_scan(struct fixture *f, bool bodies, struct walk *walk)
{
    struct scanner scanner = {.storage = &f->storage,
                              .pool = f->pool,
                              .dir = "/spool/s",
                              .stream = "gw.1-00000000",
                              .source = {.segment = source, .user = f},
                              .acked_floor = f->acked_floor,
                              .bodies = bodies};
    memset(walk, 0, sizeof(*walk));
    scanner_init(&scanner, f->base_seq, f->base_seq);
    for (;;) {
        struct sl_error err;
        struct scan_event event;
        enum scan_result result = scanner_next(&scanner, &event, &err);
        if (result == SCAN_FRAME) {
            size_t i = 0;
            while (i < f->frame_count && f->frames[i].header_crc != event.header.header_crc)
                i++;
            assert_true(i < f->frame_count); // nothing is invented
            assert_false(walk->taken[i]);    // nothing comes twice
            walk->taken[i] = true;
            walk->next_seq = event.last_seq + 1;
            if (bodies) {
                assert_true(frame_body_verify(&event.frame->header, event.frame->body));
                spool_frame_release(event.frame);
            }
        } else if (result == SCAN_DAMAGE) {
            assert_true(walk->damage_count < 8);
            walk->damages[walk->damage_count++] = event;
            walk->next_seq = event.last_seq + 1;
        } else if (result == SCAN_END) {
            walk->end = event;
            if (event.first_seq < walk->next_seq)
                walk->next_seq = event.first_seq;
            break;
        } else {
            assert_int_equal(result, SCAN_SEAL);
        }
    }
    scanner_release(&scanner);
}

// Both kinds of walk agree: on the verdicts, on the lost ranges, on the end.
void fixture_scan_both(struct fixture *f, struct walk *walk)
{
    struct walk headers;
    fixture_scan(f, true, walk);
    fixture_scan(f, false, &headers);
    assert_int_equal(headers.end.verdict, walk->end.verdict);
    assert_int_equal(headers.next_seq, walk->next_seq);
}

void fixture_expect_all_but(const struct fixture *f, const struct walk *walk, size_t first_missing, size_t last_missing)
{
    for (size_t i = 0; i < f->frame_count; i++)
        if (walk->taken[i] != (i < first_missing || i > last_missing))
            fail_msg("frame %zu: %s", i, walk->taken[i] ? "taken" : "missing");
}

static int setup(void **state, bool ids)
{
    struct fixture *f = malloc(sizeof(*f));
    assert_non_null(f);
    fixture_make(f, ids);
    *state = f;
    return 0;
}

int fixture_setup(void **state)
{
    return setup(state, false);
}

int fixture_setup_ids(void **state)
{
    return setup(state, true);
}

int fixture_teardown(void **state)
{
    fixture_free(*state);
    free(*state);
    return 0;
}
