// The events of a request against the window of ids (dedupe/dedupe.h).
//
// Happy path: while the body is walked each event's identities are computed, put into its record, and the lines of the
// table that they need are called for. When the whole body has proved good, every id is claimed, in order. A new one's
// claim is held by the batch until its outcome is known; a duplicate's record leaves the batch, and the request waits
// for the first event of that id, unless that has reached the level already.
//
// Failure modes: a conflict that is to be rejected, a business key that another thread is deciding this instant, or no
// memory: all claims of the request are forgotten at once and nothing of it is stored. Whoever has met one of these
// claims meanwhile finds it gone and answers 503.
#include "gateway/ingest_internal.h"

#include <stdlib.h>

enum {
    SETTLE_AHEAD = 8,   // claims whose lines are on their way
    CLAIM_ATTEMPTS = 8, // dedupe_claim itself has waited some hundred turns before it says UNSURE
    TAKEN_KEEP = 4096,  // events: an idle loop keeps no more
    SCRATCH_KEEP_BYTES = 1 << 20,
    ORIGINALS_EACH = 2, // at most, of one event: its conflict and the conflict's own duplicate
};

static void *grown(void *list, size_t *capacity, size_t needed, size_t size)
{
    if (needed <= *capacity)
        return list;
    size_t more = *capacity < 64 ? 64 : *capacity * 2;
    if (more < needed)
        more = needed;
    void *larger = realloc(list, more * size);
    if (larger != NULL)
        *capacity = more;
    return larger;
}

static bool scratch_reserve(struct scratch *scratch, size_t length)
{
    uint8_t *bytes = grown(scratch->bytes, &scratch->capacity, length, 1);
    if (bytes != NULL)
        scratch->bytes = bytes;
    return bytes != NULL;
}

// ---- identities

static bool hash_payload(struct intake *intake, const struct json_event *event, uint64_t *out)
{
    struct ingest_loop *loop = intake->loop;
    struct sl_span payload = event->raw;
    if (!event->compact) {
        if (!scratch_reserve(&loop->compact, event->raw.length))
            return false;
        payload.bytes = loop->compact.bytes;
        payload.length = json_compact(loop->parser, event, loop->compact.bytes);
    }
    *out = dedupe_payload_hash(loop->ingest->key, payload);
    return true;
}

// The fields' values one after the other: kind, length, text. A missing field is not null, and 1 is not "1". No key
// when there is none of the fields, or one of them has no value of its own.
static bool business_key(struct intake *intake, const struct json_event *event, struct taken_event *taken)
{
    const struct route *route = intake->route;
    size_t fields = route->source->business_field_count, present = 0, length = 0;
    const struct json_value *values = &event->values[route->business_index];
    for (size_t i = 0; i < fields; i++) {
        if (values[i].kind == JSON_KIND_ARRAY || values[i].kind == JSON_KIND_OBJECT)
            return true;
        present += values[i].kind != JSON_KIND_ABSENT;
        length += 5 + values[i].text.length;
    }
    if (present == 0)
        return true;
    struct scratch *scratch = &intake->loop->business;
    if (!scratch_reserve(scratch, length))
        return false;
    struct sl_writer writer = sl_writer_of(scratch->bytes, length);
    for (size_t i = 0; i < fields; i++) {
        bool has_text = values[i].kind != JSON_KIND_ABSENT && values[i].kind != JSON_KIND_NULL;
        size_t text = has_text ? values[i].text.length : 0;
        sl_write_u8(&writer, (uint8_t)values[i].kind);
        sl_write_u32(&writer, (uint32_t)text);
        sl_write_bytes(&writer, values[i].text.bytes, text);
    }
    taken->business = dedupe_id_of(intake->loop->ingest->key, DEDUPE_BUSINESS, route->name,
                                   (struct sl_span){.bytes = scratch->bytes, .length = writer.position});
    taken->has_business = true;
    return true;
}

