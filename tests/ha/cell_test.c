// Three cells in one process: the driver, real sessions on loopback, real spools on a real disk, and a model of Kafka.
// What the simulator shows of the core is not repeated; here the parts between it and the world are meant.
#include "ha/cell.h"
#include "tests/ha/model_kafka.h"

#include "base/clock.h"
#include "base/crc32c.h"
#include "spool/replica.h"

#include <dirent.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { NODES = 3, INCARNATIONS = 8 };
static const char *const names[NODES] = {"gw-a", "gw-b", "gw-c"};
static const char *const zones[NODES] = {"az-a", "az-b", "az-c"};
static const char *const lane = "main";

struct node {
    struct world *world;
    char dir[64];
    char stream[SPOOL_STREAM_ID_MAX]; // the first of this start
    struct cell *cell;
    struct spool *spool;
    struct model_client *client;
    uint64_t sent;
    _Atomic uint64_t peer_synced[INCARNATIONS], replicated, told, ids_given;
    _Atomic uint32_t incarnation;
    _Atomic bool damaged;
};
struct world {
    char dir[48];
    struct model_kafka *kafka;
    struct node nodes[NODES];
    uint16_t ports[NODES];
};

// ---- waiting: by condition; the limit is for a hung test

static void await_(bool (*true_of)(struct world *world, unsigned node, uint64_t value), struct world *world,
                   unsigned node, uint64_t value, const char *what)
{
    int64_t limit_ns = sl_monotonic_ns() + 120 * SL_NS_PER_S;
    while (!true_of(world, node, value)) {
        if (sl_monotonic_ns() > limit_ns)
            fail_msg("gw-%c: waited in vain for %s %llu", 'a' + (int)node, what, (unsigned long long)value);
        usleep(2000);
    }
}
#define await(condition, world, node, value) await_(condition, world, node, value, #condition)

static bool listens(struct world *world, unsigned node, uint64_t value)
{
    (void)value;
    return cell_port(world->nodes[node].cell) != 0;
}

static bool ready(struct world *world, unsigned node, uint64_t value)
{
    (void)value;
    return cell_ready(world->nodes[node].cell);
}

static bool peer_has(struct world *world, unsigned node, uint64_t seq)
{
    struct node *of = &world->nodes[node];
    return atomic_load(&of->peer_synced[atomic_load(&of->incarnation)]) >= seq;
}

static bool kafka_has(struct world *world, unsigned node, uint64_t count)
{
    return model_committed(world->kafka, world->nodes[node].stream) >= count;
}

static bool incarnation_is(struct world *world, unsigned node, uint64_t incarnation)
{
    return atomic_load(&world->nodes[node].incarnation) == incarnation;
}

static bool holds(struct world *world, unsigned node, const char *stream, uint64_t end)
{
    struct spool_stream_info info;
    return spool_stream_find(world->nodes[node].spool, stream, &info) && info.end_seq >= end;
}

static bool both_hold_first(struct world *world, unsigned node, uint64_t end)
{
    (void)node;
    return holds(world, 1, world->nodes[0].stream, end) && holds(world, 2, world->nodes[0].stream, end);
}

static bool second_zone(struct world *world, unsigned node, uint64_t yes)
{
    return cell_has_second_zone(world->nodes[node].cell) == (yes != 0);
}

// ---- a node

static void on_positions(void *user, uint32_t incarnation, uint64_t peer_synced)
{
    struct node *node = user;
    assert_true(incarnation < INCARNATIONS && peer_synced > atomic_load(&node->peer_synced[incarnation]));
    atomic_store(&node->peer_synced[incarnation], peer_synced);
}

static void on_incarnation(void *user, uint32_t incarnation, const char *stream)
{
    struct node *node = user;
    assert_string_equal(stream, spool_incarnation_id(node->spool, incarnation));
    atomic_store(&node->incarnation, incarnation);
}

static void on_replica(void *user, const char *stream, uint64_t first_seq, uint32_t count, const void *body,
                       size_t length)
{
    struct node *node = user;
    struct sl_reader reader = sl_reader_of(body, length);
    struct record record;
    char expected[160];
    for (uint64_t seq = first_seq; seq < first_seq + count; seq++) {
        snprintf(expected, sizeof(expected), "{\"of\":\"%.4s\",\"seq\":%llu}", stream, (unsigned long long)seq);
        bool same = record_next(&reader, &record) && record.payload.length == strlen(expected) &&
                    memcmp(record.payload.bytes, expected, strlen(expected)) == 0;
        if (!same)
            atomic_store(&node->damaged, true);
    }
    atomic_fetch_add(&node->replicated, count);
}

