// How far streams have come: the ring of those that this process writes, the streams of others, and the ids of other
// nodes' events. A fake tells what two zones have; the window and the records are real.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gateway/ingest_internal.h"
#include "gateway/window_internal.h"

struct world {
    struct ingest *ingest; // no loops
    struct dedupe *dedupe;
    struct window window;
    char asked[SPOOL_STREAM_ID_MAX];
    uint64_t two_zones;
    int questions;
};

static uint64_t two_zones(void *user, const char *stream)
{
    struct world *world = user;
    snprintf(world->asked, sizeof(world->asked), "%s", stream);
    world->questions++;
    return world->two_zones;
}

static void open_world(struct world *world)
{
    struct sl_error err;
    *world = (struct world){.ingest = calloc(1, sizeof(struct ingest))};
    struct dedupe_options options = {
        .memory_bytes = dedupe_memory_min(), .window_ns = SL_NS_PER_S, .now_wall_ns = sl_wall_ns()};
    assert_true(dedupe_new(&world->dedupe, &options, &err));
    world->ingest->dedupe = world->dedupe;
    world->ingest->older = calloc(OLDER_ORIGINS_MAX, sizeof(*world->ingest->older));
    world->ingest->two_zones = two_zones;
    world->ingest->user = world;
    pthread_mutex_init(&world->ingest->own_lock, NULL);
    dedupe_own_stream(world->dedupe, "gw.1-00000001");
    ingest_open_stream(world->ingest, 0, "gw.1-00000001");
    world->window.dedupe = world->dedupe;
    world->window.ingest = world->ingest;
    world->window.live = true;
    pthread_mutex_init(&world->window.feed_lock, NULL);
    pthread_mutex_init(&world->window.lock, NULL);
}

static void close_world(struct world *world)
{
    pthread_mutex_destroy(&world->window.lock);
    pthread_mutex_destroy(&world->window.feed_lock);
    free(world->window.fed);
    pthread_mutex_destroy(&world->ingest->own_lock);
    free(world->ingest->older);
    free(world->ingest);
    dedupe_free(world->dedupe);
}

static enum ack_verdict verdict(struct world *world, enum ack_level level, uint32_t origin, uint64_t seq)
{
    struct ack_original original;
    ingest_find_original(world->ingest, level, 1, origin, seq, &original);
    return ack_decide_original(level, &original);
}

static void test_the_ring(void **state)
{
    (void)state;
    static const char *const ids[] = {"gw.2-0000000a", "gw.3-0000000b", "gw.4-0000000c", "gw.5-0000000d",
                                      "gw.6-0000000e", "gw.7-0000000f", "gw.8-00000010", "gw.9-00000011"};
    struct world world;
    struct ack_positions positions = {0};
    open_world(&world);
    ingest_note_peer(world.ingest, 0, 7);
    ingest_note_peer(world.ingest, 0, 5); // late: positions never move back
    assert_true(ingest_positions(world.ingest, 0, 1, &positions));
    assert_int_equal(positions.peer_synced, 7);
    assert_int_equal(positions.kafka_committed, 0);
    for (uint32_t i = 1; i <= OWN_STREAMS; i++) {
        ingest_open_stream(world.ingest, i, ids[i - 1]);
        ingest_note_peer(world.ingest, i, 100 + i);
        atomic_store(&world.ingest->own[i % OWN_STREAMS].committed[0], 200 + i);
    }
    assert_int_equal(ingest_newest_incarnation(world.ingest), OWN_STREAMS);
    for (uint32_t i = 1; i <= OWN_STREAMS; i++) {
        assert_true(ingest_positions(world.ingest, i, 1, &positions));
        assert_int_equal(positions.peer_synced, 100 + i);
        assert_int_equal(positions.kafka_committed, 200 + i);
        assert_string_equal(ingest_stream_id(world.ingest, i), ids[i - 1]);
        // Another lane's position says nothing of this one.
        assert_true(ingest_positions(world.ingest, i, 1 | 2, &positions));
        assert_int_equal(positions.kafka_committed, 0);
    }
    // The first one has left: nobody is answered by the positions of the one in its place.
    assert_false(ingest_positions(world.ingest, 0, 1, &positions));
    close_world(&world);
}

// What two zones have of a stream is asked for, remembered, and forgotten with the stream's name.
static void test_originals_elsewhere(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    uint32_t origin = ingest_name_origin(world.ingest, "other.4-0000beef");
    uint32_t epoch = ingest_origin_epoch(world.ingest, origin);
    assert_int_equal(verdict(&world, ACK_DISK, origin, 10), ACK_GIVE); // it is on this disk
    assert_int_equal(verdict(&world, ACK_KAFKA, origin, 10), ACK_WAIT);
    assert_int_equal(world.questions, 0);
    world.two_zones = 9;
    assert_int_equal(verdict(&world, ACK_AZ2, origin, 10), ACK_WAIT);
    assert_string_equal(world.asked, "other.4-0000beef");
    world.two_zones = 10;
    assert_int_equal(verdict(&world, ACK_AZ2, origin, 10), ACK_GIVE);
    int questions = world.questions;
    assert_int_equal(verdict(&world, ACK_AZ2, origin, 9), ACK_GIVE);
    assert_int_equal(world.questions, questions);
    assert_int_equal(verdict(&world, ACK_KAFKA, origin, 9), ACK_WAIT);
    ingest_note_older(world.ingest, origin, "other.4-0000beef", 9);
    assert_int_equal(verdict(&world, ACK_KAFKA, origin, 9), ACK_GIVE);
    assert_int_equal(verdict(&world, ACK_KAFKA, origin, 10), ACK_WAIT);
    // Late word of a stream that had the place before.
    ingest_note_older(world.ingest, origin, "other.3-0000dead", UINT64_MAX);
    assert_int_equal(verdict(&world, ACK_KAFKA, origin, 10), ACK_WAIT);
    assert_int_equal(ingest_origin_epoch(world.ingest, origin), epoch);
    close_world(&world);
}

