// A loop's batches and the requests that wait for them.
//
// Happy path: the requests of one turn append to the open batch; at the turn's end it goes to the spool; the writer
// thread posts the batch back when it is synced; each of its requests is answered, or moves to its lane's list until
// Kafka has it.
//
// Failure modes: the client goes, or its deadline passes, before the outcome is known: the request ends there (counted
// unavailable), its waiter stays in the batch, and when the batch turns out synced its events are counted as
// "unavailable after append". The sync fails: every request of the batch is answered 503 and nothing of it is ever
// acknowledged.
#include "gateway/ingest_internal.h"

#include <stdlib.h>
#include <string.h>

#define BATCH_OF_TASK(task_)   ((struct loop_batch *)(void *)((char *)(task_)-offsetof(struct loop_batch, task)))
#define BATCH_OF_SPOOL(batch_) ((struct loop_batch *)(void *)((char *)(batch_)-offsetof(struct loop_batch, spool)))

static void on_batch_done(struct http_task *task);

// Writer thread.
static void on_spool_done(struct spool_batch *done)
{
    struct loop_batch *batch = BATCH_OF_SPOOL(done);
    http_loop_post(batch->loop->http, &batch->task);
}

struct loop_batch *ingest_open_batch(struct ingest_loop *loop)
{
    if (loop->open != NULL)
        return loop->open;
    struct loop_batch *batch = loop->idle;
    if (batch != NULL) {
        loop->idle = batch->next;
        loop->idle_count--;
    } else {
        batch = calloc(1, sizeof(*batch));
        if (batch == NULL)
            return NULL;
        batch->loop = loop;
        batch->spool.done = on_spool_done;
        batch->task.run = on_batch_done;
    }
    batch->first = NULL;
    batch->tail = &batch->first;
    batch->next = NULL;
    memset(batch->spool.lane_counts, 0, sizeof(batch->spool.lane_counts));
    record_buffer_cut(&batch->spool.records, 0, 0);
    loop->open = batch;
    return batch;
}

static void batch_recycle(struct loop_batch *batch)
{
    struct ingest_loop *loop = batch->loop;
    if (batch->spool.records.capacity > BATCH_KEEP_BYTES)
        record_buffer_free(&batch->spool.records);
    if (loop->idle_count == BATCH_KEEP_COUNT) {
        record_buffer_free(&batch->spool.records);
        free(batch);
        return;
    }
    batch->next = loop->idle;
    loop->idle = batch;
    loop->idle_count++;
}

// ---- waiters

static void waiter_recycle(struct waiter *waiter)
{
    waiter->next = waiter->loop->idle_waiters;
    waiter->loop->idle_waiters = waiter;
}

// The request ends with 2xx.
static void waiter_succeed(struct waiter *waiter)
{
    struct source_stats *stats = waiter->stats;
    stats_subtract(&stats->in_flight, waiter->count);
    stats_add(&stats->outcomes[OUTCOME_ACCEPTED], waiter->count);
    histogram_observe(&stats->ack_ns, (uint64_t)(http_loop_now_ns(waiter->loop->http) - waiter->started_ns));
    ingest_answer_success(waiter);
    waiter->request = NULL;
}

// The request ends without 2xx; whether its events appear later is open (DESIGN.md 1.1).
static void waiter_fail(struct waiter *waiter, const char *detail)
{
    struct source_stats *stats = waiter->stats;
    stats_subtract(&stats->in_flight, waiter->count);
    stats_add(&stats->outcomes[OUTCOME_UNAVAILABLE], waiter->count);
    if (waiter->last_seq != 0) {
        stats_subtract(&stats->waiting, waiter->count);
        stats_add(&stats->unavailable_after_append, waiter->count);
    }
    if (detail != NULL)
        ingest_answer_problem(waiter->request, 503, 1, detail);
    waiter->request = NULL;
}

static void on_gone(void *user)
{
    waiter_fail(user, NULL);
}

