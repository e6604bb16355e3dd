// POST /v1/events/{source}: from a complete request to records in the loop's batch, or to an error that says what is
// wrong.
//
// Happy path: route, media type, decode, admission, events into the batch, a waiter; the rest is in ingest_batch.c.
// Failure modes are answered here at once, in the order of this file's checks, each counted under its outcome; nothing
// of a refused request stays in the batch.
#include "gateway/ingest_internal.h"

#include "base/log.h"
#include "gateway/problem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char events_prefix[] = "/v1/events/";

static bool span_equals(struct sl_span span, const char *text)
{
    return span.length == strlen(text) && memcmp(span.bytes, text, span.length) == 0;
}

// ---- refusals

static void count(struct ingest_loop *loop, uint32_t stats_index, enum outcome outcome, uint64_t events)
{
    struct source_stats *stats = stats_shard(loop->ingest->stats, stats_index, loop->index);
    stats_add(&stats->received, events);
    stats_add(&stats->outcomes[outcome], events);
}

static enum outcome outcome_of_status(int status)
{
    switch (status) {
    case 409:
        return OUTCOME_CONFLICT;
    case 429:
        return OUTCOME_THROTTLED;
    default:
        return status >= 500 ? OUTCOME_UNAVAILABLE : OUTCOME_REJECTED;
    }
}

static void refuse(struct ingest_loop *loop, struct http_request *request, const struct route *route, int status,
                   uint64_t events, const char *detail)
{
    count(loop, route != NULL ? route->stats : STATS_UNKNOWN_SOURCE, outcome_of_status(status), events);
    ingest_answer_problem(request, status, status == 429 || status == 503 ? 1 : -1, detail);
}

void ingest_on_refused(struct http_loop *http, int status, struct sl_span path, void *user)
{
    struct ingest *ingest = user;
    if (!atomic_load_explicit(&ingest->attached, memory_order_acquire))
        return;
    struct ingest_loop *loop = &ingest->loops[http_loop_index(http)];
    const struct route *route = NULL;
    size_t prefix = sizeof(events_prefix) - 1;
    if (path.length > prefix && memcmp(path.bytes, events_prefix, prefix) == 0)
        route = routes_find(
            loop->routes, (struct sl_span){.bytes = (const char *)path.bytes + prefix, .length = path.length - prefix});
    count(loop, route != NULL ? route->stats : STATS_UNKNOWN_SOURCE, outcome_of_status(status), 1);
}

static int status_of_fault(enum json_fault_kind kind)
{
    switch (kind) {
    case JSON_FAULT_NOT_OBJECT:
        return 422;
    case JSON_FAULT_TOO_LARGE:
        return 413;
    default:
        return 400;
    }
}

// The whole request is refused for what is in its events: rejected, every event of it counted.
static void refuse_events(struct intake *intake, enum intake_result result, enum json_shape shape, struct sl_span body)
{
    struct ingest_loop *loop = intake->loop;
    uint64_t events = json_count_guess(shape, body);
    if (result == INTAKE_NO_MEMORY) {
        refuse(loop, intake->request, intake->route, 503, events, "Out of memory; nothing of the request was stored.");
        return;
    }
    if (result == INTAKE_TOO_LARGE) {
        refuse(loop, intake->request, intake->route, 413, events,
               "The events of the request take more than 64 MiB as stored; send fewer in one request. Nothing was "
               "stored.");
        return;
    }
    count(loop, intake->route->stats, OUTCOME_REJECTED, events);
    if (result == INTAKE_FAULT) {
        const struct json_fault *fault = &intake->fault;
        struct problem_error error = {
            .index = fault->index, .has_offset = true, .offset = fault->offset, .detail = fault->detail};
        char detail[320];
        snprintf(detail, sizeof(detail), "Event %zu, byte %zu of the body: %s. Nothing of the request was stored.",
                 fault->index, fault->offset, fault->detail);
        ingest_answer_errors(intake->request, status_of_fault(fault->kind), detail, &error, 1);
        return;
    }
    struct problem_error errors[INTAKE_ERRORS_MAX];
    for (size_t i = 0; i < intake->error_count; i++)
        errors[i] =
            (struct problem_error){.index = intake->errors[i].index,
                                   .pointer = intake->errors[i].pointer[0] != '\0' ? intake->errors[i].pointer : NULL,
                                   .detail = intake->errors[i].detail};
    char detail[320];
    snprintf(detail, sizeof(detail), "Event %zu: %s. Nothing of the request was stored.", intake->errors[0].index,
             intake->errors[0].detail);
    ingest_answer_errors(intake->request, 422, detail, errors, intake->error_count);
}

