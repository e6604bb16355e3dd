// What follows a failure. A delivery that failed names a record (bisect, dead-letter), a topic (hold) or nothing (abort
// and try again); a call that failed names the transaction or the handle. Whatever the case, the next position comes
// from progress as read from Kafka, never from what a call returned.
#include "produce/internal.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

// A transaction that is left open holds readers up until somebody inits or 15 s have passed: worth a moment.
static const int64_t quit_within_ns = 500 * SL_NS_PER_MS;

void transaction_clear(struct lane *lane)
{
    struct transaction *transaction = &lane->transaction;
    size_t head = offsetof(struct transaction, runs);
    memset(transaction, 0, head);
}

bool transaction_abort(struct lane *lane, int deadline_ms)
{
    int64_t begun_ns = sl_monotonic_ns(), deadline_ns = begun_ns + deadline_ms * SL_NS_PER_MS;
    for (;;) {
        rd_kafka_error_t *error = rd_kafka_abort_transaction(lane->session.rk, ABORT_SLICE_MS);
        if (!error)
            return lane->transaction.outstanding == 0;
        transaction_serve(lane, 0);
        bool resume = rd_kafka_error_is_retriable(error) && !rd_kafka_error_is_fatal(error);
        if (!resume)
            sl_logf(SL_WARN, "produce", "an abort failed", SL_STR("stream", lane->session.stream),
                    SL_STR("lane", lane->name), SL_STR("cause", rd_kafka_error_string(error)));
        rd_kafka_error_destroy(error);
        int64_t now = sl_monotonic_ns();
        if (!resume || now > deadline_ns || (lane_must_quit(lane) && now > begun_ns + quit_within_ns))
            return false;
    }
}

// Batches that are larger than the topic takes, as its configuration says: smaller ones before anybody is suspected.
static bool batches_exceed_topic(struct lane *lane, const struct route *route)
{
    uint32_t now = handle_batch_bytes(lane->session.rk);
    if (route->message_bytes_max <= 0 || now <= route->message_bytes_max)
        return false;
    lane->batch_bytes = (uint32_t)(route->message_bytes_max - route->message_bytes_max / 10);
    sl_logf(SL_WARN, "produce", "a topic takes only small batches", SL_STR("topic", route->topic->name),
            SL_STR("lane", lane->name), SL_UINT("batch_size", lane->batch_bytes));
    return true;
}

// Once everything about the failed transaction is known, its abort included. Returns whether smaller batches are to be
// tried.
static bool judge_suspects(struct lane *lane)
{
    const struct transaction *transaction = &lane->transaction;
    if (!transaction->suspect_count || transaction->error)
        return false;
    bool too_large = transaction->suspect_error == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ||
                     transaction->suspect_error == RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE;
    if (too_large && transaction->suspect_count > 1 && batches_exceed_topic(lane, transaction->suspect_route))
        return true;
    lane->bisect_too_large = lane->bisect.active ? lane->bisect_too_large && too_large : too_large;
    uint64_t seq =
        bisect_failed(&lane->bisect, transaction->suspect_first, transaction->suspect_last, transaction->suspect_count);
    if (seq)
        deadletter_condemn(lane, seq, rd_kafka_err2str(transaction->suspect_error),
                           transaction->suspect_route->dead_letter);
    return false;
}

static enum step abort_and_read(struct lane *lane)
{
    struct session *session = &lane->session;
    for (size_t i = 0; i < ROUTE_BUCKETS; i++) {
        for (struct route *route = lane->routes[i]; route; route = route->next)
            route->in_transaction = 0;
    }
    // Without transactions there is nothing to abort: what librdkafka still holds is dropped with the handle.
    bool aborted = lane->produce->options.transactional && transaction_abort(lane, CALL_DEADLINE_MS);
    bool smaller = judge_suspects(lane);
    if (!aborted)
        return STEP_REBUILD;
    transaction_clear(lane);
    enum step step = session_read_progress(lane);
    // Kafka did not say where to go on. The stage stands behind what was aborted: it must not be used, so connect
    // again.
    if (step == STEP_AGAIN)
        return STEP_REBUILD;
    if (step != STEP_GO)
        return step;
    struct sl_error err;
    if (session->reader && !stage_reset(lane, &err)) {
        snprintf(lane->trouble, sizeof(lane->trouble), "%.280s", err.text);
        return STEP_REBUILD;
    }
    return smaller ? STEP_REBUILD : STEP_GO;
}

