// What is sent, and what an answer means.
//
// Happy path: load_request_next() takes a request from the free list, gives its events the next counters, a key and the
// key's next number; the body is built while it is written to the socket; load_request_done() with a 2xx returns
// the request to the free list and (--ordered) its keys to the ring of idle ones.
//
// Failure modes: an attempt that ends without a 2xx is sent again (--retry) after a pause that doubles from 50 ms to 1
// s, or after Retry-After if that is shorter, on whichever connection has room; 4xx other than 408 and 429 is final.
// After retry_for_ns, or at the end of the run, the request is given up and its events are open or refused (history.h).
#include "bench/load.h"

#include "base/clock.h"
#include "base/crc32c.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RESEND_FIRST_MS = 50, RESEND_MAX_MS = 1000, PROBLEMS_SHOWN_MAX = 5 };

bool load_requests_create(struct load *load, struct sl_error *err)
{
    const struct load_options *options = &load->options;
    load->request_count = (size_t)options->connections * options->streams;
    size_t batch = options->batch;
    load->requests = (struct load_request *)calloc(load->request_count, sizeof(*load->requests));
    load->events = (struct load_event *)calloc(load->request_count * batch, sizeof(*load->events));
    load->key_seqs = (uint64_t *)calloc(options->keys, sizeof(*load->key_seqs));
    load->idle_keys = (uint32_t *)calloc(options->keys, sizeof(*load->idle_keys));
    load->scratch = (uint8_t *)malloc(options->event_bytes);
    load->history_events = (struct history_event *)calloc(batch, sizeof(*load->history_events));
    load->history_texts = (char *)malloc(batch * (PAYLOAD_ID_MAX + PAYLOAD_KEY_BYTES));
    load->payload = payload_set_new(options->event_bytes, options->run, options->seed);
    if (load->requests == NULL || load->events == NULL || load->key_seqs == NULL || load->idle_keys == NULL ||
        load->scratch == NULL || load->history_events == NULL || load->history_texts == NULL || load->payload == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "requests");
    for (size_t i = 0; i < load->request_count; i++) {
        struct load_request *request = &load->requests[i];
        request->events = load->events + i * batch;
        request->next = load->free;
        load->free = request;
    }
    for (uint32_t key = 0; key < options->keys; key++)
        load->idle_keys[key] = key;
    load->idle_count = options->keys;
    load->resend_ns = INT64_MAX;
    load->random = options->seed;
    return true;
}

void load_requests_destroy(struct load *load)
{
    free(load->requests);
    free(load->events);
    free(load->key_seqs);
    free(load->idle_keys);
    free(load->scratch);
    free(load->history_events);
    free(load->history_texts);
    payload_set_free(load->payload);
}

// ---- sending

static int64_t scheduled_ns(const struct load *load, uint64_t request)
{
    return load->start_ns + (int64_t)((double)request * load->options.batch * (double)SL_NS_PER_S / load->options.rate);
}

static struct load_request *take_waiting(struct load *load)
{
    if (load->resend_ns > load->now_ns)
        return NULL;
    struct load_request *found = NULL;
    struct load_request **place = &load->waiting;
    load->resend_ns = INT64_MAX;
    for (struct load_request *request = load->waiting; request != NULL; request = *place) {
        if (found == NULL && request->resend_ns <= load->now_ns) {
            found = request;
            *place = request->next;
            continue;
        }
        if (request->resend_ns < load->resend_ns)
            load->resend_ns = request->resend_ns;
        place = &request->next;
    }
    return found;
}

static bool may_send_new(const struct load *load)
{
    const struct load_options *options = &load->options;
    return load->issuing && load->free != NULL && (!options->ordered || load->idle_count >= options->batch);
}

static uint32_t take_key(struct load *load)
{
    uint32_t keys = load->options.keys;
    if (!load->options.ordered)
        return (uint32_t)(((payload_random(&load->random) >> 32) * keys) >> 32);
    uint32_t key = load->idle_keys[load->idle_head];
    load->idle_head = (load->idle_head + 1) % keys;
    load->idle_count--;
    return key;
}

static void return_keys(struct load *load, const struct load_request *request)
{
    if (!load->options.ordered)
        return;
    for (uint32_t i = 0; i < load->options.batch; i++)
        load->idle_keys[(load->idle_head + load->idle_count++) % load->options.keys] = request->events[i].key;
}

