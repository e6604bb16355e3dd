// A loop's batches and the requests that wait for them.
//
// Happy path: the requests of one turn append to the open batch; at the turn's end it goes to the spool; the writer
// thread posts the batch back when it is synced; its claims in the window of ids are settled; each of its requests is
// answered, or moves to a list: its lane's until Kafka has it (level kafka), or `zones` until another zone or Kafka has
// it (az2).
//
// A request with duplicates of events that have not reached its level, or with a conflict, waits for them (struct
// originals) in the list `waiting`, with its own records stored or without any. The list is looked at when this loop
// or another has settled a batch, when Kafka has committed, and at each tick.
//
// Failure modes: the client goes, or its deadline passes, before the outcome is known: the request ends there (counted
// unavailable), its waiter stays in the batch, and when the batch turns out synced its events are counted as
// "unavailable after append"; its ids stay claimed until then. The sync fails: every request of the batch is answered
// 503, its ids are forgotten, and nothing of it is ever acknowledged.
#include "gateway/ingest_internal.h"

#include <stdlib.h>
#include <string.h>

#define BATCH_OF_TASK(task_)   ((struct loop_batch *)(void *)((char *)(task_)-offsetof(struct loop_batch, task)))
#define BATCH_OF_SPOOL(batch_) ((struct loop_batch *)(void *)((char *)(batch_)-offsetof(struct loop_batch, spool)))

static void on_batch_done(struct http_task *task);

static const char disk_failed[] =
    "The local disk has failed; this node is stopping. Send the request again with the same event ids.";
static const char stream_left[] = "The stream that holds the events was given up before they were confirmed. They are "
                                  "stored and may still appear; send the request again with the same event ids.";

