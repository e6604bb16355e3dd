// Verified is what a read_committed reader has seen of the lane's progress. The spool deletes by that alone, never by a
// commit's return value. The consumer stays open between looks, so a look costs no request of its own.
#include "produce/internal.h"

enum step verify_progress(struct lane *lane, int timeout_ms)
{
    struct session *session = &lane->session;
    session->verified_ns = sl_monotonic_ns();
    (void)tail_poll(&lane->tail, timeout_ms);
    if (!lane->tail.found)
        return STEP_GO;
    const struct progress *read = &lane->tail.last;
    if (claim_is_rival(&session->progress, read))
        return session_lost(lane);
    // The embedded broker shows records of aborted transactions, too: no more than was committed here is believed.
    uint64_t through = read->through < session->progress.through ? read->through : session->progress.through;
    // Nor is it said before what lies below has been counted (stage.c).
    through = through < session->counted ? through : session->counted;
    if (through <= session->verified)
        return STEP_GO;
    session->verified = through;
    spool_note_verified(lane->produce->options.spool, session->stream, lane->name, through);
    pthread_mutex_lock(&lane->mutex);
    lane->status.verified_seq = through;
    pthread_mutex_unlock(&lane->mutex);
    return STEP_GO;
}
