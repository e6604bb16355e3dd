// What becomes of the events of a request that meet the window of ids: real bodies, a real window, real records; only
// the HTTP request, the spool and Kafka are played by the test.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gateway/ingest_internal.h"

struct world {
    struct ingest *ingest; // one loop
    struct dedupe *dedupe;
    struct dedupe_key key;
    struct config_source source;
    struct route route;
    struct json_pointer *pointers[2];
    struct loop_batch batch;
    uint64_t next_seq;
};

static struct json_pointer *pointer(const char *text)
{
    struct json_pointer *compiled;
    struct sl_error err;
    assert_true(json_pointer_compile(&compiled, text, &err));
    return compiled;
}

static void open_world(struct world *world)
{
    struct sl_error err;
    *world = (struct world){.next_seq = 1};
    world->ingest = calloc(1, sizeof(*world->ingest) + sizeof(struct ingest_loop));
    struct dedupe_options options = {
        .memory_bytes = dedupe_memory_min(), .window_ns = 3600 * SL_NS_PER_S, .now_wall_ns = sl_wall_ns()};
    assert_true(dedupe_new(&world->dedupe, &options, &err));
    memset(world->key.bytes, 7, sizeof(world->key.bytes));
    dedupe_key_derive(&world->key);
    world->ingest->dedupe = world->dedupe;
    world->ingest->key = &world->key;
    world->ingest->older = calloc(OLDER_ORIGINS_MAX, sizeof(*world->ingest->older));
    pthread_mutex_init(&world->ingest->own_lock, NULL);
    ingest_open_stream(world->ingest, 0, "gw.1-00000001");
    world->ingest->loop_count = 1;
    struct ingest_loop *loop = &world->ingest->loops[0];
    loop->ingest = world->ingest;
    loop->parser = json_parser_new(1 << 16, 64);
    world->pointers[0] = pointer("/id");
    world->pointers[1] = pointer("/b");
    world->source = (struct config_source){.name = "s",
                                           .topic = "t",
                                           .lane = "main",
                                           .id_parts = {{.from = ID_FROM_POINTER, .pointer = world->pointers[0]}},
                                           .id_part_count = 1,
                                           .business_fields = {world->pointers[1]}};
    world->route = (struct route){.source = &world->source,
                                  .name = sl_span_of("s"),
                                  .lane_name = sl_span_of("main"),
                                  .topic = sl_span_of("t"),
                                  .lanes_ever = 1,
                                  .pointers = {world->pointers[0], NULL, NULL, world->pointers[1]},
                                  .pointer_count = 3,
                                  .key_index = 1,
                                  .time_index = 2,
                                  .business_index = 3};
    world->batch.loop = loop;
}

static void with_business(struct world *world, enum config_on_business action)
{
    world->source.business_field_count = 1;
    world->source.on_business = action;
    world->route.pointer_count = 4;
}

static void close_world(struct world *world)
{
    struct ingest_loop *loop = &world->ingest->loops[0];
    json_parser_free(loop->parser);
    ingest_dedupe_free(loop);
    pthread_mutex_destroy(&world->ingest->own_lock);
    free(world->ingest->older);
    free(world->ingest);
    dedupe_free(world->dedupe);
    json_pointer_free(world->pointers[0]);
    json_pointer_free(world->pointers[1]);
    record_buffer_free(&world->batch.spool.records);
    free(world->batch.held);
}

// One request through walk and claims. On anything but CLAIMS_TAKEN its records are cut back, as the caller does.
struct request {
    struct waiter waiter;
    struct intake intake;
    enum claims_result result;
};

static void take(struct world *world, struct request *request, const char *lines)
{
    static char body[4096 + JSON_PADDING];
    size_t length = strlen(lines);
    assert_true(length < 4096);
    memcpy(body, lines, length + 1);
    struct record_buffer *records = &world->batch.spool.records;
    size_t offset = records->length;
    uint32_t first = records->count;
    request->intake = (struct intake){
        .loop = &world->ingest->loops[0], .route = &world->route, .records = records, .received_wall_ns = sl_wall_ns()};
    struct sl_span span = {.bytes = body, .length = length};
    assert_int_equal(intake_run(&request->intake, JSON_SHAPE_LINES, span), INTAKE_OK);
    request->result = intake_claim(&request->intake, &world->batch, offset, first);
    if (request->result != CLAIMS_TAKEN)
        record_buffer_cut(records, offset, first);
    request->waiter = (struct waiter){.loop = &world->ingest->loops[0],
                                      .count = request->intake.count,
                                      .first_index = first,
                                      .stored = records->count - first,
                                      .quarantined = request->intake.quarantined,
                                      .originals = request->intake.originals,
                                      .lanes_ever = world->route.lanes_ever,
                                      .level = world->source.ack};
}