struct waiter *ingest_add_waiter(struct ingest_loop *loop, struct loop_batch *batch, struct http_request *request,
                                 const struct route *route, uint32_t first_index, uint32_t count)
{
    struct waiter *waiter = loop->idle_waiters;
    if (waiter != NULL)
        loop->idle_waiters = waiter->next;
    else if ((waiter = malloc(sizeof(*waiter))) == NULL)
        return NULL;
    int64_t now_ns = http_loop_now_ns(loop->http);
    *waiter = (struct waiter){
        .loop = loop,
        .request = request,
        .stats = stats_shard(loop->ingest->stats, route->stats, loop->index),
        .first_index = first_index,
        .count = count,
        .lane = route->lane,
        .level = route->source->ack,
        .started_ns = now_ns,
        .deadline_ns = now_ns + route->source->ack_timeout_ns,
    };
    *batch->tail = waiter;
    batch->tail = &waiter->next;
    batch->spool.lane_counts[route->lane] += count;
    stats_add(&waiter->stats->in_flight, count);
    http_request_on_gone(request, on_gone, waiter);
    return waiter;
}

// ---- to the spool and back

void ingest_flush(struct ingest_loop *loop)
{
    struct loop_batch *batch = loop->open;
    if (batch == NULL || batch->first == NULL)
        return;
    loop->open = NULL;
    *loop->in_flight_tail = batch;
    loop->in_flight_tail = &batch->next;
    if (!spool_submit(loop->ingest->spool, &batch->spool)) {
        batch->spool.outcome = SPOOL_FAILED;
        http_loop_post(loop->http, &batch->task);
    }
}

static void settle(struct waiter *waiter)
{
    struct ingest *ingest = waiter->loop->ingest;
    struct ack_positions positions = {
        .synced = waiter->last_seq, // its batch came back synced
        .kafka_committed = atomic_load_explicit(&ingest->committed[waiter->lane], memory_order_acquire),
        .stream_failed = atomic_load_explicit(&ingest->stream_failed, memory_order_relaxed),
    };
    switch (ack_decide(waiter->level, waiter->last_seq, &positions)) {
    case ACK_GIVE:
        stats_subtract(&waiter->stats->waiting, waiter->count);
        waiter_succeed(waiter);
        break;
    case ACK_REFUSE:
        waiter_fail(
            waiter,
            "The local disk has failed; this node is stopping. Send the request again with the same event ids.");
        break;
    case ACK_WAIT:
        break;
    }
}

static void waiter_synced(struct waiter *waiter, uint64_t batch_first_seq)
{
    waiter->first_seq = batch_first_seq + waiter->first_index;
    waiter->last_seq = waiter->first_seq + waiter->count - 1;
    stats_add(&waiter->stats->spooled, waiter->count);
    if (waiter->request == NULL) {
        stats_add(&waiter->stats->unavailable_after_append, waiter->count);
        waiter_recycle(waiter);
        return;
    }
    stats_add(&waiter->stats->waiting, waiter->count);
    settle(waiter);
    if (waiter->request == NULL) {
        waiter_recycle(waiter);
        return;
    }
    struct ingest_loop *loop = waiter->loop;
    *loop->lanes[waiter->lane].tail = waiter;
    loop->lanes[waiter->lane].tail = &waiter->next;
}

static void on_batch_done(struct http_task *task)
{
    struct loop_batch *batch = BATCH_OF_TASK(task);
    struct ingest_loop *loop = batch->loop;
    // The oldest, as a rule; one that the spool refused to take comes back before those that it still has.
    struct loop_batch **link = &loop->in_flight;
    while (*link != batch) {
        sl_assert(*link != NULL);
        link = &(*link)->next;
    }
    *link = batch->next;
    if (batch->next == NULL)
        loop->in_flight_tail = link;
    bool synced = batch->spool.outcome == SPOOL_SYNCED;
    if (!synced)
        atomic_store_explicit(&loop->ingest->stream_failed, true, memory_order_relaxed);
    for (struct waiter *waiter = batch->first, *next; waiter != NULL; waiter = next) {
        next = waiter->next;
        waiter->next = NULL;
        if (synced) {
            waiter_synced(waiter, batch->spool.first_seq);
            continue;
        }
        if (waiter->request != NULL)
            waiter_fail(
                waiter,
                "The local disk has failed; this node is stopping. Send the request again with the same event ids.");
        waiter_recycle(waiter);
    }
    batch_recycle(batch);
}

