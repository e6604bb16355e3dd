#include "tests/spool/world.h"

#include "base/clock.h"
#include "base/crc32c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t world_wall(void *context)
{
    struct world *world = context;
    return atomic_fetch_add(&world->wall_ns, 1000);
}

static int64_t world_monotonic(void *context)
{
    struct world *world = context;
    return atomic_fetch_add(&world->monotonic_ns, 1000);
}

static void world_random(void *context, void *bytes, size_t length)
{
    struct world *world = context;
    uint8_t *out = bytes;
    for (size_t i = 0; i < length; i++) {
        uint64_t z = atomic_fetch_add(&world->chance, UINT64_C(0x9e3779b97f4a7c15));
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        out[i] = (uint8_t)(z >> 32);
    }
}

static void on_failed(void *user, const struct sl_error *err)
{
    struct world *world = user;
    sl_assert(err->code == SL_E_SYNC && err->text[0] != '\0');
    world->failures++;
}

void world_init(struct world *world, struct disk *disk)
{
    static const char *const lanes[] = {"main"};
    memset(world, 0, sizeof(*world));
    world->disk = disk;
    struct storage inner = disk_storage(disk);
    fault_init(&world->fault, &inner);
    world->storage = fault_storage(&world->fault);
    atomic_store(&world->wall_ns, INT64_C(1700000000) * SL_NS_PER_S);
    atomic_store(&world->monotonic_ns, SL_NS_PER_S);
    atomic_store(&world->chance, 42);
    world->environment = (struct spool_environment){
        .wall_ns = world_wall, .monotonic_ns = world_monotonic, .random = world_random, .context = world};
    world->options = (struct spool_options){.storage = &world->storage,
                                            .dir = "/spool",
                                            .node = "gw-a1",
                                            .segment_bytes = 1 << 20,
                                            .max_bytes = 64 << 20,
                                            .retain_ns = 3600 * SL_NS_PER_S,
                                            .prepared = 1,
                                            .append_bytes = 32 << 20,
                                            .lanes = lanes,
                                            .lane_count = 1,
                                            .on_failed = on_failed,
                                            .user = world,
                                            .environment = &world->environment,
                                            .manual = true};
}

void world_keep_ids(struct world *world)
{
    memcpy(world->options.ids_key_id, "test-key", sizeof(world->options.ids_key_id));
    world->options.ids_window_ns = 1000 * 3600 * SL_NS_PER_S;
}

bool world_open(struct world *world, struct sl_error *err)
{
    sl_assert(world->spool == NULL);
    if (spool_open(&world->spool, &world->options, err))
        return true;
    world->spool = NULL;
    return false;
}

void world_open_ok(struct world *world)
{
    struct sl_error err;
    if (!world_open(world, &err))
        sl_panic(__FILE__, __LINE__, err.text);
}

void world_settle(struct world *world)
{
    while (spool_step_keeper(world->spool)) {
    }
}

void world_advance(struct world *world, int64_t ns)
{
    atomic_fetch_add(&world->wall_ns, ns);
    atomic_fetch_add(&world->monotonic_ns, ns);
}

void world_free(struct world *world)
{
    struct sl_error err;
    if (world->spool != NULL && !spool_close(world->spool, &err))
        world->failures++;
    world->spool = NULL;
    if (disk_open_handles(world->disk) != 0)
        sl_panic(__FILE__, __LINE__, "a handle was left open");
    disk_free(world->disk);
}

int world_setup(void **state)
{
    struct world *world = malloc(sizeof(*world));
    sl_assert(world != NULL);
    world_init(world, disk_new(UINT64_C(256) << 20));
    *state = world;
    return 0;
}

int world_teardown(void **state)
{
    world_free(*state);
    free(*state);
    return 0;
}

void world_close_ok(struct world *world)
{
    struct sl_error err;
    if (!spool_close(world->spool, &err))
        sl_panic(__FILE__, __LINE__, err.text);
    world->spool = NULL;
}

void world_kill(struct world *world)
{
    struct disk *after = disk_crash(world->disk, DISK_KEEP_ALL, 0);
    disk_stop_after(world->disk, 1);
    struct sl_error err;
    (void)!spool_close(world->spool, &err); // whatever it tries, it does not reach the disk any more
    world->spool = NULL;
    disk_free(world->disk);
    struct spool_options options = world->options;
    int64_t wall_ns = world->wall_ns, monotonic_ns = world->monotonic_ns;
    uint64_t chance = world->chance;
    world_init(world, after);
    world->wall_ns = wall_ns;
    world->monotonic_ns = monotonic_ns;
    world->chance = chance;
    options.storage = &world->storage;
    world->options = options;
}

struct spool_stream_info world_stream_at(struct spool *spool, size_t index)
{
    struct spool_stream_info infos[16];
    size_t count = spool_streams(spool, infos, 16);
    sl_assert(index < count && count <= 16);
    return infos[index];
}

