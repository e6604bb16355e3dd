// The parts of the drain that know nothing of Kafka: the progress record's bytes, the guard's verdicts, the table of
// errors, how long a transaction grows, how a refused record is found.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "produce/bisect.h"
#include "produce/errors.h"
#include "produce/guard.h"
#include "produce/progress.h"
#include "produce/sizing.h"
#include "produce/topics.h"

#define S INT64_C(1000000000)

// ---- progress record

static const struct progress sample = {
    .through = 0x0102030405060708,
    .claim = 3,
    .written_wall_ns = 1700000000000000001,
    .closed = true,
    .drainer = "gw-a1.42-7f3a",
    .open_count = 2,
    .open = {{5, 9}, {20, 20}},
};

static const uint8_t golden[] = {
    'S',  'L',  'P',  'G',                                                        // magic
    1,    1,    0,    0,                                                          // version, flags: closed
    8,    7,    6,    5,    4,    3,    2,    1,                                  // through
    3,    0,    0,    0,    0,    0,    0,    0,                                  // claim
    0x01, 0x00, 0x2a, 0x36, 0xfe, 0x9c, 0x97, 0x17,                               // written
    13,   'g',  'w',  '-',  'a',  '1',  '.',  '4',  '2', '-', '7', 'f', '3', 'a', // drainer
    2,    0,                                                                      // open ranges
    5,    0,    0,    0,    0,    0,    0,    0,    9,   0,   0,   0,   0,   0,   0, 0,
    20,   0,    0,    0,    0,    0,    0,    0,    20,  0,   0,   0,   0,   0,   0, 0,
};

static void test_progress_golden(void **state)
{
    (void)state;
    uint8_t bytes[PROGRESS_BYTES_MAX];
    size_t length = progress_encode(&sample, bytes);
    assert_int_equal(length, sizeof(golden) + 4);
    assert_memory_equal(bytes, golden, sizeof(golden));
    uint32_t crc;
    memcpy(&crc, bytes + sizeof(golden), 4);
    assert_int_equal(crc, sl_crc32c(golden, sizeof(golden)));
    struct progress read;
    struct sl_error err;
    assert_true(progress_decode(&read, bytes, length, &err));
    assert_int_equal(read.through, sample.through);
    assert_int_equal(read.claim, 3);
    assert_true(read.closed);
    assert_string_equal(read.drainer, sample.drainer);
    assert_int_equal(read.open_count, 2);
    assert_memory_equal(read.open, sample.open, 2 * sizeof(sample.open[0]));
}

static void test_progress_refuses(void **state)
{
    (void)state;
    uint8_t bytes[PROGRESS_BYTES_MAX];
    size_t length = progress_encode(&sample, bytes);
    struct progress read;
    struct sl_error err;
    for (size_t cut = 0; cut < length; cut++)
        assert_false(progress_decode(&read, bytes, cut, &err));
    for (size_t i = 0; i < length; i++) {
        bytes[i] ^= 0x10;
        assert_false(progress_decode(&read, bytes, length, &err));
        assert_int_equal(err.code, SL_E_CORRUPT);
        bytes[i] ^= 0x10;
    }
    assert_true(progress_decode(&read, bytes, length, &err));
}

static void reseal(uint8_t *bytes, size_t length)
{
    uint32_t crc = sl_crc32c(bytes, length - 4);
    memcpy(bytes + length - 4, &crc, 4);
}

// A checksum that fits does not make nonsense sensible.
static void test_progress_out_of_range(void **state)
{
    (void)state;
    struct progress read;
    struct sl_error err;
    uint8_t bytes[PROGRESS_BYTES_MAX + 16];
    size_t length = progress_encode(&sample, bytes);
    bytes[4] = 2; // version
    reseal(bytes, length);
    assert_false(progress_decode(&read, bytes, length, &err));
    assert_non_null(strstr(err.text, "version 2"));
    length = progress_encode(&sample, bytes);
    bytes[sizeof(golden) - 32] = 10; // first range 10..9
    reseal(bytes, length);
    assert_false(progress_decode(&read, bytes, length, &err));
    length = progress_encode(&sample, bytes);
    bytes[sizeof(golden) - 16] = 9; // second range begins inside the first
    reseal(bytes, length);
    assert_false(progress_decode(&read, bytes, length, &err));
    length = progress_encode(&sample, bytes) + 1; // a byte too many
    reseal(bytes, length);
    assert_false(progress_decode(&read, bytes, length, &err));
}

