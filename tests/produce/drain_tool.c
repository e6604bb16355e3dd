// drain-tool: fills a spool with events of known ids and drains it: the vehicle of tests/produce/real_brokers.py, which
// kills it, and a measure of the drain alone beside bench/bare-producer.
//
// Prints JSON lines on stdout: {"stream":…} when the spool is open, {"appended":…} when everything is durable,
// {"lane":…} for each lane and second with --status, {"done":…} at the end.
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "bench/payload.h"
#include "produce/produce.h"

#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { TOPICS_MAX = 8, PROPERTIES_MAX = 16 };

struct arguments {
    const char *dir, *node, *brokers, *run;
    const char *topics[TOPICS_MAX]; // of the lane "main", or name@lane
    char lanes[TOPICS_MAX][SPOOL_NAME_MAX + 1];
    size_t topic_count;
    uint64_t append, first;
    uint32_t keys, batch, large_every, quarantine_every;
    size_t event_bytes, large_bytes;
    int64_t rate;
    double deadline_s;
    int64_t transaction_ns;
    bool status, idempotent, drain_later, adopt, null_keys;
    struct produce_property properties[PROPERTIES_MAX];
    size_t property_count;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t in_flight, synced;
static bool failed;

static void on_done(struct spool_batch *batch)
{
    pthread_mutex_lock(&mutex);
    in_flight--;
    failed |= batch->outcome != SPOOL_SYNCED;
    synced += batch->records.count;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&mutex);
    record_buffer_free(&batch->records);
    free(batch);
}

