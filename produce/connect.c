// The takeover steps (docs/protocol-ha.md), whoever's the stream is; a lane that drains by itself takes them in a row,
// a drain that is driven (drain.h) one by one:
//   1. a consumer, the cluster's id, sluice.progress as it has to be
//   2. a producer with the transactional.id of the stream and lane; init_transactions fences every other drainer and
//   ends what
//      a dead incarnation left open
//   3. progress, read to the high watermark; judged by the guard and by the claim
//   4. the claim, committed; the guard, stored
//   5. a reader behind what is counted
//
// Failure modes: Kafka does not answer (STEP_AGAIN: everything from the start, after a pause), something is missing or
// denied (STEP_HELD, STEP_DENIED: the same, and an operator is told), progress went back or a rival has it
// (STEP_STOPPED).
#include "produce/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLUSTER_ID_TIMEOUT_MS = 1000, INIT_DEADLINE_MS = 30000, WATERMARK_TIMEOUT_MS = 3000, READ_DEADLINE_MS = 60000 };

static enum step again(struct lane *lane, const char *what, const char *text)
{
    snprintf(lane->trouble, sizeof(lane->trouble), "%s: %.200s", what, text);
    return STEP_AGAIN;
}

static enum step look_around(struct lane *lane)
{
    struct session *session = &lane->session;
    struct sl_error err;
    if (!lane->tail.rk) {
        // A stream that is written no more is drained soon, and somebody waits for it.
        uint64_t wait_ms = session->current ? FETCH_WAIT_MS : FETCH_HURRY_MS;
        rd_kafka_t *rk = handle_consumer(lane->produce, lane->name, wait_ms, &err);
        if (!rk)
            return again(lane, "consumer", err.text);
        tail_init(&lane->tail, rk);
    }
    char *cluster_id = rd_kafka_clusterid(lane->tail.rk, CLUSTER_ID_TIMEOUT_MS);
    if (!cluster_id)
        return again(lane, "Kafka", "no broker answers");
    snprintf(session->guard.cluster_id, sizeof(session->guard.cluster_id), "%s", cluster_id);
    rd_kafka_mem_free(lane->tail.rk, cluster_id);
    return topics_progress(lane, session->guard.topic_id);
}

static enum step init_transactions(struct lane *lane)
{
    struct session *session = &lane->session;
    int64_t deadline_ns = sl_monotonic_ns() + INIT_DEADLINE_MS * SL_NS_PER_MS;
    for (;;) {
        rd_kafka_error_t *error = rd_kafka_init_transactions(session->rk, INIT_SLICE_MS);
        if (!error)
            return STEP_GO;
        transaction_serve(lane, 0);
        bool fatal = rd_kafka_error_is_fatal(error), retriable = rd_kafka_error_is_retriable(error);
        enum error_action action = error_of_call(rd_kafka_error_code(error), fatal, false, retriable);
        enum step step = again(lane, "init transactions", rd_kafka_error_string(error));
        rd_kafka_error_destroy(error);
        if (action == ERROR_DENIED)
            return STEP_DENIED;
        if (fatal || !retriable || sl_monotonic_ns() > deadline_ns)
            return step;
        if (lane_must_quit(lane))
            return STEP_QUIT;
    }
}

// It connects while the consumer looks around; librdkafka asks for a producer id again only after half a second when
// there was no connection the first time.
static enum step make_producer(struct lane *lane)
{
    struct session *session = &lane->session;
    struct sl_error err;
    char id[3 * SPOOL_STREAM_ID_MAX];
    snprintf(id, sizeof(id), "sluice.%s.%s.%s", lane->produce->options.cluster, session->stream, lane->name);
    bool transactional = lane->produce->options.transactional;
    session->rk = handle_producer(lane, transactional ? id : NULL, &err);
    if (!session->rk)
        return again(lane, "producer", err.text);
    session->events = rd_kafka_queue_get_main(session->rk);
    session->progress_topic = rd_kafka_topic_new(session->rk, PROGRESS_TOPIC, NULL);
    return STEP_GO;
}