struct spool_stream_info world_stream_of(struct spool *spool, uint32_t incarnation)
{
    struct spool_stream_info info;
    const char *id = spool_incarnation_id(spool, incarnation);
    if (id == NULL || !spool_stream_find(spool, id, &info))
        sl_panic(__FILE__, __LINE__, "incarnation");
    return info;
}

void world_next_ok(struct world *world)
{
    struct sl_error err;
    if (!spool_next_stream(world->spool, &err))
        sl_panic(__FILE__, __LINE__, err.text);
}

// ---- batches

static void done(struct spool_batch *batch)
{
    struct sent *sent = (struct sent *)(void *)batch;
    sent->told++;
}

// "<number> <bytes that follow from the number>"
static size_t make_payload(char *out, size_t bytes, uint64_t id)
{
    int length = snprintf(out, 32, "%llu ", (unsigned long long)id);
    sl_assert(length > 0);
    for (size_t i = (size_t)length; i < bytes; i++)
        out[i] = (char)('a' + (id + i) % 26);
    return bytes > (size_t)length ? bytes : (size_t)length;
}

static uint64_t mixed(uint64_t id, uint64_t salt)
{
    uint64_t z = (id + salt) * UINT64_C(0x9e3779b97f4a7c15);
    return (z ^ (z >> 29)) | 1; // not zero
}

// No byte of it is zero, so that a sector of ids that was written is not taken for one that was not.
static void make_hash(uint8_t hash[RECORD_HASH_BYTES], uint64_t id, uint64_t salt)
{
    for (size_t i = 0; i < RECORD_HASH_BYTES; i++)
        hash[i] = (uint8_t)(mixed(id, salt + i) >> 32) | 1;
}

struct sent *sent_new(struct spool *spool, uint64_t first_id, uint32_t count, size_t payload_bytes, const char *lane)
{
    struct sent *sent = calloc(1, sizeof(*sent));
    char *payload = malloc(payload_bytes + 32);
    sl_assert(sent != NULL && payload != NULL);
    sent->first_id = first_id;
    sent->count = count;
    for (uint32_t i = 0; i < count; i++) {
        size_t length = make_payload(payload, payload_bytes, first_id + i);
        struct record record = {.kind = RECORD_EVENT,
                                .received_wall_ns = 1,
                                .payload_crc = sl_crc32c(payload, length),
                                .source = sl_span_of("test"),
                                .lane = sl_span_of(lane),
                                .topic = sl_span_of("test.events"),
                                .payload_hash = mixed(first_id + i, 7),
                                .has_business_hash = (first_id + i) % 5 == 0,
                                .payload = {.bytes = payload, .length = length}};
        make_hash(record.id_hash, first_id + i, 100);
        if (record.has_business_hash)
            make_hash(record.business_hash, first_id + i, 200);
        if (!record_append(&sent->batch.records, &record, NULL, 0))
            sl_panic(__FILE__, __LINE__, "record_append");
    }
    free(payload);
    sent->batch.lane_counts[spool_lane_index(spool, lane)] = count;
    sent->batch.done = done;
    return sent;
}

void sent_free(struct sent *sent)
{
    record_buffer_free(&sent->batch.records);
    free(sent);
}

bool world_send(struct world *world, struct sent *sent)
{
    if (!spool_submit(world->spool, &sent->batch))
        return false;
    for (unsigned seconds = 0; sent->told == 0;) {
        if (spool_step_writer(world->spool) || sent->told > 0 || spool_step_keeper(world->spool))
            continue;
        sl_assert(seconds++ < 100);
        world_advance(world, SL_NS_PER_S); // no space: the keeper tries again every second
    }
    sl_assert(sent->told == 1);
    return true;
}

void world_send_ok(struct world *world, uint64_t first_id, uint32_t count, size_t payload_bytes)
{
    struct sent *sent = sent_new(world->spool, first_id, count, payload_bytes, "main");
    if (!world_send(world, sent) || sent->batch.outcome != SPOOL_SYNCED)
        sl_panic(__FILE__, __LINE__, "send");
    sent_free(sent);
}

void world_fill(struct world *world, uint64_t count)
{
    for (uint64_t id = 0; id < count; id++) {
        world_send_ok(world, id, 1, 100 << 10);
        world_settle(world);
    }
}

// ---- reading back

bool record_id(const struct record *record, uint64_t *id)
{
    char *expected = malloc(record->payload.length + 32), *end;
    sl_assert(expected != NULL);
    memcpy(expected, record->payload.bytes, record->payload.length);
    expected[record->payload.length] = '\0';
    *id = strtoull(expected, &end, 10);
    size_t length = make_payload(expected, record->payload.length, *id);
    bool good = length == record->payload.length && memcmp(expected, record->payload.bytes, length) == 0 &&
                sl_crc32c(record->payload.bytes, length) == record->payload_crc;
    free(expected);
    return good;
}

