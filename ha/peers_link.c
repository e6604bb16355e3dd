// One connection: its bytes, in and out, and its end.
//
// Happy path: connect (LINK_CONNECTING), TLS's handshake (LINK_TLS), the greeting (peers_greet.c), then messages, each
// read into one piece of memory and given to the caller as views of it.
//
// Why the reading and writing is here and not libevent's bufferevent: that one reads 4 KiB a call, and a frame of a
// megabyte would then be pulled together by copying (decision 12). Output is libevent's evbuffer, which keeps
// references to frames that belong to others.
//
// Failure modes: every way to the end goes through link_close, once, with a reason in words. Whatever goes wrong while
// a user's callback is on the stack dooms the link, and the next turn of the loop closes it. A message that does not
// decode ends the connection: on a stream of bytes there is nothing to go on from.
#include "ha/peers_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    PARTS_MAX = 64,
    TLS_WRITE_BYTES = 64 << 10, // of one call
    INPUT_BYTES_GREETING = GREETING_BYTES_MAX + WIRE_HEADER_BYTES,
    UNREAD_MS_LEAST = 30000,
};

static void on_event(evutil_socket_t fd, short what, void *user);
static void on_timer(evutil_socket_t fd, short what, void *user);

// ---- life

static struct timeval duration(int64_t ns)
{
    return (struct timeval){.tv_sec = ns / SL_NS_PER_S, .tv_usec = ns % SL_NS_PER_S / 1000};
}

static int64_t greeting_ns(const struct peers *peers)
{
    return peers->options.silence_ns < GREETING_NS ? peers->options.silence_ns : GREETING_NS;
}

static void set_options(const struct link *link)
{
    int on = 1;
    setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    // Somebody who acknowledges nothing, or holds his window shut, for so long is gone. Our own silence_ns does not see
    // this while reading is held.
    int64_t unread_ms = 2 * link->peers->options.silence_ns / SL_NS_PER_MS;
    unsigned most_ms =
        unread_ms > UNREAD_MS_LEAST ? (unsigned)(unread_ms < INT32_MAX ? unread_ms : INT32_MAX) : UNREAD_MS_LEAST;
    setsockopt(link->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &most_ms, sizeof(most_ms));
}

static bool make_parts(struct link *link)
{
    struct event_base *base = link->peers->options.base;
    link->in_capacity = INPUT_BYTES_GREETING;
    link->readable = event_new(base, link->fd, EV_READ | EV_PERSIST, on_event, link);
    link->writable = event_new(base, link->fd, EV_WRITE | EV_PERSIST, on_event, link);
    link->again = evtimer_new(base, on_event, link);
    link->timer = evtimer_new(base, on_timer, link);
    link->out = evbuffer_new();
    link->in = malloc(link->in_capacity);
    return link->readable != NULL && link->writable != NULL && link->again != NULL && link->timer != NULL &&
           link->out != NULL && link->in != NULL;
}

struct link *link_new(struct peers *peers, int fd, uint8_t peer, bool dialled, const char *address)
{
    struct link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        close(fd);
        return NULL;
    }
    *link = (struct link){.peers = peers, .fd = fd, .peer = peer, .dialled = dialled, .next = peers->links};
    snprintf(link->address, sizeof(link->address), "%s", address);
    peers->links = link;
    if (!make_parts(link)) {
        link_free(link);
        return NULL;
    }
    set_options(link);
    struct timeval deadline = duration(greeting_ns(peers));
    event_add(link->timer, &deadline);
    if (dialled) {
        link->state = LINK_CONNECTING;
        link->writing = event_add(link->writable, NULL) == 0;
    } else {
        link->state = LINK_TLS;
        link_wake(link);
    }
    return link;
}

void link_free(struct link *link)
{
    struct link **at = &link->peers->links;
    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    tls_end(link);
    struct event *events[] = {link->readable, link->writable, link->again, link->timer};
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
        if (events[i] != NULL)
            event_free(events[i]);
    if (link->out != NULL)
        evbuffer_free(link->out);
    close(link->fd);
    free(link->in);
    free(link);
}