// ---- the checks before the body is looked at

// The media type of Content-Type without its parameters, compared case-insensitively (RFC 9110 section 8.3.1).
static bool media_type_is(struct sl_span header, const char *type)
{
    size_t length = strlen(type);
    if (header.length < length || strncasecmp(header.bytes, type, length) != 0)
        return false;
    const char *rest = (const char *)header.bytes + length;
    size_t left = header.length - length;
    while (left > 0 && (*rest == ' ' || *rest == '\t')) {
        rest++;
        left--;
    }
    return left == 0 || *rest == ';';
}

static bool shape_of(struct http_request *request, enum json_shape *shape, const char **detail)
{
    bool repeated = false;
    struct sl_span type = http_request_header(request, "content-type", &repeated);
    *detail = "Send application/json (an object or an array of objects) or application/x-ndjson (an object a line).";
    if (repeated || type.bytes == NULL)
        return false;
    if (media_type_is(type, "application/x-ndjson"))
        *shape = JSON_SHAPE_LINES;
    else if (media_type_is(type, "application/json"))
        *shape = JSON_SHAPE_DOCUMENT;
    else
        return false;
    // A binary CloudEvent would lose its attributes if it were taken for a plain event.
    if (http_request_header(request, "ce-specversion", &repeated).bytes != NULL &&
        http_request_header(request, "ce-id", &repeated).bytes != NULL) {
        *detail = "CloudEvents are not supported by this version. " // the ce-* headers would be lost
                  "Without the ce-* headers the body is taken as a plain event.";
        return false;
    }
    return true;
}

static const struct route *find_route(struct ingest_loop *loop, struct http_request *request)
{
    struct sl_span path = http_request_path(request);
    size_t prefix = sizeof(events_prefix) - 1;
    struct sl_span name = {.bytes = "", .length = 0};
    bool is_events = path.length > prefix && memcmp(path.bytes, events_prefix, prefix) == 0;
    if (is_events)
        name = (struct sl_span){.bytes = (const char *)path.bytes + prefix, .length = path.length - prefix};
    const struct route *route = name.length > 0 ? routes_find(loop->routes, name) : NULL;
    if (route == NULL)
        refuse(loop, request, NULL, 404, 1,
               is_events ? "There is no source of this name."
                         : "There is nothing here; events go to /v1/events/{source}.");
    return route;
}

static bool check_method(struct ingest_loop *loop, struct http_request *request, const struct route *route)
{
    if (span_equals(http_request_method(request), "POST"))
        return true;
    count(loop, route->stats, OUTCOME_REJECTED, 1);
    static const char detail[] = "Events are sent with POST.";
    char body[512];
    struct problem problem = {.status = 405, .detail = detail};
    size_t length = problem_write(body, sizeof(body), &problem);
    struct http_header allow = {.name = "allow", .value = sl_span_of("POST")};
    http_respond(request, 405, "application/problem+json", &allow, 1, body, length);
    return false;
}

// The body after Content-Encoding. False: answered.
static bool decode_body(struct ingest_loop *loop, struct http_request *request, const struct route *route,
                        struct sl_span *body)
{
    bool repeated = false;
    enum decode_encoding encoding = decode_encoding_of(http_request_header(request, "content-encoding", &repeated));
    *body = http_request_body(request);
    if (repeated || encoding == DECODE_UNKNOWN) {
        refuse(loop, request, route, 415, 1, "Content-Encoding must be gzip, zstd or absent.");
        return false;
    }
    if (encoding == DECODE_IDENTITY)
        return true;
    struct sl_error err;
    if (decoder_run(loop->decoder, encoding, *body, body, &err))
        return true;
    int status = err.code == SL_E_TOO_LARGE ? 413 : err.code == SL_E_NO_MEMORY ? 503 : 400;
    refuse(loop, request, route, status, 1, err.text);
    return false;
}

