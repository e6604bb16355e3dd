// Driven drains: a thread a stream and lane, its queue of orders, its end.
//
// Happy path: produce_order() finds the drain, or makes it, and queues; the thread carries out one order after the
// other (steps.c) and answers each; produce_release() ends the session. A drain without a producer and without orders
// ends by itself after a while. Its thread takes it off the list; whoever comes next joins the thread and frees it.
//
// Release: what is queued is dropped and `leaving` set, which ends every wait and loop of the session; nothing is
// reported from then on, because reports are made with the lane's mutex held and `leaving` looked at. The thread closes
// the session and only then clears the flag, so that a new INIT of the same drain never runs beside an old producer,
// and no record is counted by both.
#include "produce/internal.h"

#include "base/failpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// How long an idle drain keeps its consumer and its thread; and what it learned about refused records and batch sizes,
// without which a rebuilt producer would run into the same refusal for ever.
static const int64_t idle_ns = 10 * SL_NS_PER_S;
static const int64_t remember_ns = 600 * SL_NS_PER_S;

void drain_failpoint(const struct lane *lane, const char *name)
{
    // Takeovers only: a node that is started again for the next drill drains its own streams.
    if (lane->driven && strcmp(lane->session.node, lane->produce->options.node) != 0)
        sl_failpoint(name);
}

// ---- the thread

static bool remembers(const struct lane *lane)
{
    return lane->bisect.active || lane->condemned_count > 0 || lane->batch_bytes > 0;
}

enum wake { WAKE_ORDER, WAKE_LEAVE, WAKE_STOP, WAKE_IDLE };

static enum wake await_order(struct drain *drain, struct drain_order *order)
{
    struct lane *lane = &drain->lane;
    int64_t until_ns = sl_monotonic_ns() + (remembers(lane) ? remember_ns : idle_ns);
    struct timespec when = {.tv_sec = until_ns / SL_NS_PER_S, .tv_nsec = until_ns % SL_NS_PER_S};
    bool producing = lane->session.rk != NULL;
    enum wake wake = WAKE_ORDER;
    pthread_mutex_lock(&lane->mutex);
    for (;;) {
        // What was ordered is finished, as far as there is time.
        if (atomic_load(&lane->produce->stopping) && (drain->order_count == 0 || lane_must_quit(lane)))
            wake = WAKE_STOP;
        else if (atomic_load(&lane->leaving))
            wake = WAKE_LEAVE;
        else if (drain->order_count == 0 && (producing || sl_monotonic_ns() < until_ns)) {
            if (producing)
                pthread_cond_wait(&lane->wake, &lane->mutex);
            else
                pthread_cond_timedwait(&lane->wake, &lane->mutex, &when);
            continue;
        } else if (drain->order_count == 0)
            wake = WAKE_IDLE;
        break;
    }
    if (wake == WAKE_ORDER) {
        *order = drain->orders[0];
        drain->order_count--;
        memmove(drain->orders, drain->orders + 1, drain->order_count * sizeof(*drain->orders));
    }
    pthread_mutex_unlock(&lane->mutex);
    return wake;
}

static void leave(struct lane *lane)
{
    session_leave(lane);
    session_close(lane);
    pthread_mutex_lock(&lane->mutex);
    atomic_store(&lane->leaving, false);
    pthread_mutex_unlock(&lane->mutex);
}

static void unlink_drain(struct produce *produce, struct drain *drain)
{
    struct drain **at = &produce->drains;
    while (*at != drain)
        at = &(*at)->next;
    *at = drain->next;
}

// False: an order came meanwhile.
static bool retire(struct drain *drain)
{
    struct lane *lane = &drain->lane;
    struct produce *produce = lane->produce;
    tail_free(&lane->tail);
    lane_free_routes(lane);
    pthread_mutex_lock(&produce->mutex);
    pthread_mutex_lock(&lane->mutex);
    bool idle = drain->order_count == 0 && !atomic_load(&lane->leaving) && !atomic_load(&produce->stopping);
    if (idle) {
        unlink_drain(produce, drain);
        drain->next = produce->retired;
        produce->retired = drain;
    }
    pthread_mutex_unlock(&lane->mutex);
    pthread_mutex_unlock(&produce->mutex);
    return idle;
}

static void *drain_main(void *argument)
{
    struct drain *drain = argument;
    struct lane *lane = &drain->lane;
    for (;;) {
        struct drain_order order;
        switch (await_order(drain, &order)) {
        case WAKE_ORDER:
            drain_carry_out(drain, &order);
            break;
        case WAKE_LEAVE:
            leave(lane);
            break;
        case WAKE_IDLE:
            if (retire(drain))
                return NULL;
            break;
        case WAKE_STOP:
            session_leave(lane);
            session_close(lane);
            tail_free(&lane->tail);
            lane_free_routes(lane);
            return NULL;
        }
    }
}

// ---- the list. With produce->mutex.

