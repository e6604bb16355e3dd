// Listeners, the thread that accepts, and the caps on connections.
//
// One thread accepts for all loops and gives each connection to the loop that has the fewest. HTTP/2 clients, and load
// balancers in front of them, keep few connections for a long time: with SO_REUSEPORT, or all loops polling one socket,
// chance would put most of them on one loop. Accepting costs this thread a wake-up and a post a connection.
//
// Caps are checked before a loop hears of the connection; one over a cap is closed without a word. Addresses are
// counted in an open hash table under a mutex, taken once when a connection comes and once when it goes. IPv6 is
// counted by /64: who has one address has them all. Behind a balancer with PROXY protocol the address is known only
// when the header has come, so the loop looks at its cap then (http_proxy.c).
#include "gateway/http_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096, ACCEPTS_MAX = 64, PAUSE_MS = 100, UNIX_MODE = 0660 };

// ---- addresses

struct address_count {
    uint8_t key[17]; // 4 or 6, then the address
    uint32_t count;  // 0 = free
};

struct http_addresses {
    pthread_mutex_t mutex;
    size_t mask; // slots − 1; at least twice as many as connections
    struct address_count slots[];
};

void http_address_text(const struct http_address *address, char *text, size_t size)
{
    if (address->family == AF_UNIX)
        snprintf(text, size, "unix");
    else if (inet_ntop(address->family, address->bytes, text, (socklen_t)size) == NULL)
        snprintf(text, size, "unknown");
}

static void key_of(const struct http_address *address, uint8_t key[17])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    memset(key, 0, 17);
    if (address->family == AF_INET6 && memcmp(address->bytes, mapped, 12) != 0) {
        key[0] = 6;
        memcpy(key + 1, address->bytes, 8);
        return;
    }
    key[0] = 4;
    memcpy(key + 1, address->family == AF_INET6 ? address->bytes + 12 : address->bytes, 4);
}

static size_t hash_of(const uint8_t key[17])
{
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a: who floods one chain only reaches his own cap later
    for (int i = 0; i < 17; i++)
        hash = (hash ^ key[i]) * 0x100000001b3u;
    return (size_t)(hash ^ hash >> 29);
}

// The slot of a key, or the free one where it belongs.
static size_t find_address(const struct http_addresses *table, const uint8_t key[17])
{
    size_t at = hash_of(key) & table->mask;
    while (table->slots[at].count != 0 && memcmp(table->slots[at].key, key, 17) != 0)
        at = (at + 1) & table->mask;
    return at;
}

bool http_address_take(struct http_server *server, const struct http_address *address)
{
    struct http_addresses *table = server->addresses;
    uint8_t key[17];
    key_of(address, key);
    pthread_mutex_lock(&table->mutex);
    struct address_count *slot = &table->slots[find_address(table, key)];
    bool taken = slot->count < server->limits.connections_address || !HTTP_ARMED("address-cap");
    if (taken) {
        memcpy(slot->key, key, 17);
        slot->count++;
    }
    pthread_mutex_unlock(&table->mutex);
    return taken;
}

void http_address_release(struct http_server *server, const struct http_address *address)
{
    struct http_addresses *table = server->addresses;
    uint8_t key[17];
    key_of(address, key);
    pthread_mutex_lock(&table->mutex);
    size_t at = find_address(table, key);
    sl_assert(table->slots[at].count > 0);
    if (--table->slots[at].count == 0) {
        // Linear probing: close the gap, or chains that ran over this slot would break.
        size_t gap = at;
        for (size_t i = (at + 1) & table->mask; table->slots[i].count != 0; i = (i + 1) & table->mask) {
            size_t home = hash_of(table->slots[i].key) & table->mask;
            if (((i - home) & table->mask) < ((i - gap) & table->mask))
                continue;
            table->slots[gap] = table->slots[i];
            table->slots[i].count = 0;
            gap = i;
        }
    }
    pthread_mutex_unlock(&table->mutex);
}

static bool create_addresses(struct http_server *server, struct sl_error *err)
{
    size_t slots = 64;
    while (slots < (size_t)server->limits.connections * 2)
        slots *= 2;
    server->addresses = calloc(1, sizeof(*server->addresses) + slots * sizeof(struct address_count));
    if (server->addresses == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "table of %zu addresses", slots);
    server->addresses->mask = slots - 1;
    pthread_mutex_init(&server->addresses->mutex, NULL);
    return true;
}

