// The command line of sluice-load.
#include "bench/load.h"

#include "base/clock.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

const char load_usage[] =
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

static bool take_short(struct load_options *options, int option, char *value)
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
    default:
        good = false;
    }
    return good;
}

static bool take_long(struct load_options *options, int option, char *value)
{
    bool good = true;
    switch (option) {
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

bool load_options_parse(struct load_options *options, int argc, char **argv)
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
            fputs(load_usage, stdout);
            exit(EXIT_SUCCESS);
        }
        if (option == OPT_PRINT_EVENT)
            print_event(options);
        if (!(option < OPT_NDJSON ? take_short : take_long)(options, option, optarg))
            return false;
    }
    for (; optind < argc; optind++) {
        if (options->url_count == LOAD_URLS_MAX || !take_url(&options->urls[options->url_count], argv[optind]))
            return false;
        options->url_count++;
    }
    return complete_options(options);
}
