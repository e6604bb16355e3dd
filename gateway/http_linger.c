// Sockets of HTTP/1.1 connections that were answered and closed before their request had come completely.
//
// A close(2) with unread bytes makes the kernel send a reset, which may overtake the answer (RFC 9112 section 9.6). So
// a duplicate of the descriptor stays open, half closed, and what comes is thrown away: as long as something comes, for
// a client that sends slowly is not to lose its answer either, up to a limit of bytes and one of time.
#include "gateway/http_internal.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINGERS_MAX = 256, LINGER_BYTES_MAX = 64 << 20 };
#define QUIET_NS  (2 * SL_NS_PER_S) // without a byte
#define LINGER_NS (30 * SL_NS_PER_S)

struct http_linger {
    struct http_linger *next;
    struct http_loop *loop;
    h2o_socket_t *sock; // NULL: has ended
    int64_t quiet_until_ns, until_ns;
    size_t bytes;
};

static void end(struct http_linger *linger)
{
    h2o_socket_close(linger->sock);
    linger->sock = NULL;
}

static void on_bytes(h2o_socket_t *sock, const char *err)
{
    struct http_linger *linger = sock->data;
    linger->bytes += sock->input->size;
    linger->quiet_until_ns = http_loop_now_ns(linger->loop) + QUIET_NS;
    h2o_buffer_consume(&sock->input, sock->input->size);
    if (err != NULL || linger->bytes > LINGER_BYTES_MAX)
        end(linger);
}

void http_linger_add(struct http_loop *loop, h2o_socket_t *sock, bool tls)
{
    if (loop->linger_count >= LINGERS_MAX || !HTTP_ARMED("linger"))
        return;
    int fd = fcntl(h2o_socket_get_fd(sock), F_DUPFD_CLOEXEC, 3);
    if (fd == -1)
        return;
    if (!tls) // there h2o has its close_notify to write first
        shutdown(fd, SHUT_WR);
    struct http_linger *linger = h2o_mem_alloc(sizeof(*linger));
    int64_t now_ns = http_loop_now_ns(loop);
    *linger = (struct http_linger){.next = loop->lingers,
                                   .loop = loop,
                                   .sock = h2o_evloop_socket_create(loop->evloop, fd, 0),
                                   .quiet_until_ns = now_ns + QUIET_NS,
                                   .until_ns = now_ns + LINGER_NS};
    loop->lingers = linger;
    loop->linger_count++;
    linger->sock->data = linger;
    h2o_socket_read_start(linger->sock, on_bytes);
}

void http_linger_sweep(struct http_loop *loop, int64_t now_ns)
{
    for (struct http_linger **slot = &loop->lingers; *slot != NULL;) {
        struct http_linger *linger = *slot;
        if (linger->sock != NULL && (now_ns >= linger->quiet_until_ns || now_ns >= linger->until_ns))
            end(linger);
        if (linger->sock != NULL) {
            slot = &linger->next;
            continue;
        }
        *slot = linger->next;
        loop->linger_count--;
        free(linger);
    }
}
