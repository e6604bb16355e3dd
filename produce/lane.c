// A lane's thread: which stream is next, and the state machine around it.
//
// Happy path: the older streams, oldest first, each connected (connect.c), drained to its end, closed; then the current
// one is followed until the process stops. Nothing of a stream is produced before its predecessors are done in this
// lane.
//
// Failure modes, each a step that the work (work.c) handed back:
//   AGAIN    Kafka is away: a pause that grows to 5 s, then on
//   REBUILD  an unknown outcome: new producer, progress read first
//   FENCED   the same after a second or more, and only when no rival has claimed meanwhile
//   HELD     sluice.progress is in trouble: connect again in two seconds
//   DENIED   a permission is missing: new producer every 5 s
//   STOPPED  until a person decides
//   QUIT     produce_stop: drained, or out of time
#include "produce/internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const int64_t held_pause_ns = SL_NS_PER_S;
static const int64_t denied_pause_ns = 5 * SL_NS_PER_S;
static const int64_t pause_most_ns = 5 * SL_NS_PER_S;
static const int64_t pause_least_ns = 50 * SL_NS_PER_MS;
static const int64_t fenced_pause_ns = SL_NS_PER_S;

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
    int64_t pause_ns = lane_backoff_ns(lane->fences++, fenced_pause_ns, 30 * SL_NS_PER_S);
    if (!lane_pause(lane, pause_ns + pause_ns * jitter / (2 * (int64_t)UINT16_MAX)))
        return STEP_QUIT;
    return session_look_for_rival(lane);
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
        return lane_pause(lane, lane_backoff_ns(lane->failures++, pause_least_ns, pause_most_ns));
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
        lane_set_state(lane, lane_working_state(lane), "");
        step = lane_work(lane);
    }
    if (step == STEP_QUIT)
        session_leave(lane);
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
    lane_free_routes(lane);
    tail_free(&lane->tail);
    return NULL;
}
