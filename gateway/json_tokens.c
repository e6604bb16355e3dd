// One walk over the structurals of an event: strict validation, duplicate keys at every level, the values that pointers
// name, whitespace between tokens.
//
// simdjson's stage 1 has seen to UTF-8, to control characters in strings and to where strings begin and end. Its
// structurals are the { } [ ] : , outside of strings and the first byte of every string and scalar, where a scalar is
// any run of other bytes that are no blank. So between two structurals there is one token, and then blanks: a string
// ends at the last byte before the next structural that is no blank, and of a number, true, false or null it has to be
// checked that it reaches as far. simdjson's stage 2 would check grammar and scalars as well, but it writes each string
// and number to a tape, where nearly all of it is of no use here: with this walk a whole
// json_walk() takes a third less time (json_bench).
//
// What it takes is what json_reader.c takes, byte for byte: tests/json and the fuzz target hold them against each
// other, against simdjson's own parser and against jansson.
#include "gateway/json_tokens.h"

#include "gateway/json_scalar.h"

#include <stdlib.h>

enum { MEMBER_BYTES_MIN = 5 }; // "":0,

bool json_tokens_init(struct json_tokens *tokens, size_t window_max, uint32_t depth_max)
{
    *tokens = (struct json_tokens){.depth_max = depth_max};
    tokens->frames = calloc(depth_max, sizeof(*tokens->frames));
    tokens->unescaped = calloc(1, window_max + JSON_PADDING);
    return json_keys_init(&tokens->keys, window_max / MEMBER_BYTES_MIN + 1) && tokens->frames != NULL &&
           tokens->unescaped != NULL;
}

void json_tokens_free(struct json_tokens *tokens)
{
    json_keys_free(&tokens->keys);
    free(tokens->frames);
    free(tokens->unescaped);
}

static size_t find_backslash(const uint8_t *bytes, size_t from, size_t length)
{
    const uint8_t *found = memchr(bytes + from, '\\', length - from);
    return found == NULL ? length : (size_t)(found - bytes);
}

void json_tokens_set(struct json_tokens *tokens, const uint8_t *bytes, size_t length, const uint32_t *structurals,
                     uint32_t count)
{
    tokens->bytes = bytes;
    tokens->length = length;
    tokens->structurals = structurals;
    tokens->count = count;
    tokens->backslash = find_backslash(bytes, 0, length);
}

// ---- strings

// A string that may have escapes; `end` is behind its closing quote.
static JSON_OUT_OF_LINE bool unescape(struct json_tokens *tokens, struct sl_span *text, size_t end)
{
    uint32_t length;
    uint8_t *to = tokens->unescaped + tokens->unescaped_used;
    tokens->backslash = find_backslash(tokens->bytes, end, tokens->length);
    if (!json_unescape(text->bytes, text->length, to, &length))
        return false;
    *text = (struct sl_span){.bytes = to, .length = length};
    tokens->unescaped_used += length;
    return true;
}

// The string whose opening quote is at `at`; next: the structural behind it. Returns its end, 0 when it is not valid.
static inline size_t string_end(struct json_tokens *tokens, size_t at, size_t next, struct sl_span *text)
{
    const uint8_t *bytes = tokens->bytes;
    size_t end = next;
    while (json_is_blank(bytes[end - 1]))
        end--;
    if (bytes[end - 1] != '"' || end < at + 2)
        return 0; // stage 1 leaves no such string
    *text = (struct sl_span){.bytes = bytes + at + 1, .length = end - at - 2};
    return tokens->backslash >= end || unescape(tokens, text, end) ? end : 0;
}

// ---- pointers

// The pointers of `active` whose token at this depth is the key.
static JSON_OUT_OF_LINE uint32_t match_key(const struct json_reading *reading, uint32_t active, uint32_t depth,
                                           uint64_t hash, struct sl_span key)
{
    uint32_t matched = 0;
    for (uint32_t rest = active; rest != 0; rest &= rest - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(rest);
        const struct json_token *token = &reading->pointers[i]->tokens[depth];
        bool same =
            token->hash == hash && token->length == key.length && memcmp(token->bytes, key.bytes, key.length) == 0;
        matched |= (uint32_t)same << i;
    }
    return matched;
}

// The same of an array's element.
static JSON_OUT_OF_LINE uint32_t match_element(const struct json_reading *reading, uint32_t active, uint32_t depth,
                                               uint32_t element)
{
    uint32_t matched = 0;
    for (uint32_t rest = active; rest != 0; rest &= rest - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(rest);
        matched |= (uint32_t)(reading->pointers[i]->tokens[depth].element == (int64_t)element) << i;
    }
    return matched;
}

static inline uint64_t hash_bit(uint64_t hash)
{
    return UINT64_C(1) << (hash & 63);
}