static void expect_taken(struct world *world, const char *lines, uint32_t stored, uint32_t duplicates,
                         uint32_t quarantined)
{
    struct request request;
    take(world, &request, lines);
    assert_int_equal(request.result, CLAIMS_TAKEN);
    assert_int_equal(request.waiter.stored, stored);
    assert_int_equal(request.waiter.count - request.waiter.stored, duplicates);
    assert_int_equal(request.waiter.quarantined, quarantined);
    free(request.intake.originals);
}

static void end_batch(struct world *world, bool synced)
{
    struct loop_batch *batch = &world->batch;
    batch->spool.first_seq = world->next_seq;
    if (synced) {
        world->next_seq += batch->spool.records.count;
        ingest_settle_claims(batch);
    } else {
        ingest_forget_claims(batch, 0);
    }
    assert_int_equal(batch->held_count, 0);
    record_buffer_cut(&batch->spool.records, 0, 0);
}

// The kinds, flags and event ids of the batch's records, as "id" or "id/flags".
static void expect_records(const struct world *world, const char *expected)
{
    char text[1024] = "";
    size_t used = 0;
    const struct record_buffer *records = &world->batch.spool.records;
    struct sl_reader reader = sl_reader_of(records->bytes, records->length);
    struct record record;
    while (record_next(&reader, &record)) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%.*s", used > 0 ? " " : "",
                                 (int)record.event_id.length, (const char *)record.event_id.bytes);
        if (record.kind != RECORD_EVENT || record.flags != 0)
            used += (size_t)snprintf(text + used, sizeof(text) - used, "/%s%u",
                                     record.kind == RECORD_QUARANTINED ? "q" : "", record.flags);
    }
    assert_false(reader.failed);
    assert_string_equal(text, expected);
}

static void test_duplicates_leave_the_batch(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    expect_taken(&world, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{ \"id\" : \"a\" }\n{\"id\":\"c\"}\n{\"id\":\"c\"}\n", 3, 2,
                 0);
    expect_records(&world, "a b c");
    expect_taken(&world, "{\"id\":\"b\"}\n{\"id\":\"d\"}\n", 1, 1, 0);
    expect_records(&world, "a b c d");
    end_batch(&world, true);
    expect_taken(&world, "{\"id\":\"d\"}\n{\"id\":\"a\"}\n", 0, 2, 0);
    expect_records(&world, "");
    close_world(&world);
}

static void test_a_failed_batch_is_forgotten(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    expect_taken(&world, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n", 2, 0, 0);
    end_batch(&world, false);
    expect_taken(&world, "{\"id\":\"a\",\"x\":1}\n{\"id\":\"b\"}\n", 2, 0, 0);
    close_world(&world);
}

static void test_a_duplicate_gets_its_originals_fate(void **state)
{
    (void)state;
    for (int synced = 0; synced < 2; synced++) {
        struct world world;
        struct request first, again;
        open_world(&world);
        take(&world, &first, "{\"id\":\"a\"}\n");
        assert_null(first.intake.originals);
        take(&world, &again, "{\"id\":\"a\"}\n");
        assert_non_null(again.waiter.originals);
        assert_int_equal(ingest_decide_originals(&again.waiter), ACK_WAIT);
        end_batch(&world, synced);
        assert_int_equal(ingest_decide_originals(&again.waiter), synced ? ACK_GIVE : ACK_REFUSE);
        free(again.waiter.originals);
        // What is durable now needs no waiting; what is gone is new.
        take(&world, &again, "{\"id\":\"a\"}\n");
        assert_int_equal(again.waiter.stored, !synced);
        assert_null(again.waiter.originals);
        close_world(&world);
    }
}

static void test_level_kafka(void **state)
{
    (void)state;
    struct world world;
    struct request again;
    open_world(&world);
    world.source.ack = ACK_KAFKA;
    world.next_seq = 40;
    expect_taken(&world, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n", 2, 0, 0);
    take(&world, &again, "{\"id\":\"b\"}\n{\"id\":\"a\"}\n");
    end_batch(&world, true);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_WAIT);
    assert_int_equal(again.waiter.originals->own_through, 41);
    atomic_store(&world.ingest->own[0].committed[0], 40);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_WAIT);
    // A lane that the source had before counts as well: the original may have gone there.
    again.waiter.lanes_ever = 1 | 1 << 3;
    atomic_store(&world.ingest->own[0].committed[0], 41);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_WAIT);
    atomic_store(&world.ingest->own[0].committed[3], 50);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_GIVE);
    free(again.waiter.originals);

    uint32_t origin = ingest_name_origin(world.ingest, "gw.0-00000001");
    struct dedupe_id id = dedupe_id_of(&world.key, DEDUPE_EVENT, sl_span_of("s"), sl_span_of("c"));
    dedupe_insert(world.dedupe, &id, dedupe_payload_hash(&world.key, sl_span_of("{\"id\":\"c\"}")), sl_wall_ns(),
                  origin, 900);
    take(&world, &again, "{\"id\":\"c\"}\n");
    assert_int_equal(again.waiter.stored, 0);
    atomic_store(&world.ingest->own[0].committed[0], 1000); // of another stream: says nothing
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_WAIT);
    ingest_note_older(world.ingest, origin, "gw.0-00000001", 899);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_WAIT);
    ingest_note_older(world.ingest, origin, "gw.0-00000001", 900);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_GIVE);
    free(again.waiter.originals);
    close_world(&world);
}

