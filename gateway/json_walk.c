// Walking a body, event by event.
//
// Happy path: a *window* of the body, which begins at an event, is indexed by one run of simdjson's stage 1. For each
// event in it one walk along the index (json_tokens.c) validates it, finds duplicate keys, the values asked for and the
// event's end. An event that a window cuts is the first of the next one. Stage 1 refuses input that ends inside a
// string, so a window may have to end before the last quote in it: whether that quote opens a string is guessed from
// the byte behind it, and the other end is tried when the guess was wrong. NDJSON needs none of this: a line is a
// window.
//
// Memory is bounded by the parser's capacity, not by the body: no index is ever longer than capacity + WINDOW bytes.
//
// Failure: whenever anything is refused, a second pass by plain code (json_error.c) finds the first fault from there
// on. It may lie in a later event of the window; then the walk goes on up to that event, so that every event before the
// fault has been handed out, and those alone, wherever the windows happened to lie.
#include "gateway/json_tokens.h"

#include <stdlib.h>

enum { WINDOW = 64 * 1024, WINDOW_GROWTH = 8 };

struct json_parser {
    struct json_engine *engine;
    struct json_tokens tokens;
    size_t capacity;
    size_t window_max;
    size_t window_first;
    uint32_t depth_max;
    uint32_t event_first; // structurals of the event that is being handed out
    uint32_t event_last;
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

struct json_parser *json_parser_new(size_t capacity, uint32_t depth_max)
{
    sl_assert(capacity > 0 && capacity <= (size_t)1 << 30);
    sl_assert(depth_max > 0 && depth_max <= JSON_DEPTH_LIMIT);
    json_seed_init();
    struct json_parser *parser = calloc(1, sizeof(*parser));
    if (parser == NULL)
        return NULL;
    parser->capacity = capacity;
    parser->depth_max = depth_max;
    parser->window_max = capacity + WINDOW;
    parser->engine = json_engine_new(parser->window_max);
    if (!json_tokens_init(&parser->tokens, parser->window_max, depth_max) || parser->engine == NULL) {
        json_parser_free(parser);
        return NULL;
    }
    json_parser_set_window(parser, WINDOW);
    return parser;
}

void json_parser_set_window(struct json_parser *parser, size_t window_bytes)
{
    sl_assert(window_bytes > 0);
    parser->window_first = smaller(window_bytes, parser->window_max);
}

void json_parser_free(struct json_parser *parser)
{
    if (parser == NULL)
        return;
    if (parser->engine != NULL)
        json_engine_free(parser->engine);
    json_tokens_free(&parser->tokens);
    free(parser);
}

struct walk {
    struct json_parser *parser;
    enum json_shape shape;
    const uint8_t *bytes;
    size_t end; // of the body, or of the line
    const struct json_pointer *const *pointers;
    size_t pointer_count;
    bool (*on_event)(const struct json_event *event, void *user);
    void *user;
    struct json_event event; // its index is that of the next event
    struct json_fault *fault;

    // A fault that was found further on: the walk ends at `stop`, where it is reported.
    bool stopping;
    size_t stop;
    struct json_fault found;

