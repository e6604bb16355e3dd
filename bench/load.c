// sluice-load: options, the loop, and the end of a run. README.md explains what is measured and how.
#include "bench/load.h"

#include "base/clock.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, EXIT_NO_ANSWER = 3, EVENTS_AT_ONCE = 256 };

const char *const load_cause_words[] = {
#define X(name, word) word,
    LOAD_CAUSES(X)
#undef X
};

static volatile sig_atomic_t stops; // SIGINT, SIGTERM: the first ends sending, the second everything

static void on_signal(int number)
{
    (void)number;
    stops++;
}

static const char usage[] =
    "usage: sluice-load [options] http://HOST:PORT/PATH …\n"
    "  -c, --connections N   connections, spread over the URLs (8)\n"
    "  -m, --streams N       requests in flight on each (10)\n"
    "  -b, --batch N         events a request (1: a JSON object; more: a JSON array)\n"
    "      --ndjson          send NDJSON instead\n"
    "  -s, --size BYTES      of one event (1048)\n"
    "  -k, --keys N          accounts (10000)\n"
    "  -r, --rate N          events a second, open loop: latency counts from the scheduled time (closed loop)\n"
    "  -t, --seconds S       stop sending after S seconds (10)\n"
    "  -n, --events N        stop sending after N events, rounded up to whole requests\n"
    "  -w, --warmup S        leave the first S seconds out of rates and latencies (0)\n"
    "  -H, --header N:V      add a header; may be repeated\n"
    "      --run TEXT        prefix of the event ids (random)\n"
    "      --seed N          of the payloads (from the run)\n"
    "      --history FILE    one JSON line an event and attempt (bench/history.h)\n"
    "      --retry           send again, with the same ids, what had no 2xx; but 4xx other than 408 and 429 is final\n"
    "      --retry-for S     give a request up after S seconds (60)\n"
    "      --ordered         at most one event of a key is outstanding\n"
    "      --timeout S       for an answer (10)\n"
    "      --drain S         for what is outstanding when sending has stopped (15; --retry: as --retry-for)\n"
    "      --wait S          for the first connection (10)\n"
    "      --interval S      print a JSON line every S seconds to stderr\n"
    "      --print-event     print one such event and exit (a body for h2load)\n"
    "The summary is one JSON object on stdout. Exit: 0, 2 usage, 3 no 2xx at all, 1 anything else.\n";

// ---- options

enum {
    OPT_NDJSON = 256,
    OPT_RUN,
    OPT_SEED,
    OPT_HISTORY,
    OPT_RETRY,
    OPT_RETRY_FOR,
    OPT_ORDERED,
    OPT_TIMEOUT,
    OPT_DRAIN,
    OPT_WAIT,
    OPT_INTERVAL,
    OPT_PRINT_EVENT
};
static const struct option long_options[] = {
    {"connections", required_argument, NULL, 'c'},
    {"streams", required_argument, NULL, 'm'},
    {"batch", required_argument, NULL, 'b'},
    {"ndjson", no_argument, NULL, OPT_NDJSON},
    {"size", required_argument, NULL, 's'},
    {"keys", required_argument, NULL, 'k'},
    {"rate", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 't'},
    {"events", required_argument, NULL, 'n'},
    {"warmup", required_argument, NULL, 'w'},
    {"header", required_argument, NULL, 'H'},
    {"run", required_argument, NULL, OPT_RUN},
    {"seed", required_argument, NULL, OPT_SEED},
    {"history", required_argument, NULL, OPT_HISTORY},
    {"retry", no_argument, NULL, OPT_RETRY},
    {"retry-for", required_argument, NULL, OPT_RETRY_FOR},
    {"ordered", no_argument, NULL, OPT_ORDERED},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"drain", required_argument, NULL, OPT_DRAIN},
    {"wait", required_argument, NULL, OPT_WAIT},
    {"interval", required_argument, NULL, OPT_INTERVAL},
    {"print-event", no_argument, NULL, OPT_PRINT_EVENT},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static uint64_t whole(const char *text, uint64_t least, uint64_t most, bool *good)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *text == '-' || value < least || value > most) {
        fprintf(stderr, "sluice-load: %s: expected a number from %" PRIu64 " to %" PRIu64 "\n", text, least, most);
        *good = false;
        return least;
    }
    return value;
}

static double real(const char *text, bool *good)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0) || value > 1e9) {
        fprintf(stderr, "sluice-load: %s: expected a number from 0 to 1e9\n", text);
        *good = false;
        return 0;
    }
    return value;
}

