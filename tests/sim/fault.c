// What goes wrong: one fault after another, several at once, each with an end; and the healing of all of them.
//
// Faults stay inside the promise (guarantee (b): two zones destroyed before the surviving copy was copied again): after
// a disk was lost the next one is lost only when every acknowledged event is in Kafka or on two disks again, and that
// must come about within COPY_WITHIN of a time without other faults.
#include "tests/sim/node.h"

#define COPY_WITHIN (30 * S)

static uint8_t any_node(struct sim *sim)
{
    return (uint8_t)sim_between(sim, 0, NODES - 1);
}

static void crash(struct sim *sim, uint8_t index, bool lose)
{
    struct node *node = sim->nodes[index];
    static const enum disk_crash kinds[] = {DISK_KEEP_ALL, DISK_KEEP_SOME, DISK_KEEP_NOTHING, DISK_KEEP_BLOCKS};
    node_crash(node, kinds[sim_chance(sim) % 4], lose);
    int64_t after_ns = sim_often(sim, 300) ? sim_between(sim, 5 * S, 60 * S) : sim_between(sim, 50 * MS, 5 * S);
    node_boot_later(sim, index, after_ns);
}

static void crash_now(struct sim *sim, void *arg)
{
    struct node *node = sim->nodes[*(uint8_t *)arg];
    node->slow_disk_ns = 0;
    if (node->up && !sim->calm && !sim->healing)
        crash(sim, node->index, false);
}

// While its disk was slow its peers' were not: they have what it never synced.
static void crash_behind_its_peers(struct sim *sim, uint8_t index)
{
    sim->nodes[index]->slow_disk_ns = sim_between(sim, 200 * MS, S);
    sim_at(sim, sim_between(sim, 100 * MS, S), crash_now, &index, 1);
}

// ---- faults with an end

struct ending {
    uint8_t kind, a, b;
};
enum { END_LINK, END_KAFKA_LINK, END_KAFKA, END_TOPIC, END_SLOW_DISK, END_FULL_DISK, END_SLOW_NET, END_LOSSY_NET };

static void over(struct sim *sim, void *arg)
{
    const struct ending *ending = arg;
    switch (ending->kind) {
    case END_LINK:
        sim->link[ending->a][ending->b] = true;
        break;
    case END_KAFKA_LINK:
        sim->kafka_link[ending->a] = true;
        break;
    case END_KAFKA:
        sim->kafka->down = sim->quiet_kafka;
        break;
    case END_TOPIC:
        sim->kafka->topic_down[ending->a] = false;
        break;
    case END_SLOW_DISK:
        sim->nodes[ending->a]->slow_disk_ns = 0;
        break;
    case END_FULL_DISK:
        disk_set_capacity(sim->nodes[ending->a]->disk, UINT64_C(24) << 20);
        break;
    case END_SLOW_NET:
        sim->slow_net = false;
        break;
    default:
        sim->lossy_net = false;
        break;
    }
}

static void until(struct sim *sim, int64_t most_ns, uint8_t kind, uint8_t a, uint8_t b)
{
    struct ending ending = {.kind = kind, .a = a, .b = b};
    sim_at(sim, sim_between(sim, 100 * MS, most_ns), over, &ending, sizeof(ending));
}

static void cut(struct sim *sim)
{
    uint8_t a = any_node(sim), b = (uint8_t)((a + 1 + sim_chance(sim) % 2) % NODES);
    bool both = sim_often(sim, 500);
    sim_note(sim, "cut %u -> %u%s", a, b, both ? " and back" : "");
    sim->link[a][b] = false;
    until(sim, 40 * S, END_LINK, a, b);
    if (both) {
        sim->link[b][a] = false;
        until(sim, 40 * S, END_LINK, b, a);
    }
}

static void kafka_fault(struct sim *sim)
{
    uint8_t lane = (uint8_t)(sim_chance(sim) % LANES), node = any_node(sim);
    switch (sim_chance(sim) % 5) {
    case 0:
        sim_note(sim, "kafka is down");
        sim->kafka->down = true;
        until(sim, 30 * S, END_KAFKA, 0, 0);
        break;
    case 1:
        sim_note(sim, "topic %u has too few replicas", lane);
        sim->kafka->topic_down[lane] = true;
        until(sim, 30 * S, END_TOPIC, lane, 0);
        break;
    case 2:
        sim_note(sim, "the coordinator moves");
        sim->kafka->coordinator_moves_until_ns = sim->now_ns + sim_between(sim, 100 * MS, 8 * S);
        break;
    default:
        sim_note(sim, "cut %u -> kafka", node);
        sim->kafka_link[node] = false;
        until(sim, 50 * S, END_KAFKA_LINK, node, 0);
        break;
    }
}

