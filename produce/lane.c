// A lane's thread: which stream is next, and the state machine around it.
//
// Happy path: the older streams, oldest first, each connected (connect.c), drained to its end, closed; then the current
// one is followed until the process stops. Nothing of a stream is produced before its predecessors are done in this
// lane.
//
// Failure modes, each a step that the work handed back:
//   AGAIN    aborted, or Kafka is away: a pause that grows to 5 s, then on
//   REBUILD  an unknown outcome: new producer, progress read first
//   FENCED   the same after a second or more, and only when no rival has claimed meanwhile
//   HELD     a topic is in trouble: looked at again every second, nothing open meanwhile; other lanes do not notice
//   DENIED   a permission is missing: new producer every 5 s
//   STOPPED  until a person decides
//   QUIT     produce_stop: drained, or out of time
#include "produce/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const int64_t held_pause_ns = SL_NS_PER_S;
static const int64_t denied_pause_ns = 5 * SL_NS_PER_S;
static const int64_t pause_most_ns = 5 * SL_NS_PER_S;
static const int64_t pause_least_ns = 50 * SL_NS_PER_MS;
static const int64_t fenced_pause_ns = SL_NS_PER_S;
static const int64_t complain_every_ns = 60 * SL_NS_PER_S;

bool lane_must_quit(const struct lane *lane)
{
    const struct produce *produce = lane->produce;
    return atomic_load(&produce->stopping) && sl_monotonic_ns() >= atomic_load(&produce->stop_deadline_ns);
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
        if (now >= wake_ns || stopping != atomic_load(&lane->produce->stopping))
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

static int64_t backoff_ns(uint32_t failures, int64_t least_ns, int64_t most_ns)
{
    int64_t pause_ns = least_ns << (failures < 10 ? failures : 10);
    return pause_ns < most_ns ? pause_ns : most_ns;
}

// The oldest stream that this lane has not drained. False: none (a lane that only older streams knew).
static bool next_stream(struct lane *lane, struct spool_stream_info *next)
{
    struct spool *spool = lane->produce->options.spool;
    size_t count = spool_streams(spool, NULL, 0);
    struct spool_stream_info *infos = calloc(count + 1, sizeof(*infos));
    sl_assert(infos);
    size_t filled = spool_streams(spool, infos, count + 1);
    filled = filled < count + 1 ? filled : count + 1;
    bool found = false;
    for (size_t i = 0; i < filled && !found; i++) {
        bool names = false;
        for (uint32_t k = 0; k < infos[i].lane_count; k++)
            names |= strcmp(infos[i].lanes[k], lane->name) == 0;
        found = names && infos[i].counter > lane->done_counter;
        if (found)
            *next = infos[i];
    }
    free(infos);
    return found;
}

// After a fencing: waits, each time longer, and looks whether a rival is at work before it is fenced in its turn.
static enum step look_after_fencing(struct lane *lane)
{
    uint16_t jitter = 0;
    (void)!getrandom(&jitter, sizeof(jitter), 0);
    int64_t pause_ns = backoff_ns(lane->fences++, fenced_pause_ns, 30 * SL_NS_PER_S);
    if (!lane_pause(lane, pause_ns + pause_ns * jitter / (2 * (int64_t)UINT16_MAX)))
        return STEP_QUIT;
    return session_look_for_rival(lane);
}

static enum produce_lane_state working_state(const struct lane *lane)
{
    return lane->session.current ? PRODUCE_FOLLOWING : PRODUCE_DRAINING;
}

// Held up by a topic, with the session kept: nothing is open. STEP_GO when it is well again.
static enum step wait_for_topic(struct lane *lane)
{
    for (;;) {
        lane_set_state(lane, PRODUCE_HELD, lane->trouble);
        if (!lane_pause(lane, held_pause_ns))
            return STEP_QUIT;
        transaction_serve(lane, 0);
        enum step step = lane->held ? route_make_ready(lane, lane->held) : STEP_GO;
        if (step == STEP_GO || (lane->held && lane->held->refusing))
            return STEP_GO;
        // Its progress is still to be seen by the rest of the world while it stands.
        if (verify_progress(lane, 0) == STEP_STOPPED)
            return STEP_STOPPED;
    }
}

// Works on the connected session until it has to be closed; says why.
static enum step drain(struct lane *lane)
{
    for (;;) {
        enum step step = transaction_run(lane);
        if (step == STEP_HELD)
            step = wait_for_topic(lane);
        if (step == STEP_AGAIN) {
            if (lane->failures >= 2)
                lane_complain(lane);
            step = lane_pause(lane, backoff_ns(lane->failures++, pause_least_ns, pause_most_ns)) ? STEP_GO : STEP_QUIT;
        }
        if (step != STEP_GO && step != STEP_ABORTED)
            return step;
        lane_set_state(lane, working_state(lane), "");
    }
}

// What a closed session's step asks for before the next one. False: the thread ends.
static bool between_sessions(struct lane *lane, enum step step, uint64_t counter)
{
    switch (step) {
    case STEP_END:
        lane->done_counter = counter;
        // Seqs of the next stream mean other records.
        lane->bisect = (struct bisect){0};
        lane->condemned_count = 0;
        return true;
    case STEP_GO:
    case STEP_ABORTED:
    case STEP_REBUILD:
    case STEP_AGAIN:
        if (lane->failures >= 2) // one or two are a coordinator that moves, a topic that was made just now
            lane_complain(lane);
        return lane_pause(lane, backoff_ns(lane->failures++, pause_least_ns, pause_most_ns));
    case STEP_FENCED:
        return true; // look_after_fencing has waited
    case STEP_HELD:
        lane_set_state(lane, PRODUCE_HELD, lane->trouble);
        return lane_pause(lane, 2 * held_pause_ns);
    case STEP_DENIED:
        lane_set_state(lane, PRODUCE_HELD, lane->trouble);
        return lane_pause(lane, denied_pause_ns);
    case STEP_STOPPED:
        lane_set_state(lane, PRODUCE_STOPPED, lane->trouble);
        while (!atomic_load(&lane->produce->stopping))
            (void)lane_pause(lane, 3600 * SL_NS_PER_S);
        return false;
    case STEP_QUIT:
        return false;
    }
    sl_panic(__FILE__, __LINE__, "a step without a meaning");
}

static bool run_session(struct lane *lane, const struct spool_stream_info *info)
{
    // What an operator sees while Kafka is away: the state since it went, and why.
    if (lane->status.state != PRODUCE_HELD && lane->status.state != PRODUCE_STOPPED)
        lane_set_state(lane, PRODUCE_CONNECTING, lane->failures ? lane->trouble : "");
    enum step step = session_connect(lane, info);
    if (step == STEP_GO) {
        lane_set_state(lane, working_state(lane), "");
        step = drain(lane);
    }
    if (step == STEP_QUIT && lane->transaction.open && !lane->session.fatal && lane->produce->options.transactional)
        (void)transaction_abort(lane, 500);
    if (step == STEP_FENCED) {
        step = look_after_fencing(lane);
        step = step == STEP_GO ? STEP_FENCED : step;
    }
    session_close(lane);
    return between_sessions(lane, step, info->counter);
}

void *lane_main(void *argument)
{
    struct lane *lane = argument;
    for (;;) {
        if (lane_must_quit(lane))
            break;
        struct spool_stream_info info;
        if (!next_stream(lane, &info)) {
            if (atomic_load(&lane->produce->stopping) || !lane_pause(lane, SL_NS_PER_S))
                break;
            continue;
        }
        if (!info.current && session_is_done(lane, &info)) {
            lane->done_counter = info.counter;
            continue;
        }
        if (!run_session(lane, &info))
            break;
    }
    for (size_t i = 0; i < ROUTE_BUCKETS; i++) {
        while (lane->routes[i]) {
            struct route *route = lane->routes[i];
            lane->routes[i] = route->next;
            free(route);
        }
    }
    tail_free(&lane->tail);
    return NULL;
}
