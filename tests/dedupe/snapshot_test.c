// The snapshot: what comes back, with claims, evictions and other streams' names meanwhile; its rate, and giving up.
#include "dedupe/internal.h"
#include "tests/dedupe/snapshot_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

// ---- what comes back

static void what_was_settled_comes_back(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct dedupe_claim open = claim(dedupe, 5 * IDS, LATER);
    struct dedupe_claim gone = claim(dedupe, 5 * IDS + 1, LATER);
    dedupe_forget(dedupe, &gone);
    struct disk *disk = disk_with_directory();
    write_to(dedupe, disk, LATER);
    for (unsigned threads = 0; threads <= 4; threads++) {
        struct loaded loaded = load_from(disk, threads, LATER + SECOND);
        assert_true(loaded.good);
        assert_int_equal(count_there(loaded.dedupe), 2 * IDS);
        assert_int_equal(loaded.info.entries, 2 * IDS);
        assert_true(loaded.info.written_wall_ns == LATER);
        assert_true(loaded.info.covered_since_wall_ns == NOW);
        assert_int_equal(loaded.told.count, 2);
        assert_string_equal(loaded.told.names[0], OWN);
        assert_int_equal(loaded.told.through[0], IDS);
        assert_string_equal(loaded.told.names[1], PEER);
        assert_int_equal(loaded.told.through[1], 77);
        // Whose outcome was open is not in it: its event may not be in the spool.
        assert_false(is_there(loaded.dedupe, 5 * IDS, "", 0));
        assert_false(is_there(loaded.dedupe, 5 * IDS + 1, "", 0));
        dedupe_free(loaded.dedupe);
    }
    dedupe_settle(dedupe, &open, IDS + 1);
    dedupe_free(dedupe);
    disk_free(disk);
}

// Each generation of snapshots is made from what the one before gave.
static void survives_many_restarts(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    for (int restart = 0; restart < 5; restart++) {
        write_to(dedupe, disk, LATER + restart * SECOND);
        dedupe_free(dedupe);
        struct loaded loaded = load_from(disk, 2, LATER + restart * SECOND + SECOND / 2);
        assert_true(loaded.good);
        assert_int_equal(count_there(loaded.dedupe), 2 * IDS);
        dedupe = loaded.dedupe;
    }
    dedupe_free(dedupe);
    disk_free(disk);
}

// A window that is too small for what comes in, restarted.
static void a_full_window_lets_go_the_oldest_as_before(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_new(NOW);
    struct disk *disk = disk_with_directory();
    uint64_t slots = table_slots(dedupe), stored = 2 * slots;
    dedupe_own_stream(dedupe, OWN);
    // All of it within one of the parts in which a new window has its past.
    int64_t step_ns = WINDOW / 64 / (int64_t)(4 * slots), now_ns = NOW;
    for (uint64_t i = 0; i < stored; i++, now_ns += step_ns) {
        store(dedupe, i, now_ns, i + 1);
        if (i % 1000 == 0)
            dedupe_tick(dedupe, now_ns);
    }
    struct dedupe_figures before, after;
    dedupe_figures(dedupe, now_ns, &before);
    assert_true(before.evicted > slots / 2 && before.covered_ns > 0);
    write_to(dedupe, disk, now_ns);
    struct loaded loaded = load_from(disk, 2, now_ns);
    assert_true(loaded.good);
    dedupe_covered_since(loaded.dedupe, loaded.info.covered_since_wall_ns);
    dedupe_figures(loaded.dedupe, now_ns, &after);
    assert_int_equal(after.evicted, 0); // each has the place that it had
    assert_int_equal(after.entries, before.entries);
    assert_true(after.covered_ns == before.covered_ns);
    for (uint64_t i = 0; i < stored; i++)
        assert_int_equal(is_there(loaded.dedupe, i, OWN, i + 1), is_there(dedupe, i, OWN, i + 1));
    // And goes on as the one that was not restarted.
    for (uint64_t i = stored; i < stored + slots / 4; i++, now_ns += step_ns) {
        store(dedupe, i, now_ns, i + 1);
        store(loaded.dedupe, i, now_ns, i + 1);
    }
    dedupe_figures(dedupe, now_ns, &before);
    dedupe_figures(loaded.dedupe, now_ns, &after);
    assert_true(after.evicted > 0);
    assert_true(after.covered_ns > before.covered_ns * 3 / 4);
    dedupe_free(loaded.dedupe);
    dedupe_free(dedupe);
    disk_free(disk);
}

