// A whole cell in one process and virtual time: three gateways with the protocol core of ha/ and the real spool over
// simulated disks, a network, a model of Kafka's transactions, clients, faults, and the ledger that knows the truth.
//
// Everything that happens is an event of one queue, ordered by time and then by number; all chance comes from one seed.
// So a seed is a run, to the byte.
//
// Threads: none.
#ifndef SLUICE_TESTS_SIM_SIM_H
#define SLUICE_TESTS_SIM_SIM_H

#include "base/clock.h"
#include "base/error.h"
#include "ha/ha.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    NODES = 3,
    LANES = 2,      // a source, a topic and a lane are one here
    KEYS = 6,       // keys of a source
    PARTITIONS = 2, // of the progress topic
    STREAMS_MAX = 1024,
    TXN_RECORDS = 8,
};
#define MS SL_NS_PER_MS
#define S  SL_NS_PER_S

struct sim;
struct node;
struct kafka;
struct ledger;
struct client;

// ---- events

typedef void (*sim_run)(struct sim *sim, void *arg); // arg is freed afterwards
struct sim_event {
    int64_t at_ns;
    uint64_t number;
    sim_run run;
    void *arg;
    struct node *node; // NULL: of no process. Else: not while it is frozen, not when it is another incarnation
    uint64_t boot;
};

struct sim {
    uint64_t seed, chance;
    int64_t now_ns;
    uint64_t events_made, steps, trace_hash;
    bool trace, healing, calm, quiet_kafka;
    struct sim_event *heap;
    size_t heap_count, heap_capacity;
    struct node *nodes[NODES];
    struct kafka *kafka;
    struct ledger *ledger;
    struct client *clients;
    bool link[NODES][NODES], kafka_link[NODES]; // link[from][to]
    bool slow_net, lossy_net;
    int64_t disk_lost_ns; // the last time that a disk was lost; 0: never
    uint64_t links_made;
    unsigned violations;
    char first_violation[400];
};

uint64_t sim_chance(struct sim *sim);
bool sim_often(struct sim *sim, unsigned per_mille);
int64_t sim_between(struct sim *sim, int64_t low, int64_t high); // both included
// arg is copied.
void sim_at(struct sim *sim, int64_t delay_ns, sim_run run, const void *arg, size_t arg_size);
void sim_at_node(struct sim *sim, struct node *node, int64_t delay_ns, sim_run run, const void *arg, size_t arg_size);
// Runs the next event. False: there is none.
bool sim_step(struct sim *sim);
void sim_note(struct sim *sim, const char *format, ...) SL_PRINTF(2, 3); // of the trace
void sim_violation(struct sim *sim, const char *format, ...) SL_PRINTF(2, 3);

// ---- net.c

void net_start(struct sim *sim);
void net_send(struct sim *sim, struct node *from, uint8_t to, const struct ha_message *message);
void net_crashed(struct sim *sim, struct node *node);

// ---- fault.c

void fault_start(struct sim *sim);
void fault_heal(struct sim *sim);

// ---- client.c

void client_start(struct sim *sim);
void client_free(struct sim *sim);
// The answer to attempt `attempt` of event `event`: 2xx (with the place where it is) or 503.
void client_answer(struct sim *sim, uint32_t event, uint32_t attempt, bool acknowledged);
bool client_waits(const struct sim *sim); // for any answer

#endif
