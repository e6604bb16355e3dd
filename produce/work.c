// Work on a connected session, the same for a lane that drains by itself and for a drain that is driven: transactions,
// one after the other.
//
// Happy path: transaction_run() until the stream, or the range that was ordered, is at its end.
//
// Failure modes: an aborted transaction comes again after a pause that grows to 5 s. A topic in trouble is looked at
// each second, with nothing open; a driven drain meanwhile commits its progress anew, so that nobody takes it for dead.
// Every other step closes the session and is handed up.
#include "produce/internal.h"

#include <stdio.h>
#include <string.h>

static const int64_t held_pause_ns = SL_NS_PER_S;
static const int64_t pause_most_ns = 5 * SL_NS_PER_S;
static const int64_t pause_least_ns = 50 * SL_NS_PER_MS;
static const int64_t complain_every_ns = 60 * SL_NS_PER_S;
// Nobody takes over from a node without peers, so a progress record that would say nothing new only proves that Kafka
// is there.
static const int64_t idle_rewrite_ns = 30 * SL_NS_PER_S;

bool lane_must_quit(const struct lane *lane)
{
    const struct produce *produce = lane->produce;
    return atomic_load(&lane->leaving) ||
           (atomic_load(&produce->stopping) && sl_monotonic_ns() >= atomic_load(&produce->stop_deadline_ns));
}

int lane_call_timeout_ms(const struct lane *lane)
{
    const struct produce *produce = lane->produce;
    if (!atomic_load(&produce->stopping))
        return CALL_DEADLINE_MS;
    int64_t left_ms = (atomic_load(&produce->stop_deadline_ns) - sl_monotonic_ns()) / SL_NS_PER_MS;
    return left_ms < 1 ? 1 : left_ms < CALL_DEADLINE_MS ? (int)left_ms : (int)CALL_DEADLINE_MS;
}

static const char *state_level_word(enum produce_lane_state state)
{
    return state == PRODUCE_STOPPED ? "a lane is stopped"
           : state == PRODUCE_HELD  ? "a lane is held up"
                                    : "a lane's state changed";
}

void lane_set_state(struct lane *lane, enum produce_lane_state state, const char *trouble)
{
    pthread_mutex_lock(&lane->mutex);
    bool changed = lane->status.state != state || lane->status.since_wall_ns == 0;
    bool news = changed || strcmp(lane->status.trouble, trouble) != 0;
    if (changed) {
        lane->status.state = state;
        lane->status.since_wall_ns = sl_wall_ns();
    }
    snprintf(lane->status.trouble, sizeof(lane->status.trouble), "%s", trouble);
    char stream[SPOOL_STREAM_ID_MAX];
    snprintf(stream, sizeof(stream), "%s", lane->status.stream);
    pthread_mutex_unlock(&lane->mutex);
    bool alarm = state == PRODUCE_STOPPED || state == PRODUCE_HELD;
    if (changed || (alarm && news))
        sl_logf(state == PRODUCE_STOPPED ? SL_ERROR
                : alarm                  ? SL_WARN
                                         : SL_INFO,
                "produce", state_level_word(state), SL_STR("lane", lane->name), SL_STR("stream", stream),
                SL_STR("state", produce_lane_state_word(state)), SL_STR("trouble", trouble));
}

bool lane_pause(struct lane *lane, int64_t ns)
{
    int64_t until_ns = sl_monotonic_ns() + ns;
    pthread_mutex_lock(&lane->mutex);
    bool stopping = atomic_load(&lane->produce->stopping);
    for (;;) {
        int64_t wake_ns = until_ns, now = sl_monotonic_ns();
        if (atomic_load(&lane->produce->stopping) && atomic_load(&lane->produce->stop_deadline_ns) < wake_ns)
            wake_ns = atomic_load(&lane->produce->stop_deadline_ns);
        // A stop that begins now is worth another look at once.
        if (now >= wake_ns || stopping != atomic_load(&lane->produce->stopping) || atomic_load(&lane->leaving))
            break;
        struct timespec when = {.tv_sec = wake_ns / SL_NS_PER_S, .tv_nsec = wake_ns % SL_NS_PER_S};
        pthread_cond_timedwait(&lane->wake, &lane->mutex, &when);
    }
    pthread_mutex_unlock(&lane->mutex);
    return !lane_must_quit(lane);
}