    size_t window_bytes; // of the next window
    size_t window;       // where the present one begins
    size_t window_end;   // 0: there is none
    uint32_t next;       // the structural where the next event should be
};

static size_t skip_blanks(const struct walk *walk, size_t at)
{
    while (at < walk->end && json_is_blank(walk->bytes[at]))
        at++;
    return at;
}

static size_t walk_limit(const struct walk *walk)
{
    return walk->stopping ? walk->stop : walk->end;
}

// ---- windows

static bool window_try(struct walk *walk, size_t at, size_t end, bool *in_string)
{
    struct json_parser *parser = walk->parser;
    uint32_t count = json_engine_index(parser->engine, walk->bytes + at, end - at, in_string);
    if (count == 0)
        return false;
    json_tokens_set(&parser->tokens, walk->bytes + at, end - at, json_engine_structurals(parser->engine), count);
    walk->window = at;
    walk->window_end = end;
    walk->next = 0;
    return true;
}

// The last quote in [at, end) that no backslash escapes, or end.
static size_t last_quote(const struct walk *walk, size_t at, size_t end)
{
    for (size_t limit = end; limit > at;) {
        const uint8_t *quote = memrchr(walk->bytes + at, '"', limit - at);
        if (quote == NULL)
            break;
        limit = (size_t)(quote - walk->bytes);
        size_t backslashes = 0;
        while (limit - backslashes > at && walk->bytes[limit - backslashes - 1] == '\\')
            backslashes++;
        if (backslashes % 2 == 0)
            return limit;
    }
    return end;
}

// Indexes up to `size` bytes from `at` on. False: something in them is wrong.
static bool window_open(struct walk *walk, size_t at, size_t size)
{
    size_t limit = walk_limit(walk);
    bool in_string;
    walk->window_end = 0;
    if (limit - at <= size)
        return window_try(walk, at, limit, &in_string);

    size_t end = at + size;
    size_t quote = last_quote(walk, at, end);
    uint8_t behind = walk->bytes[quote + 1];
    bool closes = behind == ':' || behind == ',' || behind == '}' || behind == ']' || json_is_blank(behind);
    if (window_try(walk, at, closes ? end : quote, &in_string))
        return true;
    return in_string && window_try(walk, at, closes ? quote : end, &in_string);
}

// ---- events

enum step {
    STEP_DONE,
    STEP_STOP,  // *fault is filled
    STEP_DOUBT, // something from here on is wrong: ask locate()
};

// Is the event at `at` where the window has it due? Opens one there if it is not.
static bool window_reach(struct walk *walk, size_t at, bool *fresh)
{
    const struct json_tokens *tokens = &walk->parser->tokens;
    *fresh =
        walk->window_end <= at || walk->next >= tokens->count || walk->window + tokens->structurals[walk->next] != at;
    return !*fresh || window_open(walk, at, walk->window_bytes);
}

// Reads the event at `at`, in a window that holds all of it.
static enum json_tokens_result read_event(struct walk *walk, size_t at, struct json_reading *reading)
{
    struct json_parser *parser = walk->parser;
    for (;;) {
        bool fresh;
        if (!window_reach(walk, at, &fresh))
            return JSON_TOKENS_REFUSED;
        reading->first = walk->next;
        enum json_tokens_result result = json_tokens_read(&parser->tokens, reading, &walk->event);
        if (result == JSON_TOKENS_READ && walk->event.raw.length > parser->capacity)
            return JSON_TOKENS_REFUSED;
        if (result != JSON_TOKENS_CUT)
            return result;
        if (walk->window_end == walk_limit(walk) || (fresh && walk->window_bytes >= parser->window_max))
            return JSON_TOKENS_REFUSED;
        if (fresh)
            walk->window_bytes = smaller(walk->window_bytes * WINDOW_GROWTH, parser->window_max);
        walk->window_end = 0;
    }
}

size_t json_compact(const struct json_parser *parser, const struct json_event *event, uint8_t *out)
{
    const uint8_t *bytes = event->raw.bytes;
    const uint32_t *structurals = parser->tokens.structurals;
    const uint32_t start = structurals[parser->event_first];
    size_t used = 0;
    size_t copied = 0; // of raw
    for (uint32_t i = parser->event_first + 1; i <= parser->event_last && !event->compact; i++) {
        size_t token = structurals[i] - start;
        size_t end = token; // of the token before it
        while (json_is_blank(bytes[end - 1]))
            end--;
        if (end == token)
            continue;
        memcpy(out + used, bytes + copied, end - copied);
        used += end - copied;
        copied = token;
    }
    memcpy(out + used, bytes + copied, event->raw.length - copied);
    return used + event->raw.length - copied;
}

static struct json_scan scan_from(const struct walk *walk, enum json_due due, size_t at)
{
    return (struct json_scan){
        .bytes = walk->bytes,
        .end = walk->end,
        .shape = walk->shape,
        .depth_max = walk->parser->depth_max,
        .capacity = walk->parser->capacity,
        .due = due,
        .at = at,
        .index = walk->event.index,
    };
}

// A duplicate key is reported only for an event that has no other fault; it has been looked at only as far as the key.
static enum step refuse_key(struct walk *walk, size_t at, bool alone, const struct json_reading *reading)
{
    struct json_scan scan = scan_from(walk, alone ? JSON_DUE_DOCUMENT : JSON_DUE_EVENT, at);
    struct json_fault other;
    if (json_scan_fault(&scan, &other) && scan.index == walk->event.index)
        *walk->fault = other;
    else
        json_refuse_duplicate(walk->fault, walk->event.index, walk->window + reading->duplicate,
                              reading->duplicate_key);
    return STEP_STOP;
}

// Hands out the event at `at`; *behind is the offset of the byte after it. `alone`: nothing but blanks may follow it.
static enum step take_event(struct walk *walk, size_t at, bool alone, size_t *behind)
{
    struct json_parser *parser = walk->parser;
    struct json_event *event = &walk->event;
    struct json_reading reading = {.pointers = walk->pointers, .pointer_count = walk->pointer_count};
    if (walk->bytes[at] != '{')
        return STEP_DOUBT;
    switch (read_event(walk, at, &reading)) {
    case JSON_TOKENS_DUPLICATE:
        return refuse_key(walk, at, alone, &reading);
    case JSON_TOKENS_CUT:
    case JSON_TOKENS_REFUSED:
        return STEP_DOUBT;
    case JSON_TOKENS_READ:
        break;
    }
    size_t end = at + event->raw.length;
    if (alone && skip_blanks(walk, end) != walk->end)
        return STEP_DOUBT;
    parser->event_first = reading.first;
    parser->event_last = reading.last;
    if (!walk->on_event(event, walk->user))
        return STEP_STOP;
    event->index++;
    walk->next = reading.last + 2; // behind the comma
    *behind = end;
    return STEP_DONE;
}

// Finds the fault that is somewhere from `at` on. True: the walk may go on, up to the event that has it.
static bool locate(struct walk *walk, enum json_due due, size_t at)
{
    struct json_scan scan = scan_from(walk, due, at);
    // json_tokens.c refuses what the scan holds to be good: never seen (tests/json and tests/fuzz look for it), and
    // refused.
    if (walk->stopping || !json_scan_fault(&scan, &walk->found))
        return json_refuse(walk->fault, JSON_FAULT_SYNTAX, walk->event.index, at, "this is not valid JSON");
    if (scan.index == walk->event.index) {
        *walk->fault = walk->found;
        return false;
    }
    walk->stopping = true;
    walk->stop = scan.at;
    walk->window_end = 0;
    return true;
}

// `open`: where the '[' is.
static bool walk_array(struct walk *walk, size_t open)
{
    size_t at = skip_blanks(walk, open + 1);
    enum json_due due = JSON_DUE_FIRST;
    for (;;) {
        if (walk->stopping && at >= walk->stop) {
            *walk->fault = walk->found;
            return false;
        }
        enum step step = STEP_DOUBT;
        if (due == JSON_DUE_COMMA && at < walk->end && walk->bytes[at] == ',') {
            due = JSON_DUE_EVENT;
            at = skip_blanks(walk, at + 1);
            continue;
        }
        if (due == JSON_DUE_COMMA && at < walk->end && walk->bytes[at] == ']') {
            at = skip_blanks(walk, at + 1);
            return at == walk->end || locate(walk, JSON_DUE_END, at);
        }
        if (due != JSON_DUE_COMMA && at < walk->end)
            step = take_event(walk, at, false, &at);
        if (step == STEP_STOP || (step == STEP_DOUBT && !locate(walk, due, at)))
            return false;
        if (step == STEP_DONE) {
            due = JSON_DUE_COMMA;
            at = skip_blanks(walk, at);
        }
    }
}

// A body that is one object, or one line.
static bool walk_single(struct walk *walk, size_t at)
{
    enum step step = take_event(walk, at, true, &at);
    return step == STEP_DONE || (step == STEP_DOUBT && locate(walk, JSON_DUE_DOCUMENT, at));
}

static bool walk_lines(struct walk *walk, size_t length)
{
    walk->window_bytes = walk->parser->window_max;
    for (size_t line = 0; line < length;) {
        const uint8_t *newline = memchr(walk->bytes + line, '\n', length - line);
        walk->end = newline == NULL ? length : (size_t)(newline - walk->bytes);
        size_t at = skip_blanks(walk, line);
        walk->window_end = 0;
        if (at < walk->end && !walk_single(walk, at))
            return false;
        line = walk->end + 1;
    }
    if (walk->event.index == 0)
        return json_refuse(walk->fault, JSON_FAULT_EMPTY, 0, length, "the body holds no event");
    return true;
}

bool json_walk(struct json_parser *parser, enum json_shape shape, struct sl_span body,
               const struct json_pointer *const *pointers, size_t pointer_count,
               bool (*on_event)(const struct json_event *event, void *user), void *user, struct json_fault *fault)
{
    sl_assert(pointer_count <= JSON_POINTERS_MAX);
    fault->kind = JSON_FAULT_NONE;
    struct walk walk;
    walk.parser = parser;
    walk.shape = shape;
    walk.bytes = body.bytes;
    walk.end = body.length;
    walk.pointers = pointers;
    walk.pointer_count = pointer_count;
    walk.on_event = on_event;
    walk.user = user;
    walk.event.index = 0;
    walk.fault = fault;
    walk.stopping = false;
    walk.window_bytes = parser->window_first;
    walk.window_end = 0;

    if (shape == JSON_SHAPE_LINES)
        return walk_lines(&walk, body.length);
    size_t at = skip_blanks(&walk, 0);
    if (at < walk.end && walk.bytes[at] == '[')
        return walk_array(&walk, at);
    if (at < walk.end && walk.bytes[at] == '{')
        return walk_single(&walk, at);
    return locate(&walk, JSON_DUE_DOCUMENT, at);
}