// Places of another size, and a window that is not fresh: the long way, with the same outcome.
static void into_any_window(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    write_to(dedupe, disk, LATER);
    dedupe_free(dedupe);
    struct dedupe *larger = window_of(3 * dedupe_memory_min(), LATER), *used = window_new(LATER);
    store(used, 0, LATER, 4711); // one of the snapshot's, under another seq: what is there stays
    dedupe_own_stream(used, OWN);
    for (unsigned i = 0; i < 2; i++) {
        struct loaded loaded = load_into(i == 0 ? larger : used, disk, 2, LATER);
        assert_true(loaded.good);
        for (uint64_t number = 1; number < IDS; number++)
            assert_true(is_there(loaded.dedupe, number, OWN, number + 1));
        assert_true(is_there(loaded.dedupe, 0, OWN, i == 0 ? 1 : 4711));
        struct dedupe_figures figures;
        dedupe_figures(loaded.dedupe, LATER, &figures);
        assert_int_equal(figures.entries, 2 * IDS);
        dedupe_free(loaded.dedupe);
    }
    disk_free(disk);
}

// A snapshot may hold an id twice: let go behind the walk, and claimed again before it.
static void an_id_that_is_there_twice(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    write_to(dedupe, disk, LATER);
    struct loaded loaded = load_from(disk, 1, LATER);
    assert_true(loaded.good);
    // The generations of a window that has been used are not laid out again, but its places are right.
    struct dedupe_figures figures;
    for (uint64_t number = 0; number < IDS; number++) {
        struct dedupe_id id = id_of(number);
        for (unsigned choice = 0; choice < CHOICES; choice++)
            assert_true(restore_entry(loaded.dedupe, &id, choice, payload_of(number), FIRST_NUMBER, 0, number + 1));
    }
    dedupe_figures(loaded.dedupe, LATER, &figures);
    assert_int_equal(figures.entries, 2 * IDS);
    assert_int_equal(count_there(loaded.dedupe), 2 * IDS);
    dedupe_free(loaded.dedupe);
    dedupe_free(dedupe);
    disk_free(disk);
}

static void an_empty_window(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_new(NOW); // whose own stream has no name yet
    struct disk *disk = disk_with_directory();
    struct loaded none = load_from(disk, 2, NOW);
    assert_false(none.good);
    assert_int_equal(none.err.code, SL_E_NOT_FOUND);
    dedupe_free(none.dedupe);
    write_to(dedupe, disk, NOW);
    struct loaded loaded = load_from(disk, 2, NOW);
    assert_true(loaded.good);
    assert_int_equal(loaded.info.entries, 0);
    assert_int_equal(loaded.told.count, 0);
    assert_int_equal(disk_size(disk, "/d/snapshot"), SNAPSHOT_ALIGN + SNAPSHOT_TRAILER_BYTES);
    dedupe_free(loaded.dedupe);
    dedupe_free(dedupe);
    disk_free(disk);
}

static void what_has_expired_is_not_loaded(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    write_to(dedupe, disk, LATER);
    // Half of them are older than the window now. A generation is a 64th of it long, and goes as a whole.
    int64_t then = NOW + WINDOW + WINDOW / 4;
    struct loaded loaded = load_from(disk, 2, then);
    assert_true(loaded.good);
    const uint64_t slack = IDS / 16;
    for (uint64_t i = 0; i < IDS; i++) {
        bool there = is_there(loaded.dedupe, i, OWN, i + 1);
        assert_true(there || i < IDS / 2 + 1);
        assert_true(!there || i + slack > IDS / 2);
    }
    dedupe_free(loaded.dedupe);
    struct loaded last = load_from(disk, 2, LATER + 2 * WINDOW);
    assert_true(last.good);
    assert_int_equal(count_there(last.dedupe), 0);
    dedupe_free(last.dedupe);
    dedupe_free(dedupe);
    disk_free(disk);
}

// ---- claims meanwhile

static int64_t later_by(uint64_t number)
{
    return LATER + (int64_t)number * SECOND;
}

static void claim_more(struct told *told)
{
    for (unsigned i = 0; i < 20; i++, told->next++)
        store(told->dedupe, 10 * IDS + told->next, later_by(told->next), IDS + 1 + told->next);
    dedupe_tick(told->dedupe, later_by(told->next));
}

