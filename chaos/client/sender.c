// sluice-sender: payments of many accounts to a gateway or to a balancer before several, through whatever happens to
// them. The core of the client is bench/load.h; here are its command line, what it sends and when.
#include "base/clock.h"
#include "bench/load.h"
#include "chaos/client/payments.h"
#include "chaos/client/shape.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: sluice-sender [options] http://HOST:PORT/v1/events/SOURCE …\n"
    "what is sent\n"
    "  --rate N           events a second on average, open loop: latency counts from when a request was due (500)\n"
    "  --shape WORD       steady | paywave: a peak of 3.75 times the average, once a period (steady)\n"
    "  --peak N           another factor for the peak, up to 7\n"
    "  --period S         of the shape (60)\n"
    "  --seconds S        stop sending after S seconds (60)\n"
    "  --events N         stop sending after N events, rounded up to whole requests\n"
    "  --batch N          events a request (1)\n"
    "  --size BYTES       of one event (1048, at least 640)\n"
    "  --accounts N       (20000)      --merchants N  (2000)\n"
    "  --duplicates X     share of events that an acknowledged one is sent again (0.02)\n"
    "  --reused X         share of AUTHs whose business key comes again under a new id (0.005)\n"
    "  --late X           share of captures followed by a CHARGEBACK of 24 hours ago (0.01)\n"
    "  --drift X          share of events with fields that nobody announced (0.1)\n"
    "  --drift-from N     from the N-th event on (5000)\n"
    "  --seed N           the same seed, the same payments (1)\n"
    "  --run TEXT         prefix of the event ids (random)\n"
    "  --header N:V       add a header; may be repeated\n"
    "how\n"
    "  --connections N    spread over the URLs (24)      --streams N  in flight on each (32)\n"
    "  --timeout S        for an answer (5)\n"
    "  --retry-for S      give a request up after S seconds: its outcome is unknown (60)\n"
    "  --backoff S        pause before the second attempt, doubling, up to half of it by chance less (0.1)\n"
    "  --backoff-max S    (5)    Retry-After is waited for in any case\n"
    "  --wait S           for the first connection (10)\n"
    "what is told\n"
    "  --history FILE     one JSON line an event and attempt (bench/history.h)\n"
    "  --live FILE        append one JSON line a second (stderr)\n"
    "The summary is one JSON object on stdout. SIGINT ends sending, a second one everything. Exit: 0, 2 usage, 3 no "
    "2xx at\n"
    "all, 1 anything else.\n";

#define OPTIONS(X)                                                                                                     \
    X(RATE, "rate")                                                                                                    \
    X(SHAPE, "shape")                                                                                                  \
    X(PEAK, "peak")                                                                                                    \
    X(PERIOD, "period")                                                                                                \
    X(SECONDS, "seconds")                                                                                              \
    X(EVENTS, "events")                                                                                                \
    X(BATCH, "batch")                                                                                                  \
    X(SIZE, "size")                                                                                                    \
    X(ACCOUNTS, "accounts")                                                                                            \
    X(MERCHANTS, "merchants")                                                                                          \
    X(DUPLICATES, "duplicates")                                                                                        \
    X(REUSED, "reused")                                                                                                \
    X(LATE, "late")                                                                                                    \
    X(DRIFT, "drift")                                                                                                  \
    X(DRIFT_FROM, "drift-from")                                                                                        \
    X(SEED, "seed")                                                                                                    \
    X(RUN, "run")                                                                                                      \
    X(HEADER, "header")                                                                                                \
    X(CONNECTIONS, "connections")                                                                                      \
    X(STREAMS, "streams")                                                                                              \
    X(TIMEOUT, "timeout")                                                                                              \
    X(RETRY_FOR, "retry-for")                                                                                          \
    X(BACKOFF, "backoff")                                                                                              \
    X(BACKOFF_MAX, "backoff-max")                                                                                      \
    X(WAIT, "wait")                                                                                                    \
    X(HISTORY, "history")                                                                                              \
    X(LIVE, "live")
