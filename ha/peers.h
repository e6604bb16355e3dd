// Sessions with the peers of a cell: one TCP connection a pair, plain or by mutual TLS 1.3, on the caller's event loop.
// Of a pair the member with the lesser name dials and the other listens. A session lasts from the moment when both took
// each other's HELLO to the end of the connection; a newer connection of a pair replaces the older one.
//
// Threads: everything here belongs to one thread, that of the event loop: no locks, and none are asked of libevent.
// Callbacks run from the loop, never from within a call of this header; they may call everything here but peers_stop.
// The process ignores SIGPIPE. Times are monotonic ns where they do not say wall.
#ifndef SLUICE_HA_PEERS_H
#define SLUICE_HA_PEERS_H

#include "base/error.h"
#include "ha/ha.h"
#include "ha/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct peers;

// All strings are copied.
struct peers_options {
    struct event_base *base;
    uint8_t self, members;                                     // 2 … HA_MEMBERS_MAX
    const char *names[HA_MEMBERS_MAX], *zones[HA_MEMBERS_MAX]; // names ascend
    const char *addresses[HA_MEMBERS_MAX]; // "host:port", "[v6]:port"; only of members behind `self` (it dials them)
    const char *listen;                    // the same; port 0: the kernel's choice
    const char *cluster;
    uint8_t dedupe_key_id[IDS_KEY_ID_BYTES];
    const char *tls_certificate, *tls_key, *tls_ca; // PEM files, read anew for each session; tls_ca NULL: plain
    int64_t silence_ns;                             // nothing received for so long: the session ends; > 0
    size_t message_bytes_max;                       // 0: WIRE_MESSAGE_MAX
    size_t output_high_bytes, output_low_bytes;     // of what waits to be sent to one peer
    void (*on_up)(void *user, uint8_t peer);
    void (*on_down)(void *user, uint8_t peer, const char *why);
    // Views live during the call. Of an ended session nothing comes after on_down.
    void (*on_message)(void *user, uint8_t peer, const struct wire_message *message);
    void (*on_writable)(void *user, uint8_t peer); // what waits fell to low or below after it had been at or above high
    void *user;
};

// Listens and dials. SL_E_INVALID: the options contradict each other; SL_E_CONFIG: a file of TLS cannot be used;
// SL_E_IO: the address cannot be listened at. A host name in `listen` is resolved before it returns.
bool peers_start(struct peers **out, const struct peers_options *options, struct sl_error *err) SL_MUST_USE;
// Ends all sessions without on_down, and releases what waits to be sent. NULL: nothing.
void peers_stop(struct peers *peers);
// The next call or callback may come from another thread, which has the event loop from then on.
void peers_hand_over(struct peers *peers);
// The port that it listens at.
uint16_t peers_port(const struct peers *peers);

// Queues a message; it goes out when the loop runs. The body of a frame is not copied: `release(held)` is called once
// when it is not needed any more, in every case, perhaps before this returns; it must not call anything of this header.
// NULL: the body need not live longer than the call (it is copied). False: there is no session, or the peer has not
// read so much for so long that the session ends (output_high_bytes, a message, and 1 MiB wait).
bool peers_send(struct peers *peers, uint8_t peer, const struct wire_message *message, void (*release)(void *),
                void *held);
// Less than output_high_bytes wait. Heartbeats and answers may be sent without asking.
bool peers_has_room(const struct peers *peers, uint8_t peer);
// While held, nothing more is read from the peer, so that TCP holds it back: heartbeats too. A session does not end by
// silence meanwhile, but a peer that is not read from for a long time (the greater of 30 s and twice its silence_ns)
// ends it. Ends with the session.
void peers_hold_reading(struct peers *peers, uint8_t peer, bool hold);

struct peer_status {
    bool up, tls;
    int64_t since_wall_ns;        // of `up`
    char address[128];            // of the other end, or where it is dialled; "" when it has not dialled this node
    char trouble[256];            // why there is no session; "" when there is one, or none was tried
    uint64_t sessions;            // that began
    uint64_t bytes_in, bytes_out; // of all sessions; without TLS's own
    size_t output_bytes;          // wait to be sent
};
void peers_status(const struct peers *peers, uint8_t peer, struct peer_status *out);

#endif