// The time of each entry in the file, by reading it as the loader does.
static void each_entry(struct disk *disk, void (*each)(const struct snapshot_entry *, const struct snapshot_group *))
{
    struct storage storage = disk_storage(disk);
    static uint8_t bytes[SNAPSHOT_HEADER_MAX], block_bytes[BLOCK];
    static struct snapshot_header header;
    struct sl_error err;
    int handle = storage.ops->open(storage.context, "/d/snapshot", STORAGE_READ);
    assert_true(handle >= 0);
    ssize_t got = storage.ops->pread(storage.context, handle, bytes, sizeof(bytes), 0);
    assert_true(got > 0 && snapshot_header_decode(&header, bytes, (size_t)got, &err));
    for (uint64_t index = 0;; index++) {
        struct snapshot_block block = {.bytes = block_bytes, .block_bytes = BLOCK};
        got = storage.ops->pread(storage.context, handle, block_bytes, BLOCK, header.header_bytes + index * BLOCK);
        if (got != BLOCK || !snapshot_block_open(&block, header.written_wall_ns, index))
            break; // the trailer
        for (uint32_t i = 0; i < block.entries; i++) {
            struct snapshot_entry entry;
            struct snapshot_group group;
            assert_true(snapshot_block_entry(&block, i, &entry));
            assert_true(snapshot_block_group(&block, entry.group, header.stream_count, &group));
            each(&entry, &group);
        }
    }
    storage.ops->close(storage.context, handle);
}

static unsigned seen_late;

static void seen_not_before_it_came(const struct snapshot_entry *entry, const struct snapshot_group *group)
{
    uint64_t seq = (uint64_t)group->seq_high << 32 | entry->seq_low;
    if (group->seq_high > 0 || seq <= IDS)
        return;
    assert_true(group->seen_wall_ns >= later_by(seq - IDS - 1));
    seen_late++;
}

static void claims_go_on_meanwhile(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    struct storage storage = disk_storage(disk);
    struct told told = {.dedupe = dedupe, .meanwhile = claim_more};
    struct sl_error err;
    assert_true(write_with(dedupe, &storage, LATER, &told, &err));
    assert_true(told.pauses >= 2 * IDS * SNAPSHOT_ENTRY_BYTES / BLOCK);
    struct loaded loaded = load_from(disk, 2, later_by(told.next));
    assert_true(loaded.good);
    assert_int_equal(count_there(loaded.dedupe), 2 * IDS);
    unsigned there = 0;
    for (uint64_t i = 0; i < told.next; i++)
        there += is_there(loaded.dedupe, 10 * IDS + i, OWN, IDS + 1 + i);
    assert_true(there > 0); // those that came behind the walk are in the spool
    seen_late = 0;
    each_entry(disk, seen_not_before_it_came);
    assert_int_equal(seen_late, there);
    dedupe_free(loaded.dedupe);
    dedupe_free(dedupe);
    disk_free(disk);
}

struct claimer {
    pthread_t thread;
    struct dedupe *dedupe;
    uint64_t first, done;
    _Atomic bool stop;
};

static void *claim_all_the_time(void *user)
{
    struct claimer *claimer = user;
    while (!atomic_load(&claimer->stop) || claimer->done == 0) {
        struct dedupe_id id = id_of(claimer->first + claimer->done);
        struct dedupe_claim held;
        struct dedupe_found found;
        if (dedupe_claim(claimer->dedupe, &id, payload_of(claimer->first + claimer->done), LATER, &held, &found) ==
            DEDUPE_NEW)
            dedupe_settle(claimer->dedupe, &held, claimer->first + claimer->done);
        claimer->done++;
    }
    return NULL;
}

// Not in the window's room but far beyond it: entries are evicted under the writer.
static void threads_claim_meanwhile(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    // So far from one another that none comes to the other's, however long the writer takes.
    struct claimer claimers[2] = {{.dedupe = dedupe, .first = 1000000}, {.dedupe = dedupe, .first = 2000000000}};
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&claimers[i].thread, NULL, claim_all_the_time, &claimers[i]), 0);
    for (unsigned round = 0; round < 10; round++)
        write_to(dedupe, disk, LATER);
    for (unsigned i = 0; i < 2; i++) {
        atomic_store(&claimers[i].stop, true);
        pthread_join(claimers[i].thread, NULL);
    }
    struct loaded loaded = load_from(disk, 2, LATER);
    assert_true(loaded.good);
    // What is missing of the first ones was let go, and the snapshot says so.
    unsigned there = count_there(loaded.dedupe);
    assert_true(there == 2 * IDS || loaded.info.covered_since_wall_ns > NOW);
    for (unsigned i = 0; i < 2; i++) {
        for (uint64_t number = claimers[i].first; number < claimers[i].first + claimers[i].done; number++)
            is_there(loaded.dedupe, number, OWN, number);
        assert_false(is_there(loaded.dedupe, claimers[i].first + claimers[i].done, "", 0));
    }
    dedupe_free(loaded.dedupe);
    dedupe_free(dedupe);
    disk_free(disk);
}

