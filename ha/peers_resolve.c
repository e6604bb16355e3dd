// Addresses: their text, and names to numbers. A look-up may take many seconds when a zone with its name server is
// gone, which is when heartbeats matter most: so it runs in a thread of its own, which ends with it and touches nothing
// but its struct resolve. That is freed by whoever lets go of it last.
#include "ha/peers_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct resolve {
    struct peers *peers;
    uint8_t peer;
    void (*done)(struct peers *, uint8_t peer, const struct sockaddr_storage *addresses, size_t count, const char *why);
    struct event *event;
    struct host_port where;
    int fd; // an eventfd, readable when the thread is done
    _Atomic int references;
    // The thread's, until it raised fd:
    struct sockaddr_storage addresses[ADDRESSES_MAX];
    size_t count;
    char why[WHY_MAX];
};

bool host_port_parse(struct host_port *out, const char *address)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL)
        return false;
    size_t length = (size_t)(colon - address);
    const char *host = address;
    if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
        host++;
        length -= 2;
    } else if (memchr(host, ':', length) != NULL) {
        return false; // a v6 address without brackets
    }
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end != '\0' || port > UINT16_MAX || length >= sizeof(out->host))
        return false;
    memcpy(out->host, host, length);
    out->host[length] = '\0';
    snprintf(out->port, sizeof(out->port), "%u", (unsigned)port & UINT16_MAX);
    return true;
}

socklen_t address_length(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

void address_text(const struct sockaddr_storage *address, char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "unknown";
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof(host));
        snprintf(text, size, "[%s]:%u", host, ntohs(six->sin6_port));
    } else {
        const struct sockaddr_in *four = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &four->sin_addr, host, sizeof(host));
        snprintf(text, size, "%s:%u", host, ntohs(four->sin_port));
    }
}

bool resolve_now(const struct host_port *where, bool passive, bool numeric, struct sockaddr_storage *out, size_t *count,
                 char why[WHY_MAX])
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0) | (numeric ? AI_NUMERICHOST : 0)};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(where->host[0] != '\0' ? where->host : NULL, where->port, &hints, &found);
    *count = 0;
    if (error != 0) {
        snprintf(why, WHY_MAX, "cannot find the address of %s: %s", where->host,
                 error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
        return false;
    }
    for (const struct addrinfo *at = found; at != NULL && *count < ADDRESSES_MAX; at = at->ai_next) {
        if (at->ai_family != AF_INET && at->ai_family != AF_INET6)
            continue;
        memset(&out[*count], 0, sizeof(out[0]));
        memcpy(&out[(*count)++], at->ai_addr, at->ai_addrlen);
    }
    freeaddrinfo(found);
    if (*count == 0)
        snprintf(why, WHY_MAX, "%s has no address", where->host);
    return *count > 0;
}

static void let_go(struct resolve *resolve)
{
    if (atomic_fetch_sub(&resolve->references, 1) > 1)
        return;
    close(resolve->fd);
    free(resolve);
}

static void *look_up(void *user)
{
    struct resolve *resolve = user;
    uint64_t one = 1;
    if (!resolve_now(&resolve->where, false, false, resolve->addresses, &resolve->count, resolve->why))
        resolve->count = 0;
    ssize_t wrote = write(resolve->fd, &one, sizeof(one));
    sl_assert(wrote == sizeof(one));
    let_go(resolve);
    return NULL;
}

static void on_found(evutil_socket_t fd, short what, void *user)
{
    (void)what;
    struct resolve *resolve = user;
    uint64_t value;
    peers_bind(resolve->peers);
    if (read(fd, &value, sizeof(value)) != sizeof(value))
        return;
    resolve->done(resolve->peers, resolve->peer, resolve->addresses, resolve->count, resolve->why);
    resolve_stop(resolve);
}

static bool begin_thread(struct resolve *resolve)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before; // signals are the main thread's
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool begun = pthread_create(&thread, &attributes, look_up, resolve) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return begun;
}

struct resolve *resolve_start(struct peers *peers, uint8_t peer, const struct host_port *where,
                              void (*done)(struct peers *, uint8_t peer, const struct sockaddr_storage *addresses,
                                           size_t count, const char *why))
{
    struct resolve *resolve = calloc(1, sizeof(*resolve));
    if (resolve == NULL)
        return NULL;
    resolve->peers = peers;
    resolve->peer = peer;
    resolve->done = done;
    resolve->where = *where;
    resolve->references = 2;
    resolve->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (resolve->fd < 0)
        goto no_fd;
    resolve->event = event_new(peers->options.base, resolve->fd, EV_READ | EV_PERSIST, on_found, resolve);
    if (resolve->event == NULL || event_add(resolve->event, NULL) != 0 || !begin_thread(resolve))
        goto no_thread;
    return resolve;

no_thread:
    if (resolve->event != NULL)
        event_free(resolve->event);
    close(resolve->fd);
no_fd:
    free(resolve);
    return NULL;
}

void resolve_stop(struct resolve *resolve)
{
    event_free(resolve->event);
    let_go(resolve);
}