static void take(struct read_stream *out, const struct spool_frame *frame)
{
    struct sl_reader reader = sl_reader_of(frame->body, frame->header.body_length);
    struct record record;
    uint64_t seq = frame->header.first_seq;
    out->records = realloc(out->records, (out->count + frame->header.count) * sizeof(*out->records));
    sl_assert(out->records != NULL);
    while (record_next(&reader, &record)) {
        struct read_record *read = &out->records[out->count++];
        read->seq = seq++;
        read->good = record_id(&record, &read->id);
    }
    sl_assert(!reader.failed && seq == frame->header.first_seq + frame->header.count);
}

void read_all(struct spool *spool, const char *stream, uint64_t from_seq, struct read_stream *out)
{
    memset(out, 0, sizeof(*out));
    struct spool_reader *reader;
    struct sl_error err;
    if (!spool_reader_open(&reader, spool, stream, from_seq, &err))
        sl_panic(__FILE__, __LINE__, err.text);
    for (;;) {
        struct spool_frame *frame;
        struct spool_damage damage;
        enum spool_read read = spool_reader_next(reader, 0, &frame, &damage, &err);
        if (read == SPOOL_READ_FRAME) {
            take(out, frame);
            spool_frame_release(frame);
        } else if (read == SPOOL_READ_DAMAGED) {
            sl_assert(out->damage_count < sizeof(out->damages) / sizeof(out->damages[0]));
            out->damages[out->damage_count++] = damage;
        } else {
            out->end = read;
            break;
        }
    }
    spool_reader_close(reader);
}

void read_free(struct read_stream *read)
{
    free(read->records);
    *read = (struct read_stream){0};
}

void world_expect_records(struct spool *spool, const char *stream, uint64_t first_id, size_t count)
{
    struct read_stream read;
    read_all(spool, stream, 1, &read);
    sl_assert(read.count == count && read.damage_count == 0);
    for (size_t i = 0; i < count; i++)
        sl_assert(read.records[i].good && read.records[i].seq == i + 1 && read.records[i].id == first_id + i);
    read_free(&read);
}

// ---- ids

struct collecting {
    struct read_ids *out;
    uint64_t first_id;
};

static bool collect(void *user, const struct spool_ids_unit *unit, const struct spool_ids_block *block)
{
    struct collecting *collecting = user;
    struct read_ids *out = collecting->out;
    uint32_t business = 0;
    sl_assert(block->count > 0 && block->first_seq >= unit->first_seq);
    sl_assert(block->first_seq + block->count - 1 <= unit->last_seq);
    sl_assert(block->first_received_wall_ns == 1 && block->last_received_wall_ns == 1);
    out->seqs = realloc(out->seqs, (out->count + block->count) * sizeof(*out->seqs));
    sl_assert(out->seqs != NULL);
    for (uint32_t i = 0; i < block->count; i++) {
        uint64_t seq = block->first_seq + i, id = collecting->first_id + seq - 1;
        uint8_t hash[RECORD_HASH_BYTES];
        make_hash(hash, id, 100);
        sl_assert(memcmp(hash, block->entries[i].id_hash, sizeof(hash)) == 0);
        sl_assert(block->entries[i].payload_hash == mixed(id, 7));
        if (id % 5 == 0) {
            make_hash(hash, id, 200);
            sl_assert(business < block->business_count && block->business[business].index == i);
            sl_assert(memcmp(hash, block->business[business++].hash, sizeof(hash)) == 0);
        }
        out->seqs[out->count++] = seq;
    }
    sl_assert(business == block->business_count);
    return true;
}

void read_ids(struct spool *spool, const char *stream, uint64_t after_seq, uint64_t first_id, struct read_ids *out)
{
    struct spool_ids_unit *units;
    size_t count;
    struct sl_error err;
    struct collecting collecting = {.out = out, .first_id = first_id};
    memset(out, 0, sizeof(*out));
    if (!spool_ids_list(spool, &units, &count, &err))
        sl_panic(__FILE__, __LINE__, err.text);
    for (size_t i = 0; i < count; i++) {
        struct spool_ids_result result;
        if (strcmp(units[i].stream, stream) != 0)
            continue;
        if (!spool_ids_read(spool, &units[i], after_seq, collect, &collecting, &result, &err))
            sl_panic(__FILE__, __LINE__, err.text);
        sl_assert(result.source != SPOOL_IDS_GONE && !result.stopped);
        out->units++;
        out->kept += units[i].kept;
        out->from_records += result.source == SPOOL_IDS_RECORDS;
        out->other_key += result.source == SPOOL_IDS_OTHER_KEY;
        out->damaged += result.damaged;
        out->bytes += result.bytes;
    }
    free(units);
}

void read_ids_free(struct read_ids *ids)
{
    free(ids->seqs);
    *ids = (struct read_ids){0};
}

void read_ids_expect(const struct read_ids *ids, uint64_t first, uint64_t last)
{
    sl_assert(ids->count == last + 1 - first);
    for (uint64_t i = 0; i < ids->count; i++)
        sl_assert(ids->seqs[i] == first + i);
}
