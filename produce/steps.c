// One order, carried out on the drain's thread, and its answer. The work itself is the same as that of a lane that
// drains by itself: connect.c, work.c.
//
// Failure modes: whatever needs a new producer, or a person, ends the order as FAILED with a sentence; a fencing, or a
// rival's claim that was read, as FENCED. The session is closed at once, so that nothing stays open in Kafka while the
// caller thinks; its release then finds nothing to do.
#include "produce/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *produce_step_word(enum produce_step step)
{
    static const char *const words[] = {"init", "read", "claim", "records", "close", "look"};
    return words[step];
}

static enum step failed(struct lane *lane, const char *text)
{
    snprintf(lane->trouble, sizeof(lane->trouble), "%s", text);
    return STEP_REBUILD;
}

static bool find_stream(struct spool *spool, const char *stream, struct spool_stream_info *out)
{
    size_t count = spool_streams(spool, NULL, 0) + 2; // one may be opened meanwhile
    struct spool_stream_info *infos = calloc(count, sizeof(*infos));
    sl_assert(infos);
    size_t filled = spool_streams(spool, infos, count);
    bool found = false;
    for (size_t i = 0; i < filled && i < count && !found; i++) {
        found = strcmp(infos[i].id, stream) == 0;
        if (found)
            *out = infos[i];
    }
    free(infos);
    return found;
}

// ---- the steps

static enum step carry_init(struct drain *drain)
{
    struct lane *lane = &drain->lane;
    session_close(lane);
    // What an operator sees while Kafka is away: the state since it went, and why.
    if (lane->status.state != PRODUCE_HELD && lane->status.state != PRODUCE_STOPPED)
        lane_set_state(lane, PRODUCE_CONNECTING, lane->status.trouble);
    struct spool_stream_info info;
    if (!find_stream(lane->produce->options.spool, drain->stream, &info))
        return failed(lane, "the spool holds nothing of the stream");
    enum step step = session_open(lane, &info);
    if (step == STEP_GO)
        drain_failpoint(lane, "takeover.init");
    return step;
}

static void describe(bool found, const struct progress *read, struct produce_progress *out)
{
    *out = (struct produce_progress){.found = found};
    if (!found)
        return;
    out->closed = read->closed;
    out->through = read->through;
    out->claim = read->claim;
    snprintf(out->drainer, sizeof(out->drainer), "%s", read->drainer);
}

static enum step carry_read(struct lane *lane, struct produce_done *done)
{
    enum step step = session_read_progress(lane);
    if (step != STEP_GO)
        return step;
    const struct progress *read = &lane->session.progress; // adopted, perhaps
    describe(lane->tail.found || read->through > 0, read, &done->progress);
    drain_failpoint(lane, "takeover.read");
    return STEP_GO;
}

static enum step carry_claim(struct lane *lane, const struct produce_order *order)
{
    if (order->through != lane->session.progress.through)
        return failed(lane, "a claim that moves progress");
    enum step step = session_claim(lane, order->claim);
    if (step == STEP_GO)
        drain_failpoint(lane, "takeover.claim");
    return step;
}

static enum step carry_records(struct lane *lane, const struct produce_order *order)
{
    struct session *session = &lane->session;
    if (lane->claimed == 0)
        return failed(lane, "records without a claim");
    if (order->first > session->progress.through + 1)
        return failed(lane, "records are left out");
    session->last = order->last == 0 ? UINT64_MAX : order->last;
    session->ended = false;
    session->starved_ns = 0;
    enum step step = session->reader ? STEP_GO : session_start_reading(lane);
    if (step != STEP_GO)
        return step;
    lane_set_state(lane, lane_working_state(lane), "");
    return lane_work(lane);
}

static enum step carry_close(struct lane *lane, const struct produce_order *order)
{
    struct session *session = &lane->session;
    if (order->claim != session->progress.claim || order->through != session->progress.through)
        return failed(lane, "closed is not where the drain stands");
    enum step step = transaction_finish(lane, order->through, order->claim, true);
    if (step == STEP_GO)
        drain_failpoint(lane, "takeover.close");
    return step;
}