static enum step init_producer(struct lane *lane)
{
    struct session *session = &lane->session;
    pthread_mutex_lock(&lane->mutex);
    lane->status.producers++;
    pthread_mutex_unlock(&lane->mutex);
    enum step step = lane->produce->options.transactional ? init_transactions(lane) : STEP_GO;
    if (step != STEP_GO)
        return step;
    const struct rd_kafka_metadata *metadata;
    rd_kafka_resp_err_t code =
        rd_kafka_metadata(session->rk, 0, session->progress_topic, &metadata, WATERMARK_TIMEOUT_MS);
    if (code)
        return again(lane, "metadata of " PROGRESS_TOPIC, rd_kafka_err2str(code));
    bool known = metadata->topic_cnt == 1 && !metadata->topics[0].err &&
                 metadata->topics[0].partition_cnt >= PROGRESS_PARTITIONS;
    rd_kafka_metadata_destroy(metadata);
    return known ? STEP_GO : again(lane, "metadata of " PROGRESS_TOPIC, "not spread yet");
}

// Until the position has reached the high watermark as a read_uncommitted client sees it. It may take as long as
// another drainer's open transaction lives.
static enum step read_to_watermark(struct lane *lane)
{
    struct session *session = &lane->session;
    struct sl_error err;
    int64_t watermark, deadline_ns = sl_monotonic_ns() + READ_DEADLINE_MS * SL_NS_PER_MS;
    // Inside a session the tail goes on from where it stands; a new one begins at the beginning.
    if (!session->reader && !tail_start(&lane->tail, session->stream, lane->name, &err))
        return again(lane, "read progress", err.text);
    if (!tail_watermark(&lane->tail, &watermark, WATERMARK_TIMEOUT_MS, &err))
        return again(lane, "read progress", err.text);
    if (lane->tail.position > watermark && !tail_start(&lane->tail, session->stream, lane->name, &err)) // truncated
        return again(lane, "read progress", err.text);
    while (lane->tail.position < watermark) {
        (void)tail_poll(&lane->tail, 50);
        if (session->rk)
            transaction_serve(lane, 0);
        if (lane_must_quit(lane))
            return STEP_QUIT;
        if (sl_monotonic_ns() > deadline_ns) {
            snprintf(err.text, sizeof(err.text),
                     "stands at %" PRId64 " of %" PRId64 ": an open transaction holds it back?", lane->tail.position,
                     watermark);
            return again(lane, "read progress", err.text);
        }
    }
    atomic_store(&lane->produce->reached_ns, sl_monotonic_ns());
    return STEP_GO;
}

enum step session_lost(struct lane *lane)
{
    snprintf(lane->trouble, sizeof(lane->trouble), "taken over by %s (claim %" PRIu64 ")", lane->tail.last.drainer,
             lane->tail.last.claim);
    return lane->driven ? STEP_FENCED : STEP_STOPPED;
}

static bool rival_has_claimed(const struct lane *lane)
{
    struct progress own = {.claim = lane->claimed};
    snprintf(own.drainer, sizeof(own.drainer), "%s", lane->session.drainer);
    bool claimed = lane->claimed && strcmp(lane->claimed_stream, lane->session.stream) == 0;
    return claimed && lane->tail.found && claim_is_rival(&own, &lane->tail.last);
}

enum step session_look_for_rival(struct lane *lane)
{
    enum step step = read_to_watermark(lane);
    if (step != STEP_GO)
        return step;
    return rival_has_claimed(lane) ? session_lost(lane) : STEP_GO;
}

