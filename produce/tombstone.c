// Removing progress: records without a value under the keys of a stream's lanes, written by an idempotent producer
// without transactions (nobody is to be fenced by it). Asked for from any thread, done on the thread of feed.c.
//
// Best effort: what fails is logged and forgotten, and asked for again by whoever sees that the progress is still
// there.
#include "produce/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAITING_MAX = 4096 };
static const int64_t keep_ns = 10 * SL_NS_PER_S; // the producer, when nothing more comes

struct tombstone {
    char key[PROGRESS_KEY_MAX];
    int32_t partition;
};

struct tombstones {
    pthread_mutex_t mutex;
    struct tombstone *waiting; // under mutex
    size_t count;              // under mutex
    // Of the thread that serves.
    rd_kafka_t *rk; // NULL: not needed just now
    int64_t used_ns;
    uint32_t outstanding;
};

void tombstones_init(struct produce *produce)
{
    produce->tombstones = calloc(1, sizeof(*produce->tombstones));
    sl_assert(produce->tombstones);
    pthread_mutex_init(&produce->tombstones->mutex, NULL);
}

void tombstones_free(struct produce *produce)
{
    struct tombstones *tombstones = produce->tombstones;
    if (!tombstones)
        return;
    if (tombstones->rk)
        rd_kafka_destroy(tombstones->rk);
    pthread_mutex_destroy(&tombstones->mutex);
    free(tombstones->waiting);
    free(tombstones);
    produce->tombstones = NULL;
}

void produce_tombstone(struct produce *produce, const char *stream, const char *const *lanes, size_t lane_count)
{
    struct tombstones *tombstones = produce->tombstones;
    sl_assert(tombstones);
    pthread_mutex_lock(&tombstones->mutex);
    for (size_t i = 0; i < lane_count && tombstones->count < WAITING_MAX; i++) {
        struct tombstone *grown = realloc(tombstones->waiting, (tombstones->count + 1) * sizeof(*grown));
        sl_assert(grown);
        tombstones->waiting = grown;
        struct tombstone *added = &grown[tombstones->count++];
        progress_key(added->key, stream, lanes[i]);
        added->partition = progress_partition(stream);
    }
    pthread_mutex_unlock(&tombstones->mutex);
}

static void log_outcome(const char *key, rd_kafka_resp_err_t code)
{
    sl_logf(code ? SL_WARN : SL_INFO, "produce",
            code ? "progress of a stream could not be removed" : "progress of a stream removed", SL_STR("key", key),
            SL_STR("cause", code ? rd_kafka_err2str(code) : ""));
}

static void send_one(struct tombstones *tombstones, const struct tombstone *tombstone)
{
    const char *key = tombstone->key;
    rd_kafka_resp_err_t code =
        rd_kafka_producev(tombstones->rk, RD_KAFKA_V_TOPIC(PROGRESS_TOPIC), RD_KAFKA_V_PARTITION(tombstone->partition),
                          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_VALUE(NULL, 0),
                          RD_KAFKA_V_KEY(key, strlen(key)), RD_KAFKA_V_END);
    tombstones->outstanding += code == RD_KAFKA_RESP_ERR_NO_ERROR;
    tombstones->used_ns = sl_monotonic_ns();
    if (code)
        log_outcome(key, code);
}

static void send_all(struct produce *produce)
{
    struct tombstones *tombstones = produce->tombstones;
    struct sl_error err;
    pthread_mutex_lock(&tombstones->mutex);
    size_t count = tombstones->count;
    struct tombstone *waiting = tombstones->waiting;
    tombstones->waiting = NULL;
    tombstones->count = 0;
    pthread_mutex_unlock(&tombstones->mutex);
    if (count > 0 && !tombstones->rk && !(tombstones->rk = handle_plain_producer(produce, "tombstones", &err))) {
        sl_logf(SL_ERROR, "produce", "no producer for tombstones", SL_STR("cause", err.text));
        count = 0;
    }
    for (size_t i = 0; i < count; i++)
        send_one(tombstones, &waiting[i]);
    free(waiting);
}

static void take_reports(struct tombstones *tombstones)
{
    rd_kafka_queue_t *events = rd_kafka_queue_get_main(tombstones->rk);
    rd_kafka_event_t *event;
    while ((event = rd_kafka_queue_poll(events, 0))) {
        const rd_kafka_message_t *message;
        while (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR && (message = rd_kafka_event_message_next(event))) {
            char key[PROGRESS_KEY_MAX];
            snprintf(key, sizeof(key), "%.*s", (int)message->key_len, (const char *)message->key);
            log_outcome(key, message->err);
            tombstones->outstanding--;
        }
        rd_kafka_event_destroy(event);
    }
    rd_kafka_queue_destroy(events);
}

void tombstones_serve(struct produce *produce)
{
    struct tombstones *tombstones = produce->tombstones;
    send_all(produce);
    if (!tombstones->rk)
        return;
    take_reports(tombstones);
    if (tombstones->outstanding > 0 || sl_monotonic_ns() - tombstones->used_ns < keep_ns)
        return;
    rd_kafka_destroy(tombstones->rk);
    tombstones->rk = NULL;
}
