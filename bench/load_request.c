// What is sent, and what an answer means.
//
// Happy path: load_request_next() takes a request from the free list and its events from the source; the body is built
// while it is written to the socket; load_request_done() with a 2xx returns the request to the free list and tells the
// source what has become of the events.
//
// Failure modes: an attempt that ends without a 2xx is sent again (retry) after a pause that doubles from attempt to
// attempt, with Retry-After as its lower or its upper bound, on whichever connection has room; 4xx other than 408 and
// 429 is final.
// After retry_for_ns, or at the end of the run, the request is given up and its events are open or refused (history.h).
#include "bench/load.h"

#include "base/clock.h"
#include "base/crc32c.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROBLEMS_SHOWN_MAX = 5, GRACE_MS = 10 }; // what came due only just before the end was not held up

bool load_requests_create(struct load *load, struct sl_error *err)
{
    const struct load_options *options = &load->options;
    load->request_count = (size_t)options->connections * options->streams;
    size_t batch = options->batch;
    load->requests = (struct load_request *)calloc(load->request_count, sizeof(*load->requests));
    load->events = (struct load_event *)calloc(load->request_count * batch, sizeof(*load->events));
    load->waiting = (struct load_request **)calloc(load->request_count, sizeof(struct load_request *));
    load->scratch = (uint8_t *)malloc(options->event_bytes);
    load->history_events = (struct history_event *)calloc(batch, sizeof(*load->history_events));
    load->history_texts = (char *)malloc(batch * (PAYLOAD_ID_MAX + PAYLOAD_KEY_BYTES));
    if (load->requests == NULL || load->events == NULL || load->waiting == NULL || load->scratch == NULL ||
        load->history_events == NULL || load->history_texts == NULL || load->source == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "requests");
    for (size_t i = 0; i < load->request_count; i++) {
        struct load_request *request = &load->requests[i];
        request->events = load->events + i * batch;
        request->next = load->free;
        load->free = request;
    }
    load->random = options->seed;
    return true;
}

void load_requests_destroy(struct load *load)
{
    free(load->requests);
    free(load->events);
    free(load->waiting);
    free(load->scratch);
    free(load->history_events);
    free(load->history_texts);
    if (load->source != NULL)
        load->source->free(load->source);
}

// ---- sending

static int64_t scheduled_ns(const struct load *load, uint64_t request)
{
    const struct load_options *options = &load->options;
    uint64_t event = request * options->batch;
    if (options->due_ns != NULL)
        return load->start_ns + options->due_ns(options->shape, event);
    return load->start_ns + (int64_t)((double)event * (double)SL_NS_PER_S / options->rate);
}

int64_t load_end_ns(const struct load *load)
{
    return load->options.duration_ns < 0 ? INT64_MAX : load->start_ns + load->options.duration_ns;
}

uint64_t load_requests_not_sent(const struct load *load)
{
    uint64_t request = load->scheduled;
    if (load->options.rate > 0 && load->options.events == 0)
        while (scheduled_ns(load, request) < load->issue_end_ns - GRACE_MS * SL_NS_PER_MS)
            request++;
    return request - load->scheduled;
}

// Open loop: what its schedule puts at or after the end is not part of the run, however late the clock is read.
static bool is_within_the_run(const struct load *load)
{
    return load->options.rate == 0 || scheduled_ns(load, load->scheduled) < load_end_ns(load);
}

static bool may_send_new(const struct load *load)
{
    return load->issuing && load->free != NULL && is_within_the_run(load) &&
           load->source->ready(load->source, load->options.batch);
}

static struct load_request *make_new(struct load *load)
{
    struct load_request *request = load->free;
    load->free = request->next;
    load->outstanding++;
    request->attempt = 0;
    request->unknown_before = false;
    request->first_ns = load->now_ns;
    request->scheduled_ns = load->options.rate > 0 ? scheduled_ns(load, load->scheduled) : load->now_ns;
    load->scheduled++;
    for (uint32_t i = 0; i < load->options.batch; i++) {
        load->source->next(load->source, load->now_ns + load->wall_offset_ns, &request->events[i]);
        load->counts.again += request->events[i].again;
        load->counts.events += !request->events[i].again;
    }
    load->counts.requests++;
    if (load->options.events > 0 && load->counts.events >= load->options.events)
        load->issuing = false;
    return request;
}

struct load_request *load_request_next(struct load *load)
{
    struct load_request *request = load_waiting_due_ns(load) <= load->now_ns ? load_waiting_pop(load) : NULL;
    if (request != NULL)
        load->counts.retries++;
    else if (may_send_new(load) && (load->options.rate == 0 || scheduled_ns(load, load->scheduled) <= load->now_ns))
        request = make_new(load);
    else
        return NULL;
    request->attempt++;
    request->invoked_ns = load->now_ns;
    request->body_sent = 0;
    request->answered = false;
    request->status = 0;
    request->retry_after_s = 0;
    request->answer_length = 0;
    return request;
}

