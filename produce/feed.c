// The reader of all progress: thread "progress-tail", one consumer over all partitions of sluice.progress,
// read_committed, from the beginning, for ever. What it reads it tells (on_progress), notes as verified in the spool,
// and remembers for streams of this node, so that what others produced of them is counted here. It also writes
// tombstones, and asks Kafka a small question when nothing comes, so that produce_connected is true of a node that
// drains nothing.
//
// Happy path: the topic is there, records come as they are committed; within a partition in its order, and all lanes of
// a stream lie in one partition.
//
// Failure modes: brokers that are away are librdkafka's to wait for; it goes on from the offset that it has reached.
// The topic is missing, or was made anew: from the beginning, once it is there.
#include "produce/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POLL_MS = 200, METADATA_MS = 1000, BATCH = 256 };
static const int64_t missing_pause_ns = 500 * SL_NS_PER_MS;
static const int64_t ask_after_ns = 2 * SL_NS_PER_S;
static const int64_t count_every_ns = 5 * SL_NS_PER_S;

struct own_lane { // of a stream that this node wrote
    char stream[SPOOL_STREAM_ID_MAX];
    char lane[SPOOL_NAME_MAX + 1];
    uint64_t through;
};

struct feed {
    struct produce *produce;
    pthread_t thread;
    // Shared.
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool stopping;
    // The thread's own.
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic; // NULL while nothing is read
    rd_kafka_queue_t *queue;
    int32_t partitions;
    bool lost; // the topic is gone, or not the one that it was
    struct own_lane *owns;
    size_t own_count;
    int64_t counted_ns, asked_ns;
};

static bool feed_pause(struct feed *feed, int64_t ns)
{
    int64_t until_ns = sl_monotonic_ns() + ns;
    struct timespec when = {.tv_sec = until_ns / SL_NS_PER_S, .tv_nsec = until_ns % SL_NS_PER_S};
    pthread_mutex_lock(&feed->mutex);
    while (!feed->stopping && sl_monotonic_ns() < until_ns)
        pthread_cond_timedwait(&feed->wake, &feed->mutex, &when);
    bool on = !feed->stopping;
    pthread_mutex_unlock(&feed->mutex);
    return on;
}

static bool is_stopping(struct feed *feed)
{
    pthread_mutex_lock(&feed->mutex);
    bool stopping = feed->stopping;
    pthread_mutex_unlock(&feed->mutex);
    return stopping;
}

// ---- what is read

static struct own_lane *find_own(struct feed *feed, const char *stream, const char *lane)
{
    for (size_t i = 0; i < feed->own_count; i++) {
        if (strcmp(feed->owns[i].stream, stream) == 0 && strcmp(feed->owns[i].lane, lane) == 0)
            return &feed->owns[i];
    }
    return NULL;
}

static void remember_own(struct feed *feed, const char *stream, const char *lane, uint64_t through, bool gone)
{
    char node[SPOOL_NAME_MAX + 1];
    progress_node(node, stream);
    if (strcmp(node, feed->produce->options.node) != 0)
        return;
    struct own_lane *own = find_own(feed, stream, lane);
    if (gone) {
        if (own)
            *own = feed->owns[--feed->own_count];
        return;
    }
    if (!own) {
        feed->owns = realloc(feed->owns, (feed->own_count + 1) * sizeof(*feed->owns));
        sl_assert(feed->owns);
        own = &feed->owns[feed->own_count++];
        snprintf(own->stream, sizeof(own->stream), "%s", stream);
        snprintf(own->lane, sizeof(own->lane), "%s", lane);
    }
    own->through = through;
}

