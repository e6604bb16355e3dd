// driven-tool: a spool and a driven drain whose steps are ordered line by line on stdin: the vehicle of
// driven_brokers.py. Strings are words; "." is the stream that this process writes.
//
//   append N                         events with the next counters, durable when it is answered
//   init|read|look S T               T: the ticket
//   claim|close S T THROUGH CLAIM
//   records S T FIRST LAST           LAST 0: follow
//   release S   drainer S   tombstone S   figures   stop SECONDS
//
// Prints JSON lines: {"stream":…} at the start, {"done":…} for each answer, {"committed":…}, {"progress":…} for each
// record that the reader of all progress tells of, {"appended":…}, {"pending":…}, {"stopped":true}.
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "bench/payload.h"
#include "produce/produce.h"

#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVENT_BYTES = 300, KEYS = 20, BATCH = 100, WORDS_MAX = 5 };

struct tool {
    const char *dir, *brokers, *topic, *node, *run;
    uint64_t counter; // of the next event
    int64_t takeover_after_ns, transaction_ns;
    struct spool *spool;
    struct produce *produce;
    struct payload_set *set;
};

static pthread_mutex_t printing = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint32_t in_flight;
static bool failed;

_Noreturn static void die(const char *what, const char *why)
{
    fprintf(stderr, "driven-tool: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    pthread_mutex_lock(&printing);
    vprintf(format, arguments);
    putchar('\n');
    fflush(stdout);
    pthread_mutex_unlock(&printing);
    va_end(arguments);
}

// ---- callbacks

static void on_done(void *user, const struct produce_done *done)
{
    (void)user;
    static const char *const results[] = {"ok", "failed", "fenced"};
    say("{\"done\":\"%s\",\"stream\":\"%s\",\"lane\":\"%s\",\"ticket\":%u,\"result\":\"%s\",\"found\":%s,\"at\":"
        "%" PRIu64 ",\"claim\":%" PRIu64 ",\"drainer\":\"%s\",\"closed\":%s,\"through\":%" PRIu64
        ",\"trouble\":\"%s\"}",
        produce_step_word(done->step), done->stream, done->lane, done->ticket, results[done->result],
        done->progress.found ? "true" : "false", done->progress.through, done->progress.claim, done->progress.drainer,
        done->progress.closed ? "true" : "false", done->through, done->trouble);
}

static void on_committed(void *user, const char *stream, const char *lane, uint64_t through)
{
    (void)user;
    (void)lane;
    say("{\"committed\":%" PRIu64 ",\"stream\":\"%s\"}", through, stream);
}

static void on_progress(void *user, const char *stream, const char *lane, const struct produce_progress *progress,
                        bool gone)
{
    (void)user;
    say("{\"progress\":%" PRIu64 ",\"stream\":\"%s\",\"lane\":\"%s\",\"claim\":%" PRIu64
        ",\"drainer\":\"%s\",\"closed\":%s,\"gone\":%s,\"ms\":%" PRId64 "}",
        progress->through, stream, lane, progress->claim, progress->drainer, progress->closed ? "true" : "false",
        gone ? "true" : "false", sl_monotonic_ns() / SL_NS_PER_MS);
}

// ---- appending

static void on_synced(struct spool_batch *batch)
{
    pthread_mutex_lock(&mutex);
    in_flight--;
    failed |= batch->outcome != SPOOL_SYNCED;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&mutex);
    record_buffer_free(&batch->records);
    free(batch);
}

static void append_event(struct tool *tool, struct spool_batch *batch)
{
    uint64_t counter = tool->counter++;
    uint32_t key = (uint32_t)(counter % KEYS);
    struct payload_event event = {.counter = counter, .key = key, .seq = counter / KEYS + 1, .wall_ns = sl_wall_ns()};
    uint8_t bytes[EVENT_BYTES];
    payload_write(tool->set, &event, bytes);
    char id[PAYLOAD_ID_MAX], key_text[PAYLOAD_KEY_BYTES];
    size_t id_length = payload_id(tool->set, counter, id);
    payload_key(key, key_text);
    struct record record = {.kind = RECORD_EVENT,
                            .received_wall_ns = event.wall_ns,
                            .payload_crc = sl_crc32c(bytes, sizeof(bytes)),
                            .source = sl_span_of("payments"),
                            .lane = sl_span_of("main"),
                            .topic = sl_span_of(tool->topic),
                            .event_id = {.bytes = id, .length = id_length},
                            .has_key = true,
                            .key = {.bytes = key_text, .length = sizeof(key_text)},
                            .payload = {.bytes = bytes, .length = sizeof(bytes)}};
    if (!record_append(&batch->records, &record, NULL, 0))
        die("append", "no memory");
    batch->lane_counts[spool_lane_index(tool->spool, "main")]++;
}

