// The life of a gateway: starts, crashes, freezes; what its protocol core wants done; requests and their answers.
#include "tests/sim/node.h"

#include "gateway/ack.h"

#include <stdlib.h>
#include <string.h>

const char *const node_names[NODES] = {"gw-a", "gw-b", "gw-c"};
const char *const lane_names[LANES] = {"l0", "l1"};

int64_t node_now(const struct node *node)
{
    // Each machine's monotonic clock began at another time.
    return node->sim->now_ns + (node->index + 1) * 1000 * S;
}

struct node *node_new(struct sim *sim, uint8_t index)
{
    struct node *node = calloc(1, sizeof(*node));
    sl_assert(node != NULL);
    node->sim = sim;
    node->index = index;
    node->disk = disk_new(UINT64_C(24) << 20);
    struct storage inner = disk_storage(node->disk);
    fault_init(&node->fault, &inner);
    node->storage = fault_storage(&node->fault);
    return node;
}

void node_free(struct node *node)
{
    node->dying = true;
    disk_stop_after(node->disk, 1);
    local_close(node);
    disk_free(node->disk);
    free(node);
}

// ---- start

static void head_of(struct sim *sim, uint32_t stream, struct ha_head *head)
{
    const struct stream_truth *truth = ledger_at(sim, stream);
    *head = (struct ha_head){.lane_count = LANES, .lane_ids = {lane_id(0), lane_id(1)}};
    if (truth->predecessor != 0) {
        head->predecessor = ledger_at(sim, truth->predecessor - 1)->id;
        head->predecessor_seq = truth->predecessor_seq;
    }
}

static void tell_held(struct node *node, uint32_t stream)
{
    sl_assert(node->spool != NULL); // without it nothing can be said; least of all that nothing is held
    uint64_t base, end;
    node_range(node, stream, &base, &end);
    const struct copy *copy = shelf_find(node, stream);
    const struct stream_truth *truth = ledger_at(node->sim, stream);
    if (copy == NULL && truth->id.member != node->index)
        return;
    if (copy == NULL && end < base) {
        // The spool deleted it: every record of every lane is verified, also where a lane's progress ends before.
        const struct ha_stream *held = ha_find(&node->core, truth->id);
        if (held == NULL || held->current || !held->copies[node->index].there)
            return;
        end = held->copies[node->index].end;
        base = end + 1;
    }
    struct ha_head head;
    head_of(node->sim, stream, &head);
    bool room = ha_held(&node->core, node_now(node), truth->id, &head, base, end, copy != NULL && copy->fenced,
                        copy != NULL ? copy->guard : 0);
    sim_note(node->sim, "node %u: holds %s %llu..%llu", node->index, truth->text, (unsigned long long)base,
             (unsigned long long)end);
    if (!room)
        sim_note(node->sim, "node %u: no room in the table for %s", node->index, truth->text);
}

static void tick(struct sim *sim, void *arg)
{
    struct node *node = sim->nodes[*(uint8_t *)arg];
    if (node->reopen) {
        node->reopen = !local_next(node);
        struct ha_head head;
        head_of(sim, node->current, &head);
        if (!node->reopen && !ha_open(&node->core, node_now(node), ledger_at(sim, node->current)->id, &head))
            sim_violation(sim, "node %u: no room in the table for its own stream", node->index);
    }
    bool ready = ha_ready(&node->core);
    ha_tick(&node->core, node_now(node));
    if (!ready && ha_ready(&node->core))
        // Before it serves: the ids that reachable peers hold durably.
        for (uint8_t i = 0; i < NODES; i++)
            if (node->links[i] != 0 && sim->nodes[i]->up && sim->nodes[i]->links[node->index] == node->links[i])
                for (uint32_t stream = 0; stream < sim->ledger->stream_count; stream++)
                    for (uint64_t seq = 1; seq <= ledger_at(sim, stream)->end; seq++)
                        if (ledger_at(sim, stream)->records[seq].known & (1u << i))
                            node_remember(node, stream, seq, seq);
    local_step(node);
    node_after(node);
    sim_at_node(sim, node, 50 * MS, tick, &node->index, 1);
}

static void tail(struct sim *sim, void *arg)
{
    struct node *node = sim->nodes[*(uint8_t *)arg];
    drain_tail(node);
    node_after(node);
    sim_at_node(sim, node, sim_between(sim, 50 * MS, 250 * MS), tail, &node->index, 1);
}

static void boot_again(struct sim *sim, void *arg)
{
    struct node *node = sim->nodes[*(uint8_t *)arg];
    if (!node->up)
        node_boot(node);
}

void node_boot_later(struct sim *sim, uint8_t index, int64_t delay_ns)
{
    sim_at(sim, delay_ns, boot_again, &index, 1);
}