// Stored here, it is given when another zone has it or Kafka; and a stream that was sealed meanwhile keeps its own
// positions.
static void test_level_az2(void **state)
{
    (void)state;
    struct world world;
    struct request again;
    open_world(&world);
    world.source.ack = ACK_AZ2;
    expect_taken(&world, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n", 2, 0, 0);
    end_batch(&world, true);
    take(&world, &again, "{\"id\":\"b\"}\n");
    ingest_note_peer(world.ingest, 0, 1);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_WAIT);
    // The stream is sealed; of the new one other zones have everything.
    ingest_open_stream(world.ingest, 1, "gw.2-00000002");
    world.batch.spool.incarnation = 1;
    world.next_seq = 1;
    expect_taken(&world, "{\"id\":\"c\"}\n{\"id\":\"d\"}\n", 2, 0, 0);
    end_batch(&world, true);
    ingest_note_peer(world.ingest, 1, 2);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_WAIT);
    atomic_store(&world.ingest->own[0].committed[0], 2);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_GIVE);
    free(again.waiter.originals);
    take(&world, &again, "{\"id\":\"d\"}\n{\"id\":\"b\"}\n");
    assert_int_equal(again.waiter.stored, 0);
    assert_null(again.waiter.originals);
    atomic_store(&world.ingest->own[0].committed[0], 1);
    take(&world, &again, "{\"id\":\"b\"}\n{\"id\":\"d\"}\n");
    assert_int_equal(again.waiter.originals->count, 1); // of the old stream
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_WAIT);
    ingest_note_peer(world.ingest, 0, 2);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_GIVE);
    free(again.waiter.originals);
    close_world(&world);
}

// Claimed in one stream, and stored in the next one because the old one was sealed in between.
static void test_a_pending_original_moves_to_the_next_stream(void **state)
{
    (void)state;
    struct world world;
    struct request again;
    open_world(&world);
    world.source.ack = ACK_AZ2;
    ingest_note_peer(world.ingest, 0, 100);
    expect_taken(&world, "{\"id\":\"a\"}\n", 1, 0, 0);
    take(&world, &again, "{\"id\":\"a\"}\n");
    ingest_open_stream(world.ingest, 1, "gw.2-00000002");
    world.batch.spool.incarnation = 1;
    end_batch(&world, true);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_WAIT);
    assert_int_equal(again.waiter.originals->own_through, 0);
    ingest_note_peer(world.ingest, 1, 1);
    assert_int_equal(ingest_decide_originals(&again.waiter), ACK_GIVE);
    free(again.waiter.originals);
    close_world(&world);
}