// Writer thread.
static void on_spool_done(struct spool_batch *done)
{
    struct loop_batch *batch = BATCH_OF_SPOOL(done);
    if (done->outcome == SPOOL_SYNCED) {
        // For ingest_settled_through: this loop's first, then the stream's.
        uint64_t last = POSITION_OF(done->incarnation, done->first_seq + done->records.count - 1);
        atomic_store_explicit(&batch->loop->told_through, last, memory_order_release);
        atomic_store_explicit(&batch->loop->ingest->told_through, last, memory_order_release);
    }
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

static void batch_free(struct loop_batch *batch)
{
    record_buffer_free(&batch->spool.records);
    free(batch->held);
    free(batch);
}

static void batch_recycle(struct loop_batch *batch)
{
    struct ingest_loop *loop = batch->loop;
    if (batch->spool.records.capacity > BATCH_KEEP_BYTES)
        record_buffer_free(&batch->spool.records);
    if (batch->held_capacity > BATCH_KEEP_CLAIMS) {
        free(batch->held);
        batch->held = NULL;
        batch->held_capacity = 0;
    }
    if (loop->idle_count == BATCH_KEEP_COUNT) {
        batch_free(batch);
        return;
    }
    batch->next = loop->idle;
    loop->idle = batch;
    loop->idle_count++;
}

// ---- waiters

static void waiter_recycle(struct waiter *waiter)
{
    free(waiter->originals);
    waiter->originals = NULL;
    waiter->next = waiter->loop->idle_waiters;
    waiter->loop->idle_waiters = waiter;
}

// It leaves what is in flight; what it stored is not waiting any more. With `late`, the client was not told of it.
static void waiter_end(struct waiter *waiter, bool late)
{
    struct source_stats *stats = waiter->stats;
    stats_subtract(&stats->in_flight, waiter->count);
    if (waiter->last_seq != 0) {
        stats_subtract(&stats->waiting, waiter->stored);
        if (late)
            stats_add(&stats->unavailable_after_append, waiter->stored);
    }
}

// The level is reached: 2xx, or the conflict's 409.
static void waiter_succeed(struct waiter *waiter)
{
    struct source_stats *stats = waiter->stats;
    waiter_end(waiter, false);
    const struct originals *originals = waiter->originals;
    if (originals != NULL && originals->conflict) {
        stats_add(&stats->outcomes[OUTCOME_CONFLICT], waiter->count);
        ingest_answer_conflict(waiter->request, originals->conflict_index, originals->conflict_pointer, false);
    } else {
        stats_add(&stats->outcomes[OUTCOME_ACCEPTED], waiter->stored - waiter->quarantined);
        stats_add(&stats->outcomes[OUTCOME_QUARANTINED], waiter->quarantined);
        stats_add(&stats->outcomes[OUTCOME_DUPLICATE], waiter->count - waiter->stored);
        histogram_observe(&stats->ack_ns, (uint64_t)(http_loop_now_ns(waiter->loop->http) - waiter->started_ns));
        ingest_answer_success(waiter);
    }
    waiter->request = NULL;
}

// The request ends without 2xx; whether its events appear later is open (DESIGN.md 1.1).
static void waiter_fail(struct waiter *waiter, const char *detail)
{
    waiter_end(waiter, true);
    stats_add(&waiter->stats->outcomes[OUTCOME_UNAVAILABLE], waiter->count);
    if (detail != NULL)
        ingest_answer_problem(waiter->request, 503, 1, detail);
    waiter->request = NULL;
}

static void on_gone(void *user)
{
    waiter_fail(user, NULL);
}

// Ends it if that can be decided now. Not while its batch is out.
static void settle(struct waiter *waiter)
{
    struct ingest *ingest = waiter->loop->ingest;
    enum ack_verdict verdict = ACK_GIVE;
    bool left = false;
    if (waiter->stored > 0) {
        struct ack_positions positions = {.synced = waiter->last_seq}; // its batch came back synced
        if (waiter->level != ACK_DISK)
            left = !ingest_positions(ingest, waiter->incarnation, UINT32_C(1) << waiter->lane, &positions);
        positions.stream_failed = left || atomic_load_explicit(&ingest->stream_failed, memory_order_relaxed);
        verdict = ack_decide(waiter->level, waiter->last_seq, &positions);
    }
    bool own_refused = verdict == ACK_REFUSE;
    if (waiter->originals != NULL && !own_refused)
        verdict = ack_both(verdict, ingest_decide_originals(waiter));
    if (verdict == ACK_GIVE)
        waiter_succeed(waiter);
    else if (verdict == ACK_REFUSE)
        waiter_fail(waiter, !own_refused ? "The first event with this id was not stored. Send the request "
                                           "again with the same event ids."
                            : left       ? stream_left
                                         : disk_failed);
}

// ---- lists of those whose batch has come back

static void list_add(struct waiter_list *list, struct waiter *waiter)
{
    waiter->next = NULL;
    *list->tail = waiter;
    list->tail = &waiter->next;
}

// Ends what can be ended, and drops what has ended.
static void list_sweep(struct waiter_list *list, int64_t now_ns, const char *late)
{
    struct waiter **link = &list->first;
    while (*link != NULL) {
        struct waiter *waiter = *link;
        if (waiter->request != NULL)
            settle(waiter);
        if (waiter->request != NULL && now_ns >= waiter->deadline_ns)
            waiter_fail(waiter, late);
        if (waiter->request == NULL) {
            *link = waiter->next;
            waiter_recycle(waiter);
        } else {
            link = &waiter->next;
        }
    }
    list->tail = link;
}

static void sweep_lanes(struct ingest_loop *loop, int64_t now_ns)
{
    for (uint32_t lane = 0; lane < SPOOL_LANES_MAX; lane++)
        if (loop->lanes[lane].first != NULL)
            list_sweep(&loop->lanes[lane], now_ns,
                       "Kafka has not committed the events within the time limit. They are stored and may still "
                       "appear; send the request again with the same event ids.");
}

static const char no_second_zone[] =
    "Neither another zone nor Kafka has confirmed the events within the time limit. They are stored and may still "
    "appear; send the request again with the same event ids.";

// Another zone has more of the newest stream: its requests stand in the order of their records, so that one which goes
// on waiting tells that all behind it do.
static void sweep_zones_in_order(struct ingest_loop *loop)
{
    uint32_t newest = ingest_newest_incarnation(loop->ingest);
    struct waiter **link = &loop->zones.first;
    while (*link != NULL) {
        struct waiter *waiter = *link;
        if (waiter->request != NULL)
            settle(waiter);
        if (waiter->request == NULL) {
            *link = waiter->next;
            waiter_recycle(waiter);
        } else if (waiter->incarnation == newest) {
            return; // the tail stays: this one is behind `link`
        } else {
            link = &waiter->next;
        }
    }
    loop->zones.tail = link;
}

static void sweep_waiting(struct ingest_loop *loop, int64_t now_ns)
{
    if (!atomic_load_explicit(&loop->has_waiting, memory_order_relaxed))
        return;
    list_sweep(&loop->waiting, now_ns,
               "An earlier request with the same event ids was not confirmed within the time limit. Send the request "
               "again with the same event ids.");
    atomic_store_explicit(&loop->has_waiting, loop->waiting.first != NULL, memory_order_relaxed);
}

// Its own records are stored, or it has none: answers it, or lets it wait for Kafka or for originals.
static void waiter_place(struct waiter *waiter)
{
    struct ingest_loop *loop = waiter->loop;
    // Before the window is asked: a loop that settles an original after that sees the flag, and posts to this one.
    if (waiter->originals != NULL) {
        atomic_store(&loop->has_waiting, true);
        atomic_thread_fence(memory_order_seq_cst);
    }
    settle(waiter);
    if (waiter->request == NULL)
        waiter_recycle(waiter);
    else if (waiter->originals != NULL)
        list_add(&loop->waiting, waiter);
    else
        list_add(waiter->level == ACK_AZ2 ? &loop->zones : &loop->lanes[waiter->lane], waiter);
}

bool ingest_add_waiter(const struct intake *intake, struct loop_batch *batch, uint32_t first_index)
{
    struct ingest_loop *loop = intake->loop;
    const struct route *route = intake->route;
    uint32_t stored = batch != NULL ? batch->spool.records.count - first_index : 0;
    struct waiter *waiter = loop->idle_waiters;
    if (waiter != NULL)
        loop->idle_waiters = waiter->next;
    else if ((waiter = malloc(sizeof(*waiter))) == NULL)
        return false;
    int64_t now_ns = http_loop_now_ns(loop->http);
    *waiter = (struct waiter){
        .loop = loop,
        .request = intake->request,
        .stats = stats_shard(loop->ingest->stats, route->stats, loop->index),
        .count = intake->count,
        .first_index = first_index,
        .stored = stored,
        .quarantined = intake->quarantined,
        .originals = intake->originals,
        .lane = route->lane,
        .lanes_ever = route->lanes_ever,
        .level = route->source->ack,
        .started_ns = now_ns,
        .deadline_ns = now_ns + route->source->ack_timeout_ns,
    };
    stats_add(&waiter->stats->received, intake->count);
    stats_add(&waiter->stats->in_flight, intake->count);
    stats_add(&waiter->stats->business_duplicates, intake->business_duplicates);
    http_request_on_gone(intake->request, on_gone, waiter);
    http_request_drop_body(intake->request); // the records have it all
    if (stored == 0) {
        waiter_place(waiter);
        return true;
    }
    *batch->tail = waiter;
    batch->tail = &waiter->next;
    batch->spool.lane_counts[route->lane] += stored;
    return true;
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

static void waiter_synced(struct waiter *waiter, const struct spool_batch *batch)
{
    waiter->incarnation = batch->incarnation;
    waiter->first_seq = batch->first_seq + waiter->first_index;
    waiter->last_seq = waiter->first_seq + waiter->stored - 1;
    stats_add(&waiter->stats->spooled, waiter->stored);
    if (waiter->request == NULL) {
        stats_add(&waiter->stats->unavailable_after_append, waiter->stored);
        waiter_recycle(waiter);
        return;
    }
    stats_add(&waiter->stats->waiting, waiter->stored);
    waiter_place(waiter);
}

// Before anybody is answered for it: whoever sends one of these ids again finds its outcome.
static void settle_batch(struct loop_batch *batch, bool synced)
{
    struct ingest_loop *loop = batch->loop;
    struct ingest *ingest = loop->ingest;
    if (ingest->dedupe == NULL)
        return;
    bool held = batch->held_count > 0;
    if (synced)
        ingest_settle_claims(batch);
    else
        ingest_forget_claims(batch, 0);
    if (synced)
        atomic_store_explicit(
            &loop->settled_through,
            POSITION_OF(batch->spool.incarnation, batch->spool.first_seq + batch->spool.records.count - 1),
            memory_order_release);
    if (!held)
        return;
    atomic_thread_fence(memory_order_seq_cst); // pairs with waiter_place
    for (uint32_t i = 0; i < ingest->loop_count; i++) {
        struct ingest_loop *other = &ingest->loops[i];
        if (other != loop && atomic_load(&other->has_waiting) && !atomic_exchange(&other->settled_posted, true))
            http_loop_post(other->http, &other->settled_task);
    }
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
    settle_batch(batch, synced);
    for (struct waiter *waiter = batch->first, *next; waiter != NULL; waiter = next) {
        next = waiter->next;
        waiter->next = NULL;
        if (synced) {
            waiter_synced(waiter, &batch->spool);
            continue;
        }
        if (waiter->request != NULL)
            waiter_fail(waiter, disk_failed);
        waiter_recycle(waiter);
    }
    batch_recycle(batch);
    sweep_waiting(loop, http_loop_now_ns(loop->http));
}

void ingest_on_commit_task(struct http_task *task)
{
    struct ingest_loop *loop = (struct ingest_loop *)(void *)((char *)task - offsetof(struct ingest_loop, commit_task));
    // Cleared before the positions are read: a move after this posts again.
    atomic_store(&loop->commit_posted, false);
    sweep_lanes(loop, http_loop_now_ns(loop->http));
    list_sweep(&loop->zones, http_loop_now_ns(loop->http), no_second_zone);
    sweep_waiting(loop, http_loop_now_ns(loop->http));
}

void ingest_on_zone_task(struct http_task *task)
{
    struct ingest_loop *loop = (struct ingest_loop *)(void *)((char *)task - offsetof(struct ingest_loop, zone_task));
    atomic_store(&loop->zone_posted, false); // as above
    sweep_zones_in_order(loop);
    sweep_waiting(loop, http_loop_now_ns(loop->http));
}

void ingest_on_settled_task(struct http_task *task)
{
    struct ingest_loop *loop =
        (struct ingest_loop *)(void *)((char *)task - offsetof(struct ingest_loop, settled_task));
    atomic_store(&loop->settled_posted, false); // as above
    sweep_waiting(loop, http_loop_now_ns(loop->http));
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
    sweep_lanes(loop, now_ns);
    list_sweep(&loop->zones, now_ns, no_second_zone);
    sweep_waiting(loop, now_ns);
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
        free(waiter->originals);
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
        batch_free(batch);
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
    waiters_free(loop->zones.first);
    waiters_free(loop->waiting.first);
    ingest_dedupe_free(loop);
    json_parser_free(loop->parser);
    decoder_free(loop->decoder);
    routes_release(loop->routes);
}