static bool wants_ids(void *user)
{
    (void)user;
    return true;
}

static void on_ids(void *user, const char *stream, const struct spool_ids_block *block, uint64_t in_kafka)
{
    struct node *node = user;
    (void)in_kafka;
    for (uint32_t i = 0; i < block->count; i++) {
        uint64_t seq;
        memcpy(&seq, block->entries[i].id_hash + 8, sizeof(seq));
        if (seq != block->first_seq + i || block->entries[i].id_hash[0] != (uint8_t)stream[3])
            atomic_store(&node->damaged, true);
    }
    atomic_fetch_add(&node->ids_given, block->count);
}

static void on_failed(void *user, const struct sl_error *err)
{
    (void)user;
    fail_msg("spool: %s", err->text);
}

static void make_cell(struct world *world, unsigned index, const char *cluster)
{
    struct node *node = &world->nodes[index];
    char addresses[NODES][32];
    struct cell_peer peers[CELL_PEERS_MAX];
    size_t count = 0;
    for (unsigned i = 0; i < NODES; i++) {
        snprintf(addresses[i], sizeof(addresses[i]), "127.0.0.1:%u", world->ports[i]);
        if (i != index)
            peers[count++] = (struct cell_peer){names[i], zones[i], addresses[i]};
    }
    struct sl_error err = {.text = ""};
    struct cell_options options = {.node = names[index],
                                   .zone = zones[index],
                                   .cluster = cluster,
                                   .peers = peers,
                                   .peer_count = count,
                                   .listen = addresses[index],
                                   .peer_wait_ns = 25 * SL_NS_PER_MS,
                                   .takeover_after_ns = SL_NS_PER_S,
                                   .turn_ns = SL_NS_PER_S / 2,
                                   .let_go_after_ns = 2 * SL_NS_PER_S,
                                   .order_wait_ns = 20 * SL_NS_PER_S,
                                   .replica_bytes = 8 << 20,
                                   .tap_bytes = 64 << 10,
                                   .kafka = model_client_table(node->client),
                                   .on_positions = on_positions,
                                   .on_incarnation = on_incarnation,
                                   .on_replica = on_replica,
                                   .wants_ids = wants_ids,
                                   .on_ids = on_ids,
                                   .user = node};
    if (!cell_new(&node->cell, &options, &err))
        fail_msg("%s", err.text);
}

// Of a pair the lesser name dials: nodes are started from the last to the first, so that ports are known.
static void start(struct world *world, unsigned index)
{
    struct node *node = &world->nodes[index];
    struct sl_error err = {.text = ""};
    node->world = world;
    node->client = model_client_new(world->kafka);
    make_cell(world, index, "test");
    char dir[sizeof(node->dir)];
    snprintf(dir, sizeof(dir), "%s/%s", world->dir, names[index]);
    memcpy(node->dir, dir, sizeof(dir));
    struct stat stat_of;
    bool fresh = stat(node->dir, &stat_of) != 0;
    struct spool_options spool = {.storage = &storage_posix,
                                  .dir = node->dir,
                                  .node = names[index],
                                  .segment_bytes = 1 << 20,
                                  .max_bytes = 256 << 20,
                                  .prepared = 1,
                                  .append_bytes = 16 << 20,
                                  .retain_ns = 3600 * SL_NS_PER_S,
                                  .ids_key_id = {1},
                                  .ids_window_ns = 3600 * SL_NS_PER_S,
                                  .lanes = &lane,
                                  .lane_count = 1,
                                  .on_failed = on_failed,
                                  .on_frame = cell_on_frame,
                                  .on_synced = cell_on_synced,
                                  .user = node->cell,
                                  .counter_min = cell_counter(node->cell, fresh && world->ports[0] != 0) + 1};
    if (!spool_open(&node->spool, &spool, &err))
        fail_msg("%s", err.text);
    snprintf(node->stream, sizeof(node->stream), "%s", spool_stream(node->spool));
    model_client_attach(node->client, node->cell, node->spool);
    node->sent = 0;
    atomic_store(&node->ids_given, 0);
    atomic_store(&node->incarnation, 0);
    for (size_t i = 0; i < INCARNATIONS; i++)
        atomic_store(&node->peer_synced[i], 0);
    if (!cell_start(node->cell, node->spool, &err))
        fail_msg("%s", err.text);
    await(listens, world, index, 0); // not before older streams are walked
    world->ports[index] = cell_port(node->cell);
}