// A bit for each hash that a key at this depth can be asked by, to pass over most keys at once.
static inline uint64_t wanted_bits(const struct json_reading *reading, uint32_t active, uint32_t depth)
{
    uint64_t wanted = 0;
    for (uint32_t rest = active; rest != 0; rest &= rest - 1)
        wanted |= hash_bit(reading->pointers[__builtin_ctz(rest)]->tokens[depth].hash);
    return wanted;
}

// `text`: of a string what it says, else its token.
static struct json_value value_of(uint8_t first, struct sl_span text)
{
    const uint8_t *bytes = text.bytes;
    switch (first) {
    case '{':
    case '[':
        return (struct json_value){.kind = first == '{' ? JSON_KIND_OBJECT : JSON_KIND_ARRAY};
    case '"':
        return (struct json_value){.kind = JSON_KIND_STRING, .text = text};
    case 't':
    case 'f':
        return (struct json_value){.kind = JSON_KIND_BOOL, .text = text};
    case 'n':
        return (struct json_value){.kind = JSON_KIND_NULL};
    default:
        for (size_t i = 0; i < text.length; i++) {
            if (bytes[i] == '.' || bytes[i] == 'e' || bytes[i] == 'E')
                return (struct json_value){.kind = JSON_KIND_REAL, .text = text};
        }
        return (struct json_value){.kind = JSON_KIND_INTEGER, .text = text};
    }
}

// Stores the value for the pointers that end here; returns those that lead on into it.
static JSON_OUT_OF_LINE uint32_t take_value(const struct json_reading *reading, uint32_t matched, uint32_t depth,
                                            uint8_t first, struct sl_span text, struct json_value *values)
{
    uint32_t further = 0;
    for (uint32_t rest = matched; rest != 0; rest &= rest - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(rest);
        if (reading->pointers[i]->token_count == depth + 1)
            values[i] = value_of(first, text);
        else
            further |= UINT32_C(1) << i;
    }
    return further;
}

// ---- the walk

struct place {
    const uint8_t *bytes;
    const uint32_t *structurals;
    uint32_t count;
    uint32_t at; // the structural that is due
    uint32_t depth;
    uint32_t objects; // opened so far
    struct json_frame *frame;
    size_t scalar_bytes; // what scalars and strings have, less one each
};

static inline uint8_t byte_at(const struct place *place, uint32_t structural)
{
    return place->bytes[place->structurals[structural]];
}

static inline void open_frame(struct place *place, const struct json_reading *reading, uint32_t active, bool object)
{
    *place->frame = (struct json_frame){
        .wanted = wanted_bits(reading, active, place->depth),
        .object = place->objects,
        .active = active,
        .close = object ? '}' : ']',
    };
    place->objects += object;
}

struct key_read {
    enum json_tokens_result result;
    struct json_key key;
    size_t end; // behind its closing quote
};

// A key that is not the one that was expected.
static JSON_OUT_OF_LINE struct key_read read_other_key(struct json_tokens *tokens, struct json_reading *reading,
                                                       uint32_t structural, uint32_t object)
{
    struct key_read read = {.result = JSON_TOKENS_REFUSED};
    uint32_t at = tokens->structurals[structural];
    uint32_t colon = tokens->structurals[structural + 1];
    struct sl_span text;
    if (tokens->bytes[at] == '"' && tokens->bytes[colon] == ':')
        read.end = string_end(tokens, at, colon, &text);
    if (read.end == 0)
        return read;
    read.key = (struct json_key){.bytes = text.bytes, .length = (uint32_t)text.length};
    read.key.escaped = read.key.bytes != tokens->bytes + at + 1;
    read.result = JSON_TOKENS_READ;
    if (!json_keys_add(&tokens->keys, &read.key, tokens->bytes + at, colon + 1 - at, object)) {
        reading->duplicate = at;
        reading->duplicate_key = text;
        read.result = JSON_TOKENS_DUPLICATE;
    }
    return read;
}

// The key that is due and its colon. *matched: the pointers that it leads on.
static inline enum json_tokens_result read_key(struct json_tokens *tokens, struct place *place,
                                               struct json_reading *reading, uint32_t *matched)
{
    if (place->count - place->at < 4) // nor can it be whole with fewer: key, colon, value, and what is behind it
        return JSON_TOKENS_CUT;
    const struct json_frame *frame = place->frame;
    uint32_t at = place->structurals[place->at];
    uint32_t length = place->structurals[place->at + 1] + 1 - at;
    uint64_t hash;
    if (json_keys_take(&tokens->keys, place->bytes + at, length, frame->object, &hash)) {
        if ((frame->wanted & hash_bit(hash)) != 0)
            *matched = match_key(reading, frame->active, place->depth, hash,
                                 (struct sl_span){.bytes = place->bytes + at + 1, .length = length - 3});
        place->scalar_bytes += length - 2;
    } else {
        struct key_read other = read_other_key(tokens, reading, place->at, frame->object);
        if (other.result != JSON_TOKENS_READ)
            return other.result;
        if ((frame->wanted & hash_bit(other.key.hash)) != 0)
            *matched = match_key(reading, frame->active, place->depth, other.key.hash,
                                 (struct sl_span){.bytes = other.key.bytes, .length = other.key.length});
        place->scalar_bytes += other.end - at - 1;
    }
    place->at += 2;
    return JSON_TOKENS_READ;
}

