#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "spool/replica.h"
#include "tests/produce/stand.h"

enum { PARTITIONS = 4 };
static const int64_t wait_ns = 180 * SL_NS_PER_S;

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

struct stand *stand_new(const struct produce_topic *topics)
{
    struct stand *stand = calloc(1, sizeof(*stand));
    assert_non_null(stand);
    snprintf(stand->dir, sizeof(stand->dir), "%s/sluice-produce-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/var/tmp");
    assert_non_null(mkdtemp(stand->dir));
    char text[200];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "log_level", "2", text, sizeof(text));
    stand->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
    assert_non_null(stand->rk);
    stand->cluster = rd_kafka_mock_cluster_new(stand->rk, 3);
    assert_non_null(stand->cluster);
    rd_kafka_mock_topic_create(stand->cluster, PROGRESS_TOPIC, PROGRESS_PARTITIONS, 3);
    for (; topics->name; topics++) {
        stand->topics[stand->topic_count++] = *topics;
        rd_kafka_mock_topic_create(stand->cluster, topics->name, PARTITIONS, 3);
    }
    return stand;
}

void stand_free(struct stand *stand)
{
    assert_null(stand->produce);
    assert_null(stand->spool);
    rd_kafka_mock_cluster_destroy(stand->cluster);
    rd_kafka_destroy(stand->rk);
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%s'", stand->dir);
    assert_int_equal(system(command), 0);
    free(stand);
}

static size_t list_lanes(const struct stand *stand, const char *lanes[STAND_TOPICS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < stand->topic_count; i++) {
        bool known = false;
        for (size_t k = 0; k < count; k++)
            known |= strcmp(lanes[k], stand->topics[i].lane) == 0;
        if (!known)
            lanes[count++] = stand->topics[i].lane;
    }
    return count;
}

void stand_open_spool(struct stand *stand)
{
    const char *lanes[STAND_TOPICS_MAX];
    size_t lane_count = list_lanes(stand, lanes);
    struct spool_options options = {.storage = &storage_posix,
                                    .dir = stand->dir,
                                    .node = "gw-t1",
                                    .segment_bytes = 4 << 20,
                                    .max_bytes = UINT64_C(1) << 30,
                                    .retain_ns = 3600 * SL_NS_PER_S,
                                    .prepared = 1,
                                    .append_bytes = 64 << 20,
                                    .lanes = lanes,
                                    .lane_count = lane_count};
    struct sl_error err;
    if (!spool_open(&stand->spool, &options, &err))
        fail_msg("open the spool: %s", err.text);
}

void stand_close_spool(struct stand *stand)
{
    struct sl_error err;
    if (!spool_close(stand->spool, &err))
        fail_msg("close the spool: %s", err.text);
    stand->spool = NULL;
}

void stand_start(struct stand *stand)
{
    const char *lanes[STAND_TOPICS_MAX];
    size_t lane_count = list_lanes(stand, lanes);
    struct produce_options options = {.spool = stand->spool,
                                      .node = "gw-t1",
                                      .cluster = "test",
                                      .brokers = rd_kafka_mock_cluster_bootstraps(stand->cluster),
                                      .properties = stand->properties,
                                      .property_count = stand->property_count,
                                      .transactional = !stand->idempotent,
                                      .transaction_time_ns = 200 * SL_NS_PER_MS,
                                      .queue_events = 5000,
                                      .queue_bytes = 4 << 20,
                                      .topics = stand->topics,
                                      .topic_count = stand->topic_count,
                                      .lanes = lanes,
                                      .lane_count = lane_count};
    struct sl_error err;
    if (!produce_start(&stand->produce, &options, &err))
        fail_msg("start the drain: %s", err.text);
}

void stand_stop(struct stand *stand, double seconds)
{
    produce_stop(stand->produce, seconds < 0 ? 0 : sl_monotonic_ns() + (int64_t)(seconds * 1e9));
    stand->produce = NULL;
}

static void on_done(struct spool_batch *batch)
{
    assert_int_equal(batch->outcome, SPOOL_SYNCED);
    record_buffer_free(&batch->records);
    free(batch);
}

static void submit(struct stand *stand, struct spool_batch *batch)
{
    batch->done = on_done;
    uint64_t wanted = spool_synced_seq(stand->spool) + batch->records.count;
    int64_t end_ns = sl_monotonic_ns() + wait_ns;
    assert_true(spool_submit(stand->spool, batch));
    while (spool_synced_seq(stand->spool) < wanted) {
        if (sl_monotonic_ns() > end_ns)
            fail_msg("records were not synced");
        nap();
    }
}