enum step transaction_fail(struct lane *lane, enum error_action action, const char *what, const char *text)
{
    snprintf(lane->trouble, sizeof(lane->trouble), "%s: %.200s", what, text);
    sl_logf(action == ERROR_SUSPECT ? SL_INFO : SL_WARN, "produce", "a transaction failed",
            SL_STR("stream", lane->session.stream), SL_STR("lane", lane->name), SL_STR("what", what),
            SL_STR("cause", text), SL_STR("action", error_action_word(action)),
            SL_UINT("records", lane->transaction.records));
    pthread_mutex_lock(&lane->mutex);
    lane->status.aborts++;
    lane->status.fenced += action == ERROR_FENCED;
    pthread_mutex_unlock(&lane->mutex);
    routes_doubt(lane);
    enum step step;
    switch (action) {
    case ERROR_REBUILD:
        return STEP_REBUILD;
    case ERROR_FENCED:
        return STEP_FENCED;
    case ERROR_DENIED:
        return STEP_DENIED;
    case ERROR_SUSPECT:
        step = abort_and_read(lane);
        return step == STEP_GO ? STEP_ABORTED : step;
    default:
        step = abort_and_read(lane);
        return step == STEP_GO ? STEP_AGAIN : step;
    }
}

enum step transaction_fail_call(struct lane *lane, const char *what, rd_kafka_error_t *error)
{
    rd_kafka_resp_err_t code = rd_kafka_error_code(error);
    char text[200];
    if (rd_kafka_error_is_fatal(error) && code == RD_KAFKA_RESP_ERR__FATAL)
        code = rd_kafka_fatal_error(lane->session.rk, text, sizeof(text));
    enum error_action action =
        error_of_call(code, rd_kafka_error_is_fatal(error), rd_kafka_error_txn_requires_abort(error),
                      rd_kafka_error_is_retriable(error));
    snprintf(text, sizeof(text), "%s", rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    return transaction_fail(lane, action, what, text);
}

// The reports of one failure arrive one after the other, those of dropped bystanders sometimes first. The more of them
// are here, the better the cause is known.
static void await_cause(struct lane *lane)
{
    struct transaction *transaction = &lane->transaction;
    int64_t deadline_ns = sl_monotonic_ns() + SL_NS_PER_S;
    uint32_t before;
    bool known;
    do {
        before = transaction->outstanding;
        transaction_serve(lane, 20);
        known = transaction->error || transaction->suspect_count;
    } while ((transaction->outstanding < before || (!known && transaction->outstanding > 0)) &&
             sl_monotonic_ns() < deadline_ns);
}

enum step transaction_failed(struct lane *lane)
{
    struct transaction *transaction = &lane->transaction;
    char text[300];
    rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(lane->session.rk, text, sizeof(text));
    if (fatal)
        return transaction_fail(lane, error_of_call(fatal, true, false, false), "producer", text);
    if (!transaction->error)
        await_cause(lane);
    if (transaction->error) {
        snprintf(text, sizeof(text), "%s", lane->trouble); // names the topic
        return transaction_fail(lane, error_of_delivery(transaction->error), "deliver", text);
    }
    if (transaction->suspect_count)
        return transaction_fail(lane, ERROR_SUSPECT, "deliver", rd_kafka_err2str(transaction->suspect_error));
    return transaction_fail(lane, ERROR_ABORT, "deliver", rd_kafka_err2str(transaction->innocent));
}
