#include "tests/sim/kafka.h"

#include "tests/sim/ledger.h"

#include <stdlib.h>

#define TXN_TIMEOUT (15 * S)

void kafka_free(struct sim *sim)
{
    while (sim->kafka->txns != NULL) {
        struct txn *txn = sim->kafka->txns;
        sim->kafka->txns = txn->next_made;
        free(txn);
    }
    for (size_t i = 0; i < PARTITIONS; i++)
        free(sim->kafka->progress[i].entries);
    free(sim->kafka);
}

bool kafka_reachable(const struct sim *sim, uint8_t node)
{
    return sim->kafka_link[node] && !sim->kafka->down;
}

static void end(struct sim *sim, uint32_t stream, uint8_t lane, bool commit, bool stray)
{
    struct txn *txn = sim->kafka->ids[stream][lane].open;
    sim->kafka->ids[stream][lane].open = NULL;
    txn->state = commit ? TXN_COMMITTED : TXN_ABORTED;
    txn->stray = stray;
    *(commit ? &sim->kafka->commits : &sim->kafka->aborts) += 1;
    if (!commit)
        return;
    for (uint32_t i = 0; i < txn->count; i++)
        ledger_committed(sim, stream, txn->seqs[i], stray);
    for (uint32_t partition = 0; partition < PARTITIONS; partition++)
        for (size_t i = sim->kafka->progress[partition].stable; i < sim->kafka->progress[partition].count; i++) {
            const struct progress_entry *entry = &sim->kafka->progress[partition].entries[i];
            if (entry->txn == txn)
                ledger_progress(sim, entry->stream, entry->lane, entry->progress.through);
        }
}

uint32_t kafka_init(struct sim *sim, uint32_t stream, uint8_t lane)
{
    if (sim->kafka->ids[stream][lane].open != NULL)
        end(sim, stream, lane, false, false);
    return ++sim->kafka->ids[stream][lane].epoch;
}

struct timeout_arg {
    struct txn *txn;
};

static void time_out(struct sim *sim, void *arg)
{
    struct txn *txn = ((struct timeout_arg *)arg)->txn;
    if (txn->state != TXN_OPEN)
        return;
    sim_note(sim, "kafka: transaction of %s/%u timed out", ledger_at(sim, txn->stream)->text, txn->lane);
    sim->kafka->ids[txn->stream][txn->lane].epoch++;
    end(sim, txn->stream, txn->lane, false, false);
}

static enum kafka_result opened(struct sim *sim, uint32_t stream, uint8_t lane, uint32_t epoch, bool begin,
                                struct txn **out)
{
    if (sim->kafka->ids[stream][lane].epoch != epoch)
        return KAFKA_FENCED;
    struct txn *txn = sim->kafka->ids[stream][lane].open;
    // The client began it and it is not there any more: somebody ended it.
    if ((txn == NULL) != begin)
        return KAFKA_WRONG_STATE;
    if (txn == NULL) {
        txn = calloc(1, sizeof(*txn));
        sl_assert(txn != NULL);
        txn->stream = stream;
        txn->lane = lane;
        txn->next_made = sim->kafka->txns;
        sim->kafka->txns = sim->kafka->ids[stream][lane].open = txn;
        sim_at(sim, TXN_TIMEOUT, time_out, &(struct timeout_arg){.txn = txn}, sizeof(struct timeout_arg));
    }
    *out = txn;
    return KAFKA_OK;
}

enum kafka_result kafka_append(struct sim *sim, uint32_t stream, uint8_t lane, uint32_t epoch, const uint64_t *seqs,
                               uint32_t count, bool begin)
{
    struct txn *txn;
    enum kafka_result result = opened(sim, stream, lane, epoch, begin, &txn);
    if (result != KAFKA_OK)
        return result;
    if (sim->kafka->topic_down[lane])
        return KAFKA_UNAVAILABLE;
    for (uint32_t i = 0; i < count; i++) {
        sl_assert(txn->count < TXN_RECORDS);
        txn->seqs[txn->count++] = seqs[i];
    }
    return KAFKA_OK;
}

static void add_entry(struct sim *sim, uint32_t stream, struct progress_entry entry)
{
    uint32_t partition = stream % PARTITIONS;
    if (sim->kafka->progress[partition].count == sim->kafka->progress[partition].capacity) {
        size_t capacity =
            sim->kafka->progress[partition].capacity == 0 ? 256 : 2 * sim->kafka->progress[partition].capacity;
        sim->kafka->progress[partition].capacity = capacity;
        sim->kafka->progress[partition].entries =
            realloc(sim->kafka->progress[partition].entries, capacity * sizeof(struct progress_entry));
        sl_assert(sim->kafka->progress[partition].entries != NULL);
    }
    sim->kafka->progress[partition].entries[sim->kafka->progress[partition].count++] = entry;
}

enum kafka_result kafka_append_progress(struct sim *sim, uint32_t stream, uint8_t lane, uint32_t epoch, bool begin,
                                        const struct ha_progress *progress)
{
    struct txn *txn;
    enum kafka_result result = opened(sim, stream, lane, epoch, begin, &txn);
    if (result == KAFKA_OK)
        add_entry(sim, stream,
                  (struct progress_entry){.txn = txn, .stream = stream, .lane = lane, .progress = *progress});
    return result;
}

enum kafka_result kafka_end(struct sim *sim, uint32_t stream, uint8_t lane, uint32_t epoch, bool commit, bool stray)
{
    if (sim->kafka->ids[stream][lane].epoch != epoch)
        return KAFKA_FENCED;
    if (sim->kafka->ids[stream][lane].open == NULL)
        return KAFKA_WRONG_STATE;
    end(sim, stream, lane, commit, stray);
    return KAFKA_OK;
}

void kafka_tombstone(struct sim *sim, uint32_t stream, uint8_t lane)
{
    add_entry(sim, stream, (struct progress_entry){.stream = stream, .lane = lane, .tombstone = true});
}

size_t kafka_stable(struct sim *sim, uint32_t partition)
{
    size_t *stable = &sim->kafka->progress[partition].stable;
    const struct progress_entry *entries = sim->kafka->progress[partition].entries;
    while (*stable < sim->kafka->progress[partition].count &&
           (entries[*stable].txn == NULL || entries[*stable].txn->state != TXN_OPEN))
        (*stable)++;
    return *stable;
}

size_t kafka_high_watermark(struct sim *sim, uint32_t partition)
{
    return sim->kafka->progress[partition].count;
}

struct ha_progress kafka_progress(struct sim *sim, uint32_t stream, uint8_t lane, size_t upto)
{
    uint32_t partition = stream % PARTITIONS;
    for (size_t i = upto; i-- > 0;) {
        const struct progress_entry *entry = &sim->kafka->progress[partition].entries[i];
        if (entry->stream != stream || entry->lane != lane)
            continue;
        if (entry->tombstone)
            break;
        if (entry->txn->state == TXN_COMMITTED)
            return entry->progress;
    }
    return (struct ha_progress){0};
}

bool kafka_any_open(const struct sim *sim)
{
    for (uint32_t i = 0; i < sim->ledger->stream_count; i++)
        for (uint8_t lane = 0; lane < LANES; lane++)
            if (sim->kafka->ids[i][lane].open != NULL)
                return true;
    return false;
}
