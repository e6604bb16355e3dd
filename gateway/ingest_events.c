// From the bytes of a body to records: one pass, each event validated, its id, key and time picked, encoded into the
// batch.
//
// Happy path: json_walk hands out one event at a time; the record is appended at once, pointing at nothing afterwards.
// Failure modes: a fault of the JSON stops the walk (400, 413, 422); events that are good JSON without a usable id or
// key are collected, up to INTAKE_ERRORS_MAX, so that a partner sees more than the first (422). Either way the caller
// cuts back what was appended: a request is stored whole or not at all.
#include "base/crc32c.h"
#include "gateway/ingest_internal.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    ID_PART_MAX = 256, // bytes of one id (CONTRACT.md)
    ID_JOINED_MAX = 1024,
    KEY_MAX = 64 << 10,
};

struct id_text {
    char bytes[ID_JOINED_MAX];
    size_t length;
    // The same with the UUIDs among its parts in lower case, where it has more than one part.
    char same[ID_JOINED_MAX];
    bool has_same;
};

static void note_error(struct intake *intake, size_t index, const char *pointer, const char *detail)
{
    if (intake->error_count == INTAKE_ERRORS_MAX)
        return;
    struct intake_error *error = &intake->errors[intake->error_count++];
    error->index = index;
    snprintf(error->pointer, sizeof(error->pointer), "%s", pointer);
    snprintf(error->detail, sizeof(error->detail), "%s", detail);
}

static const char *kind_phrase(enum json_kind kind)
{
    static const char *const phrases[] = {
        [JSON_KIND_ABSENT] = "is missing",
        [JSON_KIND_NULL] = "is null",
        [JSON_KIND_BOOL] = "is true or false",
        [JSON_KIND_INTEGER] = "is an integer",
        [JSON_KIND_REAL] = "is a number with a fraction or exponent",
        [JSON_KIND_STRING] = "is a string",
        [JSON_KIND_ARRAY] = "is an array",
        [JSON_KIND_OBJECT] = "is an object",
    };
    return phrases[kind];
}

// Joined parts are separated by '/', so '/' inside a part becomes ~1 and '~' becomes ~0 (as in RFC 6901): two different
// tuples never give one id, which would make a new event look like a duplicate.
static bool id_put(struct id_text *id, struct sl_span part, bool escape)
{
    if (!escape) {
        if (part.length > sizeof(id->bytes) - id->length)
            return false;
        memcpy(id->bytes + id->length, part.bytes, part.length);
        id->length += part.length;
        return true;
    }
    for (size_t i = 0; i < part.length; i++) {
        char c = ((const char *)part.bytes)[i];
        bool special = c == '/' || c == '~';
        if (id->length + (special ? 2 : 1) > sizeof(id->bytes))
            return false;
        if (special) {
            id->bytes[id->length++] = '~';
            c = c == '/' ? '1' : '0';
        }
        id->bytes[id->length++] = c;
    }
    return true;
}