static int64_t nanoseconds(const char *text, bool *good)
{
    return (int64_t)(real(text, good) * (double)SL_NS_PER_S);
}

// Splits in place; the argument lives as long as the process.
static bool add_header(struct load_options *options, char *text)
{
    char *colon = strchr(text, ':');
    if (colon == NULL || colon == text || options->header_count == LOAD_HEADERS_MAX)
        return false;
    *colon = '\0';
    char *value = colon + 1 + strspn(colon + 1, " ");
    for (char *at = text; *at != '\0'; at++)
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at - 'A' + 'a'); // HTTP/2 refuses capitals
    options->headers[options->header_count++] = (nghttp2_nv){
        .name = (uint8_t *)text, .value = (uint8_t *)value, .namelen = strlen(text), .valuelen = strlen(value)};
    return true;
}

static bool is_run_name(const char *text)
{
    size_t good = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
    return good > 0 && good <= PAYLOAD_RUN_MAX && text[good] == '\0';
}

static bool take_option(struct load_options *options, int option, char *value)
{
    bool good = true;
    switch (option) {
    case 'c':
        options->connections = (uint32_t)whole(value, 1, 10000, &good);
        break;
    case 'm':
        options->streams = (uint32_t)whole(value, 1, 1000, &good);
        break;
    case 'b':
        options->batch = (uint32_t)whole(value, 1, 100000, &good);
        break;
    case 's':
        options->event_bytes = (size_t)whole(value, PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX, &good);
        break;
    case 'k':
        options->keys = (uint32_t)whole(value, 1, PAYLOAD_KEYS_MAX, &good);
        break;
    case 'r':
        options->rate = real(value, &good);
        break;
    case 't':
        options->duration_ns = nanoseconds(value, &good);
        break;
    case 'n':
        options->events = whole(value, 1, UINT64_C(1000000000000) - 1000000, &good);
        break;
    case 'w':
        options->warmup_ns = nanoseconds(value, &good);
        break;
    case 'H':
        good = add_header(options, value);
        break;
    case OPT_NDJSON:
        options->ndjson = true;
        break;
    case OPT_RUN:
        options->run = value;
        good = is_run_name(value);
        break;
    case OPT_SEED:
        options->seed = whole(value, 0, UINT64_MAX, &good);
        break;
    case OPT_HISTORY:
        options->history_path = value;
        break;
    case OPT_RETRY:
        options->retry = true;
        break;
    case OPT_RETRY_FOR:
        options->retry_for_ns = nanoseconds(value, &good);
        break;
    case OPT_ORDERED:
        options->ordered = true;
        break;
    case OPT_TIMEOUT:
        options->timeout_ns = nanoseconds(value, &good);
        break;
    case OPT_DRAIN:
        options->drain_ns = nanoseconds(value, &good);
        break;
    case OPT_WAIT:
        options->wait_ns = nanoseconds(value, &good);
        break;
    case OPT_INTERVAL:
        options->interval_ns = nanoseconds(value, &good);
        break;
    default:
        good = false;
    }
    return good;
}

// Splits in place, as add_header does.
static bool take_url(struct load_url *url, char *text)
{
    static const char scheme[] = "http://";
    sl_assert(text != NULL);
    url->text = text;
    if (strncmp(text, scheme, strlen(scheme)) != 0)
        goto invalid;
    char *host = text + strlen(scheme);
    char *path = host + strcspn(host, "/");
    const char *bad = strpbrk(text, "\"\\ "); // it goes into the history and the summary as it is
    if (*path == '\0' || bad != NULL || (size_t)(path - host) >= sizeof(url->authority))
        goto invalid;
    memcpy(url->authority, host, (size_t)(path - host));
    url->path = path;
    char name[sizeof(url->authority)];
    memcpy(name, url->authority, sizeof(name));
    char *colon = strrchr(name, ':');
    if (colon == NULL)
        goto invalid;
    *colon = '\0';
    char *bare = name[0] == '[' && colon > name && colon[-1] == ']' ? name + 1 : name;
    if (bare != name)
        colon[-1] = '\0';
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;
    int status = getaddrinfo(bare, colon + 1, &hints, &found);
    if (status != 0) {
        fprintf(stderr, "sluice-load: %s: %s\n", text, gai_strerror(status));
        return false;
    }
    memcpy(&url->address, found->ai_addr, found->ai_addrlen);
    url->address_length = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
invalid:
    fprintf(stderr, "sluice-load: %s: expected http://HOST:PORT/PATH (clear-text HTTP/2 only)\n", text);
    return false;
}

