// Clients: each event goes to its home gateway and, without a 2xx, again, there or elsewhere; some send what was
// acknowledged once more, anywhere.
#include "tests/sim/node.h"

#include <stdlib.h>

enum { TRIES = 6 };
#define PATIENCE (7 * S)

struct client { // of one event
    uint32_t attempt;
    bool waiting, again;
};

struct attempt {
    uint32_t event, attempt;
    uint8_t node;
    bool ok;
};

static void send(struct sim *sim, uint32_t event);

static void gave_up(struct sim *sim, void *arg)
{
    const struct attempt *attempt = arg;
    struct client *client = &sim->clients[attempt->event];
    if (!client->waiting || client->attempt != attempt->attempt)
        return;
    client->waiting = false;
    if (client->attempt < TRIES)
        send(sim, attempt->event);
}

static void arrives(struct sim *sim, void *arg)
{
    const struct attempt *attempt = arg;
    struct node *node = sim->nodes[attempt->node];
    node_request(node, attempt->event, attempt->attempt);
}

static void send_now(struct sim *sim, void *arg)
{
    struct attempt attempt = *(struct attempt *)arg;
    struct client *client = &sim->clients[attempt.event];
    attempt.attempt = ++client->attempt;
    client->waiting = true;
    const struct event_truth *truth = &sim->ledger->events[attempt.event];
    attempt.node = attempt.attempt == 1 || sim_often(sim, 500) ? truth->home : (uint8_t)sim_between(sim, 0, NODES - 1);
    struct node *node = sim->nodes[attempt.node];
    if (node->up)
        sim_at_node(sim, node, sim_between(sim, MS / 5, 5 * MS), arrives, &attempt, sizeof(attempt));
    sim_at(sim, node->up ? PATIENCE : sim_between(sim, MS, S), gave_up, &attempt, sizeof(attempt));
}

static void send(struct sim *sim, uint32_t event)
{
    struct attempt attempt = {.event = event};
    sim_at(sim, sim_between(sim, MS, 2 * S), send_now, &attempt, sizeof(attempt));
}

static void answered(struct sim *sim, void *arg)
{
    const struct attempt *attempt = arg;
    struct client *client = &sim->clients[attempt->event];
    if (!client->waiting || client->attempt != attempt->attempt)
        return;
    client->waiting = false;
    bool once_more = attempt->ok && !client->again && sim_often(sim, 150);
    client->again |= once_more;
    if (client->attempt < TRIES && (once_more || !attempt->ok))
        send(sim, attempt->event);
}

void client_answer(struct sim *sim, uint32_t event, uint32_t attempt, bool acknowledged)
{
    struct attempt answer = {.event = event, .attempt = attempt, .ok = acknowledged};
    if (!sim->healing && sim_often(sim, 20))
        return; // lost
    sim_at(sim, sim_between(sim, MS / 5, 5 * MS), answered, &answer, sizeof(answer));
}

static void next_event(struct sim *sim, void *arg)
{
    (void)arg;
    struct ledger *ledger = sim->ledger;
    if (sim->healing || ledger->event_count == EVENTS_MAX)
        return;
    uint32_t event = ledger->event_count++;
    uint64_t chance = sim_chance(sim);
    unsigned level = (unsigned)(chance >> 8) % 20;
    ledger->events[event] = (struct event_truth){.key = (uint8_t)(chance % KEYS),
                                                 .lane = (chance >> 16) % 5 == 0,
                                                 .home = (uint8_t)((chance >> 24) % NODES),
                                                 .level = level == 0   ? LEVEL_DISK
                                                          : level == 1 ? LEVEL_KAFKA
                                                                       : LEVEL_AZ2};
    struct attempt attempt = {.event = event};
    send_now(sim, &attempt);
    // Bursts and quiet times.
    sim_at(sim, sim_often(sim, 700) ? sim_between(sim, 0, 20 * MS) : sim_between(sim, 0, 300 * MS), next_event, NULL,
           0);
}

void client_start(struct sim *sim)
{
    sim->clients = calloc(EVENTS_MAX, sizeof(*sim->clients));
    sl_assert(sim->clients != NULL);
    sim_at(sim, S, next_event, NULL, 0);
}

void client_free(struct sim *sim)
{
    free(sim->clients);
}

bool client_waits(const struct sim *sim)
{
    for (uint32_t i = 0; i < sim->ledger->event_count; i++)
        if (sim->clients[i].waiting)
            return true;
    return false;
}
