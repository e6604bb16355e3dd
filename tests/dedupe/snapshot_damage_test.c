// Damaged, cut, foreign and half-written snapshots: refused, and none of them makes a new id a duplicate. A crash or a
// fault while one is written leaves the earlier one.
#include "base/crc32c.h"
#include "tests/dedupe/snapshot_world.h"
#include "tests/spool/fault.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

// ---- damage

static void refused(struct disk *disk, enum sl_code code)
{
    static unsigned turn;
    struct loaded loaded = load_from(disk, 1 + turn++ % 3, LATER);
    assert_false(loaded.good);
    assert_int_equal(loaded.err.code, code);
    assert_non_null(strstr(loaded.err.text, "/d/snapshot"));
    (void)count_there(loaded.dedupe); // what is there is right, and nothing else is
    dedupe_free(loaded.dedupe);
}

static void a_flipped_bit_is_refused(void **state)
{
    (void)state;
    struct disk *disk = disk_with_snapshot();
    uint64_t size = (uint64_t)disk_size(disk, "/d/snapshot");
    unsigned random = 12345;
    for (uint64_t at = 0; at < size;) {
        uint8_t mask = (uint8_t)(1u << (random >> 16) % 8);
        assert_true(disk_flip(disk, "/d/snapshot", at, mask));
        refused(disk, SL_E_CORRUPT);
        assert_true(disk_flip(disk, "/d/snapshot", at, mask));
        random = random * 1103515245 + 12345;
        // Every byte of the heads, some of the rest.
        at += at % BLOCK < 64 ? 1 : 1 + (random >> 16) % 300;
    }
    disk_free(disk);
}

static void a_cut_file_is_refused(void **state)
{
    (void)state;
    struct disk *whole = disk_with_snapshot();
    uint64_t size = (uint64_t)disk_size(whole, "/d/snapshot");
    unsigned random = 1;
    for (uint64_t length = 0; length < size;) {
        struct disk *cut = disk_crash(whole, DISK_KEEP_ALL, 1);
        disk_cut(cut, "/d/snapshot", length);
        refused(cut, SL_E_CORRUPT);
        disk_free(cut);
        random = random * 1103515245 + 12345;
        length += length % BLOCK < 2 || length % BLOCK == BLOCK - 1 ? 1 : 1 + (random >> 16) % 200;
        if (length % BLOCK > 200 && length % BLOCK < BLOCK - 200 && length / BLOCK % 4 != 1)
            length += BLOCK - 200 - length % BLOCK;
    }
    disk_free(whole);
}

// A block that verifies, at another's place, and one of another snapshot.
static void a_block_out_of_place_is_refused(void **state)
{
    (void)state;
    struct disk *disk = disk_with_snapshot();
    struct storage storage = disk_storage(disk);
    uint8_t block[BLOCK];
    int handle = storage.ops->open(storage.context, "/d/snapshot", STORAGE_WRITE);
    assert_true(handle >= 0);
    assert_int_equal(storage.ops->pread(storage.context, handle, block, BLOCK, SNAPSHOT_ALIGN), BLOCK);
    struct iovec part = {block, BLOCK};
    assert_int_equal(storage.ops->pwritev(storage.context, handle, &part, 1, SNAPSHOT_ALIGN + BLOCK), 0);
    storage.ops->close(storage.context, handle);
    refused(disk, SL_E_CORRUPT);
    disk_free(disk);
}

static void patch(struct disk *disk, uint64_t at, size_t length, size_t crc_at, size_t field, uint8_t value)
{
    struct storage storage = disk_storage(disk);
    uint8_t bytes[BLOCK];
    assert_true(length <= sizeof(bytes));
    int handle = storage.ops->open(storage.context, "/d/snapshot", STORAGE_WRITE);
    assert_true(handle >= 0);
    assert_int_equal(storage.ops->pread(storage.context, handle, bytes, length, at), length);
    bytes[field] = value;
    memset(bytes + crc_at, 0, 4);
    uint32_t crc = sl_crc32c(bytes, length);
    memcpy(bytes + crc_at, &crc, sizeof(crc));
    struct iovec part = {bytes, length};
    assert_int_equal(storage.ops->pwritev(storage.context, handle, &part, 1, at), 0);
    storage.ops->close(storage.context, handle);
}