int64_t load_request_due_ns(const struct load *load)
{
    int64_t due = load_waiting_due_ns(load);
    if (load->options.rate > 0 && may_send_new(load)) {
        int64_t next = scheduled_ns(load, load->scheduled);
        if (next < due)
            due = next;
    }
    return due;
}

// ---- bodies: '[' event ',' event … ']', or event '\n' event '\n' …, or one event alone

size_t load_request_body_bytes(const struct load *load)
{
    const struct load_options *options = &load->options;
    if (options->ndjson)
        return options->batch * (options->event_bytes + 1);
    return options->batch == 1 ? options->event_bytes : options->batch * (options->event_bytes + 1) + 1;
}

static void build_event(struct load *load, struct load_request *request, size_t index, uint8_t *out)
{
    struct load_event *event = &request->events[index];
    load->source->write(load->source, event, out);
    if (load->history != NULL && !event->built)
        event->crc32c = sl_crc32c(out, load->options.event_bytes);
    event->built = true;
}

void load_request_body(struct load *load, struct load_request *request, size_t offset, uint8_t *out, size_t length)
{
    const struct load_options *options = &load->options;
    bool array = options->batch > 1 && !options->ndjson;
    size_t stride = options->event_bytes + 1;
    if (array && offset == 0 && length > 0) {
        *out++ = '[';
        offset++;
        length--;
    }
    size_t start = array ? 1 : 0; // of the first event
    while (length > 0) {
        size_t index = (offset - start) / stride, within = (offset - start) % stride;
        if (within == options->event_bytes) {
            *out++ = options->ndjson ? '\n' : index + 1 < options->batch ? ',' : ']';
            offset++;
            length--;
            continue;
        }
        size_t part = options->event_bytes - within;
        if (part > length)
            part = length;
        if (part == options->event_bytes) {
            build_event(load, request, index, out);
        } else { // it crosses a DATA frame's end: built once for each side
            build_event(load, request, index, load->scratch);
            memcpy(out, load->scratch + within, part);
        }
        out += part;
        offset += part;
        length -= part;
    }
}

// ---- answers

struct answer {
    struct sl_span stream;
    bool has_seqs;
    uint64_t accepted, duplicates, quarantined, first_seq, last_seq;
};

static uint64_t take_number(const char *at, bool *found)
{
    uint64_t value = 0;
    *found = *at >= '0' && *at <= '9';
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    return value;
}

// One pass over the members of Sluice's answer, a flat object whose strings have no escapes. Names that are not looked
// for, and anything that is not such an object, are passed over.
static void parse_answer(struct load_request *request, struct answer *answer)
{
    request->answer[request->answer_length] = '\0';
    *answer = (struct answer){.stream = {.bytes = "", .length = 0}};
    bool found, found_first = false, found_last = false;
    const char *end; // of the name: its closing quote
    for (const char *at = request->answer; (at = strchr(at, '"')) != NULL; at = end + 1) {
        const char *name = at + 1;
        end = strchr(name, '"');
        if (end == NULL)
            break;
        size_t length = (size_t)(end - name);
        const char *value = end + 1 + strspn(end + 1, ": ");
        if (*value == '"') { // a string: the next name is behind it
            const char *text = value + 1, *close = strchr(text, '"');
            if (close == NULL)
                break;
            if (length == 6 && memcmp(name, "stream", 6) == 0 && close - text <= 128)
                answer->stream = (struct sl_span){.bytes = text, .length = (size_t)(close - text)};
            end = close;
        } else if (length == 8 && memcmp(name, "accepted", 8) == 0) {
            answer->accepted = take_number(value, &found);
        } else if (length == 10 && memcmp(name, "duplicates", 10) == 0) {
            answer->duplicates = take_number(value, &found);
        } else if (length == 11 && memcmp(name, "quarantined", 11) == 0) {
            answer->quarantined = take_number(value, &found);
        } else if (length == 9 && memcmp(name, "first_seq", 9) == 0) {
            answer->first_seq = take_number(value, &found_first);
        } else if (length == 8 && memcmp(name, "last_seq", 8) == 0) {
            answer->last_seq = take_number(value, &found_last);
        }
    }
    answer->has_seqs = found_first && found_last;
}

static void write_history(struct load *load, struct load_request *request, const struct load_connection *connection,
                          enum history_outcome outcome, const char *cause, const struct answer *answer)
{
    const struct history_attempt attempt = {
        .attempt = request->attempt,
        .due_ns = request->scheduled_ns,
        .invoked_ns = request->invoked_ns,
        .completed_ns = load->now_ns,
        .outcome = outcome,
        .status = request->answered ? request->status : 0,
        .cause = cause,
        .event_count = load->options.batch,
        .stream = answer->stream,
        .has_seqs = answer->has_seqs,
        .first_seq = answer->first_seq,
        .last_seq = answer->last_seq,
        .duplicates = answer->duplicates,
        .connection = (uint32_t)(connection - load->connections),
        .connection_serial = connection->serial,
    };
    char *text = load->history_texts;
    for (uint32_t i = 0; i < load->options.batch; i++) {
        struct history_event *event = &load->history_events[i];
        const struct load_event *sent = &request->events[i];
        if (!sent->built) // the connection was lost before its turn came
            build_event(load, request, i, load->scratch);
        event->id = (struct sl_span){text, load->source->id(load->source, sent, text)};
        text += event->id.length;
        event->key = (struct sl_span){text, load->source->key(load->source, sent, text)};
        text += event->key.length;
        event->seq = sent->seq;
        event->crc32c = sent->crc32c;
        event->again = sent->again;
    }
    history_write(load->history, &attempt, load->history_events);
}

