// Producers: the steps that the core asks for, carried out against the model of Kafka. Each is a request that takes its
// time on the way, is applied when it arrives, and whose answer takes its time, or is lost. A request may arrive after
// its sender died.
#include "tests/sim/node.h"

#include <string.h>

#define CALL_TIMEOUT (3 * S)
#define READ_TIMEOUT (40 * S)
#define STARVED_MOST (5 * S) // as in produce/transaction.c

enum op { OP_INIT, OP_READ, OP_CLAIM, OP_EVENTS, OP_PROGRESS, OP_COMMIT, OP_ABORT };
struct call {
    enum op op;
    uint8_t node, lane;
    uint32_t slot, serial, stream, epoch;
    uint64_t boot;
    bool begin, lost;
    uint32_t count;
    uint64_t seqs[TXN_RECORDS];
    struct ha_progress progress;
    enum kafka_result result;
    bool stray;
};

static void request(struct sim *sim, void *arg);
static void produce_on(struct node *node, struct drain *drain);

static struct drain *drain_of(struct node *node, uint32_t stream, uint8_t lane)
{
    for (size_t i = 0; i < DRAINS_MAX; i++)
        if (node->drains[i].used && node->drains[i].stream == stream && node->drains[i].lane == lane)
            return &node->drains[i];
    return NULL;
}

static struct drain *drain_made(struct node *node, uint32_t stream, uint8_t lane)
{
    struct drain *drain = drain_of(node, stream, lane);
    for (size_t i = 0; i < DRAINS_MAX && drain == NULL; i++)
        if (!node->drains[i].used)
            drain = &node->drains[i];
    sl_assert(drain != NULL);
    if (!drain->used)
        *drain = (struct drain){.used = true, .stream = stream, .lane = lane, .serial = ++node->serials};
    return drain;
}

static int64_t way(struct sim *sim)
{
    if (sim_often(sim, 5))
        return sim_between(sim, 100 * MS, 6 * S);
    return sim_between(sim, MS / 2, 6 * MS);
}

static void finish(struct node *node, struct drain *drain, enum ha_action_kind kind, enum ha_result result,
                   struct ha_progress progress, uint64_t through)
{
    drain->phase = -1;
    ha_done(&node->core, node_now(node),
            &(struct ha_done){.kind = kind,
                              .stream = ledger_at(node->sim, drain->stream)->id,
                              .lane_id = lane_id(drain->lane),
                              .ticket = drain->ticket,
                              .result = result,
                              .progress = progress,
                              .through = through});
    node_after(node);
}

struct expiry {
    uint8_t node;
    uint32_t slot, serial;
    int phase;
};

static void expired(struct sim *sim, void *arg)
{
    const struct expiry *expiry = arg;
    struct node *node = sim->nodes[expiry->node];
    struct drain *drain = &node->drains[expiry->slot];
    if (!drain->used || drain->serial != expiry->serial || drain->phase != expiry->phase)
        return;
    finish(node, drain, HA_PRODUCE, HA_FAILED, (struct ha_progress){0}, 0);
}

// phase: names the call, so that its deadline does not end a later one.
static void call(struct node *node, struct drain *drain, struct call call)
{
    static int phases;
    struct sim *sim = node->sim;
    uint32_t slot = (uint32_t)(drain - node->drains);
    phases = (phases + 1) & 0xffffff;
    drain->phase = phases;
    call.node = node->index;
    call.lane = drain->lane;
    call.slot = slot;
    call.serial = drain->serial;
    call.stream = drain->stream;
    call.epoch = drain->epoch;
    call.boot = node->boot;
    // Without its node: once sent, it is Kafka's.
    sim_at(sim, way(sim), request, &call, sizeof(call));
    struct expiry expiry = {.node = node->index, .slot = slot, .serial = drain->serial, .phase = drain->phase};
    sim_at_node(sim, node, call.op == OP_READ ? READ_TIMEOUT : CALL_TIMEOUT, expired, &expiry, sizeof(expiry));
}

// ---- in Kafka