// Checksums that are right over values that are not.
static void values_out_of_range_are_refused(void **state)
{
    (void)state;
    const struct {
        uint64_t at;
        size_t crc_at, field;
        uint8_t value;
        enum sl_code code;
    } cases[] = {
        {0, 12, 8, 2, SL_E_INVALID},                          // another version
        {0, 12, 24, 0xff, SL_E_INVALID},                      // another key
        {0, 12, 21, 0x30, SL_E_CORRUPT},                      // a block that is no power of two
        {0, 12, 68, 1, SL_E_CORRUPT},                         // what must be zero
        {0, 12, 64, 200, SL_E_CORRUPT},                       // streams without a name
        {0, 12, 80, 0, SL_E_CORRUPT},                         // a name of no length
        {0, 12, 81, 0, SL_E_CORRUPT},                         // NUL in a name
        {0, 12, 65, 2, SL_E_CORRUPT},                         // more streams than there may be
        {0, 12, 32, 0x55, SL_E_CORRUPT},                      // a header of another snapshot
        {SNAPSHOT_ALIGN, 4, 24, 255, SL_E_CORRUPT},           // more entries than fit
        {SNAPSHOT_ALIGN, 4, 29, 0xff, SL_E_CORRUPT},          // more groups than fit
        {SNAPSHOT_ALIGN, 4, 28, 0, SL_E_CORRUPT},             // entries of no group
        {SNAPSHOT_ALIGN, 4, 24, 1, SL_E_CORRUPT},             // fewer entries than the trailer says
        {SNAPSHOT_ALIGN, 4, BLOCK - 8, 9, SL_E_CORRUPT},      // a group of no stream
        {SNAPSHOT_ALIGN, 4, 32 + 16 + 1, 0xff, SL_E_CORRUPT}, // an entry of no group
        {SNAPSHOT_ALIGN, 4, 16, 1, SL_E_CORRUPT},             // a block of another place
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct disk *disk = disk_with_snapshot();
        patch(disk, cases[i].at, BLOCK, cases[i].crc_at, cases[i].field, cases[i].value);
        refused(disk, cases[i].code);
        disk_free(disk);
    }
}

static void another_key_is_refused(void **state)
{
    (void)state;
    struct disk *disk = disk_with_snapshot();
    struct dedupe_key before = key;
    key.bytes[0] ^= 1;
    dedupe_key_derive(&key);
    struct loaded loaded = load_from(disk, 2, LATER);
    assert_false(loaded.good);
    assert_int_equal(loaded.err.code, SL_E_INVALID);
    assert_int_equal(count_there(loaded.dedupe), 0);
    dedupe_free(loaded.dedupe);
    key = before;
    disk_free(disk);
}

// ---- crashes and faults

// Stops the disk after each of the writer's changes: the earlier snapshot is found or the new one, never none.
static void a_crash_leaves_the_old_or_the_new(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *base = disk_with_directory();
    write_to(dedupe, base, LATER);
    store(dedupe, 3 * IDS, LATER, IDS + 1);
    const enum disk_crash modes[] = {DISK_KEEP_NOTHING, DISK_KEEP_ALL, DISK_KEEP_SOME, DISK_KEEP_BLOCKS};
    bool done = false;
    unsigned olds = 0, news = 0;
    for (uint64_t after = 1; !done; after++) {
        struct disk *disk = disk_crash(base, DISK_KEEP_ALL, 1);
        struct storage storage = disk_storage(disk);
        struct sl_error err;
        disk_stop_after(disk, after);
        done = write_with(dedupe, &storage, LATER + SECOND, NULL, &err);
        for (unsigned i = 0; i < 4; i++) {
            struct disk *found = disk_crash(disk, modes[i], after);
            struct loaded loaded = load_from(found, 1, LATER + SECOND);
            if (!loaded.good)
                fail_msg("change %llu: %s", (unsigned long long)after, loaded.err.text);
            bool fresh = loaded.info.written_wall_ns == LATER + SECOND;
            assert_true(fresh || loaded.info.written_wall_ns == LATER);
            assert_true(fresh || !done);
            assert_int_equal(is_there(loaded.dedupe, 3 * IDS, OWN, IDS + 1), fresh);
            olds += !fresh;
            news += fresh;
            dedupe_free(loaded.dedupe);
            // And the next one goes through, whatever the crash left.
            write_to(dedupe, found, LATER + 2 * SECOND);
            assert_int_equal(disk_size(found, "/d/snapshot.tmp"), -1);
            disk_free(found);
        }
        disk_free(disk);
    }
    assert_true(olds > 0 && news > 0);
    dedupe_free(dedupe);
    disk_free(base);
}