static void evict_everything(struct told *told)
{
    uint64_t slots = table_slots(told->dedupe);
    for (uint64_t i = 0; i < 2 * slots && told->pauses == 1; i++)
        store(told->dedupe, 100 * IDS + i, LATER, IDS + 1 + i);
}

static void what_goes_meanwhile_is_not_covered(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    struct storage storage = disk_storage(disk);
    struct told told = {.dedupe = dedupe, .meanwhile = evict_everything};
    struct sl_error err;
    assert_true(write_with(dedupe, &storage, LATER, &told, &err));
    struct loaded loaded = load_from(disk, 1, LATER);
    assert_true(loaded.good);
    assert_true(count_there(loaded.dedupe) < 2 * IDS);
    struct dedupe_figures figures;
    dedupe_figures(dedupe, LATER, &figures);
    assert_true(loaded.info.covered_since_wall_ns == LATER - figures.covered_ns);
    assert_true(loaded.info.covered_since_wall_ns >= LATER - WINDOW / 64);
    dedupe_free(loaded.dedupe);
    dedupe_free(dedupe);
    disk_free(disk);
}

static void rename_the_peer(struct told *told)
{
    if (told->pauses == 3) // as when its index is given to another stream
        atomic_fetch_add(&told->dedupe->origins[1].version, 2);
}

static void an_index_that_changes_hands_names_nothing(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    struct storage storage = disk_storage(disk);
    struct told told = {.dedupe = dedupe, .meanwhile = rename_the_peer};
    struct sl_error err;
    assert_true(write_with(dedupe, &storage, LATER, &told, &err));
    struct loaded loaded = load_from(disk, 1, LATER);
    assert_true(loaded.good);
    unsigned there = count_there(loaded.dedupe);
    assert_true(there > IDS && there < 2 * IDS); // all of the own, some of the peer's
    dedupe_free(loaded.dedupe);
    dedupe_free(dedupe);
    disk_free(disk);
}

// ---- the rate, and giving up

static void keeps_to_its_rate_and_gives_up(void **state)
{
    (void)state;
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    struct storage storage = disk_storage(disk);
    struct told told = {.give_up_at = 0};
    struct dedupe_snapshot_writing how = {
        .through = told_through, .pause = told_pause, .user = &told, .block_bytes = BLOCK, .bytes_per_second = 1};
    struct sl_error err;
    assert_true(dedupe_snapshot_write(dedupe, &key, &storage, "/d", &how, LATER, &err));
    // At a byte a second the last block is due when all before the trailer has been written. (This pause does not
    // wait.)
    int64_t bytes = disk_size(disk, "/d/snapshot") - SNAPSHOT_TRAILER_BYTES;
    assert_true(told.paused_ns_max > (bytes - 3600) * SECOND && told.paused_ns_max <= bytes * SECOND);
    unsigned pauses = told.pauses;
    assert_int_equal(pauses, (bytes - SNAPSHOT_ALIGN) / BLOCK);

    store(dedupe, 3 * IDS, LATER, IDS + 1);
    for (unsigned at = 1; at <= pauses; at++) {
        told = (struct told){.give_up_at = at};
        assert_false(dedupe_snapshot_write(dedupe, &key, &storage, "/d", &how, LATER + SECOND, &err));
        assert_int_equal(err.code, SL_E_REFUSED);
        assert_int_equal(told.pauses, at);
        assert_int_equal(disk_size(disk, "/d/snapshot.tmp"), -1);
    }
    struct loaded loaded = load_from(disk, 1, LATER + SECOND);
    assert_true(loaded.good);
    assert_true(loaded.info.written_wall_ns == LATER); // the earlier one
    dedupe_free(loaded.dedupe);
    dedupe_free(dedupe);
    disk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_settled_comes_back),
        cmocka_unit_test(survives_many_restarts),
        cmocka_unit_test(a_full_window_lets_go_the_oldest_as_before),
        cmocka_unit_test(into_any_window),
        cmocka_unit_test(an_id_that_is_there_twice),
        cmocka_unit_test(an_empty_window),
        cmocka_unit_test(what_has_expired_is_not_loaded),
        cmocka_unit_test(claims_go_on_meanwhile),
        cmocka_unit_test(threads_claim_meanwhile),
        cmocka_unit_test(what_goes_meanwhile_is_not_covered),
        cmocka_unit_test(an_index_that_changes_hands_names_nothing),
        cmocka_unit_test(keeps_to_its_rate_and_gives_up),
    };
    return cmocka_run_group_tests(tests, set_up_key, NULL);
}
