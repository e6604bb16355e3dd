#include "tests/dedupe/snapshot_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct dedupe_key key;

int set_up_key(void **state)
{
    (void)state;
    memset(key.bytes, 7, sizeof(key.bytes));
    dedupe_key_derive(&key);
    return 0;
}

// ---- ids with what they should be found as

static uint64_t scatter(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

struct dedupe_id id_of(uint64_t number)
{
    return (struct dedupe_id){{scatter(number + 1), scatter(~number)}};
}

uint64_t payload_of(uint64_t number)
{
    return scatter(number ^ 0x5555);
}

struct dedupe *window_of(uint64_t memory_bytes, int64_t now_ns)
{
    struct dedupe_options options = {.memory_bytes = memory_bytes, .window_ns = WINDOW, .now_wall_ns = now_ns};
    struct dedupe *dedupe;
    struct sl_error err;
    assert_true(dedupe_new(&dedupe, &options, &err));
    return dedupe;
}

struct dedupe *window_new(int64_t now_ns)
{
    return window_of(dedupe_memory_min(), now_ns);
}

struct dedupe_claim claim(struct dedupe *dedupe, uint64_t number, int64_t now_ns)
{
    struct dedupe_id id = id_of(number);
    struct dedupe_claim claim = {0};
    struct dedupe_found found;
    assert_int_equal(dedupe_claim(dedupe, &id, payload_of(number), now_ns, &claim, &found), DEDUPE_NEW);
    return claim;
}

void store(struct dedupe *dedupe, uint64_t number, int64_t now_ns, uint64_t seq)
{
    struct dedupe_claim held = claim(dedupe, number, now_ns);
    dedupe_settle(dedupe, &held, seq);
}

bool is_there(struct dedupe *dedupe, uint64_t number, const char *stream, uint64_t seq)
{
    struct dedupe_id id = id_of(number);
    struct dedupe_found found;
    enum dedupe_verdict verdict = dedupe_look(dedupe, &id, payload_of(number), &found);
    if (verdict == DEDUPE_NEW)
        return false;
    // If it is there, then as what it was.
    char name[128];
    assert_int_equal(verdict, DEDUPE_DUPLICATE);
    assert_int_equal(found.state, DEDUPE_DURABLE);
    assert_true(dedupe_origin_name(dedupe, found.origin, name, sizeof(name)));
    assert_string_equal(name, stream);
    assert_true(found.seq == seq);
    // With another payload it is a conflict.
    assert_int_equal(dedupe_look(dedupe, &id, ~payload_of(number), &found), DEDUPE_CONFLICT);
    return true;
}

struct dedupe *window_filled(void)
{
    struct dedupe *dedupe = window_new(NOW);
    dedupe_own_stream(dedupe, OWN);
    uint32_t peer = dedupe_origin(dedupe, PEER);
    for (uint64_t i = 0; i < IDS; i++) {
        int64_t now_ns = NOW + (int64_t)i * WINDOW / (2 * IDS);
        if (i % 50 == 0)
            dedupe_tick(dedupe, now_ns);
        struct dedupe_id id = id_of(IDS + i);
        store(dedupe, i, now_ns, i + 1);
        dedupe_insert(dedupe, &id, payload_of(IDS + i), now_ns, peer, PEER_SEQ + i);
    }
    return dedupe;
}

unsigned count_there(struct dedupe *dedupe)
{
    unsigned there = 0;
    for (uint64_t i = 0; i < IDS; i++) {
        there += is_there(dedupe, i, OWN, i + 1);
        there += is_there(dedupe, IDS + i, PEER, PEER_SEQ + i);
        assert_false(is_there(dedupe, 2 * IDS + i, "", 0));
    }
    return there;
}

// ---- writing and loading

uint64_t told_through(void *user, const char *stream)
{
    (void)user;
    return strcmp(stream, OWN) == 0 ? IDS : strcmp(stream, PEER) == 0 ? 77 : 0;
}

bool told_pause(void *user, int64_t ns)
{
    struct told *told = user;
    told->pauses++;
    if (ns > told->paused_ns_max)
        told->paused_ns_max = ns;
    if (told->meanwhile != NULL)
        told->meanwhile(told);
    return told->pauses != told->give_up_at;
}

void told_covers(void *user, const char *stream, uint64_t seq)
{
    struct told *told = user;
    assert_true(told->count < STREAMS_MAX);
    snprintf(told->names[told->count], sizeof(told->names[0]), "%s", stream);
    told->through[told->count++] = seq;
}

struct disk *disk_with_directory(void)
{
    struct disk *disk = disk_new(DISK_BYTES);
    struct storage storage = disk_storage(disk);
    assert_int_equal(storage.ops->mkdir(storage.context, "/d"), 0);
    assert_int_equal(storage.ops->sync_directory(storage.context, "/"), 0);
    return disk;
}

bool write_with(struct dedupe *dedupe, const struct storage *storage, int64_t now_ns, struct told *told,
                struct sl_error *err)
{
    struct dedupe_snapshot_writing how = {
        .through = told_through, .pause = told == NULL ? NULL : told_pause, .user = told, .block_bytes = BLOCK};
    return dedupe_snapshot_write(dedupe, &key, storage, "/d", &how, now_ns, err);
}

void write_to(struct dedupe *dedupe, struct disk *disk, int64_t now_ns)
{
    struct storage storage = disk_storage(disk);
    struct sl_error err = {.text = ""};
    if (!write_with(dedupe, &storage, now_ns, NULL, &err))
        fail_msg("%s", err.text);
}

struct loaded load_into(struct dedupe *dedupe, struct disk *disk, unsigned threads, int64_t now_ns)
{
    struct storage storage = disk_storage(disk);
    struct loaded loaded = {.dedupe = dedupe};
    loaded.good = dedupe_snapshot_load(loaded.dedupe, &key, &storage, "/d", threads, told_covers, &loaded.told, now_ns,
                                       &loaded.info, &loaded.err);
    assert_true(loaded.good || loaded.told.count == 0); // nothing is covered by what was refused
    assert_int_equal(disk_open_handles(disk), 0);
    return loaded;
}

struct disk *disk_with_snapshot(void)
{
    struct dedupe *dedupe = window_filled();
    struct disk *disk = disk_with_directory();
    write_to(dedupe, disk, LATER);
    dedupe_free(dedupe);
    return disk;
}

struct loaded load_from(struct disk *disk, unsigned threads, int64_t now_ns)
{
    return load_into(window_new(now_ns), disk, threads, now_ns);
}