// ---- binding

// Removes a socket file that nobody listens on; fails on a living one and on anything else.
static bool remove_stale(const struct sockaddr_un *name, struct sl_error *err)
{
    struct stat status;
    if (lstat(name->sun_path, &status) == -1)
        return errno == ENOENT || sl_fail_errno(err, SL_E_IO, errno, "unix:%s", name->sun_path);
    if (!S_ISSOCK(status.st_mode))
        return sl_fail(err, SL_E_CONFIG, "unix:%s: a file that is not a socket is in the way", name->sun_path);
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (probe == -1)
        return sl_fail_errno(err, SL_E_IO, errno, "unix:%s: socket", name->sun_path);
    int result = connect(probe, (const struct sockaddr *)name, sizeof(*name));
    int error = errno;
    close(probe);
    if (result == 0)
        return sl_fail(err, SL_E_LOCKED, "unix:%s: another process listens on it", name->sun_path);
    if (error != ECONNREFUSED)
        return sl_fail_errno(err, SL_E_IO, error, "unix:%s: cannot tell whether it is in use", name->sun_path);
    return unlink(name->sun_path) == 0 || errno == ENOENT ||
           sl_fail_errno(err, SL_E_IO, errno, "unix:%s: remove the stale socket", name->sun_path);
}

static bool bind_unix(struct http_bound *bound, const char *path, struct sl_error *err)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(name.sun_path) || path[0] == '\0')
        return sl_fail(err, SL_E_CONFIG, "unix:%s: a path of 1 to %zu bytes", path, sizeof(name.sun_path) - 1);
    memcpy(name.sun_path, path, strlen(path) + 1);
    if (!remove_stale(&name, err))
        return false;
    bound->is_unix = true;
    bound->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct stat status;
    // Nobody can connect before listen(), so the mode is right when it matters.
    if (bound->fd == -1 || bind(bound->fd, (struct sockaddr *)&name, sizeof(name)) == -1 ||
        chmod(path, UNIX_MODE) == -1 || lstat(path, &status) == -1)
        return sl_fail_errno(err, SL_E_IO, errno, "listen on unix:%s", path);
    bound->unix_path = strdup(path);
    bound->unix_device = status.st_dev;
    bound->unix_inode = status.st_ino;
    if (listen(bound->fd, BACKLOG) == -1)
        return sl_fail_errno(err, SL_E_IO, errno, "listen on unix:%s", path);
    return bound->unix_path != NULL || sl_fail(err, SL_E_NO_MEMORY, "listen on unix:%s", path);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage name = {0};
    socklen_t length = sizeof(name);
    getsockname(fd, (struct sockaddr *)&name, &length);
    if (name.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)(void *)&name)->sin_port);
    return ntohs(((struct sockaddr_in6 *)(void *)&name)->sin6_port);
}

// "host:port" or "[host]:port" into its parts.
static bool split(const char *address, char *host, size_t size, const char **port, struct sl_error *err)
{
    const char *colon = strrchr(address, ':');
    size_t length = colon != NULL ? (size_t)(colon - address) : 0;
    bool bracketed = length >= 2 && address[0] == '[' && address[length - 1] == ']';
    if (colon == NULL || length == 0 || length >= size || colon[1] == '\0' ||
        (!bracketed && memchr(address, ':', length) != NULL))
        return sl_fail(err, SL_E_CONFIG, "listen on \"%s\": not host:port, [host]:port or unix:/path", address);
    if (bracketed)
        snprintf(host, size, "%.*s", (int)(length - 2), address + 1);
    else
        snprintf(host, size, "%.*s", (int)length, address);
    *port = colon + 1;
    return true;
}

static bool bind_tcp(struct http_bound *bound, const char *address, struct sl_error *err)
{
    char host[256];
    const char *port = NULL;
    if (!split(address, host, sizeof(host), &port, err))
        return false;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
    int result = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &found);
    if (result != 0)
        return sl_fail(err, SL_E_CONFIG, "listen on %s: %s", address, gai_strerror(result));
    int on = 1, off = 0;
    bound->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool good = bound->fd != -1 && setsockopt(bound->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0;
    if (good && found->ai_family == AF_INET6) // [::] takes IPv4 too, whatever the system's default is
        good = setsockopt(bound->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) == 0;
    good = good && bind(bound->fd, found->ai_addr, found->ai_addrlen) == 0 && listen(bound->fd, BACKLOG) == 0;
    int error = errno;
    freeaddrinfo(found);
    if (!good)
        return sl_fail_errno(err, SL_E_IO, error, "listen on %s", address);
    bound->port = port_of(bound->fd);
    return true;
}

