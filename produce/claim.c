// A new drainer commits a claim (its name, claim number + 1) before it produces anything. "Fenced" has two causes, a
// rival or the coordinator's timeout; the last claim tells them apart.
#include "produce/internal.h"

#include <stdio.h>
#include <string.h>

bool claim_is_rival(const struct progress *own, const struct progress *read)
{
    return strcmp(read->drainer, own->drainer) != 0 && read->claim >= own->claim;
}

enum step claim_commit(struct lane *lane, uint64_t claim)
{
    struct session *session = &lane->session;
    struct produce *produce = lane->produce;
    pthread_mutex_lock(&produce->mutex);
    memcpy(session->drainer, produce->drainer, sizeof(session->drainer));
    pthread_mutex_unlock(&produce->mutex);
    // Noted before the outcome is known: should the answer be lost, the record that is read then is recognised by its
    // drainer.
    snprintf(lane->claimed_stream, sizeof(lane->claimed_stream), "%s", session->stream);
    lane->claimed = claim;
    enum step step = transaction_finish(lane, session->progress.through, claim, false);
    if (step == STEP_GO)
        sl_logf(SL_INFO, "produce", "stream claimed", SL_STR("stream", session->stream), SL_STR("lane", lane->name),
                SL_UINT("claim", claim), SL_UINT("through", session->progress.through));
    return step;
}