static void stray_end(struct sim *sim, void *arg)
{
    const struct call *of = arg;
    if (kafka_end(sim, of->stream, of->lane, of->epoch, true, true) == KAFKA_OK)
        sim_note(sim, "kafka: a stray commit ends the open transaction of %s/%u", ledger_at(sim, of->stream)->text,
                 of->lane);
}

static void apply_commit(struct sim *sim, struct call *of, bool commit)
{
    of->result = kafka_end(sim, of->stream, of->lane, of->epoch, commit, false);
    // The older protocol: a repeated EndTxn that was late ends whatever this epoch has open then.
    if (commit && of->result == KAFKA_OK && !sim->healing && sim_often(sim, 20))
        sim_at(sim, sim_between(sim, MS, 100 * MS), stray_end, of, sizeof(*of));
}

static void answer(struct sim *sim, void *arg);

static bool apply_call(struct sim *sim, struct call *of)
{
    switch (of->op) {
    case OP_INIT:
        of->epoch = kafka_init(sim, of->stream, of->lane);
        break;
    case OP_CLAIM:
        of->result = kafka_append_progress(sim, of->stream, of->lane, of->epoch, true, &of->progress);
        if (of->result == KAFKA_OK)
            apply_commit(sim, of, true);
        break;
    case OP_EVENTS:
        of->result = kafka_append(sim, of->stream, of->lane, of->epoch, of->seqs, of->count, of->begin);
        break;
    case OP_PROGRESS:
        of->result = kafka_append_progress(sim, of->stream, of->lane, of->epoch, of->begin, &of->progress);
        break;
    case OP_COMMIT:
        apply_commit(sim, of, true);
        break;
    case OP_ABORT:
        apply_commit(sim, of, false);
        break;
    case OP_READ:
        break;
    }
    return true;
}

static void request(struct sim *sim, void *arg)
{
    struct call *of = arg;
    struct node *node = sim->nodes[of->node];
    // Without an answer the caller's deadline ends it.
    if (!kafka_reachable(sim, of->node))
        return;
    if (of->op != OP_READ && of->op != OP_EVENTS && of->op != OP_PROGRESS &&
        sim->kafka->coordinator_moves_until_ns > sim->now_ns)
        return;
    apply_call(sim, of);
    if ((!sim->healing && sim_often(sim, 15)) || !node->up || node->boot != of->boot)
        return;
    sim_at_node(sim, node, way(sim), answer, of, sizeof(*of));
}

// ---- in the producer

// Progress as of the high watermark that was seen first.
static void read_on(struct sim *sim, void *arg)
{
    struct call *of = arg;
    struct node *node = sim->nodes[of->node];
    struct drain *drain = &node->drains[of->slot];
    if (!drain->used || drain->serial != of->serial || drain->phase < 0)
        return;
    uint32_t partition = of->stream % PARTITIONS;
    size_t stable = kafka_stable(sim, partition);
    if (!kafka_reachable(sim, of->node) || stable < drain->high_watermark) {
        sim_at_node(sim, node, 20 * MS, read_on, of, sizeof(*of));
        return;
    }
    finish(node, drain, HA_READ, HA_OK, kafka_progress(sim, of->stream, of->lane, stable), 0);
}

static void after_commit(struct node *node, struct drain *drain)
{
    drain->begun = false;
    drain->touched_ns = node->sim->now_ns;
    drain->produced = drain->batch_through;
    uint64_t *committed = &node->committed[drain->stream][drain->lane];
    *committed = drain->produced > *committed ? drain->produced : *committed;
    if (drain->closing) {
        finish(node, drain, HA_CLOSE, HA_OK, (struct ha_progress){0}, drain->produced);
        return;
    }
    produce_on(node, drain);
    node_after(node);
}

static struct ha_progress own_progress(const struct node *node, const struct drain *drain)
{
    return (struct ha_progress){
        .through = drain->batch_through, .claim = drain->claim, .drainer = ledger_at(node->sim, node->current)->id};
}

static void retry_later(struct sim *sim, void *arg)
{
    const struct expiry *expiry = arg;
    struct node *node = sim->nodes[expiry->node];
    struct drain *drain = &node->drains[expiry->slot];
    if (drain->used && drain->serial == expiry->serial && drain->phase == expiry->phase)
        produce_on(node, drain);
}