static void test_open_ranges(void **state)
{
    (void)state;
    struct progress progress = {0};
    assert_true(progress_open_add(&progress, 10, 12));
    assert_true(progress_open_add(&progress, 1, 3));
    assert_true(progress_open_add(&progress, 20, 30));
    assert_int_equal(progress.open_count, 3);
    assert_true(progress_open_add(&progress, 10, 12)); // again: nothing new
    assert_int_equal(progress.open_count, 3);
    assert_true(progress_open_add(&progress, 4, 4)); // touches the first
    assert_int_equal(progress.open_count, 3);
    assert_true(progress_open_add(&progress, 5, 19)); // joins all
    assert_int_equal(progress.open_count, 1);
    assert_int_equal(progress.open[0].first, 1);
    assert_int_equal(progress.open[0].last, 30);
    assert_true(progress_open_has(&progress, 30));
    assert_false(progress_open_has(&progress, 31));
    progress.open_count = 0;
    for (uint64_t i = 0; i < PROGRESS_OPEN_MAX; i++)
        assert_true(progress_open_add(&progress, 10 * i + 1, 10 * i + 2));
    assert_false(progress_open_add(&progress, 5, 5));
    assert_true(progress_open_add(&progress, 3, 3));
    uint8_t bytes[PROGRESS_BYTES_MAX];
    struct progress read;
    struct sl_error err;
    assert_true(progress_decode(&read, bytes, progress_encode(&progress, bytes), &err));
    assert_int_equal(read.open_count, PROGRESS_OPEN_MAX);
}

// Every union of ranges against a bitmap.
static void test_open_ranges_all(void **state)
{
    (void)state;
    uint64_t random = 42;
    for (int round = 0; round < 2000; round++) {
        struct progress progress = {0};
        bool wanted[64] = {false};
        for (int i = 0; i < 12; i++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            uint64_t first = 1 + (random >> 33) % 50, last = first + (random >> 45) % 6;
            assert_true(progress_open_add(&progress, first, last));
            for (uint64_t seq = first; seq <= last; seq++)
                wanted[seq] = true;
        }
        for (uint64_t seq = 1; seq < 64; seq++)
            assert_int_equal(progress_open_has(&progress, seq), wanted[seq]);
        for (uint32_t i = 1; i < progress.open_count; i++)
            assert_true(progress.open[i].first > progress.open[i - 1].last + 1);
    }
}

static void test_names(void **state)
{
    (void)state;
    char key[PROGRESS_KEY_MAX], node[SPOOL_NAME_MAX + 1];
    progress_key(key, "gw-a1.42-7f3a", "main");
    assert_string_equal(key, "gw-a1.42-7f3a/main");
    progress_node(node, "gw-a1.42-7f3a");
    assert_string_equal(node, "gw-a1");
    // The partition of a stream is part of the format: another version must look in the same place.
    assert_int_equal(progress_partition("gw-a1.42-7f3a"), sl_crc32c("gw-a1.42-7f3a", 13) % 16);
}

// ---- guard

static void test_guard_judges(void **state)
{
    (void)state;
    struct sl_error err = {0};
    struct guard none = {.lane = "main"}, known = {.through = 100, .topic_id = {1, 2}, .cluster_id = "abc"},
                 found = known;
    assert_true(guard_judge(&none, &found, &err));
    assert_true(guard_judge(&known, &found, &err));
    found.through = 99;
    assert_false(guard_judge(&known, &found, &err));
    assert_int_equal(err.code, SL_E_REFUSED);
    assert_non_null(strstr(err.text, "99"));
    found = known;
    found.topic_id[1] = 3;
    assert_false(guard_judge(&known, &found, &err));
    assert_non_null(strstr(err.text, "made again"));
    found.topic_id[0] = found.topic_id[1] = 0; // a broker that does not tell
    assert_true(guard_judge(&known, &found, &err));
    found = known;
    snprintf(found.cluster_id, sizeof(found.cluster_id), "other");
    assert_false(guard_judge(&known, &found, &err));
    assert_non_null(strstr(err.text, "other"));
}

static void test_guard_bytes(void **state)
{
    (void)state;
    struct guard guard = {
        .lane = "main", .through = 77, .topic_id = {0x1122334455667788, 9}, .cluster_id = "MkU3OEVBNTcwNTJENDM2Qg"};
    uint8_t bytes[GUARD_BYTES_MAX];
    size_t length = guard_encode(&guard, bytes);
    struct guard read;
    struct sl_error err;
    assert_true(guard_decode(&read, bytes, length, &err));
    assert_string_equal(read.lane, "main");
    assert_string_equal(read.cluster_id, guard.cluster_id);
    assert_int_equal(read.through, 77);
    assert_memory_equal(read.topic_id, guard.topic_id, sizeof(guard.topic_id));
    for (size_t i = 0; i < length; i++) {
        bytes[i] ^= 1;
        assert_false(guard_decode(&read, bytes, length, &err));
        bytes[i] ^= 1;
        assert_false(guard_decode(&read, bytes, i, &err));
    }
}

