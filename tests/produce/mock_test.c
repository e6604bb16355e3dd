// The drain against librdkafka's mock cluster with injected errors. The mock shows the records of aborted transactions
// to every reader, so where an abort is part of the story the test asks for every record, in order of their last
// copies; where none is, for exactly one copy. Exactly once in full is shown against real brokers (real_brokers.py).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "tests/produce/stand.h"

static const struct produce_topic one_topic[] = {{"events", "main"}, {NULL, NULL}};
static const struct produce_topic two_lanes[] = {{"events", "main"}, {"other", "slow"}, {NULL, NULL}};

static struct stand *begin(const struct produce_topic *topics, uint32_t events)
{
    struct stand *stand = stand_new(topics);
    stand_open_spool(stand);
    if (events)
        stand_append(stand, events);
    return stand;
}

static void end(struct stand *stand)
{
    stand_stop(stand, 30);
    stand_close_spool(stand);
    stand_free(stand);
}

// Reads the topic and checks every step-th seq from first to last; returns the copies too many.
static size_t copies(struct stand *stand, const char *topic, uint64_t first, uint64_t last, uint64_t step)
{
    size_t count;
    struct read_record *records = stand_read(stand, topic, &count);
    size_t extra = stand_check(stand, records, count, spool_stream(stand->spool), first, last, step);
    free(records);
    return extra;
}

static void test_happy_path(void **state)
{
    (void)state;
    struct stand *stand = begin(two_lanes, 4000);
    stand_start(stand);
    stand_append(stand, 2000);
    stand_await_drained(stand);
    assert_int_equal(copies(stand, "events", 1, 5999, 2), 0);
    assert_int_equal(copies(stand, "other", 2, 6000, 2), 0);
    struct produce_topic_status topics[8];
    assert_int_equal(produce_topics(stand->produce, topics, 8), 2);
    assert_int_equal(topics[0].produced, 3000);
    assert_int_equal(topics[1].produced, 3000);
    assert_int_equal(topics[0].partitions, 4);
    assert_int_equal(histogram_count(produce_histogram(stand->produce)), 6000);
    assert_true(produce_connected(stand->produce));
    assert_int_equal(stand_lane(stand, "main").aborts, 0);
    assert_int_equal(produce_committed(stand->produce, "main"), stand_lane(stand, "main").committed_seq);
    stand_stop(stand, 30); // drains to the last seq, foreign records at the end included, and verifies
    struct spool_stream_info info;
    assert_int_equal(spool_streams(stand->spool, &info, 1), 1);
    for (uint32_t i = 0; i < info.lane_count; i++) {
        assert_int_equal(info.committed[i], 6000);
        assert_int_equal(info.verified[i], 6000);
        struct progress progress;
        assert_true(stand_read_progress(stand, info.id, info.lanes[i], &progress));
        assert_int_equal(progress.through, 6000);
        assert_int_equal(progress.claim, 1);
        assert_string_equal(progress.drainer, info.id);
    }
    stand_close_spool(stand);
    stand_free(stand);
}

static void push(struct stand *stand, int16_t api, rd_kafka_resp_err_t code, int times)
{
    for (int i = 0; i < times; i++)
        rd_kafka_mock_push_request_errors(stand->cluster, api, 1, code);
}

static void test_commit_is_retried(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 1000);
    push(stand, API_END_TXN, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, 2);
    push(stand, API_END_TXN, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, 2);
    push(stand, API_END_TXN, RD_KAFKA_RESP_ERR_NOT_COORDINATOR, 1);
    push(stand, API_ADD_PARTITIONS, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, 2);
    push(stand, API_INIT_PRODUCER_ID, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, 3);
    stand_start(stand);
    stand_await_drained(stand);
    assert_int_equal(copies(stand, "events", 1, 1000, 1), 0);
    assert_int_equal(stand_lane(stand, "main").producers, 1);
    end(stand);
}

// Every call of librdkafka's commit, so that a test can count them (linked with --wrap).
static _Atomic unsigned commit_calls, commit_failures;
rd_kafka_error_t *__real_rd_kafka_commit_transaction(rd_kafka_t *rk, int timeout_ms);
rd_kafka_error_t *__wrap_rd_kafka_commit_transaction(rd_kafka_t *rk, int timeout_ms);
rd_kafka_error_t *__wrap_rd_kafka_commit_transaction(rd_kafka_t *rk, int timeout_ms)
{
    commit_calls++;
    rd_kafka_error_t *error = __real_rd_kafka_commit_transaction(rk, timeout_ms);
    commit_failures += error != NULL;
    return error;
}