enum step session_read_progress(struct lane *lane)
{
    struct session *session = &lane->session;
    struct sl_error err;
    enum step step = read_to_watermark(lane);
    if (step != STEP_GO)
        return step;
    if (lane->tail.unreadable) {
        snprintf(lane->trouble, sizeof(lane->trouble),
                 "a progress record of %.100s cannot be read: written by a newer version?", lane->tail.key);
        return STEP_STOPPED;
    }
    if (rival_has_claimed(lane))
        return session_lost(lane);
    struct progress read = {0};
    if (lane->tail.found)
        read = lane->tail.last;
    struct guard found = session->guard;
    found.through = read.through;
    struct guard known;
    if (!guard_load(lane->produce->options.spool, session->stream, lane->name, &known, &err))
        return again(lane, "guard", err.text);
    known.through = known.through > session->verified ? known.through : session->verified;
    if (!guard_judge(&known, &found, &err)) {
        bool adopt = lane->produce->options.adopt || lane->produce->embedded;
        snprintf(lane->trouble, sizeof(lane->trouble), "%.290s", err.text);
        if (!adopt)
            return STEP_STOPPED;
        sl_logf(SL_WARN, "produce", "progress adopted", SL_STR("stream", session->stream), SL_STR("lane", lane->name),
                SL_STR("cause", err.text), SL_UINT("through", known.through));
        // What was verified once is not produced a second time by adopting; `sluice replay` does that when it is
        // wanted.
        if (read.through < known.through)
            read.through = known.through;
    }
    if ((session->guard.topic_id[0] | session->guard.topic_id[1]) == 0)
        memcpy(session->guard.topic_id, known.topic_id, sizeof(known.topic_id));
    if (read.through < session->progress.through)
        sl_logf(SL_ERROR, "produce", "Kafka lost a commit that it had acknowledged: its events are produced again",
                SL_STR("stream", session->stream), SL_STR("lane", lane->name), SL_UINT("through", read.through),
                SL_UINT("committed", session->progress.through));
    session->progress = read;
    return STEP_GO;
}

static enum step store_guard(struct lane *lane)
{
    struct session *session = &lane->session;
    struct sl_error err;
    snprintf(session->guard.lane, sizeof(session->guard.lane), "%s", lane->name);
    session->guard.through = session->verified;
    if (!guard_store(lane->produce->options.spool, session->stream, &session->guard, &err))
        return again(lane, "guard", err.text);
    return STEP_GO;
}

static void set_reader(struct lane *lane, struct spool_reader *reader)
{
    lane->session.reader = reader;
    pthread_mutex_lock(&lane->mutex);
    lane->waking = reader;
    pthread_mutex_unlock(&lane->mutex);
}

enum step session_start_reading(struct lane *lane)
{
    struct session *session = &lane->session;
    struct sl_error err;
    uint64_t before = session->counted < session->progress.through ? session->counted : session->progress.through;
    struct spool_reader *reader;
    if (!spool_reader_open(&reader, lane->produce->options.spool, session->stream, before + 1, &err))
        return again(lane, "open the spool's reader", err.text);
    set_reader(lane, reader);
    session->staged_through = before;
    return STEP_GO;
}

static void session_init(struct lane *lane, const struct spool_stream_info *info)
{
    struct session *session = &lane->session;
    *session = (struct session){.current = info->current, .last = UINT64_MAX};
    pthread_mutex_lock(&lane->produce->mutex);
    memcpy(session->drainer, lane->produce->drainer, sizeof(session->drainer));
    pthread_mutex_unlock(&lane->produce->mutex);
    snprintf(session->stream, sizeof(session->stream), "%s", info->id);
    progress_node(session->node, info->id);
    for (uint32_t i = 0; i < info->lane_count; i++) {
        if (strcmp(info->lanes[i], lane->name) == 0) {
            session->verified = info->verified[i];
            session->counted = info->committed[i] > info->verified[i] ? info->committed[i] : info->verified[i];
        }
    }
    session->stage = calloc(STAGE_MAX, sizeof(*session->stage));
    sl_assert(session->stage);
    transaction_clear(lane);
    pthread_mutex_lock(&lane->mutex);
    snprintf(lane->status.stream, sizeof(lane->status.stream), "%s", info->id);
    pthread_mutex_unlock(&lane->mutex);
}

enum step session_open(struct lane *lane, const struct spool_stream_info *info)
{
    session_init(lane, info);
    // Driven: whoever claimed before has just been fenced, and that on purpose.
    if (lane->driven)
        lane->claimed = 0;
    enum step step = make_producer(lane);
    if (step == STEP_GO)
        step = look_around(lane);
    return step == STEP_GO ? init_producer(lane) : step;
}

