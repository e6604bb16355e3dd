// The scanner over damaged streams: every flipped byte, every truncation and every
// torn block of the last frame, damage in the middle, lost and foreign files. Whatever is damaged, every other record
// comes back.
#include "tests/spool/scan_fixture.h"

#include "base/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

// ---- the stories

static void undamaged_stream_is_taken_whole(void **state)
{
    struct fixture *f = *state;
    struct walk walk;
    fixture_scan_both(f, &walk);
    fixture_expect_all_but(f, &walk, SIZE_MAX, 0);
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
    fixture_path(f, 2, path);
    assert_true(disk_flip(f->disk, path, f->frames[last].offset + at, mask));
    fixture_scan_both(f, &walk);
    fixture_expect_all_but(f, &walk, last, last);
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
    fixture_path(f, 1, path);
    assert_true(disk_flip(f->disk, path, middle->offset + frame_size(middle->body_length) - 1, 1));
    fixture_scan_both(f, &walk);
    fixture_expect_all_but(f, &walk, SIZE_MAX, 0);
    assert_int_equal(walk.damage_count, 0);
}

// A frame whose count of lost records can still be read is reported with it.
static void damaged_tail_knows_how_much_is_lost(void **state)
{
    struct fixture *f = *state;
    const struct frame_header *last = &f->frames[f->frame_count - 1];
    struct walk walk;
    char path[SPOOL_PATH_MAX];
    fixture_path(f, 2, path);
    assert_true(disk_flip(f->disk, path, last->offset + 200, 1));
    fixture_scan(f, true, &walk);
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
        fixture_path(&copy, 2, path);
        disk_cut(copy.disk, path, size);
        fixture_scan_both(&copy, &walk);
        fixture_expect_all_but(&copy, &walk, last, last);
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
        fixture_path(&copy, 2, path);
        for (unsigned sector = 0; sector < sectors; sector++)
            if (!(kept & (1u << sector)))
                disk_zero(copy.disk, path, start + sector * 512, 512);
        fixture_scan_both(&copy, &walk);
        fixture_expect_all_but(&copy, &walk, last, last);
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
        fixture_path(&copy, 2, path);
        disk_zero(copy.disk, path, f->frames[last].offset + (all ? 0 : 512), all ? 8192 : 512);
        fixture_scan_both(&copy, &walk);
        fixture_expect_all_but(&copy, &walk, last, last);
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
            fixture_path(f, f->frame_segment[i], path);
            assert_true(disk_flip(f->disk, path, frame->offset + at, 0x10));
            fixture_scan(f, true, &walk);
            fixture_expect_all_but(f, &walk, i, i);
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
        fixture_path(&copy, f->frame_segment[i], path);
        disk_zero(copy.disk, path, frame->offset, frame_size(frame->body_length));
        fixture_scan_both(&copy, &walk);
        fixture_expect_all_but(&copy, &walk, i, i);
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
            fixture_path(&copy, segment, path);
            if (how == 0)
                disk_zero(copy.disk, path, 0, SPOOL_BLOCK);
            else
                assert_true(disk_flip(copy.disk, path, 100, 1));
            fixture_scan_both(&copy, &walk);
            fixture_expect_all_but(&copy, &walk, SIZE_MAX, 0);
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
    fixture_scan_both(&copy, &walk);
    fixture_expect_all_but(&copy, &walk, 4, 7);
    assert_int_equal(walk.damage_count, 1);
    assert_int_equal(walk.damages[0].verdict, VERDICT_MISSING_SEGMENT);
    assert_int_equal(walk.damages[0].first_seq, f->segments[1]);
    assert_int_equal(walk.damages[0].last_seq, f->segments[2] - 1);
    // Deleted on purpose, it is no damage.
    copy.base_seq = f->segments[2];
    fixture_scan_both(&copy, &walk);
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
        fixture_path(&copy, 0, path);
        if (how == 0)
            disk_zero(copy.disk, path, f->seal_offset[0], SPOOL_BLOCK);
        else if (how == 1)
            assert_true(disk_flip(copy.disk, path, f->seal_offset[0] + 50, 1));
        else
            disk_cut(copy.disk, path, f->seal_offset[0]);
        fixture_scan_both(&copy, &walk);
        fixture_expect_all_but(&copy, &walk, SIZE_MAX, 0);
        assert_int_equal(walk.damage_count, 1);
        assert_int_equal(walk.damages[0].verdict, VERDICT_LOST_SEAL);
        assert_true(walk.damages[0].last_seq < walk.damages[0].first_seq);
        fixture_free(&copy);
    }
}

