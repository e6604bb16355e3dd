// A server: its loops, its listeners, starting and stopping.
#include "gateway/http_internal.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

struct http_limits http_limits_default(void)
{
    return (struct http_limits){
        .body_bytes = UINT64_C(16) << 20,
        .unfinished_bytes_connection = UINT64_C(32) << 20,
        .unfinished_bytes = UINT64_C(128) << 20,
        .header_block_bytes = 16384,
        .header_count = 128,
        .connections = 10000,
        .connections_address = 1000,
        .resets_minute = 200,
        .control_frames_minute = 60000,
        .request_timeout_ns = 30 * SL_NS_PER_S,
        .response_timeout_ns = 30 * SL_NS_PER_S,
        .idle_timeout_ns = 75 * SL_NS_PER_S,
        .handshake_timeout_ns = 10 * SL_NS_PER_S,
        .connection_age_ns = 0,
    };
}

static bool check_limits(const struct http_limits *limits, struct sl_error *err)
{
    if (limits->body_bytes == 0 || limits->body_bytes > UINT64_C(1) << 30)
        return sl_fail(err, SL_E_CONFIG, "a body of 1 byte to 1 GiB");
    if (limits->header_block_bytes < 1024 || limits->header_block_bytes > HTTP_HEADER_BLOCK_MAX)
        return sl_fail(err, SL_E_CONFIG, "a header block of 1 to %d KiB", HTTP_HEADER_BLOCK_MAX / 1024);
    if (limits->unfinished_bytes_connection < limits->body_bytes || limits->unfinished_bytes < limits->body_bytes)
        return sl_fail(err, SL_E_CONFIG, "the budgets of unfinished bodies hold at least one body");
    if (limits->header_count == 0 || limits->connections == 0 || limits->connections_address == 0)
        return sl_fail(err, SL_E_CONFIG, "header count and connection caps are at least 1");
    if (limits->request_timeout_ns <= 0 || limits->response_timeout_ns <= 0 || limits->idle_timeout_ns <= 0 ||
        limits->handshake_timeout_ns < SL_NS_PER_MS)
        return sl_fail(err, SL_E_CONFIG, "time limits are positive");
    return true;
}