_Noreturn static void die(const char *what, const char *why)
{
    fprintf(stderr, "drain-tool: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static void append_event(struct record_buffer *records, const struct arguments *arguments, struct payload_set *set,
                         uint64_t counter, uint8_t *bytes)
{
    uint32_t key = (uint32_t)(counter % arguments->keys);
    struct payload_event event = {
        .counter = counter, .key = key, .seq = counter / arguments->keys + 1, .wall_ns = sl_wall_ns()};
    payload_write(set, &event, bytes);
    size_t length = arguments->event_bytes;
    if (arguments->large_every && counter % arguments->large_every == 0) {
        memset(bytes + length, ' ', arguments->large_bytes - length); // JSON does not mind
        length = arguments->large_bytes;
    }
    char id[PAYLOAD_ID_MAX], key_text[PAYLOAD_KEY_BYTES];
    size_t id_length = payload_id(set, counter, id);
    payload_key(key, key_text);
    size_t topic = key % arguments->topic_count;
    bool quarantined = arguments->quarantine_every && counter % arguments->quarantine_every == 0;
    struct record record = {.kind = quarantined ? RECORD_QUARANTINED : RECORD_EVENT,
                            .received_wall_ns = event.wall_ns,
                            .payload_crc = sl_crc32c(bytes, length),
                            .source = sl_span_of("payments"),
                            .lane = sl_span_of(arguments->lanes[topic]),
                            .topic = sl_span_of(arguments->topics[topic]),
                            .event_id = {.bytes = id, .length = id_length},
                            .has_key = !arguments->null_keys,
                            .key = {.bytes = key_text, .length = sizeof(key_text)},
                            .payload = {.bytes = bytes, .length = length}};
    struct record_header_field fields[] = {{sl_span_of("content-type"), sl_span_of("application/json")},
                                           {sl_span_of("sluice-error"), sl_span_of("schema: amount is missing")}};
    if (!record_append(records, &record, fields, quarantined ? 2 : 1))
        die("append", "no memory, or a length is over");
}

static void submit(struct spool *spool, const struct arguments *arguments, struct payload_set *set, uint64_t counter,
                   uint32_t count)
{
    struct spool_batch *batch = calloc(1, sizeof(*batch));
    sl_assert(batch);
    batch->done = on_done;
    uint8_t *bytes = malloc(arguments->event_bytes + arguments->large_bytes);
    sl_assert(bytes);
    for (uint32_t i = 0; i < count; i++) {
        append_event(&batch->records, arguments, set, counter + i, bytes);
        const char *lane = arguments->lanes[(counter + i) % arguments->keys % arguments->topic_count];
        batch->lane_counts[spool_lane_index(spool, lane)]++;
    }
    free(bytes);
    pthread_mutex_lock(&mutex);
    while (in_flight >= 8 && !failed)
        pthread_cond_wait(&changed, &mutex);
    in_flight++;
    pthread_mutex_unlock(&mutex);
    if (!spool_submit(spool, batch))
        die("submit", "the spool is failed");
}

static void append_all(struct spool *spool, const struct arguments *arguments)
{
    struct payload_set *set = payload_set_new(arguments->event_bytes, arguments->run, 1);
    sl_assert(set);
    int64_t start_ns = sl_monotonic_ns();
    for (uint64_t done = 0; done < arguments->append;) {
        uint64_t left = arguments->append - done;
        uint32_t count = left < arguments->batch ? (uint32_t)left : arguments->batch;
        if (arguments->rate) {
            int64_t due_ns = start_ns + (int64_t)((double)done * 1e9 / (double)arguments->rate);
            int64_t ahead_ns = due_ns - sl_monotonic_ns();
            if (ahead_ns > 0)
                nanosleep(&(struct timespec){.tv_sec = ahead_ns / SL_NS_PER_S, .tv_nsec = ahead_ns % SL_NS_PER_S},
                          NULL);
        }
        submit(spool, arguments, set, arguments->first + done, count);
        done += count;
    }
    pthread_mutex_lock(&mutex);
    while (in_flight > 0)
        pthread_cond_wait(&changed, &mutex);
    if (failed)
        die("append", "a write or sync failed");
    pthread_mutex_unlock(&mutex);
    payload_set_free(set);
    printf("{\"appended\":%" PRIu64 ",\"first\":%" PRIu64 ",\"seconds\":%.3f}\n", arguments->append, arguments->first,
           (double)(sl_monotonic_ns() - start_ns) / 1e9);
    fflush(stdout);
}

static void print_lanes(const struct produce *produce)
{
    struct produce_lane_status lanes[32];
    size_t count = produce_lanes(produce, lanes, 32);
    for (size_t i = 0; i < count && i < 32; i++)
        printf("{\"lane\":\"%s\",\"stream\":\"%s\",\"state\":\"%s\",\"committed\":%" PRIu64 ",\"verified\":%" PRIu64
               ",\"transactions\":%" PRIu64 ",\"aborts\":%" PRIu64 ",\"fenced\":%" PRIu64 ",\"producers\":%" PRIu64
               ",\"dead_lettered\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"trouble\":\"%s\"}\n",
               lanes[i].lane, lanes[i].stream, produce_lane_state_word(lanes[i].state), lanes[i].committed_seq,
               lanes[i].verified_seq, lanes[i].transactions, lanes[i].aborts, lanes[i].fenced, lanes[i].producers,
               lanes[i].dead_lettered, lanes[i].refused, lanes[i].trouble);
    fflush(stdout);
}

static void *print_status(void *produce)
{
    for (;;) {
        print_lanes(produce);
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    }
    return NULL;
}

static struct produce *start_drain(struct spool *spool, const struct arguments *arguments)
{
    struct produce_topic topics[TOPICS_MAX];
    const char *lanes[TOPICS_MAX];
    for (size_t i = 0; i < arguments->topic_count; i++) {
        topics[i] = (struct produce_topic){.name = arguments->topics[i], .lane = arguments->lanes[i]};
        lanes[i] = arguments->lanes[i];
    }
    struct produce_options options = {.spool = spool,
                                      .node = arguments->node,
                                      .cluster = "test",
                                      .brokers = arguments->brokers,
                                      .embedded_partitions = 4,
                                      .properties = arguments->properties,
                                      .property_count = arguments->property_count,
                                      .transactional = !arguments->idempotent,
                                      .transaction_time_ns = arguments->transaction_ns,
                                      .queue_events = 20000,
                                      .queue_bytes = 32 << 20,
                                      .topics = topics,
                                      .topic_count = arguments->topic_count,
                                      .lanes = lanes,
                                      .lane_count = arguments->topic_count,
                                      .adopt = arguments->adopt};
    struct produce *produce;
    struct sl_error err;
    if (!produce_start(&produce, &options, &err))
        die("start the drain", err.text);
    return produce;
}

static struct spool *open_spool(const struct arguments *arguments, const struct storage *storage)
{
    const char *lanes[TOPICS_MAX];
    size_t lane_count = 0;
    for (size_t i = 0; i < arguments->topic_count; i++) {
        bool known = false;
        for (size_t k = 0; k < lane_count; k++)
            known |= strcmp(lanes[k], arguments->lanes[i]) == 0;
        if (!known)
            lanes[lane_count++] = arguments->lanes[i];
    }
    struct spool_options options = {.storage = storage,
                                    .dir = arguments->dir,
                                    .node = arguments->node,
                                    .segment_bytes = 64 << 20,
                                    .max_bytes = UINT64_C(64) << 30,
                                    .retain_ns = 3600 * SL_NS_PER_S,
                                    .prepared = 2,
                                    .append_bytes = 256 << 20,
                                    .lanes = lanes,
                                    .lane_count = lane_count};
    struct spool *spool;
    struct sl_error err;
    if (!spool_open(&spool, &options, &err))
        die("open the spool", err.text);
    printf("{\"stream\":\"%s\"}\n", spool_stream(spool));
    fflush(stdout);
    return spool;
}

static double cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static long memory_kib(void)
{
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    long kib = 0;
    while (status && fgets(line, sizeof(line), status))
        sscanf(line, "RssAnon: %ld", &kib);
    if (status)
        fclose(status);
    return kib;
}

static void take_topic(struct arguments *arguments, char *text)
{
    if (arguments->topic_count == TOPICS_MAX)
        die("topic", "too many");
    char *at = strchr(text, '@');
    if (at)
        *at = '\0';
    snprintf(arguments->lanes[arguments->topic_count], SPOOL_NAME_MAX + 1, "%s", at ? at + 1 : "main");
    arguments->topics[arguments->topic_count++] = text;
}

static void take_property(struct arguments *arguments, char *text)
{
    char *equals = strchr(text, '=');
    if (!equals || arguments->property_count == PROPERTIES_MAX)
        die("property", text);
    *equals = '\0';
    arguments->properties[arguments->property_count++] = (struct produce_property){.name = text, .value = equals + 1};
}

static const char usage[] = "usage: drain-tool -d DIR [-b BROKERS] -t TOPIC[@LANE] … [options]\n"
                            "  -a N       events to append          -f N   counter of the first\n"
                            "  -k N       keys                      -B N   events a batch\n"
                            "  -s BYTES   of an event               -r N   events a second\n"
                            "  -L N:BYTES every Nth event is so large\n"
                            "  -Q N       every Nth event is quarantined\n"
                            "  -m MS      length of a transaction   -D S   give up draining after so long\n"
                            "  -R RUN     name in the ids           -n NODE\n"
                            "  -l         drain after appending, not meanwhile\n"
                            "  -i idempotent  -A adopt  -N null keys  -S status every second  -X NAME=VALUE\n";

static bool take_text(struct arguments *arguments, int option, char *text)
{
    switch (option) {
    case 'd':
        arguments->dir = text;
        return true;
    case 'b':
        arguments->brokers = text;
        return true;
    case 't':
        take_topic(arguments, text);
        return true;
    case 'R':
        arguments->run = text;
        return true;
    case 'n':
        arguments->node = text;
        return true;
    case 'X':
        take_property(arguments, text);
        return true;
    case 'D':
        arguments->deadline_s = strtod(text, NULL);
        return true;
    default:
        return false;
    }
}

static bool take_flag(struct arguments *arguments, int option)
{
    bool *const flags[] = {&arguments->drain_later, &arguments->idempotent, &arguments->adopt, &arguments->null_keys,
                           &arguments->status};
    static const char letters[] = "liANS"; // in the order of flags
    const char *at = strchr(letters, option);
    if (at)
        *flags[at - letters] = true;
    return at != NULL;
}

static bool take_number(struct arguments *arguments, int option, const char *text)
{
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    switch (option) {
    case 'a':
        arguments->append = number;
        return true;
    case 'f':
        arguments->first = number;
        return true;
    case 'k':
        arguments->keys = (uint32_t)number;
        return true;
    case 'B':
        arguments->batch = (uint32_t)number;
        return true;
    case 's':
        arguments->event_bytes = number;
        return true;
    case 'r':
        arguments->rate = (int64_t)number;
        return true;
    case 'L':
        arguments->large_every = (uint32_t)number;
        arguments->large_bytes = *end == ':' ? strtoull(end + 1, NULL, 10) : 0;
        return true;
    case 'Q':
        arguments->quarantine_every = (uint32_t)number;
        return true;
    case 'm':
        arguments->transaction_ns = (int64_t)number * SL_NS_PER_MS;
        return true;
    default:
        return false;
    }
}

static struct arguments parse(int argc, char **argv)
{
    struct arguments arguments = {.node = "gw-t1",
                                  .run = "t",
                                  .keys = 100,
                                  .batch = 100,
                                  .event_bytes = 1048,
                                  .deadline_s = 60,
                                  .transaction_ns = 500 * SL_NS_PER_MS};
    int option;
    bool good = true;
    while (good && (option = getopt(argc, argv, "d:b:t:a:f:k:B:s:r:L:Q:m:D:R:n:liANSX:")) != -1)
        good = option != '?' && (take_flag(&arguments, option) || take_text(&arguments, option, optarg) ||
                                 take_number(&arguments, option, optarg));
    if (!good || !arguments.dir || !arguments.topic_count || !arguments.keys || !arguments.batch) {
        fputs(usage, stderr);
        exit(2);
    }
    return arguments;
}

int main(int argc, char **argv)
{
    static struct arguments arguments;
    arguments = parse(argc, argv);
    sl_log_configure(true, SL_INFO);
    const struct storage *storage = &storage_posix;
    struct spool *spool = open_spool(&arguments, storage);
    struct produce *produce = arguments.drain_later ? NULL : start_drain(spool, &arguments);
    if (produce && arguments.status) {
        pthread_t thread;
        pthread_create(&thread, NULL, print_status, produce);
        pthread_detach(thread);
    }
    append_all(spool, &arguments);
    int64_t start_ns = sl_monotonic_ns();
    double cpu_before_s = cpu_s();
    if (!produce)
        produce = start_drain(spool, &arguments);
    // Figures before they are freed: the drain is over when everything is verified, so wait for that here.
    int64_t deadline_ns = start_ns + (int64_t)(arguments.deadline_s * 1e9);
    struct spool_figures figures;
    do {
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        spool_figures(spool, &figures);
    } while (figures.pending_events > 0 && sl_monotonic_ns() < deadline_ns);
    double seconds = (double)(sl_monotonic_ns() - start_ns) / 1e9, cpu = cpu_s() - cpu_before_s;
    long memory = memory_kib();
    uint64_t p50 = histogram_quantile(produce_histogram(produce), 0.5),
             p99 = histogram_quantile(produce_histogram(produce), 0.99);
    print_lanes(produce);
    produce_stop(produce, deadline_ns);
    spool_figures(spool, &figures);
    printf("{\"done\":true,\"pending\":%" PRIu64 ",\"committed\":%" PRIu64 ",\"conservation_error\":%" PRIu64
           ",\"seconds\":%.3f,\"events_per_second\":%.0f,\"cpu_us_per_event\":%.2f,"
           "\"rss_anon_mib\":%.1f,\"latency_ms_p50\":%.1f,\"latency_ms_p99\":%.1f}\n",
           figures.pending_events, figures.committed_events, figures.conservation_error, seconds,
           (double)arguments.append / seconds, cpu * 1e6 / (double)(arguments.append ? arguments.append : 1),
           (double)memory / 1024, (double)p50 / 1e6, (double)p99 / 1e6);
    struct sl_error err;
    if (!spool_close(spool, &err))
        die("close the spool", err.text);
    return figures.pending_events == 0 ? 0 : 3;
}
