// Nodes of a cell with real sockets on loopback, all on one event loop of one thread, and what happened to them.
//
// Threads: one.
#ifndef SLUICE_TESTS_HA_PEERS_NODE_H
#define SLUICE_TESTS_HA_PEERS_NODE_H

#include "ha/peers_internal.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// cmocka wants it before its own header.
#include <setjmp.h>

#include <cmocka.h>

enum { NODE_BODY_KEPT = 64 };

struct node {
    struct peers *peers;
    struct peers_options options;
    char addresses[HA_MEMBERS_MAX][64];
    unsigned ups[HA_MEMBERS_MAX], downs[HA_MEMBERS_MAX], writables[HA_MEMBERS_MAX];
    char why[HA_MEMBERS_MAX][WHY_MAX]; // of the last on_down
    unsigned messages[HA_MEMBERS_MAX];
    struct ha_message last;
    // Of frames: seqs must follow one another, and the body is what frame_body made.
    uint64_t last_seq[HA_MEMBERS_MAX];
    uint64_t frame_bytes;
    bool broken_frame;
    bool hold_at_frame; // reading is held from within on_message
};

extern struct event_base *node_base;

void node_world_begin(void);
void node_world_end(void);
void node_turn(void); // of the loop; returns after a few ms at the latest

// Awaits a condition; nothing is asserted about how long it takes, within a deadline that says what did not happen.
#define AWAIT(condition)                                                                                               \
    for (int64_t deadline_ns = sl_monotonic_ns() + 90 * SL_NS_PER_S; !(condition); node_turn())                        \
        if (sl_monotonic_ns() > deadline_ns)                                                                           \
    fail_msg("in 90 s this did not come true: %s", #condition)

// Options as they are good for member `self` of three, plain. Members behind it are dialled at addresses[], set with
// node_address; without one, at a port where nobody listens.
void node_options(struct node *node, uint8_t self);
void node_address(struct node *node, uint8_t peer, uint16_t port);
void node_start(struct node *node);
void node_stop(struct node *node);
bool node_up(const struct node *node, uint8_t peer);
const char *node_trouble(const struct node *node, uint8_t peer); // valid until the next call
bool node_says(const struct node *node, uint8_t peer, const char *part);

// b (1) listens, then a (0) dials it.
void node_pair(struct node *a, struct node *b);

// Sends the frame with the seq, of `length` bytes; counts what was released in *released.
bool node_send_frame(struct node *node, uint8_t peer, uint64_t seq, size_t length, unsigned *released);
bool node_send_heartbeat(struct node *node, uint8_t peer);

#endif
