// The scanner over damaged streams: every flipped byte, every truncation and every
// torn block of the last frame, damage in the middle, lost and foreign files. Whatever is damaged, every other record
// comes back.
#include "spool/internal.h"
#include "tests/spool/disk.h"

#include "base/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// ---- a stream to damage

enum { SEGMENT = 256 << 10, FRAMES_MAX = 32 };

struct fixture {
    struct disk *disk;
    struct storage storage;
    struct frame_pool *pool;
    uint64_t segments[8]; // first seqs
    size_t segment_count;
    uint64_t base_seq;
    struct frame_header frames[FRAMES_MAX]; // data frames, in order
    size_t frame_segment[FRAMES_MAX];       // index into segments
    size_t frame_count;
    uint64_t seal_offset[8];
    uint64_t acked_floor;
};

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
static void fixture_make(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
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
    for (int segment = 0; segment < 3; segment++) {
        add_segment(f, &preparer, &log);
        add_frame(f, &log, 2, 100);
        add_frame(f, &log, 1, 3000);
        add_frame(f, &log, 3, 5000);
        add_frame(f, &log, 2, 2500);
        uint64_t closed_size;
        f->seal_offset[segment] = log.offset;
        if (segment < 2 && !stream_log_seal(&log, false, 7, &closed_size, &err))
            fail_on(&err);
    }
    stream_log_release(&log);
}

static void fixture_free(struct fixture *f)
{
    frame_pool_release(f->pool);
    assert_int_equal(disk_open_handles(f->disk), 0);
    disk_free(f->disk);
}

// The same on a disk of its own.
static struct fixture fixture_copy(const struct fixture *f)
{
    struct fixture copy = *f;
    copy.disk = disk_crash(f->disk, DISK_KEEP_ALL, 0);
    copy.storage = disk_storage(copy.disk);
    copy.pool = frame_pool_new();
    return copy;
}

static void path_of(const struct fixture *f, size_t segment, char path[SPOOL_PATH_MAX])
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

struct walk {
    bool taken[FRAMES_MAX];
    size_t damage_count;
    struct scan_event damages[8];
    struct scan_event end;
    uint64_t next_seq; // headers only: behind the last frame that was not taken back
};

