// The hashes of an event: identity and payload.
#include "base/clock.h"
#include "bench/dedupe_bench.h"
#include "dedupe/dedupe.h"

#include <stdio.h>

enum { ROUNDS = 1 << 20, REPEATS = 7, TEXTS = 1024, TEXT_BYTES = 64, PAYLOAD_BYTES = 4096 };

static uint64_t kept; // so that nothing is optimised away

static double hash_ids(const struct dedupe_key *key, char (*texts)[TEXT_BYTES], size_t length)
{
    int64_t start_ns = sl_monotonic_ns();
    for (size_t i = 0; i < ROUNDS; i++)
        kept += dedupe_id_of(key, DEDUPE_EVENT, sl_span_of("payments"), (struct sl_span){texts[i % TEXTS], length})
                    .words[0];
    return (double)(sl_monotonic_ns() - start_ns) / ROUNDS;
}

static double hash_payloads(const struct dedupe_key *key, const uint8_t *payloads, size_t length)
{
    int64_t start_ns = sl_monotonic_ns();
    for (size_t i = 0; i < ROUNDS; i++)
        kept += dedupe_payload_hash(key, (struct sl_span){payloads + i % 64, length});
    return (double)(sl_monotonic_ns() - start_ns) / ROUNDS;
}

static void report(const char *what, size_t length, double ns)
{
    printf("{\"hash\":\"%s\",\"length\":%zu,\"ns\":%.1f}\n", what, length, ns);
}

int bench_identity(void)
{
    static char uuids[TEXTS][TEXT_BYTES], ids[TEXTS][TEXT_BYTES];
    static uint8_t payloads[PAYLOAD_BYTES + 64];
    struct dedupe_key key = {.bytes = {1, 2, 3}};
    dedupe_key_derive(&key);
    for (unsigned i = 0; i < TEXTS; i++) {
        snprintf(uuids[i], TEXT_BYTES, "0195e7a4-7c1f-7d3a-9b5e-2f6a1c8d%04x", i);
        snprintf(ids[i], TEXT_BYTES, "gw-20261121-0000000000000000000000000-%04x", i);
    }
    for (size_t i = 0; i < sizeof(payloads); i++)
        payloads[i] = (uint8_t)(i * 167 >> 3);
    const size_t lengths[] = {64, 300, 1048, PAYLOAD_BYTES};
    enum { LENGTHS = sizeof(lengths) / sizeof(lengths[0]) };
    double best[2 + LENGTHS] = {0};
    for (unsigned repeat = 0; repeat < REPEATS; repeat++)
        for (unsigned i = 0; i < 2 + LENGTHS; i++) {
            double ns = i == 0   ? hash_ids(&key, uuids, 36)
                        : i == 1 ? hash_ids(&key, ids, 40)
                                 : hash_payloads(&key, payloads, lengths[i - 2]);
            best[i] = repeat == 0 || ns < best[i] ? ns : best[i];
        }
    report("uuid", 36, best[0]);
    report("id", 40, best[1]);
    for (unsigned i = 0; i < LENGTHS; i++)
        report("payload", lengths[i], best[2 + i]);
    return kept == 1; // never
}