static void show_problem(struct load *load, struct load_request *request)
{
    if (load->problems_shown++ >= PROBLEMS_SHOWN_MAX)
        return;
    request->answer[request->answer_length] = '\0';
    fprintf(stderr, "sluice-load: answer %d: %s\n", request->status, request->answer);
}

static void note_ack(struct load *load, const struct load_request *request)
{
    int64_t now = load->now_ns;
    if (load->first_ack_ns == 0)
        load->first_ack_ns = now;
    else if (now - load->last_ack_ns > load->longest_gap_ns) {
        load->longest_gap_ns = now - load->last_ack_ns;
        load->longest_gap_end_ns = now;
    }
    load->last_ack_ns = now;
    uint64_t took = (uint64_t)(now - request->scheduled_ns);
    if (request->scheduled_ns >= load->measure_start_ns)
        latency_add(&load->latency, took);
    if (load->options.interval_ns > 0)
        latency_add(&load->interval_latency, took);
}

static void settle(struct load *load, struct load_request *request, enum history_outcome outcome)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < load->options.batch; i++) {
        load->source->settled(load->source, &request->events[i], outcome == HISTORY_OK);
        count += !request->events[i].again;
    }
    if (outcome == HISTORY_OK)
        load->counts.acked += count;
    else if (outcome == HISTORY_FAIL && !request->unknown_before)
        load->counts.refused += count;
    else
        load->counts.open += count;
    request->next = load->free;
    load->free = request;
    load->outstanding--;
}

static bool worth_retrying(const struct load *load, const struct load_request *request, enum history_outcome outcome)
{
    if (!load->options.retry || load->now_ns - request->first_ns >= load->options.retry_for_ns)
        return false;
    return outcome == HISTORY_UNKNOWN || request->status == 408 || request->status == 429;
}

static void wait_to_resend(struct load *load, struct load_request *request)
{
    const struct load_options *options = &load->options;
    int64_t pause_ns = options->resend_first_ns << (request->attempt < 10 ? request->attempt - 1 : 9);
    if (pause_ns > options->resend_max_ns)
        pause_ns = options->resend_max_ns;
    // So that they do not come all at once.
    double part = (double)(payload_random(&load->random) >> 11) * 0x1p-53 * options->resend_jitter;
    int64_t jitter_ns = (int64_t)(part * (double)pause_ns), asked_ns = request->retry_after_s * SL_NS_PER_S;
    if (options->heed_retry_after && asked_ns > 0)
        pause_ns = asked_ns + (int64_t)(part * (double)options->resend_first_ns);
    else if (asked_ns > 0 && asked_ns < pause_ns - jitter_ns)
        pause_ns = asked_ns;
    else
        pause_ns -= jitter_ns;
    request->resend_ns = load->now_ns + pause_ns;
    load_waiting_push(load, request);
}

void load_request_done(struct load *load, struct load_request *request, const struct load_connection *connection,
                       enum load_cause cause)
{
    enum history_outcome outcome = HISTORY_UNKNOWN;
    struct answer answer = {.stream = {.bytes = "", .length = 0}};
    if (request->answered) {
        load->counts.attempts_answered++;
        load->counts.status[request->status > 0 && request->status < 600 ? request->status : 0]++;
        if (request->status / 100 == 2) {
            outcome = HISTORY_OK;
            parse_answer(request, &answer);
            load->counts.accepted += answer.accepted;
            load->counts.duplicates += answer.duplicates;
            load->counts.quarantined += answer.quarantined;
            note_ack(load, request);
        } else {
            outcome = request->status / 100 == 4 ? HISTORY_FAIL : HISTORY_UNKNOWN;
            show_problem(load, request);
        }
    } else {
        load->counts.causes[cause]++;
    }
    if (outcome == HISTORY_UNKNOWN)
        load->interval_unknown += load->options.batch;
    else if (outcome == HISTORY_FAIL)
        load->interval_failed += load->options.batch;
    if (load->history != NULL)
        write_history(load, request, connection, outcome, load_cause_words[cause], &answer);
    if (outcome != HISTORY_OK && cause != LOAD_CAUSE_END && worth_retrying(load, request, outcome)) {
        request->unknown_before |= outcome == HISTORY_UNKNOWN;
        wait_to_resend(load, request);
        return;
    }
    settle(load, request, outcome);
}

void load_requests_give_up(struct load *load)
{
    for (struct load_request *request; (request = load_waiting_pop(load)) != NULL;) {
        // Each attempt has its line in the history already; only the fate of the events is left to be said.
        settle(load, request, request->unknown_before ? HISTORY_UNKNOWN : HISTORY_FAIL);
    }
}