bool intake_identify(struct intake *intake, const struct json_event *event, struct sl_span same_id,
                     struct record *record)
{
    struct ingest_loop *loop = intake->loop;
    const struct ingest *ingest = loop->ingest;
    struct taken_event *list = grown(loop->taken, &loop->taken_capacity, loop->taken_count + 1, sizeof(*loop->taken));
    if (list == NULL)
        return false;
    loop->taken = list;
    struct taken_event *taken = &list[loop->taken_count];
    *taken = (struct taken_event){.offset = intake->records->length};
    taken->id = dedupe_id_of(ingest->key, DEDUPE_EVENT, record->source, same_id);
    dedupe_prefetch(ingest->dedupe, &taken->id);
    if (!hash_payload(intake, event, &taken->payload_hash))
        return false;
    if (intake->route->source->business_field_count > 0 && !business_key(intake, event, taken))
        return false;
    dedupe_id_store(&taken->id, record->id_hash);
    record->payload_hash = taken->payload_hash;
    record->has_business_hash = taken->has_business;
    if (taken->has_business) {
        dedupe_prefetch(ingest->dedupe, &taken->business);
        dedupe_id_store(&taken->business, record->business_hash);
    }
    loop->taken_count++;
    return true;
}

// The same conflict sent again is a duplicate; another payload of the id is another conflict.
static struct dedupe_id conflict_id(const struct intake *intake, const struct taken_event *taken)
{
    uint8_t bytes[24];
    struct sl_writer writer = sl_writer_of(bytes, sizeof(bytes));
    dedupe_id_store(&taken->id, bytes);
    writer.position = 16;
    sl_write_u64(&writer, taken->payload_hash);
    return dedupe_id_of(intake->loop->ingest->key, DEDUPE_QUARANTINE, intake->route->name,
                        (struct sl_span){.bytes = bytes, .length = sizeof(bytes)});
}

// ---- originals

// Of an original that is stored.
static enum ack_verdict stored_verdict(struct ingest *ingest, enum ack_level level, uint32_t lanes, uint32_t origin,
                                       uint64_t seq)
{
    struct ack_original original;
    ingest_find_original(ingest, level, lanes, origin, seq, &original);
    return ack_decide_original(level, &original);
}

// Remembers that the request has to wait for the first event of an id, unless that has reached the level already.
static bool wait_for(struct intake *intake, const struct dedupe_id *id, uint64_t payload_hash,
                     enum dedupe_verdict verdict, const struct dedupe_found *found)
{
    const struct route *route = intake->route;
    struct ingest *ingest = intake->loop->ingest;
    bool stored = found != NULL && found->state == DEDUPE_DURABLE;
    if (stored && stored_verdict(ingest, route->source->ack, route->lanes_ever, found->origin, found->seq) == ACK_GIVE)
        return true;
    if (intake->originals == NULL) {
        size_t capacity = (size_t)ORIGINALS_EACH * intake->count;
        intake->originals = malloc(sizeof(struct originals) + capacity * sizeof(struct original));
        if (intake->originals == NULL)
            return false;
        uint32_t own = ingest_origin_of(ingest, ingest_newest_incarnation(ingest));
        *intake->originals = (struct originals){.capacity = capacity, .own = own};
    }
    struct originals *originals = intake->originals;
    if (stored && found->origin == originals->own) {
        if (found->seq > originals->own_through)
            originals->own_through = found->seq;
        return true;
    }
    sl_assert(originals->count < originals->capacity);
    struct original *original = &originals->list[originals->count++];
    *original = (struct original){.id = *id, .payload_hash = payload_hash, .verdict = verdict, .older = stored};
    if (stored) {
        original->origin = found->origin;
        original->epoch = ingest_origin_epoch(ingest, found->origin);
        original->seq = found->seq;
    }
    return true;
}