static enum step carry_look(struct drain *drain, struct produce_done *done)
{
    struct lane *lane = &drain->lane;
    session_close(lane);
    struct spool_stream_info info = {0};
    snprintf(info.id, sizeof(info.id), "%s", drain->stream);
    enum step step = session_look(lane, &info);
    if (step == STEP_GO && lane->tail.unreadable)
        step = failed(lane, "a progress record cannot be read: written by a newer version?");
    if (step == STEP_GO)
        describe(lane->tail.found, &lane->tail.last, &done->progress);
    session_close(lane);
    return step;
}

static enum step carry_out(struct drain *drain, const struct produce_order *order, struct produce_done *done)
{
    struct lane *lane = &drain->lane;
    lane->trouble[0] = '\0';
    bool begins = order->step == PRODUCE_STEP_INIT || order->step == PRODUCE_STEP_LOOK;
    if (!begins && !lane->session.rk)
        return failed(lane, "no producer: init comes first");
    switch (order->step) {
    case PRODUCE_STEP_INIT:
        return carry_init(drain);
    case PRODUCE_STEP_READ:
        return carry_read(lane, done);
    case PRODUCE_STEP_CLAIM:
        return carry_claim(lane, order);
    case PRODUCE_STEP_RECORDS:
        return carry_records(lane, order);
    case PRODUCE_STEP_CLOSE:
        return carry_close(lane, order);
    case PRODUCE_STEP_LOOK:
        return carry_look(drain, done);
    }
    sl_panic(__FILE__, __LINE__, "a step without a meaning");
}

// ---- the answer

static void show_failure(struct lane *lane, enum step step)
{
    bool waits = step == STEP_HELD || step == STEP_DENIED;
    lane_set_state(lane,
                   step == STEP_STOPPED ? PRODUCE_STOPPED
                   : waits              ? PRODUCE_HELD
                                        : PRODUCE_CONNECTING,
                   lane->trouble);
    if (step != STEP_STOPPED && lane->failures++ >= 2)
        lane_complain(lane);
}

static void report(struct drain *drain, const struct produce_done *done)
{
    struct lane *lane = &drain->lane;
    const struct produce_options *options = &lane->produce->options;
    pthread_mutex_lock(&lane->mutex);
    if (!atomic_load(&lane->leaving) && options->on_done)
        options->on_done(options->user, done);
    pthread_mutex_unlock(&lane->mutex);
}

static void count(struct drain *drain, uint64_t through)
{
    struct lane *lane = &drain->lane;
    struct spool_stream_info info;
    // With a producer it counts for itself.
    if (!lane->session.rk && find_stream(lane->produce->options.spool, drain->stream, &info))
        session_count(lane, &info, through);
}

void drain_carry_out(struct drain *drain, const struct drain_order *order)
{
    struct lane *lane = &drain->lane;
    if (order->kind == DRAIN_COUNT) {
        count(drain, order->step.through);
        return;
    }
    struct produce_done done = {.step = order->step.step,
                                .stream = drain->stream,
                                .lane = lane->name,
                                .ticket = order->step.ticket,
                                .trouble = ""};
    enum step step = carry_out(drain, &order->step, &done);
    if (step == STEP_QUIT) // released, or the end of the process
        return;
    bool good = step == STEP_GO || (step == STEP_END && order->step.step == PRODUCE_STEP_RECORDS);
    bool producing = lane->session.rk != NULL;
    done.result = good ? PRODUCE_OK : step == STEP_FENCED ? PRODUCE_FENCED : PRODUCE_FAILED;
    done.through = good && producing ? lane->session.progress.through : 0;
    if (!good) {
        done.trouble = lane->trouble;
        show_failure(lane, step);
        session_close(lane);
    }
    report(drain, &done);
}