// The way a process ends, but that its last frames are written: what the crash of a disk leaves is tests/spool's.
static void stop(struct world *world, unsigned index)
{
    struct node *node = &world->nodes[index];
    struct sl_error err;
    cell_stop(node->cell);
    cell_on_synced(node->cell, 0, 0); // as the spool may until it is closed
    model_client_free(node->client);
    bool closed = spool_close(node->spool, &err);
    cell_free(node->cell);
    node->cell = NULL;
    assert_true(closed);
}

struct batch {
    struct spool_batch batch;
    struct node *node;
};

static void told(struct spool_batch *batch)
{
    struct batch *sent = (struct batch *)(void *)batch;
    atomic_fetch_add(&sent->node->told, batch->records.count);
    record_buffer_free(&batch->records);
    free(sent);
}

static void append(struct world *world, unsigned index, uint32_t count)
{
    struct node *node = &world->nodes[index];
    struct batch *sent = calloc(1, sizeof(*sent));
    assert_non_null(sent);
    for (uint32_t i = 0; i < count; i++) {
        char payload[160];
        int length = snprintf(payload, sizeof(payload), "{\"of\":\"%s\",\"seq\":%llu}", names[index],
                              (unsigned long long)++node->sent);
        struct record record = {.kind = RECORD_EVENT,
                                .received_wall_ns = sl_wall_ns(),
                                .payload_crc = sl_crc32c(payload, (size_t)length),
                                .source = sl_span_of("test"),
                                .lane = sl_span_of(lane),
                                .topic = sl_span_of("test.events"),
                                .payload = {.bytes = payload, .length = (size_t)length}};
        record.id_hash[0] = (uint8_t)names[index][3];
        memcpy(record.id_hash + 8, &node->sent, sizeof(node->sent));
        assert_true(record_append(&sent->batch.records, &record, NULL, 0));
    }
    sent->batch.lane_counts[0] = count;
    sent->batch.done = told;
    sent->node = node;
    assert_true(spool_submit(node->spool, &sent->batch));
}

static int begin(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    assert_non_null(world);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    const char *top = getenv("TMPDIR");
    snprintf(world->dir, sizeof(world->dir), "%.20s/sluice-cell.XXXXXX", top != NULL ? top : "/tmp");
    assert_non_null(mkdtemp(world->dir));
    world->kafka = model_kafka_new();
    for (unsigned i = NODES; i-- > 0;)
        start(world, i);
    for (unsigned i = 0; i < NODES; i++)
        await(ready, world, i, 0);
    *state = world;
    return 0;
}