// A commit that is resumed after a timeout may be told done before it is (produce/commit.c).
static void test_a_slow_commit_is_one_call(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 0);
    stand_start(stand);
    stand_await_state(stand, "main", PRODUCE_FOLLOWING); // claimed
    commit_calls = commit_failures = 0;
    for (int32_t broker = 1; broker <= 3; broker++)
        rd_kafka_mock_broker_push_request_error_rtts(stand->cluster, broker, API_END_TXN, 1, RD_KAFKA_RESP_ERR_NO_ERROR,
                                                     1200);
    stand_append(stand, 100);
    stand_await_drained(stand);
    assert_int_equal(copies(stand, "events", 1, 100, 1), 0);
    assert_true(commit_calls >= 1);
    assert_int_equal(commit_failures, 0);
    assert_int_equal(stand_lane(stand, "main").producers, 1);
    end(stand);
}

// Errors that a commit may answer with after the claim: abort, new producer, or both; the events arrive all the same.
static void commit_fails_with(rd_kafka_resp_err_t code, bool fenced)
{
    struct stand *stand = begin(one_topic, 0);
    stand_start(stand);
    stand_await_state(stand, "main", PRODUCE_FOLLOWING); // claimed
    push(stand, API_END_TXN, code, 1);
    stand_append(stand, 1000);
    stand_await_drained(stand);
    size_t extra = copies(stand, "events", 1, 1000, 1);
    struct produce_lane_status lane = stand_lane(stand, "main");
    assert_true(lane.aborts >= 1);
    assert_true(extra <= 1000 * lane.aborts);
    assert_int_equal(lane.fenced >= 1, fenced);
    assert_true(!fenced || lane.producers >= 2);
    struct progress progress;
    assert_true(stand_read_progress(stand, spool_stream(stand->spool), "main", &progress));
    assert_int_equal(progress.claim, lane.producers); // each new producer claims again
    end(stand);
}

static void test_commit_fenced(void **state)
{
    (void)state;
    commit_fails_with(RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, true);
}

static void test_commit_mapping_lost(void **state)
{
    (void)state;
    commit_fails_with(RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING, false);
}

static void test_commit_bad_state(void **state)
{
    (void)state;
    commit_fails_with(RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, false);
}

// An abort, and then Kafka does not say where progress stands: what was aborted must come again, not be passed over.
static void test_progress_unreadable_after_abort(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 0);
    stand_start(stand);
    stand_await_state(stand, "main", PRODUCE_FOLLOWING);
    push(stand, API_PRODUCE, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, 1);
    push(stand, API_LIST_OFFSETS, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, 2);
    stand_append(stand, 1000);
    stand_await_drained(stand);
    copies(stand, "events", 1, 1000, 1);
    assert_true(stand_lane(stand, "main").aborts >= 1);
    end(stand);
}

static void test_produce_is_retried(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 3000);
    push(stand, API_PRODUCE, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, 3);
    push(stand, API_PRODUCE, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, 2);
    stand_start(stand);
    stand_await_drained(stand);
    assert_int_equal(copies(stand, "events", 1, 3000, 1), 0);
    end(stand);
}

// A batch refused once as too large: halves are taken, nobody is condemned, batches get smaller.
static void test_batch_too_large(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 0);
    stand_start(stand);
    stand_await_state(stand, "main", PRODUCE_FOLLOWING);
    push(stand, API_PRODUCE, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, 1);
    stand_append(stand, 2000);
    stand_await_drained(stand);
    copies(stand, "events", 1, 2000, 1);
    struct produce_lane_status lane = stand_lane(stand, "main");
    assert_int_equal(lane.dead_lettered, 0);
    assert_int_equal(lane.refused, 0);
    assert_true(lane.transactions > 3);
    end(stand);
}