// Asks the window about one original. What is stored in originals->own moves into own_through.
static enum ack_verdict look(const struct waiter *waiter, struct original *original, bool *fold)
{
    struct ingest *ingest = waiter->loop->ingest;
    if (!original->older) {
        struct dedupe_found found;
        enum dedupe_verdict verdict = dedupe_look(ingest->dedupe, &original->id, original->payload_hash, &found);
        if (verdict == DEDUPE_UNSURE)
            return ACK_WAIT;
        struct ack_original state = {.state = ACK_ORIGINAL_PENDING};
        if (verdict != original->verdict || found.state == DEDUPE_GONE)
            state.state = ACK_ORIGINAL_GONE;
        if (state.state == ACK_ORIGINAL_GONE || found.state == DEDUPE_PENDING)
            return ack_decide_original(waiter->level, &state);
        *fold = found.origin == waiter->originals->own;
        original->older = !*fold;
        original->origin = found.origin;
        original->epoch = ingest_origin_epoch(ingest, found.origin);
        original->seq = found.seq;
    }
    // The window let the stream go while the request waited, and uses its place for another one.
    if (!*fold && ingest_origin_epoch(ingest, original->origin) != original->epoch)
        return ACK_REFUSE;
    return stored_verdict(ingest, waiter->level, waiter->lanes_ever, original->origin, original->seq);
}

enum ack_verdict ingest_decide_originals(const struct waiter *waiter)
{
    struct originals *originals = waiter->originals;
    enum ack_verdict all = ACK_GIVE;
    for (size_t i = 0; i < originals->count;) {
        struct original *original = &originals->list[i];
        bool fold = false;
        enum ack_verdict verdict = look(waiter, original, &fold);
        if (fold && original->seq > originals->own_through)
            originals->own_through = original->seq;
        if (fold || verdict == ACK_GIVE)
            *original = originals->list[--originals->count];
        else
            i++;
        if (!fold)
            all = ack_both(all, verdict);
        if (all == ACK_REFUSE)
            return all;
    }
    if (originals->own_through > 0)
        all = ack_both(all, stored_verdict(waiter->loop->ingest, waiter->level, waiter->lanes_ever, originals->own,
                                           originals->own_through));
    return all;
}

// ---- claims

struct claiming {
    struct intake *intake;
    struct loop_batch *batch;
    size_t held_before;
    uint32_t next_record; // index in the batch that the next record to stay gets
    bool dropped;         // some record leaves the batch
};

static enum dedupe_verdict claim(const struct intake *intake, const struct dedupe_id *id, uint64_t payload_hash,
                                 struct dedupe_claim *out, struct dedupe_found *found)
{
    enum dedupe_verdict verdict = DEDUPE_UNSURE;
    for (int attempt = 0; verdict == DEDUPE_UNSURE && attempt < CLAIM_ATTEMPTS; attempt++)
        verdict = dedupe_claim(intake->loop->ingest->dedupe, id, payload_hash, intake->received_wall_ns, out, found);
    return verdict;
}

static void hold(struct claiming *claiming, const struct dedupe_claim *held)
{
    struct loop_batch *batch = claiming->batch;
    sl_assert(batch->held_count < batch->held_capacity);
    batch->held[batch->held_count++] = (struct held_claim){.claim = *held, .record = claiming->next_record};
}

static void drop(struct claiming *claiming, const struct taken_event *taken)
{
    record_buffer_drop(claiming->intake->records, taken->offset);
    claiming->dropped = true;
}

static void stay(struct claiming *claiming, const struct taken_event *taken, enum record_kind kind, unsigned flags,
                 const struct dedupe_id *id)
{
    uint8_t hash[RECORD_HASH_BYTES];
    if (id != NULL)
        dedupe_id_store(id, hash);
    if (kind != RECORD_EVENT || flags != 0)
        record_buffer_mark(claiming->intake->records, taken->offset, kind, flags, id != NULL ? hash : NULL);
    claiming->intake->quarantined += kind == RECORD_QUARANTINED;
    claiming->next_record++;
}