static void add(struct stand *stand, struct spool_batch *batch, size_t topic, enum record_kind kind, uint8_t flags,
                const void *payload, size_t length, uint32_t crc)
{
    char id[32], key[32];
    snprintf(id, sizeof(id), "e-%llu", (unsigned long long)stand->appended);
    snprintf(key, sizeof(key), "k-%llu", (unsigned long long)(stand->appended % 17));
    stand->appended++;
    struct record record = {.kind = kind,
                            .flags = flags,
                            .received_wall_ns = sl_wall_ns(),
                            .payload_crc = crc,
                            .source = sl_span_of("payments"),
                            .lane = sl_span_of(stand->topics[topic].lane),
                            .topic = sl_span_of(stand->topics[topic].name),
                            .event_id = sl_span_of(id),
                            .has_key = true,
                            .key = sl_span_of(key),
                            .payload = {.bytes = payload, .length = length}};
    struct record_header_field fields[] = {{sl_span_of("content-type"), sl_span_of("application/json")},
                                           {sl_span_of("sluice-error"), sl_span_of("no amount")}};
    assert_true(record_append(&batch->records, &record, fields, kind == RECORD_QUARANTINED && flags == 0 ? 2 : 1));
    batch->lane_counts[spool_lane_index(stand->spool, stand->topics[topic].lane)]++;
}

void stand_append(struct stand *stand, uint32_t count)
{
    struct spool_batch *batch = calloc(1, sizeof(*batch));
    assert_non_null(batch);
    for (uint32_t i = 0; i < count; i++) {
        char payload[200];
        int length = snprintf(payload, sizeof(payload), "{\"n\":%llu,\"pad\":\"%0100d\"}",
                              (unsigned long long)stand->appended, 7);
        add(stand, batch, i % stand->topic_count, RECORD_EVENT, 0, payload, (size_t)length,
            sl_crc32c(payload, (size_t)length));
    }
    submit(stand, batch);
}

struct copy {
    struct spool_store store;
    atomic_bool done;
};

static void on_stored(struct spool_store *store)
{
    atomic_store(&((struct copy *)(void *)store)->done, true);
}

void stand_store_copy(struct stand *stand, const char *stream, uint64_t first_seq, uint32_t count)
{
    struct spool_batch batch = {0};
    for (uint32_t i = 0; i < count; i++)
        add(stand, &batch, 0, RECORD_EVENT, 0, "{}", 2, sl_crc32c("{}", 2));
    struct copy copy = {.store = {.head = {.lane_count = 1, .lanes = {"main"}},
                                  .first_seq = first_seq,
                                  .count = count,
                                  .body = batch.records.bytes,
                                  .body_length = (uint32_t)batch.records.length,
                                  .new_base = true,
                                  .done = on_stored}};
    snprintf(copy.store.stream, sizeof(copy.store.stream), "%s", stream);
    int64_t end_ns = sl_monotonic_ns() + wait_ns;
    assert_true(spool_store(stand->spool, &copy.store));
    while (!atomic_load(&copy.done)) {
        if (sl_monotonic_ns() > end_ns)
            fail_msg("the copy was not stored");
        nap();
    }
    assert_int_equal(copy.store.outcome, SPOOL_SYNCED);
    record_buffer_free(&batch.records);
}

void stand_append_record(struct stand *stand, size_t topic, enum record_kind kind, const void *payload, size_t length,
                         uint32_t crc)
{
    struct spool_batch *batch = calloc(1, sizeof(*batch));
    assert_non_null(batch);
    add(stand, batch, topic, kind, 0, payload, length, crc);
    submit(stand, batch);
}

void stand_append_flagged(struct stand *stand, size_t topic, enum record_kind kind, uint8_t flags)
{
    struct spool_batch *batch = calloc(1, sizeof(*batch));
    assert_non_null(batch);
    add(stand, batch, topic, kind, flags, "{}", 2, sl_crc32c("{}", 2));
    submit(stand, batch);
}