static void scan(struct fixture *f, bool bodies, struct walk *walk)
{
    struct scanner scanner = {.storage = &f->storage,
                              .pool = f->pool,
                              .dir = "/spool/s",
                              .stream = "gw.1-00000000",
                              .source = {source, f},
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
static void scan_both(struct fixture *f, struct walk *walk)
{
    struct walk headers;
    scan(f, true, walk);
    scan(f, false, &headers);
    assert_int_equal(headers.end.verdict, walk->end.verdict);
    assert_int_equal(headers.next_seq, walk->next_seq);
}

static void expect_all_but(const struct fixture *f, const struct walk *walk, size_t first_missing, size_t last_missing)
{
    for (size_t i = 0; i < f->frame_count; i++)
        if (walk->taken[i] != (i < first_missing || i > last_missing))
            fail_msg("frame %zu: %s", i, walk->taken[i] ? "taken" : "missing");
}

static int make(void **state)
{
    struct fixture *f = malloc(sizeof(*f));
    fixture_make(f);
    *state = f;
    return 0;
}

static int unmake(void **state)
{
    fixture_free(*state);
    free(*state);
    return 0;
}

// ---- the stories

static void undamaged_stream_is_taken_whole(void **state)
{
    struct fixture *f = *state;
    struct walk walk;
    scan_both(f, &walk);
    expect_all_but(f, &walk, SIZE_MAX, 0);
    assert_int_equal(walk.damage_count, 0);
    assert_int_equal(walk.end.verdict, VERDICT_CLEAN_END);
    assert_int_equal(walk.end.offset, f->seal_offset[2]);
}

// Damage of the last frame, at any byte: everything before it comes back; the frame itself does not, and that is
// reported.
static void flip_in_last_frame(struct fixture *f, uint64_t at, uint8_t mask)
{
    size_t last = f->frame_count - 1;
    struct walk walk;
    char path[SPOOL_PATH_MAX];
    path_of(f, 2, path);
    assert_true(disk_flip(f->disk, path, f->frames[last].offset + at, mask));
    scan_both(f, &walk);
    expect_all_but(f, &walk, last, last);
    assert_int_equal(walk.damage_count, 1);
    assert_int_equal(walk.damages[0].verdict, VERDICT_DAMAGED_TAIL);
    assert_int_equal(walk.damages[0].first_seq, f->frames[last].first_seq);
    assert_int_equal(walk.damages[0].offset, f->frames[last].offset);
    assert_int_equal(walk.end.verdict, VERDICT_DAMAGED_TAIL);
    assert_true(disk_flip(f->disk, path, f->frames[last].offset + at, mask));
}

static void every_byte_of_the_last_header_flipped(void **state)
{
    struct fixture *f = *state;
    for (uint64_t at = 0; at < FRAME_HEADER_BYTES; at++)
        for (unsigned bit = 0; bit < 8; bit++)
            flip_in_last_frame(f, at, (uint8_t)(1u << bit));
}

static void every_byte_of_the_last_body_flipped(void **state)
{
    struct fixture *f = *state;
    const struct frame_header *last = &f->frames[f->frame_count - 1];
    for (uint64_t at = FRAME_HEADER_BYTES; at < FRAME_HEADER_BYTES + last->body_length; at++)
        flip_in_last_frame(f, at, (uint8_t)(1u << at % 8));
}

static void a_flip_in_padding_harms_nobody(void **state)
{
    struct fixture *f = *state;
    const struct frame_header *middle = &f->frames[5];
    struct walk walk;
    char path[SPOOL_PATH_MAX];
    path_of(f, 1, path);
    assert_true(disk_flip(f->disk, path, middle->offset + frame_size(middle->body_length) - 1, 1));
    scan_both(f, &walk);
    expect_all_but(f, &walk, SIZE_MAX, 0);
    assert_int_equal(walk.damage_count, 0);
}

// A frame whose count of lost records can still be read is reported with it.
static void damaged_tail_knows_how_much_is_lost(void **state)
{
    struct fixture *f = *state;
    const struct frame_header *last = &f->frames[f->frame_count - 1];
    struct walk walk;
    char path[SPOOL_PATH_MAX];
    path_of(f, 2, path);
    assert_true(disk_flip(f->disk, path, last->offset + 200, 1));
    scan(f, true, &walk);
    assert_int_equal(walk.damages[0].last_seq, last->first_seq + last->count - 1);
}

static void every_truncation_of_the_last_frame(void **state)
{
    struct fixture *f = *state;
    size_t last = f->frame_count - 1;
    uint64_t start = f->frames[last].offset, end = start + FRAME_HEADER_BYTES + f->frames[last].body_length;
    for (uint64_t size = end; size-- > start;) {
        struct fixture copy = fixture_copy(f);
        struct walk walk;
        char path[SPOOL_PATH_MAX];
        path_of(&copy, 2, path);
        disk_cut(copy.disk, path, size);
        scan_both(&copy, &walk);
        expect_all_but(&copy, &walk, last, last);
        assert_int_equal(walk.damage_count, 1); // no crash shortens an allocated file: an alarm
        assert_int_equal(walk.damages[0].verdict, VERDICT_TRUNCATED);
        fixture_free(&copy);
    }
}

// Any subset of the last frame's sectors that leaves one of them unwritten is a torn tail, without an alarm.
static void every_torn_subset_of_the_last_frame(void **state)
{
    struct fixture *f = *state;
    size_t last = f->frame_count - 1;
    uint64_t start = f->frames[last].offset;
    unsigned sectors = (unsigned)((FRAME_HEADER_BYTES + f->frames[last].body_length + 511) / 512);
    assert_in_range(sectors, 10, 12);
    for (unsigned kept = 0; kept < (1u << sectors) - 1; kept++) {
        struct fixture copy = fixture_copy(f);
        struct walk walk;
        char path[SPOOL_PATH_MAX];
        path_of(&copy, 2, path);
        for (unsigned sector = 0; sector < sectors; sector++)
            if (!(kept & (1u << sector)))
                disk_zero(copy.disk, path, start + sector * 512, 512);
        scan_both(&copy, &walk);
        expect_all_but(&copy, &walk, last, last);
        assert_int_equal(walk.damage_count, 0);
        assert_int_equal(walk.end.verdict, kept == 0 ? VERDICT_CLEAN_END : VERDICT_TORN_TAIL);
        assert_int_equal(walk.end.first_seq, f->frames[last].first_seq);
        fixture_free(&copy);
    }
}

// The same frames, when a client is known to have been told: never passed over.
static void torn_or_missing_tail_that_was_told_is_lost_acknowledged(void **state)
{
    struct fixture *f = *state;
    size_t last = f->frame_count - 1;
    f->acked_floor = f->frames[last].first_seq;
    for (int all = 0; all < 2; all++) {
        struct fixture copy = fixture_copy(f);
        struct walk walk;
        char path[SPOOL_PATH_MAX];
        path_of(&copy, 2, path);
        disk_zero(copy.disk, path, f->frames[last].offset + (all ? 0 : 512), all ? 8192 : 512);
        scan_both(&copy, &walk);
        expect_all_but(&copy, &walk, last, last);
        assert_int_equal(walk.damages[0].verdict, VERDICT_LOST_ACKNOWLEDGED);
        fixture_free(&copy);
    }
}

// Each frame that is not the last: header or body flipped, at sampled places; the table says corrupt-middle, the exact
// range is lost.
static void damage_in_the_middle_costs_that_frame_alone(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i + 1 < f->frame_count; i++) {
        const struct frame_header *frame = &f->frames[i];
        uint64_t length = FRAME_HEADER_BYTES + frame->body_length;
        for (uint64_t at = 0; at < length; at += at < FRAME_HEADER_BYTES ? 1 : 97) {
            struct walk walk;
            char path[SPOOL_PATH_MAX];
            path_of(f, f->frame_segment[i], path);
            assert_true(disk_flip(f->disk, path, frame->offset + at, 0x10));
            scan(f, true, &walk);
            expect_all_but(f, &walk, i, i);
            assert_int_equal(walk.damage_count, 1);
            assert_int_equal(walk.damages[0].verdict, VERDICT_CORRUPT_MIDDLE);
            assert_int_equal(walk.damages[0].first_seq, frame->first_seq);
            assert_int_equal(walk.damages[0].last_seq, frame->first_seq + frame->count - 1);
            assert_int_equal(walk.damages[0].segment, f->segments[f->frame_segment[i]]);
            assert_int_equal(walk.end.verdict, VERDICT_CLEAN_END);
            assert_true(disk_flip(f->disk, path, frame->offset + at, 0x10));
        }
    }
}

static void a_lost_write_in_the_middle_is_a_hole(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i + 1 < f->frame_count; i++) {
        struct fixture copy = fixture_copy(f);
        const struct frame_header *frame = &f->frames[i];
        struct walk walk;
        char path[SPOOL_PATH_MAX];
        path_of(&copy, f->frame_segment[i], path);
        disk_zero(copy.disk, path, frame->offset, frame_size(frame->body_length));
        scan_both(&copy, &walk);
        expect_all_but(&copy, &walk, i, i);
        assert_int_equal(walk.damage_count, 1);
        assert_int_equal(walk.damages[0].verdict, VERDICT_HOLE);
        assert_int_equal(walk.damages[0].first_seq, frame->first_seq);
        assert_int_equal(walk.damages[0].last_seq, frame->first_seq + frame->count - 1);
        fixture_free(&copy);
    }
}