static void a_failed_call_leaves_the_old(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    write_to(dedupe, disk, LATER);
    struct storage inner = disk_storage(disk);
    const enum fault_op ops[] = {FAULT_OPEN, FAULT_PWRITEV, FAULT_FDATASYNC, FAULT_RENAME, FAULT_SYNC_DIRECTORY};
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
        for (uint64_t at = 1; at <= (ops[i] == FAULT_PWRITEV ? 10 : 1); at++) {
            struct fault fault;
            struct sl_error err;
            fault_init(&fault, &inner);
            fault_set(&fault, ops[i], at, i % 2 == 0 ? EIO : ENOSPC, false);
            struct storage storage = fault_storage(&fault);
            assert_false(write_with(dedupe, &storage, LATER + SECOND, NULL, &err));
            assert_int_equal(err.code, i % 2 == 0 ? SL_E_IO : SL_E_NO_SPACE);
            assert_true(fault.fired);
            assert_int_equal(disk_size(disk, "/d/snapshot.tmp"), -1);
            struct loaded loaded = load_from(disk, 1, LATER + SECOND);
            assert_true(loaded.good);
            assert_int_equal(count_there(loaded.dedupe), 2 * IDS);
            dedupe_free(loaded.dedupe);
        }
    // And reading: nothing is covered, and the error is told.
    for (uint64_t at = 1; at <= 4; at++) {
        struct fault fault;
        fault_init(&fault, &inner);
        fault_set(&fault, FAULT_PREAD, at, EIO, false);
        struct storage storage = fault_storage(&fault);
        struct loaded loaded = {.dedupe = window_new(LATER)};
        assert_false(dedupe_snapshot_load(loaded.dedupe, &key, &storage, "/d", 2, told_covers, &loaded.told, LATER,
                                          &loaded.info, &loaded.err));
        assert_int_equal(loaded.err.code, SL_E_IO);
        assert_int_equal(loaded.told.count, 0);
        dedupe_free(loaded.dedupe);
    }
    dedupe_free(dedupe);
    disk_free(disk);
}

// The spool needs the room more.
static void a_full_disk_is_left_to_the_spool(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    struct storage storage = disk_storage(disk);
    struct sl_error err;
    uint64_t changes = disk_changes(disk);
    disk_set_capacity(disk, disk_used(disk) + 2 * (uint64_t)IDS * SNAPSHOT_ENTRY_BYTES);
    assert_false(write_with(dedupe, &storage, LATER, NULL, &err));
    assert_int_equal(err.code, SL_E_NO_SPACE);
    assert_int_equal(disk_changes(disk), changes);
    disk_set_capacity(disk, DISK_BYTES);
    write_to(dedupe, disk, LATER);
    dedupe_free(dedupe);
    disk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flipped_bit_is_refused),        cmocka_unit_test(a_cut_file_is_refused),
        cmocka_unit_test(a_block_out_of_place_is_refused), cmocka_unit_test(values_out_of_range_are_refused),
        cmocka_unit_test(another_key_is_refused),          cmocka_unit_test(a_crash_leaves_the_old_or_the_new),
        cmocka_unit_test(a_failed_call_leaves_the_old),    cmocka_unit_test(a_full_disk_is_left_to_the_spool),
    };
    return cmocka_run_group_tests(tests, set_up_key, NULL);
}
