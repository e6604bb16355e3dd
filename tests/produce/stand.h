// A spool in a temporary directory, a mock cluster whose errors the test injects, a drain between them, and a reader.
// One thread. Every wait has a deadline; a wait that fails prints what did not happen and fails the test.
#ifndef SLUICE_TESTS_PRODUCE_STAND_H
#define SLUICE_TESTS_PRODUCE_STAND_H

#include "produce/produce.h"
#include "produce/progress.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    API_PRODUCE = 0,
    API_LIST_OFFSETS = 2,
    API_METADATA = 3,
    API_INIT_PRODUCER_ID = 22,
    API_ADD_PARTITIONS = 24,
    API_END_TXN = 26
};
enum { STAND_TOPICS_MAX = 4, STAND_READ_MAX = 200000 };

struct stand {
    char dir[200];
    struct spool *spool;
    struct produce *produce;
    rd_kafka_t *rk; // carries the cluster
    rd_kafka_mock_cluster_t *cluster;
    struct produce_topic topics[STAND_TOPICS_MAX];
    size_t topic_count;
    struct produce_property properties[4];
    size_t property_count;
    bool idempotent;
    uint64_t appended; // counter of the next event
};

struct read_record {
    int32_t partition;
    int64_t offset;
    char stream[SPOOL_STREAM_ID_MAX];
    uint64_t seq;
    char error[100]; // sluice-error
    char source[64]; // sluice-source
    char business_duplicate[8];
    char event_id[64];
    size_t length;
    bool has_key;
};

// The cluster, with the topics, and a directory. topics ends with a NULL name.
struct stand *stand_new(const struct produce_topic *topics);
void stand_free(struct stand *stand);
void stand_open_spool(struct stand *stand);
void stand_close_spool(struct stand *stand);
void stand_start(struct stand *stand);
// produce_stop; seconds < 0: at once.
void stand_stop(struct stand *stand, double seconds);
// Durable when it returns. Event i of the batch goes to topics[i % topic_count], to its lane.
void stand_append(struct stand *stand, uint32_t count);
// One record, as given but for source, lane (of the topic), times.
void stand_append_record(struct stand *stand, size_t topic, enum record_kind kind, const void *payload, size_t length,
                         uint32_t crc);
// One record with flags of enum record_flags; a quarantined one brings no cause of its own then.
void stand_append_flagged(struct stand *stand, size_t topic, enum record_kind kind, uint8_t flags);
// A copy of one of this node's older streams as a peer gives it back: seqs from first_seq on, of topic 0, durable when
// it returns.
void stand_store_copy(struct stand *stand, const char *stream, uint64_t first_seq, uint32_t count);
struct produce_lane_status stand_lane(const struct stand *stand, const char *lane);
void stand_await_drained(struct stand *stand);
void stand_await_state(struct stand *stand, const char *lane, enum produce_lane_state state);
// Until records of the lane wait for a commit, or none do.
void stand_await_waiting(struct stand *stand, const char *lane, bool waiting);
// Everything in the topic, as the mock shows it, sorted by partition and offset; aborted records are among it. *count
// of them.
struct read_record *stand_read(struct stand *stand, const char *topic, size_t *count);
// Each of seqs first..last of the current stream is there, in order within its partition when each one's last copy
// counts. Returns how many copies too many there are.
size_t stand_check(const struct stand *stand, const struct read_record *records, size_t count, const char *stream,
                   uint64_t first, uint64_t last, uint64_t step);
// The last progress record of the stream and lane; false: none.
bool stand_read_progress(struct stand *stand, const char *stream, const char *lane, struct progress *progress);
// As a rival or a peer writes it; it is in Kafka when this returns.
void stand_write_progress(struct stand *stand, const char *stream, const char *lane, const struct progress *progress);

#endif