static void a_lost_header_block_loses_nothing_else(void **state)
{
    struct fixture *f = *state;
    for (size_t segment = 0; segment < f->segment_count; segment++) {
        for (int how = 0; how < 2; how++) {
            struct fixture copy = fixture_copy(f);
            struct walk walk;
            char path[SPOOL_PATH_MAX];
            path_of(&copy, segment, path);
            if (how == 0)
                disk_zero(copy.disk, path, 0, SPOOL_BLOCK);
            else
                assert_true(disk_flip(copy.disk, path, 100, 1));
            scan_both(&copy, &walk);
            expect_all_but(&copy, &walk, SIZE_MAX, 0);
            assert_int_equal(walk.damage_count, 1);
            assert_int_equal(walk.damages[0].verdict, VERDICT_LOST_HEADER);
            assert_true(walk.damages[0].last_seq < walk.damages[0].first_seq);
            fixture_free(&copy);
        }
    }
}

static void a_missing_segment_is_named_with_its_range(void **state)
{
    struct fixture *f = *state;
    struct fixture copy = fixture_copy(f);
    struct walk walk;
    copy.segments[1] = copy.segments[2];
    copy.segment_count = 2;
    scan_both(&copy, &walk);
    expect_all_but(&copy, &walk, 4, 7);
    assert_int_equal(walk.damage_count, 1);
    assert_int_equal(walk.damages[0].verdict, VERDICT_MISSING_SEGMENT);
    assert_int_equal(walk.damages[0].first_seq, f->segments[1]);
    assert_int_equal(walk.damages[0].last_seq, f->segments[2] - 1);
    // Deleted on purpose, it is no damage.
    copy.base_seq = f->segments[2];
    scan_both(&copy, &walk);
    assert_int_equal(walk.damage_count, 0);
    fixture_free(&copy);
}