static void append(struct tool *tool, uint64_t count)
{
    for (uint64_t done = 0; done < count;) {
        struct spool_batch *batch = calloc(1, sizeof(*batch));
        sl_assert(batch);
        batch->done = on_synced;
        for (uint32_t i = 0; i < BATCH && done < count; i++, done++)
            append_event(tool, batch);
        pthread_mutex_lock(&mutex);
        in_flight++;
        pthread_mutex_unlock(&mutex);
        if (!spool_submit(tool->spool, batch))
            die("append", "the spool is failed");
    }
    pthread_mutex_lock(&mutex);
    while (in_flight > 0)
        pthread_cond_wait(&changed, &mutex);
    if (failed)
        die("append", "a write or sync failed");
    pthread_mutex_unlock(&mutex);
    say("{\"appended\":%" PRIu64 ",\"end\":%" PRIu64 "}", tool->counter, spool_synced_seq(tool->spool));
}

// ---- orders

static const char *stream_of(const struct tool *tool, const char *word)
{
    return strcmp(word, ".") == 0 ? spool_stream(tool->spool) : word;
}

static bool order(struct tool *tool, char **words, size_t count)
{
    static const struct {
        const char *word;
        enum produce_step step;
        size_t words;
    } steps[] = {{"init", PRODUCE_STEP_INIT, 3},   {"read", PRODUCE_STEP_READ, 3},
                 {"look", PRODUCE_STEP_LOOK, 3},   {"claim", PRODUCE_STEP_CLAIM, 5},
                 {"close", PRODUCE_STEP_CLOSE, 5}, {"records", PRODUCE_STEP_RECORDS, 5}};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (strcmp(words[0], steps[i].word) != 0 || count != steps[i].words)
            continue;
        uint64_t first = count == 5 ? strtoull(words[3], NULL, 10) : 0,
                 second = count == 5 ? strtoull(words[4], NULL, 10) : 0;
        struct produce_order order = {.step = steps[i].step,
                                      .stream = stream_of(tool, words[1]),
                                      .lane = "main",
                                      .ticket = (uint32_t)strtoul(words[2], NULL, 10),
                                      .through = first,
                                      .claim = second,
                                      .first = first,
                                      .last = second};
        produce_order(tool->produce, &order);
        return true;
    }
    return false;
}

static void say_figures(const struct tool *tool)
{
    struct spool_figures figures;
    spool_figures(tool->spool, &figures);
    say("{\"pending\":%" PRIu64 ",\"conservation_error\":%" PRIu64 ",\"connected\":%s}", figures.pending_events,
        figures.conservation_error, produce_connected(tool->produce) ? "true" : "false");
}

_Noreturn static void stop(struct tool *tool, double seconds)
{
    struct sl_error err;
    produce_stop(tool->produce, sl_monotonic_ns() + (int64_t)(seconds * 1e9));
    if (!spool_close(tool->spool, &err))
        die("close the spool", err.text);
    payload_set_free(tool->set);
    say("{\"stopped\":true}");
    exit(EXIT_SUCCESS);
}

static bool carry_out(struct tool *tool, char **words, size_t count)
{
    const char *const lanes[] = {"main"};
    if (count == 1 && strcmp(words[0], "figures") == 0)
        say_figures(tool);
    else if (count != 2)
        return order(tool, words, count);
    else if (strcmp(words[0], "append") == 0)
        append(tool, strtoull(words[1], NULL, 10));
    else if (strcmp(words[0], "release") == 0) {
        produce_release(tool->produce, stream_of(tool, words[1]), "main");
        say("{\"released\":\"%s\"}", stream_of(tool, words[1]));
    } else if (strcmp(words[0], "drainer") == 0)
        produce_set_drainer(tool->produce, words[1]);
    else if (strcmp(words[0], "tombstone") == 0)
        produce_tombstone(tool->produce, stream_of(tool, words[1]), lanes, 1);
    else if (strcmp(words[0], "stop") == 0)
        stop(tool, strtod(words[1], NULL));
    else
        return false;
    return true;
}