// ---- errors

static void test_errors_of_deliveries(void **state)
{
    (void)state;
    static const struct {
        rd_kafka_resp_err_t code;
        enum error_action action;
    } wanted[] = {
        {RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, ERROR_SUSPECT},
        {RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE, ERROR_SUSPECT},
        {RD_KAFKA_RESP_ERR_INVALID_RECORD, ERROR_SUSPECT},
        {RD_KAFKA_RESP_ERR_INVALID_MSG, ERROR_SUSPECT},
        {RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, ERROR_SUSPECT},
        {RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD, ERROR_INNOCENT},
        {RD_KAFKA_RESP_ERR__PURGE_QUEUE, ERROR_INNOCENT},
        {RD_KAFKA_RESP_ERR__PURGE_INFLIGHT, ERROR_INNOCENT},
        {RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, ERROR_HOLD},
        {RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, ERROR_HOLD},
        {RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, ERROR_HOLD},
        {RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, ERROR_HOLD},
        {RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND, ERROR_HOLD},
        {RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, ERROR_HOLD},
        {RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, ERROR_DENIED},
        {RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, ERROR_FENCED},
        {RD_KAFKA_RESP_ERR__FENCED, ERROR_FENCED},
        {RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, ERROR_REBUILD},
        {RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, ERROR_ABORT}, // not in the table
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        assert_int_equal(error_of_delivery(wanted[i].code), wanted[i].action);
}

static void test_errors_of_calls(void **state)
{
    (void)state;
    // An unknown outcome is never guessed.
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR__TIMED_OUT, false, false, false), ERROR_REBUILD);
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR_UNKNOWN, false, false, false), ERROR_REBUILD);
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR__STATE, false, false, false), ERROR_REBUILD);
    // librdkafka's flags decide what the table does not name.
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR_UNKNOWN, true, false, false), ERROR_REBUILD);
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR_UNKNOWN, false, true, false), ERROR_ABORT);
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR_UNKNOWN, false, false, true), ERROR_RETRY);
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, false, false, true), ERROR_RETRY);
    // A fencing is looked into, a permission is asked for, whatever the flags say.
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR__FENCED, true, false, false), ERROR_FENCED);
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, false, true, false), ERROR_FENCED);
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, true, false, false),
                     ERROR_DENIED);
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, false, true, false), ERROR_HOLD);
    // A fatal error is one, even where the code alone would only abort.
    assert_int_equal(error_of_call(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, true, false, false), ERROR_REBUILD);
}

// ---- sizing

static void test_sizing(void **state)
{
    (void)state;
    struct sizing sizing = {.time_ns = S / 2};
    assert_true(sizing_ripe(&sizing, 0, false)); // idle: at once
    assert_false(sizing_ripe(&sizing, 0, true)); // a backlog: grow
    assert_true(sizing_ripe(&sizing, S / 2, true));
    for (int i = 0; i < 30; i++)
        sizing_observe(&sizing, 100, S / 10); // 1,000/s
    assert_int_equal(sizing_least_ns(&sizing), 0);
    int64_t before = 0;
    for (uint64_t rate = 5000; rate <= 50000; rate += 5000) {
        for (int i = 0; i < 60; i++)
            sizing_observe(&sizing, rate / 10, S / 10);
        assert_true(sizing_least_ns(&sizing) > before); // more load, longer transactions
        before = sizing_least_ns(&sizing);
    }
    for (int i = 0; i < 60; i++)
        sizing_observe(&sizing, 10000, S / 10); // 100,000/s
    assert_int_equal(sizing_least_ns(&sizing), S / 2);
    assert_false(sizing_ripe(&sizing, S / 4, false));
    for (int i = 0; i < 60; i++)
        sizing_observe(&sizing, 1, S);
    assert_true(sizing_ripe(&sizing, 0, false)); // and short again when it is quiet
    sizing_observe(&sizing, 1000000, 0);         // a clock that stands still
    assert_true(sizing_least_ns(&sizing) <= S / 2);
}

// ---- bisect

