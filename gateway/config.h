// The configuration: one YAML file and a directory of sources, checked against a schema of its own (config_schema.c).
//
// Every problem is reported as "file:line: what is wrong"; unknown keys are errors; keys whose feature this version
// does not have are errors where ignoring them would be unsafe, and warnings where not.
//
// Threads: a loaded struct config is immutable. It is reference counted because a reload swaps it under running loops:
// config_retain/config_release from any thread; everything inside lives as long as the config.
#ifndef SLUICE_GATEWAY_CONFIG_H
#define SLUICE_GATEWAY_CONFIG_H

#include "base/error.h"
#include "base/log.h"
#include "gateway/http.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { CONFIG_NAME_MAX = 63, CONFIG_LANES_MAX = 16, CONFIG_SOURCES_MAX = 4096 };
enum { CONFIG_PEERS_MAX = 2 }; // a cell is one gateway in each of up to three zones
// Parts of an event_id and fields of a business key: so many of each, and so many together (one walk of an event picks
// them all).
enum { CONFIG_ID_PARTS_MAX = 8, CONFIG_BUSINESS_FIELDS_MAX = 8, CONFIG_PICKED_MAX = 14 };

struct json_pointer; // gateway/json.h

enum ack_level { ACK_DISK, ACK_AZ2, ACK_KAFKA }; // order of CONTRACT.md, not of strength
enum config_priority { PRIORITY_HIGH, PRIORITY_NORMAL, PRIORITY_LOW };
// The same id with another payload.
enum config_on_conflict { CONFLICT_REJECT, CONFLICT_QUARANTINE };
// The same business fields under another id.
enum config_on_business { BUSINESS_FLAG, BUSINESS_QUARANTINE, BUSINESS_DROP };

// Where an event_id (or a part of it) comes from.
struct config_id_part {
    enum { ID_FROM_POINTER, ID_FROM_HEADER } from;
    struct json_pointer *pointer; // ID_FROM_POINTER
    const char *header;           // ID_FROM_HEADER: lower-case name
};

struct config_source {
    const char *name; // [a-z0-9][a-z0-9-]{0,62}; also in the URL
    const char *file; // where it was read, for messages
    const char *topic;
    const char *lane;
    struct config_id_part id_parts[CONFIG_ID_PARTS_MAX];
    size_t id_part_count;      // ≥ 1
    struct json_pointer *key;  // NULL: null Kafka key
    struct json_pointer *time; // NULL: none
    enum ack_level ack;        // the source's own or ha.ack
    int64_t ack_timeout_ns;    // the source's own or ha.ack_timeout
    enum config_priority priority;
    enum config_on_conflict on_conflict;
    struct json_pointer *business_fields[CONFIG_BUSINESS_FIELDS_MAX];
    size_t business_field_count; // 0: no business key
    enum config_on_business on_business;
};

struct config_property { // of kafka.properties, in file order
    const char *name;
    const char *value;
    int line;
};

struct config_peer { // of ha.peers, in file order
    const char *name, *zone;
    const char *address; // "host:port"
    int line;
};

struct config {
    const char *file;
    const char *node_name, *node_zone, *node_cluster;
    struct {
        struct http_listener *ingest;
        size_t ingest_count;
        const char *admin;                 // "host:port" or unix:, NULL = no admin endpoint
        enum proxy_version proxy_protocol; // of the TCP addresses of `ingest`; default off
        uint32_t threads;                  // event loops for ingest; default: half the processors, at least 1
    } listen;
    struct http_tls tls;
    struct {
        bool embedded;
        const char *brokers; // NULL when embedded
        const struct config_property *properties;
        size_t property_count;
        bool transactional;           // false: mode idempotent
        uint32_t embedded_partitions; // of each topic of the embedded cluster, ≥ 4, default 4
        int64_t
            transaction_time_ns; // how long a transaction grows under load; default 500 ms (limits.transaction_time)
        uint32_t queue_events;   // librdkafka's queue; default 20,000
        uint64_t queue_bytes;    // default 32 MiB
    } kafka;
    struct {
        const char *dir;        // absolute
        uint64_t segment_bytes; // 1 MiB..4 GiB, multiple of 4096; default 256 MiB
        uint64_t max_bytes;     // default 100 GiB; at least 4 segments
        int64_t retain_ns;      // default 24 h
        uint32_t prepared;      // segments kept ready; default 2
    } spool;
    struct {
        int64_t window_ns; // 0 = off, else ≥ 1 s
        uint64_t memory_bytes;
        const char *key_file; // absolute; NULL: dedupe.key in spool.dir
        int64_t snapshot_every_ns;
    } dedupe;
    struct {
        enum ack_level ack; // default: az2 with peers, disk without
        int64_t ack_timeout_ns;
        const struct config_peer *peers;
        size_t peer_count;  // ≤ CONFIG_PEERS_MAX; 0: no cell, and the rest of ha is not used
        const char *listen; // "host:port"; set where there are peers
        struct config_peer_tls {
            const char *certificate, *key, *ca; // absolute; all NULL: plain, on loopback alone
        } tls;
        int64_t peer_wait_ns;      // of an az2 answer for a peer that keeps up, another one having it; default 25 ms
        int64_t takeover_after_ns; // silence that makes a drainer suspect; default 5 s
        int64_t turn_ns;           // between the turns of two holders; default 2 s
        int64_t let_go_after_ns;   // how long an owner without Kafka keeps its stream; default 30 s
        int64_t order_wait_ns;     // how long a stream waits for a predecessor out of reach; default 60 s
        uint64_t replica_bytes;    // received from peers and not yet synced; default 64 MiB
    } ha;
    struct {
        bool json;
        enum sl_level level;
        bool core_dumps; // default false
    } log;
    struct {
        int64_t accept_for_ns; // default 5 s
        int64_t timeout_ns;    // default 45 s
    } drain;
    struct {
        struct http_limits http;
        uint64_t decoded_bytes; // one body after decompression; default 16 MiB
        uint64_t event_bytes;   // one event; default 900 KiB
        uint32_t depth;         // default 64
        uint64_t append_bytes;  // accepted and waiting for the disk, all loops; over it 503. Default 64 MiB
    } limits;
    const char *sources_dir;
    struct config_source *const *sources; // sorted by name
    size_t source_count;
    // Distinct, sorted; always has "main". After a reload those of the running config are still among them: a lane is
    // never stopped before a restart.
    const char *const *lanes;
    size_t lane_count;
};

// Every problem found is written to `problems` as a line "file:line: text" (errors) or "file:line: warning: text";
// loading goes on after the first, so that one run shows them all. Returns false when there was an error; *err then
// carries the first line.
bool config_load(struct config **out, const char *file, FILE *problems, struct sl_error *err) SL_MUST_USE;
// Loads again for SIGHUP: the main file's sources directory only. *out is a new config that shares nothing with
// `current`. What a reload cannot change (everything but sources) is taken from `current`'s file as read now and must
// be equal, else a warning "takes effect at restart" is written and the old value is kept.
bool config_reload(struct config **out, const struct config *current, FILE *problems, struct sl_error *err) SL_MUST_USE;

struct config *config_retain(struct config *config);
void config_release(struct config *config); // NULL is allowed

// NULL when there is none. O(log n).
const struct config_source *config_find_source(const struct config *config, const char *name, size_t name_length);

const char *ack_level_word(enum ack_level level);

#endif
