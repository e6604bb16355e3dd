// The node's own streams: the real spool over a disk in memory, stepped by events.
#include "tests/sim/node.h"

#include "base/crc32c.h"

#include <stdlib.h>
#include <string.h>

struct batch {
    struct spool_batch batch; // first
    struct node *node;
    uint32_t stream;
    uint64_t seq;
};

static int64_t wall(void *context)
{
    const struct node *node = context;
    return INT64_C(1700000000) * S + node->sim->now_ns + node->wall_offset_ns;
}

static int64_t monotonic(void *context)
{
    return node_now(context);
}

static void chance(void *context, void *bytes, size_t length)
{
    struct node *node = context;
    uint8_t *out = bytes;
    for (size_t i = 0; i < length; i++)
        out[i] = (uint8_t)(sim_chance(node->sim) >> 24);
}

void local_environment(struct node *node)
{
    node->environment =
        (struct spool_environment){.wall_ns = wall, .monotonic_ns = monotonic, .random = chance, .context = node};
}

static void exit_process(struct sim *sim, void *arg)
{
    struct node *node = sim->nodes[*(uint8_t *)arg];
    sim_note(sim, "node %u exits: its disk failed", node->index);
    node_crash(node, DISK_KEEP_ALL, false);
    // Whoever restarts it does so whenever it ends, also in the midst of a healing.
    node_boot_later(sim, node->index, sim->calm || sim->healing ? S : sim_between(sim, S, 20 * S));
}

static void on_failed(void *user, const struct sl_error *err)
{
    struct node *node = user;
    (void)err;
    if (node->dying)
        return;
    sim_at_node(node->sim, node, sim_between(node->sim, 0, 200 * MS), exit_process, &node->index, 1);
}

// The highest number of this node's streams that a peer in reach knows: a new disk must not give it again.
static uint64_t highest_known(const struct node *node)
{
    struct sim *sim = node->sim;
    uint64_t highest = 0;
    for (uint8_t i = 0; i < NODES; i++) {
        const struct node *peer = sim->nodes[i];
        if (peer == NULL || peer == node || !peer->up || peer->frozen_until_ns > sim->now_ns ||
            !sim->link[i][node->index] || !sim->link[node->index][i])
            continue;
        for (size_t k = 0; k < COPIES_MAX; k++) {
            const struct copy *copy = &peer->shelf.copies[k];
            struct ha_id id = copy->used ? ledger_at(sim, copy->stream)->id : (struct ha_id){0};
            if (copy->used && id.member == node->index && id.counter > highest)
                highest = id.counter;
        }
    }
    return highest;
}

static bool id_of(struct node *node, const char *text, uint32_t *stream)
{
    struct ha_id id;
    if (!ha_id_parse(&id, text, node_names, NODES))
        return false;
    *stream = ledger_stream(node->sim, id);
    return true;
}

static size_t infos(struct node *node, struct spool_stream_info **out)
{
    static struct spool_stream_info all[STREAMS_MAX];
    *out = all;
    if (node->spool == NULL)
        return 0;
    size_t count = spool_streams(node->spool, all, STREAMS_MAX);
    return count < STREAMS_MAX ? count : STREAMS_MAX;
}

// The ledger learns of the stream that is written from now on.
static void note_current(struct node *node)
{
    struct spool_stream_info info;
    bool known = spool_stream_find(node->spool, spool_stream(node->spool), &info) && info.current &&
                 id_of(node, info.id, &node->current);
    sl_assert(known);
    struct stream_truth *truth = ledger_at(node->sim, node->current);
    truth->boot = node->boot;
    uint32_t of;
    if (info.predecessor[0] != '\0' && id_of(node, info.predecessor, &of)) {
        const struct copy *copy = shelf_find(node, of); // what a peer gave back of it
        truth->predecessor = of + 1;
        truth->predecessor_seq = info.predecessor_seq;
        if (copy != NULL && copy->end > truth->predecessor_seq)
            truth->predecessor_seq = copy->end;
    }
    node->submitted = 0;
    sim_note(node->sim, "node %u writes %s", node->index, truth->text);
}