// "<stream>/<lane>"
static bool take_key(const rd_kafka_message_t *message, char stream[SPOOL_STREAM_ID_MAX], char lane[SPOOL_NAME_MAX + 1])
{
    const char *key = message->key, *slash = key ? memchr(key, '/', message->key_len) : NULL;
    if (!slash)
        return false;
    size_t stream_length = (size_t)(slash - key), lane_length = message->key_len - stream_length - 1;
    if (stream_length == 0 || stream_length >= SPOOL_STREAM_ID_MAX || lane_length == 0 || lane_length > SPOOL_NAME_MAX)
        return false;
    memcpy(stream, key, stream_length);
    stream[stream_length] = '\0';
    memcpy(lane, slash + 1, lane_length);
    lane[lane_length] = '\0';
    return true;
}

static void take_record(struct feed *feed, const rd_kafka_message_t *message)
{
    const struct produce_options *options = &feed->produce->options;
    char stream[SPOOL_STREAM_ID_MAX], lane[SPOOL_NAME_MAX + 1];
    struct progress read = {0};
    struct sl_error err = {.text = "its key is no stream and lane"};
    bool gone = message->len == 0;
    if (!take_key(message, stream, lane) || (!gone && !progress_decode(&read, message->payload, message->len, &err))) {
        sl_logf(SL_ERROR, "produce", "a progress record does not decode", SL_INT("partition", message->partition),
                SL_INT("offset", message->offset), SL_STR("cause", err.text));
        return;
    }
    remember_own(feed, stream, lane, read.through, gone);
    if (!gone)
        spool_note_verified(options->spool, stream, lane, read.through);
    if (!options->on_progress)
        return;
    struct produce_progress progress = {
        .found = !gone, .closed = read.closed, .through = read.through, .claim = read.claim};
    memcpy(progress.drainer, read.drainer, sizeof(progress.drainer));
    options->on_progress(options->user, stream, lane, &progress, gone);
}

static void take_error(struct feed *feed, const rd_kafka_message_t *message)
{
    switch (message->err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        atomic_store(&feed->produce->reached_ns, sl_monotonic_ns());
        break;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID:
        feed->lost = true;
        break;
    default:
        sl_logf(SL_DEBUG, "produce", "the reader of progress waits", SL_STR("cause", rd_kafka_message_errstr(message)));
        break;
    }
}

static void take_messages(struct feed *feed)
{
    rd_kafka_message_t *messages[BATCH];
    ssize_t count = rd_kafka_consume_batch_queue(feed->queue, POLL_MS, messages, BATCH);
    for (ssize_t i = 0; i < count; i++) {
        if (messages[i]->err) {
            take_error(feed, messages[i]);
        } else {
            atomic_store(&feed->produce->reached_ns, sl_monotonic_ns());
            take_record(feed, messages[i]);
        }
        rd_kafka_message_destroy(messages[i]);
    }
}

// ---- the topic

// How many partitions it has; 0: it is not there; -1: no answer.
static int32_t ask(struct feed *feed)
{
    rd_kafka_topic_t *topic = rd_kafka_topic_new(feed->rk, PROGRESS_TOPIC, NULL);
    sl_assert(topic);
    const struct rd_kafka_metadata *metadata;
    rd_kafka_resp_err_t code = rd_kafka_metadata(feed->rk, 0, topic, &metadata, METADATA_MS);
    rd_kafka_topic_destroy(topic);
    feed->asked_ns = sl_monotonic_ns();
    if (code)
        return -1;
    atomic_store(&feed->produce->reached_ns, feed->asked_ns);
    int32_t partitions = metadata->topic_cnt == 1 && !metadata->topics[0].err ? metadata->topics[0].partition_cnt : 0;
    rd_kafka_metadata_destroy(metadata);
    return partitions;
}

static bool begin(struct feed *feed)
{
    struct sl_error err;
    if (!feed->rk && !(feed->rk = handle_consumer(feed->produce, "progress", FETCH_WAIT_MS, &err))) {
        sl_logf(SL_ERROR, "produce", "the reader of progress cannot begin", SL_STR("cause", err.text));
        return false;
    }
    int32_t partitions = ask(feed);
    if (partitions < PROGRESS_PARTITIONS)
        return false;
    feed->lost = false;
    feed->partitions = partitions;
    feed->queue = rd_kafka_queue_new(feed->rk);
    feed->topic = rd_kafka_topic_new(feed->rk, PROGRESS_TOPIC, NULL);
    sl_assert(feed->topic);
    for (int32_t i = 0; i < partitions; i++) {
        if (rd_kafka_consume_start_queue(feed->topic, i, RD_KAFKA_OFFSET_BEGINNING, feed->queue) != 0)
            feed->lost = true;
    }
    return true;
}