void http_server_configure(struct http_server *server)
{
    const uint64_t never_ms = UINT64_C(1) << 40; // the sweep keeps the time
    h2o_globalconf_t *conf = &server->globalconf;
    h2o_config_init(conf);
    conf->server_name = h2o_iovec_init("", 0); // no Server header
    // One byte more than is taken: h2o counts "reached" for chunked bodies where it counts "passed" for others.
    conf->max_request_entity_size = server->limits.body_bytes + 1;
    conf->handshake_timeout = (uint64_t)(server->limits.handshake_timeout_ns / SL_NS_PER_MS);
    conf->http1.req_timeout = never_ms;
    conf->http2.idle_timeout = never_ms;
    server->host = h2o_config_register_host(conf, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    http_request_install(server);
}

void http_server_dispose(struct http_server *server)
{
    h2o_config_dispose(&server->globalconf);
}

static bool start_loops(struct http_server *server, struct sl_error *err)
{
    uint32_t wanted = server->options.loop_count;
    server->loops = aligned_alloc(64, wanted * sizeof(*server->loops));
    if (server->loops == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "%u loops", wanted);
    // All of them are there before the first runs: they look at each other's counters.
    uint32_t prepared = 0, started = 0;
    while (prepared < wanted && http_loop_prepare(&server->loops[prepared], server, prepared, err))
        prepared++;
    server->loop_count = prepared;
    while (prepared == wanted && started < wanted && http_loop_start(&server->loops[started], err))
        started++;
    if (started == wanted)
        return true;
    for (uint32_t i = 0; i < started; i++)
        http_loop_stop(&server->loops[i]);
    for (uint32_t i = started; i < prepared; i++)
        close(server->loops[i].wake_fd);
    server->loop_count = 0;
    return false;
}

static void free_server(struct http_server *server)
{
    http_listen_stop(server);
    if (server->globalconf.hosts != NULL)
        http_server_dispose(server);
    if (server->tls != NULL)
        SSL_CTX_free(server->tls);
    http_listen_free(server);
    free(server->loops);
    free(server);
}

bool http_server_start(struct http_server **out, const struct http_options *options, struct sl_error *err)
{
    *out = NULL;
    if (options->loop_count < 1 || options->loop_count > HTTP_LOOPS_MAX || options->listener_count < 1)
        return sl_fail(err, SL_E_CONFIG, "%s: 1 to %d loops and at least one listener", options->name, HTTP_LOOPS_MAX);
    if (!check_limits(&options->limits, err) || !http_armour_prove(err))
        return sl_wrap(err, "%s", options->name);
    struct http_server *server = calloc(1, sizeof(*server));
    if (server == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "%s", options->name);
    server->options = *options;
    server->limits = options->limits;
    server->acceptor_wake_fd = -1;
    if (!http_tls_create(&server->tls, options, err) || !http_listen_bind(server, err))
        goto fail;
    server->options.listeners = NULL; // the caller's; not needed any more
    http_server_configure(server);
    if (!start_loops(server, err))
        goto fail;
    if (!http_listen_start(server, err)) {
        for (uint32_t i = 0; i < server->loop_count; i++)
            http_loop_stop(&server->loops[i]);
        goto fail;
    }
    *out = server;
    return true;

fail:
    free_server(server);
    return sl_wrap(err, "%s", options->name);
}

uint16_t http_server_port(const struct http_server *server, size_t listener)
{
    sl_assert(listener < server->bound_count);
    return server->bound[listener].port;
}

enum proxy_version http_server_proxy_protocol(const struct http_server *server, size_t listener)
{
    sl_assert(listener < server->bound_count);
    return server->bound[listener].proxy;
}

uint32_t http_server_loop_count(const struct http_server *server)
{
    return server->loop_count;
}

struct http_loop *http_server_loop(struct http_server *server, uint32_t index)
{
    sl_assert(index < server->loop_count);
    return &server->loops[index];
}

void http_server_close_gracefully(struct http_server *server)
{
    http_listen_close(server);
}

uint32_t http_server_connections(const struct http_server *server)
{
    uint32_t connections = 0;
    for (uint32_t i = 0; i < server->loop_count; i++)
        connections += atomic_load_explicit(&server->loops[i].connections, memory_order_relaxed);
    return connections;
}

uint32_t http_server_requests(const struct http_server *server)
{
    uint32_t requests = 0;
    for (uint32_t i = 0; i < server->loop_count; i++)
        requests += atomic_load_explicit(&server->loops[i].counters.requests_live, memory_order_relaxed);
    return requests;
}

void http_server_stop(struct http_server *server)
{
    http_listen_stop(server);
    for (uint32_t i = 0; i < server->loop_count; i++)
        http_loop_stop(&server->loops[i]);
    free_server(server);
}

void http_server_counters(const struct http_server *server, struct http_counters *out)
{
    *out = (struct http_counters){
        .connections_refused = atomic_load_explicit(&server->refused_connections, memory_order_relaxed),
        .connections_refused_address = atomic_load_explicit(&server->refused_address, memory_order_relaxed),
        .connections_refused_proxy = atomic_load_explicit(&server->refused_proxy_header, memory_order_relaxed)};
    for (uint32_t i = 0; i < server->loop_count; i++) {
        const struct http_loop_counters *counters = &server->loops[i].counters;
        out->connections_accepted += atomic_load_explicit(&counters->accepted, memory_order_relaxed);
        out->connections_closed_by_armour += atomic_load_explicit(&counters->closed_by_armour, memory_order_relaxed);
        out->requests += atomic_load_explicit(&counters->requests, memory_order_relaxed);
        out->refused_headers += atomic_load_explicit(&counters->refused_headers, memory_order_relaxed);
        out->refused_smuggling += atomic_load_explicit(&counters->refused_smuggling, memory_order_relaxed);
        out->refused_body += atomic_load_explicit(&counters->refused_body, memory_order_relaxed);
        out->body_bytes_unfinished += atomic_load_explicit(&counters->body_bytes, memory_order_relaxed);
    }
}