// A canonical UUID (RFC 9562, 8-4-4-4-12) compares without regard to case, as a part of a longer id, too.
static void fold_uuid(char *text, size_t length)
{
    static const char form[] = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
    if (length != sizeof(form) - 1)
        return;
    for (size_t i = 0; i < length; i++)
        if (form[i] == '-' ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
            return;
    for (size_t i = 0; i < length; i++)
        if (text[i] >= 'A' && text[i] <= 'F')
            text[i] = (char)(text[i] + ('a' - 'A'));
}

static bool id_part(struct intake *intake, const struct json_event *event, size_t part_index, struct sl_span *part)
{
    const struct config_id_part *from = &intake->route->source->id_parts[part_index];
    char detail[160];
    if (from->from == ID_FROM_HEADER) {
        *part = intake->id_headers[part_index];
        if (part->length >= 1 && part->length <= ID_PART_MAX)
            return true;
        snprintf(detail, sizeof(detail), "the event id comes from the header %.64s, which %s", from->header,
                 part->length == 0 ? "is missing or empty" : "is longer than 256 bytes");
        note_error(intake, event->index, "", detail);
        return false;
    }
    const struct json_value *value = &event->values[part_index];
    *part = value->text;
    if (value->kind == JSON_KIND_STRING && (part->length == 0 || part->length > ID_PART_MAX))
        snprintf(detail, sizeof(detail),
                 "the event id must be a string of 1 to 256 bytes or an integer; this one has %zu", part->length);
    else if (value->kind != JSON_KIND_STRING && value->kind != JSON_KIND_INTEGER)
        snprintf(detail, sizeof(detail), "the event id must be a string of 1 to 256 bytes or an integer; it %s",
                 kind_phrase(value->kind));
    else
        return true;
    note_error(intake, event->index, json_pointer_text(from->pointer), detail);
    return false;
}

static bool pick_id(struct intake *intake, const struct json_event *event, struct id_text *id)
{
    const struct config_source *source = intake->route->source;
    bool joined = source->id_part_count > 1;
    struct {
        size_t start, end;
    } parts[CONFIG_ID_PARTS_MAX];
    id->length = 0;
    id->has_same = joined;
    for (size_t i = 0; i < source->id_part_count; i++) {
        struct sl_span part;
        if (!id_part(intake, event, i, &part))
            return false;
        bool fits = i == 0 || id_put(id, sl_span_of("/"), false);
        parts[i].start = id->length;
        fits = fits && id_put(id, part, joined);
        parts[i].end = id->length;
        // A header names the request; its batch's events are told apart by their index (CONTRACT.md).
        if (source->id_parts[i].from == ID_FROM_HEADER && intake->is_batch) {
            char index[24];
            snprintf(index, sizeof(index), "/%zu", event->index);
            fits = fits && id_put(id, sl_span_of(index), false);
            id->has_same = true;
        }
        if (!fits) {
            note_error(intake, event->index, "", "the joined event id is longer than 1024 bytes");
            return false;
        }
    }
    if (id->has_same) {
        memcpy(id->same, id->bytes, id->length);
        for (size_t i = 0; i < source->id_part_count; i++)
            fold_uuid(id->same + parts[i].start, parts[i].end - parts[i].start);
    }
    return true;
}

static bool pick_key(struct intake *intake, const struct json_event *event, struct record *record)
{
    const struct route *route = intake->route;
    const struct json_value *value = &event->values[route->key_index];
    record->has_key = value->kind != JSON_KIND_ABSENT && value->kind != JSON_KIND_NULL;
    record->key = value->text;
    const char *wrong = NULL;
    if (value->kind == JSON_KIND_OBJECT || value->kind == JSON_KIND_ARRAY)
        wrong = "the partition key must be a string, a number or a boolean";
    else if (record->has_key && record->key.length > KEY_MAX)
        wrong = "the partition key is longer than 64 KiB";
    if (wrong == NULL)
        return true;
    note_error(intake, event->index, json_pointer_text(route->source->key), wrong);
    return false;
}

static bool on_event(const struct json_event *event, void *user)
{
    struct intake *intake = user;
    const struct route *route = intake->route;
    struct id_text id;
    struct record record = {.kind = RECORD_EVENT, .received_wall_ns = intake->received_wall_ns};
    bool good = pick_id(intake, event, &id);
    good = pick_key(intake, event, &record) && good;
    if (!good)
        return intake->error_count < INTAKE_ERRORS_MAX;
    if (intake->error_count > 0)
        return true; // refused already; only further errors are looked for

    record.source = route->name;
    record.lane = route->lane_name;
    record.topic = route->topic;
    record.event_id = (struct sl_span){.bytes = id.bytes, .length = id.length};
    record.payload = event->raw;
    record.payload_crc = sl_crc32c(event->raw.bytes, event->raw.length);

    struct record_header_field fields[6];
    memcpy(fields, intake->headers, sizeof(intake->headers));
    size_t field_count = intake->header_count;
    const struct json_value *time = &event->values[route->time_index];
    if (time->kind == JSON_KIND_STRING || time->kind == JSON_KIND_INTEGER || time->kind == JSON_KIND_REAL)
        fields[field_count++] = (struct record_header_field){.name = sl_span_of("sluice-time"), .value = time->text};
    struct sl_span same_id = {.bytes = id.has_same ? id.same : id.bytes, .length = id.length};
    if ((intake->loop->ingest->dedupe != NULL && !intake_identify(intake, event, same_id, &record)) ||
        !record_append(intake->records, &record, fields, field_count)) {
        intake->no_memory = true;
        return false;
    }
    intake->count++;
    return true;
}

enum intake_result intake_run(struct intake *intake, enum json_shape shape, struct sl_span body)
{
    const struct route *route = intake->route;
    size_t start = intake->records->length;
    intake->loop->taken_count = 0;
    bool good = json_walk(intake->loop->parser, shape, body, route->pointers, route->pointer_count, on_event, intake,
                          &intake->fault);
    if (intake->no_memory)
        return INTAKE_NO_MEMORY;
    // Malformed JSON comes before what is missing in well-formed events, wherever in the body each stands.
    if (!good && intake->fault.kind != JSON_FAULT_NONE)
        return INTAKE_FAULT;
    if (intake->error_count > 0)
        return INTAKE_EVENT_ERRORS;
    return intake->records->length - start > FRAME_BODY_MAX ? INTAKE_TOO_LARGE : INTAKE_OK;
}
