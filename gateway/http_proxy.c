// Connections of a listener with PROXY protocol, until their header has come.
//
// Happy path: the acceptor hands a connection over, and its descriptor is watched by a socket that h2o does not read.
// What is there is looked at (MSG_PEEK) and parsed behind what came before. As long as the parser wants more, all of it
// is header, and is read; the last time exactly the rest of the header is read, so that TLS or HTTP find their first
// byte in the kernel. Then the client that the header names is counted against the cap of its address, the descriptor
// is taken back from the watching socket, and the connection begins as any other does (http_conn_adopt).
//
// Failure modes: no header, a wrong one, one that is not whole after limits.handshake_timeout, or the end in the midst
// of it: closed, counted, logged at most once in ten seconds. An end before the first byte is nothing: balancers look
// like that whether a port is open. A client over the cap of its address is closed without a word, as in the acceptor.
// While it waits, a connection counts against limits.connections, and against no address: it is the balancer's. When
// the server drains, what is not whole after a second goes without being counted.
#include "gateway/http_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOG_NS   (10 * SL_NS_PER_S)
#define DRAIN_NS SL_NS_PER_S

struct http_proxy_wait {
    struct http_loop *loop;
    h2o_socket_t *sock;
    struct http_proxy_wait *previous, *next;
    struct http_address peer; // the balancer
    int64_t since_ns;
    bool tls;
    enum proxy_version version;
    size_t length; // of bytes: header, and read
    uint8_t bytes[PROXY_HEADER_BYTES_MAX];
};

// Takes the descriptor back from h2o and frees the rest. `loop->connections` still counts it.
static int take_back(struct http_proxy_wait *wait)
{
    struct http_loop *loop = wait->loop;
    h2o_socket_export_t exported;
    sl_assert(h2o_socket_export(wait->sock, &exported) == 0); // it fails for TLS with bytes on their way only
    if (wait->previous != NULL)
        wait->previous->next = wait->next;
    else
        loop->proxy_waits = wait->next;
    if (wait->next != NULL)
        wait->next->previous = wait->previous;
    free(wait);
    return exported.fd;
}

static void close_uncounted(struct http_proxy_wait *wait)
{
    struct http_loop *loop = wait->loop;
    close(take_back(wait));
    atomic_fetch_sub_explicit(&loop->connections, 1, memory_order_relaxed);
}

// Several loops may be at it: one of them logs.
static void log_refusal(struct http_server *server, const struct http_address *peer, int64_t now_ns, const char *why)
{
    int64_t before_ns = atomic_load_explicit(&server->proxy_logged_ns, memory_order_relaxed);
    if ((before_ns != 0 && now_ns - before_ns < LOG_NS) ||
        !atomic_compare_exchange_strong(&server->proxy_logged_ns, &before_ns, now_ns)) {
        atomic_fetch_add_explicit(&server->proxy_not_logged, 1, memory_order_relaxed);
        return;
    }
    char text[64];
    http_address_text(peer, text, sizeof(text));
    sl_logf(SL_WARN, server->options.name, "connection refused: listen.proxy_protocol wants a header first",
            SL_STR("peer", text), SL_STR("why", why),
            SL_UINT("not_logged_since", atomic_exchange(&server->proxy_not_logged, 0)));
}

static void refuse(struct http_proxy_wait *wait, const char *why)
{
    struct http_server *server = wait->loop->server;
    atomic_fetch_add_explicit(&server->refused_proxy_header, 1, memory_order_relaxed);
    log_refusal(server, &wait->peer, http_loop_now_ns(wait->loop), why);
    close_uncounted(wait);
}

static struct http_address client_of(const struct http_proxy_wait *wait, const struct proxy_header *header)
{
    if (header->family == AF_UNSPEC)
        return wait->peer;
    struct http_address client = {.family = header->family, .port = header->port, .claimed = true};
    memcpy(client.bytes, header->address, sizeof(client.bytes));
    return client;
}