// One record in one batch: refused by its topic it is dead-lettered, with everything an operator needs.
static void test_record_is_dead_lettered(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 0);
    rd_kafka_mock_topic_create(stand->cluster, "events.dlq", 4, 3);
    stand_start(stand);
    stand_await_state(stand, "main", PRODUCE_FOLLOWING);
    push(stand, API_PRODUCE, RD_KAFKA_RESP_ERR_INVALID_RECORD, 1);
    stand_append(stand, 1);
    stand_await_drained(stand);
    stand_append(stand, 99);
    stand_await_drained(stand);
    copies(stand, "events", 2, 100, 1);
    size_t count;
    struct read_record *dead = stand_read(stand, "events.dlq", &count);
    assert_int_equal(count, 1);
    assert_int_equal(dead[0].seq, 1);
    assert_string_equal(dead[0].event_id, "e-0");
    assert_string_equal(dead[0].source, "payments");
    assert_non_null(strstr(dead[0].error, "Broker"));
    free(dead);
    assert_int_equal(stand_lane(stand, "main").dead_lettered, 1);
    end(stand);
}

static uint64_t refused_files(const struct stand *stand)
{
    struct spool_figures figures;
    spool_figures(stand->spool, &figures);
    return figures.refused_records;
}

// Larger than librdkafka's own limit: the dead-letter topic cannot have it either.
static void test_record_is_refused(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 10);
    rd_kafka_mock_topic_create(stand->cluster, "events.dlq", 4, 3);
    stand->properties[stand->property_count++] = (struct produce_property){"message.max.bytes", "20000"};
    uint8_t *large = calloc(1, 30000);
    stand_append_record(stand, 0, RECORD_EVENT, large, 30000, sl_crc32c(large, 30000));
    free(large);
    stand_append(stand, 10);
    stand_start(stand);
    stand_await_drained(stand);
    assert_int_equal(copies(stand, "events", 1, 10, 1), 0);
    assert_int_equal(copies(stand, "events", 12, 21, 1), 0);
    assert_int_equal(stand_lane(stand, "main").refused, 1);
    assert_int_equal(refused_files(stand), 1);
    end(stand);
}

static void test_changed_payload_is_refused(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 5);
    stand_append_record(stand, 0, RECORD_EVENT, "{\"amount\":1}", 12, sl_crc32c("{\"amount\":2}", 12));
    stand_append(stand, 5);
    stand_start(stand);
    stand_await_drained(stand);
    size_t count;
    struct read_record *records = stand_read(stand, "events", &count);
    assert_int_equal(count, 10);
    free(records);
    assert_int_equal(refused_files(stand), 1);
    end(stand);
}

static void test_quarantined(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 5);
    rd_kafka_mock_topic_create(stand->cluster, "events.dlq", 4, 3);
    stand_append_record(stand, 0, RECORD_QUARANTINED, "{}", 2, sl_crc32c("{}", 2));
    stand_start(stand);
    stand_await_drained(stand);
    size_t count;
    struct read_record *dead = stand_read(stand, "events.dlq", &count);
    assert_int_equal(count, 1);
    assert_string_equal(dead[0].error, "no amount");
    assert_string_equal(dead[0].source, "payments");
    free(dead);
    end(stand);
}

// What was found when the event was looked up goes to Kafka: as a header, or as the cause of its quarantine.
static void test_flags(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 0);
    rd_kafka_mock_topic_create(stand->cluster, "events.dlq", 4, 3);
    stand_append_flagged(stand, 0, RECORD_EVENT, 0);
    stand_append_flagged(stand, 0, RECORD_EVENT, RECORD_FLAG_BUSINESS_DUPLICATE);
    stand_append_flagged(stand, 0, RECORD_QUARANTINED, RECORD_FLAG_CONFLICT);
    stand_append_flagged(stand, 0, RECORD_QUARANTINED, RECORD_FLAG_BUSINESS_QUARANTINE);
    stand_start(stand);
    stand_await_drained(stand);
    size_t count;
    struct read_record *records = stand_read(stand, "events", &count);
    assert_int_equal(count, 2);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(records[i].business_duplicate, records[i].seq == 2 ? "true" : "");
    free(records);
    struct read_record *dead = stand_read(stand, "events.dlq", &count);
    assert_int_equal(count, 2);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(
            dead[i].error, dead[i].seq == 3 ? "an event with this id and another payload was accepted before"
                                            : "an event with these business fields and another id was accepted before");
    free(dead);
    end(stand);
}

