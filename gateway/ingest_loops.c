// The life of a struct ingest: its loops' parts, attached to the server's loops; a reload; the positions from the
// drain.
#include "gateway/ingest_internal.h"

#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

bool ingest_new(struct ingest **out, const struct ingest_options *options, struct sl_error *err)
{
    struct ingest *ingest = calloc(1, sizeof(*ingest) + options->loop_count * sizeof(ingest->loops[0]));
    if (ingest == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "ingest");
    ingest->spool = options->spool;
    ingest->stats = options->stats;
    ingest->loop_count = options->loop_count;
    ingest->dedupe = options->dedupe;
    ingest->key = options->key;
    atomic_store(&ingest->window_complete, options->dedupe == NULL);
    if (options->dedupe != NULL) {
        ingest->older = calloc(OLDER_ORIGINS_MAX, sizeof(*ingest->older));
        if (ingest->older == NULL) {
            free(ingest);
            return sl_fail(err, SL_E_NO_MEMORY, "ingest");
        }
    }
    ingest->two_zones = options->two_zones;
    ingest->ready = options->ready;
    atomic_store(&ingest->cell_ready, options->ready == NULL);
    ingest->user = options->user;
    pthread_mutex_init(&ingest->own_lock, NULL);
    ingest_open_stream(ingest, 0, spool_incarnation_id(options->spool, 0));
    const struct config *config = routes_config(options->routes);
    for (uint32_t i = 0; i < ingest->loop_count; i++) {
        struct ingest_loop *loop = &ingest->loops[i];
        loop->ingest = ingest;
        loop->index = i;
        loop->in_flight_tail = &loop->in_flight;
        loop->commit_task.run = ingest_on_commit_task;
        loop->zone_task.run = ingest_on_zone_task;
        loop->settled_task.run = ingest_on_settled_task;
        for (uint32_t lane = 0; lane < SPOOL_LANES_MAX; lane++)
            loop->lanes[lane].tail = &loop->lanes[lane].first;
        loop->zones.tail = &loop->zones.first;
        loop->waiting.tail = &loop->waiting.first;
        loop->routes = routes_retain(options->routes);
        loop->parser = json_parser_new(config->limits.event_bytes, config->limits.depth);
        loop->decoder = decoder_new(config->limits.decoded_bytes, 1 << 20);
        if (loop->parser == NULL || loop->decoder == NULL) {
            ingest_free(ingest);
            return sl_fail(err, SL_E_NO_MEMORY, "the parsers of loop %u", i);
        }
    }
    *out = ingest;
    return true;
}

void ingest_attach(struct ingest *ingest, struct http_server *server)
{
    sl_assert(http_server_loop_count(server) == ingest->loop_count);
    for (uint32_t i = 0; i < ingest->loop_count; i++) {
        ingest->loops[i].http = http_server_loop(server, i);
        http_loop_every(ingest->loops[i].http, TICK_MS * SL_NS_PER_MS, ingest_tick, &ingest->loops[i]);
    }
    atomic_store_explicit(&ingest->attached, true, memory_order_release);
}

void ingest_free(struct ingest *ingest)
{
    if (ingest == NULL)
        return;
    for (uint32_t i = 0; i < ingest->loop_count; i++)
        ingest_loop_free(&ingest->loops[i]);
    pthread_mutex_destroy(&ingest->own_lock);
    free(ingest->older);
    free(ingest);
}

// Something done once on each loop's thread, and waited for.
struct visit {
    struct http_task task;
    struct ingest_loop *loop;
    struct routes *routes;
    sem_t *done;
};
_Static_assert(offsetof(struct visit, task) == 0, "a task is cast to its visit");

static void visit_loops(struct ingest *ingest, void (*run)(struct http_task *task), struct routes *routes)
{
    sem_t done;
    sem_init(&done, 0, 0);
    struct visit visits[64]; // struct http_options: at most 64 loops
    sl_assert(ingest->loop_count <= sizeof(visits) / sizeof(visits[0]));
    for (uint32_t i = 0; i < ingest->loop_count; i++) {
        visits[i] = (struct visit){.task.run = run, .loop = &ingest->loops[i], .routes = routes, .done = &done};
        http_loop_post(ingest->loops[i].http, &visits[i].task);
    }
    for (uint32_t i = 0; i < ingest->loop_count; i++)
        while (sem_wait(&done) != 0)
            ; // EINTR
    sem_destroy(&done);
}

static void hand_over_last(struct http_task *task)
{
    struct visit *visit = (struct visit *)(void *)task;
    ingest_flush(visit->loop);
    sem_post(visit->done);
}

void ingest_refuse_new(struct ingest *ingest)
{
    atomic_store(&ingest->refusing, true);
    if (atomic_load_explicit(&ingest->attached, memory_order_acquire))
        visit_loops(ingest, hand_over_last, NULL);
}

static void swap_routes(struct http_task *task)
{
    struct visit *visit = (struct visit *)(void *)task;
    struct routes *old = visit->loop->routes;
    visit->loop->routes = routes_retain(visit->routes);
    routes_release(old);
    sem_post(visit->done);
}

void ingest_set_routes(struct ingest *ingest, struct routes *routes)
{
    visit_loops(ingest, swap_routes, routes);
}

void ingest_window_complete(struct ingest *ingest)
{
    atomic_store_explicit(&ingest->window_complete, true, memory_order_release);
}

// Every batch up to told_through was told to its loop before that was published, and a loop settles its batches in
// order: what a loop has not settled yet lies above its own settled_through.
void ingest_settled(const struct ingest *ingest, uint32_t *incarnation, uint64_t *through)
{
    uint64_t position = atomic_load_explicit(&ingest->told_through, memory_order_acquire);
    for (uint32_t i = 0; i < ingest->loop_count; i++) {
        uint64_t told = atomic_load_explicit(&ingest->loops[i].told_through, memory_order_acquire);
        uint64_t settled = atomic_load_explicit(&ingest->loops[i].settled_through, memory_order_acquire);
        if (settled < told && settled < position)
            position = settled;
    }
    *incarnation = (uint32_t)(position >> 48);
    *through = position & (POSITION_OF(1, 0) - 1);
}

uint64_t ingest_in_flight(const struct ingest *ingest)
{
    uint64_t sum = 0;
    for (uint32_t i = 0, sources = stats_source_count(ingest->stats); i < sources; i++)
        for (uint32_t loop = 0; loop < ingest->loop_count; loop++)
            sum += stats_read(&stats_shard(ingest->stats, i, loop)->in_flight);
    return sum;
}

uint64_t ingest_conservation_error(const struct ingest *ingest)
{
    uint64_t largest = 0;
    for (uint32_t i = 0; i < ingest->loop_count; i++) {
        uint64_t error = atomic_load_explicit(&ingest->loops[i].conservation_error, memory_order_relaxed);
        if (error > largest)
            largest = error;
    }
    return largest;
}
