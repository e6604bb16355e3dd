// A gateway's part in its cell: the protocol core (ha.h), the sessions with the peers (peers.h) and the copies in the
// spool (spool/replica.h), driven by one thread.
//
// Threads: the cell owns "replication" (the core, the sessions, everything that is decided) and "ha-disk" (calls that
// wait for the disk: marks, the change of the own stream). Functions say who may call them; callbacks run on
// "replication", must be quick and must not call cell_stop.
//
// Order of calls: cell_new, cell_counter, spool_open (with cell_on_frame and cell_on_synced), produce_start (driven,
// with the cell_on_… below), cell_start, …, produce_stop, cell_stop, spool_close, cell_free.
#ifndef SLUICE_HA_CELL_H
#define SLUICE_HA_CELL_H

#include "base/error.h"
#include "ha/ha.h"
#include "spool/ids.h"
#include "spool/spool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CELL_PEERS_MAX = HA_MEMBERS_MAX - 1 };
struct cell;

// ---- the drain, as the cell asks for it. gateway/cell_kafka.c fills this in; ha/ knows nothing of Kafka's client.

enum cell_step {
    CELL_INIT,
    CELL_READ,
    CELL_CLAIM,
    CELL_RECORDS,
    CELL_CLOSE,
    CELL_LOOK,
};
struct cell_order {
    enum cell_step step;
    const char *stream, *lane; // views for the call
    uint32_t ticket;           // for the answer
    uint64_t claim, through;   // CLAIM, CLOSE: what is committed
    uint64_t first, last;      // RECORDS; last 0: the stream that this node writes, until released
};
struct cell_progress {
    bool found;
    uint64_t through, claim;
    const char *drainer; // a stream id: of the process that drains; "" without one
};
struct cell_kafka {
    void *user;
    void (*order)(void *user, const struct cell_order *order);         // returns at once
    void (*release)(void *user, const char *stream, const char *lane); // the same; nothing answers after it
    void (*tombstone)(void *user, const char *stream, const char *const *lanes, size_t count);
    void (*set_drainer)(void *user, const char *stream); // the name in claims from now on
    bool (*reachable)(void *user);
};

struct cell_peer {
    const char *name, *zone, *address; // address: "host:port"
};
struct cell_options {
    const char *node, *zone, *cluster;
    const struct cell_peer *peers;
    size_t peer_count;                              // 1 … CELL_PEERS_MAX
    const char *listen;                             // "host:port"; port 0: the kernel's choice (cell_port)
    const char *tls_certificate, *tls_key, *tls_ca; // all NULL: plain
    uint8_t dedupe_key_id[8];                       // peers with another key are refused; zero: no window here
    int64_t peer_wait_ns;                           // how long a position waits for a second peer that keeps up; 25 ms
    int64_t takeover_after_ns;
    int64_t turn_ns;         // between the turns of two holders; 2 s
    int64_t let_go_after_ns; // without Kafka; 30 s
    int64_t order_wait_ns;   // 60 s
    size_t replica_bytes;    // received and not yet synced, all peers; 64 MiB
    size_t tap_bytes;        // of the own stream, kept in memory for the peers; 32 MiB
    struct cell_kafka kafka;
    // Own stream number `incarnation` of this process: the furthest position in another zone. Never moves back.
    void (*on_positions)(void *user, uint32_t incarnation, uint64_t peer_synced);
    // The stream was sealed and this is written now: before the first on_positions of it.
    void (*on_incarnation)(void *user, uint32_t incarnation, const char *stream);
    // Records of another node's stream are durable here. `body`: whole records, `count` of them from first_seq on.
    void (*on_replica)(void *user, const char *stream, uint64_t first_seq, uint32_t count, const void *body,
                       size_t length);
    // The dedupe window is there: ids may come. Peers are asked for those that are not known here. NULL: there is none.
    bool (*wants_ids)(void *user);
    // Ids of a stream that a peer knows, valid during the call. `in_kafka`: through which seq the stream is in Kafka,
    // UINT64_MAX: all of it, 0: cell_two_zones() and progress tell.
    void (*on_ids)(void *user, const char *stream, const struct spool_ids_block *block, uint64_t in_kafka);
    void *user;
};