static void test_topic_in_trouble(void **state)
{
    (void)state;
    struct stand *stand = begin(two_lanes, 2000);
    // (Any other error comes from the mock with partitions, as from no real broker, and librdkafka 2.8 follows a null
    // pointer.)
    rd_kafka_mock_topic_set_error(stand->cluster, "other", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    stand_start(stand);
    stand_await_state(stand, "slow", PRODUCE_HELD);
    assert_string_equal(stand_lane(stand, "slow").trouble, "topic other does not exist");
    while (produce_committed(stand->produce, "main") < 1999) // the other lane does not notice
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    assert_int_equal(produce_committed(stand->produce, "slow"), 0);
    rd_kafka_mock_topic_set_error(stand->cluster, "other", RD_KAFKA_RESP_ERR_NO_ERROR);
    stand_await_drained(stand);
    assert_int_equal(copies(stand, "events", 1, 1999, 2), 0);
    assert_int_equal(copies(stand, "other", 2, 2000, 2), 0);
    end(stand);
}

// Somebody else's claim on the stream: let go, whatever is left to drain.
static void test_rival(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 500);
    stand_start(stand);
    stand_await_drained(stand);
    struct progress claim = {.through = 500, .claim = 9, .drainer = "gw-b1.7-cafe"};
    stand_write_progress(stand, spool_stream(stand->spool), "main", &claim);
    // Fenced at the first step of the next transaction, before the mock has records of it that it would show.
    push(stand, API_ADD_PARTITIONS, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, 1);
    stand_append(stand, 500);
    stand_await_state(stand, "main", PRODUCE_STOPPED);
    struct produce_lane_status lane = stand_lane(stand, "main");
    assert_non_null(strstr(lane.trouble, "taken over by gw-b1.7-cafe"));
    assert_int_equal(lane.committed_seq, 500);
    assert_int_equal(lane.producers, 1); // the rival was not fenced in its turn
    end(stand);
}

static void test_restarts(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 700);
    char streams[3][SPOOL_STREAM_ID_MAX];
    for (int i = 0; i < 3; i++) {
        snprintf(streams[i], sizeof(streams[i]), "%s", spool_stream(stand->spool));
        if (i == 0) { // one stream is drained by its own process, the others by a later one
            stand_start(stand);
            stand_stop(stand, 30);
        }
        stand_close_spool(stand);
        stand_open_spool(stand);
        stand_append(stand, 300);
    }
    stand_start(stand);
    stand_await_drained(stand);
    size_t count;
    struct read_record *records = stand_read(stand, "events", &count);
    assert_int_equal(count, 700 + 3 * 300);
    assert_int_equal(stand_check(stand, records, count, streams[0], 1, 700, 1), 0);
    assert_int_equal(stand_check(stand, records, count, streams[1], 1, 300, 1), 0);
    assert_int_equal(stand_check(stand, records, count, streams[2], 1, 300, 1), 0);
    assert_int_equal(stand_check(stand, records, count, spool_stream(stand->spool), 1, 300, 1), 0);
    // Streams of a node follow each other in every partition.
    for (size_t i = 1; i < count; i++) {
        if (records[i].partition == records[i - 1].partition)
            assert_true(strcmp(records[i - 1].stream, records[i].stream) <= 0); // counters 1..4
    }
    free(records);
    struct progress progress;
    assert_true(stand_read_progress(stand, streams[1], "main", &progress));
    assert_true(progress.closed);
    assert_int_equal(progress.through, 300);
    end(stand);
}

static void test_kafka_away_at_start(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 100);
    for (int32_t broker = 1; broker <= 3; broker++)
        rd_kafka_mock_broker_set_down(stand->cluster, broker);
    stand_start(stand);
    stand_append(stand, 100);
    stand_await_state(stand, "main", PRODUCE_CONNECTING);
    assert_false(produce_connected(stand->produce));
    for (int32_t broker = 1; broker <= 3; broker++)
        rd_kafka_mock_broker_set_up(stand->cluster, broker);
    stand_await_drained(stand);
    assert_int_equal(copies(stand, "events", 1, 200, 1), 0);
    end(stand);
}

static void test_what_waits_for_a_commit(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 100);
    stand_start(stand);
    stand_await_drained(stand);
    stand_await_waiting(stand, "main", false);
    for (int32_t broker = 1; broker <= 3; broker++)
        rd_kafka_mock_broker_set_down(stand->cluster, broker);
    stand_append(stand, 100);
    stand_await_waiting(stand, "main", true);
    for (int32_t broker = 1; broker <= 3; broker++)
        rd_kafka_mock_broker_set_up(stand->cluster, broker);
    stand_await_drained(stand);
    stand_await_waiting(stand, "main", false);
    end(stand);
}

