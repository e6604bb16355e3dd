// The schema, as data: every key there is, what it may be, its default, and where its value goes. docs/configuration.md
// describes the same keys; a test holds the two together.
#include "gateway/config_internal.h"

#define KIB       UINT64_C(1024)
#define MIB       (1024 * KIB)
#define GIB       (1024 * MIB)
#define TIB       (1024 * GIB)
#define MS        UINT64_C(1000000)
#define SECOND    (1000 * MS)
#define MINUTE    (60 * SECOND)
#define HOUR      (60 * MINUTE)
#define DAY       (24 * HOUR)
#define IN(field) .offset = offsetof(struct config, field), .width = sizeof(((struct config *)0)->field)
#define OF(field) .offset = offsetof(struct config_source, field), .width = sizeof(((struct config_source *)0)->field)

static const struct config_word ack_words[] = {
    {"disk", ACK_DISK, false}, {"kafka", ACK_KAFKA, false}, {"az2", ACK_AZ2, false}, {0}};
static const struct config_word mode_words[] = {{"transactional", true, false}, {"idempotent", false, false}, {0}};
static const struct config_word proxy_words[] = {
    {"off", PROXY_OFF, false}, {"v1", PROXY_V1, false}, {"v2", PROXY_V2, false}, {0}};
static const struct config_word format_words[] = {{"json", true, false}, {"text", false, false}, {0}};
static const struct config_word level_words[] = {
    {"debug", SL_DEBUG, false}, {"info", SL_INFO, false}, {"warn", SL_WARN, false}, {"error", SL_ERROR, false}, {0}};
static const struct config_word truth_words[] = {{"true", true, false},
                                                 {"false", false, false},
                                                 {"on", true, false},
                                                 {"off", false, false},
                                                 {"yes", true, false},
                                                 {"no", false, false},
                                                 {0}};
static const struct config_word priority_words[] = {
    {"high", PRIORITY_HIGH, false}, {"normal", PRIORITY_NORMAL, false}, {"low", PRIORITY_LOW, false}, {0}};
static const struct config_word invalid_words[] = {{"reject", 0, false}, {"quarantine", 1, true}, {0}};
static const struct config_word conflict_words[] = {
    {"reject", CONFLICT_REJECT, false}, {"quarantine", CONFLICT_QUARANTINE, false}, {0}};
static const struct config_word business_words[] = {
    {"flag", BUSINESS_FLAG, false}, {"quarantine", BUSINESS_QUARANTINE, false}, {"drop", BUSINESS_DROP, false}, {0}};
static const struct config_word drift_words[] = {
    {"accept", 0, false}, {"quarantine", 1, true}, {"reject", 2, true}, {0}};