static bool complete_options(struct load_options *options)
{
    static char run[17];
    uint64_t random = 0;
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        random = (uint64_t)sl_wall_ns();
    if (options->run == NULL) {
        snprintf(run, sizeof(run), "%08" PRIx32, (uint32_t)(random >> 32));
        options->run = run;
    }
    if (options->seed == 0)
        options->seed = random;
    if (options->events == 0 && options->duration_ns < 0)
        options->duration_ns = 10 * SL_NS_PER_S;
    if (options->drain_ns < 0)
        options->drain_ns = options->retry ? options->retry_for_ns : 15 * SL_NS_PER_S;
    bool good = true;
    if (options->url_count == 0)
        good = fprintf(stderr, "sluice-load: no URL\n") < 0;
    if (options->ordered && options->keys < options->batch)
        good = fprintf(stderr, "sluice-load: --ordered needs at least as many keys as events a request\n") < 0;
    return good;
}

_Noreturn static void print_event(const struct load_options *options)
{
    struct payload_set *set = payload_set_new(options->event_bytes, options->run != NULL ? options->run : "sample", 1);
    uint8_t *event = (uint8_t *)malloc(options->event_bytes);
    sl_assert(set != NULL && event != NULL);
    payload_write(set, &(struct payload_event){.seq = 1, .wall_ns = sl_wall_ns()}, event);
    bool good = fwrite(event, options->event_bytes, 1, stdout) == 1 && fflush(stdout) == 0;
    free(event);
    payload_set_free(set);
    exit(good ? EXIT_SUCCESS : EXIT_FAILURE);
}

static bool parse_options(struct load_options *options, int argc, char **argv)
{
    *options = (struct load_options){
        .connections = 8,
        .streams = 10,
        .batch = 1,
        .keys = 10000,
        .event_bytes = PAYLOAD_BYTES_DEFAULT,
        .duration_ns = -1,
        .drain_ns = -1,
        .timeout_ns = 10 * SL_NS_PER_S,
        .retry_for_ns = 60 * SL_NS_PER_S,
        .wait_ns = 10 * SL_NS_PER_S,
    };
    int option;
    while ((option = getopt_long(argc, argv, "c:m:b:s:k:r:t:n:w:H:h", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(usage, stdout);
            exit(EXIT_SUCCESS);
        }
        if (option == OPT_PRINT_EVENT)
            print_event(options);
        if (!take_option(options, option, optarg))
            return false;
    }
    for (; optind < argc; optind++) {
        if (options->url_count == LOAD_URLS_MAX || !take_url(&options->urls[options->url_count], argv[optind]))
            return false;
        options->url_count++;
    }
    return complete_options(options);
}

// ---- the loop

static void dispatch(struct load *load)
{
    while (load->ready_head != NULL) {
        struct load_connection *connection = load_connection_ready(load);
        if (connection == NULL)
            return;
        struct load_request *request = load_request_next(load);
        if (request == NULL)
            return;
        load_connection_submit(connection, request);
    }
}

static void wait_and_handle(struct load *load, int64_t until_ns)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int64_t wait_ns = until_ns > load->now_ns ? until_ns - load->now_ns : 0;
    const struct timespec timeout = {.tv_sec = wait_ns / SL_NS_PER_S, .tv_nsec = wait_ns % SL_NS_PER_S};
    int count = epoll_pwait2(load->epoll_fd, events, EVENTS_AT_ONCE, &timeout, NULL);
    load->now_ns = sl_monotonic_ns();
    for (int i = 0; i < count; i++)
        load_connection_event((struct load_connection *)events[i].data.ptr, events[i].events);
}

static void open_window(struct load *load)
{
    load->measuring = true;
    load->measure_start_ns = load->now_ns;
    load->measure_acked_start = load->counts.acked;
    load->measure_answered_start = load->counts.attempts_answered;
    load->cpu_start_us = load_cpu_us();
}

static void close_window(struct load *load, int64_t end_ns)
{
    load->measuring = false;
    load->measure_end_ns = end_ns;
    load->measure_acked_end = load->counts.acked;
    load->measure_answered_end = load->counts.attempts_answered;
    load->cpu_end_us = load_cpu_us();
}

static void stop_issuing(struct load *load)
{
    load->issuing = false;
    load->issue_end_ns = load->now_ns;
    // A run of a number of events is over when the last is answered; a run of some seconds, when they have passed.
    if (load->options.events == 0)
        close_window(load, load->now_ns);
}

static void tick(struct load *load)
{
    load_connections_tick(load);
    if (load->history != NULL)
        history_flush(load->history);
    if (load->options.interval_ns > 0 && load->now_ns >= load->interval_end_ns)
        load_report_interval(load);
}

