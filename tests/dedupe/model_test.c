// The window against a model, by chance: many millions of claims, outcomes, looks and inserts, on one thread and on
// several, with ids that are as alike as ids can be, in a table that is full all the time.
//
//   DEDUPE_MODEL_OPERATIONS   for each number of threads (default 3000000)
//   DEDUPE_MODEL_THREADS      e.g. "1 2 4" (the default)
//   DEDUPE_MODEL_SEED         default 1
#include "tests/dedupe/model.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS_MAX = 16, HELD_MAX = 64, BATCH = 64, PRIVATE_EACH = 4, TICK_EVERY = 4096, RACE_EVERY = 8192 };

// ---- chance (splitmix64)

static uint64_t chance(uint64_t *state)
{
    uint64_t mixed = *state += UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ mixed >> 31;
}

// ---- ids

// Of one triple of sets, different tags.
static struct dedupe_id crowd(uint64_t number, uint64_t seed)
{
    return (struct dedupe_id){.words = {(seed & ~UINT64_C(0xffff)) | number, seed * UINT64_C(0xbf58476d1ce4e5b9)}};
}

// Of one triple and of one tag: only w1 tells them apart, in bits that do not change the sets.
static struct dedupe_id one_tag(uint64_t number, uint64_t seed)
{
    uint64_t low = number % 32, high = number / 32;
    return (struct dedupe_id){.words = {seed, (seed & UINT64_C(0xff000000ff000000)) | high << 32 | low}};
}

// 64 triples.
static struct dedupe_id crowds(uint64_t number, uint64_t seed)
{
    return crowd(number / 64, (seed + number % 64) * UINT64_C(0x9e3779b97f4a7c15));
}

static struct dedupe_id spread(uint64_t number, uint64_t seed)
{
    uint64_t state = seed ^ number * UINT64_C(0xd1342543de82ef95);
    struct dedupe_id id = {.words = {chance(&state), 0}};
    id.words[1] = chance(&state);
    return id;
}

// Eight ids, and what differs from them in one bit or in two; and as many others.
static struct dedupe_id neighbours(uint64_t number, uint64_t seed)
{
    uint64_t first = number / 8 % 128, second = number / 8 / 128;
    if (second != 0 && second <= first)
        return spread(number, seed);
    struct dedupe_id id = spread(number % 8, ~seed);
    id.words[first / 64] ^= UINT64_C(1) << first % 64;
    if (second != 0)
        id.words[second / 64] ^= UINT64_C(1) << second % 64;
    return id;
}

struct world {
    const char *name;
    struct dedupe_id (*id)(uint64_t number, uint64_t seed);
    uint64_t ids;
    int64_t window; // in units of which an operation takes about one
    unsigned held;  // claims that one thread holds open, at most
};

static const struct world worlds[] = {
    {"crowd", crowd, 48, 4000, 3},
    {"crowd, full of open claims", crowd, 64, 100000, 30},
    {"one tag", one_tag, 512, 3000, 4},
    {"crowds", crowds, 1 << 14, 1 << 20, HELD_MAX},
    {"neighbours", neighbours, 8 * 128 * 128, 1 << 17, HELD_MAX},
    {"spread, evicting", spread, 1 << 18, INT64_C(1) << 40, HELD_MAX},
    {"spread, expiring", spread, 1 << 16, 20000, HELD_MAX},
};
enum { WORLDS = sizeof(worlds) / sizeof(worlds[0]) };

// ---- one run

struct run {
    const struct world *world;
    struct dedupe *dedupe;
    struct model *models;
    _Atomic int64_t clock;
    _Atomic uint64_t seq;
    unsigned threads;
    uint64_t operations; // of each thread
    uint64_t seed;
    pthread_barrier_t barrier;
    struct model *raced[BATCH];
    _Atomic unsigned arrived[BATCH], told_new[BATCH], found_no_room[BATCH];
};

struct hand {
    struct model *model;
    struct dedupe_claim claim;
};

