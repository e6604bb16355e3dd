// bare-producer: what librdkafka alone reaches with the same events: the yardstick for Sluice's drain.
//
// One thread builds events into a pool of buffers and hands them over without a copy; delivery reports give the buffers
// back. Transactional: a transaction is committed after N events or T ms, whichever is first, and nothing is produced
// meanwhile, as librdkafka demands. Idempotent: no transactions. Any error ends the run: a figure with errors in it
// says nothing.
//
// Prints one JSON object: events and bytes a second, CPU of the whole process, librdkafka's threads included.
#include "base/clock.h"
#include "base/error.h"
#include "bench/latency.h"
#include "bench/payload.h"

#include <librdkafka/rdkafka.h>

#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PROPERTIES_MAX = 32, POLL_EVERY = 256 };

struct options {
    const char *brokers, *topic;
    bool transactional, headers;
    double seconds, warmup_s;
    uint32_t keys, pool;
    size_t event_bytes;
    uint64_t transaction_events;
    int64_t transaction_ns;
    const char *properties[PROPERTIES_MAX]; // name=value
    size_t property_count;
};

struct producer {
    struct options options;
    rd_kafka_t *kafka;
    rd_kafka_topic_t *topic;
    struct payload_set *payload;
    uint8_t *buffers;
    uint32_t *idle; // stack of buffers that librdkafka does not hold
    size_t idle_count;
    uint64_t *key_seqs;
    uint64_t produced, delivered, failed, committed, transactions;
    uint64_t random;
    const char *first_failure;
    struct latency commits;
};

_Noreturn static void die(const char *what, const char *why)
{
    fprintf(stderr, "bare-producer: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static void on_delivery(rd_kafka_t *kafka, const rd_kafka_message_t *message, void *opaque)
{
    (void)kafka;
    struct producer *producer = (struct producer *)opaque;
    producer->idle[producer->idle_count++] = (uint32_t)(uintptr_t)message->_private;
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        producer->delivered++;
    } else {
        producer->failed++;
        producer->first_failure = rd_kafka_err2str(message->err);
    }
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char text[512];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof(text)) != RD_KAFKA_CONF_OK)
        die(name, text);
}

static void check(rd_kafka_error_t *error, const char *what)
{
    if (error != NULL)
        die(what, rd_kafka_error_string(error));
}

static void create(struct producer *producer)
{
    const struct options *options = &producer->options;
    char text[512], number[24];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", options->brokers);
    set(conf, "enable.idempotence", "true");
    set(conf, "compression.type", "lz4");
    set(conf, "partitioner", "murmur2_random");
    set(conf, "linger.ms", "5");
    set(conf, "batch.size", "1000000");
    set(conf, "batch.num.messages", "10000");
    set(conf, "socket.nagle.disable", "true");
    snprintf(number, sizeof(number), "%" PRIu32, options->pool + 1);
    set(conf, "queue.buffering.max.messages", number);
    if (options->transactional) {
        snprintf(text, sizeof(text), "bare-producer-%d", (int)getpid());
        set(conf, "transactional.id", text);
    }
    for (size_t i = 0; i < options->property_count; i++) {
        snprintf(text, sizeof(text), "%s", options->properties[i]);
        char *equals = strchr(text, '=');
        if (equals == NULL)
            die(text, "expected name=value");
        *equals = '\0';
        set(conf, text, equals + 1);
    }
    rd_kafka_conf_set_opaque(conf, producer);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    producer->kafka = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
    if (producer->kafka == NULL)
        die("rd_kafka_new", text);
    producer->topic = rd_kafka_topic_new(producer->kafka, options->topic, NULL);
    // Partitions must be known before the first event, or the first second is a wait for metadata.
    const rd_kafka_metadata_t *metadata;
    rd_kafka_resp_err_t err = rd_kafka_metadata(producer->kafka, 0, producer->topic, &metadata, 30000);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR || metadata->topics[0].partition_cnt == 0)
        die("metadata", err != RD_KAFKA_RESP_ERR_NO_ERROR ? rd_kafka_err2str(err) : "no such topic");
    rd_kafka_metadata_destroy(metadata);
    if (options->transactional)
        check(rd_kafka_init_transactions(producer->kafka, 60000), "init_transactions");
}

static void allocate(struct producer *producer)
{
    const struct options *options = &producer->options;
    producer->payload = payload_set_new(options->event_bytes, "bare", 1);
    producer->buffers = (uint8_t *)malloc(options->pool * options->event_bytes);
    producer->idle = (uint32_t *)calloc(options->pool, sizeof(*producer->idle));
    producer->key_seqs = (uint64_t *)calloc(options->keys, sizeof(*producer->key_seqs));
    sl_assert(producer->payload != NULL && producer->buffers != NULL && producer->idle != NULL &&
              producer->key_seqs != NULL);
    for (uint32_t i = 0; i < options->pool; i++)
        producer->idle[producer->idle_count++] = i;
    producer->random = 1;
}

