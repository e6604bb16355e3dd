// A server on gateway/http.h for the tests of the engine: small limits by flags, and answers that tests can tell apart.
//
//   POST|GET /echo        200: "method=POST path=/echo query=… length=N sum=HEX host=… type=… peer=…"
//   /fixed                200 with a body of 120 bytes that does not depend on the request (for measuring)
//   /late?ms=N            the same, answered N ms later from another thread (through http_loop_post)
//   /hold?drop=1          answered when /release comes (or never); drop=1: its body is dropped meanwhile
//   /big?bytes=N          200 with N bytes
//   /stats                200: JSON of the counters, of what ended without an answer, and of this process's memory
//   /release              answers what /hold keeps
//
// It prints "port NAME N" for each listener and then "ready". SIGTERM closes gracefully, and ends when the last
// connection has; SIGINT stops at once.
#include "base/clock.h"
#include "base/log.h"
#include "gateway/http.h"

#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { LISTENERS_MAX = 8, LOOPS_MAX = 64, BIG_MAX = 8 << 20 };

struct held {
    struct http_task task;
    struct held *next;
    struct http_request *request; // NULL: gone
    struct http_loop *loop;
    int64_t due_ns;
};

static struct http_server *server;
static struct held *held_by_loop[LOOPS_MAX];
static _Atomic uint64_t gone_count, late_count, turns, refused_count;
static _Atomic int refused_last;
static char *big;
static const char fixed[] = "{\"ack\":\"disk\",\"accepted\":100,\"duplicates\":0,\"quarantined\":0,"
                            "\"stream\":\"gw-a1.42-7f3a\",\"first_seq\":471100,\"last_seq\":471199}";

// ---- answers

static void describe(struct http_request *request, char *text, size_t size)
{
    struct sl_span method = http_request_method(request), path = http_request_path(request);
    struct sl_span query = http_request_query(request), body = http_request_body(request);
    struct sl_span host = http_request_header(request, "host", NULL);
    bool repeated;
    struct sl_span type = http_request_header(request, "content-type", &repeated);
    struct sl_span extra = http_request_header(request, "x-extra", NULL);
    uint32_t sum = 0;
    const uint8_t *bytes = body.bytes;
    for (size_t i = 0; i < body.length; i++)
        sum = sum * 31 + bytes[i];
    volatile uint8_t sink = 0;
    for (size_t i = 0; i < 64; i++) // the padding that http_request_body() promises: ASan objects when it is not there
        sink = (uint8_t)(sink ^ bytes[body.length + i]);
    char peer[64];
    http_request_peer(request, peer, sizeof(peer));
    snprintf(text, size,
             "method=%.*s path=%.*s query=%.*s length=%zu sum=%08x host=%.*s type=%.*s repeated=%d extra=%.*s peer=%s "
             "loop=%u "
             "loopback=%d\n",
             (int)method.length, (const char *)method.bytes, (int)path.length, (const char *)path.bytes,
             (int)query.length, (const char *)query.bytes, body.length, sum, (int)host.length, (const char *)host.bytes,
             (int)type.length, type.bytes != NULL ? (const char *)type.bytes : "", repeated, (int)extra.length,
             extra.bytes != NULL ? (const char *)extra.bytes : "", peer, http_loop_index(http_request_loop(request)),
             http_request_is_loopback(request));
}

static void echo(struct http_request *request)
{
    char text[1024];
    describe(request, text, sizeof(text));
    struct http_header headers[] = {{.name = "x-engine", .value = sl_span_of("test")},
                                    {.name = "cache-control", .value = sl_span_of("no-store")}};
    http_respond(request, 200, "text/plain", headers, 2, text, strlen(text));
}

// A number of KiB from /proc/self/status.
static unsigned long status_kib(const char *name)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    unsigned long value = 0;
    size_t length = strlen(name);
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            value = strtoul(line + length + 1, NULL, 10);
    if (file != NULL)
        fclose(file);
    return value;
}

static void stats(struct http_request *request)
{
    struct http_counters c;
    http_server_counters(server, &c);
    char text[1024];
    int length = snprintf(
        text, sizeof(text),
        "{\"accepted\":%lu,\"refused_connections\":%lu,\"refused_proxy\":%lu,\"armour\":%lu,\"requests\":%lu,\"refused_"
        "headers\":%lu,"
        "\"refused_smuggling\":%lu,\"refused_body\":%lu,\"body_bytes\":%lu,\"connections\":%u,\"live\":%u,\"gone\":%lu,"
        "\"late\":%lu,\"refused\":%lu,\"refused_last\":%d,\"turns\":%lu,\"rss_anon_kib\":%lu}\n",
        c.connections_accepted, c.connections_refused + c.connections_refused_address, c.connections_refused_proxy,
        c.connections_closed_by_armour, c.requests, c.refused_headers, c.refused_smuggling, c.refused_body,
        c.body_bytes_unfinished, http_server_connections(server), http_server_requests(server), gone_count, late_count,
        refused_count, refused_last, turns, status_kib("RssAnon"));
    http_respond(request, 200, "application/json", NULL, 0, text, (size_t)length);
}