void link_close(struct link *link, const char *why)
{
    struct peers *peers = link->peers;
    uint8_t peer = link->peer;
    char reason[WHY_MAX], address[sizeof(link->address)];
    snprintf(reason, sizeof(reason), "%s", why);
    snprintf(address, sizeof(address), "%s", link->address);
    bool session = link->state == LINK_UP;
    bool dialled = link->dialled;
    bool steady = session && sl_monotonic_ns() - link->up_ns >= STEADY_NS;
    if (session)
        peers->peer[peer].link = NULL;
    if (dialled)
        peers->peer[peer].dialled = NULL;
    link_free(link);
    if (session) {
        snprintf(peers->peer[peer].status.trouble, sizeof(peers->peer[peer].status.trouble), "%.255s", reason);
        sl_logf(SL_WARN, "peers", "session with a peer ended", SL_STR("peer", peers->options.names[peer]),
                SL_STR("address", address), SL_STR("why", reason));
    } else {
        peers_notice(peers, peer, address, reason);
    }
    if (steady)
        peers->peer[peer].retry_ns = RETRY_NS;
    if (dialled)
        peer_dial_failed(peers, peer);
    if (session)
        peers->options.on_down(peers->options.user, peer, reason);
}

void link_doom(struct link *link, const char *why)
{
    if (link->doomed[0] == '\0')
        snprintf(link->doomed, sizeof(link->doomed), "%s", why);
    link_wake(link);
}

void link_wake(struct link *link)
{
    // By way of a timer and not event_active(): epoll is asked in between, so that no link can keep the others waiting.
    static const struct timeval at_once;
    if (!evtimer_pending(link->again, NULL))
        event_add(link->again, &at_once);
}

bool link_put(struct link *link, const void *bytes, size_t length)
{
    if (evbuffer_add(link->out, bytes, length) == 0)
        return true;
    link_doom(link, "no memory for output");
    return false;
}

// ---- input

// Room for `wanted` bytes from in_start on. False: no memory.
static bool make_room(struct link *link, size_t wanted)
{
    if (link->in_start > 0) {
        memmove(link->in, link->in + link->in_start, link->in_end - link->in_start);
        link->in_end -= link->in_start;
        link->in_start = 0;
    }
    if (wanted <= link->in_capacity)
        return true;
    uint8_t *in = realloc(link->in, wanted);
    if (in == NULL)
        return false;
    link->in = in;
    link->in_capacity = wanted;
    return true;
}

static void shrink(struct link *link)
{
    if (link->in_start != link->in_end)
        return;
    link->in_start = link->in_end = 0;
    if (link->in_capacity <= INPUT_BYTES_KEPT)
        return;
    uint8_t *in = malloc(INPUT_BYTES_LEAST);
    if (in == NULL)
        return;
    free(link->in);
    link->in = in;
    link->in_capacity = INPUT_BYTES_LEAST;
}

static bool take_message(struct link *link, const struct wire_header *header, char *why)
{
    struct peers *peers = link->peers;
    const uint8_t *bytes = link->in + link->in_start;
    struct sl_error err;
    switch (link->state) {
    case LINK_HELLO:
        return link_take_hello(link, header, bytes, why);
    case LINK_WELCOME:
        return link_take_welcome(link, header, bytes, why);
    default:
        break;
    }
    if (!wire_decode(&peers->incoming, &peers->cell, link->peer, header, bytes, &err)) {
        snprintf(why, WHY_MAX, "%s", err.text);
        return false;
    }
    peers->options.on_message(peers->options.user, link->peer, &peers->incoming);
    return true;
}

// The first bytes of a TLS record: a handshake or an alert.
static bool looks_like_tls(const struct link *link, const uint8_t *bytes)
{
    return link->ssl == NULL && link->state == LINK_HELLO && (bytes[0] == 0x16 || bytes[0] == 0x15) && bytes[1] == 3;
}

// Every whole message; of the next one, room for all of it.
static bool take_messages(struct link *link, char *why)
{
    const struct peers_options *options = &link->peers->options;
    while (!link->held && link->doomed[0] == '\0' && link->in_end - link->in_start >= WIRE_HEADER_BYTES) {
        const uint8_t *bytes = link->in + link->in_start;
        size_t most = link->state == LINK_UP ? options->message_bytes_max : GREETING_BYTES_MAX;
        struct wire_header header;
        struct sl_error err;
        if (!wire_decode_header(&header, bytes, most, &err)) {
            snprintf(why, WHY_MAX, "%s",
                     looks_like_tls(link, bytes)
                         ? "the other end speaks TLS and this node does not: ha.tls must be on at all nodes, or at none"
                         : err.text);
            return false;
        }
        size_t length = WIRE_HEADER_BYTES + (size_t)header.length;
        if (link->in_end - link->in_start < length) {
            if (link->in_start + length > link->in_capacity && !make_room(link, length)) {
                snprintf(why, WHY_MAX, "no memory for a message of %zu bytes", length);
                return false;
            }
            return true;
        }
        if (!take_message(link, &header, why))
            return false;
        link->in_start += length;
    }
    return true;
}

