// Frames and files that verify and belong elsewhere are not taken.
#include "tests/spool/scan_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

// Copies a frame's bytes to another place, as a disk does that writes to the wrong address.
static void copy_bytes(struct fixture *f, size_t from_segment, uint64_t from, size_t to_segment, uint64_t to,
                       size_t length)
{
    char from_path[SPOOL_PATH_MAX], to_path[SPOOL_PATH_MAX];
    uint8_t *bytes = malloc(length), *old = malloc(length);
    fixture_path(f, from_segment, from_path);
    fixture_path(f, to_segment, to_path);
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
        fixture_scan_both(&copy, &walk);
        fixture_expect_all_but(&copy, &walk, 5, 5);
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
    fixture_path(&copy, 1, path);
    int64_t size = disk_size(copy.disk, path);
    char first[SPOOL_PATH_MAX];
    fixture_path(&copy, 0, first);
    assert_true(disk_size(copy.disk, first) == size);
    copy_bytes(&copy, 0, 0, 1, 0, (size_t)size);
    fixture_scan_both(&copy, &walk);
    fixture_expect_all_but(&copy, &walk, 4, 7);
    assert_int_equal(walk.damages[0].verdict, VERDICT_MISDIRECTED);
    assert_int_equal(walk.damages[1].verdict, VERDICT_MISSING_SEGMENT);
    assert_int_equal(walk.damages[1].last_seq, f->segments[2] - 1);
    fixture_free(&copy);
}

// A frame that verifies, at its place, with the expected seq, but not written behind the one that lies before it.
static void a_frame_that_does_not_chain_is_not_taken(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i + 1 < f->frame_count; i++) {
        struct fixture copy = fixture_copy(f);
        struct walk walk;
        char path[SPOOL_PATH_MAX];
        uint8_t before[FRAME_HEADER_BYTES], after[FRAME_HEADER_BYTES];
        struct frame_header forged = f->frames[i];
        fixture_path(&copy, f->frame_segment[i], path);
        frame_header_encode(&forged, before);
        forged.previous_crc ^= 1;
        frame_header_encode(&forged, after);
        for (size_t k = 0; k < FRAME_HEADER_BYTES; k++)
            if (before[k] != after[k])
                assert_true(disk_flip(copy.disk, path, forged.offset + k, before[k] ^ after[k]));
        fixture_scan_both(&copy, &walk);
        fixture_expect_all_but(&copy, &walk, i, i);
        assert_int_equal(walk.damage_count, 1);
        assert_int_equal(walk.damages[0].verdict, VERDICT_MISDIRECTED);
        assert_int_equal(walk.damages[0].first_seq, forged.first_seq);
        assert_int_equal(walk.damages[0].last_seq, forged.first_seq + forged.count - 1);
        fixture_free(&copy);
    }
}

int main(void)
{
#define STORY(name)                                                                                                    \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown),                                            \
        cmocka_unit_test_setup_teardown(name, fixture_setup_ids, fixture_teardown)
    const struct CMUnitTest tests[] = {
        STORY(misdirected_writes_are_not_taken),
        STORY(a_whole_file_from_elsewhere_is_not_taken),
        STORY(a_frame_that_does_not_chain_is_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
