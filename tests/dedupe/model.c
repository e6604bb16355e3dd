#include "tests/dedupe/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAYLOAD_BIT = 8, VERSION = 16, STATE_BITS = 7 };

static const char *const verdicts[] = {"new", "duplicate", "conflict", "unsure"};
static const char *const states[] = {"none", "pending", "durable", "settling", "forgetting"};

static enum model_state state_in(uint64_t word)
{
    return (enum model_state)(word & STATE_BITS);
}

_Noreturn static void violated(const struct worker *worker, const struct model *model, const char *what, uint64_t word,
                               enum dedupe_verdict verdict, int64_t now)
{
    fprintf(stderr,
            "wrong: %s\n  id %016" PRIx64 " %016" PRIx64 ", told %s, was %s since version %" PRIu64
            "\n  received %" PRId64 ", seq %" PRIu64 ", now %" PRId64 ", covered since %" PRId64 "\n",
            what, model->id.words[0], model->id.words[1], verdicts[verdict], states[state_in(word)], word / VERSION,
            atomic_load(&model->when), atomic_load(&model->seq), now, coverage_since(worker->dedupe, now));
    exit(1);
}

uint64_t model_payload(const struct model *model, unsigned which)
{
    uint64_t mixed = (model->id.words[0] ^ model->id.words[1] * 3) * UINT64_C(0x9e3779b97f4a7c15);
    // They differ in the lowest bit that is kept.
    return which == 0 ? mixed : mixed ^ UINT64_C(1) << 25;
}

static bool change(struct model *model, uint64_t from, enum model_state to, unsigned which)
{
    uint64_t version = from / VERSION + 1;
    return atomic_compare_exchange_strong(&model->word, &from,
                                          version * VERSION | (which != 0 ? PAYLOAD_BIT : 0) | (uint64_t)to);
}

// What the model says of an id, whole when the word is the same afterwards.
struct known {
    uint64_t word, seq;
    uint32_t origin;
};

static struct known know(const struct model *model)
{
    // One after the other: the order within an initializer is the compiler's.
    struct known known;
    known.seq = atomic_load(&model->seq);
    known.origin = atomic_load(&model->origin);
    known.word = atomic_load(&model->word);
    return known;
}

static void check_found(const struct worker *worker, const struct model *model, const struct known *known,
                        unsigned which, enum dedupe_verdict verdict, const struct dedupe_found *found, int64_t now)
{
    uint64_t word = known->word;
    bool same = ((word & PAYLOAD_BIT) != 0) == (which != 0);
    if (verdict != (same ? DEDUPE_DUPLICATE : DEDUPE_CONFLICT))
        violated(worker, model, "the payload", word, verdict, now);
    if (state_in(word) == MODEL_PENDING && found->state != DEDUPE_PENDING)
        violated(worker, model, "durable before it was settled", word, verdict, now);
    if (state_in(word) != MODEL_DURABLE)
        return;
    if (found->state != DEDUPE_DURABLE)
        violated(worker, model, "not durable although it was settled", word, verdict, now);
    if (found->seq != known->seq || found->origin != known->origin)
        violated(worker, model, "another seq", word, verdict, now);
}

// A verdict other than new, of an id that was `word` before the call and still is.
static void check_stable(const struct worker *worker, const struct model *model, const struct known *known,
                         unsigned which, enum dedupe_verdict verdict, const struct dedupe_found *found, int64_t now)
{
    uint64_t word = known->word;
    if (state_in(word) == MODEL_NONE)
        violated(worker, model, "a new id was taken for one that was seen", word, verdict, now);
    if (state_in(word) == MODEL_PENDING || state_in(word) == MODEL_DURABLE)
        check_found(worker, model, known, which, verdict, found, now);
}

static bool is_covered(const struct worker *worker, const struct model *model, int64_t since, int64_t now)
{
    // Of several threads, another one may let it go while this call is on: then the coverage tells so afterwards.
    if (!worker->alone)
        since = coverage_since(worker->dedupe, now);
    return atomic_load(&model->when) > since;
}

// The window says new: judged, and the model is marked.
static void take(struct worker *worker, struct model *model, unsigned which, uint64_t before, int64_t since,
                 int64_t now, bool held)
{
    for (;;) {
        uint64_t word = atomic_load(&model->word);
        enum model_state state = state_in(word);
        // One that found no room keeps nobody from claiming the id after it.
        if (!held && word != before)
            return;
        if (state == MODEL_PENDING)
            violated(worker, model, "two claims of one id at once", word, DEDUPE_NEW, now);
        if (state == MODEL_DURABLE || state == MODEL_SETTLING) {
            bool covered = is_covered(worker, model, since, now);
            if (atomic_load(&model->word) != word)
                continue;
            if (covered)
                violated(worker, model, "missed inside of what is covered", word, DEDUPE_NEW, now);
            worker->counts.missed++;
        }
        if (change(model, word, held ? MODEL_PENDING : MODEL_NONE, which))
            return;
    }
}

