// Connections: listening, and dialling the members behind this one.
//
// A dialler tries the addresses of a name in turn, one attempt at a time, and looks the name up again when it has been
// through them. After a failure it waits 0.1 s, then twice as long up to 2 s, half to one and a half of it: peers that
// came up together do not stay in step.
#include "ha/peers_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ACCEPTS_MAX = 16 }; // before others have their turn

static struct timeval duration(int64_t ns)
{
    return (struct timeval){.tv_sec = ns / SL_NS_PER_S, .tv_usec = ns % SL_NS_PER_S / 1000};
}

// ---- dialling

static int64_t jitter(int64_t ns)
{
    uint32_t chance;
    evutil_secure_rng_get_bytes(&chance, sizeof(chance));
    return ns / 2 + (int64_t)((uint64_t)ns * chance >> 32);
}

void peer_dial_failed(struct peers *peers, uint8_t peer)
{
    struct peer *to = &peers->peer[peer];
    struct timeval wait = duration(jitter(to->retry_ns));
    to->retry_ns = 2 * to->retry_ns < RETRY_MAX_NS ? 2 * to->retry_ns : RETRY_MAX_NS;
    event_add(to->dial, &wait);
}

static void connect_to(struct peers *peers, uint8_t peer, const struct sockaddr_storage *address)
{
    struct peer *to = &peers->peer[peer];
    char text[128], why[WHY_MAX];
    address_text(address, text, sizeof(text));
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 ||
        (connect(fd, (const struct sockaddr *)address, address_length(address)) != 0 && errno != EINPROGRESS)) {
        snprintf(why, sizeof(why), "cannot connect: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
    } else {
        to->dialled = link_new(peers, fd, peer, true, text);
        if (to->dialled != NULL)
            return;
        snprintf(why, sizeof(why), "cannot connect: no memory");
    }
    peers_notice(peers, peer, text, why);
    peer_dial_failed(peers, peer);
}

static void dial_next(struct peers *peers, uint8_t peer)
{
    struct peer *to = &peers->peer[peer];
    to->address_count--;
    connect_to(peers, peer, &to->addresses[to->address_count]);
}

// The first is what the resolver prefers; they are taken from the end.
static void keep(struct peer *to, const struct sockaddr_storage *addresses, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to->addresses[count - 1 - i] = addresses[i];
    to->address_count = count;
}

static void on_resolved(struct peers *peers, uint8_t peer, const struct sockaddr_storage *addresses, size_t count,
                        const char *why)
{
    struct peer *to = &peers->peer[peer];
    to->resolve = NULL;
    if (count == 0) {
        peers_notice(peers, peer, peers->options.addresses[peer], why);
        peer_dial_failed(peers, peer);
        return;
    }
    keep(to, addresses, count);
    dial_next(peers, peer);
}

static void dial(struct peers *peers, uint8_t peer)
{
    struct peer *to = &peers->peer[peer];
    struct host_port where;
    struct sockaddr_storage addresses[ADDRESSES_MAX];
    size_t count;
    char why[WHY_MAX];
    if (to->address_count > 0) {
        dial_next(peers, peer);
        return;
    }
    bool parsed = host_port_parse(&where, peers->options.addresses[peer]);
    sl_assert(parsed); // peers_start looked
    if (resolve_now(&where, false, true, addresses, &count, why)) {
        keep(to, addresses, count);
        dial_next(peers, peer);
        return;
    }
    to->resolve = resolve_start(peers, peer, &where, on_resolved);
    if (to->resolve == NULL) {
        peers_notice(peers, peer, peers->options.addresses[peer], "cannot look the address up: no memory or threads");
        peer_dial_failed(peers, peer);
    }
}

static void on_dial(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    struct peer *to = user;
    struct peers *peers = to->peers;
    peers_bind(peers);
    sl_assert(to->dialled == NULL && to->resolve == NULL);
    dial(peers, (uint8_t)(to - peers->peer));
}