// What Sluice puts beside each event.
static rd_kafka_headers_t *make_headers(const struct producer *producer, uint64_t counter)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new(5);
    char text[64];
    int length = snprintf(text, sizeof(text), "%" PRIu64, counter);
    rd_kafka_header_add(headers, "sluice-stream", -1, "gw-a1.42-7f3a9c21", -1);
    rd_kafka_header_add(headers, "sluice-seq", -1, text, length);
    rd_kafka_header_add(headers, "sluice-node", -1, "gw-a1", -1);
    size_t id_length = payload_id(producer->payload, counter, text);
    rd_kafka_header_add(headers, "event_id", -1, text, (ssize_t)id_length);
    rd_kafka_header_add(headers, "content-type", -1, "application/json", -1);
    return headers;
}

// False when no buffer is idle or the queue is full: poll and come again.
static bool produce_one(struct producer *producer)
{
    const struct options *options = &producer->options;
    if (producer->idle_count == 0)
        return false;
    uint32_t index = producer->idle[producer->idle_count - 1];
    uint8_t *buffer = producer->buffers + (size_t)index * options->event_bytes;
    uint32_t key = (uint32_t)(((payload_random(&producer->random) >> 32) * options->keys) >> 32);
    const struct payload_event event = {
        .counter = producer->produced, .key = key, .seq = producer->key_seqs[key] + 1, .wall_ns = sl_wall_ns()};
    payload_write(producer->payload, &event, buffer);
    char key_text[PAYLOAD_KEY_BYTES];
    payload_key(key, key_text);
    rd_kafka_vu_t arguments[6] = {
        {.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = producer->topic},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {.ptr = buffer, .size = options->event_bytes}},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {.ptr = key_text, .size = sizeof(key_text)}},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = 0}, // neither copied nor freed: ours until its report
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = (void *)(uintptr_t)index},
    };
    size_t count = 5;
    if (options->headers)
        arguments[count++] =
            (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = make_headers(producer, producer->produced)};
    rd_kafka_error_t *error = rd_kafka_produceva(producer->kafka, arguments, count);
    if (error != NULL) {
        if (options->headers)
            rd_kafka_headers_destroy(arguments[count - 1].u.headers);
        if (rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            check(error, "produce");
        rd_kafka_error_destroy(error);
        return false;
    }
    producer->idle_count--;
    producer->key_seqs[key]++;
    producer->produced++;
    return true;
}

static void produce_until(struct producer *producer, uint64_t events, int64_t until_ns)
{
    uint64_t end = producer->produced + events;
    while (producer->produced < end && sl_monotonic_ns() < until_ns) {
        bool full = false;
        for (int i = 0; i < POLL_EVERY && producer->produced < end && !full; i++)
            full = !produce_one(producer);
        rd_kafka_poll(producer->kafka, full ? 10 : 0);
        if (producer->failed > 0)
            die("delivery", producer->first_failure);
    }
}

static void run_transaction(struct producer *producer, int64_t end_ns)
{
    const struct options *options = &producer->options;
    check(rd_kafka_begin_transaction(producer->kafka), "begin_transaction");
    uint64_t before = producer->produced;
    int64_t until_ns = sl_monotonic_ns() + options->transaction_ns;
    produce_until(producer, options->transaction_events, until_ns < end_ns ? until_ns : end_ns);
    // The reports are wanted before the commit, as in Sluice, whose progress record goes out only after them.
    while (producer->delivered + producer->failed < producer->produced)
        rd_kafka_flush(producer->kafka, 1000);
    if (producer->failed > 0)
        die("delivery", producer->first_failure);
    int64_t commit_ns = sl_monotonic_ns();
    check(rd_kafka_commit_transaction(producer->kafka, 60000), "commit_transaction");
    latency_add(&producer->commits, (uint64_t)(sl_monotonic_ns() - commit_ns));
    producer->committed += producer->produced - before;
    producer->transactions++;
}

static void run_for(struct producer *producer, double seconds)
{
    int64_t end_ns = sl_monotonic_ns() + (int64_t)(seconds * (double)SL_NS_PER_S);
    if (producer->options.transactional) {
        while (sl_monotonic_ns() < end_ns)
            run_transaction(producer, end_ns);
        return;
    }
    produce_until(producer, UINT64_MAX - producer->produced, end_ns);
    while (producer->delivered + producer->failed < producer->produced)
        rd_kafka_flush(producer->kafka, 1000);
    producer->committed = producer->delivered;
}

