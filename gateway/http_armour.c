// The hooks' way back into the library, and the proof that they are reached.
//
// A call inside libh2o of one of its own exported functions goes through the library's PLT, and the dynamic linker
// binds it to the first definition in search order, which is the executable's. That holds as long as the library is not
// built with -Bsymbolic or -fno-semantic-interposition, and the executable is linked dynamically. Nothing would
// complain if it stopped to hold: so the proof is a conversation, over a socket pair, whose every step needs one of the
// hooks.
#include "gateway/http_internal.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct http_real http_real;
__thread struct http_here http_here = {.frame_type = -1};

static void *find(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (function == NULL)
        fprintf(stderr, "libh2o has no %s: %s\n", name, dlerror());
    sl_assert(function != NULL);
    return function;
}

// Before main: whoever calls into h2o first finds the hooks working.
__attribute__((constructor)) static void find_real_functions(void)
{
    const struct {
        const char *name;
        void *slot; // of a function pointer
    } wanted[] = {
        {"h2o_socket_read_start", &http_real.socket_read_start},
        {"h2o_socket_close", &http_real.socket_close},
        {"h2o_http2_accept", &http_real.http2_accept},
        {"h2o_http2_decode_frame", &http_real.decode_frame},
        {"h2o_http2_conn_register_stream", &http_real.register_stream},
        {"h2o_http2_conn_unregister_stream", &http_real.unregister_stream},
        {"h2o_http2_stream_reset", &http_real.stream_reset},
        {"h2o_http2__encode_rst_stream_frame", &http_real.encode_rst},
        {"h2o_hpack_parse_headers", &http_real.parse_headers},
        {"phr_parse_request", &http_real.parse_request},
    };
    // Never reached, since h2o_buffer_reserve() is ours; but the default is a file in /tmp with bodies in clear.
    h2o_socket_buffer_mmap_settings.threshold = SIZE_MAX;
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        void *function = find(wanted[i].name);
        memcpy(wanted[i].slot, &function, sizeof(function)); // POSIX: a function pointer has the size of an object's
    }
}

#ifdef SLUICE_HTTP_SABOTAGE
// SLUICE_HTTP_SABOTAGE in the environment: the names of the pieces to switch off, with commas around each.
bool http_disarmed(const char *piece)
{
    const char *disarmed = getenv("SLUICE_HTTP_SABOTAGE");
    char name[64];
    snprintf(name, sizeof(name), ",%s,", piece);
    return disarmed != NULL && strstr(disarmed, name) != NULL;
}
#endif

// ---- the proof

static const char *const hook_names[] = {
#define X(name) #name,
    HTTP_HOOKS(X)
#undef X
};

#define TEXT(literal)                                                                                                  \
    {                                                                                                                  \
        .bytes = literal, .length = sizeof(literal) - 1                                                                \
    }

static const struct sl_span conversations[] = {
    // a chunked body; then an expectation that h2o does not know
    TEXT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
         "POST / HTTP/1.1\r\nHost: a\r\nExpect: nothing\r\nContent-Length: 1\r\n\r\nx"),
    // HTTP/2 with prior knowledge: SETTINGS; HEADERS of streams 1 and 3 (:method POST, :scheme http, :path /), both
    // without
    // END_STREAM; RST_STREAM 1; WINDOW_UPDATE 3 by zero, which makes the server reset it
    TEXT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
         "\0\0\0\4\0\0\0\0\0"
         "\0\0\3\1\4\0\0\0\1\203\206\204"
         "\0\0\3\1\4\0\0\0\3\203\206\204"
         "\0\0\4\3\0\0\0\0\1\0\0\0\10"
         "\0\0\4\10\0\0\0\0\3\0\0\0\0"),
};

static void answer_at_once(struct http_request *request, void *user)
{
    (void)user;
    http_respond(request, 204, NULL, NULL, 0, NULL, 0);
}

static bool converse(struct http_loop *loop, struct sl_span words, struct sl_error *err)
{
    enum { TURNS = 8 };
    const struct http_address nobody = {.family = AF_UNIX};
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == -1)
        return sl_fail(err, SL_E_IO, "socket pair");
    bool written = write(pair[1], words.bytes, words.length) == (ssize_t)words.length;
    atomic_fetch_add_explicit(&loop->connections, 1, memory_order_relaxed);
    http_conn_adopt(loop, pair[0], false, &nobody, false);
    for (int i = 0; i < TURNS; i++)
        http_loop_turn(loop, 0);
    close(pair[1]);
    return written || sl_fail(err, SL_E_IO, "write to a socket pair");
}

static bool converse_all(struct http_server *server, struct sl_error *err)
{
    server->loops = aligned_alloc(64, sizeof(*server->loops));
    if (server->loops == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "a loop");
    struct http_loop *loop = server->loops;
    server->loop_count = 1;
    bool good = http_loop_prepare(loop, server, 0, err);
    if (good) {
        http_loop_open(loop);
        for (size_t i = 0; good && i < sizeof(conversations) / sizeof(conversations[0]); i++)
            good = converse(loop, conversations[i], err);
        http_loop_finish(loop);
        http_loop_close(loop);
    }
    free(server->loops);
    return good;
}

static bool all_seen(uint32_t seen, struct sl_error *err)
{
    char missing[400] = "";
    size_t length = 0;
    for (unsigned i = 0; i < HTTP_HOOK_COUNT && length < sizeof(missing); i++)
        if ((seen & 1u << i) == 0)
            length += (size_t)snprintf(missing + length, sizeof(missing) - length, " %s", hook_names[i]);
    return length == 0 ||
           sl_fail(err, SL_E_REFUSED, "libh2o no longer calls through the gateway's armour: not reached:%s", missing);
}

struct proof {
    bool good;
    struct sl_error *err;
};

// On a thread of its own, so that h2o's thread-local free lists end with it.
static void *prove(void *argument)
{
    struct proof *proof = argument;
    struct http_server server = {.options = {.name = "armour", .on_request = answer_at_once, .loop_count = 1},
                                 .limits = http_limits_default()};
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    http_server_configure(&server);
    http_here.hooks_seen = 0;
    proof->good = converse_all(&server, proof->err) && all_seen(http_here.hooks_seen, proof->err);
    http_server_dispose(&server);
    return NULL;
}

bool http_armour_prove(struct sl_error *err)
{
    struct proof proof = {.err = err};
    pthread_t thread;
    int error = pthread_create(&thread, NULL, prove, &proof);
    if (error != 0)
        return sl_fail_errno(err, SL_E_NO_MEMORY, error, "thread");
    pthread_join(thread, NULL);
    return proof.good;
}
