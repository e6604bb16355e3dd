#include "gateway/cell_kafka.h"

#include <string.h>

void cell_drain_init(struct cell_drain *drain)
{
    *drain = (struct cell_drain){.produce = NULL};
    pthread_mutex_init(&drain->lock, NULL);
}

void cell_drain_destroy(struct cell_drain *drain)
{
    pthread_mutex_destroy(&drain->lock);
}

void cell_drain_attach(struct cell_drain *drain, struct produce *produce)
{
    pthread_mutex_lock(&drain->lock);
    drain->produce = produce;
    pthread_mutex_unlock(&drain->lock);
}

static enum produce_step step_of(enum cell_step step)
{
    static const enum produce_step steps[] = {
        [CELL_INIT] = PRODUCE_STEP_INIT,       [CELL_READ] = PRODUCE_STEP_READ,   [CELL_CLAIM] = PRODUCE_STEP_CLAIM,
        [CELL_RECORDS] = PRODUCE_STEP_RECORDS, [CELL_CLOSE] = PRODUCE_STEP_CLOSE, [CELL_LOOK] = PRODUCE_STEP_LOOK,
    };
    sl_assert((size_t)step < sizeof(steps) / sizeof(steps[0]));
    return steps[step];
}

static void on_order(void *user, const struct cell_order *order)
{
    struct cell_drain *drain = user;
    struct produce_order mapped = {
        .step = step_of(order->step),
        .stream = order->stream,
        .lane = order->lane,
        .ticket = order->ticket,
        .through = order->through,
        .claim = order->claim,
        .first = order->first,
        .last = order->last,
    };
    pthread_mutex_lock(&drain->lock);
    if (drain->produce != NULL)
        produce_order(drain->produce, &mapped);
    pthread_mutex_unlock(&drain->lock);
}

static void on_release(void *user, const char *stream, const char *lane)
{
    struct cell_drain *drain = user;
    pthread_mutex_lock(&drain->lock);
    if (drain->produce != NULL)
        produce_release(drain->produce, stream, lane);
    pthread_mutex_unlock(&drain->lock);
}

static void on_tombstone(void *user, const char *stream, const char *const *lanes, size_t count)
{
    struct cell_drain *drain = user;
    pthread_mutex_lock(&drain->lock);
    if (drain->produce != NULL)
        produce_tombstone(drain->produce, stream, lanes, count);
    pthread_mutex_unlock(&drain->lock);
}

static void on_set_drainer(void *user, const char *stream)
{
    struct cell_drain *drain = user;
    pthread_mutex_lock(&drain->lock);
    if (drain->produce != NULL)
        produce_set_drainer(drain->produce, stream);
    pthread_mutex_unlock(&drain->lock);
}

// While the process ends it stays what it was: a stream is not given up for that.
static bool on_reachable(void *user)
{
    struct cell_drain *drain = user;
    pthread_mutex_lock(&drain->lock);
    if (drain->produce != NULL)
        drain->reachable = produce_connected(drain->produce);
    bool reachable = drain->reachable;
    pthread_mutex_unlock(&drain->lock);
    return reachable;
}

struct cell_kafka cell_drain_table(struct cell_drain *drain)
{
    return (struct cell_kafka){
        .user = drain,
        .order = on_order,
        .release = on_release,
        .tombstone = on_tombstone,
        .set_drainer = on_set_drainer,
        .reachable = on_reachable,
    };
}

// ---- answers

static struct cell_progress progress_of(const struct produce_progress *progress)
{
    return (struct cell_progress){
        .found = progress->found, .through = progress->through, .claim = progress->claim, .drainer = progress->drainer};
}

void cell_drain_on_done(struct cell *cell, const struct produce_done *done)
{
    static const enum cell_step steps[] = {
        [PRODUCE_STEP_INIT] = CELL_INIT,       [PRODUCE_STEP_READ] = CELL_READ,   [PRODUCE_STEP_CLAIM] = CELL_CLAIM,
        [PRODUCE_STEP_RECORDS] = CELL_RECORDS, [PRODUCE_STEP_CLOSE] = CELL_CLOSE, [PRODUCE_STEP_LOOK] = CELL_LOOK,
    };
    static const enum cell_result results[] = {
        [PRODUCE_OK] = CELL_OK, [PRODUCE_FAILED] = CELL_FAILED, [PRODUCE_FENCED] = CELL_FENCED};
    sl_assert((size_t)done->step < sizeof(steps) / sizeof(steps[0]));
    sl_assert((size_t)done->result < sizeof(results) / sizeof(results[0]));
    struct cell_done mapped = {
        .step = steps[done->step],
        .stream = done->stream,
        .lane = done->lane,
        .ticket = done->ticket,
        .result = results[done->result],
        .progress = progress_of(&done->progress),
        .through = done->through,
    };
    cell_on_done(cell, &mapped);
}

void cell_drain_on_progress(struct cell *cell, const char *stream, const char *lane,
                            const struct produce_progress *progress, bool gone)
{
    static const struct produce_progress none;
    struct cell_progress mapped = progress_of(progress != NULL ? progress : &none);
    cell_on_progress(cell, stream, lane, &mapped, gone);
}
