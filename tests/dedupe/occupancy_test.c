// How full the table is when it first lets something go, with ids as the keyed hash makes them, and what a remembered
// id costs there, filter included.
//
//   dedupe_occupancy_test [MEMORY_BYTES]      default 32 MiB; the README's figure is for 1.75 GiB, 64 M slots
#include "dedupe/internal.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t chance(uint64_t *state)
{
    uint64_t mixed = *state += UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ mixed >> 31;
}

int main(int argc, char **argv)
{
    const int64_t now = 1;
    struct dedupe_options options = {
        .memory_bytes = argc > 1 ? strtoull(argv[1], NULL, 10) : 32 << 20, .window_ns = 1000000, .now_wall_ns = now};
    struct dedupe *dedupe;
    struct sl_error err;
    if (!dedupe_new(&dedupe, &options, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const struct stripe *stripe = stripe_mine(dedupe);
    uint64_t state = 1, seq = 0;
    while (atomic_load(&stripe->evicted) == 0) {
        struct dedupe_id id = {.words = {chance(&state), 0}};
        id.words[1] = chance(&state);
        struct dedupe_claim claim;
        struct dedupe_found found;
        if (dedupe_claim(dedupe, &id, state, now, &claim, &found) != DEDUPE_NEW) {
            fprintf(stderr, "a new id was not new\n");
            return 1;
        }
        dedupe_settle(dedupe, &claim, ++seq);
    }
    struct dedupe_figures figures;
    dedupe_figures(dedupe, now, &figures);
    double cost = (double)figures.memory_bytes / (double)figures.entries;
    printf("%llu slots, %llu entries at the first eviction: %.2f %%, %.2f bytes each; the figures say %.2f\n",
           (unsigned long long)figures.capacity, (unsigned long long)figures.entries,
           100 * (double)figures.entries / (double)figures.capacity, cost, figures.bytes_per_entry);
    dedupe_free(dedupe);
    // Honest: not less than it is. Useful: not much more.
    bool honest = figures.bytes_per_entry >= cost && figures.bytes_per_entry < cost * 1.05;
    return honest && cost <= 32 ? 0 : 1;
}