// clang-format off
static const struct config_key main_keys[] = {
    {.path = "node.name", .kind = CONFIG_KIND_NAME, IN(node_name),
     .required = "a name that no other gateway of the cluster has"},
    {.path = "node.zone", .kind = CONFIG_KIND_NAME, IN(node_zone), .fallback = "default"},
    {.path = "node.cluster", .kind = CONFIG_KIND_NAME, IN(node_cluster), .fallback = "default"},

    {.path = "listen.ingest", .kind = CONFIG_KIND_LISTENERS, IN(listen.ingest), .fallback = "127.0.0.1:8080"},
    {.path = "listen.admin", .kind = CONFIG_KIND_ADMIN, IN(listen.admin), .fallback = "127.0.0.1:9464"},
    {.path = "listen.proxy_protocol", .kind = CONFIG_KIND_WORD, IN(listen.proxy_protocol), .words = proxy_words,
     .fallback = "off"},
    {.path = "listen.threads", .kind = CONFIG_KIND_COUNT, IN(listen.threads), .least = 1, .most = 64,
     .computed = "half the processors, at least 1"},

    {.path = "tls.certificate", .kind = CONFIG_KIND_FILE, IN(tls.certificate_file)},
    {.path = "tls.key", .kind = CONFIG_KIND_FILE, IN(tls.key_file)},
    {.path = "tls.client_ca", .kind = CONFIG_KIND_UNSUPPORTED},

    {.path = "kafka.brokers", .kind = CONFIG_KIND_BROKERS, IN(kafka.brokers),
     .required = "brokers such as b1:9092,b2:9092, or embedded"},
    {.path = "kafka.properties", .kind = CONFIG_KIND_PROPERTIES, IN(kafka.properties)},
    {.path = "kafka.mode", .kind = CONFIG_KIND_WORD, IN(kafka.transactional), .words = mode_words,
     .fallback = "transactional"},
    {.path = "kafka.embedded_partitions", .kind = CONFIG_KIND_COUNT, IN(kafka.embedded_partitions),
     .least = 4, .most = 64, .fallback = "4"},

    {.path = "spool.dir", .kind = CONFIG_KIND_DIRECTORY, IN(spool.dir), .fallback = "/var/lib/sluice"},
    {.path = "spool.segment", .kind = CONFIG_KIND_SIZE, IN(spool.segment_bytes), .least = MIB, .most = 4 * GIB,
     .multiple = 4096, .fallback = "256MiB"},
    {.path = "spool.max", .kind = CONFIG_KIND_SIZE, IN(spool.max_bytes), .least = 4 * MIB, .most = 1024 * TIB,
     .fallback = "100GiB"},
    {.path = "spool.retain", .kind = CONFIG_KIND_DURATION, IN(spool.retain_ns), .most = 3650 * DAY, .fallback = "24h"},
    {.path = "spool.prepared", .kind = CONFIG_KIND_COUNT, IN(spool.prepared), .least = 1, .most = 16, .fallback = "2"},
    {.path = "spool.archive_command", .kind = CONFIG_KIND_UNSUPPORTED},
    {.path = "spool.encryption_key", .kind = CONFIG_KIND_UNSUPPORTED},

    {.path = "dedupe.window", .kind = CONFIG_KIND_DURATION, IN(dedupe.window_ns), .most = 30 * DAY, .fallback = "24h"},
    {.path = "dedupe.memory", .kind = CONFIG_KIND_SIZE, IN(dedupe.memory_bytes), .least = 2 * MIB, .most = 64 * GIB,
     .fallback = "1GiB"},
    {.path = "dedupe.key_file", .kind = CONFIG_KIND_DIRECTORY, IN(dedupe.key_file),
     .computed = "dedupe.key in spool.dir"},
    {.path = "dedupe.snapshot_every", .kind = CONFIG_KIND_DURATION, IN(dedupe.snapshot_every_ns), .least = SECOND,
     .most = DAY, .fallback = "10m"},

    {.path = "ha.ack", .kind = CONFIG_KIND_WORD, IN(ha.ack), .words = ack_words,
     .computed = "az2 with peers, else disk"},
    {.path = "ha.ack_timeout", .kind = CONFIG_KIND_DURATION, IN(ha.ack_timeout_ns), .least = 10 * MS,
     .most = 5 * MINUTE, .fallback = "5s"},
    {.path = "ha.tls", .kind = CONFIG_KIND_PEER_TLS, IN(ha.tls)},
    {.path = "ha.listen", .kind = CONFIG_KIND_ADDRESS, IN(ha.listen)},
    {.path = "ha.peers", .kind = CONFIG_KIND_PEERS, IN(ha.peers)},
    {.path = "ha.peer_wait", .kind = CONFIG_KIND_DURATION, IN(ha.peer_wait_ns), .least = MS, .most = MINUTE,
     .fallback = "25ms"},
    {.path = "ha.takeover_after", .kind = CONFIG_KIND_DURATION, IN(ha.takeover_after_ns), .least = SECOND,
     .most = HOUR, .fallback = "5s"},
    {.path = "ha.turn", .kind = CONFIG_KIND_DURATION, IN(ha.turn_ns), .least = 100 * MS, .most = MINUTE,
     .fallback = "2s"},
    {.path = "ha.let_go_after", .kind = CONFIG_KIND_DURATION, IN(ha.let_go_after_ns), .least = SECOND, .most = HOUR,
     .fallback = "30s"},
    {.path = "ha.order_wait", .kind = CONFIG_KIND_DURATION, IN(ha.order_wait_ns), .least = SECOND, .most = DAY,
     .fallback = "60s"},
    {.path = "ha.replica_bytes", .kind = CONFIG_KIND_SIZE, IN(ha.replica_bytes), .least = MIB, .most = 64 * GIB,
     .fallback = "64MiB"},

    {.path = "sources", .kind = CONFIG_KIND_DIRECTORY, IN(sources_dir), .fallback = "sources/", .reload = true},

    {.path = "log.format", .kind = CONFIG_KIND_WORD, IN(log.json), .words = format_words, .fallback = "json"},
    {.path = "log.level", .kind = CONFIG_KIND_WORD, IN(log.level), .words = level_words, .fallback = "info"},
    {.path = "log.core_dumps", .kind = CONFIG_KIND_WORD, IN(log.core_dumps), .words = truth_words, .fallback = "false"},

    {.path = "drain.accept_for", .kind = CONFIG_KIND_DURATION, IN(drain.accept_for_ns), .most = HOUR, .fallback = "5s"},
    {.path = "drain.timeout", .kind = CONFIG_KIND_DURATION, IN(drain.timeout_ns), .least = 100 * MS, .most = DAY,
     .fallback = "45s"},

    {.path = "limits.body", .kind = CONFIG_KIND_SIZE, IN(limits.http.body_bytes), .least = KIB, .most = GIB,
     .fallback = "16MiB"},
    {.path = "limits.decoded", .kind = CONFIG_KIND_SIZE, IN(limits.decoded_bytes), .least = KIB, .most = GIB,
     .fallback = "16MiB"},
    {.path = "limits.event", .kind = CONFIG_KIND_SIZE, IN(limits.event_bytes), .least = KIB, .most = 64 * MIB,
     .fallback = "900KiB"},
    {.path = "limits.depth", .kind = CONFIG_KIND_COUNT, IN(limits.depth), .least = 1, .most = 1024, .fallback = "64"},
    {.path = "limits.append", .kind = CONFIG_KIND_SIZE, IN(limits.append_bytes), .least = 64 * KIB, .most = 64 * GIB,
     .fallback = "64MiB"},
    {.path = "limits.unfinished", .kind = CONFIG_KIND_SIZE, IN(limits.http.unfinished_bytes), .least = 64 * KIB,
     .most = TIB, .fallback = "128MiB"},
    {.path = "limits.unfinished_per_connection", .kind = CONFIG_KIND_SIZE, IN(limits.http.unfinished_bytes_connection),
     .least = 64 * KIB, .most = 64 * GIB, .fallback = "32MiB"},
    {.path = "limits.header_block", .kind = CONFIG_KIND_SIZE, IN(limits.http.header_block_bytes), .least = KIB,
     .most = 256 * KIB, .fallback = "16KiB"},
    {.path = "limits.headers", .kind = CONFIG_KIND_COUNT, IN(limits.http.header_count), .least = 16, .most = 1000,
     .fallback = "128"},
    {.path = "limits.connections", .kind = CONFIG_KIND_COUNT, IN(limits.http.connections), .least = 1, .most = 1000000,
     .fallback = "10000"},
    {.path = "limits.connections_per_address", .kind = CONFIG_KIND_COUNT, IN(limits.http.connections_address),
     .least = 1, .most = 1000000, .fallback = "1000"},
    {.path = "limits.resets_per_minute", .kind = CONFIG_KIND_COUNT, IN(limits.http.resets_minute), .least = 1,
     .most = 1000000, .fallback = "200"},
    {.path = "limits.control_frames_per_minute", .kind = CONFIG_KIND_COUNT, IN(limits.http.control_frames_minute),
     .least = 100, .most = 100000000, .fallback = "60000"},
    {.path = "limits.request_timeout", .kind = CONFIG_KIND_DURATION, IN(limits.http.request_timeout_ns),
     .least = 100 * MS, .most = HOUR, .fallback = "30s"},
    {.path = "limits.response_timeout", .kind = CONFIG_KIND_DURATION, IN(limits.http.response_timeout_ns),
     .least = 100 * MS, .most = HOUR, .fallback = "30s"},
    {.path = "limits.idle_timeout", .kind = CONFIG_KIND_DURATION, IN(limits.http.idle_timeout_ns),
     .least = 100 * MS, .most = DAY, .fallback = "75s"},
    {.path = "limits.handshake_timeout", .kind = CONFIG_KIND_DURATION, IN(limits.http.handshake_timeout_ns),
     .least = 100 * MS, .most = HOUR, .fallback = "10s"},
    {.path = "limits.connection_age", .kind = CONFIG_KIND_DURATION, IN(limits.http.connection_age_ns), .most = 30 * DAY,
     .fallback = "0"},
    // A transaction must end well within transaction.timeout.ms, 15 s.
    {.path = "limits.transaction_time", .kind = CONFIG_KIND_DURATION, IN(kafka.transaction_time_ns), .least = 10 * MS,
     .most = 5 * SECOND, .fallback = "500ms"},
    {.path = "limits.kafka_queue", .kind = CONFIG_KIND_SIZE, IN(kafka.queue_bytes), .least = MIB, .most = 2 * GIB,
     .fallback = "32MiB"},
    {.path = "limits.kafka_queue_events", .kind = CONFIG_KIND_COUNT, IN(kafka.queue_events), .least = 100,
     .most = 10000000, .fallback = "20000"},
};

