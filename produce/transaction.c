// One transaction: records of the lane in spool order are handed to librdkafka until it is ripe (sizing.h), then
// commit.c ends it. One thread, no copy of a payload: librdkafka points into frames that are retained until their
// delivery reports.
//
// Happy path: begin at the first record; fill while there is room in the queue; all delivery reports; the progress
// record; commit; tell the spool. With nothing to do: an idle turn (rewrite progress when it moved, verify, end of
// stream, stop).
//
// Failure modes: a record that librdkafka itself refuses as too large is dead-lettered in the same transaction. A topic
// that is not well ends the transaction before the record that needs it, and then holds the lane up with nothing open.
// Everything else comes as a failed delivery or call and is abort.c's.
#include "produce/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const int64_t moved_rewrite_ns = 1600 * SL_NS_PER_MS;
static const int64_t verify_every_ns = 2 * SL_NS_PER_S;
static const int64_t probe_every_ns = 5 * SL_NS_PER_S;
static const int64_t idle_wait_ns = 100 * SL_NS_PER_MS;
static const int64_t starved_most_ns = 5 * SL_NS_PER_S;
static const int64_t open_wait_ns = 5 * SL_NS_PER_MS;
enum { FULL_WAIT_MS = 20, PROBE_TIMEOUT_MS = 1000, TRANSACTION_RECORDS_MAX = 1000000 };

static void take_failure(struct lane *lane, const rd_kafka_message_t *message, struct chunk *chunk)
{
    struct transaction *transaction = &lane->transaction;
    transaction->failed = true;
    const char *topic = rd_kafka_topic_name(message->rkt);
    switch (error_of_delivery(message->err)) {
    case ERROR_INNOCENT:
        transaction->innocent = message->err;
        return;
    case ERROR_SUSPECT:
        if (chunk) {
            uint64_t seq = message_seq_at(chunk, message->payload);
            if (transaction->suspect_count++ == 0 || seq < transaction->suspect_first) {
                transaction->suspect_first = seq;
                transaction->suspect_error = message->err;
                transaction->suspect_route = route_of(lane, topic, strlen(topic), false);
            }
            if (seq > transaction->suspect_last)
                transaction->suspect_last = seq;
            return;
        }
        break;
    default:
        break;
    }
    if (!transaction->error) {
        transaction->error = message->err;
        snprintf(lane->trouble, sizeof(lane->trouble), "topic %s: %s", topic, rd_kafka_err2str(message->err));
    }
}

static void take_reports(struct lane *lane, rd_kafka_event_t *event)
{
    struct transaction *transaction = &lane->transaction;
    const rd_kafka_message_t *message;
    while ((message = rd_kafka_event_message_next(event))) {
        struct chunk *chunk = message->_private; // NULL: the progress record
        sl_assert(transaction->outstanding > 0);
        transaction->outstanding--;
        transaction->outstanding_bytes -= message->len;
        if (message->err)
            take_failure(lane, message, chunk);
        if (chunk)
            chunk_drop(&lane->session, chunk);
    }
}

void transaction_serve(struct lane *lane, int timeout_ms)
{
    rd_kafka_event_t *event;
    while ((event = rd_kafka_queue_poll(lane->session.events, timeout_ms))) {
        timeout_ms = 0;
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
            take_reports(lane, event);
        else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR &&
                 rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__FATAL)
            lane->session.fatal = true;
        rd_kafka_event_destroy(event);
    }
}

static bool has_room(const struct lane *lane)
{
    const struct transaction *transaction = &lane->transaction;
    const struct produce_options *options = &lane->produce->options;
    return transaction->outstanding == 0 ||
           (transaction->outstanding < options->queue_events && transaction->outstanding_bytes < options->queue_bytes);
}

static void note_received(struct transaction *transaction, int64_t received_wall_ns)
{
    int64_t wall_ms = received_wall_ns / SL_NS_PER_MS;
    struct received_run *last = transaction->run_count ? &transaction->runs[transaction->run_count - 1] : NULL;
    // Out of runs: the last one takes the rest, a millisecond or two wrong.
    if (last && (last->wall_ms == wall_ms || transaction->run_count == RECEIVED_RUNS_MAX))
        last->count++;
    else
        transaction->runs[transaction->run_count++] = (struct received_run){.wall_ms = wall_ms, .count = 1};
}

static void note_handed_over(struct lane *lane, const struct message *message)
{
    struct transaction *transaction = &lane->transaction;
    transaction->records++;
    transaction->counted += message->seq > lane->session.counted;
    transaction->dead_lettered += message->kind == MESSAGE_DEAD_LETTER;
    transaction->refused += message->kind == MESSAGE_REFUSED;
    if (message->route)
        message->route->in_transaction++;
    note_received(transaction, message->record.received_wall_ns);
}

