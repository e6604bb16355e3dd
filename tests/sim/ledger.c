#include "tests/sim/ledger.h"

#include "tests/sim/node.h"

#include <stdlib.h>
#include <string.h>

struct stream_truth *ledger_at(struct sim *sim, uint32_t stream)
{
    sl_assert(stream < sim->ledger->stream_count);
    return &sim->ledger->streams[stream];
}

uint32_t ledger_stream(struct sim *sim, struct ha_id id)
{
    struct ledger *ledger = sim->ledger;
    for (uint32_t i = ledger->stream_count; i-- > 0;)
        if (ha_same(ledger->streams[i].id, id))
            return i;
    sl_assert(ledger->stream_count < STREAMS_MAX);
    struct stream_truth *stream = &ledger->streams[ledger->stream_count];
    stream->id = id;
    ha_id_text(stream->text, id, node_names);
    return ledger->stream_count++;
}

static struct record_truth *record_of(struct sim *sim, uint32_t stream, uint64_t seq)
{
    struct stream_truth *truth = ledger_at(sim, stream);
    sl_assert(seq >= 1 && seq <= truth->end);
    return &truth->records[seq];
}

void ledger_append(struct sim *sim, uint32_t stream, uint64_t seq, uint32_t event)
{
    struct stream_truth *truth = ledger_at(sim, stream);
    struct event_truth *of = &sim->ledger->events[event];
    for (uint8_t i = 0; i < of->places; i++) {
        const struct record_truth *other = record_of(sim, of->at[i].stream, of->at[i].seq);
        if (other->known & (1u << truth->id.member))
            sim_violation(sim, "event %u appended again by node %u, which holds its id (%s %llu)", event,
                          truth->id.member, ledger_at(sim, of->at[i].stream)->text, (unsigned long long)of->at[i].seq);
    }
    sl_assert(seq == truth->end + 1);
    if (seq >= truth->capacity) {
        truth->capacity = truth->capacity == 0 ? 64 : 2 * truth->capacity;
        truth->records = realloc(truth->records, truth->capacity * sizeof(*truth->records));
        sl_assert(truth->records != NULL);
    }
    truth->end = seq;
    truth->records[seq] = (struct record_truth){.event = event, .lane = of->lane, .order = ++sim->ledger->orders};
    sl_assert(of->places < PLACES_MAX);
    of->at[of->places].stream = stream;
    of->at[of->places++].seq = seq;
    sim->ledger->appended++;
}

void ledger_durable(struct sim *sim, uint32_t stream, uint64_t first, uint64_t last, uint8_t node)
{
    for (uint64_t seq = first; seq <= last; seq++) {
        struct record_truth *record = record_of(sim, stream, seq);
        record->durable |= (uint8_t)(1u << node);
        record->known |= (uint8_t)(1u << node);
        record->ever |= (uint8_t)(1u << node);
    }
}

// ---- no acknowledged event unreachable

static bool reachable(struct sim *sim, const struct event_truth *event)
{
    for (uint8_t i = 0; i < event->places; i++) {
        const struct record_truth *record = record_of(sim, event->at[i].stream, event->at[i].seq);
        if (record->durable != 0 || record->commits > 0)
            return true;
    }
    return false;
}

static void no_more(struct sim *sim, uint32_t stream, uint64_t seq, uint8_t node, const char *why)
{
    struct record_truth *record = record_of(sim, stream, seq);
    if (!(record->durable & (1u << node)))
        return;
    record->durable &= (uint8_t) ~(1u << node);
    const struct event_truth *event = &sim->ledger->events[record->event];
    if (record->durable == 0 && event->acknowledged && !event->fallible && !reachable(sim, event))
        sim_violation(sim, "lost: event %u, acknowledged, was last in %s %llu on node %u (%s)", record->event,
                      ledger_at(sim, stream)->text, (unsigned long long)seq, node, why);
}

void ledger_deleted(struct sim *sim, uint32_t stream, uint64_t first, uint64_t last, uint8_t node)
{
    for (uint64_t seq = first; seq <= last && seq <= ledger_at(sim, stream)->end; seq++)
        no_more(sim, stream, seq, node, "deleted");
}