bool http_listen_bind(struct http_server *server, struct sl_error *err)
{
    const struct http_options *options = &server->options;
    server->bound = calloc(options->listener_count, sizeof(*server->bound));
    if (server->bound == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "%zu listeners", options->listener_count);
    for (size_t i = 0; i < options->listener_count; i++) {
        struct http_bound *bound = &server->bound[i];
        bound->fd = -1;
        bound->tls = options->listeners[i].tls;
        server->bound_count = i + 1;
        const char *address = options->listeners[i].address;
        bool is_unix = strncmp(address, "unix:", 5) == 0;
        bound->proxy = is_unix ? PROXY_OFF : options->proxy_protocol;
        if (is_unix ? !bind_unix(bound, address + 5, err) : !bind_tcp(bound, address, err))
            return false;
    }
    return create_addresses(server, err);
}

static void close_bound(struct http_bound *bound)
{
    struct stat status;
    if (bound->unix_path != NULL && lstat(bound->unix_path, &status) == 0 && status.st_dev == bound->unix_device &&
        status.st_ino == bound->unix_inode) // not another process's that took its place
        unlink(bound->unix_path);
    if (bound->fd != -1)
        close(bound->fd);
    bound->fd = -1;
    free(bound->unix_path);
    bound->unix_path = NULL;
}

// ---- accepting

struct adoption {
    struct http_task task;
    struct http_loop *loop;
    struct http_address peer;
    int fd;
    bool tls, tracked;
    enum proxy_version proxy;
};

static void on_adoption(struct http_task *task)
{
    struct adoption *adoption = H2O_STRUCT_FROM_MEMBER(struct adoption, task, task);
    if (adoption->proxy != PROXY_OFF)
        http_proxy_wait(adoption->loop, adoption->fd, adoption->tls, &adoption->peer, adoption->proxy);
    else
        http_conn_adopt(adoption->loop, adoption->fd, adoption->tls, &adoption->peer, adoption->tracked);
    free(adoption);
}

static struct http_address address_of(const struct sockaddr_storage *name)
{
    struct http_address address = {.family = AF_UNIX};
    if (name->ss_family == AF_INET) {
        const struct sockaddr_in *inet = (const void *)name;
        address.family = AF_INET;
        address.port = ntohs(inet->sin_port);
        memcpy(address.bytes, &inet->sin_addr, 4);
    } else if (name->ss_family == AF_INET6) {
        const struct sockaddr_in6 *inet6 = (const void *)name;
        address.family = AF_INET6;
        address.port = ntohs(inet6->sin6_port);
        memcpy(address.bytes, &inet6->sin6_addr, 16);
    }
    return address;
}

static struct http_loop *loop_with_fewest(struct http_server *server)
{
    struct http_loop *best = NULL;
    uint32_t fewest = UINT32_MAX;
    for (uint32_t i = 0; i < server->loop_count; i++) {
        uint32_t connections = atomic_load_explicit(&server->loops[i].connections, memory_order_relaxed);
        if (connections < fewest) {
            fewest = connections;
            best = &server->loops[i];
        }
    }
    return best;
}

