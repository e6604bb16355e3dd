// One gateway of the cell: the protocol core, its real spool over a simulated disk (local.c), its shelf of replicas
// (shelf.c), its producers (drain.c), and what carries out the core's actions (node.c).
//
// Threads: none.
#ifndef SLUICE_TESTS_SIM_NODE_H
#define SLUICE_TESTS_SIM_NODE_H

#include "spool/spool.h"
#include "tests/sim/kafka.h"
#include "tests/sim/ledger.h"
#include "tests/sim/sim.h"
#include "tests/spool/disk.h"
#include "tests/spool/fault.h"

enum { COPIES_MAX = 512, WRITES_MAX = 4096, DRAINS_MAX = 64, WAITS_MAX = 4096, OFFER_SECONDS = 5 };
#define TAKEOVER_AFTER (5 * S)
#define ACK_TIMEOUT    (5 * S)

extern const char *const node_names[NODES];
extern const char *const lane_names[LANES];
static inline uint32_t lane_id(uint8_t lane)
{
    return 1000u + lane;
}

// ---- the shelf: replicas. A model: contents are the ledger's, what is kept here is how far they are durable.

struct copy { // durable
    uint32_t stream;
    uint64_t base, end, guard;
    uint64_t first; // the records from here on are there, whatever the base says
    bool used, fenced;
};
struct shelf_write { // under way
    uint32_t copy;
    uint64_t first, last;
    bool new_base;
};
struct shelf {
    struct copy copies[COPIES_MAX];
    struct shelf_write writes[WRITES_MAX];
    uint32_t write_first, write_count;
    int64_t busy_until_ns;
};

// ---- producers

struct drain {
    bool used;
    uint32_t stream, serial, ticket, epoch;
    uint8_t lane;
    int phase;
    uint64_t claim, from, produced, to, batch_through, limit;
    bool current, begun, closing;
    int64_t touched_ns;
    int64_t starved_ns; // since when less is here than was ordered; 0: it is not
    uint32_t count;
    uint64_t seqs[TXN_RECORDS];
    size_t high_watermark;
    int64_t deadline_ns;
};

struct wait { // a request that is not answered yet
    uint32_t event, attempt, stream;
    uint64_t seq;
    uint8_t level;
    int64_t deadline_ns;
};
struct known {       // an id that this process remembers
    uint32_t stream; // + 1; 0: unknown
    uint64_t seq;
};

struct node {
    struct sim *sim;
    uint8_t index;
    bool up, dying, disk_failing, reopen;
    uint64_t boot;
    int64_t frozen_until_ns, wall_offset_ns;
    struct ha_core core;
    // local.c
    struct disk *disk;
    struct fault fault;
    struct storage storage;
    struct spool_environment environment;
    struct spool *spool;
    uint32_t current; // stream
    uint64_t submitted;
    bool writing;
    int64_t slow_disk_ns;
    // shelf.c
    struct shelf shelf;
    // drain.c
    struct drain drains[DRAINS_MAX];
    uint32_t serials;
    // what of sluice.progress was read
    size_t tail[PARTITIONS];
    struct ha_progress seen[STREAMS_MAX][LANES];
    uint64_t noted[STREAMS_MAX][LANES];     // told to the spool
    uint64_t committed[STREAMS_MAX][LANES]; // as this process' own commits said
    // requests
    struct wait waits[WAITS_MAX];
    uint32_t wait_count;
    struct known known[EVENTS_MAX];
    uint64_t links[NODES];  // the connection with each peer, 0: none
    int64_t sent_ns[NODES]; // when the last message on it arrives
    uint64_t order_given_up;
    struct ha_message heartbeat;
};

// local.c
void local_environment(struct node *node);
bool local_open(struct node *node); // opens the spool, and the first stream of the process
bool local_next(struct node *node); // ends the stream and opens the next one; false: not now
void local_close(struct node *node);
void local_crash(struct node *node, enum disk_crash what);
bool local_submit(struct node *node, uint32_t event); // appends it to the current stream
// Own older streams: what the spool holds. base > end: nothing.
void local_range(struct node *node, uint32_t stream, uint64_t *base, uint64_t *end);
// Up to `most` records of the lane in from..to that are durable here; *through: how far was looked. False: nothing can
// be read now.
bool node_read(struct node *node, uint32_t stream, uint8_t lane, uint64_t from, uint64_t to, uint64_t *seqs,
               uint32_t most, uint32_t *count, uint64_t *through);
void local_tell_progress(struct node *node, uint32_t stream, uint8_t lane, uint64_t through);
void local_step(struct node *node);  // the keeper
void local_check(struct node *node); // after a start: is there what was synced?

// shelf.c
void shelf_store(struct node *node, const struct ha_action *action);
void shelf_trim(struct node *node, uint32_t stream, uint64_t last);
void shelf_mark(struct node *node, const struct ha_action *action); // fence and empty marks
void shelf_crash(struct node *node);
void shelf_lose(struct node *node);
struct copy *shelf_find(struct node *node, uint32_t stream);
// Base and end of what the node holds of a stream, in spool and shelf together.
void node_range(struct node *node, uint32_t stream, uint64_t *base, uint64_t *end);

// drain.c
void drain_action(struct node *node, const struct ha_action *action);
void drain_tail(struct node *node); // reads on in sluice.progress
bool drain_active(const struct node *node, bool current_too);

// node.c
struct node *node_new(struct sim *sim, uint8_t index);
void node_free(struct node *node);
void node_boot(struct node *node);
void node_boot_later(struct sim *sim, uint8_t index, int64_t delay_ns); // if it is down then
void node_crash(struct node *node, enum disk_crash what, bool lose_disk);
void node_freeze(struct node *node, int64_t for_ns);
// After every input to the core: carries out its actions, answers what can be answered.
void node_after(struct node *node);
int64_t node_now(const struct node *node); // its monotonic clock
// A request arrives.
void node_request(struct node *node, uint32_t event, uint32_t attempt);
void node_answers(struct node *node);
void node_remember(struct node *node, uint32_t stream, uint64_t first, uint64_t last);

#endif