// Ends what can be ended in the lists of those that wait for Kafka, and drops what has ended.
static void sweep_lane(struct ingest_loop *loop, uint32_t lane, int64_t now_ns)
{
    struct waiter **link = &loop->lanes[lane].first;
    while (*link != NULL) {
        struct waiter *waiter = *link;
        if (waiter->request != NULL)
            settle(waiter);
        if (waiter->request != NULL && now_ns >= waiter->deadline_ns)
            waiter_fail(waiter,
                        "Kafka has not committed the events within the time limit. They are stored and may still "
                        "appear; send the request again with the same event ids.");
        if (waiter->request == NULL) {
            *link = waiter->next;
            waiter_recycle(waiter);
        } else {
            link = &waiter->next;
        }
    }
    loop->lanes[lane].tail = link;
}

void ingest_on_commit_task(struct http_task *task)
{
    struct ingest_loop *loop = (struct ingest_loop *)(void *)((char *)task - offsetof(struct ingest_loop, commit_task));
    // Cleared before the positions are read: a move after this posts again.
    atomic_store(&loop->commit_posted, false);
    for (uint32_t lane = 0; lane < SPOOL_LANES_MAX; lane++)
        if (loop->lanes[lane].first != NULL)
            sweep_lane(loop, lane, http_loop_now_ns(loop->http));
}

void ingest_tick(struct http_loop *http, void *user)
{
    struct ingest_loop *loop = user;
    int64_t now_ns = http_loop_now_ns(http);
    for (struct loop_batch *batch = loop->in_flight; batch != NULL; batch = batch->next)
        for (struct waiter *waiter = batch->first; waiter != NULL; waiter = waiter->next)
            if (waiter->request != NULL && now_ns >= waiter->deadline_ns)
                waiter_fail(waiter,
                            "The local disk did not confirm the events within the time limit. They may still appear; "
                            "send the request again with the same event ids.");
    for (uint32_t lane = 0; lane < SPOOL_LANES_MAX; lane++)
        if (loop->lanes[lane].first != NULL)
            sweep_lane(loop, lane, now_ns);
    if (now_ns < loop->next_check_ns)
        return;
    loop->next_check_ns = now_ns + SL_NS_PER_S;
    uint64_t wrong = stats_check_shard(loop->ingest->stats, loop->index);
    if (wrong > atomic_load_explicit(&loop->conservation_error, memory_order_relaxed))
        atomic_store_explicit(&loop->conservation_error, wrong, memory_order_relaxed);
}

static void waiters_free(struct waiter *waiter)
{
    while (waiter != NULL) {
        struct waiter *next = waiter->next;
        free(waiter);
        waiter = next;
    }
}

static void batches_free(struct loop_batch *batch)
{
    while (batch != NULL) {
        struct loop_batch *next = batch->next;
        if (batch->first != NULL)
            waiters_free(batch->first);
        record_buffer_free(&batch->spool.records);
        free(batch);
        batch = next;
    }
}

void ingest_loop_free(struct ingest_loop *loop)
{
    for (struct loop_batch *batch = loop->idle; batch != NULL; batch = batch->next)
        batch->first = NULL; // its waiters were recycled
    batches_free(loop->idle);
    batches_free(loop->in_flight);
    batches_free(loop->open);
    waiters_free(loop->idle_waiters);
    for (uint32_t lane = 0; lane < SPOOL_LANES_MAX; lane++)
        waiters_free(loop->lanes[lane].first);
    json_parser_free(loop->parser);
    decoder_free(loop->decoder);
    routes_release(loop->routes);
}