// A topic that refuses some records, whole transactions at a time: how many transactions until all others are through?
static uint32_t drain_past(const bool *bad, uint64_t end, uint64_t batch)
{
    struct bisect bisect = {0};
    bool condemned[1001] = {false};
    uint32_t transactions = 0;
    for (uint64_t through = 0; through < end;) {
        assert_true(++transactions < 2000);
        uint64_t limit = bisect_limit(&bisect, through + 1), last = through + batch;
        assert_true(limit > through);
        last = last < limit ? last : limit;
        last = last < end ? last : end;
        bool refused = false;
        for (uint64_t seq = through + 1; seq <= last; seq++)
            refused |= bad[seq] && !condemned[seq];
        if (refused) {
            uint64_t seq = bisect_failed(&bisect, through + 1, last, last - through);
            assert_true(seq == 0 || bad[seq]);
            if (seq)
                condemned[seq] = true;
        } else {
            through = last;
            assert_false(bisect_succeeded(&bisect, through));
        }
    }
    for (uint64_t seq = 1; seq <= end; seq++)
        assert_int_equal(condemned[seq], bad[seq]);
    return transactions;
}

static void test_bisect_finds(void **state)
{
    (void)state;
    for (uint64_t culprit = 1; culprit <= 1000; culprit += 37) {
        bool bad[1001] = {false};
        bad[culprit] = true;
        uint32_t transactions = drain_past(bad, 1000, 1000);
        assert_true(transactions <= 25); // log2(1000) failures, as many successes, the rest
    }
    bool many[1001] = {false};
    many[1] = many[2] = many[499] = many[500] = many[1000] = true;
    drain_past(many, 1000, 1000);
    bool all[65];
    memset(all, 1, sizeof(all));
    all[0] = false;
    drain_past(all, 64, 64);
}

// A batch that is refused whole, each half of it taken: nobody is condemned, and the caller is told.
static void test_bisect_batch(void **state)
{
    (void)state;
    struct bisect bisect = {0};
    assert_int_equal(bisect_failed(&bisect, 11, 20, 10), 0);
    assert_int_equal(bisect_limit(&bisect, 5), 10);
    assert_false(bisect_succeeded(&bisect, 10));
    assert_int_equal(bisect_limit(&bisect, 11), 15);
    assert_false(bisect_succeeded(&bisect, 15));
    assert_int_equal(bisect_limit(&bisect, 16), 18);
    assert_false(bisect_succeeded(&bisect, 18));
    assert_int_equal(bisect_limit(&bisect, 19), 19);
    assert_false(bisect_succeeded(&bisect, 19));
    assert_true(bisect_succeeded(&bisect, 20));
    assert_false(bisect.active);
    assert_int_equal(bisect_limit(&bisect, 21), UINT64_MAX);
}

// ---- topics

static void test_topics(void **state)
{
    (void)state;
    char text[200];
    struct topic_view view = {.partitions = 6, .replication_factor = 3, .in_sync_least = 3, .min_insync_replicas = 2};
    assert_true(topic_judge(&view, "t", text, sizeof(text)));
    assert_string_equal(text, "");
    view.in_sync_least = 1;
    assert_false(topic_judge(&view, "t", text, sizeof(text)));
    assert_non_null(strstr(text, "not enough replicas"));
    view.in_sync_least = 2;
    view.leaderless = 1;
    assert_false(topic_judge(&view, "t", text, sizeof(text)));
    view.leaderless = 0;
    view.replication_factor = 1; // weak is told and taken
    assert_true(topic_judge(&view, "t", text, sizeof(text)));
    assert_non_null(strstr(text, "weaker"));
    view.replication_factor = 3;
    view.min_insync_replicas = 1;
    assert_true(topic_judge(&view, "t", text, sizeof(text)));
    assert_non_null(strstr(text, "weaker"));
    view.min_insync_replicas = -1; // not told
    assert_true(topic_judge(&view, "t", text, sizeof(text)));
    assert_string_equal(text, "");
    view.code = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    assert_false(topic_judge(&view, "t", text, sizeof(text)));
    assert_non_null(strstr(text, "does not exist"));
    view.code = RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    assert_false(topic_judge(&view, "t", text, sizeof(text)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress_golden),
        cmocka_unit_test(test_progress_refuses),
        cmocka_unit_test(test_progress_out_of_range),
        cmocka_unit_test(test_open_ranges),
        cmocka_unit_test(test_open_ranges_all),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_guard_judges),
        cmocka_unit_test(test_guard_bytes),
        cmocka_unit_test(test_errors_of_deliveries),
        cmocka_unit_test(test_errors_of_calls),
        cmocka_unit_test(test_sizing),
        cmocka_unit_test(test_bisect_finds),
        cmocka_unit_test(test_bisect_batch),
        cmocka_unit_test(test_topics),
    };
    return cmocka_run_group_tests_name("produce/pure", tests, NULL, NULL);
}
