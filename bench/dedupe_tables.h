// The tables that dedupe-bench holds beside each other. All of them keep the same: 128 bits of id, 64 of payload hash.
//
// Threads: claim as the table says; create, destroy and bytes by one thread while nobody claims.
#ifndef SLUICE_BENCH_DEDUPE_TABLES_H
#define SLUICE_BENCH_DEDUPE_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct table_key {
    uint64_t id[2]; // uniformly spread, as SipHash leaves them
    uint64_t payload_hash;
};

struct table_result {
    uint64_t fresh, duplicates;
    uint64_t others; // conflicts, or what is not to happen at all
};

struct table_ops {
    const char *name;
    bool many_writers; // else: one thread claims, or any number claim what is in the table already
    // Room for `ids`, taken at once. NULL: out of memory.
    void *(*create)(uint64_t ids);
    void (*destroy)(void *table);
    // Looks up and inserts what is not there; `count` at most TABLE_BATCH_MAX. A locked table takes its lock once.
    struct table_result (*claim)(void *table, const struct table_key *keys, size_t count);
    // What one id takes when the table is full; 0: resident memory over ids says it.
    double (*bytes_per_id)(void *table);
};
enum { TABLE_BATCH_MAX = 1024 };

// A bijection (the finaliser of splitmix64), so that no two numbers give one id.
static inline uint64_t table_scatter(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline struct table_key table_key_of(uint64_t number)
{
    struct table_key key = {{table_scatter(number + 1), table_scatter(~number)}, table_scatter(number ^ 0x5555)};
    return key;
}

extern const struct table_ops table_window;       // Sluice's own
extern const struct table_ops table_window_plain; // with a filter that says nothing
extern const struct table_ops table_ck_ht;        // Concurrency Kit, one writer
extern const struct table_ops table_node_map;     // std::unordered_map behind a mutex
extern const struct table_ops *const table_flat;  // absl::flat_hash_map behind a mutex; NULL: built without Abseil

#ifdef __cplusplus
}
#endif

#endif