static void a_lost_seal_loses_no_record(void **state)
{
    struct fixture *f = *state;
    for (int how = 0; how < 3; how++) {
        struct fixture copy = fixture_copy(f);
        struct walk walk;
        char path[SPOOL_PATH_MAX];
        path_of(&copy, 0, path);
        if (how == 0)
            disk_zero(copy.disk, path, f->seal_offset[0], SPOOL_BLOCK);
        else if (how == 1)
            assert_true(disk_flip(copy.disk, path, f->seal_offset[0] + 50, 1));
        else
            disk_cut(copy.disk, path, f->seal_offset[0]);
        scan_both(&copy, &walk);
        expect_all_but(&copy, &walk, SIZE_MAX, 0);
        assert_int_equal(walk.damage_count, 1);
        assert_int_equal(walk.damages[0].verdict, how == 1 ? VERDICT_CORRUPT_MIDDLE : VERDICT_LOST_SEAL);
        assert_true(walk.damages[0].last_seq < walk.damages[0].first_seq);
        fixture_free(&copy);
    }
}

// Copies a frame's bytes to another place, as a disk does that writes to the wrong address.
static void copy_bytes(struct fixture *f, size_t from_segment, uint64_t from, size_t to_segment, uint64_t to,
                       size_t length)
{
    char from_path[SPOOL_PATH_MAX], to_path[SPOOL_PATH_MAX];
    uint8_t *bytes = malloc(length), *old = malloc(length);
    path_of(f, from_segment, from_path);
    path_of(f, to_segment, to_path);
    const struct storage *storage = &f->storage;
    int a = storage->ops->open(storage->context, from_path, STORAGE_READ);
    int b = storage->ops->open(storage->context, to_path, STORAGE_READ);
    assert_int_equal(storage->ops->pread(storage->context, a, bytes, length, from), length);
    assert_int_equal(storage->ops->pread(storage->context, b, old, length, to), length);
    storage->ops->close(storage->context, a);
    storage->ops->close(storage->context, b);
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != old[i])
            assert_true(disk_flip(f->disk, to_path, to + i, bytes[i] ^ old[i]));
    free(bytes);
    free(old);
}

static void misdirected_writes_are_not_taken(void **state)
{
    struct fixture *f = *state;
    // Frame 1 and 2 of a segment have different lengths; copy frame 0's blocks over frame 1 (same segment), and over
    // frame 1 of another.
    for (size_t from_segment = 0; from_segment < 2; from_segment++) {
        struct fixture copy = fixture_copy(f);
        struct walk walk;
        copy_bytes(&copy, from_segment, f->frames[0].offset, 1, f->frames[5].offset, SPOOL_BLOCK);
        scan_both(&copy, &walk);
        expect_all_but(&copy, &walk, 5, 5);
        assert_int_equal(walk.damage_count, 1);
        assert_int_equal(walk.damages[0].verdict, VERDICT_MISDIRECTED);
        assert_int_equal(walk.damages[0].first_seq, f->frames[5].first_seq);
        fixture_free(&copy);
    }
}

