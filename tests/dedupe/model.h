// What every id of a test is known to be, beside the window: a plain array that several threads keep.
//
// Threads: any. A worker says before what it does and after what came of it, so that every verdict can be judged by
// what the id certainly was from before the call until after it. When that changed in between, less can be said; when
// there is one thread, it never does. Ends the process with a text and exit code 1 when the window was wrong.
#ifndef SLUICE_TESTS_DEDUPE_MODEL_H
#define SLUICE_TESTS_DEDUPE_MODEL_H

#include "dedupe/internal.h"

enum model_state {
    MODEL_NONE,
    MODEL_PENDING,
    MODEL_DURABLE,
    MODEL_SETTLING,   // pending or durable, or durable and let go again
    MODEL_FORGETTING, // pending, or not there
};

struct model {
    struct dedupe_id id;
    _Atomic uint64_t word;     // state in the low 3 bits, payload in bit 3, a version above
    _Atomic int64_t when;      // it was received
    _Atomic uint64_t seq;      // once durable
    _Atomic uint32_t origin;   // once durable
    _Atomic uint32_t attempts; // claims that are going on
};

struct worker {
    struct dedupe *dedupe;
    bool alone; // the only thread: then nothing is ever unsure, and coverage is what it was before the call
    struct counts {
        uint64_t claims, fresh, duplicates, conflicts, unsure, unremembered, settled, forgotten, looks, inserts;
        uint64_t missed; // durable ones that came as new, outside of what was covered
    } counts;
};

// One of two payloads for each id.
uint64_t model_payload(const struct model *model, unsigned which);
// Claims and judges. True: new and held (claim->word != 0), to be settled or forgotten.
bool model_claim(struct worker *worker, struct model *model, unsigned which, int64_t now, struct dedupe_claim *claim);
void model_settle(struct worker *worker, struct model *model, const struct dedupe_claim *claim, uint64_t seq);
void model_forget(struct worker *worker, struct model *model, const struct dedupe_claim *claim);
void model_look(struct worker *worker, struct model *model, unsigned which, int64_t now);
// Of an id that no other thread touches.
void model_insert(struct worker *worker, struct model *model, unsigned which, int64_t seen, int64_t now,
                  uint32_t origin, uint64_t seq);

#endif