void node_boot(struct node *node)
{
    struct sim *sim = node->sim;
    local_environment(node);
    node->boot++;
    memset(node->seen, 0, sizeof(node->seen));
    memset(node->noted, 0, sizeof(node->noted));
    memset(node->committed, 0, sizeof(node->committed));
    memset(node->tail, 0, sizeof(node->tail));
    memset(node->known, 0, sizeof(node->known));
    memset(node->drains, 0, sizeof(node->drains));
    memset(node->links, 0, sizeof(node->links));
    node->wait_count = 0;
    node->dying = node->reopen = node->writing = false;
    node->frozen_until_ns = 0;
    node->up = true;
    if (!local_open(node)) {
        node->up = false;
        node_boot_later(sim, node->index, 2 * S);
        return;
    }
    struct ha_options options = {.self = node->index,
                                 .members = NODES,
                                 .zone = {0, 1, 2},
                                 .seed = sim_chance(sim),
                                 .takeover_after_ns = TAKEOVER_AFTER,
                                 .heartbeat_ns = TAKEOVER_AFTER / 10,
                                 .turn_ns = 2 * S,
                                 .let_go_ns = 30 * S,
                                 .order_wait_ns = 60 * S,
                                 .rival_wait_ns = 4 * S,
                                 .rival_wait_max_ns = 60 * S,
                                 .resend_ns = S,
                                 .retry_ns = S / 2,
                                 .trim_every_ns = 2 * S};
    node->order_given_up += node->core.figures.order_given_up;
    ha_init(&node->core, &options, node_now(node));
    local_check(node);
    for (uint32_t stream = 0; stream < sim->ledger->stream_count; stream++) {
        if (stream != node->current)
            tell_held(node, stream);
        for (uint64_t seq = 1; seq <= ledger_at(sim, stream)->end; seq++)
            if (ledger_at(sim, stream)->records[seq].known & (1u << node->index))
                node_remember(node, stream, seq, seq);
    }
    struct ha_head head;
    head_of(sim, node->current, &head);
    if (!ha_open(&node->core, node_now(node), ledger_at(sim, node->current)->id, &head))
        sim_violation(sim, "node %u: no room in the table for its own stream", node->index);
    sim_at_node(sim, node, sim_between(sim, 0, 50 * MS), tick, &node->index, 1);
    sim_at_node(sim, node, sim_between(sim, 0, 100 * MS), tail, &node->index, 1);
    node_after(node);
}

// ---- end

void node_crash(struct node *node, enum disk_crash what, bool lose_disk)
{
    struct sim *sim = node->sim;
    if (node->up) {
        node->dying = true;
        local_crash(node, what);
        shelf_crash(node);
        node->up = false;
        net_crashed(sim, node);
    }
    if (lose_disk) {
        disk_free(node->disk);
        node->disk = disk_new(UINT64_C(24) << 20);
        struct storage inner = disk_storage(node->disk);
        fault_init(&node->fault, &inner);
        node->storage = fault_storage(&node->fault);
        shelf_lose(node);
        ledger_disk_lost(sim, node->index);
    }
    sim_note(sim, "node %u crashes%s", node->index, lose_disk ? " and loses its disk" : "");
}

void node_freeze(struct node *node, int64_t for_ns)
{
    node->frozen_until_ns = node->sim->now_ns + for_ns;
    sim_note(node->sim, "node %u freezes for %.1f s", node->index, (double)for_ns / (double)S);
}

// ---- actions

static void send_frames(struct node *node, const struct ha_action *action)
{
    const struct copy *copy = shelf_find(node, ledger_stream(node->sim, action->stream));
    if (copy != NULL && action->stream.member != node->index && action->first < copy->first)
        sim_violation(node->sim, "node %u is to send %llu of a copy that begins at %llu", node->index,
                      (unsigned long long)action->first, (unsigned long long)copy->first);
    // Frames of a few records, as group commits make them.
    for (uint64_t first = action->first; first <= action->last;) {
        uint64_t last = first + (uint64_t)sim_between(node->sim, 0, 7);
        struct ha_message frame = {.kind = HA_FRAME,
                                   .from = node->index,
                                   .stream = action->stream,
                                   .first = first,
                                   .last = last < action->last ? last : action->last,
                                   .stated_through = action->stated_through,
                                   .acked_through = ha_two_zones(&node->core, action->stream),
                                   .repair = action->repair,
                                   .head = action->head};
        net_send(node->sim, node, action->peer, &frame);
        first = frame.last + 1;
    }
}

static void say(struct node *node, const struct ha_action *action)
{
    struct ha_message message = {.kind = action->refused ? HA_REFUSED : HA_DURABLE,
                                 .from = node->index,
                                 .stream = action->stream,
                                 .last = action->last};
    net_send(node->sim, node, action->peer, &message);
}

static void recall(struct node *node, const struct ha_action *action)
{
    uint32_t stream = ledger_stream(node->sim, action->stream);
    for (uint8_t lane = 0; lane < LANES; lane++)
        if (node->seen[stream][lane].drainer.counter != 0)
            ha_saw_progress(&node->core, node_now(node), action->stream, lane_id(lane), &node->seen[stream][lane],
                            false);
}