bool peer_dial_start(struct peers *peers, uint8_t peer)
{
    static const struct timeval at_once;
    struct peer *to = &peers->peer[peer];
    to->retry_ns = RETRY_NS;
    to->dial = evtimer_new(peers->options.base, on_dial, to);
    return to->dial != NULL && event_add(to->dial, &at_once) == 0;
}

void peer_dial_stop(struct peers *peers, uint8_t peer)
{
    struct peer *to = &peers->peer[peer];
    if (to->dial != NULL)
        event_free(to->dial);
    if (to->resolve != NULL)
        resolve_stop(to->resolve);
}

// ---- listening

// Accepted ones that are no session yet: the oldest goes when there are too many. It is the one that says nothing.
static void make_place(struct peers *peers)
{
    unsigned count = 0;
    struct link *oldest = NULL; // new ones are put in front
    for (struct link *link = peers->links; link != NULL; link = link->next) {
        if (link->dialled || link->state == LINK_UP)
            continue;
        oldest = link;
        count++;
    }
    if (count >= LINKS_GREETING_MAX)
        link_close(oldest, "it said nothing while many others connected");
}

static void on_accept(evutil_socket_t fd, short what, void *user)
{
    (void)what;
    struct peers *peers = user;
    static const struct timeval pause = {.tv_sec = 1};
    peers_bind(peers);
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        struct sockaddr_storage from;
        socklen_t size = sizeof(from);
        char text[128];
        int accepted = accept4(fd, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                peers_notice(peers, PEER_NONE, "", "cannot accept a connection: out of descriptors or memory");
                event_del(peers->accept);
                event_add(peers->accept_again, &pause);
            }
            return;
        }
        address_text(&from, text, sizeof(text));
        make_place(peers);
        link_new(peers, accepted, PEER_NONE, false, text);
    }
}

static void on_accept_again(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    struct peers *peers = user;
    peers_bind(peers);
    event_add(peers->accept, NULL);
}

static bool bind_to(struct peers *peers, const struct sockaddr_storage *address, struct sl_error *err)
{
    int on = 1;
    peers->listen_fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (peers->listen_fd >= 0) {
        setsockopt(peers->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (bind(peers->listen_fd, (const struct sockaddr *)address, address_length(address)) == 0 &&
            listen(peers->listen_fd, SOMAXCONN) == 0)
            return true;
    }
    return sl_fail_errno(err, SL_E_IO, errno, "ha.listen %s", peers->options.listen);
}

bool peers_listen(struct peers *peers, struct sl_error *err)
{
    struct host_port where;
    struct sockaddr_storage addresses[ADDRESSES_MAX];
    size_t count;
    char why[WHY_MAX];
    if (!host_port_parse(&where, peers->options.listen))
        return sl_fail(err, SL_E_INVALID, "ha.listen %s is not host:port", peers->options.listen);
    if (!resolve_now(&where, true, false, addresses, &count, why))
        return sl_fail(err, SL_E_IO, "ha.listen %s: %.300s", peers->options.listen, why);
    if (!bind_to(peers, &addresses[0], err))
        return false;
    peers->accept = event_new(peers->options.base, peers->listen_fd, EV_READ | EV_PERSIST, on_accept, peers);
    peers->accept_again = evtimer_new(peers->options.base, on_accept_again, peers);
    if (peers->accept == NULL || peers->accept_again == NULL || event_add(peers->accept, NULL) != 0)
        return sl_fail(err, SL_E_NO_MEMORY, "ha.listen %s", peers->options.listen);
    return true;
}

void peers_listen_stop(struct peers *peers)
{
    if (peers->accept != NULL)
        event_free(peers->accept);
    if (peers->accept_again != NULL)
        event_free(peers->accept_again);
    if (peers->listen_fd >= 0)
        close(peers->listen_fd);
}
