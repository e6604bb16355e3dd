// The queue of events, chance, and the trace.
#include "tests/sim/node.h"
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

uint64_t sim_chance(struct sim *sim)
{
    // splitmix64
    uint64_t z = sim->chance += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

bool sim_often(struct sim *sim, unsigned per_mille)
{
    return sim_chance(sim) % 1000 < per_mille;
}

int64_t sim_between(struct sim *sim, int64_t low, int64_t high)
{
    return low + (int64_t)(sim_chance(sim) % (uint64_t)(high - low + 1));
}

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->number < b->number;
}

static void push(struct sim *sim, struct sim_event event)
{
    if (sim->heap_count == sim->heap_capacity) {
        sim->heap_capacity = sim->heap_capacity == 0 ? 1024 : 2 * sim->heap_capacity;
        sim->heap = realloc(sim->heap, sim->heap_capacity * sizeof(*sim->heap));
        sl_assert(sim->heap != NULL);
    }
    size_t at = sim->heap_count++;
    for (; at > 0 && before(&event, &sim->heap[(at - 1) / 2]); at = (at - 1) / 2)
        sim->heap[at] = sim->heap[(at - 1) / 2];
    sim->heap[at] = event;
}

static struct sim_event pop(struct sim *sim)
{
    struct sim_event first = sim->heap[0], last = sim->heap[--sim->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= sim->heap_count)
            break;
        if (child + 1 < sim->heap_count && before(&sim->heap[child + 1], &sim->heap[child]))
            child++;
        if (!before(&sim->heap[child], &last))
            break;
        sim->heap[at] = sim->heap[child];
        at = child;
    }
    if (sim->heap_count > 0)
        sim->heap[at] = last;
    return first;
}

static void add(struct sim *sim, struct node *node, int64_t delay_ns, sim_run run, const void *arg, size_t arg_size)
{
    void *copy = NULL;
    if (arg_size > 0) {
        copy = malloc(arg_size);
        sl_assert(copy != NULL);
        memcpy(copy, arg, arg_size);
    }
    push(sim, (struct sim_event){.at_ns = sim->now_ns + delay_ns,
                                 .number = sim->events_made++,
                                 .run = run,
                                 .arg = copy,
                                 .node = node,
                                 .boot = node != NULL ? node->boot : 0});
}

void sim_at(struct sim *sim, int64_t delay_ns, sim_run run, const void *arg, size_t arg_size)
{
    add(sim, NULL, delay_ns, run, arg, arg_size);
}

void sim_at_node(struct sim *sim, struct node *node, int64_t delay_ns, sim_run run, const void *arg, size_t arg_size)
{
    add(sim, node, delay_ns, run, arg, arg_size);
}

bool sim_step(struct sim *sim)
{
    if (sim->heap_count == 0)
        return false;
    struct sim_event event = pop(sim);
    sl_assert(event.at_ns >= sim->now_ns);
    sim->now_ns = event.at_ns;
    struct node *node = event.node;
    if (node != NULL && (!node->up || node->boot != event.boot)) {
        free(event.arg);
        return true;
    }
    if (node != NULL && node->frozen_until_ns > sim->now_ns) {
        // To the next tenth of a second: its number keeps its place among those that wait.
        event.at_ns = (sim->now_ns / (100 * MS) + 1) * 100 * MS;
        push(sim, event);
        return true;
    }
    sim->steps++;
    sim->trace_hash = (sim->trace_hash ^ (uint64_t)event.at_ns ^ event.number) * UINT64_C(0x100000001b3);
    event.run(sim, event.arg);
    free(event.arg);
    return true;
}

void sim_note(struct sim *sim, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    for (const char *at = text; *at != '\0'; at++)
        sim->trace_hash = (sim->trace_hash ^ (uint8_t)*at) * UINT64_C(0x100000001b3);
    if (sim->trace)
        printf("%10.4f %s\n", (double)sim->now_ns / (double)S, text);
}

void sim_violation(struct sim *sim, const char *format, ...)
{
    char text[sizeof(sim->first_violation)];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (sim->violations++ == 0)
        memcpy(sim->first_violation, text, sizeof(text));
    sim_note(sim, "VIOLATION %s", text);
}