bool local_open(struct node *node)
{
    struct spool_options options = {.storage = &node->storage,
                                    .dir = "/spool",
                                    .node = node_names[node->index],
                                    .segment_bytes = 1 << 20,
                                    .max_bytes = 8 << 20,
                                    .retain_ns = 4 * S,
                                    .prepared = 1,
                                    .append_bytes = 1 << 20,
                                    .lanes = lane_names,
                                    .lane_count = LANES,
                                    .on_failed = on_failed,
                                    .user = node,
                                    .environment = &node->environment,
                                    .counter_min = highest_known(node) + 1,
                                    .manual = true};
    struct sl_error err;
    if (!spool_open(&node->spool, &options, &err)) {
        node->spool = NULL;
        sim_note(node->sim, "node %u: %s", node->index, err.text);
        return false;
    }
    note_current(node);
    for (int i = 0; i < 20000; i++) // older streams are walked
        if (!spool_step_keeper(node->spool))
            break;
    struct spool_stream_info *all;
    size_t count = infos(node, &all);
    // What the spool counted is what it kept of it.
    memset(node->noted, 0, sizeof(node->noted));
    for (size_t i = 0; i < count; i++) {
        uint32_t stream;
        for (uint32_t lane = 0; id_of(node, all[i].id, &stream) && lane < all[i].lane_count; lane++)
            node->noted[stream][lane] = all[i].verified[lane];
    }
    return true;
}

// What was submitted is the old stream's: the ledger has it there.
static bool write_out(struct node *node)
{
    for (int i = 0; i < 64 && spool_synced_seq(node->spool) < node->submitted; i++)
        if (!spool_step_writer(node->spool) && !spool_step_keeper(node->spool))
            break;
    return spool_synced_seq(node->spool) == node->submitted;
}

bool local_next(struct node *node)
{
    struct sl_error err;
    if (!write_out(node))
        return false;
    if (!spool_next_stream(node->spool, &err)) {
        sim_note(node->sim, "node %u: %s", node->index, err.text);
        return false;
    }
    note_current(node);
    return true;
}

// The header of a stream names the one before with its true end, although that was not walked then.
static void check_predecessor(struct node *node)
{
    struct spool_stream_info current, before;
    if (spool_stream_find(node->spool, spool_stream(node->spool), &current) &&
        spool_stream_find(node->spool, current.predecessor, &before) && before.end_seq != current.predecessor_seq)
        sim_violation(node->sim, "node %u: %s says %llu of its predecessor, which ends at %llu", node->index,
                      current.id, (unsigned long long)current.predecessor_seq, (unsigned long long)before.end_seq);
}

void local_check(struct node *node)
{
    check_predecessor(node);
    struct spool_stream_info *all;
    size_t count = infos(node, &all);
    // What the ledger says is on this disk must be there.
    static bool found[STREAMS_MAX];
    memset(found, 0, sizeof(found));
    for (size_t i = 0; i < count; i++) {
        uint32_t stream;
        if (!id_of(node, all[i].id, &stream) || all[i].current)
            continue;
        found[stream] = true;
        sl_assert(all[i].scanned);
        uint64_t base, end;
        node_range(node, stream, &base, &end);
        ledger_found(node->sim, stream, base, end, node->index);
        if (all[i].damaged > 0)
            sim_violation(node->sim, "node %u: %llu records of %s damaged", node->index,
                          (unsigned long long)all[i].damaged, all[i].id);
    }
    for (uint32_t i = 0; i < node->sim->ledger->stream_count; i++)
        if (!found[i] && ledger_at(node->sim, i)->id.member == node->index && i != node->current) {
            uint64_t base, end;
            node_range(node, i, &base, &end);
            ledger_found(node->sim, i, base, end, node->index);
        }
}

// ---- appending

static void done(struct spool_batch *of)
{
    struct batch *batch = (struct batch *)(void *)of;
    struct node *node = batch->node;
    if (of->outcome == SPOOL_SYNCED) {
        sl_assert(of->first_seq == batch->seq);
        ledger_durable(node->sim, batch->stream, batch->seq, batch->seq, node->index);
        if (!node->dying)
            ha_synced(&node->core, node_now(node), ledger_at(node->sim, batch->stream)->id, batch->seq);
    }
    record_buffer_free(&of->records);
    free(batch);
}

static void write_now(struct sim *sim, void *arg)
{
    struct node *node = sim->nodes[*(uint8_t *)arg];
    node->writing = false;
    if (node->spool == NULL)
        return;
    for (int i = 0; i < 16; i++)
        if (!spool_step_writer(node->spool) && !spool_step_keeper(node->spool))
            break;
    node_after(node);
}