// ---- answers given later

static void on_gone(void *user)
{
    struct held *held = user;
    held->request = NULL;
    atomic_fetch_add(&gone_count, 1);
}

static struct held *hold(struct http_request *request)
{
    struct held *held = calloc(1, sizeof(*held));
    held->request = request;
    held->loop = http_request_loop(request);
    http_request_on_gone(request, on_gone, held);
    return held;
}

static void answer_late(struct http_task *task)
{
    struct held *held = (struct held *)(void *)task;
    if (held->request != NULL) {
        atomic_fetch_add(&late_count, 1);
        echo(held->request);
    }
    free(held);
}

static pthread_mutex_t late_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t late_more = PTHREAD_COND_INITIALIZER;
static struct held *late_list;
static bool late_stop;

static void *late_main(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&late_mutex);
    for (;;) {
        int64_t now_ns = sl_monotonic_ns(), next_ns = now_ns + SL_NS_PER_S;
        for (struct held **slot = &late_list; *slot != NULL;) {
            struct held *held = *slot;
            if (held->due_ns <= now_ns || late_stop) {
                *slot = held->next;
                http_loop_post(held->loop, &held->task);
                continue;
            }
            if (held->due_ns < next_ns)
                next_ns = held->due_ns;
            slot = &held->next;
        }
        if (late_stop)
            break;
        struct timespec until = {.tv_sec = next_ns / SL_NS_PER_S, .tv_nsec = next_ns % SL_NS_PER_S};
        pthread_cond_clockwait(&late_more, &late_mutex, CLOCK_MONOTONIC, &until);
    }
    pthread_mutex_unlock(&late_mutex);
    return NULL;
}

static unsigned long number_in(struct sl_span query, const char *name)
{
    char text[128];
    snprintf(text, sizeof(text), "%.*s", (int)query.length, (const char *)query.bytes);
    const char *at = strstr(text, name);
    return at != NULL ? strtoul(at + strlen(name), NULL, 10) : 0;
}

static void answer_in(struct http_request *request, unsigned long ms)
{
    struct held *held = hold(request);
    held->task.run = answer_late;
    held->due_ns = sl_monotonic_ns() + (int64_t)ms * SL_NS_PER_MS;
    pthread_mutex_lock(&late_mutex);
    held->next = late_list;
    late_list = held;
    pthread_cond_signal(&late_more);
    pthread_mutex_unlock(&late_mutex);
}

static void keep(struct http_request *request, bool drop_body)
{
    if (drop_body)
        http_request_drop_body(request);
    struct held *held = hold(request), **list = &held_by_loop[http_loop_index(held->loop)];
    held->next = *list;
    *list = held;
}

static void release_loop(struct http_loop *loop)
{
    struct held **list = &held_by_loop[http_loop_index(loop)];
    while (*list != NULL) {
        struct held *held = *list;
        *list = held->next;
        if (held->request != NULL)
            echo(held->request);
        free(held);
    }
}

static void release_task(struct http_task *task)
{
    struct held *carrier = (struct held *)(void *)task;
    release_loop(carrier->loop);
    free(carrier);
}

static void release(void)
{
    for (uint32_t i = 0; i < http_server_loop_count(server); i++) {
        struct held *carrier = calloc(1, sizeof(*carrier));
        carrier->task.run = release_task;
        carrier->loop = http_server_loop(server, i);
        http_loop_post(carrier->loop, &carrier->task);
    }
}

static bool is(struct sl_span span, const char *text)
{
    return span.length == strlen(text) && memcmp(span.bytes, text, span.length) == 0;
}

static void on_request(struct http_request *request, void *user)
{
    (void)user;
    struct sl_span path = http_request_path(request), query = http_request_query(request);
    if (is(path, "/fixed")) {
        http_respond(request, 200, "application/json", NULL, 0, fixed, sizeof(fixed) - 1);
    } else if (is(path, "/late")) {
        answer_in(request, number_in(query, "ms="));
    } else if (is(path, "/hold")) {
        keep(request, number_in(query, "drop=") == 1);
    } else if (is(path, "/release")) {
        release();
        echo(request);
    } else if (is(path, "/stats")) {
        stats(request);
    } else if (is(path, "/big")) {
        unsigned long bytes = number_in(query, "bytes=");
        http_respond(request, 200, "application/octet-stream", NULL, 0, big, bytes < BIG_MAX ? bytes : BIG_MAX);
    } else {
        echo(request);
    }
}

static void on_turn_end(struct http_loop *loop, void *user)
{
    (void)loop;
    (void)user;
    atomic_fetch_add_explicit(&turns, 1, memory_order_relaxed);
}

static void on_refused(struct http_loop *loop, int status, struct sl_span path, void *user)
{
    (void)loop;
    (void)path;
    (void)user;
    atomic_fetch_add(&refused_count, 1);
    atomic_store(&refused_last, status);
}

// ---- flags

