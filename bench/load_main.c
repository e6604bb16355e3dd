// sluice-load: the command line.
#include "bench/load.h"

#include "base/clock.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

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

static bool take_short(struct load_options *options, int option, char *value)
{
    bool good = true;
    switch (option) {
    case 'c':
        options->connections = (uint32_t)load_whole(value, 1, 10000, &good);
        break;
    case 'm':
        options->streams = (uint32_t)load_whole(value, 1, 1000, &good);
        break;
    case 'b':
        options->batch = (uint32_t)load_whole(value, 1, 100000, &good);
        break;
    case 's':
        options->event_bytes = (size_t)load_whole(value, PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX, &good);
        break;
    case 'k':
        options->keys = (uint32_t)load_whole(value, 1, PAYLOAD_KEYS_MAX, &good);
        break;
    case 'r':
        options->rate = load_real(value, &good);
        break;
    case 't':
        options->duration_ns = load_nanoseconds(value, &good);
        break;
    case 'n':
        options->events = load_whole(value, 1, UINT64_C(1000000000000) - 1000000, &good);
        break;
    case 'w':
        options->warmup_ns = load_nanoseconds(value, &good);
        break;
    case 'H':
        good = load_add_header(options, value);
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
        good = load_is_run_name(value);
        break;
    case OPT_SEED:
        options->seed = load_whole(value, 0, UINT64_MAX, &good);
        break;
    case OPT_HISTORY:
        options->history_path = value;
        break;
    case OPT_RETRY:
        options->retry = true;
        break;
    case OPT_RETRY_FOR:
        options->retry_for_ns = load_nanoseconds(value, &good);
        break;
    case OPT_ORDERED:
        options->ordered = true;
        break;
    case OPT_TIMEOUT:
        options->timeout_ns = load_nanoseconds(value, &good);
        break;
    case OPT_DRAIN:
        options->drain_ns = load_nanoseconds(value, &good);
        break;
    case OPT_WAIT:
        options->wait_ns = load_nanoseconds(value, &good);
        break;
    case OPT_INTERVAL:
        options->interval_ns = load_nanoseconds(value, &good);
        break;
    default:
        good = false;
    }
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

static bool parse(struct load_options *options, int argc, char **argv)
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
        .resend_first_ns = 50 * SL_NS_PER_MS,
        .resend_max_ns = SL_NS_PER_S,
        .resend_jitter = 0.25,
        .reconnect_max_ns = 50 * SL_NS_PER_MS,
    };
    int option;
    while ((option = getopt_long(argc, argv, "c:m:b:s:k:r:t:n:w:H:h", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(usage, stdout);
            exit(EXIT_SUCCESS);
        }
        if (option == OPT_PRINT_EVENT)
            print_event(options);
        if (!(option < OPT_NDJSON ? take_short : take_long)(options, option, optarg))
            return false;
    }
    if (!load_take_urls(options, argc, argv))
        return false;
    load_complete(options);
    if (options->ordered && options->keys < options->batch)
        return fprintf(stderr, "sluice-load: --ordered needs at least as many keys as events a request\n") < 0;
    return true;
}

int main(int argc, char **argv)
{
    static struct load_options options;
    if (!parse(&options, argc, argv)) {
        fputs(usage, stderr);
        return LOAD_EXIT_USAGE;
    }
    return load_execute(&options,
                        load_events_new(options.run, options.event_bytes, options.keys, options.ordered, options.seed));
}