static void disk_trouble(struct sim *sim)
{
    uint8_t index = any_node(sim);
    struct node *node = sim->nodes[index];
    switch (sim_chance(sim) % 3) {
    case 0:
        sim_note(sim, "disk of %u is slow", index);
        node->slow_disk_ns = sim_between(sim, 10 * MS, S);
        until(sim, 20 * S, END_SLOW_DISK, index, 0);
        break;
    case 1:
        sim_note(sim, "disk of %u is full", index);
        disk_set_capacity(node->disk, disk_used(node->disk) + 4096);
        until(sim, 20 * S, END_FULL_DISK, index, 0);
        break;
    default:
        sim_note(sim, "disk of %u fails at its next sync", index);
        if (node->up)
            fault_set(&node->fault, FAULT_FDATASYNC, atomic_load(&node->fault.calls[FAULT_FDATASYNC]) + 1, 5, true);
        break;
    }
}

static void net_trouble(struct sim *sim)
{
    if (sim_often(sim, 500)) {
        sim->slow_net = true;
        until(sim, 20 * S, END_SLOW_NET, 0, 0);
    } else {
        sim->lossy_net = true;
        until(sim, 30 * S, END_LOSSY_NET, 0, 0);
    }
}

static void next_fault(struct sim *sim, void *arg);

// ---- the loss of a disk

static void heal_all(struct sim *sim)
{
    for (uint8_t i = 0; i < NODES; i++) {
        struct node *node = sim->nodes[i];
        for (uint8_t k = 0; k < NODES; k++)
            sim->link[i][k] = true;
        sim->kafka_link[i] = true;
        node->frozen_until_ns = node->frozen_until_ns > sim->now_ns ? sim->now_ns : node->frozen_until_ns;
        node->slow_disk_ns = 0;
        fault_clear(&node->fault);
        disk_set_capacity(node->disk, UINT64_C(24) << 20);
        if (!node->up)
            node_boot(node);
    }
    sim->kafka->down = sim->quiet_kafka;
    sim->kafka->topic_down[0] = sim->kafka->topic_down[1] = false;
    sim->kafka->coordinator_moves_until_ns = 0;
    sim->slow_net = sim->lossy_net = false;
}

static void copied(struct sim *sim, void *arg)
{
    (void)arg;
    uint64_t thin = ledger_thin(sim);
    if (thin > 0)
        sim_violation(sim, "%llu acknowledged events have one copy, %d s after every fault ended",
                      (unsigned long long)thin, (int)(COPY_WITHIN / S));
    sim->disk_lost_ns = 0;
    sim->calm = false;
    sim->quiet_kafka = sim->kafka->down = false;
    sim_note(sim, "two copies again");
    next_fault(sim, NULL);
}

static void calm(struct sim *sim, void *arg)
{
    (void)arg;
    if (sim->healing)
        return;
    sim->calm = true;
    // Often without Kafka: then the copies must be made from disk to disk.
    sim->quiet_kafka = sim_often(sim, 500);
    heal_all(sim);
    sim_note(sim, "calm%s", sim->quiet_kafka ? ", without kafka" : "");
    sim_at(sim, COPY_WITHIN, copied, NULL, 0);
}

static void lose_disk(struct sim *sim)
{
    uint8_t index = any_node(sim);
    if (sim->disk_lost_ns != 0 || ledger_thin(sim) > 0)
        return;
    sim->disk_lost_ns = sim->now_ns;
    crash(sim, index, true);
    sim_at(sim, sim_between(sim, S, 60 * S), calm, NULL, 0);
}

static void next_fault(struct sim *sim, void *arg)
{
    (void)arg;
    if (sim->healing || sim->calm)
        return; // copied() begins again
    uint64_t kind = sim_chance(sim) % 20;
    uint8_t index = any_node(sim);
    if (kind < 2 && sim->nodes[index]->up)
        crash(sim, index, false);
    else if (kind < 4)
        crash_behind_its_peers(sim, index);
    else if (kind < 6)
        lose_disk(sim);
    else if (kind < 9 && sim->nodes[index]->up)
        node_freeze(sim->nodes[index], sim_between(sim, 200 * MS, sim_often(sim, 500) ? 3 * S : 60 * S));
    else if (kind < 13)
        cut(sim);
    else if (kind < 16)
        kafka_fault(sim);
    else if (kind < 18)
        disk_trouble(sim);
    else if (kind < 19)
        net_trouble(sim);
    else
        sim->nodes[index]->wall_offset_ns += sim_between(sim, -3600 * S, 3600 * S);
    sim_at(sim, sim_often(sim, 300) ? sim_between(sim, 0, 500 * MS) : sim_between(sim, 500 * MS, 8 * S), next_fault,
           NULL, 0);
}

void fault_start(struct sim *sim)
{
    sim_at(sim, 2 * S, next_fault, NULL, 0);
}

void fault_heal(struct sim *sim)
{
    sim->healing = true;
    sim->quiet_kafka = false;
    sim_note(sim, "healed");
    heal_all(sim);
}
