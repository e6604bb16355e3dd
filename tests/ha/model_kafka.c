#include "tests/ha/model_kafka.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 32, CLIENTS = 8, DRAINS = 32, SEQS = 1 << 16 };

struct lane {
    char stream[SPOOL_STREAM_ID_MAX], lane[SPOOL_NAME_MAX + 1];
    uint32_t epoch;
    bool found;
    uint64_t through, claim;
    char drainer[SPOOL_STREAM_ID_MAX];
    uint8_t times[SEQS]; // how often each record was committed
};
struct model_kafka {
    pthread_mutex_t mutex;
    struct lane lanes[LANES];
    size_t lane_count;
    struct model_client *clients[CLIENTS];
    _Atomic bool reachable;
};
struct drain {
    struct model_client *client;
    char stream[SPOOL_STREAM_ID_MAX], lane[SPOOL_NAME_MAX + 1];
    uint32_t epoch;
    struct cell_order order;
    pthread_t thread;
    bool used, running;
    _Atomic bool released;
};
struct model_client {
    struct model_kafka *kafka;
    struct cell *cell;
    struct spool *spool;
    char drainer[SPOOL_STREAM_ID_MAX];
    struct drain drains[DRAINS]; // kafka->mutex
};

struct model_kafka *model_kafka_new(void)
{
    struct model_kafka *kafka = calloc(1, sizeof(*kafka));
    sl_assert(kafka != NULL);
    pthread_mutex_init(&kafka->mutex, NULL);
    atomic_store(&kafka->reachable, true);
    return kafka;
}

void model_kafka_free(struct model_kafka *kafka)
{
    pthread_mutex_destroy(&kafka->mutex);
    free(kafka);
}

void model_kafka_reachable(struct model_kafka *kafka, bool reachable)
{
    atomic_store(&kafka->reachable, reachable);
}

// With the mutex, as what follows.
static struct lane *lane_of(struct model_kafka *kafka, const char *stream, const char *lane)
{
    for (size_t i = 0; i < kafka->lane_count; i++)
        if (strcmp(kafka->lanes[i].stream, stream) == 0 && strcmp(kafka->lanes[i].lane, lane) == 0)
            return &kafka->lanes[i];
    sl_assert(kafka->lane_count < LANES);
    struct lane *made = &kafka->lanes[kafka->lane_count++];
    snprintf(made->stream, sizeof(made->stream), "%s", stream);
    snprintf(made->lane, sizeof(made->lane), "%s", lane);
    return made;
}

static void spread(struct model_kafka *kafka, const struct lane *lane)
{
    struct cell_progress progress = {
        .found = true, .through = lane->through, .claim = lane->claim, .drainer = lane->drainer};
    for (size_t i = 0; i < CLIENTS; i++)
        if (kafka->clients[i] != NULL && kafka->clients[i]->cell != NULL)
            cell_on_progress(kafka->clients[i]->cell, lane->stream, lane->lane, &progress, false);
}

static void answer(struct drain *drain, enum cell_result result, const struct lane *lane, uint64_t through)
{
    if (atomic_load(&drain->released))
        return;
    struct cell_done done = {.step = drain->order.step,
                             .stream = drain->stream,
                             .lane = drain->lane,
                             .ticket = drain->order.ticket,
                             .result = result,
                             .through = through};
    if (lane != NULL)
        done.progress = (struct cell_progress){
            .found = lane->found, .through = lane->through, .claim = lane->claim, .drainer = lane->drainer};
    cell_on_done(drain->client->cell, &done);
}

// Commits the records of a frame. False: fenced, released, or Kafka is away.
static bool commit(struct drain *drain, const struct spool_frame *frame, uint64_t *through)
{
    struct model_kafka *kafka = drain->client->kafka;
    pthread_mutex_lock(&kafka->mutex);
    struct lane *lane = lane_of(kafka, drain->stream, drain->lane);
    bool good = lane->epoch == drain->epoch && !atomic_load(&drain->released) && atomic_load(&kafka->reachable);
    uint64_t last = frame->header.first_seq + frame->header.count - 1;
    sl_assert(last < SEQS);
    for (uint64_t seq = *through + 1; good && seq <= last; seq++)
        lane->times[seq]++;
    if (good && last > lane->through) {
        *through = lane->through = last;
        spread(kafka, lane);
    }
    pthread_mutex_unlock(&kafka->mutex);
    return good;
}

