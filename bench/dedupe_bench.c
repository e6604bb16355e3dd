// dedupe-bench: look-ups and insertions a second of Sluice's window and of the tables that it is held against.
//
// A table is filled with -n ids; then, for each number of threads, ids that it holds are claimed (duplicates) and ids
// that it does not hold (new), -b at a time. Every answer is counted and has to be the right one. One line of JSON a
// measurement. A core's rate is operations by the threads' CPU time, so that a busy machine does not count against it.
#include "bench/dedupe_bench.h"
#include "base/clock.h"
#include "base/error.h"
#include "bench/dedupe_tables.h"

#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS_MAX = 64, TABLES_MAX = 8 };

struct options {
    const char *table;
    uint64_t ids, operations;
    size_t batch;
    unsigned threads[THREADS_MAX], thread_counts, repeats;
};

struct phase;

struct worker {
    pthread_t thread;
    struct phase *phase;
    uint64_t first, count, random;
    int64_t start_ns, end_ns, cpu_ns;
    struct table_result result;
};

// Claims `count` ids from `first` on, or as many random ones below `known`.
struct phase {
    const struct table_ops *ops;
    void *table;
    uint64_t known; // < 2^32; 0: new ids
    size_t batch;
    pthread_barrier_t start;
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *work(void *user)
{
    struct worker *worker = user;
    struct phase *phase = worker->phase;
    struct table_key keys[TABLE_BATCH_MAX];
    pthread_barrier_wait(&phase->start);
    int64_t cpu_ns = sl_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    worker->start_ns = sl_monotonic_ns();
    for (uint64_t done = 0; done < worker->count;) {
        uint64_t left = worker->count - done;
        size_t batch = left < phase->batch ? (size_t)left : phase->batch;
        for (size_t i = 0; i < batch; i++) {
            uint64_t number = worker->first + done + i;
            if (phase->known > 0) // scaled by multiplication: no division in the loop
                number = (next_random(&worker->random) >> 32) * phase->known >> 32;
            keys[i] = table_key_of(number);
        }
        struct table_result result = phase->ops->claim(phase->table, keys, batch);
        worker->result.fresh += result.fresh;
        worker->result.duplicates += result.duplicates;
        worker->result.others += result.others;
        done += batch;
    }
    worker->end_ns = sl_monotonic_ns();
    worker->cpu_ns = sl_clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns;
    return NULL;
}

struct outcome {
    double seconds, cpu_seconds;
    struct table_result result;
};

static struct outcome run_phase(struct phase *phase, unsigned threads, uint64_t first, uint64_t count)
{
    struct worker workers[THREADS_MAX] = {{.phase = NULL}};
    pthread_barrier_init(&phase->start, NULL, threads);
    for (unsigned i = 0; i < threads; i++) {
        uint64_t from = count * i / threads, to = count * (i + 1) / threads;
        workers[i] = (struct worker){
            .phase = phase, .first = first + from, .count = to - from, .random = table_scatter(first + from + 77) | 1};
        sl_assert(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    struct outcome outcome = {.seconds = 0};
    int64_t start_ns = INT64_MAX, end_ns = 0, cpu_ns = 0;
    for (unsigned i = 0; i < threads; i++) {
        struct worker *worker = &workers[i];
        pthread_join(worker->thread, NULL);
        start_ns = worker->start_ns < start_ns ? worker->start_ns : start_ns;
        end_ns = worker->end_ns > end_ns ? worker->end_ns : end_ns;
        cpu_ns += worker->cpu_ns;
        outcome.result.fresh += worker->result.fresh;
        outcome.result.duplicates += worker->result.duplicates;
        outcome.result.others += worker->result.others;
    }
    pthread_barrier_destroy(&phase->start);
    outcome.seconds = (double)(end_ns - start_ns) / (double)SL_NS_PER_S;
    outcome.cpu_seconds = (double)cpu_ns / (double)SL_NS_PER_S;
    return outcome;
}

static uint64_t resident_bytes(void)
{
    unsigned long long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    sl_assert(file != NULL && fscanf(file, "%llu %llu", &size, &resident) == 2);
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static bool measure(struct phase *phase, const struct options *options, unsigned threads, uint64_t *next)
{
    for (int known = 1; known >= 0; known--) {
        if (!known && !phase->ops->many_writers && threads > 1)
            continue;
        uint64_t count = known ? options->operations : options->operations / 2;
        phase->known = known ? options->ids : 0;
        struct outcome outcome = run_phase(phase, threads, *next, count);
        if ((known ? outcome.result.duplicates : outcome.result.fresh) != count) {
            fprintf(stderr, "dedupe-bench: %s, %u threads, %s: of %llu: %llu new, %llu duplicates, %llu others\n",
                    phase->ops->name, threads, known ? "duplicates" : "new", (unsigned long long)count,
                    (unsigned long long)outcome.result.fresh, (unsigned long long)outcome.result.duplicates,
                    (unsigned long long)outcome.result.others);
            return false;
        }
        if (!known)
            *next += count;
        printf("{\"table\":\"%s\",\"ids\":%llu,\"threads\":%u,\"batch\":%zu,\"claims\":\"%s\","
               "\"per_second\":%.0f,\"per_core_second\":%.0f}\n",
               phase->ops->name, (unsigned long long)options->ids, threads, options->batch, known ? "duplicate" : "new",
               (double)count / outcome.seconds, (double)count / outcome.cpu_seconds);
        fflush(stdout);
    }
    return true;
}

static bool run(const struct table_ops *ops, const struct options *options)
{
    // Half of the operations of each measurement are new ids that stay.
    uint64_t room = options->ids + options->repeats * options->thread_counts * (options->operations / 2);
    uint64_t before = resident_bytes(), next = options->ids;
    struct phase phase = {.ops = ops, .table = ops->create(room), .batch = 100};
    if (phase.table == NULL) {
        fprintf(stderr, "dedupe-bench: %s: no room for %llu ids\n", ops->name, (unsigned long long)room);
        return false;
    }
    bool good = true;
    if (options->ids > 0) {
        struct outcome filled = run_phase(&phase, ops->many_writers ? 2 : 1, 0, options->ids);
        fprintf(stderr, "%s: %llu ids in %.1f s\n", ops->name, (unsigned long long)options->ids, filled.seconds);
        good = filled.result.fresh == options->ids;
        if (!good)
            fprintf(stderr, "dedupe-bench: of them only %llu are new\n", (unsigned long long)filled.result.fresh);
    }
    phase.batch = options->batch;
    for (unsigned repeat = 0; good && repeat < options->repeats; repeat++)
        for (unsigned i = 0; good && i < options->thread_counts; i++)
            good = measure(&phase, options, options->threads[i], &next);
    double bytes_per_id = ops->bytes_per_id(phase.table);
    if (bytes_per_id <= 0)
        bytes_per_id = (double)(resident_bytes() - before) / (double)next;
    printf("{\"table\":\"%s\",\"ids\":%llu,\"bytes_per_id\":%.1f}\n", ops->name, (unsigned long long)options->ids,
           bytes_per_id);
    ops->destroy(phase.table);
    return good;
}

static size_t tables(const struct table_ops *out[TABLES_MAX], const char *names[TABLES_MAX])
{
    const struct table_ops *all[] = {&table_window, &table_window_plain, &table_node_map, table_flat, &table_ck_ht};
    const char *words[] = {"window", "no-filter", "node-map", "flat-map", "ck_ht"};
    size_t count = 0;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (all[i] != NULL) {
            names[count] = words[i];
            out[count++] = all[i];
        }
    return count;
}

static const char usage[] =
    "usage: dedupe-bench --list\n"
    "       dedupe-bench [-n IDS] [-o OPERATIONS] [-b BATCH] [-t THREADS,...] [-r REPEATS] TABLE\n"
    "       dedupe-bench --identity\n"
    "       dedupe-bench --rebuild IDS DIRECTORY\n";

static bool parse_threads(struct options *options, char *list)
{
    options->thread_counts = 0;
    char *rest = NULL;
    for (char *word = strtok_r(list, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
        unsigned long threads = strtoul(word, NULL, 10);
        if (threads == 0 || threads > THREADS_MAX || options->thread_counts == THREADS_MAX)
            return false;
        options->threads[options->thread_counts++] = (unsigned)threads;
    }
    return options->thread_counts > 0;
}

static int list_tables(void)
{
    const struct table_ops *all[TABLES_MAX];
    const char *names[TABLES_MAX];
    size_t count = tables(all, names);
    for (size_t i = 0; i < count; i++)
        printf("%s\n", names[i]);
    return 0;
}

static int run_table(const struct options *options, const char *name)
{
    const struct table_ops *all[TABLES_MAX];
    const char *names[TABLES_MAX];
    size_t count = tables(all, names);
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return run(all[i], options) ? 0 : 1;
    fputs(usage, stderr);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {{"list", no_argument, NULL, 'l'},
                                                 {"identity", no_argument, NULL, 'i'},
                                                 {"rebuild", required_argument, NULL, 'R'},
                                                 {NULL, 0, NULL, 0}};
    struct options options = {
        .ids = 1000000, .operations = 1000000, .batch = 1, .threads = {1, 2, 3, 4}, .thread_counts = 4, .repeats = 3};
    uint64_t rebuild = 0;
    bool understood = true, list = false, identity = false;
    int option;
    while ((option = getopt_long(argc, argv, "n:o:b:t:r:", long_options, NULL)) != -1) {
        if (option == 'l')
            list = true;
        else if (option == 'i')
            identity = true;
        else if (option == 'R')
            rebuild = strtoull(optarg, NULL, 10);
        else if (option == 'n')
            options.ids = strtoull(optarg, NULL, 10);
        else if (option == 'o')
            options.operations = strtoull(optarg, NULL, 10);
        else if (option == 'b')
            options.batch = strtoull(optarg, NULL, 10);
        else if (option == 'r')
            options.repeats = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 't')
            understood = understood && parse_threads(&options, optarg);
        else
            understood = false;
    }
    understood = understood && options.batch > 0 && options.batch <= TABLE_BATCH_MAX && options.operations >= 2 &&
                 options.ids > 0 && options.ids <= UINT32_MAX && argc - optind == (list || identity ? 0 : 1);
    if (!understood) {
        fputs(usage, stderr);
        return 2;
    }
    if (list)
        return list_tables();
    if (identity)
        return bench_identity();
    return rebuild > 0 ? bench_rebuild(rebuild, argv[optind]) : run_table(&options, argv[optind]);
}
