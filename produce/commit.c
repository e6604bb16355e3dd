// The end of a transaction. The order is the promise: all delivery reports of the events, then the progress record, its
// report, then EndTxn. A commit that was sent by mistake (the client speaks the older transaction protocol, in which a
// stray EndTxn can be) may then double events, but it can never let progress pass one that is not there.
//
// While deliveries are awaited the lane reads ahead.
#include "produce/internal.h"

#include <string.h>

enum { DELIVERY_DEADLINE_MS = MESSAGE_TIMEOUT_MS + SOCKET_TIMEOUT_MS + 1000 };

static bool is_transactional(const struct lane *lane)
{
    return lane->produce->options.transactional;
}

enum step transaction_begin(struct lane *lane)
{
    struct transaction *transaction = &lane->transaction;
    sl_assert(!lane->session.taken);
    transaction_clear(lane);
    transaction->opened_ns = sl_monotonic_ns();
    if (atomic_load(&lane->waiting_since_ns) == 0) // not after an abort: the same records wait
        atomic_store(&lane->waiting_since_ns, transaction->opened_ns);
    if (is_transactional(lane)) {
        rd_kafka_error_t *error = rd_kafka_begin_transaction(lane->session.rk);
        if (error)
            return transaction_fail_call(lane, "begin transaction", error);
    }
    transaction->open = true;
    transaction->limit = UINT64_MAX;
    return STEP_GO;
}

// Reads ahead a little. Whether there was anything does not matter here, and an error comes again.
static bool read_ahead(struct lane *lane)
{
    struct sl_error err;
    struct session *session = &lane->session;
    if (!session->reader || session->stage_count >= STAGE_MAX)
        return false;
    size_t before = session->stage_count;
    return stage_fill(lane, 0, &err) == STAGE_MORE && session->stage_count > before;
}

static enum step await_deliveries(struct lane *lane)
{
    struct transaction *transaction = &lane->transaction;
    int64_t deadline_ns = sl_monotonic_ns() + DELIVERY_DEADLINE_MS * SL_NS_PER_MS;
    while (transaction->outstanding > 0) {
        // Ends the lingering of what is still in the queues; with reports as events it returns at once or after 1 ms.
        (void)rd_kafka_flush(lane->session.rk, 1);
        transaction_serve(lane, read_ahead(lane) ? 0 : 4);
        if (transaction->failed || lane->session.fatal)
            return transaction_failed(lane);
        if (lane_must_quit(lane))
            return STEP_QUIT;
        if (sl_monotonic_ns() > deadline_ns)
            return transaction_fail(lane, ERROR_REBUILD, "deliver", "no delivery report within its time");
    }
    return STEP_GO;
}

static enum step send_progress(struct lane *lane, const struct progress *progress)
{
    struct session *session = &lane->session;
    uint8_t bytes[PROGRESS_BYTES_MAX];
    size_t length = progress_encode(progress, bytes);
    char key[PROGRESS_KEY_MAX];
    progress_key(key, session->stream, lane->name);
    rd_kafka_resp_err_t code = rd_kafka_producev(
        session->rk, RD_KAFKA_V_RKT(session->progress_topic), RD_KAFKA_V_PARTITION(progress_partition(session->stream)),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_VALUE(bytes, length), RD_KAFKA_V_KEY(key, strlen(key)),
        RD_KAFKA_V_OPAQUE(NULL), RD_KAFKA_V_END);
    if (code)
        return transaction_fail(lane, error_of_call(code, code == RD_KAFKA_RESP_ERR__FATAL, false, false),
                                "produce progress", rd_kafka_err2str(code));
    lane->transaction.outstanding++;
    lane->transaction.outstanding_bytes += length;
    return await_deliveries(lane);
}