static enum link_io receive(struct link *link, void *bytes, size_t room, size_t *length, char *why)
{
    if (link->ssl != NULL)
        return tls_read(link, bytes, room, length, why);
    ssize_t got = recv(link->fd, bytes, room, 0);
    if (got > 0) {
        *length = (size_t)got;
        return IO_DONE;
    }
    if (got == 0)
        return IO_END;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
        return IO_AGAIN;
    snprintf(why, WHY_MAX, "%s", strerror(errno));
    return IO_FAILED;
}

// A plain process says its HELLO as soon as it is connected; one that wants TLS takes this node's and hangs up, each
// time. So does, once or twice, a process that just ends, or a relay in between: only what goes on is a reason to ask.
static const char *explain_muteness(const struct link *link)
{
    bool heard_out = link->dialled && evbuffer_get_length(link->out) == 0;
    struct peer *peer = link->peer != PEER_NONE ? &link->peers->peer[link->peer] : NULL;
    if (!heard_out || peer == NULL || ++peer->mute_ends < MUTE_ENDS)
        return " before it said a word";
    return " before it said a word, again and again: is ha.tls on there, and off here?";
}

// During the greeting the other end may have its reasons, which only its own log can tell.
static void explain_end(const struct link *link, enum link_io how, char *why)
{
    char plain[WHY_MAX / 2];
    snprintf(plain, sizeof(plain), "%s", how == IO_END ? "the other end closed the connection" : why);
    const char *more = "";
    if (link->state == LINK_HELLO && link->ssl == NULL && link->in_end == 0)
        more = explain_muteness(link);
    else if (link->state == LINK_HELLO || link->state == LINK_WELCOME)
        more = " instead of a WELCOME: its log says why";
    snprintf(why, WHY_MAX, "%s%s", plain, more);
}

static bool read_some(struct link *link, char *why)
{
    struct peers *peers = link->peers;
    if (link->in_capacity < INPUT_BYTES_LEAST && link->state == LINK_UP && !make_room(link, INPUT_BYTES_LEAST)) {
        snprintf(why, WHY_MAX, "no memory for input");
        return false;
    }
    // What was held back while nobody wanted to read comes first.
    if (!take_messages(link, why))
        return false;
    for (size_t done = 0; !link->held && link->doomed[0] == '\0';) {
        size_t length = 0;
        shrink(link);
        bool room = link->in_end < link->in_capacity || make_room(link, link->in_end);
        sl_assert(room && link->in_end < link->in_capacity);
        enum link_io got = receive(link, link->in + link->in_end, link->in_capacity - link->in_end, &length, why);
        if (got == IO_AGAIN)
            return true;
        if (got != IO_DONE) {
            explain_end(link, got, why);
            return false;
        }
        link->received_ns = sl_monotonic_ns();
        link->in_end += length;
        if (link->peer != PEER_NONE)
            peers->peer[link->peer].status.bytes_in += length;
        if (!take_messages(link, why))
            return false;
        done += length;
        if (done >= RUN_BYTES_MAX) {
            link_wake(link);
            return true;
        }
    }
    return true;
}

// ---- output

static enum link_io send_some(struct link *link, size_t *written, char *why)
{
    struct evbuffer_iovec parts[PARTS_MAX];
    if (link->ssl != NULL) {
        evbuffer_peek(link->out, -1, NULL, parts, 1);
        size_t length = parts[0].iov_len < TLS_WRITE_BYTES ? parts[0].iov_len : TLS_WRITE_BYTES;
        return tls_write(link, parts[0].iov_base, length, written, why);
    }
    int count = evbuffer_peek(link->out, -1, NULL, parts, PARTS_MAX);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)(count < PARTS_MAX ? count : PARTS_MAX)};
    ssize_t sent = sendmsg(link->fd, &message, MSG_NOSIGNAL);
    if (sent >= 0) {
        *written = (size_t)sent;
        return IO_DONE;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
        return IO_AGAIN;
    snprintf(why, WHY_MAX, "%s", strerror(errno));
    return IO_FAILED;
}

