// A partner made by hand: bytes in, bytes out, right ones and wrong ones.
//
// Threads: one.
#ifndef SLUICE_TESTS_HA_PEERS_PARTNER_H
#define SLUICE_TESTS_HA_PEERS_PARTNER_H

#include "tests/ha/peers_node.h"

// A connection to the port, which does not block; the caller closes it.
int hand_dial(uint16_t port);
void hand_say(int fd, const void *bytes, size_t length);
// Whether the other end closed. What it says is read and passed over.
bool hand_closed(int fd);
// As member `self` would say it to that node.
struct wire_hello hand_hello(const struct node *to, uint8_t self);
void hand_greet(int fd, const struct wire_hello *hello, bool welcome);

#endif