static bool is_fenced(struct drain *drain)
{
    pthread_mutex_lock(&drain->client->kafka->mutex);
    bool fenced = lane_of(drain->client->kafka, drain->stream, drain->lane)->epoch != drain->epoch;
    pthread_mutex_unlock(&drain->client->kafka->mutex);
    return fenced;
}

static void *records_main(void *argument)
{
    struct drain *drain = argument;
    struct spool_reader *reader;
    struct sl_error err;
    uint64_t through = drain->order.first - 1, last = drain->order.last;
    bool open = spool_reader_open(&reader, drain->client->spool, drain->stream, drain->order.first, &err), good = open;
    while (good && !atomic_load(&drain->released) && (last == 0 || through < last)) {
        struct spool_frame *frame;
        struct spool_damage damage;
        enum spool_read read = spool_reader_next(reader, 5 * SL_NS_PER_MS, &frame, &damage, &err);
        if (read == SPOOL_READ_WAIT) {
            good = !is_fenced(drain);
            continue;
        }
        if (read != SPOOL_READ_FRAME)
            break;
        good = commit(drain, frame, &through);
        spool_frame_release(frame);
    }
    if (open)
        spool_reader_close(reader);
    pthread_mutex_lock(&drain->client->kafka->mutex);
    bool fenced = lane_of(drain->client->kafka, drain->stream, drain->lane)->epoch != drain->epoch;
    answer(drain, good ? CELL_OK : fenced ? CELL_FENCED : CELL_FAILED, NULL, through);
    pthread_mutex_unlock(&drain->client->kafka->mutex);
    return NULL;
}

static struct drain *drain_of(struct model_client *client, const char *stream, const char *lane, bool make)
{
    struct drain *spare = NULL;
    for (size_t i = 0; i < DRAINS; i++) {
        struct drain *drain = &client->drains[i];
        if (!drain->used) {
            spare = spare != NULL ? spare : drain;
        } else if (!atomic_load(&drain->released) && strcmp(drain->stream, stream) == 0 &&
                   strcmp(drain->lane, lane) == 0) {
            return drain;
        }
    }
    if (!make)
        return NULL;
    sl_assert(spare != NULL);
    memset(spare, 0, sizeof(*spare));
    spare->used = true;
    spare->client = client;
    snprintf(spare->stream, sizeof(spare->stream), "%s", stream);
    snprintf(spare->lane, sizeof(spare->lane), "%s", lane);
    return spare;
}

static void run(struct drain *drain, const struct cell_order *order)
{
    struct model_client *client = drain->client;
    struct lane *lane = lane_of(client->kafka, drain->stream, drain->lane);
    bool reachable = atomic_load(&client->kafka->reachable), mine = drain->epoch == lane->epoch;
    enum cell_result result = !reachable ? CELL_FAILED : mine ? CELL_OK : CELL_FENCED;
    switch (order->step) {
    case CELL_INIT:
        if (reachable)
            drain->epoch = ++lane->epoch;
        answer(drain, reachable ? CELL_OK : CELL_FAILED, NULL, 0);
        break;
    case CELL_LOOK:
    case CELL_READ:
        answer(drain, reachable ? CELL_OK : CELL_FAILED, lane, 0);
        break;
    case CELL_CLAIM:
    case CELL_CLOSE:
        if (result == CELL_OK) {
            lane->found = true;
            lane->claim = order->claim;
            snprintf(lane->drainer, sizeof(lane->drainer), "%s", client->drainer);
            spread(client->kafka, lane);
        }
        answer(drain, result, NULL, order->through);
        break;
    case CELL_RECORDS:
        if (drain->running)
            pthread_join(drain->thread, NULL); // it has answered
        drain->running = pthread_create(&drain->thread, NULL, records_main, drain) == 0;
        sl_assert(drain->running);
        break;
    }
}

static void order(void *user, const struct cell_order *order)
{
    struct model_client *client = user;
    pthread_mutex_lock(&client->kafka->mutex);
    struct drain *drain = drain_of(client, order->stream, order->lane, true);
    drain->order = *order;
    run(drain, order);
    pthread_mutex_unlock(&client->kafka->mutex);
}

static void release(void *user, const char *stream, const char *lane)
{
    struct model_client *client = user;
    pthread_mutex_lock(&client->kafka->mutex);
    struct drain *drain = drain_of(client, stream, lane, false);
    if (drain != NULL)
        atomic_store(&drain->released, true);
    pthread_mutex_unlock(&client->kafka->mutex);
}