struct produce_lane_status stand_lane(const struct stand *stand, const char *lane)
{
    struct produce_lane_status lanes[16];
    size_t count = produce_lanes(stand->produce, lanes, 16);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(lanes[i].lane, lane) == 0)
            return lanes[i];
    }
    fail_msg("no lane %s", lane);
    return lanes[0];
}

void stand_await_drained(struct stand *stand)
{
    int64_t end_ns = sl_monotonic_ns() + wait_ns;
    struct spool_figures figures;
    for (;;) {
        spool_figures(stand->spool, &figures);
        if (figures.pending_events == 0)
            break;
        if (sl_monotonic_ns() > end_ns) {
            struct produce_lane_status lane = stand_lane(stand, stand->topics[0].lane);
            fail_msg("%llu events are pending; lane %s is %s at %llu: %s", (unsigned long long)figures.pending_events,
                     lane.lane, produce_lane_state_word(lane.state), (unsigned long long)lane.committed_seq,
                     lane.trouble);
        }
        nap();
    }
    assert_int_equal(figures.conservation_error, 0);
}

void stand_await_waiting(struct stand *stand, const char *lane, bool waiting)
{
    int64_t end_ns = sl_monotonic_ns() + wait_ns;
    while ((stand_lane(stand, lane).waiting_since_ns != 0) != waiting) {
        if (sl_monotonic_ns() > end_ns)
            fail_msg("records of lane %s %s for a commit", lane, waiting ? "never wait" : "wait");
        nap();
    }
}

void stand_await_state(struct stand *stand, const char *lane, enum produce_lane_state state)
{
    int64_t end_ns = sl_monotonic_ns() + wait_ns;
    struct produce_lane_status status;
    while ((status = stand_lane(stand, lane)).state != state) {
        if (sl_monotonic_ns() > end_ns)
            fail_msg("lane %s is %s, not %s: %s", lane, produce_lane_state_word(status.state),
                     produce_lane_state_word(state), status.trouble);
        nap();
    }
}

// ---- reading back

static rd_kafka_t *new_reader(struct stand *stand)
{
    char text[200];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", rd_kafka_mock_cluster_bootstraps(stand->cluster), text, sizeof(text));
    rd_kafka_conf_set(conf, "enable.partition.eof", "true", text, sizeof(text));
    rd_kafka_conf_set(conf, "log_level", "2", text, sizeof(text));
    rd_kafka_conf_set(conf, "fetch.wait.max.ms", "20", text, sizeof(text));
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
    assert_non_null(rk);
    return rk;
}

static void take_header(const rd_kafka_headers_t *headers, const char *name, char *out, size_t size)
{
    const void *value;
    size_t length;
    out[0] = '\0';
    if (rd_kafka_header_get_last(headers, name, &value, &length) == RD_KAFKA_RESP_ERR_NO_ERROR)
        snprintf(out, size, "%.*s", (int)length, (const char *)value);
}

static void take_record(const rd_kafka_message_t *message, struct read_record *record)
{
    *record = (struct read_record){.partition = message->partition,
                                   .offset = message->offset,
                                   .length = message->len,
                                   .has_key = message->key != NULL};
    rd_kafka_headers_t *headers;
    assert_int_equal(rd_kafka_message_headers(message, &headers), RD_KAFKA_RESP_ERR_NO_ERROR);
    char seq[24];
    take_header(headers, "sluice-stream", record->stream, sizeof(record->stream));
    take_header(headers, "sluice-seq", seq, sizeof(seq));
    take_header(headers, "sluice-error", record->error, sizeof(record->error));
    take_header(headers, "sluice-business-duplicate", record->business_duplicate, sizeof(record->business_duplicate));
    take_header(headers, "sluice-source", record->source, sizeof(record->source));
    take_header(headers, "event_id", record->event_id, sizeof(record->event_id));
    record->seq = strtoull(seq, NULL, 10);
}