void ledger_disk_lost(struct sim *sim, uint8_t node)
{
    sim->ledger->disk_lost[node] = true;
    for (uint32_t i = 0; i < sim->ledger->stream_count; i++)
        for (uint64_t seq = 1; seq <= ledger_at(sim, i)->end; seq++) {
            no_more(sim, i, seq, node, "disk lost");
            record_of(sim, i, seq)->known &= (uint8_t) ~(1u << node);
        }
}

void ledger_found(struct sim *sim, uint32_t stream, uint64_t base, uint64_t end, uint8_t node)
{
    struct stream_truth *truth = ledger_at(sim, stream);
    if (end > truth->end) {
        sim_violation(sim, "node %u found %s through %llu, and only %llu were written", node, truth->text,
                      (unsigned long long)end, (unsigned long long)truth->end);
        return;
    }
    for (uint64_t seq = end + 1; seq <= truth->end; seq++)
        no_more(sim, stream, seq, node, "synced and not found after a restart");
    for (uint64_t seq = 1; seq < base && seq <= truth->end; seq++)
        no_more(sim, stream, seq, node, "deleted");
    if (base <= end)
        ledger_durable(sim, stream, base, end, node);
}

// ---- no answer before its level

void ledger_acknowledged(struct sim *sim, uint32_t event, uint32_t stream, uint64_t seq, enum level level)
{
    struct record_truth *record = record_of(sim, stream, seq);
    struct event_truth *truth = &sim->ledger->events[event];
    unsigned zones = (unsigned)__builtin_popcount(record->ever);
    bool reached = record->commits > 0 || (level == LEVEL_DISK && zones >= 1) || (level == LEVEL_AZ2 && zones >= 2);
    if (record->event != event)
        sim_violation(sim, "event %u answered for %s %llu, which holds %u", event, ledger_at(sim, stream)->text,
                      (unsigned long long)seq, record->event);
    if (!reached)
        sim_violation(sim, "event %u answered at level %d before it was reached (%s %llu, disks %x)", event, level,
                      ledger_at(sim, stream)->text, (unsigned long long)seq, record->ever);
    record->told = true;
    if (!truth->acknowledged) {
        sim->ledger->acknowledged++;
        truth->acknowledged = true;
        truth->fallible = level == LEVEL_DISK;
    }
    truth->fallible &= level == LEVEL_DISK;
    if (!truth->fallible && !reachable(sim, truth))
        sim_violation(sim, "event %u answered, and on no disk any more", event);
}

// ---- none twice, in order

void ledger_committed(struct sim *sim, uint32_t stream, uint64_t seq, bool stray)
{
    struct ledger *ledger = sim->ledger;
    struct stream_truth *truth = ledger_at(sim, stream);
    struct record_truth *record = record_of(sim, stream, seq);
    const struct event_truth *event = &ledger->events[record->event];
    if (record->commits++ > 0) {
        ledger->strays += record->stray;
        if (!record->stray)
            sim_violation(sim, "twice: %s %llu (event %u)", truth->text, (unsigned long long)seq, record->event);
        record->stray = stray;
        return;
    }
    record->stray = stray;
    for (uint8_t i = 0; i < event->places; i++) {
        const struct record_truth *other = record_of(sim, event->at[i].stream, event->at[i].seq);
        // Another record of this event. No gateway that held the id appended it again (ledger_append): the stated case.
        if (other == record || other->commits == 0)
            continue;
        ledger->doubled_elsewhere++;
    }
    uint64_t *last = &truth->last_seq[record->lane][event->key];
    if (seq < *last)
        sim_violation(sim, "order: %s %llu after %llu (lane %u, key %u)", truth->text, (unsigned long long)seq,
                      (unsigned long long)*last, record->lane, event->key);
    *last = seq;
    if (ledger->committed_count == ledger->committed_capacity) {
        ledger->committed_capacity = ledger->committed_capacity == 0 ? 1024 : 2 * ledger->committed_capacity;
        ledger->committed = realloc(ledger->committed, ledger->committed_capacity * sizeof(*ledger->committed));
        sl_assert(ledger->committed != NULL);
    }
    ledger->committed[ledger->committed_count].stream = stream;
    ledger->committed[ledger->committed_count++].seq = seq;
}