enum option_id {
    OPTION_HELP = 256,
#define X(name, word) OPTION_##name,
    OPTIONS(X)
#undef X
};
static const struct option long_options[] = {
#define X(name, word) {word, required_argument, NULL, OPTION_##name},
    OPTIONS(X)
#undef X
        {"help", no_argument, NULL, OPTION_HELP},
    {0},
};

struct sender {
    struct load_options load;
    struct payments_options payments;
    struct shape shape;
    double peak; // 0: the shape's own
    bool paywave;
    int64_t period_ns;
};

static double share(const char *text, bool *good)
{
    double value = load_real(text, good);
    if (value > 1) {
        fprintf(stderr, "sluice-sender: %s: expected a share from 0 to 1\n", text);
        *good = false;
    }
    return value;
}

// What is sent. False: not one of these.
static bool take_what(struct sender *sender, int option, char *value, bool *good)
{
    struct payments_options *payments = &sender->payments;
    switch (option) {
    case OPTION_SIZE:
        payments->event_bytes = (size_t)load_whole(value, PAYMENTS_EVENT_BYTES_MIN, PAYLOAD_BYTES_MAX, good);
        break;
    case OPTION_ACCOUNTS:
        payments->accounts = (uint32_t)load_whole(value, 1, PAYLOAD_KEYS_MAX, good);
        break;
    case OPTION_MERCHANTS:
        payments->merchants = (uint32_t)load_whole(value, 1, PAYLOAD_KEYS_MAX, good);
        break;
    case OPTION_DUPLICATES:
        payments->duplicates = share(value, good);
        break;
    case OPTION_REUSED:
        payments->reused = share(value, good);
        break;
    case OPTION_LATE:
        payments->late = share(value, good);
        break;
    case OPTION_DRIFT:
        payments->drift = share(value, good);
        break;
    case OPTION_DRIFT_FROM:
        payments->drift_from = load_whole(value, 0, UINT64_MAX, good);
        break;
    default:
        return false;
    }
    return true;
}

static bool take_when(struct sender *sender, int option, char *value, bool *good)
{
    struct load_options *load = &sender->load;
    switch (option) {
    case OPTION_RATE:
        load->rate = load_real(value, good);
        break;
    case OPTION_SHAPE:
        sender->paywave = strcmp(value, "paywave") == 0;
        *good = sender->paywave || strcmp(value, "steady") == 0;
        break;
    case OPTION_PEAK:
        sender->peak = load_real(value, good);
        break;
    case OPTION_PERIOD:
        sender->period_ns = load_nanoseconds(value, good);
        break;
    case OPTION_SECONDS:
        load->duration_ns = load_nanoseconds(value, good);
        break;
    case OPTION_EVENTS:
        load->events = load_whole(value, 1, UINT64_C(1000000000000) - 1000000, good);
        break;
    case OPTION_TIMEOUT:
        load->timeout_ns = load_nanoseconds(value, good);
        break;
    case OPTION_RETRY_FOR:
        load->retry_for_ns = load_nanoseconds(value, good);
        break;
    case OPTION_BACKOFF:
        load->resend_first_ns = load_nanoseconds(value, good);
        break;
    case OPTION_BACKOFF_MAX:
        load->resend_max_ns = load_nanoseconds(value, good);
        break;
    case OPTION_WAIT:
        load->wait_ns = load_nanoseconds(value, good);
        break;
    default:
        return false;
    }
    return true;
}