// A new event whose business fields were accepted under another id.
static enum claims_result business_duplicate(struct claiming *claiming, const struct taken_event *taken,
                                             const struct dedupe_found *found)
{
    struct intake *intake = claiming->intake;
    intake->business_duplicates++;
    switch (intake->route->source->on_business) {
    case BUSINESS_FLAG:
        stay(claiming, taken, RECORD_EVENT, RECORD_FLAG_BUSINESS_DUPLICATE, NULL);
        return CLAIMS_TAKEN;
    case BUSINESS_QUARANTINE:
        stay(claiming, taken, RECORD_QUARANTINED, RECORD_FLAG_BUSINESS_QUARANTINE, NULL);
        return CLAIMS_TAKEN;
    case BUSINESS_DROP:
        break;
    }
    // Its own id is not remembered: sent again it comes here again.
    struct loop_batch *batch = claiming->batch;
    ingest_forget_claims(batch, batch->held_count - 1);
    drop(claiming, taken);
    return wait_for(intake, &taken->business, taken->id.words[0], DEDUPE_CONFLICT, found) ? CLAIMS_TAKEN
                                                                                          : CLAIMS_NO_MEMORY;
}

// The event's own id is new, and its claim is held.
static enum claims_result take_new(struct claiming *claiming, const struct taken_event *taken)
{
    struct dedupe_claim held;
    struct dedupe_found found;
    enum dedupe_verdict verdict = DEDUPE_DUPLICATE;
    if (taken->has_business) // the id takes the place of the payload: another one is a conflict
        verdict = claim(claiming->intake, &taken->business, taken->id.words[0], &held, &found);
    switch (verdict) {
    case DEDUPE_NEW:
        hold(claiming, &held);
        break;
    case DEDUPE_DUPLICATE: // none, or its own of an earlier attempt
        break;
    case DEDUPE_CONFLICT:
        return business_duplicate(claiming, taken, &found);
    case DEDUPE_UNSURE:
        return CLAIMS_UNSURE;
    }
    stay(claiming, taken, RECORD_EVENT, 0, NULL);
    return CLAIMS_TAKEN;
}

static enum claims_result quarantine_conflict(struct claiming *claiming, const struct taken_event *taken,
                                              const struct dedupe_found *original)
{
    struct intake *intake = claiming->intake;
    struct dedupe_id id = conflict_id(intake, taken);
    struct dedupe_claim held;
    struct dedupe_found found;
    if (!wait_for(intake, &taken->id, taken->payload_hash, DEDUPE_CONFLICT, original))
        return CLAIMS_NO_MEMORY;
    enum dedupe_verdict verdict = claim(intake, &id, taken->payload_hash, &held, &found);
    if (verdict == DEDUPE_NEW) {
        hold(claiming, &held);
        stay(claiming, taken, RECORD_QUARANTINED, RECORD_FLAG_CONFLICT, &id);
        return CLAIMS_TAKEN;
    }
    drop(claiming, taken);
    bool known = verdict != DEDUPE_UNSURE;
    return wait_for(intake, &id, taken->payload_hash, known ? verdict : DEDUPE_DUPLICATE, known ? &found : NULL)
               ? CLAIMS_TAKEN
               : CLAIMS_NO_MEMORY;
}

static bool is_of_this_request(const struct intake *intake, const struct taken_event *taken)
{
    const struct taken_event *earlier = intake->loop->taken;
    for (; earlier != taken; earlier++)
        if (memcmp(earlier->id.words, taken->id.words, sizeof(taken->id.words)) == 0)
            return true;
    return false;
}

static enum claims_result reject_conflict(struct claiming *claiming, const struct taken_event *taken,
                                          const struct dedupe_found *found)
{
    struct intake *intake = claiming->intake;
    intake->conflict_index = (size_t)(taken - intake->loop->taken);
    if (found->state == DEDUPE_PENDING && is_of_this_request(intake, taken))
        return CLAIMS_CONFLICT_WITHIN;
    // Whatever the duplicates before it wait for does not matter any more.
    free(intake->originals);
    intake->originals = NULL;
    if (!wait_for(intake, &taken->id, taken->payload_hash, DEDUPE_CONFLICT, found))
        return CLAIMS_NO_MEMORY;
    return CLAIMS_CONFLICT;
}