static int by_place(const void *a, const void *b)
{
    const struct read_record *x = a, *y = b;
    if (x->partition != y->partition)
        return x->partition < y->partition ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

struct read_record *stand_read(struct stand *stand, const char *topic, size_t *count)
{
    struct read_record *records = calloc(STAND_READ_MAX, sizeof(*records));
    assert_non_null(records);
    *count = 0;
    rd_kafka_t *rk = new_reader(stand);
    rd_kafka_topic_t *handle = rd_kafka_topic_new(rk, topic, NULL);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    for (int32_t partition = 0; partition < PARTITIONS; partition++)
        assert_int_equal(rd_kafka_consume_start_queue(handle, partition, RD_KAFKA_OFFSET_BEGINNING, queue), 0);
    int64_t end_ns = sl_monotonic_ns() + wait_ns;
    for (int ended = 0; ended < PARTITIONS;) {
        rd_kafka_message_t *message = rd_kafka_consume_queue(queue, 100);
        if (sl_monotonic_ns() > end_ns)
            fail_msg("%s: %d partitions do not end", topic, PARTITIONS - ended);
        if (!message)
            continue;
        assert_true(*count < STAND_READ_MAX);
        if (!message->err)
            take_record(message, &records[(*count)++]);
        ended += message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
        rd_kafka_message_destroy(message);
    }
    for (int32_t partition = 0; partition < PARTITIONS; partition++)
        rd_kafka_consume_stop(handle, partition);
    rd_kafka_queue_destroy(queue);
    rd_kafka_topic_destroy(handle);
    rd_kafka_destroy(rk);
    qsort(records, *count, sizeof(*records), by_place);
    return records;
}

size_t stand_check(const struct stand *stand, const struct read_record *records, size_t count, const char *stream,
                   uint64_t first, uint64_t last, uint64_t step)
{
    (void)stand;
    size_t *place = calloc(last + 1, sizeof(*place)); // 1-based index of each seq's last copy
    size_t copies = 0;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(records[i].stream, stream) != 0)
            continue;
        if (records[i].seq < first || records[i].seq > last || (records[i].seq - first) % step != 0)
            continue;
        copies += place[records[i].seq] != 0;
        place[records[i].seq] = i + 1;
    }
    size_t latest[PARTITIONS] = {0};
    for (uint64_t seq = first; seq <= last; seq += step) {
        if (!place[seq])
            fail_msg("seq %llu of %s is missing", (unsigned long long)seq, stream);
        const struct read_record *record = &records[place[seq] - 1];
        if (place[seq] < latest[record->partition])
            fail_msg("seq %llu of %s is out of order in partition %d", (unsigned long long)seq, stream,
                     (int)record->partition);
        latest[record->partition] = place[seq];
        assert_true(record->has_key);
    }
    free(place);
    return copies;
}

bool stand_read_progress(struct stand *stand, const char *stream, const char *lane, struct progress *progress)
{
    char key[PROGRESS_KEY_MAX];
    progress_key(key, stream, lane);
    rd_kafka_t *rk = new_reader(stand);
    rd_kafka_topic_t *handle = rd_kafka_topic_new(rk, PROGRESS_TOPIC, NULL);
    int32_t partition = progress_partition(stream);
    assert_int_equal(rd_kafka_consume_start(handle, partition, RD_KAFKA_OFFSET_BEGINNING), 0);
    bool found = false;
    int64_t end_ns = sl_monotonic_ns() + wait_ns;
    for (bool more = true; more && sl_monotonic_ns() < end_ns;) {
        rd_kafka_message_t *message = rd_kafka_consume(handle, partition, 1000);
        if (!message)
            continue;
        struct sl_error err;
        if (!message->err && message->key_len == strlen(key) && memcmp(message->key, key, message->key_len) == 0) {
            assert_true(progress_decode(progress, message->payload, message->len, &err));
            found = true;
        }
        more = message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF;
        rd_kafka_message_destroy(message);
    }
    rd_kafka_consume_stop(handle, partition);
    rd_kafka_topic_destroy(handle);
    rd_kafka_destroy(rk);
    return found;
}

void stand_write_progress(struct stand *stand, const char *stream, const char *lane, const struct progress *progress)
{
    uint8_t bytes[PROGRESS_BYTES_MAX];
    size_t length = progress_encode(progress, bytes);
    char key[PROGRESS_KEY_MAX], text[200];
    progress_key(key, stream, lane);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", rd_kafka_mock_cluster_bootstraps(stand->cluster), text, sizeof(text));
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
    assert_non_null(rk);
    assert_int_equal(
        rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(PROGRESS_TOPIC), RD_KAFKA_V_PARTITION(progress_partition(stream)),
                          RD_KAFKA_V_KEY(key, strlen(key)), RD_KAFKA_V_VALUE(bytes, length), RD_KAFKA_V_END),
        0);
    assert_int_equal(rd_kafka_flush(rk, 60000), 0);
    rd_kafka_destroy(rk);
}