static void hand_over(struct http_server *server, const struct http_bound *bound, int fd,
                      const struct sockaddr_storage *name)
{
    struct http_address peer = address_of(name);
    bool tracked = peer.family != AF_UNIX && bound->proxy == PROXY_OFF;
    bool room = http_server_connections(server) < server->limits.connections;
    if (!room || (tracked && !http_address_take(server, &peer))) {
        atomic_fetch_add_explicit(room ? &server->refused_address : &server->refused_connections, 1,
                                  memory_order_relaxed);
        close(fd);
        return;
    }
    int on = 1;
    if (peer.family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct http_loop *loop = loop_with_fewest(server);
    atomic_fetch_add_explicit(&loop->connections, 1, memory_order_relaxed);
    struct adoption *adoption = h2o_mem_alloc(sizeof(*adoption));
    *adoption = (struct adoption){.task = {.run = on_adoption},
                                  .loop = loop,
                                  .peer = peer,
                                  .fd = fd,
                                  .tls = bound->tls,
                                  .tracked = tracked,
                                  .proxy = bound->proxy};
    http_loop_post(loop, &adoption->task);
}

// False when the process has no descriptor to spare: wait a little, or the listener would be ready for ever.
static bool accept_some(struct http_server *server, const struct http_bound *bound)
{
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        struct sockaddr_storage name = {0};
        socklen_t length = sizeof(name);
        int fd = accept4(bound->fd, (struct sockaddr *)&name, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd == -1)
            return errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM;
        hand_over(server, bound, fd, &name);
    }
    return true;
}

struct drain_task {
    struct http_task task;
    struct http_loop *loop;
};

static void on_drain(struct http_task *task)
{
    struct drain_task *drain = H2O_STRUCT_FROM_MEMBER(struct drain_task, task, task);
    http_loop_drain(drain->loop);
    free(drain);
}

// After the last connection has been posted, so that the loops drain all of them.
static void close_listeners(struct http_server *server)
{
    for (size_t i = 0; i < server->bound_count; i++)
        close_bound(&server->bound[i]);
    for (uint32_t i = 0; i < server->loop_count; i++) {
        struct drain_task *drain = h2o_mem_alloc(sizeof(*drain));
        *drain = (struct drain_task){.task = {.run = on_drain}, .loop = &server->loops[i]};
        http_loop_post(&server->loops[i], &drain->task);
    }
}

static void *accept_main(void *argument)
{
    struct http_server *server = argument;
    char name[16];
    snprintf(name, sizeof(name), "%.8s-accept", server->options.name);
    pthread_setname_np(pthread_self(), name);
    struct pollfd *polled = calloc(server->bound_count + 1, sizeof(*polled));
    sl_assert(polled != NULL);
    for (size_t i = 0; i < server->bound_count; i++)
        polled[i] = (struct pollfd){.fd = server->bound[i].fd, .events = POLLIN};
    polled[server->bound_count] = (struct pollfd){.fd = server->acceptor_wake_fd, .events = POLLIN};
    while (!atomic_load(&server->closing)) {
        if (poll(polled, server->bound_count + 1, -1) == -1)
            continue; // EINTR
        for (size_t i = 0; i < server->bound_count; i++)
            if (polled[i].revents != 0 && !accept_some(server, &server->bound[i]))
                poll(&polled[server->bound_count], 1, PAUSE_MS);
    }
    for (size_t i = 0; i < server->bound_count; i++) // what the kernel has accepted already would be reset by close()
        for (int round = 0; round < BACKLOG / ACCEPTS_MAX; round++)
            accept_some(server, &server->bound[i]);
    close_listeners(server);
    free(polled);
    return NULL;
}

bool http_listen_start(struct http_server *server, struct sl_error *err)
{
    server->acceptor_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->acceptor_wake_fd == -1)
        return sl_fail_errno(err, SL_E_IO, errno, "eventfd");
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&server->acceptor, NULL, accept_main, server);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    server->acceptor_runs = error == 0;
    return error == 0 || sl_fail_errno(err, SL_E_NO_MEMORY, error, "thread that accepts");
}

void http_listen_close(struct http_server *server)
{
    uint64_t one = 1;
    if (!atomic_exchange(&server->closing, true))
        sl_assert(write(server->acceptor_wake_fd, &one, sizeof(one)) == sizeof(one));
}

void http_listen_stop(struct http_server *server)
{
    if (server->acceptor_runs) {
        http_listen_close(server);
        pthread_join(server->acceptor, NULL);
        server->acceptor_runs = false;
    }
    if (server->acceptor_wake_fd != -1)
        close(server->acceptor_wake_fd);
    server->acceptor_wake_fd = -1;
    for (size_t i = 0; i < server->bound_count; i++)
        close_bound(&server->bound[i]);
}

void http_listen_free(struct http_server *server)
{
    if (server->addresses != NULL)
        pthread_mutex_destroy(&server->addresses->mutex);
    free(server->addresses);
    free(server->bound);
}