static void schedule_write(struct node *node)
{
    if (node->writing)
        return;
    node->writing = true;
    int64_t disk_ns = sim_between(node->sim, MS / 10, 2 * MS) + node->slow_disk_ns;
    sim_at_node(node->sim, node, disk_ns, write_now, &node->index, 1);
}

bool local_submit(struct node *node, uint32_t event)
{
    struct sim *sim = node->sim;
    const struct event_truth *truth = &sim->ledger->events[event];
    char payload[64];
    size_t length = (size_t)snprintf(payload, sizeof(payload), "{\"event\":%u}", event);
    if (node->spool == NULL || spool_admit(node->spool, 4096, SPOOL_PRIORITY_HIGH) != SPOOL_ADMITTED)
        return false;
    struct batch *batch = calloc(1, sizeof(*batch));
    sl_assert(batch != NULL);
    struct record record = {.kind = RECORD_EVENT,
                            .received_wall_ns = 1,
                            .payload_crc = sl_crc32c(payload, length),
                            .source = sl_span_of("sim"),
                            .lane = sl_span_of(lane_names[truth->lane]),
                            .topic = sl_span_of("sim.events"),
                            .payload = {.bytes = payload, .length = length}};
    bool fits = record_append(&batch->batch.records, &record, NULL, 0);
    sl_assert(fits);
    batch->batch.lane_counts[spool_lane_index(node->spool, lane_names[truth->lane])] = 1;
    batch->batch.done = done;
    batch->node = node;
    batch->stream = node->current;
    batch->seq = node->submitted + 1;
    if (!spool_submit(node->spool, &batch->batch)) {
        record_buffer_free(&batch->batch.records);
        free(batch);
        return false;
    }
    node->submitted++;
    ledger_append(sim, node->current, node->submitted, event);
    schedule_write(node);
    return true;
}

void local_step(struct node *node)
{
    if (node->spool == NULL)
        return;
    for (int i = 0; i < 8; i++)
        if (!spool_step_keeper(node->spool))
            break;
    if (!node->writing && spool_synced_seq(node->spool) < node->submitted)
        schedule_write(node);
}

// ---- the end

void local_close(struct node *node)
{
    struct sl_error err;
    if (node->spool != NULL && !spool_close(node->spool, &err))
        sim_note(node->sim, "node %u: close: %s", node->index, err.text);
    node->spool = NULL;
}

void local_crash(struct node *node, enum disk_crash what)
{
    struct sim *sim = node->sim;
    // In the middle of a write, too.
    if (node->spool != NULL && node->writing && sim_often(sim, 500)) {
        disk_stop_after(node->disk, (uint64_t)sim_between(sim, 1, 3));
        spool_step_writer(node->spool);
    } else if (node->spool != NULL && spool_synced_seq(node->spool) == node->submitted && sim_often(sim, 200)) {
        struct sl_error err; // and of a change of streams, of which only the disk learns
        disk_stop_after(node->disk, (uint64_t)sim_between(sim, 1, 20));
        (void)!spool_next_stream(node->spool, &err);
    }
    struct disk *after = disk_crash(node->disk, what, sim_chance(sim));
    disk_stop_after(node->disk, 1);
    local_close(node);
    disk_free(node->disk);
    node->disk = after;
    struct storage inner = disk_storage(after);
    fault_init(&node->fault, &inner);
    node->storage = fault_storage(&node->fault);
    node->writing = false;
}

// ---- reading

void local_range(struct node *node, uint32_t stream, uint64_t *base, uint64_t *end)
{
    *base = 1;
    *end = 0;
    const char *text = ledger_at(node->sim, stream)->text;
    struct spool_stream_info *all;
    size_t count = infos(node, &all);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(all[i].id, text) != 0)
            continue;
        // Records behind what is verified in every lane are never deleted.
        uint64_t verified = UINT64_MAX;
        for (uint32_t lane = 0; lane < all[i].lane_count; lane++)
            verified = all[i].verified[lane] < verified ? all[i].verified[lane] : verified;
        *end = all[i].end_seq;
        *base = (verified < *end ? verified : *end) + 1;
    }
}