// Checks and copies the options. SL_E_INVALID, SL_E_NO_MEMORY.
bool cell_new(struct cell **out, const struct cell_options *options, struct sl_error *err) SL_MUST_USE;
// On a new disk (`fresh`): asks the peers for the highest number of this node's streams, for at most takeover_after.
// Returns the least counter that the next stream may have (struct spool_options counter_min); 0: nobody said anything.
uint64_t cell_counter(struct cell *cell, bool fresh);
// For struct spool_options, with the cell as `user`. Writer thread.
void cell_on_frame(void *cell, struct spool_frame *frame);
void cell_on_synced(void *cell, uint32_t incarnation, uint64_t through);
// Starts the threads: listens, dials, tells the core what the spool holds. SL_E_UNAVAILABLE (the address), SL_E_IO.
bool cell_start(struct cell *cell, struct spool *spool, struct sl_error *err) SL_MUST_USE;
// Ends the threads and the sessions. After it no callback comes. Also when it was never started.
void cell_stop(struct cell *cell);
void cell_free(struct cell *cell); // NULL is allowed

// Answers of the drain. Any thread; strings are copied.
enum cell_result { CELL_OK, CELL_FAILED, CELL_FENCED };
struct cell_done {
    enum cell_step step;
    const char *stream, *lane;
    uint32_t ticket;
    enum cell_result result;
    struct cell_progress progress; // READ, LOOK
    uint64_t through;              // RECORDS
};
void cell_on_done(struct cell *cell, const struct cell_done *done);
// From the reader of sluice.progress, in the order of the topic. `gone`: a tombstone.
void cell_on_progress(struct cell *cell, const char *stream, const char *lane, const struct cell_progress *progress,
                      bool gone);

// ---- questions, any thread

bool cell_ready(const struct cell *cell);
// A peer in another zone is connected: az2 can be reached without Kafka.
bool cell_has_second_zone(const struct cell *cell);
// Durable in two zones or in Kafka, as far as this node knows; 0: nothing is known of the stream.
uint64_t cell_two_zones(struct cell *cell, const char *stream);
uint16_t cell_port(const struct cell *cell);

struct cell_member_status {
    char name[SPOOL_NAME_MAX + 1], zone[SPOOL_NAME_MAX + 1];
    bool self, up, kafka;
    int64_t since_wall_ns; // of up or down
    int64_t heard_ns;      // ago
    uint64_t lag_events;   // of this node's current stream: handed to the disk here, not yet durable there
    uint64_t at_risk;      // records that would be gone for good if this member's disk were lost now
    uint64_t bytes_in, bytes_out;
    char address[300], trouble[300]; // "" or a sentence for an operator
};
struct cell_holding {
    bool there;
    uint64_t base, end; // end < base: nothing
    bool writes, keeps, drains, empty;
};
struct cell_stream_status {
    char id[SPOOL_STREAM_ID_MAX];
    bool current, kept, fenced; // here
    uint64_t through;           // in Kafka, verified, the least of its lanes
    uint64_t peer_synced, two_zones;
    char drainer[SPOOL_STREAM_ID_MAX];           // of the last claim seen, "" for none
    struct cell_holding holders[HA_MEMBERS_MAX]; // in the order of members
    uint32_t lane_count;
    struct {
        char name[SPOOL_NAME_MAX + 1];
        const char *step; // a word: idle, init, read, claim, fence, waits, produces, closes, looks, stopped
        uint64_t through, claim;
    } lanes[HA_LANES_MAX];
};
struct cell_status {
    bool ready;
    uint32_t member_count, stream_count;
    struct cell_member_status members[HA_MEMBERS_MAX];
    struct cell_stream_status streams[HA_STREAMS_MAX];
    uint64_t takeovers, fenced, sealed, refused, order_given_up, repairs_sent, tombstones;
    uint64_t replica_bytes; // received, not yet synced
    char alarm[300];        // "" or what a person has to decide
};
// A copy of what was true 0.2 s ago at most. About 150 KB: not on a small stack.
void cell_status(struct cell *cell, struct cell_status *out);

#endif