// Two faults at once, and every pair of frames: what is between them still comes back.
static void two_damaged_frames_lose_two_frames(void **state)
{
    struct fixture *f = *state;
    for (size_t a = 0; a + 1 < f->frame_count; a++)
        for (size_t b = a + 1; b + 1 < f->frame_count; b++) {
            struct walk walk;
            char path_a[SPOOL_PATH_MAX], path_b[SPOOL_PATH_MAX];
            fixture_path(f, f->frame_segment[a], path_a);
            fixture_path(f, f->frame_segment[b], path_b);
            assert_true(disk_flip(f->disk, path_a, f->frames[a].offset + 40, 1));
            assert_true(disk_flip(f->disk, path_b, f->frames[b].offset + 300, 1));
            fixture_scan(f, true, &walk);
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
    fixture_path(f, 1, path);
    for (size_t i = 4; i < 8; i++)
        assert_true(disk_flip(f->disk, path, f->frames[i].offset + 8, 0xff));
    assert_true(disk_flip(f->disk, path, f->seal_offset[1], 0xff));
    fixture_scan_both(f, &walk);
    fixture_expect_all_but(f, &walk, 4, 7);
    assert_int_equal(walk.damage_count, 1);
    assert_int_equal(walk.damages[0].first_seq, f->segments[1]);
    assert_int_equal(walk.damages[0].last_seq, f->segments[2] - 1);
}

// ---- ids frames: no record is in them, and none is lost with one

static void a_damaged_ids_frame_loses_no_record(void **state)
{
    struct fixture *f = *state;
    const size_t body = IDS_HEAD_BYTES + 3 * sizeof(struct ids_entry);
    for (size_t segment = 0; segment < 3; segment++)
        for (size_t which = 0; which < (segment < 2 ? 3 : 1); which++)
            for (size_t at = 0; at < FRAME_HEADER_BYTES + (which < 2 ? body : body - sizeof(struct ids_entry)); at++) {
                struct walk walk;
                char path[SPOOL_PATH_MAX];
                fixture_path(f, segment, path);
                uint64_t place = f->ids_offset[segment][which];
                assert_true(disk_flip(f->disk, path, place + at, 4));
                fixture_scan_both(f, &walk);
                fixture_expect_all_but(f, &walk, SIZE_MAX, 0);
                // Bodies of ids are not looked at here.
                assert_int_equal(walk.damage_count, at < FRAME_HEADER_BYTES);
                if (at < FRAME_HEADER_BYTES) {
                    assert_int_equal(walk.damages[0].verdict, VERDICT_LOST_SEAL);
                    assert_int_equal(walk.damages[0].offset, place);
                    assert_true(walk.damages[0].last_seq < walk.damages[0].first_seq);
                }
                assert_true(disk_flip(f->disk, path, place + at, 4));
            }
}

// The ids frame is the last one: a crash came in it, or right behind it.
static void a_torn_ids_frame_at_the_end_is_clean(void **state)
{
    struct fixture *f = *state;
    size_t last = f->frame_count - 1;
    char path[SPOOL_PATH_MAX];
    fixture_path(f, 2, path);
    uint64_t place = f->ids_offset[2][0];
    disk_zero(f->disk, path, place + SPOOL_BLOCK, SEGMENT - place - SPOOL_BLOCK);
    for (unsigned sectors = 0; sectors < 4; sectors++) { // header and body take less than one; the rest is padding
        struct fixture copy = fixture_copy(f);
        struct walk walk;
        if (sectors & 1)
            disk_zero(copy.disk, path, place, 512);
        if (sectors & 2)
            disk_zero(copy.disk, path, place + 512, 512);
        fixture_scan_both(&copy, &walk);
        fixture_expect_all_but(&copy, &walk, last, last);
        assert_int_equal(walk.damage_count, 0);
        assert_int_equal(walk.end.verdict, VERDICT_CLEAN_END);
        assert_int_equal(walk.end.first_seq, f->frames[last].first_seq);
        fixture_free(&copy);
    }
    // Its header is there and says that it holds none; a flipped byte in what was written to the end is damage.
    struct walk walk;
    assert_true(disk_flip(f->disk, path, place + FRAME_HEADER_BYTES + 20, 1));
    fixture_scan_both(f, &walk);
    fixture_expect_all_but(f, &walk, last, last);
    assert_int_equal(walk.damage_count, 1);
    assert_int_equal(walk.damages[0].verdict, VERDICT_LOST_SEAL);
    assert_true(walk.damages[0].last_seq < walk.damages[0].first_seq);
    assert_int_equal(walk.end.verdict, VERDICT_LOST_SEAL);
}

// The same with a body of several sectors: any of them may not have been written.
static void a_torn_ids_frame_of_several_sectors_is_clean(void **state)
{
    struct fixture *f = *state;
    struct fixture copy = fixture_copy(f);
    size_t last = f->frame_count - 1;
    char path[SPOOL_PATH_MAX];
    fixture_path(&copy, 2, path);
    uint64_t place = f->ids_offset[2][0];
    disk_zero(copy.disk, path, place, SEGMENT - place);
    enum { ENTRIES = 70, BODY = IDS_HEAD_BYTES + ENTRIES * sizeof(struct ids_entry) };
    uint8_t bytes[FRAME_HEADER_BYTES + BODY];
    memset(bytes, 0x5a, sizeof(bytes));
    struct frame_header frame = f->frames[last - 1];
    frame.previous_crc = frame.header_crc;
    frame.kind = FRAME_IDS;
    frame.first_seq += frame.count;
    frame.acked_through = frame.first_seq - 1;
    frame.count = 0;
    frame.offset = place;
    frame.body_length = BODY;
    frame.body_crc = sl_crc32c_extend(frame_body_seed(&frame.uuid), bytes + FRAME_HEADER_BYTES, BODY);
    frame_header_encode(&frame, bytes);
    const uint64_t sectors = (sizeof(bytes) + 511) / 512;
    for (unsigned written = 0; written < 1U << sectors; written++) {
        struct walk walk;
        for (uint64_t i = 0; i < sizeof(bytes); i++)
            if (written & 1U << i / 512)
                assert_true(disk_flip(copy.disk, path, place + i, bytes[i]));
        fixture_scan_both(&copy, &walk);
        fixture_expect_all_but(&copy, &walk, last, last);
        assert_int_equal(walk.damage_count, 0);
        bool nothing = written == 0, all = written + 1 == 1U << sectors;
        assert_int_equal(walk.end.verdict, nothing || all ? VERDICT_CLEAN_END : VERDICT_TORN_TAIL);
        assert_int_equal(walk.end.first_seq, f->frames[last].first_seq);
        disk_zero(copy.disk, path, place, frame_size(BODY));
    }
    fixture_free(&copy);
}

int main(void)
{
#define STORY(name)                                                                                                    \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown),                                            \
        cmocka_unit_test_setup_teardown(name, fixture_setup_ids, fixture_teardown)
#define PLAIN(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
#define IDS(name)   cmocka_unit_test_setup_teardown(name, fixture_setup_ids, fixture_teardown)
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
        STORY(two_damaged_frames_lose_two_frames),
        PLAIN(a_segment_of_rubble_is_passed_over),
        IDS(a_damaged_ids_frame_loses_no_record),
        IDS(a_torn_ids_frame_at_the_end_is_clean),
        IDS(a_torn_ids_frame_of_several_sectors_is_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