// The handle goes, too: what it fetched must not be mixed with what comes from the beginning.
static void end(struct feed *feed)
{
    for (int32_t i = 0; feed->topic && i < feed->partitions; i++)
        (void)rd_kafka_consume_stop(feed->topic, i);
    if (feed->queue)
        rd_kafka_queue_destroy(feed->queue);
    if (feed->topic)
        rd_kafka_topic_destroy(feed->topic);
    if (feed->rk)
        rd_kafka_destroy(feed->rk);
    feed->queue = NULL;
    feed->topic = NULL;
    feed->rk = NULL;
}

// ---- what others produced of this node's streams

static void count_owns(struct feed *feed)
{
    int64_t now = sl_monotonic_ns();
    if (feed->own_count == 0 || now - feed->counted_ns < count_every_ns)
        return;
    feed->counted_ns = now;
    struct spool *spool = feed->produce->options.spool;
    size_t count = spool_streams(spool, NULL, 0) + 2;
    struct spool_stream_info *infos = calloc(count, sizeof(*infos));
    sl_assert(infos);
    size_t filled = spool_streams(spool, infos, count);
    for (size_t i = 0; i < filled && i < count; i++) {
        for (uint32_t k = 0; k < infos[i].lane_count; k++) {
            const struct own_lane *own = find_own(feed, infos[i].id, infos[i].lanes[k]);
            if (own && own->through > infos[i].committed[k])
                drain_order_count(feed->produce, own->stream, own->lane, own->through);
        }
    }
    free(infos);
}

// ---- the thread

static void *feed_main(void *argument)
{
    struct feed *feed = argument;
    while (!is_stopping(feed)) {
        if (!feed->topic && !begin(feed)) {
            if (!feed_pause(feed, missing_pause_ns))
                break;
            continue;
        }
        take_messages(feed);
        tombstones_serve(feed->produce);
        count_owns(feed);
        int64_t now = sl_monotonic_ns();
        if (now - atomic_load(&feed->produce->reached_ns) >= ask_after_ns && now - feed->asked_ns >= ask_after_ns &&
            ask(feed) == 0)
            feed->lost = true;
        if (feed->lost) {
            sl_logf(SL_WARN, "produce", "sluice.progress is gone: it is read from the beginning once it is there",
                    SL_INT("partitions", feed->partitions));
            end(feed);
        }
    }
    end(feed);
    return NULL;
}

bool feed_start(struct produce *produce, struct sl_error *err)
{
    struct feed *feed = calloc(1, sizeof(*feed));
    sl_assert(feed);
    feed->produce = produce;
    pthread_mutex_init(&feed->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&feed->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int code = pthread_create(&feed->thread, NULL, feed_main, feed);
    if (code != 0) {
        pthread_cond_destroy(&feed->wake);
        pthread_mutex_destroy(&feed->mutex);
        free(feed);
        return sl_fail_errno(err, SL_E_UNAVAILABLE, code, "start the reader of progress");
    }
    pthread_setname_np(feed->thread, "progress-tail");
    produce->feed = feed;
    return true;
}

void feed_stop(struct produce *produce)
{
    struct feed *feed = produce->feed;
    if (!feed)
        return;
    pthread_mutex_lock(&feed->mutex);
    feed->stopping = true;
    pthread_cond_broadcast(&feed->wake);
    pthread_mutex_unlock(&feed->mutex);
    pthread_join(feed->thread, NULL);
    pthread_cond_destroy(&feed->wake);
    pthread_mutex_destroy(&feed->mutex);
    free(feed->owns);
    free(feed);
    produce->feed = NULL;
}