bool model_claim(struct worker *worker, struct model *model, unsigned which, int64_t now, struct dedupe_claim *claim)
{
    struct dedupe_found found = {.state = DEDUPE_GONE};
    int64_t since = worker->alone ? coverage_since(worker->dedupe, now) : 0;
    atomic_fetch_add(&model->attempts, 1);
    uint64_t before = atomic_load(&model->word);
    enum dedupe_verdict verdict =
        dedupe_claim(worker->dedupe, &model->id, model_payload(model, which), now, claim, &found);
    worker->counts.claims++;
    if (verdict == DEDUPE_NEW) {
        bool held = claim->word != 0;
        take(worker, model, which, before, since, now, held);
        // The model's own time comes after: who finds it pending does not look at it.
        atomic_store(&model->when, now);
        worker->counts.fresh++;
        worker->counts.unremembered += !held;
        atomic_fetch_sub(&model->attempts, 1);
        return held;
    }
    bool only = atomic_load(&model->attempts) == 1;
    struct known known = know(model);
    if (verdict == DEDUPE_UNSURE) {
        if (worker->alone)
            violated(worker, model, "unsure of what nobody else claims", before, verdict, now);
        worker->counts.unsure++;
    } else {
        if (only && known.word == before)
            check_stable(worker, model, &known, which, verdict, &found, now);
        worker->counts.duplicates += verdict == DEDUPE_DUPLICATE;
        worker->counts.conflicts += verdict == DEDUPE_CONFLICT;
    }
    atomic_fetch_sub(&model->attempts, 1);
    return false;
}

void model_settle(struct worker *worker, struct model *model, const struct dedupe_claim *claim, uint64_t seq)
{
    uint64_t word = atomic_load(&model->word);
    unsigned which = (word & PAYLOAD_BIT) != 0;
    if (!change(model, word, MODEL_SETTLING, which))
        violated(worker, model, "two claims of one id at once", word, DEDUPE_NEW, 0);
    word = atomic_load(&model->word);
    // Read by others only when the word says durable.
    atomic_store(&model->seq, seq);
    atomic_store(&model->origin, DEDUPE_ORIGIN_OWN);
    dedupe_settle(worker->dedupe, claim, seq);
    // Not when it was let go at once and claimed anew.
    (void)change(model, word, MODEL_DURABLE, which);
    worker->counts.settled++;
}

void model_forget(struct worker *worker, struct model *model, const struct dedupe_claim *claim)
{
    uint64_t word = atomic_load(&model->word);
    if (!change(model, word, MODEL_FORGETTING, 0))
        violated(worker, model, "two claims of one id at once", word, DEDUPE_NEW, 0);
    word = atomic_load(&model->word);
    dedupe_forget(worker->dedupe, claim);
    // Not when another has claimed it meanwhile.
    (void)change(model, word, MODEL_NONE, 0);
    worker->counts.forgotten++;
}

void model_look(struct worker *worker, struct model *model, unsigned which, int64_t now)
{
    struct dedupe_found found;
    int64_t since = worker->alone ? coverage_since(worker->dedupe, now) : 0;
    uint64_t before = atomic_load(&model->word);
    enum dedupe_verdict verdict = dedupe_look(worker->dedupe, &model->id, model_payload(model, which), &found);
    worker->counts.looks++;
    if (verdict == DEDUPE_UNSURE && worker->alone)
        violated(worker, model, "unsure of what nobody else claims", before, verdict, now);
    bool covered = is_covered(worker, model, since, now);
    bool only = atomic_load(&model->attempts) == 0;
    struct known known = know(model);
    if (verdict == DEDUPE_UNSURE || !only || known.word != before)
        return;
    if (verdict != DEDUPE_NEW)
        check_stable(worker, model, &known, which, verdict, &found, now);
    else if (state_in(before) == MODEL_PENDING || (state_in(before) == MODEL_DURABLE && covered))
        violated(worker, model, "missed by a look", before, verdict, now);
}

// What the window made of an insert is seen by a look: it took it, had the id, or knows neither any more.
void model_insert(struct worker *worker, struct model *model, unsigned which, int64_t seen, int64_t now,
                  uint32_t origin, uint64_t seq)
{
    struct known had = know(model);
    uint64_t word = had.word;
    struct dedupe_found found;
    // What is there stays with its own time, and may be let go with that before it is looked at below.
    bool absent = dedupe_look(worker->dedupe, &model->id, model_payload(model, which), &found) == DEDUPE_NEW;
    dedupe_insert(worker->dedupe, &model->id, model_payload(model, which), seen, origin, seq);
    worker->counts.inserts++;
    enum dedupe_verdict verdict;
    do {
        verdict = dedupe_look(worker->dedupe, &model->id, model_payload(model, which), &found);
    } while (verdict == DEDUPE_UNSURE && !worker->alone);
    int64_t since = coverage_since(worker->dedupe, now);
    bool known =
        state_in(word) == MODEL_PENDING || (state_in(word) == MODEL_DURABLE && atomic_load(&model->when) > since);
    if (verdict == DEDUPE_NEW) {
        if (known || (absent && seen > since))
            violated(worker, model, "missed behind an insert", word, verdict, now);
        (void)change(model, word, MODEL_NONE, 0);
        return;
    }
    bool taken = found.state == DEDUPE_DURABLE && found.origin == origin && found.seq == seq;
    if (taken && known)
        violated(worker, model, "an insert changed what was there", word, verdict, now);
    if (!taken) {
        check_stable(worker, model, &had, which, verdict, &found, now);
        return;
    }
    if (verdict != DEDUPE_DUPLICATE)
        violated(worker, model, "the payload of an insert", word, verdict, now);
    atomic_store(&model->when, seen);
    atomic_store(&model->seq, seq);
    atomic_store(&model->origin, origin);
    (void)change(model, word, MODEL_DURABLE, which);
}