static bool admit(struct ingest_loop *loop, struct http_request *request, const struct route *route,
                  enum json_shape shape, struct sl_span body)
{
    static const enum spool_priority priorities[] = {[PRIORITY_HIGH] = SPOOL_PRIORITY_HIGH,
                                                     [PRIORITY_NORMAL] = SPOOL_PRIORITY_NORMAL,
                                                     [PRIORITY_LOW] = SPOOL_PRIORITY_LOW};
    static const struct {
        int status;
        const char *detail;
    } answers[] = {
        [SPOOL_THROTTLED] = {429, "The spool is running full and sources of this priority wait until it has drained."},
        [SPOOL_FULL] = {503, "The spool has no room left; events are taken again when it has drained."},
        [SPOOL_BUSY] = {503, "More is waiting for the local disk than it can take now."},
        [SPOOL_DEAD] = {503, "The local disk has failed or this node is stopping."},
    };
    enum spool_admission admission = spool_admit(loop->ingest->spool, body.length, priorities[route->source->priority]);
    if (admission == SPOOL_ADMITTED)
        return true;
    uint64_t events = json_count_guess(shape, body);
    count(loop, route->stats, outcome_of_status(answers[admission].status), events);
    // Room comes back with the drain, not at once: clients that all return after a second would only be refused again.
    int retry_after_s = admission == SPOOL_BUSY ? 1 : 5;
    ingest_answer_problem(request, answers[admission].status, retry_after_s, answers[admission].detail);
    return false;
}

// ---- the events

// W3C Trace Context, section 3.2: 00-<32 hex>-<16 hex>-<2 hex>, lower case, ids not all zero; what is not that is
// dropped.
static bool traceparent_is_valid(struct sl_span header)
{
    static const char form[] = "hh-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-hhhhhhhhhhhhhhhh-hh";
    const char *text = header.bytes;
    if (header.length != sizeof(form) - 1 || memcmp(text, "ff", 2) == 0)
        return false;
    for (size_t i = 0; i < header.length; i++) {
        bool hex = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
        if (form[i] == 'h' ? !hex : text[i] != '-')
            return false;
    }
    static const char zeros[] = "00000000000000000000000000000000";
    return memcmp(text + 3, zeros, 32) != 0 && memcmp(text + 36, zeros, 16) != 0;
}

static void collect_headers(struct intake *intake)
{
    bool repeated = false;
    intake->headers[intake->header_count++] =
        (struct record_header_field){.name = sl_span_of("content-type"), .value = sl_span_of("application/json")};
    struct sl_span trace = http_request_header(intake->request, "traceparent", &repeated);
    if (trace.bytes != NULL && !repeated && traceparent_is_valid(trace))
        intake->headers[intake->header_count++] =
            (struct record_header_field){.name = sl_span_of("traceparent"), .value = trace};
    const struct config_source *source = intake->route->source;
    for (size_t i = 0; i < source->id_part_count; i++) {
        if (source->id_parts[i].from != ID_FROM_HEADER)
            continue;
        intake->id_headers[i] = http_request_header(intake->request, source->id_parts[i].header, &repeated);
        if (repeated)
            intake->id_headers[i].length = 0; // two ids are none
    }
}