static void hand_on(struct http_proxy_wait *wait, const struct proxy_header *header)
{
    struct http_loop *loop = wait->loop;
    struct http_address client = client_of(wait, header);
    bool tls = wait->tls, tracked = client.family != AF_UNIX;
    if (tracked && !http_address_take(loop->server, &client)) {
        atomic_fetch_add_explicit(&loop->server->refused_address, 1, memory_order_relaxed);
        close_uncounted(wait);
        return;
    }
    http_conn_adopt(loop, take_back(wait), tls, &client, tracked);
}

static ssize_t receive(const struct http_proxy_wait *wait, void *bytes, size_t length, int flags)
{
    ssize_t got;
    do {
        got = recv(h2o_socket_get_fd(wait->sock), bytes, length, flags);
    } while (got == -1 && errno == EINTR);
    return got;
}

static void on_readable(h2o_socket_t *sock, const char *err)
{
    static const char ended[] = "the connection ended in the midst of its PROXY header";
    struct http_proxy_wait *wait = sock->data;
    sl_assert(err == NULL); // h2o only watches
    size_t most = wait->version == PROXY_V1 ? PROXY_V1_BYTES_MAX : PROXY_HEADER_BYTES_MAX;
    uint8_t *end = wait->bytes + wait->length;
    ssize_t seen = receive(wait, end, most - wait->length, MSG_PEEK);
    if (seen == -1 && errno == EAGAIN)
        return;
    if (seen <= 0 && wait->length == 0) {
        close_uncounted(wait);
        return;
    }
    if (seen <= 0) {
        refuse(wait, ended);
        return;
    }
    struct proxy_header header;
    const char *why = NULL;
    enum proxy_result result = proxy_parse(&header, wait->version, wait->bytes, wait->length + (size_t)seen, &why);
    if (result == PROXY_WRONG) {
        refuse(wait, why);
        return;
    }
    size_t of_header = result == PROXY_WHOLE ? header.length - wait->length : (size_t)seen;
    sl_assert(of_header > 0 && of_header <= (size_t)seen);
    if (receive(wait, end, of_header, 0) != (ssize_t)of_header) {
        refuse(wait, ended);
        return;
    }
    wait->length += of_header;
    if (result == PROXY_WHOLE)
        hand_on(wait, &header);
    else
        sl_assert(wait->length < most); // the parser does not wait beyond it
}

void http_proxy_wait(struct http_loop *loop, int fd, bool tls, const struct http_address *peer,
                     enum proxy_version version)
{
    struct http_proxy_wait *wait = h2o_mem_alloc(sizeof(*wait));
    memset(wait, 0, offsetof(struct http_proxy_wait, bytes));
    wait->loop = loop;
    wait->peer = *peer;
    wait->since_ns = http_loop_now_ns(loop);
    wait->tls = tls;
    wait->version = version;
    wait->next = loop->proxy_waits;
    if (wait->next != NULL)
        wait->next->previous = wait;
    loop->proxy_waits = wait;
    int flags = H2O_SOCKET_FLAG_IS_ACCEPTED_CONNECTION | H2O_SOCKET_FLAG_DONT_READ;
    wait->sock = h2o_evloop_socket_create(loop->evloop, fd, flags);
    wait->sock->data = wait;
    h2o_socket_read_start(wait->sock, on_readable);
}

void http_proxy_sweep(struct http_loop *loop, int64_t now_ns)
{
    int64_t limit_ns = loop->server->limits.handshake_timeout_ns;
    bool draining = loop->draining_ns != 0;
    for (struct http_proxy_wait *wait = loop->proxy_waits, *next; wait != NULL; wait = next) {
        next = wait->next;
        int64_t waited_ns = now_ns - wait->since_ns;
        if (draining && waited_ns >= DRAIN_NS)
            close_uncounted(wait);
        else if (waited_ns >= limit_ns)
            refuse(wait, wait->length == 0 ? "no PROXY header in time" : "the PROXY header was not complete in time");
    }
}

void http_proxy_close_all(struct http_loop *loop)
{
    while (loop->proxy_waits != NULL)
        close_uncounted(loop->proxy_waits);
}
