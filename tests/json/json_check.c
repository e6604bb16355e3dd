#include "tests/json/json_check.h"

#include "gateway/json_internal.h"
#include "tests/json/json_oracle.h"
#include "tests/json/json_oracle_simdjson.h"

#include <stdio.h>
#include <stdlib.h>

// Known differences from jansson (2.14): it has no integers above INT64_MAX, takes no NUL in a key, nests 2,048 deep,
// and overlooks a NUL byte right behind a number, true, false or null.

enum { WINDOWS = 4, VARIANTS = 3, CHECKED_POINTERS = 7 };

static const size_t windows[WINDOWS] = {1, 7, 100, 1 << 16};
static const struct {
    size_t capacity;
    uint32_t depth_max;
} variants[VARIANTS] = {{1 << 16, 64}, {200, 64}, {1 << 16, 4}};

static const char *const pointer_texts[CHECKED_POINTERS] = {"/id", "/a", "/a/b", "/b/0", "/b/1/a", "/a~1b", "/"};

struct json_check {
    struct json_parser *parsers[VARIANTS];
    struct json_pointer *pointers[CHECKED_POINTERS];
};

static void broken(const char *what, struct sl_span body, size_t offset)
{
    fprintf(stderr, "broken: %s, at %zu of %zu bytes: ", what, offset, body.length);
    for (size_t i = 0; i < body.length; i++) {
        uint8_t byte = ((const uint8_t *)body.bytes)[i];
        fprintf(stderr, byte >= 0x20 && byte < 0x7f ? "%c" : "<%02x>", byte);
    }
    fputc('\n', stderr);
    abort();
}

struct json_check *json_check_new(void)
{
    struct json_check *check = calloc(1, sizeof(*check));
    sl_assert(check != NULL);
    struct sl_error err;
    for (size_t i = 0; i < CHECKED_POINTERS; i++)
        sl_assert(json_pointer_compile(&check->pointers[i], pointer_texts[i], &err));
    for (size_t i = 0; i < VARIANTS; i++) {
        check->parsers[i] = json_parser_new(variants[i].capacity, variants[i].depth_max);
        sl_assert(check->parsers[i] != NULL);
    }
    return check;
}

void json_check_free(struct json_check *check)
{
    for (size_t i = 0; i < CHECKED_POINTERS; i++)
        json_pointer_free(check->pointers[i]);
    for (size_t i = 0; i < VARIANTS; i++)
        json_parser_free(check->parsers[i]);
    free(check);
}

// ---- one event, against jansson and the strict reader

struct visit {
    struct sl_span body; // the copy that is walked
    size_t events;
    size_t behind;   // offset behind the last event
    uint64_t digest; // of places and values
    bool compare;    // with jansson too
    const struct json_check *check;
    unsigned variant;
};