static bool body_is_array(struct sl_span body)
{
    const char *text = body.bytes;
    for (size_t i = 0; i < body.length; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\n' && text[i] != '\r')
            return text[i] == '[';
    return false;
}

static const char *id_pointer(const struct route *route)
{
    const struct config_id_part *part = &route->source->id_parts[0];
    return part->from == ID_FROM_POINTER ? json_pointer_text(part->pointer) : "";
}

// Nothing of the request is stored; a conflict is answered when its original is durable.
static void refuse_claims(struct intake *intake, enum claims_result claims)
{
    struct ingest_loop *loop = intake->loop;
    const struct route *route = intake->route;
    const char *pointer = id_pointer(route);
    if (claims == CLAIMS_CONFLICT && intake->originals != NULL) {
        intake->originals->conflict = true;
        intake->originals->conflict_index = intake->conflict_index;
        snprintf(intake->originals->conflict_pointer, sizeof(intake->originals->conflict_pointer), "%s", pointer);
        if (ingest_add_waiter(intake, NULL, 0))
            return;
        claims = CLAIMS_NO_MEMORY;
    }
    free(intake->originals);
    if (claims == CLAIMS_CONFLICT || claims == CLAIMS_CONFLICT_WITHIN) {
        count(loop, route->stats, OUTCOME_CONFLICT, intake->count);
        ingest_answer_conflict(intake->request, intake->conflict_index, pointer, claims == CLAIMS_CONFLICT_WITHIN);
        return;
    }
    refuse(loop, intake->request, route, 503, intake->count,
           claims == CLAIMS_UNSURE ? "An event with the same business key is being taken this instant; nothing of the "
                                     "request was stored."
                                   : "Out of memory; nothing of the request was stored.");
}

static void take_events(struct ingest_loop *loop, struct http_request *request, const struct route *route,
                        enum json_shape shape, struct sl_span body)
{
    // A large request gets a batch of its own, so that its frame is not larger than it must be.
    if (body.length >= BATCH_TARGET_BYTES)
        ingest_flush(loop);
    struct loop_batch *batch = ingest_open_batch(loop);
    if (batch == NULL) {
        refuse(loop, request, route, 503, json_count_guess(shape, body),
               "Out of memory; nothing of the request was stored.");
        return;
    }
    struct record_buffer *records = &batch->spool.records;
    size_t length_before = records->length;
    uint32_t count_before = records->count;
    struct intake intake = {
        .loop = loop,
        .route = route,
        .request = request,
        .records = records,
        .is_batch = shape == JSON_SHAPE_LINES || body_is_array(body),
        .received_wall_ns = sl_wall_ns(),
    };
    collect_headers(&intake);
    enum intake_result result = intake_run(&intake, shape, body);
    if (result != INTAKE_OK) {
        record_buffer_cut(records, length_before, count_before);
        refuse_events(&intake, result, shape, body);
        return;
    }
    enum claims_result claims = CLAIMS_TAKEN;
    size_t held_before = batch->held_count;
    if (loop->ingest->dedupe != NULL)
        claims = intake_claim(&intake, batch, length_before, count_before);
    if (claims == CLAIMS_TAKEN && ingest_add_waiter(&intake, batch, count_before)) {
        if (records->length >= BATCH_TARGET_BYTES)
            ingest_flush(loop);
        return;
    }
    ingest_forget_claims(batch, held_before);
    record_buffer_cut(records, length_before, count_before);
    refuse_claims(&intake, claims);
}

static bool cell_is_ready(struct ingest *ingest)
{
    if (atomic_load_explicit(&ingest->cell_ready, memory_order_acquire))
        return true;
    bool ready = ingest->ready(ingest->user);
    if (ready)
        atomic_store_explicit(&ingest->cell_ready, true, memory_order_release);
    return ready;
}

void ingest_on_request(struct http_request *request, void *user)
{
    struct ingest *ingest = user;
    if (!atomic_load_explicit(&ingest->attached, memory_order_acquire)) {
        ingest_answer_problem(request, 503, 1, "This node is starting.");
        return;
    }
    struct ingest_loop *loop = &ingest->loops[http_loop_index(http_request_loop(request))];
    const struct route *route = find_route(loop, request);
    if (route == NULL || !check_method(loop, request, route))
        return;
    if (atomic_load(&ingest->refusing)) {
        refuse(loop, request, route, 503, 1, "This node is draining; another one takes the request.");
        return;
    }
    if (!atomic_load_explicit(&ingest->window_complete, memory_order_acquire)) {
        refuse(loop, request, route, 503, 1, "The dedupe window is being rebuilt.");
        return;
    }
    if (!cell_is_ready(ingest)) {
        refuse(loop, request, route, 503, 1, "This node fetches what its peers have of its streams.");
        return;
    }
    enum json_shape shape;
    const char *detail;
    if (!shape_of(request, &shape, &detail)) {
        refuse(loop, request, route, 415, 1, detail);
        return;
    }
    struct sl_span body;
    if (!decode_body(loop, request, route, &body))
        return;
    if (admit(loop, request, route, shape, body))
        take_events(loop, request, route, shape, body);
    decoder_trim(loop->decoder);
    ingest_dedupe_trim(loop);
}

void ingest_on_turn_end(struct http_loop *http, void *user)
{
    struct ingest *ingest = user;
    if (atomic_load_explicit(&ingest->attached, memory_order_acquire))
        ingest_flush(&ingest->loops[http_loop_index(http)]);
}
