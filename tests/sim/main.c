// sim [--seed N] [--from N] [--seeds N] [--seconds N] [--trace]: runs seeds; each is a run of its own. Stops at the
// first violation, prints the seed and the revision.
#include "tests/sim/node.h"

#include "base/log.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#ifndef SIM_REVISION // sabotage.py has its own
#include "revision_data.h"
#endif

#define CONVERGE_WITHIN (400 * S)

struct totals {
    uint64_t seeds, steps, acknowledged, appended, commits, takeovers, sealed, doubled, strays, virtual_s, given_up,
        longest_heal_s, repairs, tombstones, fenced;
};

static struct sim *sim_new(uint64_t seed, bool trace)
{
    struct sim *sim = calloc(1, sizeof(*sim));
    sl_assert(sim != NULL);
    sim->seed = seed;
    sim->chance = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    sim->trace = trace;
    sim->trace_hash = UINT64_C(0xcbf29ce484222325);
    sim->ledger = calloc(1, sizeof(*sim->ledger));
    sim->kafka = calloc(1, sizeof(*sim->kafka));
    sl_assert(sim->ledger != NULL && sim->kafka != NULL);
    for (uint8_t i = 0; i < NODES; i++) {
        sim->nodes[i] = node_new(sim, i);
        sim->kafka_link[i] = true;
    }
    net_start(sim);
    for (uint8_t i = 0; i < NODES; i++)
        node_boot(sim->nodes[i]);
    client_start(sim);
    fault_start(sim);
    return sim;
}

static void sim_free(struct sim *sim)
{
    for (uint8_t i = 0; i < NODES; i++)
        node_free(sim->nodes[i]);
    for (size_t i = 0; i < sim->heap_count; i++)
        free(sim->heap[i].arg);
    free(sim->heap);
    for (uint32_t i = 0; i < sim->ledger->stream_count; i++)
        free(sim->ledger->streams[i].records);
    free(sim->ledger->committed);
    free(sim->ledger);
    kafka_free(sim);
    client_free(sim);
    free(sim);
}

static void run_until(struct sim *sim, int64_t until_ns)
{
    while (sim->now_ns < until_ns && sim->violations == 0 && sim_step(sim)) {
    }
}

// NULL, or what is missing.
static const char *unconverged(struct sim *sim)
{
    for (uint8_t i = 0; i < NODES; i++) {
        const struct node *node = sim->nodes[i];
        if (!node->up)
            return "a node is down";
        if (!ha_ready(&node->core) || node->core.current == NULL)
            return "a node is not ready";
        if (node->wait_count > 0)
            return "a request waits";
        for (uint8_t member = 0; member < NODES; member++)
            if (ha_at_risk(&node->core, member) > 0)
                return "a record is at risk";
    }
    if (client_waits(sim))
        return "a client waits";
    return ledger_all_committed(sim) ? NULL : "a record is not committed";
}

// The spool's own sums agree with the ledger's.
static void check_sums(struct sim *sim)
{
    for (uint8_t i = 0; i < NODES; i++) {
        struct spool_figures figures;
        spool_figures(sim->nodes[i]->spool, &figures);
        if (figures.conservation_error != 0)
            sim_violation(sim, "node %u: spooled, produced and pending differ by %llu", i,
                          (unsigned long long)figures.conservation_error);
    }
}