void lane_complain(struct lane *lane)
{
    int64_t now = sl_monotonic_ns();
    if (lane->complained_ns && now - lane->complained_ns < complain_every_ns)
        return;
    lane->complained_ns = now;
    sl_logf(SL_WARN, "produce", "Kafka takes nothing just now; events stay spooled", SL_STR("lane", lane->name),
            SL_STR("cause", lane->trouble));
}

int64_t lane_backoff_ns(uint32_t failures, int64_t least_ns, int64_t most_ns)
{
    int64_t pause_ns = least_ns << (failures < 10 ? failures : 10);
    return pause_ns < most_ns ? pause_ns : most_ns;
}

int64_t lane_life_ns(const struct lane *lane)
{
    return lane->driven ? lane->produce->options.takeover_after_ns / 3 : idle_rewrite_ns;
}

enum produce_lane_state lane_working_state(const struct lane *lane)
{
    return lane->session.current ? PRODUCE_FOLLOWING : PRODUCE_DRAINING;
}

// While records wait with nothing open. At half the time, so that with a pause it is the whole.
static enum step sign_of_life(struct lane *lane)
{
    struct session *session = &lane->session;
    if (!lane->driven || sl_monotonic_ns() - session->progress_ns < lane_life_ns(lane) / 2)
        return STEP_GO;
    return transaction_finish(lane, stage_through(session), session->progress.claim, false);
}

static int64_t waiting_pause_ns(const struct lane *lane, int64_t pause_ns)
{
    int64_t most_ns = lane_life_ns(lane) / 2;
    return lane->driven && pause_ns > most_ns ? most_ns : pause_ns;
}

// Held up by a topic, with the session kept: nothing is open. STEP_GO when it is well again.
static enum step wait_for_topic(struct lane *lane)
{
    char trouble[sizeof(lane->trouble)];
    for (;;) {
        lane_set_state(lane, PRODUCE_HELD, lane->trouble);
        memcpy(trouble, lane->trouble, sizeof(trouble));
        if (!lane_pause(lane, waiting_pause_ns(lane, held_pause_ns)))
            return STEP_QUIT;
        transaction_serve(lane, 0);
        enum step step = lane->held ? route_make_ready(lane, lane->held) : STEP_GO;
        if (step == STEP_GO || (lane->held && lane->held->refusing))
            return STEP_GO;
        // Its progress is still to be seen by the rest of the world while it stands.
        step = verify_progress(lane, 0);
        if (step == STEP_GO) {
            struct route *held = lane->held;
            step = sign_of_life(lane);
            lane->held = held;
        }
        if (step != STEP_GO && step != STEP_ABORTED && step != STEP_AGAIN)
            return step;
        if (step != STEP_GO)
            memcpy(lane->trouble, trouble, sizeof(trouble));
    }
}

static enum step pause_and_go_on(struct lane *lane)
{
    if (lane->failures >= 2)
        lane_complain(lane);
    int64_t pause_ns = lane_backoff_ns(lane->failures++, pause_least_ns, pause_most_ns);
    if (!lane_pause(lane, waiting_pause_ns(lane, pause_ns)))
        return STEP_QUIT;
    uint32_t failures = lane->failures; // a sign of life is no success
    enum step step = sign_of_life(lane);
    lane->failures = failures;
    return step == STEP_AGAIN ? STEP_GO : step;
}

enum step lane_work(struct lane *lane)
{
    for (;;) {
        enum step step = transaction_run(lane);
        if (step == STEP_HELD)
            step = wait_for_topic(lane);
        if (step == STEP_AGAIN)
            step = pause_and_go_on(lane);
        if (step != STEP_GO && step != STEP_ABORTED)
            return step;
        lane_set_state(lane, lane_working_state(lane), "");
    }
}