static int64_t cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * INT64_C(1000000) + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
}

static const char usage[] = "usage: bare-producer -b BROKERS -T TOPIC [options]\n"
                            "  -i           idempotent without transactions (transactional)\n"
                            "  -e N         events a transaction, at most (20000)\n"
                            "  -m MS        length of a transaction, at most (1000)\n"
                            "  -t S  -w S   measured seconds (10), seconds of warm-up before (2)\n"
                            "  -s BYTES     of one event (1048)\n"
                            "  -k N         accounts (10000)\n"
                            "  -q N         events in librdkafka's hands, at most (100000)\n"
                            "  -H           with the headers that Sluice adds\n"
                            "  -X NAME=VALUE  a property of librdkafka (lz4, linger.ms=5)\n";

static bool parse(struct options *options, int argc, char **argv)
{
    *options = (struct options){.transactional = true,
                                .seconds = 10,
                                .warmup_s = 2,
                                .keys = 10000,
                                .pool = 100000,
                                .event_bytes = PAYLOAD_BYTES_DEFAULT,
                                .transaction_events = 20000,
                                .transaction_ns = SL_NS_PER_S};
    int option;
    while ((option = getopt(argc, argv, "b:T:ie:m:t:w:s:k:q:HX:")) != -1) {
        switch (option) {
        case 'b':
            options->brokers = optarg;
            break;
        case 'T':
            options->topic = optarg;
            break;
        case 'i':
            options->transactional = false;
            break;
        case 'e':
            options->transaction_events = strtoull(optarg, NULL, 10);
            break;
        case 'm':
            options->transaction_ns = (int64_t)strtoull(optarg, NULL, 10) * SL_NS_PER_MS;
            break;
        case 't':
            options->seconds = strtod(optarg, NULL);
            break;
        case 'w':
            options->warmup_s = strtod(optarg, NULL);
            break;
        case 's':
            options->event_bytes = strtoul(optarg, NULL, 10);
            break;
        case 'k':
            options->keys = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'q':
            options->pool = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'H':
            options->headers = true;
            break;
        case 'X':
            if (options->property_count == PROPERTIES_MAX)
                return false;
            options->properties[options->property_count++] = optarg;
            break;
        default:
            return false;
        }
    }
    return optind == argc && options->brokers != NULL && options->topic != NULL && options->seconds > 0 &&
           options->event_bytes >= PAYLOAD_BYTES_MIN && options->event_bytes <= PAYLOAD_BYTES_MAX &&
           options->keys > 0 && options->keys <= PAYLOAD_KEYS_MAX && options->pool > 0 &&
           options->transaction_events > 0 && options->transaction_ns > 0;
}

static void report(const struct producer *producer, uint64_t events, int64_t took_ns, int64_t cpu)
{
    const struct options *options = &producer->options;
    double rate = (double)events * (double)SL_NS_PER_S / (double)took_ns;
    printf("{\"mode\":\"%s\",\"headers\":%s,\"event_bytes\":%zu,\"seconds\":%.3f,\"events\":%" PRIu64
           ",\"events_per_second\":%.0f,\"mb_per_second\":%.1f,\"cpu_us_per_event\":%.3f,\"transactions\":%" PRIu64
           ",\"commit_ms_p50\":%.1f,\"commit_ms_max\":%.1f}\n",
           options->transactional ? "transactional" : "idempotent", options->headers ? "true" : "false",
           options->event_bytes, (double)took_ns / (double)SL_NS_PER_S, events, rate,
           rate * (double)options->event_bytes / 1e6, events > 0 ? (double)cpu / (double)events : 0.0,
           producer->transactions, (double)latency_quantile_ns(&producer->commits, 0.5) / 1e6,
           (double)producer->commits.max_ns / 1e6);
}

int main(int argc, char **argv)
{
    static struct producer producer;
    if (!parse(&producer.options, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    allocate(&producer);
    create(&producer);
    if (producer.options.warmup_s > 0)
        run_for(&producer, producer.options.warmup_s);
    latency_reset(&producer.commits);
    producer.transactions = 0;
    uint64_t before = producer.committed;
    int64_t start_ns = sl_monotonic_ns(), cpu_before = cpu_us();
    run_for(&producer, producer.options.seconds);
    report(&producer, producer.committed - before, sl_monotonic_ns() - start_ns, cpu_us() - cpu_before);
    rd_kafka_topic_destroy(producer.topic);
    rd_kafka_destroy(producer.kafka);
    payload_set_free(producer.payload);
    free(producer.buffers);
    free(producer.idle);
    free(producer.key_seqs);
    return 0;
}