static const struct config_key source_keys[] = {
    {.path = "source", .kind = CONFIG_KIND_NAME, OF(name), .required = "the name that stands in /v1/events/{source}",
     .reload = true},
    {.path = "topic", .kind = CONFIG_KIND_TOPIC, OF(topic), .required = "the Kafka topic its events go to",
     .reload = true},
    {.path = "event_id", .kind = CONFIG_KIND_EVENT_ID, OF(id_parts),
     .required = "a JSON Pointer such as /event_id, header:NAME, or a list of them", .reload = true},
    {.path = "key", .kind = CONFIG_KIND_POINTER, OF(key), .reload = true},
    {.path = "time", .kind = CONFIG_KIND_POINTER, OF(time), .reload = true},
    {.path = "auth", .kind = CONFIG_KIND_UNSUPPORTED, .reload = true},
    {.path = "schema", .kind = CONFIG_KIND_UNSUPPORTED, .reload = true},
    {.path = "on_invalid", .kind = CONFIG_KIND_WORD, .words = invalid_words, .fallback = "reject", .reload = true},
    {.path = "on_drift", .kind = CONFIG_KIND_WORD, .words = drift_words, .fallback = "accept", .reload = true},
    {.path = "on_conflict", .kind = CONFIG_KIND_WORD, OF(on_conflict), .words = conflict_words, .fallback = "reject",
     .reload = true},
    {.path = "business_key.fields", .kind = CONFIG_KIND_FIELDS, OF(business_fields), .reload = true},
    {.path = "business_key.on_duplicate", .kind = CONFIG_KIND_WORD, OF(on_business), .words = business_words,
     .fallback = "flag", .reload = true},
    {.path = "protect", .kind = CONFIG_KIND_UNSUPPORTED, .reload = true},
    {.path = "quota", .kind = CONFIG_KIND_UNSUPPORTED, .reload = true},
    {.path = "priority", .kind = CONFIG_KIND_WORD, OF(priority), .words = priority_words, .fallback = "normal",
     .reload = true},
    {.path = "lane", .kind = CONFIG_KIND_NAME, OF(lane), .fallback = "main", .reload = true},
    {.path = "ack", .kind = CONFIG_KIND_WORD, OF(ack), .words = ack_words, .computed = "ha.ack", .reload = true},
    {.path = "ack_timeout", .kind = CONFIG_KIND_DURATION, OF(ack_timeout_ns), .least = 10 * MS, .most = 5 * MINUTE,
     .computed = "ha.ack_timeout", .reload = true},
};
// clang-format on

const struct config_schema config_schema_main = {main_keys, sizeof(main_keys) / sizeof(main_keys[0])};
const struct config_schema config_schema_source = {source_keys, sizeof(source_keys) / sizeof(source_keys[0])};
_Static_assert(sizeof(main_keys) / sizeof(main_keys[0]) <= CONFIG_KEYS_MAX, "config_lines holds a line for each key");