static void test_a_rejected_conflict_leaves_nothing(void **state)
{
    (void)state;
    struct world world;
    struct request request;
    open_world(&world);
    expect_taken(&world, "{\"id\":\"a\",\"n\":1}\n", 1, 0, 0);
    take(&world, &request, "{\"id\":\"b\"}\n{\"id\":\"a\",\"n\":1.0}\n{\"id\":\"c\"}\n");
    assert_int_equal(request.result, CLAIMS_CONFLICT);
    assert_int_equal(request.intake.conflict_index, 1);
    assert_int_equal(world.batch.held_count, 1);
    expect_records(&world, "a");
    // Not answered before the original is durable.
    assert_int_equal(ingest_decide_originals(&request.waiter), ACK_WAIT);
    expect_taken(&world, "{\"id\":\"b\",\"other\":1}\n{\"id\":\"c\"}\n", 2, 0, 0);
    end_batch(&world, true);
    assert_int_equal(ingest_decide_originals(&request.waiter), ACK_GIVE);
    free(request.waiter.originals);
    take(&world, &request, "{\"id\":\"a\",\"n\":2}\n");
    assert_int_equal(request.result, CLAIMS_CONFLICT);
    assert_null(request.intake.originals);
    take(&world, &request, "{\"id\":\"d\"}\n{\"id\":\"d\",\"n\":1}\n");
    assert_int_equal(request.result, CLAIMS_CONFLICT_WITHIN);
    assert_null(request.intake.originals);
    expect_taken(&world, "{\"id\":\"d\",\"n\":1}\n", 1, 0, 0);
    close_world(&world);
}