static rd_kafka_resp_err_t hand_over(struct lane *lane, struct message *message)
{
    const struct record *record = &message->record;
    // Without F_COPY and F_FREE the payload stays where it is: in the frame, which the chunk retains.
    rd_kafka_resp_err_t code = rd_kafka_producev(
        lane->session.rk, RD_KAFKA_V_RKT(message->route->handle), RD_KAFKA_V_PARTITION(RD_KAFKA_PARTITION_UA),
        RD_KAFKA_V_MSGFLAGS(0), RD_KAFKA_V_VALUE((void *)(uintptr_t)record->payload.bytes, record->payload.length),
        RD_KAFKA_V_KEY(record->has_key ? record->key.bytes : NULL, record->has_key ? record->key.length : 0),
        RD_KAFKA_V_TIMESTAMP(record->received_wall_ns / SL_NS_PER_MS), RD_KAFKA_V_HEADERS(message->headers),
        RD_KAFKA_V_OPAQUE(message->chunk), RD_KAFKA_V_END);
    if (code)
        return code;
    message->headers = NULL;
    chunk_hold(message->chunk);
    lane->transaction.outstanding++;
    lane->transaction.outstanding_bytes += record->payload.length;
    return code;
}

static enum step refuse(struct lane *lane, struct message *message)
{
    struct sl_error err;
    if (spool_put_refused(lane->produce->options.spool, lane->session.stream, message->seq, &message->record,
                          message->cause, &err))
        return STEP_GO;
    lane->held = NULL;
    snprintf(lane->trouble, sizeof(lane->trouble), "set aside record %" PRIu64 ": %.200s", message->seq, err.text);
    return STEP_HELD;
}

// STEP_GO with *taken false: no room just now, or the transaction has to end first.
static enum step take_head(struct lane *lane, struct message *message, bool *taken)
{
    struct transaction *transaction = &lane->transaction;
    *taken = false;
    if (message->kind == MESSAGE_DEAD_LETTER && message->route->refusing) {
        message_clear(message);
        message_prepare(lane, message);
    }
    if (message->kind != MESSAGE_REFUSED && !message->route->ready) {
        enum step step = route_make_ready(lane, message->route);
        if (step == STEP_HELD && message->route->refusing)
            return STEP_GO; // comes again as refused
        if (step != STEP_GO && transaction->open) {
            transaction->cut = true;
            return STEP_GO;
        }
        if (step != STEP_GO)
            return step;
    }
    if (!transaction->open) {
        enum step step = transaction_begin(lane);
        if (step != STEP_GO)
            return step;
        transaction->first_seq = message->seq;
        transaction->limit = bisect_limit(&lane->bisect, message->seq);
    }
    if (message->kind == MESSAGE_REFUSED) {
        enum step step = refuse(lane, message);
        *taken = step == STEP_GO;
        return step;
    }
    rd_kafka_resp_err_t code = hand_over(lane, message);
    *taken = code == RD_KAFKA_RESP_ERR_NO_ERROR;
    if (*taken)
        return STEP_GO;
    if (code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE) { // librdkafka's own limit names the record
        deadletter_condemn(lane, message->seq, rd_kafka_err2str(code), message->kind == MESSAGE_DEAD_LETTER);
        message_clear(message);
        message_prepare(lane, message);
        return STEP_GO;
    }
    if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
        transaction_serve(lane, FULL_WAIT_MS);
        return STEP_GO;
    }
    return transaction_fail(lane, error_of_call(code, code == RD_KAFKA_RESP_ERR__FATAL, false, false), "produce",
                            rd_kafka_err2str(code));
}

static enum step hand_over_staged(struct lane *lane)
{
    struct transaction *transaction = &lane->transaction;
    struct message *message;
    while (!transaction->failed && (message = stage_head(&lane->session))) {
        if (transaction->open &&
            (message->seq > transaction->limit || transaction->cut || transaction->records >= TRANSACTION_RECORDS_MAX))
            return STEP_GO;
        if (!has_room(lane)) {
            transaction_serve(lane, FULL_WAIT_MS);
            return STEP_GO;
        }
        bool taken;
        enum step step = take_head(lane, message, &taken);
        if (step != STEP_GO)
            return step;
        if (!taken)
            return STEP_GO;
        note_handed_over(lane, message);
        lane->session.taken = true;
        stage_pop(&lane->session);
    }
    return STEP_GO;
}

static bool must_finish(const struct lane *lane)
{
    const struct transaction *transaction = &lane->transaction;
    const struct session *session = &lane->session;
    if (!transaction->open)
        return false;
    // Of a range that was ordered all is there already: in as few transactions as it takes, for after each of them the
    // coordinator lets the next one wait until its markers are written.
    bool ordered = session->last != UINT64_MAX && session->staged_through < session->last;
    bool more = session->stage_count > 0 || ((session->cursor != NULL || ordered) && !session->ended);
    if (transaction->cut || transaction->records >= TRANSACTION_RECORDS_MAX ||
        (more && session->stage_count && session->stage[session->stage_first].seq > transaction->limit))
        return true;
    if (!more && (session->ended || atomic_load(&lane->produce->stopping)))
        return true;
    return sizing_ripe(&lane->sizing, sl_monotonic_ns() - transaction->opened_ns, more);
}