static bool check_record(struct node *node, uint32_t stream, uint64_t seq, const struct record *record)
{
    const struct stream_truth *truth = ledger_at(node->sim, stream);
    char expected[64];
    size_t length = (size_t)snprintf(expected, sizeof(expected), "{\"event\":%u}", truth->records[seq].event);
    if (record->payload.length == length && memcmp(record->payload.bytes, expected, length) == 0)
        return true;
    sim_violation(node->sim, "node %u reads something else at %s %llu", node->index, truth->text,
                  (unsigned long long)seq);
    return false;
}

struct gather {
    uint32_t stream;
    uint8_t lane;
    uint64_t from, to, *seqs, through;
    uint32_t most, count;
};

// False: there is enough.
static bool take_frame(struct node *node, const struct spool_frame *frame, struct gather *gather)
{
    struct sl_reader reader = sl_reader_of(frame->body, frame->header.body_length);
    struct record record;
    for (uint64_t seq = frame->header.first_seq; record_next(&reader, &record); seq++) {
        if (seq < gather->from)
            continue;
        if (seq > gather->to || gather->count == gather->most || !check_record(node, gather->stream, seq, &record))
            return false;
        bool mine = record.lane.length == 2 && memcmp(record.lane.bytes, lane_names[gather->lane], 2) == 0;
        if (mine)
            gather->seqs[gather->count++] = seq;
        gather->through = seq;
    }
    return true;
}

static bool read_spool(struct node *node, struct gather *gather)
{
    struct spool_reader *reader;
    struct sl_error err;
    if (!spool_reader_open(&reader, node->spool, ledger_at(node->sim, gather->stream)->text, gather->from, &err))
        return false;
    bool more = true;
    while (more && gather->through < gather->to) {
        struct spool_frame *frame;
        struct spool_damage damage;
        enum spool_read read = spool_reader_next(reader, 0, &frame, &damage, &err);
        if (read != SPOOL_READ_FRAME) {
            if (read == SPOOL_READ_DAMAGED)
                sim_violation(node->sim, "node %u: damage in %s at %llu", node->index,
                              ledger_at(node->sim, gather->stream)->text, (unsigned long long)damage.first_seq);
            break;
        }
        more = take_frame(node, frame, gather);
        spool_frame_release(frame);
    }
    spool_reader_close(reader);
    return true;
}

bool node_read(struct node *node, uint32_t stream, uint8_t lane, uint64_t from, uint64_t to, uint64_t *seqs,
               uint32_t most, uint32_t *count, uint64_t *through)
{
    struct gather gather = {
        .stream = stream, .lane = lane, .from = from, .to = to, .seqs = seqs, .through = from - 1, .most = most};
    uint64_t base, end;
    local_range(node, stream, &base, &end);
    if (from <= end) {
        gather.to = to < end ? to : end;
        if (!read_spool(node, &gather))
            return false;
    }
    const struct copy *copy = shelf_find(node, stream);
    bool own = ledger_at(node->sim, stream)->id.member == node->index;
    if (own && end < base && copy == NULL)
        gather.through = to; // deleted meanwhile: nothing of it is left to produce
    if (copy != NULL && gather.through + 1 >= copy->base && gather.count < most) {
        const struct stream_truth *truth = ledger_at(node->sim, stream);
        for (uint64_t seq = gather.through + 1; seq <= copy->end && seq <= to && gather.count < most; seq++) {
            if (seq < copy->first)
                sim_violation(node->sim, "node %u: %s %llu is not in its copy, which is said to begin at %llu",
                              node->index, truth->text, (unsigned long long)seq, (unsigned long long)copy->base);
            if (truth->records[seq].lane == lane)
                seqs[gather.count++] = seq;
            gather.through = seq;
        }
    }
    *count = gather.count;
    *through = gather.through;
    return true;
}

// ---- progress

void local_tell_progress(struct node *node, uint32_t stream, uint8_t lane, uint64_t through)
{
    struct stream_truth *truth = ledger_at(node->sim, stream);
    if (node->spool == NULL || truth->id.member != node->index)
        return;
    uint64_t base, end, *noted = &node->noted[stream][lane];
    local_range(node, stream, &base, &end);
    through = through < end ? through : end;
    if (through <= *noted)
        return;
    uint64_t records = 0;
    for (uint64_t seq = *noted + 1; seq <= through; seq++)
        records += truth->records[seq].lane == lane;
    *noted = through;
    spool_note_committed(node->spool, truth->text, lane_names[lane], through, records);
    spool_note_verified(node->spool, truth->text, lane_names[lane], through);
}