// The window swept everything of a stream and gives its origin to another one.
static void test_an_origin_that_changes_hands(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    world.two_zones = 1000;
    uint32_t first = ingest_name_origin(world.ingest, "other.4-0000beef");
    uint32_t epoch = ingest_origin_epoch(world.ingest, first), origin;
    assert_int_equal(verdict(&world, ACK_AZ2, first, 10), ACK_GIVE);
    ingest_note_older(world.ingest, first, "other.4-0000beef", UINT64_MAX);
    int64_t now_ns = sl_wall_ns();
    uint32_t counter = 5;
    do {
        char name[SPOOL_STREAM_ID_MAX];
        snprintf(name, sizeof(name), "other.%u-0000beef", counter++);
        now_ns += SL_NS_PER_S;
        dedupe_tick(world.dedupe, now_ns);
        origin = ingest_name_origin(world.ingest, name);
        assert_true(counter < 2000);
    } while (origin != first);
    assert_int_not_equal(ingest_origin_epoch(world.ingest, first), epoch);
    world.two_zones = 5;
    assert_int_equal(verdict(&world, ACK_AZ2, first, 10), ACK_WAIT);
    assert_int_equal(verdict(&world, ACK_KAFKA, first, 10), ACK_WAIT);
    close_world(&world);
}

static void append(struct record_buffer *records, uint64_t id, bool business)
{
    struct record record = {.kind = RECORD_EVENT,
                            .received_wall_ns = sl_wall_ns(),
                            .payload_hash = id << 32,
                            .has_business_hash = business,
                            .source = sl_span_of("s"),
                            .lane = sl_span_of("main"),
                            .topic = sl_span_of("t"),
                            .event_id = sl_span_of("e"),
                            .payload = sl_span_of("{}")};
    dedupe_id_store(&(struct dedupe_id){{id, id * UINT64_C(0x9e3779b97f4a7c15)}}, record.id_hash);
    dedupe_id_store(&(struct dedupe_id){{~id, id * UINT64_C(0x9e3779b97f4a7c15)}}, record.business_hash);
    assert_true(record_append(records, &record, NULL, 0));
}

static void expect_found(struct world *world, uint64_t id, uint64_t payload_hash, bool business, uint32_t origin,
                         uint64_t seq)
{
    struct dedupe_id key = {{business ? ~id : id, id * UINT64_C(0x9e3779b97f4a7c15)}};
    struct dedupe_found found;
    assert_int_equal(dedupe_look(world->dedupe, &key, payload_hash, &found), DEDUPE_DUPLICATE);
    assert_int_equal(found.state, DEDUPE_DURABLE);
    assert_int_equal(found.origin, origin);
    assert_int_equal(found.seq, seq);
}

static void test_ids_of_another_node(void **state)
{
    (void)state;
    struct world world;
    struct record_buffer records = {0};
    open_world(&world);
    append(&records, 100, false);
    append(&records, 0, false); // taken without dedupe: no id
    append(&records, 102, true);
    window_replica(&world.window, "other.4-0000beef", 40, 3, records.bytes, records.length);
    uint32_t origin = ingest_name_origin(world.ingest, "other.4-0000beef");
    expect_found(&world, 100, UINT64_C(100) << 32, false, origin, 40);
    expect_found(&world, 102, UINT64_C(102) << 32, false, origin, 42);
    expect_found(&world, 102, 102, true, origin, 42); // the business key's payload is the id
    struct dedupe_id none = {{0, 0}};
    struct dedupe_found found;
    assert_int_equal(dedupe_look(world.dedupe, &none, 0, &found), DEDUPE_NEW);
    // A snapshot of now has all of it: the stream was not here at the start. One that was, from what was read then.
    assert_int_equal(window_fed_through(&world.window, "other.4-0000beef", 0, false), 42);
    assert_int_equal(window_fed_through(&world.window, "other.4-0000beef", 39, true), 42);
    assert_int_equal(window_fed_through(&world.window, "other.4-0000beef", 38, true), 38);
    assert_int_equal(window_fed_through(&world.window, "other.5-0000beef", 7, true), 7);
    record_buffer_free(&records);
    close_world(&world);
}

// While the snapshot is loaded nothing is inserted: the spool is read afterwards, and until then nothing is covered.
static void test_ids_during_the_rebuild_are_noted(void **state)
{
    (void)state;
    struct world world;
    struct record_buffer records = {0};
    struct dedupe_id key = {{100, 100 * UINT64_C(0x9e3779b97f4a7c15)}};
    struct dedupe_found found;
    open_world(&world);
    world.window.live = false;
    append(&records, 100, false);
    window_replica(&world.window, "other.4-0000beef", 40, 1, records.bytes, records.length);
    window_replica(&world.window, "other.4-0000beef", 41, 1, records.bytes, records.length);
    assert_int_equal(dedupe_look(world.dedupe, &key, 0, &found), DEDUPE_NEW);
    assert_int_equal(world.window.fed_count, 1);
    assert_int_equal(world.window.fed[0].behind, 40);
    assert_int_equal(window_fed_through(&world.window, "other.4-0000beef", 39, true), 39);
    record_buffer_free(&records);
    close_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_ring),
        cmocka_unit_test(test_originals_elsewhere),
        cmocka_unit_test(test_an_origin_that_changes_hands),
        cmocka_unit_test(test_ids_of_another_node),
        cmocka_unit_test(test_ids_during_the_rebuild_are_noted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