struct player {
    struct worker worker; // first
    struct run *run;
    unsigned index;
    uint64_t state, foreign_seq;
    struct hand held[HELD_MAX];
    unsigned held_count;
    pthread_t thread;
};

// Every fourth id belongs to one thread, which alone inserts it.
static bool may_touch(const struct player *player, uint64_t number)
{
    return number % PRIVATE_EACH != 0 || number / PRIVATE_EACH % player->run->threads == player->index;
}

static bool may_insert(uint64_t number)
{
    return number % PRIVATE_EACH == 0;
}

// Some ids are asked for by all at about the same time.
static uint64_t pick(struct player *player)
{
    uint64_t ids = player->run->world->ids;
    for (;;) {
        uint64_t number = chance(&player->state) % ids;
        if (chance(&player->state) % 4 == 0)
            number = ((uint64_t)atomic_load(&player->run->clock) / 4096 * 61 + number % 8) % ids;
        if (may_touch(player, number))
            return number;
    }
}

static void let_go(struct player *player)
{
    struct hand *hand = &player->held[chance(&player->state) % player->held_count];
    if (chance(&player->state) % 5 == 0) {
        model_forget(&player->worker, hand->model, &hand->claim);
    } else {
        uint64_t jump = chance(&player->state) % 100000 == 0 ? 5000000 : 1;
        model_settle(&player->worker, hand->model, &hand->claim, atomic_fetch_add(&player->run->seq, jump));
    }
    *hand = player->held[--player->held_count];
}

static void insert(struct player *player, uint64_t number, int64_t now)
{
    int64_t window = player->run->world->window;
    uint64_t reach = (uint64_t)(window < 1 << 22 ? window + window / 4 : 1 << 22);
    int64_t seen = now - (int64_t)(chance(&player->state) % reach);
    player->foreign_seq += 1 + chance(&player->state) % 64;
    model_insert(&player->worker, &player->run->models[number], chance(&player->state) % 2, seen, now,
                 1 + player->index, player->foreign_seq);
}

static void play_one(struct player *player)
{
    struct run *run = player->run;
    uint64_t what = chance(&player->state) % 64;
    int64_t now = atomic_load(&run->clock);
    if (what % 4 == 0)
        now = atomic_fetch_add(&run->clock, 4);
    if (player->held_count > 0 && (player->held_count == run->world->held || what < 20)) {
        let_go(player);
        return;
    }
    uint64_t number = pick(player);
    struct model *model = &run->models[number];
    unsigned which = chance(&player->state) % 8 == 0;
    if (what < 28) {
        model_look(&player->worker, model, which, now);
    } else if (what < 34 && may_insert(number)) {
        insert(player, number, now);
    } else {
        struct hand *hand = &player->held[player->held_count];
        hand->model = model;
        if (model_claim(&player->worker, model, which, now, &hand->claim))
            player->held_count++;
    }
}

// ---- races: all claim the same id at once

static void race_told(struct player *player, unsigned i)
{
    struct run *run = player->run;
    struct dedupe_claim claim;
    struct counts before = player->worker.counts;
    bool held = model_claim(&player->worker, run->raced[i], 0, atomic_load(&run->clock), &claim);
    atomic_fetch_add(&run->told_new[i], held);
    atomic_fetch_add(&run->found_no_room[i], (unsigned)(player->worker.counts.unremembered - before.unremembered));
    if (held)
        player->held[player->held_count++] = (struct hand){.model = run->raced[i], .claim = claim};
}