static void test_stop_at_once(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 20000);
    for (int32_t broker = 1; broker <= 3; broker++)
        rd_kafka_mock_broker_set_down(stand->cluster, broker);
    stand_start(stand);
    int64_t start_ns = sl_monotonic_ns();
    stand_stop(stand, -1);
    // No deadline is asserted; a stop that waited for Kafka would never have come back.
    printf("    stopped in %.3f s\n", (double)(sl_monotonic_ns() - start_ns) / 1e9);
    struct spool_figures figures;
    spool_figures(stand->spool, &figures);
    assert_int_equal(figures.pending_events, 20000);
    stand_close_spool(stand);
    stand_free(stand);
}

static void test_idempotent(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 3000);
    stand->idempotent = true;
    stand_start(stand);
    stand_await_drained(stand);
    assert_int_equal(copies(stand, "events", 1, 3000, 1), 0);
    end(stand);
}

static void test_bad_property(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 0);
    static const struct produce_property bad[] = {
        {"no.such.property", "1"}, {"linger.ms", "x"}, {"compression.type", "zip"}, {"message.timeout.ms", "999999"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *lane = "main";
        struct produce_options options = {.spool = stand->spool,
                                          .node = "gw-t1",
                                          .cluster = "test",
                                          .brokers = "127.0.0.1:1",
                                          .properties = &bad[i],
                                          .property_count = 1,
                                          .transactional = true,
                                          .transaction_time_ns = SL_NS_PER_S,
                                          .queue_events = 1000,
                                          .queue_bytes = 1 << 20,
                                          .lanes = &lane,
                                          .lane_count = 1};
        struct sl_error err = {0};
        assert_false(produce_start(&stand->produce, &options, &err));
        assert_int_equal(err.code, SL_E_CONFIG);
        assert_non_null(strstr(err.text, bad[i].name));
    }
    stand->produce = NULL;
    stand_close_spool(stand);
    stand_free(stand);
}

// The embedded cluster is another one at each start; what was verified is not produced again, what was not is.
static void test_embedded(void **state)
{
    (void)state;
    struct stand *stand = begin(one_topic, 0);
    for (int round = 0; round < 2; round++) {
        const char *lane = "main";
        struct produce_options options = {.spool = stand->spool,
                                          .node = "gw-t1",
                                          .cluster = "test",
                                          .embedded_partitions = 4,
                                          .transactional = true,
                                          .transaction_time_ns = SL_NS_PER_S,
                                          .queue_events = 1000,
                                          .queue_bytes = 1 << 20,
                                          .topics = stand->topics,
                                          .topic_count = 1,
                                          .lanes = &lane,
                                          .lane_count = 1};
        struct sl_error err;
        stand_append(stand, 100);
        assert_true(produce_start(&stand->produce, &options, &err));
        assert_non_null(strchr(produce_brokers(stand->produce), ':'));
        stand_await_drained(stand);
        stand_append(stand, 100);
        stand_await_drained(stand);
        stand_stop(stand, 30);
    }
    struct spool_figures figures;
    spool_figures(stand->spool, &figures);
    assert_int_equal(figures.committed_events, 400);
    stand_close_spool(stand);
    stand_free(stand);
}

int main(void)
{
    sl_log_configure(false, SL_WARN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_happy_path),
        cmocka_unit_test(test_commit_is_retried),
        cmocka_unit_test(test_a_slow_commit_is_one_call),
        cmocka_unit_test(test_commit_fenced),
        cmocka_unit_test(test_commit_mapping_lost),
        cmocka_unit_test(test_commit_bad_state),
        cmocka_unit_test(test_progress_unreadable_after_abort),
        cmocka_unit_test(test_produce_is_retried),
        cmocka_unit_test(test_batch_too_large),
        cmocka_unit_test(test_record_is_dead_lettered),
        cmocka_unit_test(test_record_is_refused),
        cmocka_unit_test(test_changed_payload_is_refused),
        cmocka_unit_test(test_quarantined),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_topic_in_trouble),
        cmocka_unit_test(test_rival),
        cmocka_unit_test(test_restarts),
        cmocka_unit_test(test_kafka_away_at_start),
        cmocka_unit_test(test_what_waits_for_a_commit),
        cmocka_unit_test(test_stop_at_once),
        cmocka_unit_test(test_idempotent),
        cmocka_unit_test(test_bad_property),
        cmocka_unit_test(test_embedded),
    };
    return cmocka_run_group_tests_name("produce/mock", tests, NULL, NULL);
}