static void run(struct sim *sim, struct totals *totals)
{
    run_until(sim, sim_between(sim, 60 * S, 150 * S));
    fault_heal(sim);
    int64_t healed_ns = sim->now_ns;
    const char *missing;
    while (sim->violations == 0 && (missing = unconverged(sim)) != NULL) {
        if (sim->now_ns - healed_ns > CONVERGE_WITHIN) {
            sim_violation(sim, "no convergence within %d s after healing: %s", (int)(CONVERGE_WITHIN / S), missing);
            break;
        }
        run_until(sim, sim->now_ns + S);
    }
    bool given_up = false;
    for (uint8_t i = 0; i < NODES; i++) {
        const struct ha_figures *figures = &sim->nodes[i]->core.figures;
        given_up |= sim->nodes[i]->order_given_up + figures->order_given_up > 0;
        totals->takeovers += figures->takeovers;
        totals->sealed += figures->sealed;
        totals->repairs += figures->repairs_sent;
        totals->tombstones += figures->tombstones;
        totals->fenced += figures->fenced;
    }
    if (sim->violations == 0) {
        ledger_final(sim, given_up);
        check_sums(sim);
    }
    totals->seeds++;
    totals->steps += sim->steps;
    totals->acknowledged += sim->ledger->acknowledged;
    totals->appended += sim->ledger->appended;
    totals->commits += sim->kafka->commits;
    totals->doubled += sim->ledger->doubled_elsewhere;
    totals->strays += sim->ledger->strays;
    totals->virtual_s += (uint64_t)(sim->now_ns / S);
    totals->given_up += given_up;
    uint64_t heal_s = (uint64_t)((sim->now_ns - healed_ns) / S);
    totals->longest_heal_s = heal_s > totals->longest_heal_s ? heal_s : totals->longest_heal_s;
}

// An assertion of the code under test is a violation like others.
static uint64_t current_seed;

static void aborted(int number)
{
    (void)number;
    printf("not ok seed-%llu - revision %s: an assertion, see above\n", (unsigned long long)current_seed, SIM_REVISION);
    fflush(stdout);
}

static void usage(void)
{
    fputs("usage: sim [--seed N] [--from N] [--seeds N] [--seconds N] [--trace]\n", stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    uint64_t from = 1, seeds = UINT64_MAX;
    int64_t seconds = 60;
    bool trace = false;
    for (int i = 1; i < argc; i++) {
        bool value = i + 1 < argc;
        if (value && strcmp(argv[i], "--seed") == 0) {
            from = strtoull(argv[++i], NULL, 10);
            seeds = 1;
            seconds = INT32_MAX;
        } else if (value && strcmp(argv[i], "--from") == 0)
            from = strtoull(argv[++i], NULL, 10);
        else if (value && strcmp(argv[i], "--seeds") == 0)
            seeds = strtoull(argv[++i], NULL, 10);
        else if (value && strcmp(argv[i], "--seconds") == 0)
            seconds = strtol(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--trace") == 0)
            trace = true;
        else
            usage();
    }
    sl_log_configure(false, (enum sl_level)(SL_ERROR + 1));
    sigaction(SIGABRT, &(struct sigaction){.sa_handler = aborted}, NULL);
    struct totals totals = {0};
    int64_t end_ns = sl_monotonic_ns() + seconds * S;
    for (uint64_t seed = from; totals.seeds < seeds && sl_monotonic_ns() < end_ns; seed++) {
        current_seed = seed;
        struct sim *sim = sim_new(seed, trace);
        run(sim, &totals);
        if (seeds == 1 || sim->violations > 0)
            printf("seed %llu: %llu steps, %.0f virtual s, trace %016llx\n", (unsigned long long)seed,
                   (unsigned long long)sim->steps, (double)sim->now_ns / (double)S,
                   (unsigned long long)sim->trace_hash);
        if (sim->violations > 0) {
            printf("not ok seed-%llu - revision %s: %s\n", (unsigned long long)seed, SIM_REVISION,
                   sim->first_violation);
            sim_free(sim);
            return 1;
        }
        sim_free(sim);
    }
    printf("ok cell - %llu seeds, %llu steps, %llu virtual s, %llu acknowledged of %llu appended, %llu commits, "
           "%llu takeovers, %llu sealed, %llu fenced, %llu repairs, %llu tombstones, %llu ids doubled elsewhere, "
           "%llu doubled by stray commits, order given up in %llu, longest healing %llu s\n",
           (unsigned long long)totals.seeds, (unsigned long long)totals.steps, (unsigned long long)totals.virtual_s,
           (unsigned long long)totals.acknowledged, (unsigned long long)totals.appended,
           (unsigned long long)totals.commits, (unsigned long long)totals.takeovers, (unsigned long long)totals.sealed,
           (unsigned long long)totals.fenced, (unsigned long long)totals.repairs, (unsigned long long)totals.tombstones,
           (unsigned long long)totals.doubled, (unsigned long long)totals.strays, (unsigned long long)totals.given_up,
           (unsigned long long)totals.longest_heal_s);
    return 0;
}