// The value that is due, of a container its '[' or '{'; there is a structural behind it. Fills *opened. False: refused.
static inline bool read_value(struct json_tokens *tokens, struct place *place, const struct json_reading *reading,
                              uint32_t matched, struct json_value *values, bool *opened)
{
    size_t at = place->structurals[place->at];
    size_t next = place->structurals[place->at + 1];
    uint8_t first = place->bytes[at];
    struct sl_span text;
    place->at++;
    *opened = false;
    if (first == '"') {
        size_t end = string_end(tokens, at, next, &text);
        if (end == 0)
            return false;
        place->scalar_bytes += end - at - 1;
    } else if (first == '{' || first == '[') {
        text = (struct sl_span){.bytes = place->bytes + at, .length = 1};
        *opened = true;
    } else {
        size_t end = json_scalar_end(place->bytes, at, next);
        if (end == 0)
            return false;
        text = (struct sl_span){.bytes = place->bytes + at, .length = end - at};
        place->scalar_bytes += end - at - 1;
    }
    if (matched != 0)
        matched = take_value(reading, matched, place->depth, first, text, values);
    if (!*opened)
        return true;
    if (++place->depth == tokens->depth_max)
        return false;
    place->frame++;
    open_frame(place, reading, matched, first == '{');
    *opened = place->bytes[next] != place->frame->close;
    return true;
}

// Behind a value: closes what closes there. READ: up to and with the event itself; CUT: as far as the structurals go;
// otherwise *more, and the next key or element is due, or it is refused.
static inline enum json_tokens_result read_close(struct place *place, bool *more)
{
    *more = false;
    for (;; place->at++) {
        if (place->at == place->count)
            return JSON_TOKENS_CUT;
        uint8_t byte = byte_at(place, place->at);
        if (byte == ',') {
            place->at++;
            *more = true;
            return JSON_TOKENS_READ;
        }
        if (byte != place->frame->close)
            return JSON_TOKENS_REFUSED;
        if (place->depth == 0)
            return JSON_TOKENS_READ;
        place->depth--;
        place->frame--;
    }
}

static inline enum json_tokens_result read_all(struct json_tokens *tokens, struct place *place,
                                               struct json_reading *reading, struct json_value *values)
{
    bool opened = place->bytes[place->structurals[place->at]] != '}';
    for (;;) {
        bool more = opened;
        if (!opened) {
            enum json_tokens_result closed = read_close(place, &more);
            if (!more)
                return closed;
        }
        uint32_t matched = 0;
        if (place->frame->close == '}') {
            enum json_tokens_result key = read_key(tokens, place, reading, &matched);
            if (key != JSON_TOKENS_READ)
                return key;
        } else if (place->count - place->at < 2) {
            return JSON_TOKENS_CUT;
        } else if (place->frame->active != 0) {
            matched = match_element(reading, place->frame->active, place->depth, place->frame->element++);
        }
        if (!read_value(tokens, place, reading, matched, values, &opened))
            return JSON_TOKENS_REFUSED;
    }
}

enum json_tokens_result json_tokens_read(struct json_tokens *tokens, struct json_reading *reading,
                                         struct json_event *event)
{
    struct place place = {
        .bytes = tokens->bytes,
        .structurals = tokens->structurals,
        .count = tokens->count,
        .at = reading->first + 1,
        .frame = tokens->frames,
    };
    if (place.at >= place.count)
        return JSON_TOKENS_CUT;
    uint32_t active = 0;
    for (size_t i = 0; i < reading->pointer_count; i++) {
        event->values[i] = (struct json_value){.kind = JSON_KIND_ABSENT};
        active |= (uint32_t)(reading->pointers[i] != NULL) << i;
    }
    tokens->unescaped_used = 0;
    json_keys_begin(&tokens->keys);
    open_frame(&place, reading, active, true);
    enum json_tokens_result result = read_all(tokens, &place, reading, event->values);
    json_keys_end(&tokens->keys, place.objects, result == JSON_TOKENS_READ);
    if (result != JSON_TOKENS_READ)
        return result;

    reading->last = place.at;
    uint32_t start = place.structurals[reading->first];
    event->raw.bytes = place.bytes + start;
    event->raw.length = place.structurals[place.at] - start + 1;
    event->compact = place.scalar_bytes + (place.at - reading->first + 1) == event->raw.length;
    return JSON_TOKENS_READ;
}