static void digest(struct visit *visit, const void *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        visit->digest = (visit->digest ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
}

static const struct json_t *resolve(const struct json_t *value, const struct json_pointer *pointer)
{
    for (uint32_t i = 0; i < pointer->token_count; i++) {
        const struct json_token *token = &pointer->tokens[i];
        value = json_oracle_step(value, (const char *)token->bytes, (long)token->element); // padded, so NUL-terminated
    }
    return value;
}

static bool known_difference(const char *reason)
{
    return strstr(reason, "too big integer") != NULL || strstr(reason, "NUL byte in object key") != NULL;
}

static void compare_with_jansson(const struct visit *visit, const struct json_event *event)
{
    static const char *const kinds[] = {
        [JSON_KIND_ABSENT] = "absent",   [JSON_KIND_NULL] = "null",     [JSON_KIND_BOOL] = "boolean",
        [JSON_KIND_INTEGER] = "integer", [JSON_KIND_REAL] = "real",     [JSON_KIND_STRING] = "string",
        [JSON_KIND_ARRAY] = "array",     [JSON_KIND_OBJECT] = "object",
    };
    const char *reason;
    struct json_t *theirs = json_oracle_load(event->raw.bytes, event->raw.length, &reason);
    if (theirs == NULL && !known_difference(reason))
        broken(reason, event->raw, 0);
    for (size_t i = 0; theirs != NULL && i < CHECKED_POINTERS; i++) {
        const struct json_value *ours = &event->values[i];
        if (!json_oracle_equals(resolve(theirs, visit->check->pointers[i]), kinds[ours->kind], ours->text.bytes,
                                ours->text.length))
            broken(pointer_texts[i], event->raw, 0);
    }
    json_oracle_free(theirs);
}

// The compact form by plain code, which knows nothing but quotes and backslashes.
static size_t compact_plainly(struct sl_span raw, uint8_t *out)
{
    const uint8_t *bytes = raw.bytes;
    size_t used = 0;
    bool in_string = false;
    for (size_t i = 0; i < raw.length; i++) {
        uint8_t byte = bytes[i];
        if (!in_string && (byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n'))
            continue;
        out[used++] = byte;
        if (in_string && byte == '\\')
            out[used++] = bytes[++i];
        else if (byte == '"')
            in_string = !in_string;
    }
    return used;
}

static void compare_compact(const struct visit *visit, const struct json_event *event)
{
    size_t length = event->raw.length;
    uint8_t *ours = malloc(length); // exact copies, so that a sanitizer sees every byte too far
    uint8_t *plain = malloc(length);
    sl_assert(ours != NULL && plain != NULL);
    size_t used = json_compact(visit->check->parsers[visit->variant], event, ours);
    if (used != compact_plainly(event->raw, plain) || memcmp(ours, plain, used) != 0)
        broken("the compact form", event->raw, 0);
    if (event->compact != (used == length))
        broken("an event is compact when nothing is left out", event->raw, 0);
    free(ours);
    free(plain);
}

static bool on_event(const struct json_event *event, void *user)
{
    struct visit *visit = user;
    const uint8_t *raw = event->raw.bytes;
    size_t offset = (size_t)(raw - (const uint8_t *)visit->body.bytes);
    if (event->index != visit->events || offset < visit->behind || offset + event->raw.length > visit->body.length ||
        event->raw.length > variants[visit->variant].capacity || raw[0] != '{' || raw[event->raw.length - 1] != '}')
        broken("the slice of an event", visit->body, offset);
    visit->events++;
    visit->behind = offset + event->raw.length;
    digest(visit, &offset, sizeof(offset));
    digest(visit, &event->raw.length, sizeof(event->raw.length));
    for (size_t i = 0; i < CHECKED_POINTERS; i++) {
        digest(visit, &event->values[i].kind, sizeof(event->values[i].kind));
        digest(visit, event->values[i].text.bytes, event->values[i].text.length);
    }
    compare_compact(visit, event);
    if (visit->compare) {
        struct json_fault fault;
        struct json_scan scan = {.bytes = raw,
                                 .end = event->raw.length,
                                 .depth_max = variants[visit->variant].depth_max,
                                 .capacity = event->raw.length,
                                 .due = JSON_DUE_DOCUMENT};
        if (json_scan_fault(&scan, &fault))
            broken(fault.detail, event->raw, fault.offset);
        if (!json_oracle_simdjson_takes(raw, event->raw.length))
            broken("simdjson refuses what is taken here", event->raw, 0);
        compare_with_jansson(visit, event);
    }
    return true;
}

// ---- whole bodies

struct outcome {
    bool good;
    struct json_fault fault;
    size_t events;
    uint64_t digest;
};

static struct outcome walk(const struct json_check *check, enum json_shape shape, struct sl_span body, unsigned variant,
                           size_t window, bool compare)
{
    // An exact copy, so that a sanitizer sees every byte too far; what follows the body must not matter.
    static const char *const paddings[WINDOWS] = {"\0", "\"", "}]", "1,"};
    const char *padding = paddings[window];
    uint8_t *copy = malloc(body.length + JSON_PADDING);
    sl_assert(copy != NULL);
    if (body.length > 0)
        memcpy(copy, body.bytes, body.length);
    for (size_t i = 0; i < JSON_PADDING; i++)
        copy[body.length + i] = (uint8_t)padding[padding[0] == '\0' ? 0 : i % strlen(padding)];

    struct visit visit = {
        .body = {copy, body.length}, .compare = compare, .check = check, .variant = variant, .digest = 1};
    struct outcome outcome;
    memset(&outcome, 0, sizeof(outcome));
    json_parser_set_window(check->parsers[variant], windows[window]);
    outcome.good =
        json_walk(check->parsers[variant], shape, visit.body, (const struct json_pointer *const *)check->pointers,
                  CHECKED_POINTERS, on_event, &visit, &outcome.fault);
    outcome.events = visit.events;
    outcome.digest = visit.digest;
    free(copy);
    return outcome;
}

static void check_fault(struct sl_span body, const struct outcome *outcome)
{
    const struct json_fault *fault = &outcome->fault;
    if (fault->index != outcome->events)
        broken("events before a fault, and those alone, are handed out", body, fault->offset);
    if (fault->kind == JSON_FAULT_NONE || fault->offset > body.length || fault->detail[0] == '\0' ||
        memchr(fault->detail, '\0', sizeof(fault->detail)) == NULL)
        broken("a fault without kind, place or detail", body, fault->offset);
    if (strcmp(fault->detail, "this is not valid JSON") == 0)
        broken("json_tokens.c refuses what the reader takes", body, fault->offset);
}

// The body cut before a syntax fault must be a good beginning: refused, if at all, for ending there.
static void check_beginning(const struct json_check *check, enum json_shape shape, struct sl_span body,
                            unsigned variant, const struct json_fault *fault)
{
    struct sl_span beginning = {.bytes = body.bytes, .length = fault->offset};
    struct outcome cut = walk(check, shape, beginning, variant, WINDOWS - 1, false);
    enum json_fault_kind kind = cut.fault.kind;
    if (!cut.good && (kind == JSON_FAULT_SYNTAX || kind == JSON_FAULT_UTF8 || kind == JSON_FAULT_DEPTH) &&
        cut.fault.offset < fault->offset)
        broken("a fault before the first fault", body, cut.fault.offset);
}

static void check_refusal(enum json_shape shape, struct sl_span body, const struct json_fault *fault)
{
    bool theirs_too = fault->kind == JSON_FAULT_SYNTAX || fault->kind == JSON_FAULT_UTF8 ||
                      fault->kind == JSON_FAULT_NUMBER || fault->kind == JSON_FAULT_DUPLICATE_KEY;
    if (shape != JSON_SHAPE_DOCUMENT || !theirs_too)
        return;
    bool mark = body.length >= 3 && memcmp(body.bytes, "\xef\xbb\xbf", 3) == 0; // later versions skip it
    if (fault->kind != JSON_FAULT_DUPLICATE_KEY && !mark && json_oracle_simdjson_takes(body.bytes, body.length))
        broken("simdjson takes what is refused here", body, fault->offset);
    if (body.length > 0 && memchr(body.bytes, '\0', body.length) != NULL)
        return;
    const char *reason;
    struct json_t *theirs = json_oracle_load(body.bytes, body.length, &reason);
    if (theirs != NULL)
        broken("jansson takes what is refused here", body, fault->offset);
}

bool json_check_body(struct json_check *check, enum json_shape shape, struct sl_span body, unsigned variant)
{
    variant %= VARIANTS;
    struct outcome first = walk(check, shape, body, variant, 0, true);
    for (size_t window = 1; window < WINDOWS; window++) {
        struct outcome other = walk(check, shape, body, variant, window, false);
        if (other.good != first.good || other.events != first.events || other.digest != first.digest ||
            (!first.good &&
             (other.fault.kind != first.fault.kind || other.fault.index != first.fault.index ||
              other.fault.offset != first.fault.offset || strcmp(other.fault.detail, first.fault.detail) != 0)))
            broken("the size of the window matters", body, first.fault.offset);
    }
    if (!first.good) {
        check_fault(body, &first);
        if (first.fault.kind == JSON_FAULT_SYNTAX)
            check_beginning(check, shape, body, variant, &first.fault);
        check_refusal(shape, body, &first.fault);
    }
    size_t guess = json_count_guess(shape, body);
    if (guess < 1 || (first.good && guess != first.events))
        broken("a good body counts as it is", body, guess);
    return first.good;
}