static void wait_and_produce(struct node *node, struct drain *drain, int64_t pause_ns)
{
    struct expiry again = {.node = node->index,
                           .slot = (uint32_t)(drain - node->drains),
                           .serial = drain->serial,
                           .phase = drain->phase = 0};
    sim_at_node(node->sim, node, pause_ns, retry_later, &again, sizeof(again));
}

static void answer(struct sim *sim, void *arg)
{
    struct call *of = arg;
    struct node *node = sim->nodes[of->node];
    struct drain *drain = &node->drains[of->slot];
    if (!drain->used || drain->serial != of->serial || drain->phase <= 0)
        return; // released, or its deadline passed
    if (of->op == OP_READ) {
        drain->high_watermark = kafka_high_watermark(sim, of->stream % PARTITIONS);
        read_on(sim, arg);
        return;
    }
    if (of->op == OP_EVENTS && of->result == KAFKA_UNAVAILABLE) {
        call(node, drain, (struct call){.op = OP_ABORT}); // the topic holds its lane up; nothing stays open
        return;
    }
    if (of->result != KAFKA_OK) {
        finish(node, drain, HA_PRODUCE, of->result == KAFKA_FENCED ? HA_FENCED : HA_FAILED, (struct ha_progress){0}, 0);
        return;
    }
    switch (of->op) {
    case OP_INIT:
        drain->epoch = of->epoch;
        finish(node, drain, HA_INIT, HA_OK, (struct ha_progress){0}, 0);
        break;
    case OP_CLAIM:
        finish(node, drain, HA_CLAIM, HA_OK, (struct ha_progress){0}, 0);
        break;
    case OP_EVENTS:
        // Its answer is the delivery report of every event: only now may progress follow.
        call(node, drain, (struct call){.op = OP_PROGRESS, .progress = own_progress(node, drain)});
        break;
    case OP_PROGRESS:
        call(node, drain, (struct call){.op = OP_COMMIT});
        break;
    case OP_COMMIT:
        after_commit(node, drain);
        break;
    case OP_ABORT:
        drain->begun = false;
        wait_and_produce(node, drain, S);
        break;
    case OP_READ:
        break;
    }
}

static void produce_on(struct node *node, struct drain *drain)
{
    struct sim *sim = node->sim;
    uint64_t base, end, through = drain->produced;
    node_range(node, drain->stream, &base, &end);
    uint64_t to = drain->to < end ? drain->to : end;
    drain->count = 0;
    if (to > drain->produced && !node_read(node, drain->stream, drain->lane, drain->produced + 1, to, drain->seqs,
                                           TXN_RECORDS, &drain->count, &through)) {
        wait_and_produce(node, drain, 100 * MS);
        return;
    }
    bool starves = drain->count == 0 && through == drain->produced && !drain->current && drain->produced < drain->to;
    drain->starved_ns = !starves ? 0 : drain->starved_ns == 0 ? sim->now_ns : drain->starved_ns;
    if (starves && sim->now_ns - drain->starved_ns > STARVED_MOST) {
        // What was ordered is not here (any more): somebody else produced it, and it was trimmed.
        finish(node, drain, HA_PRODUCE, HA_FAILED, (struct ha_progress){0}, drain->produced);
        return;
    }
    bool stale = sim->now_ns - drain->touched_ns > TAKEOVER_AFTER / 3;
    bool held = sim->kafka->topic_down[drain->lane];
    if (drain->count > 0 && !(held && stale)) {
        drain->batch_through = through;
        drain->begun = true;
        struct call events = {.op = OP_EVENTS, .begin = true, .count = drain->count};
        memcpy(events.seqs, drain->seqs, sizeof(events.seqs));
        call(node, drain, events);
        return;
    }
    if (!drain->current && drain->count == 0 && drain->produced >= drain->to) {
        finish(node, drain, HA_PRODUCE, HA_OK, (struct ha_progress){0}, drain->produced);
        return;
    }
    // Records of other lanes were passed, or progress must be seen to live.
    if ((drain->count == 0 && through > drain->produced && (stale || !drain->current)) || (drain->count > 0 && stale)) {
        drain->batch_through = drain->count == 0 ? through : drain->produced;
        call(node, drain, (struct call){.op = OP_PROGRESS, .begin = true, .progress = own_progress(node, drain)});
        return;
    }
    wait_and_produce(node, drain, 20 * MS);
}