static void race(struct player *player)
{
    struct run *run = player->run;
    while (player->held_count > 0)
        let_go(player);
    pthread_barrier_wait(&run->barrier);
    if (player->index == 0) {
        atomic_fetch_add(&run->clock, 1);
        for (unsigned i = 0; i < BATCH; i++) {
            // Shared ones that nobody holds, each once.
            uint64_t step = run->world->ids / BATCH;
            uint64_t at = step == 0 ? 0 : i * step + chance(&player->state) % step;
            run->raced[i] = may_insert(at) ? NULL : &run->models[at];
            atomic_store(&run->arrived[i], 0);
            atomic_store(&run->told_new[i], 0);
            atomic_store(&run->found_no_room[i], 0);
        }
    }
    uint64_t before[BATCH];
    pthread_barrier_wait(&run->barrier);
    for (unsigned i = 0; i < BATCH; i++)
        before[i] = run->raced[i] != NULL ? atomic_load(&run->raced[i]->word) : 0;
    pthread_barrier_wait(&run->barrier);
    for (unsigned i = 0; i < BATCH; i++) {
        // All at the same instant: who comes early spins.
        atomic_fetch_add(&run->arrived[i], 1);
        while (atomic_load(&run->arrived[i]) < run->threads)
            sched_yield();
        if (run->raced[i] != NULL)
            race_told(player, i);
    }
    pthread_barrier_wait(&run->barrier);
    for (unsigned i = 0; i < BATCH && player->index == 0; i++) {
        unsigned told = atomic_load(&run->told_new[i]);
        bool absent = (before[i] & 7) == MODEL_NONE;
        // One alone; and with nothing else of their tag about, one at least.
        bool may_be_none = !absent || run->world->id == one_tag || atomic_load(&run->found_no_room[i]) > 0;
        if (run->raced[i] != NULL && !(told == 1 || (told == 0 && may_be_none))) {
            fprintf(stderr, "wrong: %u of %u that claimed one id at once were told new\n", told, run->threads);
            exit(1);
        }
    }
    pthread_barrier_wait(&run->barrier);
}

static void *play(void *argument)
{
    struct player *player = argument;
    struct run *run = player->run;
    for (uint64_t i = 0; i < run->operations; i++) {
        if (run->threads > 1 && i % RACE_EVERY == 0)
            race(player);
        play_one(player);
        if (player->index == 0 && i % TICK_EVERY == TICK_EVERY - 1) {
            // Once in a while much time passes at once.
            if (chance(&player->state) % 256 == 0)
                atomic_fetch_add(&run->clock, run->world->window / 3);
            dedupe_tick(run->dedupe, atomic_load(&run->clock));
        }
    }
    while (player->held_count > 0)
        let_go(player);
    return NULL;
}

// ---- all

static void report(const struct run *run, const struct player *players)
{
    struct counts sum = {0};
    for (unsigned i = 0; i < run->threads; i++) {
        const struct counts *counts = &players[i].worker.counts;
        sum.claims += counts->claims, sum.fresh += counts->fresh, sum.duplicates += counts->duplicates;
        sum.conflicts += counts->conflicts, sum.unsure += counts->unsure, sum.settled += counts->settled;
        sum.unremembered += counts->unremembered, sum.looks += counts->looks, sum.inserts += counts->inserts;
        sum.missed += counts->missed, sum.forgotten += counts->forgotten;
    }
    struct dedupe_figures figures;
    dedupe_figures(run->dedupe, atomic_load(&run->clock), &figures);
    printf("%-26s %u threads: claims %" PRIu64 " new %" PRIu64 " duplicate %" PRIu64 " conflict %" PRIu64
           " unsure %" PRIu64 " unremembered %" PRIu64 " settled %" PRIu64 " forgotten %" PRIu64 " looks %" PRIu64
           " inserts %" PRIu64 " evicted %" PRIu64 " came again uncovered %" PRIu64 " generations %" PRIu64 "\n",
           run->world->name, run->threads, sum.claims, sum.fresh, sum.duplicates, sum.conflicts, sum.unsure,
           sum.unremembered, sum.settled, sum.forgotten, sum.looks, sum.inserts, figures.evicted, sum.missed,
           atomic_load(&run->dedupe->current));
    if (sum.fresh == 0 || sum.duplicates == 0 || sum.conflicts == 0 || sum.settled == 0 || sum.inserts == 0) {
        fprintf(stderr, "wrong: something never happened\n");
        exit(1);
    }
}