static int64_t seconds_ns(const char *text)
{
    return (int64_t)(strtod(text, NULL) * (double)SL_NS_PER_S);
}

static bool set_limit(struct http_limits *limits, const char *name, const char *value)
{
    struct {
        const char *name;
        uint64_t *u64;
        uint32_t *u32;
        int64_t *ns;
    } const known[] = {
        {"body-bytes", .u64 = &limits->body_bytes},
        {"unfinished-connection", .u64 = &limits->unfinished_bytes_connection},
        {"unfinished", .u64 = &limits->unfinished_bytes},
        {"header-block", .u32 = &limits->header_block_bytes},
        {"header-count", .u32 = &limits->header_count},
        {"connections", .u32 = &limits->connections},
        {"connections-address", .u32 = &limits->connections_address},
        {"resets", .u32 = &limits->resets_minute},
        {"control-frames", .u32 = &limits->control_frames_minute},
        {"request-timeout", .ns = &limits->request_timeout_ns},
        {"response-timeout", .ns = &limits->response_timeout_ns},
        {"idle-timeout", .ns = &limits->idle_timeout_ns},
        {"handshake-timeout", .ns = &limits->handshake_timeout_ns},
        {"connection-age", .ns = &limits->connection_age_ns},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i].name, name) != 0)
            continue;
        if (known[i].u64 != NULL)
            *known[i].u64 = strtoull(value, NULL, 10);
        else if (known[i].u32 != NULL)
            *known[i].u32 = (uint32_t)strtoul(value, NULL, 10);
        else
            *known[i].ns = seconds_ns(value);
        return true;
    }
    return false;
}

static bool parse(int count, char **words, struct http_options *options, struct http_listener *listeners)
{
    for (int i = 1; i + 1 < count; i += 2) {
        const char *name = words[i] + 2, *value = words[i + 1];
        if (strncmp(words[i], "--", 2) != 0)
            return false;
        if (strcmp(name, "listen") == 0 || strcmp(name, "listen-tls") == 0) {
            if (options->listener_count == LISTENERS_MAX)
                return false;
            listeners[options->listener_count++] =
                (struct http_listener){.address = value, .tls = strcmp(name, "listen-tls") == 0};
        } else if (strcmp(name, "certificate") == 0) {
            options->tls.certificate_file = value;
        } else if (strcmp(name, "key") == 0) {
            options->tls.key_file = value;
        } else if (strcmp(name, "log") == 0) { // "debug": also what the armour has against whom
            sl_log_configure(false, strcmp(value, "debug") == 0 ? SL_DEBUG : SL_INFO);
        } else if (strcmp(name, "proxy-protocol") == 0) { // of every TCP listener
            options->proxy_protocol = strcmp(value, "v1") == 0 ? PROXY_V1 : PROXY_V2;
        } else if (strcmp(name, "loops") == 0) {
            options->loop_count = (uint32_t)strtoul(value, NULL, 10);
        } else if (!set_limit(&options->limits, name, value)) {
            fprintf(stderr, "unknown flag %s\n", words[i]);
            return false;
        }
    }
    return count % 2 == 1;
}

static void wait_for_the_end(void)
{
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    int signal = 0;
    sigwait(&ends, &signal);
    if (signal == SIGTERM) {
        http_server_close_gracefully(server);
        const struct timespec poll = {.tv_nsec = 20 * 1000 * 1000};
        while (http_server_connections(server) > 0 && sigtimedwait(&ends, NULL, &poll) == -1)
            continue;
    }
}

int main(int count, char **words)
{
    struct http_listener listeners[LISTENERS_MAX];
    struct http_options options = {.name = "test",
                                   .listeners = listeners,
                                   .loop_count = 1,
                                   .limits = http_limits_default(),
                                   .on_request = on_request,
                                   .on_turn_end = on_turn_end,
                                   .on_refused = on_refused};
    if (!parse(count, words, &options, listeners))
        return 2;
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    big = malloc(BIG_MAX);
    memset(big, 'b', BIG_MAX);
    pthread_t late;
    if (pthread_create(&late, NULL, late_main, NULL) != 0)
        return 1;
    struct sl_error err;
    if (!http_server_start(&server, &options, &err)) {
        fprintf(stderr, "%s: %s\n", sl_code_word(err.code), err.text);
        return 1;
    }
    for (size_t i = 0; i < options.listener_count; i++)
        printf("port %s %u\n", listeners[i].tls ? "tls" : "plain", http_server_port(server, i));
    printf("ready\n");
    fflush(stdout);
    wait_for_the_end();
    pthread_mutex_lock(&late_mutex);
    late_stop = true;
    pthread_cond_signal(&late_more);
    pthread_mutex_unlock(&late_mutex);
    pthread_join(late, NULL);
    http_server_stop(server);
    for (size_t i = 0; i < LOOPS_MAX; i++)
        while (held_by_loop[i] != NULL) {
            struct held *next = held_by_loop[i]->next;
            free(held_by_loop[i]);
            held_by_loop[i] = next;
        }
    free(big);
    printf("stopped gone=%lu\n", gone_count);
    return 0;
}