// ---- what the core asks for

static uint8_t lane_of(const struct ha_action *action)
{
    return (uint8_t)(action->lane_id - 1000);
}

void drain_action(struct node *node, const struct ha_action *action)
{
    static const char *const words[] = {
        [HA_INIT] = "init",   [HA_READ] = "read",       [HA_CLAIM] = "claim", [HA_PRODUCE] = "produce",
        [HA_CLOSE] = "close", [HA_RELEASE] = "release", [HA_LOOK] = "look",   [HA_TOMBSTONE] = "tombstone"};
    uint32_t stream = ledger_stream(node->sim, action->stream);
    sim_note(node->sim, "node %u: %s %s/%u %llu..%lld", node->index, words[action->kind],
             ledger_at(node->sim, stream)->text, action->lane_id, (unsigned long long)action->first,
             (long long)(action->last == 0 ? action->stated_through : action->last));
    if (action->kind == HA_TOMBSTONE) {
        for (uint8_t lane = 0; lane < LANES; lane++)
            if (kafka_reachable(node->sim, node->index))
                kafka_tombstone(node->sim, stream, lane);
        return;
    }
    uint8_t lane = lane_of(action);
    struct drain *drain = drain_of(node, stream, lane);
    if (action->kind == HA_RELEASE) {
        if (drain != NULL)
            drain->used = false;
        return;
    }
    drain = drain_made(node, stream, lane);
    drain->ticket = action->ticket;
    struct call next = {.op = OP_INIT};
    switch (action->kind) {
    case HA_READ:
    case HA_LOOK:
        next.op = OP_READ;
        break;
    case HA_CLAIM:
        next.op = OP_CLAIM;
        next.begin = true;
        drain->claim = action->claim;
        drain->batch_through = action->stated_through;
        next.progress = own_progress(node, drain);
        break;
    case HA_PRODUCE:
        drain->produced = action->first - 1;
        drain->to = action->last;
        drain->current = action->last == UINT64_MAX;
        drain->touched_ns = node->sim->now_ns;
        drain->starved_ns = 0;
        drain->closing = false;
        produce_on(node, drain);
        return;
    case HA_CLOSE:
        drain->closing = true;
        drain->batch_through = drain->produced = action->stated_through;
        next.op = OP_PROGRESS;
        next.begin = true;
        next.progress = own_progress(node, drain);
        break;
    default:
        break;
    }
    call(node, drain, next);
}

void drain_tail(struct node *node)
{
    struct sim *sim = node->sim;
    bool reachable = kafka_reachable(sim, node->index);
    ha_kafka(&node->core, node_now(node), reachable);
    for (uint32_t partition = 0; reachable && partition < PARTITIONS; partition++) {
        size_t stable = kafka_stable(sim, partition);
        for (size_t *at = &node->tail[partition]; *at < stable; (*at)++) {
            const struct progress_entry *entry = &sim->kafka->progress[partition].entries[*at];
            if (entry->txn != NULL && entry->txn->state != TXN_COMMITTED)
                continue;
            struct ha_progress *seen = &node->seen[entry->stream][entry->lane];
            *seen = entry->tombstone ? (struct ha_progress){0} : entry->progress;
            ha_saw_progress(&node->core, node_now(node), ledger_at(sim, entry->stream)->id, lane_id(entry->lane), seen,
                            entry->tombstone);
            if (!entry->tombstone)
                local_tell_progress(node, entry->stream, entry->lane, seen->through);
        }
    }
}

bool drain_active(const struct node *node, bool current_too)
{
    for (size_t i = 0; i < DRAINS_MAX; i++)
        if (node->drains[i].used && (current_too || !node->drains[i].current))
            return true;
    return false;
}