static void a_whole_file_from_elsewhere_is_not_taken(void **state)
{
    struct fixture *f = *state;
    struct fixture copy = fixture_copy(f);
    struct walk walk;
    char path[SPOOL_PATH_MAX];
    path_of(&copy, 1, path);
    int64_t size = disk_size(copy.disk, path);
    char first[SPOOL_PATH_MAX];
    path_of(&copy, 0, first);
    assert_true(disk_size(copy.disk, first) == size);
    copy_bytes(&copy, 0, 0, 1, 0, (size_t)size);
    scan_both(&copy, &walk);
    expect_all_but(&copy, &walk, 4, 7);
    assert_int_equal(walk.damages[0].verdict, VERDICT_MISDIRECTED);
    assert_int_equal(walk.damages[1].verdict, VERDICT_MISSING_SEGMENT);
    assert_int_equal(walk.damages[1].last_seq, f->segments[2] - 1);
    fixture_free(&copy);
}

// Two faults at once, and every pair of frames: what is between them still comes back.
static void two_damaged_frames_lose_two_frames(void **state)
{
    struct fixture *f = *state;
    for (size_t a = 0; a + 1 < f->frame_count; a++)
        for (size_t b = a + 1; b + 1 < f->frame_count; b++) {
            struct walk walk;
            char path_a[SPOOL_PATH_MAX], path_b[SPOOL_PATH_MAX];
            path_of(f, f->frame_segment[a], path_a);
            path_of(f, f->frame_segment[b], path_b);
            assert_true(disk_flip(f->disk, path_a, f->frames[a].offset + 40, 1));
            assert_true(disk_flip(f->disk, path_b, f->frames[b].offset + 300, 1));
            scan(f, true, &walk);
            for (size_t i = 0; i < f->frame_count; i++)
                assert_int_equal(walk.taken[i], i != a && i != b);
            assert_true(disk_flip(f->disk, path_a, f->frames[a].offset + 40, 1));
            assert_true(disk_flip(f->disk, path_b, f->frames[b].offset + 300, 1));
        }
}

// A whole segment's frames damaged: the next segment is found and read.
static void a_segment_of_rubble_is_passed_over(void **state)
{
    struct fixture *f = *state;
    struct walk walk;
    char path[SPOOL_PATH_MAX];
    path_of(f, 1, path);
    for (size_t i = 4; i < 8; i++)
        assert_true(disk_flip(f->disk, path, f->frames[i].offset + 8, 0xff));
    assert_true(disk_flip(f->disk, path, f->seal_offset[1], 0xff));
    scan_both(f, &walk);
    expect_all_but(f, &walk, 4, 7);
    assert_int_equal(walk.damage_count, 1);
    assert_int_equal(walk.damages[0].first_seq, f->segments[1]);
    assert_int_equal(walk.damages[0].last_seq, f->segments[2] - 1);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, make, unmake)
    const struct CMUnitTest tests[] = {
        STORY(undamaged_stream_is_taken_whole),
        STORY(every_byte_of_the_last_header_flipped),
        STORY(every_byte_of_the_last_body_flipped),
        STORY(a_flip_in_padding_harms_nobody),
        STORY(damaged_tail_knows_how_much_is_lost),
        STORY(every_truncation_of_the_last_frame),
        STORY(every_torn_subset_of_the_last_frame),
        STORY(torn_or_missing_tail_that_was_told_is_lost_acknowledged),
        STORY(damage_in_the_middle_costs_that_frame_alone),
        STORY(a_lost_write_in_the_middle_is_a_hole),
        STORY(a_lost_header_block_loses_nothing_else),
        STORY(a_missing_segment_is_named_with_its_range),
        STORY(a_lost_seal_loses_no_record),
        STORY(misdirected_writes_are_not_taken),
        STORY(a_whole_file_from_elsewhere_is_not_taken),
        STORY(two_damaged_frames_lose_two_frames),
        STORY(a_segment_of_rubble_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