// An older stream was walked to its end: the last progress record says so, and must be seen by read_committed readers.
static enum step end_of_stream(struct lane *lane)
{
    struct session *session = &lane->session;
    if (!session->progress.closed || stage_through(session) > session->progress.through)
        return transaction_finish(lane, stage_through(session), session->progress.claim, true);
    enum step step = verify_progress(lane, 100);
    if (step != STEP_GO)
        return step;
    return session->verified >= session->progress.through ? STEP_END : STEP_GO;
}

// The range that was ordered was walked to its end, or the stream that is followed was sealed.
static enum step end_of_range(struct lane *lane)
{
    struct session *session = &lane->session;
    if (stage_through(session) <= session->progress.through)
        return STEP_END;
    return transaction_finish(lane, stage_through(session), session->progress.claim, false);
}

static bool is_starving(struct lane *lane, int64_t now)
{
    const struct session *session = &lane->session;
    if (!session->starved_ns || now - session->starved_ns < starved_most_ns)
        return false;
    snprintf(lane->trouble, sizeof(lane->trouble), "the copy of %.100s ends at %" PRIu64 ", not at %" PRIu64,
             session->stream, session->staged_through, session->last);
    return true;
}

static bool is_drained(const struct lane *lane)
{
    const struct session *session = &lane->session;
    return session->current && session->verified >= session->progress.through &&
           session->progress.through >= spool_synced_seq(lane->produce->options.spool);
}

// Nothing to do is no news of Kafka: it is asked a small question now and then (produce_connected).
static void keep_in_touch(struct lane *lane, int64_t now)
{
    topics_survey(lane);
    if (now - atomic_load(&lane->produce->reached_ns) < probe_every_ns || now - lane->probed_ns < probe_every_ns)
        return;
    int64_t watermark;
    struct sl_error err;
    if (tail_watermark(&lane->tail, &watermark, PROBE_TIMEOUT_MS, &err))
        atomic_store(&lane->produce->reached_ns, sl_monotonic_ns());
    lane->probed_ns = sl_monotonic_ns();
}

static enum step idle_turn(struct lane *lane)
{
    struct session *session = &lane->session;
    bool stopping = atomic_load(&lane->produce->stopping);
    int64_t now = sl_monotonic_ns(), since_progress = now - session->progress_ns;
    atomic_store(&lane->waiting_since_ns, 0);
    if (session->ended)
        return lane->driven ? end_of_range(lane) : end_of_stream(lane);
    if (is_starving(lane, now))
        return STEP_REBUILD;
    bool moved = stage_through(session) > session->progress.through;
    int64_t rewrite_ns = lane_life_ns(lane) - lane_life_ns(lane) / 8; // a commit takes a while, too
    if ((moved && (stopping || since_progress >= moved_rewrite_ns)) || since_progress >= rewrite_ns)
        return transaction_finish(lane, stage_through(session), session->progress.claim, false);
    if (session->verified < session->progress.through && (stopping || now - session->verified_ns >= verify_every_ns))
        return verify_progress(lane, stopping ? 50 : 0);
    if (stopping && is_drained(lane))
        return STEP_QUIT;
    if (!stopping)
        keep_in_touch(lane, now);
    return STEP_GO;
}

static enum step read_failed(struct lane *lane, const struct sl_error *err)
{
    snprintf(lane->trouble, sizeof(lane->trouble), "read the spool: %.250s", err->text);
    return err->code == SL_E_REFUSED ? STEP_STOPPED : STEP_AGAIN;
}

static enum step commit_and_verify(struct lane *lane)
{
    struct session *session = &lane->session;
    enum step step = transaction_finish(lane, stage_through(session), session->progress.claim, false);
    if (step == STEP_GO && sl_monotonic_ns() - session->verified_ns >= verify_every_ns)
        step = verify_progress(lane, 0);
    return step;
}

enum step transaction_run(struct lane *lane)
{
    struct transaction *transaction = &lane->transaction;
    struct session *session = &lane->session;
    struct sl_error err;
    for (;;) {
        if (lane_must_quit(lane))
            return STEP_QUIT;
        transaction_serve(lane, 0);
        if (transaction->failed || session->fatal)
            return transaction_failed(lane);
        if (!session->stage_count) {
            int64_t wait_ns = atomic_load(&lane->produce->stopping) ? 0
                              : transaction->open                   ? open_wait_ns
                                                                    : idle_wait_ns;
            if (stage_fill(lane, wait_ns, &err) == STAGE_FAILED && !transaction->open)
                return read_failed(lane, &err);
        }
        enum step step = hand_over_staged(lane);
        if (step != STEP_GO)
            return step;
        if (transaction->failed || session->fatal)
            return transaction_failed(lane);
        if (must_finish(lane))
            return commit_and_verify(lane);
        if (!transaction->open && !session->stage_count)
            return idle_turn(lane);
    }
}