static bool take(struct sender *sender, int option, char *value)
{
    struct load_options *load = &sender->load;
    bool good = true;
    if (take_what(sender, option, value, &good) || take_when(sender, option, value, &good))
        return good;
    switch (option) {
    case OPTION_BATCH:
        load->batch = (uint32_t)load_whole(value, 1, 100000, &good);
        break;
    case OPTION_SEED:
        load->seed = load_whole(value, 1, UINT64_MAX, &good);
        break;
    case OPTION_RUN:
        load->run = value;
        good = load_is_run_name(value);
        break;
    case OPTION_HEADER:
        good = load_add_header(load, value);
        break;
    case OPTION_CONNECTIONS:
        load->connections = (uint32_t)load_whole(value, 1, 10000, &good);
        break;
    case OPTION_STREAMS:
        load->streams = (uint32_t)load_whole(value, 1, 1000, &good);
        break;
    case OPTION_HISTORY:
        load->history_path = value;
        break;
    case OPTION_LIVE:
        load->live_path = value;
        break;
    default:
        good = false;
    }
    return good;
}

static bool complain(const char *what)
{
    fprintf(stderr, "sluice-sender: %s\n", what);
    return false;
}

static bool complete(struct sender *sender)
{
    struct load_options *load = &sender->load;
    if (load->rate <= 0)
        return complain("--rate must be above 0");
    if (sender->payments.accounts < load->batch)
        return complain("--accounts must be at least --batch: a request has one new event of an account at most");
    if (load->events == 0 && load->duration_ns < 0)
        load->duration_ns = 60 * SL_NS_PER_S;
    if (load->resend_max_ns < load->resend_first_ns)
        load->resend_max_ns = load->resend_first_ns;
    load_complete(load);
    load->event_bytes = sender->payments.event_bytes;
    load->keys = sender->payments.accounts;
    sender->payments.run = load->run;
    sender->payments.seed = load->seed;
    if (!sender->paywave)
        return true;
    double peak = sender->peak > 0 ? sender->peak : 3.75;
    if (peak < 1 || peak > SHAPE_FACTOR_MAX || sender->period_ns < SL_NS_PER_S)
        return complain("--peak must lie between 1 and 7, --period at 1 or above");
    shape_init(&sender->shape, load->rate, peak, sender->period_ns);
    load->due_ns = shape_due_ns;
    load->shape = &sender->shape;
    return true;
}

static bool parse(struct sender *sender, int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == OPTION_HELP) {
            fputs(usage, stdout);
            exit(EXIT_SUCCESS);
        }
        if (!take(sender, option, optarg))
            return false;
    }
    return load_take_urls(&sender->load, argc, argv) && complete(sender);
}

int main(int argc, char **argv)
{
    load_program = "sluice-sender";
    static struct sender sender = {
        .load = {.connections = 24,
                 .streams = 32,
                 .batch = 1,
                 .rate = 500,
                 .duration_ns = -1,
                 .drain_ns = -1,
                 .seed = 1,
                 .timeout_ns = 5 * SL_NS_PER_S,
                 .retry_for_ns = 60 * SL_NS_PER_S,
                 .wait_ns = 10 * SL_NS_PER_S,
                 .interval_ns = SL_NS_PER_S,
                 .resend_first_ns = 100 * SL_NS_PER_MS,
                 .resend_max_ns = 5 * SL_NS_PER_S,
                 .resend_jitter = 0.5,
                 .reconnect_max_ns = SL_NS_PER_S,
                 .heed_retry_after = true,
                 .fail_unconnected = true,
                 .retry = true,
                 .ordered = true},
        .payments = {.event_bytes = PAYMENTS_EVENT_BYTES_DEFAULT,
                     .accounts = 20000,
                     .merchants = 2000,
                     .duplicates = 0.02,
                     .reused = 0.005,
                     .late = 0.01,
                     .drift = 0.1,
                     .drift_from = 5000},
        .period_ns = 60 * SL_NS_PER_S,
    };
    if (!parse(&sender, argc, argv)) {
        fputs(usage, stderr);
        return LOAD_EXIT_USAGE;
    }
    return load_execute(&sender.load, payments_new(&sender.payments));
}