static void tombstone(void *user, const char *stream, const char *const *lanes, size_t count)
{
    struct model_client *client = user;
    pthread_mutex_lock(&client->kafka->mutex);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < CLIENTS; k++)
            if (client->kafka->clients[k] != NULL && client->kafka->clients[k]->cell != NULL)
                cell_on_progress(client->kafka->clients[k]->cell, stream, lanes[i], NULL, true);
    pthread_mutex_unlock(&client->kafka->mutex);
}

static void set_drainer(void *user, const char *stream)
{
    struct model_client *client = user;
    pthread_mutex_lock(&client->kafka->mutex);
    snprintf(client->drainer, sizeof(client->drainer), "%s", stream);
    pthread_mutex_unlock(&client->kafka->mutex);
}

static bool reachable(void *user)
{
    return atomic_load(&((struct model_client *)user)->kafka->reachable);
}

struct cell_kafka model_client_table(struct model_client *client)
{
    return (struct cell_kafka){.user = client,
                               .order = order,
                               .release = release,
                               .tombstone = tombstone,
                               .set_drainer = set_drainer,
                               .reachable = reachable};
}

struct model_client *model_client_new(struct model_kafka *kafka)
{
    struct model_client *client = calloc(1, sizeof(*client));
    sl_assert(client != NULL);
    client->kafka = kafka;
    pthread_mutex_lock(&kafka->mutex);
    size_t place = 0;
    while (place < CLIENTS && kafka->clients[place] != NULL)
        place++;
    sl_assert(place < CLIENTS);
    kafka->clients[place] = client;
    pthread_mutex_unlock(&kafka->mutex);
    return client;
}

void model_client_attach(struct model_client *client, struct cell *cell, struct spool *spool)
{
    pthread_mutex_lock(&client->kafka->mutex);
    client->cell = cell;
    client->spool = spool;
    for (size_t i = 0; i < client->kafka->lane_count; i++)
        if (client->kafka->lanes[i].found) {
            const struct lane *lane = &client->kafka->lanes[i];
            struct cell_progress progress = {
                .found = true, .through = lane->through, .claim = lane->claim, .drainer = lane->drainer};
            cell_on_progress(cell, lane->stream, lane->lane, &progress, false);
        }
    pthread_mutex_unlock(&client->kafka->mutex);
}

void model_client_free(struct model_client *client)
{
    struct model_kafka *kafka = client->kafka;
    pthread_mutex_lock(&kafka->mutex);
    for (size_t i = 0; i < CLIENTS; i++)
        if (kafka->clients[i] == client)
            kafka->clients[i] = NULL;
    for (size_t i = 0; i < DRAINS; i++)
        atomic_store(&client->drains[i].released, true);
    pthread_mutex_unlock(&kafka->mutex);
    for (size_t i = 0; i < DRAINS; i++)
        if (client->drains[i].running)
            pthread_join(client->drains[i].thread, NULL);
    free(client);
}

static uint64_t count_of(struct model_kafka *kafka, const char *stream, unsigned least)
{
    uint64_t count = 0;
    pthread_mutex_lock(&kafka->mutex);
    for (size_t i = 0; i < kafka->lane_count; i++)
        for (size_t seq = 1; strcmp(kafka->lanes[i].stream, stream) == 0 && seq < SEQS; seq++)
            count += kafka->lanes[i].times[seq] >= least;
    pthread_mutex_unlock(&kafka->mutex);
    return count;
}

uint64_t model_committed(struct model_kafka *kafka, const char *stream)
{
    return count_of(kafka, stream, 1);
}

uint64_t model_doubled(struct model_kafka *kafka, const char *stream)
{
    return count_of(kafka, stream, 2);
}

void model_rival_claims(struct model_kafka *kafka, const char *stream, const char *name, const char *drainer)
{
    pthread_mutex_lock(&kafka->mutex);
    struct lane *lane = lane_of(kafka, stream, name);
    lane->epoch++;
    lane->claim++;
    snprintf(lane->drainer, sizeof(lane->drainer), "%s", drainer);
    spread(kafka, lane);
    pthread_mutex_unlock(&kafka->mutex);
}

void model_progress_is(struct model_kafka *kafka, const char *stream, const char *name, uint64_t through)
{
    pthread_mutex_lock(&kafka->mutex);
    struct lane *lane = lane_of(kafka, stream, name);
    lane->epoch++;
    lane->through = through;
    spread(kafka, lane);
    pthread_mutex_unlock(&kafka->mutex);
}