// ---- the start

static void open_spool(struct tool *tool)
{
    const char *const lanes[] = {"main"};
    struct spool_options options = {.storage = &storage_posix,
                                    .dir = tool->dir,
                                    .node = tool->node,
                                    .segment_bytes = 4 << 20,
                                    .max_bytes = UINT64_C(4) << 30,
                                    .retain_ns = 3600 * SL_NS_PER_S,
                                    .prepared = 1,
                                    .append_bytes = 64 << 20,
                                    .lanes = lanes,
                                    .lane_count = 1};
    struct sl_error err;
    if (!spool_open(&tool->spool, &options, &err))
        die("open the spool", err.text);
}

static void start_drain(struct tool *tool)
{
    const char *const lanes[] = {"main"};
    struct produce_topic topics[] = {{.name = tool->topic, .lane = "main"}};
    struct produce_options options = {.spool = tool->spool,
                                      .node = tool->node,
                                      .cluster = "test",
                                      .brokers = tool->brokers,
                                      .transactional = true,
                                      .transaction_time_ns = tool->transaction_ns,
                                      .queue_events = 20000,
                                      .queue_bytes = 32 << 20,
                                      .topics = topics,
                                      .topic_count = 1,
                                      .lanes = lanes,
                                      .lane_count = 1,
                                      .driven = true,
                                      .takeover_after_ns = tool->takeover_after_ns,
                                      .on_done = on_done,
                                      .on_committed = on_committed,
                                      .on_progress = on_progress};
    struct sl_error err;
    if (!produce_start(&tool->produce, &options, &err))
        die("start the drain", err.text);
}

static struct tool parse(int argc, char **argv)
{
    struct tool tool = {
        .node = "gw-t1", .run = "d", .takeover_after_ns = 5 * SL_NS_PER_S, .transaction_ns = 200 * SL_NS_PER_MS};
    int option;
    while ((option = getopt(argc, argv, "d:b:t:n:R:f:m:T:")) != -1) {
        switch (option) {
        case 'd':
            tool.dir = optarg;
            break;
        case 'b':
            tool.brokers = optarg;
            break;
        case 't':
            tool.topic = optarg;
            break;
        case 'n':
            tool.node = optarg;
            break;
        case 'R':
            tool.run = optarg;
            break;
        case 'f':
            tool.counter = strtoull(optarg, NULL, 10);
            break;
        case 'm':
            tool.transaction_ns = strtol(optarg, NULL, 10) * SL_NS_PER_MS;
            break;
        case 'T':
            tool.takeover_after_ns = strtol(optarg, NULL, 10) * SL_NS_PER_MS;
            break;
        default:
            exit(2);
        }
    }
    if (!tool.dir || !tool.brokers || !tool.topic) {
        fputs("usage: driven-tool -d DIR -b BROKERS -t TOPIC [-n NODE] [-R RUN] [-f COUNTER] [-m TRANSACTION_MS]"
              " [-T TAKEOVER_AFTER_MS]\n",
              stderr);
        exit(2);
    }
    return tool;
}

int main(int argc, char **argv)
{
    struct tool tool = parse(argc, argv);
    sl_log_configure(true, SL_INFO);
    tool.set = payload_set_new(EVENT_BYTES, tool.run, 1);
    sl_assert(tool.set);
    open_spool(&tool);
    say("{\"stream\":\"%s\"}", spool_stream(tool.spool));
    start_drain(&tool);
    char line[512];
    while (fgets(line, sizeof(line), stdin)) {
        char *words[WORDS_MAX], *rest = NULL;
        size_t count = 0;
        for (char *word = strtok_r(line, " \n", &rest); word && count < WORDS_MAX; word = strtok_r(NULL, " \n", &rest))
            words[count++] = word;
        if (count == 0 || !carry_out(&tool, words, count))
            die("an order is not understood", line);
    }
    stop(&tool, 0);
}