void ledger_progress(struct sim *sim, uint32_t stream, uint8_t lane, uint64_t through)
{
    struct stream_truth *truth = ledger_at(sim, stream);
    if (through > truth->end) {
        sim_violation(sim, "progress of %s at %llu, behind its end", truth->text, (unsigned long long)through);
        return;
    }
    if (through < truth->through[lane])
        sim_violation(sim, "progress of %s went back to %llu", truth->text, (unsigned long long)through);
    truth->through[lane] = through;
    for (; truth->checked[lane] < through; truth->checked[lane]++) {
        const struct record_truth *record = &truth->records[truth->checked[lane] + 1];
        if (record->lane == lane && record->commits == 0) {
            sim_violation(sim, "progress of %s at %llu passes %llu, which is not committed", truth->text,
                          (unsigned long long)through, (unsigned long long)truth->checked[lane] + 1);
            return;
        }
    }
}

// ---- sums

uint64_t ledger_thin(struct sim *sim)
{
    uint64_t thin = 0;
    for (uint32_t i = 0; i < sim->ledger->event_count; i++) {
        const struct event_truth *event = &sim->ledger->events[i];
        if (!event->acknowledged || event->fallible)
            continue;
        unsigned best = 0;
        for (uint8_t place = 0; place < event->places; place++) {
            const struct record_truth *record = record_of(sim, event->at[place].stream, event->at[place].seq);
            unsigned copies = record->commits > 0 ? 2 : (unsigned)__builtin_popcount(record->durable);
            best = copies > best ? copies : best;
        }
        if (best < 2 && thin++ == 0)
            sim_note(sim, "one copy: event %u, last in %s %llu", i,
                     ledger_at(sim, event->at[event->places - 1].stream)->text,
                     (unsigned long long)event->at[event->places - 1].seq);
    }
    return thin;
}

bool ledger_all_committed(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->ledger->stream_count; i++)
        for (uint64_t seq = ledger_at(sim, i)->end; seq > 0; seq--) {
            const struct record_truth *record = record_of(sim, i, seq);
            if (record->durable != 0 && record->commits == 0)
                return false;
        }
    return true;
}

static void check_order_across_streams(struct sim *sim)
{
    static uint64_t last[NODES][LANES][KEYS];
    static size_t where[NODES][LANES][KEYS];
    memset(last, 0, sizeof(last));
    for (size_t i = 0; i < sim->ledger->committed_count; i++) {
        uint32_t stream = sim->ledger->committed[i].stream;
        const struct record_truth *record = record_of(sim, stream, sim->ledger->committed[i].seq);
        const struct event_truth *event = &sim->ledger->events[record->event];
        uint8_t gateway = ledger_at(sim, stream)->id.member;
        if (!record->accepted || sim->ledger->disk_lost[gateway])
            continue;
        uint64_t *highest = &last[gateway][record->lane][event->key];
        size_t before = where[gateway][record->lane][event->key];
        if (record->order < *highest)
            sim_violation(sim, "order: event %u (%s %llu) came after a later one of its key, %s %llu", record->event,
                          ledger_at(sim, stream)->text, (unsigned long long)sim->ledger->committed[i].seq,
                          ledger_at(sim, sim->ledger->committed[before].stream)->text,
                          (unsigned long long)sim->ledger->committed[before].seq);
        else {
            *highest = record->order;
            where[gateway][record->lane][event->key] = i;
        }
    }
}

void ledger_final(struct sim *sim, bool order_given_up)
{
    if (!order_given_up)
        check_order_across_streams(sim);
    for (uint32_t i = 0; i < sim->ledger->event_count; i++) {
        const struct event_truth *event = &sim->ledger->events[i];
        bool committed = false;
        for (uint8_t place = 0; place < event->places; place++)
            committed |= record_of(sim, event->at[place].stream, event->at[place].seq)->commits > 0;
        if (event->acknowledged && !event->fallible && !committed)
            sim_violation(sim, "lost: event %u, acknowledged, never came to Kafka", i);
    }
}