static struct load_request *make_new(struct load *load)
{
    struct load_request *request = load->free;
    load->free = request->next;
    load->outstanding++;
    request->attempt = 0;
    request->unknown_before = false;
    request->counter = load->counts.events;
    request->wall_ns = load->now_ns + load->wall_offset_ns;
    request->first_ns = load->now_ns;
    request->scheduled_ns = load->options.rate > 0 ? scheduled_ns(load, load->scheduled) : load->now_ns;
    load->scheduled++;
    for (uint32_t i = 0; i < load->options.batch; i++) {
        struct load_event *event = &request->events[i];
        event->key = take_key(load);
        event->seq = ++load->key_seqs[event->key];
    }
    load->counts.requests++;
    load->counts.events += load->options.batch;
    if (load->options.events > 0 && load->counts.events >= load->options.events)
        load->issuing = false;
    return request;
}

struct load_request *load_request_next(struct load *load)
{
    struct load_request *request = take_waiting(load);
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
    int64_t due = load->resend_ns;
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
    const struct payload_event payload = {
        .counter = request->counter + index, .seq = event->seq, .key = event->key, .wall_ns = request->wall_ns};
    payload_write(load->payload, &payload, out);
    if (load->history != NULL)
        event->crc32c = sl_crc32c(out, load->options.event_bytes);
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

static void write_history(struct load *load, const struct load_request *request, enum history_outcome outcome,
                          const char *cause, const struct answer *answer)
{
    const struct history_attempt attempt = {
        .attempt = request->attempt,
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
    };
    char *text = load->history_texts;
    for (uint32_t i = 0; i < load->options.batch; i++) {
        struct history_event *event = &load->history_events[i];
        event->id = (struct sl_span){text, payload_id(load->payload, request->counter + i, text)};
        text += event->id.length;
        payload_key(request->events[i].key, text);
        event->key = (struct sl_span){text, PAYLOAD_KEY_BYTES};
        text += PAYLOAD_KEY_BYTES;
        event->seq = request->events[i].seq;
        event->crc32c = request->events[i].crc32c;
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
    uint64_t count = load->options.batch;
    if (outcome == HISTORY_OK)
        load->counts.acked += count;
    else if (outcome == HISTORY_FAIL && !request->unknown_before)
        load->counts.refused += count;
    else
        load->counts.open += count;
    return_keys(load, request);
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
    uint32_t doublings = request->attempt < 6 ? request->attempt - 1 : 5;
    int64_t pause_ms = (int64_t)RESEND_FIRST_MS << doublings;
    if (pause_ms > RESEND_MAX_MS)
        pause_ms = RESEND_MAX_MS;
    int64_t pause_ns = pause_ms * SL_NS_PER_MS;
    pause_ns -=
        (int64_t)(payload_random(&load->random) % (uint64_t)(pause_ns / 4)); // so that they do not come all at once
    if (request->retry_after_s > 0 && request->retry_after_s * SL_NS_PER_S < pause_ns)
        pause_ns = request->retry_after_s * SL_NS_PER_S;
    request->resend_ns = load->now_ns + pause_ns;
    if (request->resend_ns < load->resend_ns)
        load->resend_ns = request->resend_ns;
    request->next = load->waiting;
    load->waiting = request;
}

void load_request_done(struct load *load, struct load_request *request, enum load_cause cause)
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
    if (load->history != NULL)
        write_history(load, request, outcome, load_cause_words[cause], &answer);
    if (outcome != HISTORY_OK && cause != LOAD_CAUSE_END && worth_retrying(load, request, outcome)) {
        request->unknown_before |= outcome == HISTORY_UNKNOWN;
        wait_to_resend(load, request);
        return;
    }
    settle(load, request, outcome);
}

void load_requests_give_up(struct load *load)
{
    while (load->waiting != NULL) {
        struct load_request *request = load->waiting;
        load->waiting = request->next;
        // Each attempt has its line in the history already; only the fate of the events is left to be said.
        settle(load, request, request->unknown_before ? HISTORY_UNKNOWN : HISTORY_FAIL);
    }
    load->resend_ns = INT64_MAX;
}