static void test_a_quarantined_conflict_is_stored_once(void **state)
{
    (void)state;
    struct world world;
    struct request request;
    open_world(&world);
    world.source.on_conflict = CONFLICT_QUARANTINE;
    take(&world, &request,
         "{\"id\":\"a\"}\n{\"id\":\"a\",\"n\":1}\n{\"id\":\"a\",\"n\":1}\n{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
    assert_int_equal(request.result, CLAIMS_TAKEN);
    assert_int_equal(request.waiter.stored, 3);
    assert_int_equal(request.waiter.quarantined, 1);
    expect_records(&world, "a a/q8 b");
    assert_int_equal(ingest_decide_originals(&request.waiter), ACK_WAIT);
    end_batch(&world, true);
    assert_int_equal(ingest_decide_originals(&request.waiter), ACK_GIVE);
    free(request.waiter.originals);
    expect_taken(&world, "{\"id\":\"a\",\"n\":1}\n{\"id\":\"a\",\"n\":2}\n", 1, 1, 1);
    close_world(&world);
}

static void test_business_keys(void **state)
{
    (void)state;
    static const struct {
        enum config_on_business action;
        uint32_t stored, duplicates, quarantined;
        const char *records;
    } cases[] = {
        {BUSINESS_FLAG, 5, 0, 0, "1 2/4 3 4 5"},
        {BUSINESS_QUARANTINE, 5, 0, 1, "1 2/q16 3 4 5"},
        {BUSINESS_DROP, 4, 1, 0, "1 3 4 5"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world world;
        open_world(&world);
        with_business(&world, cases[i].action);
        // Another id; another value; no field at all, twice.
        expect_taken(&world, "{\"id\":1,\"b\":5}\n{\"id\":2,\"b\":5}\n{\"id\":3,\"b\":\"5\"}\n{\"id\":4}\n{\"id\":5}\n",
                     cases[i].stored, cases[i].duplicates, cases[i].quarantined);
        expect_records(&world, cases[i].records);
        end_batch(&world, true);
        // Sent again: the ids are known, but for a dropped one, which is dropped again.
        expect_taken(&world, "{\"id\":1,\"b\":5}\n{\"id\":2,\"b\":5}\n", 0, 2, 0);
        close_world(&world);
    }
}

static void test_a_refused_request_frees_its_business_keys(void **state)
{
    (void)state;
    struct world world;
    struct request request;
    open_world(&world);
    with_business(&world, BUSINESS_DROP);
    take(&world, &request, "{\"id\":1,\"b\":5}\n{\"id\":2}\n{\"id\":2,\"x\":1}\n");
    assert_int_equal(request.result, CLAIMS_CONFLICT_WITHIN);
    expect_taken(&world, "{\"id\":7,\"b\":5}\n", 1, 0, 0);
    end_batch(&world, false);
    expect_taken(&world, "{\"id\":8,\"b\":5}\n", 1, 0, 0);
    close_world(&world);
}

// A drop waits for the event that it is a duplicate of.
static void test_a_dropped_business_duplicate_waits(void **state)
{
    (void)state;
    for (int synced = 0; synced < 2; synced++) {
        struct world world;
        struct request second;
        open_world(&world);
        with_business(&world, BUSINESS_DROP);
        expect_taken(&world, "{\"id\":1,\"b\":5}\n", 1, 0, 0);
        take(&world, &second, "{\"id\":2,\"b\":5}\n");
        assert_int_equal(second.waiter.stored, 0);
        assert_int_equal(ingest_decide_originals(&second.waiter), ACK_WAIT);
        end_batch(&world, synced);
        assert_int_equal(ingest_decide_originals(&second.waiter), synced ? ACK_GIVE : ACK_REFUSE);
        free(second.waiter.originals);
        close_world(&world);
    }
}

// Random requests over few ids, with random ends of batches, against what each id should be.
static void test_against_a_model(void **state)
{
    (void)state;
    enum { IDS = 12, STEPS = 20000 };
    struct world world;
    open_world(&world);
    int payload[IDS]; // -1: not known; of a pending one in the batch, too
    bool durable[IDS] = {false};
    for (int i = 0; i < IDS; i++)
        payload[i] = -1;
    uint32_t random = 2463534242;
    for (int step = 0; step < STEPS; step++) {
        char lines[1024];
        size_t used = 0;
        int next[IDS];
        memcpy(next, payload, sizeof(next));
        uint32_t stored = 0, count = 0;
        bool conflict = false;
        random ^= random << 13, random ^= random >> 17, random ^= random << 5;
        for (uint32_t i = 0; i < 1 + random % 4; i++) {
            uint32_t chance = random * (2 * i + 1) + i * 0x9e3779b9;
            int id = (int)(chance >> 8) % IDS, value = (chance >> 20) % 8 == 0;
            id = id < 0 ? -id : id;
            used += (size_t)snprintf(lines + used, sizeof(lines) - used, "{\"id\":%d,\"v\":%d}\n", id, value);
            count++;
            conflict = conflict || (next[id] >= 0 && next[id] != value);
            stored += next[id] < 0;
            if (next[id] < 0)
                next[id] = value;
        }
        struct request request;
        uint32_t before = world.batch.spool.records.count;
        take(&world, &request, lines);
        assert_int_equal(request.result == CLAIMS_TAKEN, !conflict);
        free(request.intake.originals);
        if (!conflict) {
            assert_int_equal(world.batch.spool.records.count - before, stored);
            assert_int_equal(request.intake.count, count);
            memcpy(payload, next, sizeof(payload));
        }
        if (step % 5 != 0)
            continue;
        bool synced = (random >> 16) % 4 != 0;
        end_batch(&world, synced);
        for (int i = 0; i < IDS; i++) {
            if (payload[i] >= 0 && !durable[i] && !synced)
                payload[i] = -1;
            durable[i] = payload[i] >= 0;
        }
        // Let some go, so that new ones keep coming: a window of its own would take an hour.
        if (step % 100 == 0) {
            close_world(&world);
            open_world(&world);
            for (int i = 0; i < IDS; i++) {
                payload[i] = -1;
                durable[i] = false;
            }
        }
    }
    close_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_duplicates_leave_the_batch),
        cmocka_unit_test(test_a_failed_batch_is_forgotten),
        cmocka_unit_test(test_a_duplicate_gets_its_originals_fate),
        cmocka_unit_test(test_level_kafka),
        cmocka_unit_test(test_level_az2),
        cmocka_unit_test(test_a_pending_original_moves_to_the_next_stream),
        cmocka_unit_test(test_a_rejected_conflict_leaves_nothing),
        cmocka_unit_test(test_a_quarantined_conflict_is_stored_once),
        cmocka_unit_test(test_business_keys),
        cmocka_unit_test(test_a_refused_request_frees_its_business_keys),
        cmocka_unit_test(test_a_dropped_business_duplicate_waits),
        cmocka_unit_test(test_against_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
