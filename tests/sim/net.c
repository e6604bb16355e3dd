// The network between gateways: connections that break when a process dies or a direction is cut for long, messages
// that are late, and, beyond what TCP does, doubled, dropped and out of order.
#include "tests/sim/node.h"

#include <stdlib.h>
#include <string.h>

struct delivery {
    uint64_t link;
    uint8_t to;
    struct ha_message message; // cut behind the entries that it has
};

static void deliver(struct sim *sim, void *arg)
{
    const struct delivery *delivery = arg;
    struct node *node = sim->nodes[delivery->to];
    uint8_t from = delivery->message.from;
    // Of a connection that this process has given up, or never had.
    if (node->links[from] != delivery->link)
        return;
    ha_receive(&node->core, node_now(node), &delivery->message);
    node_after(node);
}

void net_send(struct sim *sim, struct node *from, uint8_t to, const struct ha_message *message)
{
    static struct delivery delivery;
    if (from->links[to] == 0 || !sim->link[from->index][to] || (sim->lossy_net && sim_often(sim, 50)))
        return;
    uint32_t entries = message->kind == HA_HEARTBEAT ? message->entry_count : 0;
    size_t length = offsetof(struct ha_message, entries) + entries * sizeof(message->entries[0]);
    delivery.link = from->links[to];
    delivery.to = to;
    memcpy(&delivery.message, message, length);
    for (int copies = sim->lossy_net && sim_often(sim, 50) ? 2 : 1; copies > 0; copies--) {
        int64_t delay_ns = sim_between(sim, MS / 5, 2 * MS);
        if (sim->slow_net)
            delay_ns += sim_between(sim, 10 * MS, 800 * MS);
        // In order, as TCP has it, or nearly never.
        int64_t *last_ns = &from->sent_ns[to];
        if (sim->lossy_net && sim_often(sim, 50))
            delay_ns += sim_between(sim, 0, 2 * S);
        else if (sim->now_ns + delay_ns > *last_ns)
            *last_ns = sim->now_ns + delay_ns;
        else
            delay_ns = *last_ns - sim->now_ns;
        sim_at_node(sim, sim->nodes[to], delay_ns, deliver, &delivery, offsetof(struct delivery, message) + length);
    }
}

// ---- connections

struct end {
    uint8_t node, peer;
    uint64_t link;
};

static void is_up(struct sim *sim, void *arg)
{
    const struct end *end = arg;
    struct node *node = sim->nodes[end->node];
    node->links[end->peer] = end->link;
    node->sent_ns[end->peer] = 0;
    ha_peer_up(&node->core, node_now(node), end->peer);
    node_after(node);
}

static void is_down(struct sim *sim, void *arg)
{
    const struct end *end = arg;
    struct node *node = sim->nodes[end->node];
    if (node->links[end->peer] != end->link)
        return;
    node->links[end->peer] = 0;
    ha_peer_down(&node->core, node_now(node), end->peer);
    node_after(node);
}

static void break_end(struct sim *sim, struct node *node, uint8_t peer, int64_t delay_ns)
{
    struct end end = {.node = node->index, .peer = peer, .link = node->links[peer]};
    if (node->up && end.link != 0)
        sim_at_node(sim, node, delay_ns, is_down, &end, sizeof(end));
}

void net_crashed(struct sim *sim, struct node *node)
{
    for (uint8_t peer = 0; peer < NODES; peer++)
        if (peer != node->index && sim->nodes[peer]->links[node->index] == node->links[peer])
            break_end(sim, sim->nodes[peer], node->index, sim_between(sim, MS, 3 * S));
}

struct pair {
    uint8_t a, b;
    int64_t cut_since_ns;
};

static void watch(struct sim *sim, void *arg)
{
    struct pair pair = *(struct pair *)arg;
    struct node *a = sim->nodes[pair.a], *b = sim->nodes[pair.b];
    bool whole = sim->link[pair.a][pair.b] && sim->link[pair.b][pair.a];
    pair.cut_since_ns = whole ? 0 : pair.cut_since_ns != 0 ? pair.cut_since_ns : sim->now_ns;
    bool connected = a->up && b->up && a->links[pair.b] != 0 && a->links[pair.b] == b->links[pair.a];
    if (connected && !whole && sim->now_ns - pair.cut_since_ns > 3 * S) {
        break_end(sim, a, pair.b, sim_between(sim, 0, S));
        break_end(sim, b, pair.a, sim_between(sim, 0, S));
    }
    // An end that thinks it is connected to a process that is gone notices by itself.
    if (!connected && a->up && b->up) {
        break_end(sim, a, pair.b, sim_between(sim, MS, S));
        break_end(sim, b, pair.a, sim_between(sim, MS, S));
    }
    bool awake = a->frozen_until_ns <= sim->now_ns && b->frozen_until_ns <= sim->now_ns;
    if (whole && awake && a->up && b->up && a->links[pair.b] == 0 && b->links[pair.a] == 0) {
        uint64_t link = ++sim->links_made;
        is_up(sim, &(struct end){.node = pair.a, .peer = pair.b, .link = link});
        is_up(sim, &(struct end){.node = pair.b, .peer = pair.a, .link = link});
    }
    sim_at(sim, sim_between(sim, 200 * MS, 500 * MS), watch, &pair, sizeof(pair));
}

void net_start(struct sim *sim)
{
    for (uint8_t a = 0; a < NODES; a++)
        for (uint8_t b = 0; b < NODES; b++) {
            sim->link[a][b] = true;
            struct pair pair = {.a = a, .b = b};
            if (a < b)
                sim_at(sim, 0, watch, &pair, sizeof(pair));
        }
}