static void act(struct node *node, const struct ha_action *action)
{
    switch (action->kind) {
    case HA_SEND:
        send_frames(node, action);
        break;
    case HA_SAY:
        say(node, action);
        break;
    case HA_SAY_ALL:
        ha_heartbeat(&node->core, node_now(node), &node->heartbeat);
        net_send(node->sim, node, action->peer, &node->heartbeat);
        break;
    case HA_STORE:
        shelf_store(node, action);
        break;
    case HA_FENCE_MARK:
    case HA_MARK_EMPTY:
        shelf_mark(node, action);
        break;
    case HA_OPEN:
        node->reopen = true; // at the next tick
        break;
    case HA_TRIM:
        shelf_trim(node, ledger_stream(node->sim, action->stream), action->last);
        tell_held(node, ledger_stream(node->sim, action->stream));
        break;
    case HA_RECALL:
        recall(node, action);
        break;
    case HA_ALARM:
        sim_violation(node->sim, "node %u: progress went back", node->index);
        break;
    case HA_INIT:
    case HA_READ:
    case HA_CLAIM:
    case HA_PRODUCE:
    case HA_CLOSE:
    case HA_RELEASE:
    case HA_LOOK:
    case HA_TOMBSTONE:
        drain_action(node, action);
        break;
    }
}

void node_after(struct node *node)
{
    struct ha_action action;
    while (ha_next(&node->core, &action))
        act(node, &action);
    node_answers(node);
}

// ---- requests

void node_remember(struct node *node, uint32_t stream, uint64_t first, uint64_t last)
{
    for (uint64_t seq = first; seq <= last; seq++) {
        struct known *known = &node->known[ledger_at(node->sim, stream)->records[seq].event];
        if (known->stream == 0)
            *known = (struct known){.stream = stream + 1, .seq = seq};
    }
}

static enum ack_verdict verdict(struct node *node, const struct wait *wait)
{
    struct sim *sim = node->sim;
    const struct stream_truth *truth = ledger_at(sim, wait->stream);
    uint8_t lane = sim->ledger->events[wait->event].lane;
    uint64_t committed = node->committed[wait->stream][lane], seen = node->seen[wait->stream][lane].through;
    struct ack_positions positions = {.kafka_committed = committed > seen ? committed : seen};
    if (wait->stream == node->current) {
        positions.synced = node->spool != NULL ? spool_synced_seq(node->spool) : 0;
        positions.peer_synced = ha_peer_synced(&node->core, truth->id);
    } else {
        // Of an older stream or another's: the level as far as this node can know it.
        positions.synced = positions.peer_synced = ha_two_zones(&node->core, truth->id);
        if (positions.kafka_committed > positions.synced)
            positions.synced = positions.kafka_committed;
    }
    return ack_decide((enum ack_level)wait->level, wait->seq, &positions);
}

void node_answers(struct node *node)
{
    struct sim *sim = node->sim;
    for (uint32_t i = 0; i < node->wait_count;) {
        struct wait *wait = &node->waits[i];
        enum ack_verdict now = verdict(node, wait);
        if (now == ACK_WAIT && sim->now_ns < wait->deadline_ns) {
            i++;
            continue;
        }
        struct stream_truth *truth = ledger_at(sim, wait->stream);
        if (now == ACK_GIVE)
            ledger_acknowledged(sim, wait->event, wait->stream, wait->seq, wait->level);
        if (now == ACK_GIVE && truth->id.member == node->index && truth->boot == node->boot)
            truth->records[wait->seq].accepted = true;
        client_answer(sim, wait->event, wait->attempt, now == ACK_GIVE);
        *wait = node->waits[--node->wait_count];
    }
}

void node_request(struct node *node, uint32_t event, uint32_t attempt)
{
    struct sim *sim = node->sim;
    struct known *known = &node->known[event];
    bool room = node->wait_count < WAITS_MAX && ha_ready(&node->core);
    if (room && known->stream == 0) {
        room = node->core.current != NULL && !node->reopen && sim->ledger->events[event].places < PLACES_MAX &&
               local_submit(node, event);
        if (room)
            *known = (struct known){.stream = node->current + 1, .seq = node->submitted};
    }
    if (!room) {
        client_answer(sim, event, attempt, false);
        return;
    }
    node->waits[node->wait_count++] = (struct wait){.event = event,
                                                    .attempt = attempt,
                                                    .stream = known->stream - 1,
                                                    .seq = known->seq,
                                                    .level = sim->ledger->events[event].level,
                                                    .deadline_ns = sim->now_ns + ACK_TIMEOUT};
    if (known->stream - 1 == node->current)
        ha_appended(&node->core, node_now(node), node->submitted);
    node_after(node);
}