// Every id once more, when all is quiet; and what the figures say are there, are there.
static void look_at_all(const struct run *run)
{
    struct worker worker = {.dedupe = run->dedupe, .alone = true};
    int64_t now = atomic_load(&run->clock);
    for (uint64_t i = 0; i < run->world->ids; i++)
        model_look(&worker, &run->models[i], 0, now);
    struct dedupe_figures figures;
    struct dedupe_entry entry;
    dedupe_figures(run->dedupe, now, &figures);
    uint64_t entries = 0, words = 0;
    for (uint64_t slot = 0; slot < table_slots(run->dedupe); slot++) {
        entries += table_entry(run->dedupe, slot, now, &entry);
        words += atomic_load(word_of(run->dedupe, slot)) != 0;
    }
    if (words != figures.entries || entries > words) {
        fprintf(stderr, "wrong: %" PRIu64 " entries, %" PRIu64 " words, %" PRIu64 " counted\n", entries, words,
                figures.entries);
        exit(1);
    }
}

static int by_id(const void *left, const void *right)
{
    return memcmp(left, right, sizeof(struct dedupe_id));
}

static void make_models(struct run *run)
{
    uint64_t ids = run->world->ids;
    struct dedupe_id *sorted = calloc(ids, sizeof(*sorted));
    run->models = calloc(ids, sizeof(*run->models));
    for (uint64_t i = 0; i < ids; i++)
        sorted[i] = run->models[i].id = run->world->id(i, run->seed * UINT64_C(0x2545f4914f6cdd1d));
    qsort(sorted, ids, sizeof(*sorted), by_id);
    for (uint64_t i = 1; i < ids; i++) {
        if (by_id(&sorted[i - 1], &sorted[i]) == 0) {
            fprintf(stderr, "%s: not all ids are different\n", run->world->name);
            exit(1);
        }
    }
    free(sorted);
}

static void run_world(const struct world *world, unsigned threads, uint64_t operations, uint64_t seed)
{
    struct run run = {.world = world, .threads = threads, .operations = operations / threads, .seed = seed};
    struct dedupe_options options = {
        .memory_bytes = dedupe_memory_min(), .window_ns = world->window, .now_wall_ns = INT64_C(1) << 50};
    struct sl_error err;
    if (!dedupe_new(&run.dedupe, &options, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    dedupe_covered_since(run.dedupe, options.now_wall_ns - world->window);
    atomic_store(&run.clock, options.now_wall_ns + 1);
    atomic_store(&run.seq, (UINT64_C(1) << 32) - 100000);
    make_models(&run);
    pthread_barrier_init(&run.barrier, NULL, threads);
    struct player *players = calloc(threads, sizeof(*players));
    for (unsigned i = 0; i < threads; i++) {
        players[i] = (struct player){.run = &run, .index = i, .state = seed << 8 | i, .foreign_seq = 1000};
        players[i].worker = (struct worker){.dedupe = run.dedupe, .alone = threads == 1};
        if (pthread_create(&players[i].thread, NULL, play, &players[i]) != 0)
            exit(1);
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(players[i].thread, NULL);
    look_at_all(&run);
    report(&run, players);
    pthread_barrier_destroy(&run.barrier);
    free(players);
    free(run.models);
    dedupe_free(run.dedupe);
}

static uint64_t setting(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : fallback;
}

int main(void)
{
    uint64_t operations = setting("DEDUPE_MODEL_OPERATIONS", 3000000), seed = setting("DEDUPE_MODEL_SEED", 1);
    const char *threads = getenv("DEDUPE_MODEL_THREADS");
    char *rest = NULL;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (const char *at = threads != NULL ? threads : "1 2 4"; *at != '\0'; at = rest) {
        unsigned long count = strtoul(at, &rest, 10);
        if (rest == at || count < 1 || count > THREADS_MAX)
            return 1;
        for (unsigned i = 0; i < WORLDS; i++)
            run_world(&worlds[i], (unsigned)count, operations / WORLDS, seed);
    }
    return 0;
}