static struct drain *find(const struct produce *produce, const char *stream, const char *lane)
{
    struct drain *drain = produce->drains;
    while (drain && (strcmp(drain->stream, stream) != 0 || strcmp(drain->lane.name, lane) != 0))
        drain = drain->next;
    return drain;
}

static struct drain *make(struct produce *produce, const char *stream, const char *lane)
{
    struct drain *drain = calloc(1, sizeof(*drain));
    sl_assert(drain);
    lane_init(&drain->lane, produce, lane);
    drain->lane.driven = true;
    snprintf(drain->stream, sizeof(drain->stream), "%s", stream);
    snprintf(drain->lane.status.stream, sizeof(drain->lane.status.stream), "%s", stream);
    int code = pthread_create(&drain->lane.thread, NULL, drain_main, drain);
    if (code != 0) {
        sl_logf(SL_ERROR, "produce", "a drain's thread cannot be started", SL_STR("stream", stream),
                SL_STR("lane", lane), SL_STR("cause", strerror(code)));
        lane_destroy(&drain->lane);
        free(drain);
        return NULL;
    }
    char title[16]; // the kernel keeps 15 characters
    snprintf(title, sizeof(title), "drain-%s", lane);
    pthread_setname_np(drain->lane.thread, title);
    struct drain **end = &produce->drains;
    while (*end)
        end = &(*end)->next;
    *end = drain;
    return drain;
}

static void free_joined(struct drain *drain)
{
    pthread_join(drain->lane.thread, NULL);
    lane_destroy(&drain->lane);
    free(drain);
}

static void reap(struct produce *produce)
{
    while (produce->retired) {
        struct drain *drain = produce->retired;
        produce->retired = drain->next;
        free_joined(drain);
    }
}

// ---- orders

static bool queue(struct drain *drain, const struct drain_order *order)
{
    pthread_mutex_lock(&drain->lane.mutex);
    bool room = drain->order_count < DRAIN_ORDERS_MAX;
    if (room)
        drain->orders[drain->order_count++] = *order;
    lane_wake(&drain->lane);
    pthread_mutex_unlock(&drain->lane.mutex);
    return room;
}

static bool give(struct produce *produce, const char *stream, const char *lane, const struct drain_order *order)
{
    pthread_mutex_lock(&produce->mutex);
    reap(produce);
    struct drain *drain = atomic_load(&produce->stopping) ? NULL : find(produce, stream, lane);
    if (!drain && !atomic_load(&produce->stopping))
        drain = make(produce, stream, lane);
    bool given = drain && queue(drain, order);
    pthread_mutex_unlock(&produce->mutex);
    return given || atomic_load(&produce->stopping);
}

void produce_order(struct produce *produce, const struct produce_order *order)
{
    sl_assert(produce->options.driven);
    struct drain_order copy = {.kind = DRAIN_STEP, .step = *order};
    copy.step.stream = copy.step.lane = NULL;
    if (give(produce, order->stream, order->lane, &copy) || !produce->options.on_done)
        return;
    produce->options.on_done(produce->options.user, &(struct produce_done){.step = order->step,
                                                                           .stream = order->stream,
                                                                           .lane = order->lane,
                                                                           .ticket = order->ticket,
                                                                           .result = PRODUCE_FAILED,
                                                                           .trouble = "no thread for the drain"});
}

void drain_order_count(struct produce *produce, const char *stream, const char *lane, uint64_t through)
{
    struct drain_order order = {.kind = DRAIN_COUNT, .step = {.through = through}};
    (void)give(produce, stream, lane, &order); // comes again
}

void produce_release(struct produce *produce, const char *stream, const char *lane)
{
    pthread_mutex_lock(&produce->mutex);
    struct drain *drain = find(produce, stream, lane);
    if (drain) {
        pthread_mutex_lock(&drain->lane.mutex);
        drain->order_count = 0;
        atomic_store(&drain->lane.leaving, true);
        lane_wake(&drain->lane);
        pthread_mutex_unlock(&drain->lane.mutex);
    }
    pthread_mutex_unlock(&produce->mutex);
}

void produce_set_drainer(struct produce *produce, const char *stream)
{
    pthread_mutex_lock(&produce->mutex);
    snprintf(produce->drainer, sizeof(produce->drainer), "%s", stream);
    pthread_mutex_unlock(&produce->mutex);
}

void drains_stop(struct produce *produce)
{
    pthread_mutex_lock(&produce->mutex);
    for (struct drain *drain = produce->drains; drain; drain = drain->next) {
        pthread_mutex_lock(&drain->lane.mutex);
        lane_wake(&drain->lane);
        pthread_mutex_unlock(&drain->lane.mutex);
    }
    reap(produce);
    struct drain *drains = produce->drains;
    produce->drains = NULL;
    pthread_mutex_unlock(&produce->mutex);
    while (drains) {
        struct drain *drain = drains;
        drains = drain->next;
        free_joined(drain);
    }
}