// One call, never resumed: librdkafka 2.8 keeps one "there is a result" flag for all phases of a call, and answers the
// first phase of a resumed call that comes too late by forgetting which call it was. Then a commit is reported done
// before Kafka has answered, or the answer ends the process in an assertion (docs/track-record.md). A call that timed
// out has an unknown outcome, and the producer is made anew. All deliveries are in, so the call does not wait for
// reports.
static enum step commit_call(struct lane *lane)
{
    rd_kafka_error_t *error = rd_kafka_commit_transaction(lane->session.rk, lane_call_timeout_ms(lane));
    if (!error)
        return STEP_GO;
    bool unknown = rd_kafka_error_is_retriable(error) && !rd_kafka_error_is_fatal(error) &&
                   !rd_kafka_error_txn_requires_abort(error);
    if (!unknown)
        return transaction_fail_call(lane, "commit", error);
    char text[200];
    snprintf(text, sizeof(text), "%s", rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    return lane_must_quit(lane) ? STEP_QUIT
                                : transaction_fail(lane, ERROR_REBUILD, "commit: the outcome is unknown", text);
}

static void count_topics(struct lane *lane)
{
    for (size_t i = 0; i < ROUTE_BUCKETS; i++) {
        for (struct route *route = lane->routes[i]; route; route = route->next) {
            if (route->in_transaction)
                atomic_fetch_add(&route->topic->produced, route->in_transaction);
            route->in_transaction = 0;
        }
    }
}

static void observe_latency(struct lane *lane)
{
    const struct transaction *transaction = &lane->transaction;
    int64_t wall_ms = sl_wall_ns() / SL_NS_PER_MS;
    for (size_t i = 0; i < transaction->run_count; i++) {
        int64_t latency_ms = wall_ms - transaction->runs[i].wall_ms;
        uint64_t latency_ns = latency_ms > 0 ? (uint64_t)latency_ms * (uint64_t)SL_NS_PER_MS : 0;
        histogram_observe_many(&lane->produce->histogram, latency_ns, transaction->runs[i].count);
    }
}

static void report_committed(struct lane *lane)
{
    const struct session *session = &lane->session;
    const struct produce_options *options = &lane->produce->options;
    atomic_store(&lane->committed, session->progress.through);
    if (!options->on_committed)
        return;
    // What was released says nothing more; the mutex is what produce_release waits for.
    pthread_mutex_lock(&lane->mutex);
    if (!atomic_load(&lane->leaving))
        options->on_committed(options->user, session->stream, lane->name, session->progress.through);
    pthread_mutex_unlock(&lane->mutex);
}

static void tell_committed(struct lane *lane)
{
    struct session *session = &lane->session;
    struct transaction *transaction = &lane->transaction;
    const struct produce_options *options = &lane->produce->options;
    // Not so at a claim: what earlier incarnations committed is counted when the walk passes it (stage.c).
    if (session->progress.through > session->counted && session->staged_through >= session->progress.through) {
        spool_note_committed(options->spool, session->stream, lane->name, session->progress.through,
                             transaction->counted + session->skipped);
        session->counted = session->progress.through;
        session->skipped = 0;
    }
    if (session->current || lane->driven)
        report_committed(lane);
}

static void settle(struct lane *lane, const struct progress *progress)
{
    struct session *session = &lane->session;
    struct transaction *transaction = &lane->transaction;
    int64_t now = sl_monotonic_ns();
    session->progress = *progress;
    session->taken = false;
    session->progress_ns = now;
    if (transaction->records)
        sizing_observe(&lane->sizing, transaction->records, now - transaction->opened_ns);
    atomic_store(&lane->last_commit_ns, now);
    atomic_store(&lane->waiting_since_ns, 0);
    atomic_store(&lane->produce->reached_ns, now);
    lane->failures = 0;
    lane->fences = 0;
    tell_committed(lane);
    count_topics(lane);
    observe_latency(lane);
    deadletter_forget(lane, progress->through);
    if (transaction->records)
        drain_failpoint(lane, "takeover.produce");
    pthread_mutex_lock(&lane->mutex);
    lane->status.committed_seq = progress->through;
    lane->status.transactions++;
    lane->status.dead_lettered += transaction->dead_lettered;
    lane->status.refused += transaction->refused;
    pthread_mutex_unlock(&lane->mutex);
    transaction_clear(lane);
}

// After a round of bisect that condemned nobody: the batches themselves are too large for the topic.
static enum step shrink_batches(struct lane *lane)
{
    if (!lane->bisect_too_large)
        return STEP_GO;
    uint32_t now = handle_batch_bytes(lane->session.rk);
    lane->batch_bytes = now > 32768 ? now / 2 : 16384;
    sl_logf(SL_WARN, "produce", "Kafka refuses whole batches: smaller ones from now on", SL_STR("lane", lane->name),
            SL_UINT("batch_size", lane->batch_bytes));
    return STEP_REBUILD;
}

enum step transaction_finish(struct lane *lane, uint64_t through, uint64_t claim, bool closed)
{
    struct session *session = &lane->session;
    enum step step = STEP_GO;
    if (!lane->transaction.open)
        step = transaction_begin(lane);
    if (step == STEP_GO)
        step = await_deliveries(lane);
    if (step != STEP_GO)
        return step;
    struct progress next = session->progress;
    next.through = through > next.through ? through : next.through;
    next.claim = claim;
    next.closed = closed;
    next.written_wall_ns = sl_wall_ns();
    memcpy(next.drainer, session->drainer, sizeof(next.drainer));
    step = send_progress(lane, &next);
    if (step == STEP_GO && is_transactional(lane))
        step = commit_call(lane);
    if (step != STEP_GO)
        return step;
    // What was found damaged while the commit ran belongs to the next record.
    memcpy(next.open, session->progress.open, sizeof(next.open));
    next.open_count = session->progress.open_count;
    settle(lane, &next);
    return bisect_succeeded(&lane->bisect, next.through) ? shrink_batches(lane) : STEP_GO;
}
