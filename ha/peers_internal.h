// What the files of the sessions share. Nothing here is for other folders (tests/ha excepted).
//
// Threads: as peers.h. A link is closed by link_close alone, and only by a callback of the loop that touches it no more
// afterwards; everybody else dooms it (link_doom), so that no call from a user's callback frees what is on the stack.
#ifndef SLUICE_HA_PEERS_INTERNAL_H
#define SLUICE_HA_PEERS_INTERNAL_H

#include "ha/peers.h"

#include "base/log.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/socket.h>

struct resolve;

enum {
    PEER_NONE = UINT8_MAX,
    LINKS_GREETING_MAX = 16,       // accepted, and not yet a session; the oldest makes room for a newer one
    GREETING_BYTES_MAX = 4096,     // of a message before the session
    INPUT_BYTES_LEAST = 256 << 10, // room to read into, of a session
    INPUT_BYTES_KEPT = 4 << 20,    // a greater buffer is given back when it is empty
    RUN_BYTES_MAX = 4 << 20,       // read or written before others have their turn
    OUTPUT_SPARE_BYTES = 1 << 20,  // heartbeats and answers above output_high_bytes and a message
    ADDRESSES_MAX = 8,             // of one host name
    MUTE_ENDS = 3,                 // a peer that takes connections and says nothing: from the third on TLS is asked for
    WHY_MAX = 512,
};
#define GREETING_NS  (5 * SL_NS_PER_S) // from accept or connect to the session, at most; silence_ns if that is less
#define RETRY_NS     (SL_NS_PER_S / 10)
#define RETRY_MAX_NS (2 * SL_NS_PER_S)
#define STEADY_NS    (10 * SL_NS_PER_S) // a session that lasted so long begins the back-off anew
#define NOTICE_NS    (60 * SL_NS_PER_S)

enum link_state {
    LINK_CONNECTING,
    LINK_TLS,     // handshake
    LINK_HELLO,   // own HELLO is sent, theirs is awaited
    LINK_WELCOME, // theirs was taken
    LINK_UP,
};
struct link {
    struct peers *peers;
    struct link *next;
    enum link_state state;
    bool dialled;
    bool held; // the caller does not want to read
    bool full; // the output was at output_high_bytes or above; on_writable is owed
    bool tls_wants_write, tls_broken;
    uint8_t peer; // who it is, or is said to be; PEER_NONE: not known yet
    int fd;
    struct event *readable, *writable, *again, *timer;
    bool reading, writing; // the events are added
    SSL *ssl;              // NULL: plain
    struct evbuffer *out;
    uint8_t *in; // bytes in_start..in_end wait to be understood
    size_t in_start, in_end, in_capacity;
    int64_t received_ns, up_ns;
    uint64_t chance; // of the other process
    char address[128];
    char refused[WHY_MAX]; // what TLS found wrong with their certificate; "": nothing
    char doomed[WHY_MAX];  // why it ends at the next turn; "": it does not
};

// A line of the log that is said once a minute.
struct notice {
    int64_t said_ns; // 0: never
    uint64_t held_back;
    char text[WHY_MAX];
};

struct peer {
    struct peers *peers;
    struct link *link;       // the session
    struct link *dialled;    // the connection that this node makes, session or not yet
    struct event *dial;      // when to dial
    struct resolve *resolve; // NULL: none is under way
    struct sockaddr_storage addresses[ADDRESSES_MAX];
    size_t address_count; // not tried yet; the next one is the last
    int64_t retry_ns;
    unsigned mute_ends; // connections in a row that it took and ended before its first word
    struct notice notice;
    struct peer_status status; // up, address and output of it are found when asked
};

struct peers {
    struct peers_options options; // strings are the object's own
    struct wire_hello hello;
    struct wire_cell cell;
    struct peer peer[HA_MEMBERS_MAX];
    struct link *links;
    struct event *accept, *accept_again;
    int listen_fd;
    struct notice stranger;
    bool bound; // to `thread`
    pthread_t thread;
    struct wire_message incoming; // large; what is given to on_message
    uint8_t head[WIRE_HEAD_MAX];  // a message is written here first
};

// peers.c
void peers_bind(struct peers *peers); // every way in: asserts that it is the one thread
// Logs it if it was not said within a minute, and keeps it as the peer's trouble. PEER_NONE: of a stranger.
void peers_notice(struct peers *peers, uint8_t peer, const char *address, const char *why);

// peers_link.c
// Takes `fd`, and the peer (or PEER_NONE); NULL: no memory, fd is closed. It runs from the loop.
struct link *link_new(struct peers *peers, int fd, uint8_t peer, bool dialled, const char *address);
void link_close(struct link *link, const char *why);
void link_doom(struct link *link, const char *why);
void link_wake(struct link *link); // it runs soon
void link_free(struct link *link); // without a word to anybody
// Queues `length` bytes; the memory is copied.
bool link_put(struct link *link, const void *bytes, size_t length);

// peers_greet.c
bool link_greet(struct link *link);                                       // sends the HELLO
bool link_take_hello(struct link *link, const struct wire_header *header, // `why`: WHY_MAX bytes
                     const uint8_t *bytes, char *why);
bool link_take_welcome(struct link *link, const struct wire_header *header, const uint8_t *bytes, char *why);

// peers_dial.c
bool peers_listen(struct peers *peers, struct sl_error *err);
void peers_listen_stop(struct peers *peers);
bool peer_dial_start(struct peers *peers, uint8_t peer);
void peer_dial_failed(struct peers *peers, uint8_t peer); // again after the back-off
void peer_dial_stop(struct peers *peers, uint8_t peer);

// peers_resolve.c
struct host_port {
    char host[256], port[6]; // host "": any address
};
bool host_port_parse(struct host_port *out, const char *address); // "host:port", "[v6]:port", ":port"
void address_text(const struct sockaddr_storage *address, char *text, size_t size);
socklen_t address_length(const struct sockaddr_storage *address);
// Up to ADDRESSES_MAX. False: why, in words. Blocks, unless the host is a number.
bool resolve_now(const struct host_port *where, bool passive, bool numeric, struct sockaddr_storage *out, size_t *count,
                 char why[WHY_MAX]);
// In a thread of its own. `done` is called from the loop, once, unless resolve_stop comes first; NULL: no memory.
struct resolve *resolve_start(struct peers *peers, uint8_t peer, const struct host_port *where,
                              void (*done)(struct peers *, uint8_t peer, const struct sockaddr_storage *addresses,
                                           size_t count, const char *why));
void resolve_stop(struct resolve *resolve);

// peers_tls.c
enum link_io { IO_DONE, IO_AGAIN, IO_END, IO_FAILED };
bool tls_check_files(const struct peers_options *options, struct sl_error *err);
bool tls_begin(struct link *link, char *why); // reads the files
enum link_io tls_handshake(struct link *link, char *why);
enum link_io tls_read(struct link *link, void *bytes, size_t room, size_t *length, char *why);
enum link_io tls_write(struct link *link, const void *bytes, size_t length, size_t *written, char *why);
// Whether their certificate names the member, or its zone.
bool tls_names(struct link *link, uint8_t member, char *why);
void tls_end(struct link *link);

#endif