static void remove_tree(const char *path)
{
    char command[96];
    snprintf(command, sizeof(command), "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

static int end(void **state)
{
    struct world *world = *state;
    for (unsigned i = 0; i < NODES; i++)
        if (world->nodes[i].cell != NULL)
            stop(world, i);
    model_kafka_free(world->kafka);
    remove_tree(world->dir);
    free(world);
    return 0;
}

// ---- tests

static void peers_have_it_without_kafka(void **state)
{
    struct world *world = *state;
    model_kafka_reachable(world->kafka, false);
    for (unsigned i = 0; i < 200; i++)
        append(world, 0, 1 + i % 7);
    await(peer_has, world, 0, world->nodes[0].sent);
    await(both_hold_first, world, 0, world->nodes[0].sent);
    assert_false(atomic_load(&world->nodes[1].damaged) || atomic_load(&world->nodes[2].damaged));
    struct cell_status *status = calloc(1, sizeof(*status));
    assert_non_null(status);
    int64_t limit_ns = sl_monotonic_ns() + 120 * SL_NS_PER_S;
    do { // the answers of both peers, then nothing would be lost by anybody's death
        cell_status(world->nodes[0].cell, status);
        assert_true(sl_monotonic_ns() < limit_ns);
        sched_yield();
    } while (status->members[0].at_risk != 0 || status->members[1].lag_events != 0 || status->stream_count < 3);
    assert_int_equal(status->member_count, NODES);
    free(status);
}

// One that was away lacks more than memory holds: it is read from the disk.
static void a_peer_that_was_away_catches_up(void **state)
{
    struct world *world = *state;
    model_kafka_reachable(world->kafka, false);
    append(world, 0, 10);
    await(peer_has, world, 0, 10);
    stop(world, 2);
    for (unsigned i = 0; i < 300; i++)
        append(world, 0, 20);
    await(peer_has, world, 0, world->nodes[0].sent);
    start(world, 2);
    await(both_hold_first, world, 0, world->nodes[0].sent);
    assert_false(atomic_load(&world->nodes[2].damaged));
}

static void everything_is_drained_once(void **state)
{
    struct world *world = *state;
    for (unsigned i = 0; i < 100; i++)
        append(world, i % NODES, 5);
    for (unsigned i = 0; i < NODES; i++)
        await(kafka_has, world, i, world->nodes[i].sent);
    for (unsigned i = 0; i < NODES; i++)
        assert_int_equal(model_doubled(world->kafka, world->nodes[i].stream), 0);
}

// Its disk is gone, too: what peers hold is all there is.
// The model drains streams as wholes: what is looked at is that the new lane is claimed as well.
static bool lane_is_claimed(struct world *world, unsigned node, uint64_t lanes)
{
    struct cell_status *status = calloc(1, sizeof(*status));
    assert_non_null(status);
    cell_status(world->nodes[node].cell, status);
    uint64_t claimed = 0;
    for (uint32_t i = 0; i < status->stream_count; i++)
        for (uint32_t k = 0; status->streams[i].current && k < status->streams[i].lane_count; k++)
            claimed += status->streams[i].lanes[k].claim > 0;
    free(status);
    return claimed == lanes;
}

static void a_new_lane_is_drained(void **state)
{
    struct world *world = *state;
    struct sl_error err = {.text = ""};
    await(lane_is_claimed, world, 0, 1);
    if (!spool_declare_lane(world->nodes[0].spool, "second", &err))
        fail_msg("%s", err.text);
    await(lane_is_claimed, world, 0, 2);
}

static void a_dead_node_is_drained_by_a_peer(void **state)
{
    struct world *world = *state;
    model_kafka_reachable(world->kafka, false);
    for (unsigned i = 0; i < 50; i++)
        append(world, 0, 3);
    await(peer_has, world, 0, world->nodes[0].sent);
    await(both_hold_first, world, 0, world->nodes[0].sent);
    stop(world, 0);
    remove_tree(world->nodes[0].dir);
    model_kafka_reachable(world->kafka, true);
    await(kafka_has, world, 0, 150);
    assert_int_equal(model_doubled(world->kafka, world->nodes[0].stream), 0);
    char before[SPOOL_STREAM_ID_MAX];
    snprintf(before, sizeof(before), "%s", world->nodes[0].stream);
    start(world, 0);
    await(ready, world, 0, 0);
    // A new disk, and yet a later number: the peers were asked.
    assert_true(strtoull(strchr(world->nodes[0].stream, '.') + 1, NULL, 10) >
                strtoull(strchr(before, '.') + 1, NULL, 10));
    append(world, 0, 4);
    await(kafka_has, world, 0, 4);
    assert_int_equal(model_committed(world->kafka, before), 150);
    assert_int_equal(model_doubled(world->kafka, before), 0);
}

static bool ids_given(struct world *world, unsigned node, uint64_t count)
{
    return atomic_load(&world->nodes[node].ids_given) >= count;
}

// What is in Kafka is sent to nobody; its ids are, of the stream that is written now, too.
static void a_new_disk_learns_the_ids(void **state)
{
    struct world *world = *state;
    append(world, 0, 400);
    append(world, 1, 30);
    await(kafka_has, world, 0, 400);
    await(kafka_has, world, 1, 30);
    stop(world, 2);
    remove_tree(world->nodes[2].dir);
    append(world, 0, 100);
    await(kafka_has, world, 0, 500);
    start(world, 2);
    await(ready, world, 2, 0);
    await(ids_given, world, 2, 530);
    assert_false(atomic_load(&world->nodes[2].damaged));
}

static void a_restart_goes_on(void **state)
{
    struct world *world = *state;
    model_kafka_reachable(world->kafka, false);
    append(world, 1, 30);
    await(peer_has, world, 1, 30);
    char before[SPOOL_STREAM_ID_MAX];
    snprintf(before, sizeof(before), "%s", world->nodes[1].stream);
    stop(world, 1);
    start(world, 1);
    append(world, 1, 5);
    model_kafka_reachable(world->kafka, true);
    await(kafka_has, world, 1, 5);
    assert_int_equal(model_committed(world->kafka, before), 30);
    assert_int_equal(model_doubled(world->kafka, before), 0);
}

// Cut off from Kafka while peers reach it is what makes an owner let go; in this model all are cut off alike, so a
// rival's fence is played: another process claims the stream.
static void a_fenced_owner_goes_on_with_a_new_stream(void **state)
{
    struct world *world = *state;
    append(world, 0, 10);
    await(kafka_has, world, 0, 10);
    char first[SPOOL_STREAM_ID_MAX];
    snprintf(first, sizeof(first), "%s", world->nodes[0].stream);
    model_rival_claims(world->kafka, first, lane, world->nodes[1].stream);
    append(world, 0, 10); // into whichever stream is written by then
    await(incarnation_is, world, 0, 1);
    snprintf(world->nodes[0].stream, sizeof(world->nodes[0].stream), "%s",
             spool_incarnation_id(world->nodes[0].spool, 1));
    uint64_t in_first = model_committed(world->kafka, first);
    world->nodes[0].sent = spool_synced_seq(world->nodes[0].spool);
    append(world, 0, 7);
    await(peer_has, world, 0, 7);
    await(kafka_has, world, 0, 7);
    assert_true(in_first >= 10);
    assert_int_equal(model_doubled(world->kafka, first), 0);
}

static void a_peer_that_is_gone_is_noticed(void **state)
{
    struct world *world = *state;
    await(second_zone, world, 0, 1);
    stop(world, 1);
    stop(world, 2);
    await(second_zone, world, 0, 0);
    append(world, 0, 3);
    await(kafka_has, world, 0, 3);
    start(world, 2);
    start(world, 1);
    await(second_zone, world, 0, 1);
}

static bool alarmed(struct world *world, unsigned node, uint64_t yes)
{
    struct cell_status *status = calloc(1, sizeof(*status));
    assert_non_null(status);
    cell_status(world->nodes[node].cell, status);
    bool alarm = strstr(status->alarm, world->nodes[node].stream) != NULL;
    free(status);
    return alarm == (yes != 0);
}

static void the_alarm_lasts_as_long_as_its_cause(void **state)
{
    struct world *world = *state;
    append(world, 0, 10);
    await(kafka_has, world, 0, 10);
    const char *stream = world->nodes[0].stream;
    model_progress_is(world->kafka, stream, lane, 4);
    await(alarmed, world, 0, 1);
    append(world, 0, 5);
    await(peer_has, world, 0, 15);
    assert_int_equal(model_committed(world->kafka, stream), 10);
    model_progress_is(world->kafka, stream, lane, 10); // what a person decided
    await(alarmed, world, 0, 0);
    await(kafka_has, world, 0, 15);
    assert_int_equal(model_doubled(world->kafka, stream), 0);
}

// Marks of streams that were never heard of take every place in the core's table, until "empty" is recorded of them.
static void a_full_table_costs_no_stream(void **state)
{
    struct world *world = *state;
    append(world, 0, 10);
    await(peer_has, world, 0, 10);
    struct sl_error err = {.text = ""};
    const struct spool_marks fenced = {.fenced = true};
    for (unsigned i = 0; i < HA_STREAMS_MAX + 10; i++) {
        char stream[SPOOL_STREAM_ID_MAX];
        snprintf(stream, sizeof(stream), "gw-b.%u-%08x", 1000 + i, i);
        if (!spool_put_marks(world->nodes[0].spool, stream, &fenced, &err))
            fail_msg("%s", err.text);
    }
    stop(world, 0);
    start(world, 0);
    append(world, 0, 5);
    await(kafka_has, world, 0, 5);
    assert_int_equal(spool_incarnation(world->nodes[0].spool), 0);
    assert_int_equal(atomic_load(&world->nodes[0].incarnation), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(peers_have_it_without_kafka, begin, end),
        cmocka_unit_test_setup_teardown(a_peer_that_was_away_catches_up, begin, end),
        cmocka_unit_test_setup_teardown(everything_is_drained_once, begin, end),
        cmocka_unit_test_setup_teardown(a_new_lane_is_drained, begin, end),
        cmocka_unit_test_setup_teardown(a_dead_node_is_drained_by_a_peer, begin, end),
        cmocka_unit_test_setup_teardown(a_new_disk_learns_the_ids, begin, end),
        cmocka_unit_test_setup_teardown(a_restart_goes_on, begin, end),
        cmocka_unit_test_setup_teardown(a_fenced_owner_goes_on_with_a_new_stream, begin, end),
        cmocka_unit_test_setup_teardown(a_peer_that_is_gone_is_noticed, begin, end),
        cmocka_unit_test_setup_teardown(the_alarm_lasts_as_long_as_its_cause, begin, end),
        cmocka_unit_test_setup_teardown(a_full_table_costs_no_stream, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