static void connect_all(struct load *load)
{
    int64_t end_ns = load->now_ns + load->options.wait_ns;
    // All of them, so that none of the first requests waits for a handshake; but a second is enough for that.
    int64_t enough_ns = load->now_ns + SL_NS_PER_S;
    while (stops == 0 && load->now_ns < end_ns) {
        uint32_t up = load_connections_up(load);
        if (up == load->options.connections || (up > 0 && load->now_ns > enough_ns))
            return;
        load_connections_flush(load);
        wait_and_handle(load, load->now_ns + LOAD_TICK_MS * SL_NS_PER_MS);
        load_connections_tick(load);
    }
}

static void start(struct load *load)
{
    load->now_ns = sl_monotonic_ns();
    load->start_ns = load->now_ns;
    load->wall_offset_ns = sl_wall_ns() - load->now_ns;
    load->interval_end_ns = load->now_ns + load->options.interval_ns;
    load->measure_start_ns = load->now_ns + load->options.warmup_ns;
    load->issuing = true;
    if (load->options.warmup_ns == 0)
        open_window(load);
}

// What the clock decides: windows, the end of sending. False when the run is over.
static bool advance(struct load *load)
{
    const struct load_options *options = &load->options;
    bool sending = load->issue_end_ns == 0;
    if (sending && !load->measuring && load->now_ns >= load->measure_start_ns)
        open_window(load);
    bool time_up = options->duration_ns >= 0 && load->now_ns - load->start_ns >= options->duration_ns;
    if (sending && (time_up || stops > 0 || !load->issuing)) {
        stop_issuing(load);
        sending = false;
    }
    return sending || (load->outstanding > 0 && stops < 2 && load->now_ns - load->issue_end_ns < options->drain_ns);
}

static void run(struct load *load)
{
    start(load);
    int64_t tick_ns = load->now_ns + LOAD_TICK_MS * SL_NS_PER_MS;
    while (advance(load)) {
        dispatch(load);
        load_connections_flush(load);
        int64_t until_ns = tick_ns;
        int64_t due_ns = load->ready_head != NULL ? load_request_due_ns(load) : INT64_MAX;
        int64_t end_ns = load->options.duration_ns >= 0 && load->issue_end_ns == 0
                             ? load->start_ns + load->options.duration_ns
                             : INT64_MAX;
        until_ns = due_ns < until_ns ? due_ns : until_ns;
        until_ns = end_ns < until_ns ? end_ns : until_ns;
        wait_and_handle(load, until_ns);
        if (load->now_ns >= tick_ns) {
            tick(load);
            tick_ns = load->now_ns + LOAD_TICK_MS * SL_NS_PER_MS;
        }
    }
    load_connections_give_up(load);
    load_requests_give_up(load);
    if (load->measure_end_ns == 0)
        close_window(load, load->last_ack_ns > load->measure_start_ns ? load->last_ack_ns : load->now_ns);
}

static bool run_all(struct load *load, struct sl_error *err)
{
    const struct load_options *options = &load->options;
    const struct history_run described = {.run = options->run,
                                          .url = options->urls[0].text,
                                          .events_per_request = options->batch,
                                          .ordered = options->ordered,
                                          .retry = options->retry};
    load->epoll_fd = -1;
    load->now_ns = sl_monotonic_ns();
    bool good = load_requests_create(load, err) && load_connections_create(load, err) &&
                (options->history_path == NULL || history_open(&load->history, options->history_path, &described, err));
    if (!good)
        return false;
    connect_all(load);
    if (load_connections_up(load) == 0)
        return sl_fail(err, SL_E_UNAVAILABLE, "no connection to %s", options->urls[0].text);
    run(load);
    load_report_summary(load);
    const struct history_totals totals = {.events = load->counts.events,
                                          .acked = load->counts.acked,
                                          .refused = load->counts.refused,
                                          .open = load->counts.open};
    struct history *history = load->history;
    load->history = NULL;
    return history_close(history, &totals, err);
}

int main(int argc, char **argv)
{
    static struct load load;
    if (!parse_options(&load.options, argc, argv)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL); // the default of 50 µs would be in every latency of an open loop
    struct sl_error err;
    bool good = run_all(&load, &err);
    if (!good)
        fprintf(stderr, "sluice-load: %s\n", err.text);
    load_connections_destroy(&load);
    load_requests_destroy(&load);
    if (!good)
        return EXIT_FAILURE;
    return load.counts.acked == 0 ? EXIT_NO_ANSWER : EXIT_SUCCESS;
}