static bool write_some(struct link *link, char *why)
{
    struct peers *peers = link->peers;
    for (size_t done = 0; evbuffer_get_length(link->out) > 0;) {
        size_t written = 0;
        enum link_io got = send_some(link, &written, why);
        if (got == IO_AGAIN)
            break;
        if (got != IO_DONE) {
            if (got == IO_END)
                snprintf(why, WHY_MAX, "the other end closed the connection");
            return false;
        }
        evbuffer_drain(link->out, written);
        if (link->peer != PEER_NONE)
            peers->peer[link->peer].status.bytes_out += written;
        done += written;
        if (done >= RUN_BYTES_MAX) {
            link_wake(link);
            break;
        }
    }
    if (link->full && evbuffer_get_length(link->out) <= peers->options.output_low_bytes) {
        link->full = false;
        peers->options.on_writable(peers->options.user, link->peer);
    }
    return true;
}

// ---- turns

static bool connected(struct link *link, char *why)
{
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        error = errno;
    if (error == 0) {
        link->state = LINK_TLS;
        return true;
    }
    link->peers->peer[link->peer].mute_ends = 0;
    snprintf(why, WHY_MAX, "cannot connect: %s", strerror(error));
    return false;
}

// Up to the greeting. False: it ends.
static bool get_going(struct link *link, char *why)
{
    if (link->state == LINK_CONNECTING && !connected(link, why))
        return false;
    if (link->state != LINK_TLS)
        return true;
    if (link->peers->options.tls_ca != NULL) {
        if (link->ssl == NULL && !tls_begin(link, why))
            return false;
        enum link_io got = tls_handshake(link, why);
        if (got == IO_AGAIN)
            return true;
        if (got != IO_DONE) {
            if (got == IO_END)
                snprintf(why, WHY_MAX, "the other end closed the connection during TLS's handshake");
            return false;
        }
        if (link->dialled && !tls_names(link, link->peer, why))
            return false;
    }
    link->state = LINK_HELLO;
    // By TLS the listener speaks first: its HELLO says that it took the dialler's certificate. Bytes that it never
    // reads would make the kernel drop the alert that says why it did not.
    return (link->dialled && link->ssl != NULL) || link_greet(link);
}

static void set_event(struct event *event, bool *added, bool wanted)
{
    if (wanted && !*added)
        *added = event_add(event, NULL) == 0;
    else if (!wanted && *added)
        *added = event_del(event) != 0;
}

static void run(struct link *link)
{
    char why[WHY_MAX] = "";
    bool going = true;
    link->tls_wants_write = false;
    if (link->doomed[0] == '\0')
        going = get_going(link, why);
    if (going && link->state >= LINK_HELLO && link->doomed[0] == '\0')
        going = read_some(link, why) && write_some(link, why);
    if (!going || link->doomed[0] != '\0') {
        // The own HELLO, so that the log at the other end says the same.
        char ignored[WHY_MAX];
        if (link->state == LINK_HELLO && !link->tls_broken)
            (void)write_some(link, ignored);
        link_close(link, link->doomed[0] != '\0' ? link->doomed : why);
        return;
    }
    bool waits = link->state >= LINK_HELLO && evbuffer_get_length(link->out) > 0;
    set_event(link->readable, &link->reading, !link->held);
    set_event(link->writable, &link->writing, waits || link->tls_wants_write);
}

static void on_event(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    struct link *link = user;
    peers_bind(link->peers);
    run(link);
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    struct link *link = user;
    peers_bind(link->peers);
    int64_t silence_ns = link->peers->options.silence_ns;
    char why[WHY_MAX];
    if (link->state != LINK_UP) {
        static const char *const stages[] = {"the connection", "TLS's handshake", "the HELLO", "the WELCOME"};
        snprintf(why, sizeof(why), "nothing came of it within %.1f s: %s was awaited",
                 (double)greeting_ns(link->peers) / 1e9, stages[link->state]);
        link_close(link, why);
        return;
    }
    int64_t left_ns = link->received_ns + silence_ns - sl_monotonic_ns();
    if (link->held)
        left_ns = silence_ns;
    if (left_ns <= 0) {
        snprintf(why, sizeof(why), "nothing was received for %.1f s", (double)silence_ns / 1e9);
        link_close(link, why);
        return;
    }
    struct timeval next = duration(left_ns + SL_NS_PER_MS);
    event_add(link->timer, &next);
}