static enum claims_result claim_event(struct claiming *claiming, const struct taken_event *taken)
{
    struct intake *intake = claiming->intake;
    struct dedupe_claim held;
    struct dedupe_found found;
    enum dedupe_verdict verdict = claim(intake, &taken->id, taken->payload_hash, &held, &found);
    switch (verdict) {
    case DEDUPE_NEW:
        hold(claiming, &held);
        return take_new(claiming, taken);
    case DEDUPE_CONFLICT:
        return intake->route->source->on_conflict == CONFLICT_QUARANTINE ? quarantine_conflict(claiming, taken, &found)
                                                                         : reject_conflict(claiming, taken, &found);
    case DEDUPE_DUPLICATE:
    case DEDUPE_UNSURE: // somebody is claiming it now: almost surely the same event, and if not, the answer is 503
        break;
    }
    drop(claiming, taken);
    return wait_for(intake, &taken->id, taken->payload_hash, DEDUPE_DUPLICATE,
                    verdict == DEDUPE_DUPLICATE ? &found : NULL)
               ? CLAIMS_TAKEN
               : CLAIMS_NO_MEMORY;
}

enum claims_result intake_claim(struct intake *intake, struct loop_batch *batch, size_t first_offset,
                                uint32_t first_index)
{
    const struct ingest_loop *loop = intake->loop;
    sl_assert(loop->taken_count == intake->count);
    size_t most = 2 * loop->taken_count; // an event's id and its business key
    struct held_claim *held = grown(batch->held, &batch->held_capacity, batch->held_count + most, sizeof(*batch->held));
    if (held == NULL)
        return CLAIMS_NO_MEMORY;
    batch->held = held;
    struct claiming claiming = {
        .intake = intake, .batch = batch, .held_before = batch->held_count, .next_record = first_index};
    for (size_t i = 0; i < loop->taken_count; i++) {
        enum claims_result result = claim_event(&claiming, &loop->taken[i]);
        if (result == CLAIMS_TAKEN)
            continue;
        ingest_forget_claims(batch, claiming.held_before);
        if (result != CLAIMS_CONFLICT) {
            free(intake->originals);
            intake->originals = NULL;
        }
        return result;
    }
    if (claiming.dropped)
        record_buffer_compact(intake->records, first_offset);
    sl_assert(intake->records->count == claiming.next_record);
    return CLAIMS_TAKEN;
}

void ingest_forget_claims(struct loop_batch *batch, size_t from)
{
    while (batch->held_count > from)
        dedupe_forget(batch->loop->ingest->dedupe, &batch->held[--batch->held_count].claim);
}

void ingest_settle_claims(struct loop_batch *batch)
{
    struct dedupe *dedupe = batch->loop->ingest->dedupe;
    uint32_t origin = ingest_origin_of(batch->loop->ingest, batch->spool.incarnation);
    if (origin == UINT32_MAX) { // the window can name no more streams: as if it had had no room for the ids
        ingest_forget_claims(batch, 0);
        return;
    }
    for (size_t i = 0; i < batch->held_count && i < SETTLE_AHEAD; i++)
        dedupe_prefetch_claim(dedupe, &batch->held[i].claim);
    for (size_t i = 0; i < batch->held_count; i++) {
        if (i + SETTLE_AHEAD < batch->held_count)
            dedupe_prefetch_claim(dedupe, &batch->held[i + SETTLE_AHEAD].claim);
        dedupe_settle_in(dedupe, &batch->held[i].claim, origin, batch->spool.first_seq + batch->held[i].record);
    }
    batch->held_count = 0;
}

// ---- memory

void ingest_dedupe_trim(struct ingest_loop *loop)
{
    loop->taken_count = 0;
    if (loop->taken_capacity > TAKEN_KEEP) {
        free(loop->taken);
        loop->taken = NULL;
        loop->taken_capacity = 0;
    }
    struct scratch *both[] = {&loop->compact, &loop->business};
    for (size_t i = 0; i < 2; i++)
        if (both[i]->capacity > SCRATCH_KEEP_BYTES) {
            free(both[i]->bytes);
            *both[i] = (struct scratch){0};
        }
}

void ingest_dedupe_free(struct ingest_loop *loop)
{
    free(loop->taken);
    free(loop->compact.bytes);
    free(loop->business.bytes);
}