enum step session_claim(struct lane *lane, uint64_t claim)
{
    enum step step = claim_commit(lane, claim);
    return step == STEP_GO ? store_guard(lane) : step;
}

enum step session_look(struct lane *lane, const struct spool_stream_info *info)
{
    session_init(lane, info);
    enum step step = look_around(lane);
    return step == STEP_GO ? read_to_watermark(lane) : step;
}

enum step session_connect(struct lane *lane, const struct spool_stream_info *info)
{
    enum step step = session_open(lane, info);
    if (step == STEP_GO)
        step = session_read_progress(lane);
    if (step == STEP_GO)
        step = session_claim(lane, lane->session.progress.claim + 1);
    if (step == STEP_GO)
        step = session_start_reading(lane);
    return step;
}

void session_leave(struct lane *lane)
{
    if (lane->transaction.open && !lane->session.fatal && lane->produce->options.transactional)
        (void)transaction_abort(lane, CALL_DEADLINE_MS);
}

// Nothing may be on its way when a transactional producer is destroyed (2.8.0 to 2.15.0): librdkafka frees the text of
// the transaction's error while its broker threads still take answers, and one that says "old epoch" frees it again.
// What is taken back here has an unknown outcome, as everything has that a producer leaves behind.
static void destroy_producer(rd_kafka_t *rk)
{
    rd_kafka_purge(rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_destroy(rk);
}

void session_close(struct lane *lane)
{
    struct session *session = &lane->session;
    struct spool_reader *reader = session->reader;
    set_reader(lane, NULL);
    if (session->stage)
        stage_drop(session);
    if (reader)
        spool_reader_close(reader);
    routes_forget_producer(lane);
    if (session->progress_topic)
        rd_kafka_topic_destroy(session->progress_topic);
    if (session->events)
        rd_kafka_queue_destroy(session->events);
    if (session->rk)
        destroy_producer(session->rk);
    // librdkafka's threads are gone: nothing points into the frames any more, whatever reports there were.
    while (session->chunks) {
        session->chunks->references = 1;
        chunk_drop(session, session->chunks);
    }
    free(session->stage);
    *session = (struct session){0};
    transaction_clear(lane);
}

bool session_is_done(struct lane *lane, const struct spool_stream_info *info)
{
    struct sl_error err;
    session_init(lane, info);
    struct session *session = &lane->session;
    session->progress.through = session->verified;
    struct spool_reader *reader;
    bool done = false;
    if (session->counted <= session->verified &&
        spool_reader_open(&reader, lane->produce->options.spool, session->stream, session->verified + 1, &err)) {
        session->staged_through = session->verified;
        set_reader(lane, reader);
        enum stage_state state = stage_fill(lane, 0, &err);
        done = state == STAGE_END && !session->stage_count && !session->progress.open_count;
    }
    if (done && session->staged_through > session->verified) {
        // Only other lanes' records lie behind what was verified.
        spool_note_committed(lane->produce->options.spool, session->stream, lane->name, session->staged_through, 0);
        spool_note_verified(lane->produce->options.spool, session->stream, lane->name, session->staged_through);
    }
    session_close(lane);
    return done;
}

void session_count(struct lane *lane, const struct spool_stream_info *info, uint64_t through)
{
    struct sl_error err;
    session_init(lane, info);
    struct session *session = &lane->session;
    session->progress.through = through;
    session->last = through;
    if (session->counted < through && session_start_reading(lane) == STEP_GO) {
        enum stage_state state;
        do
            state = stage_fill(lane, 0, &err);
        while (state == STAGE_MORE && !lane_must_quit(lane));
        if (state == STAGE_FAILED)
            sl_logf(SL_WARN, "produce", "records that others produced could not be counted yet",
                    SL_STR("stream", info->id), SL_STR("lane", lane->name), SL_STR("cause", err.text));
    }
    session_close(lane);
}
