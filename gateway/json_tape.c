// One walk over the tape of a valid event: duplicate keys at every level, and the values that pointers name.
//
// The tape has keys unescaped, but not where they stand in the input. The structural indexes have that, and list the
// same things in the same order: for the few words whose place is asked for (numbers that a pointer names, a duplicate
// key) the structurals before it are counted along the tape.
//
// Keys of all objects of an event go into one open hash table. Each object has a serial number that takes part in hash
// and comparison; it counts on from event to event, so that entries of earlier events are known to be free and nothing
// is ever cleared. The table is cut to a few times the number of keys that the event can have, so a small event stays
// in a few cache lines, and 100,000 keys in one object cost no more each than ten.
#include "gateway/json_internal.h"

#include <stdlib.h>

enum { SLOTS_MIN = 16, SPARSE_MAX = 4096 };

// A member needs a key, a colon, a value and a comma or brace: at most a quarter of the structurals are keys. So the
// table is at most a quarter full, and of a large event, whose table is memory to be paid for, at most half.
static size_t slots_for(size_t structurals)
{
    size_t wanted = structurals <= SPARSE_MAX ? structurals : SPARSE_MAX + (structurals - SPARSE_MAX) / 2;
    size_t slots = SLOTS_MIN;
    while (slots < wanted)
        slots *= 2;
    return slots;
}

bool json_tape_init(struct json_tape *tape, size_t capacity, uint32_t depth_max)
{
    *tape = (struct json_tape){.slot_count = slots_for(capacity), .depth_max = depth_max};
    // calloc of this size is zero pages of the kernel: what no event needs is never touched.
    tape->slots = calloc(tape->slot_count, sizeof(*tape->slots));
    tape->frames = calloc(depth_max, sizeof(*tape->frames));
    return tape->slots != NULL && tape->frames != NULL;
}

void json_tape_free(struct json_tape *tape)
{
    free(tape->slots);
    free(tape->frames);
}

static inline uint8_t word_type(uint64_t word)
{
    return (uint8_t)(word >> 56);
}

static inline bool is_close(uint8_t type)
{
    return type == '}' || type == ']';
}

static inline size_t words_of(uint8_t type)
{
    return type == 'l' || type == 'u' || type == 'd' ? 2 : 1;
}

// The event that is being read.
struct event {
    const struct json_view *view;
    const uint8_t *bytes; // what was indexed
    uint32_t first;       // structural of its '{'
    const struct json_pointer *const *pointers;
    struct json_value *values;
};

// The structural that a word stands for.
static uint32_t structural_of(const struct event *event, const uint64_t *word)
{
    uint32_t structural = event->first;
    for (const uint64_t *before = event->view->tape + 1; before < word; before += words_of(word_type(*before))) {
        uint8_t byte;
        do {
            structural++;
            byte = event->bytes[event->view->structurals[structural]];
        } while (byte == ':' || byte == ',');
    }
    return structural;
}

struct key {
    const uint8_t *bytes; // behind their length
    uint32_t length;
    uint64_t hash;
};

static inline struct key key_at(const struct json_view *view, uint64_t word)
{
    struct key key = {.bytes = view->strings + (uint32_t)word + sizeof(key.length)};
    memcpy(&key.length, view->strings + (uint32_t)word, sizeof(key.length));
    key.hash = json_key_hash(key.bytes, key.length);
    return key;
}

// The part of the table that one event uses.
struct key_set {
    struct json_key_slot *slots;
    const uint8_t *strings;
    size_t mask;
    uint32_t serial_first;
};

// Returns false when the object already has the key.
static inline bool add_key(const struct key_set *set, const struct key *key, const struct json_frame *object)
{
    const uint32_t serial = object->serial;
    const uint64_t hash = key->hash + object->salt;
    for (size_t i = (hash ^ hash >> 32) & set->mask;; i = (i + 1) & set->mask) {
        struct json_key_slot *slot = &set->slots[i];
        if (slot->serial < set->serial_first) {
            slot->hash = hash;
            slot->serial = serial;
            slot->string = (uint32_t)(key->bytes - set->strings);
            return true;
        }
        // The length lies before the bytes, so one comparison covers both.
        if (slot->hash == hash && slot->serial == serial &&
            memcmp(set->strings + slot->string - sizeof(key->length), key->bytes - sizeof(key->length),
                   sizeof(key->length) + key->length) == 0)
            return false;
    }
}

// ---- pointers

// The pointers of `active` whose token at this depth is the key, or, where `key` is NULL, the array element.
static JSON_OUT_OF_LINE uint32_t match(const struct event *event, uint32_t active, uint32_t depth,
                                       const struct key *key, uint32_t element)
{
    uint32_t matched = 0;
    for (uint32_t rest = active; rest != 0; rest &= rest - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(rest);
        const struct json_token *token = &event->pointers[i]->tokens[depth];
        bool same = key == NULL ? token->element == (int64_t)element
                                : token->hash == key->hash && token->length == key->length &&
                                      memcmp(token->bytes, key->bytes, key->length) == 0;
        matched |= (uint32_t)same << i;
    }
    return matched;
}

static inline uint64_t hash_bit(uint64_t hash)
{
    return UINT64_C(1) << (hash & 63);
}

// A bit for each hash that a key at this depth can be asked by, to pass over most keys at once.
static uint64_t wanted_bits(const struct event *event, uint32_t active, uint32_t depth)
{
    uint64_t wanted = 0;
    for (uint32_t rest = active; rest != 0; rest &= rest - 1)
        wanted |= hash_bit(event->pointers[__builtin_ctz(rest)]->tokens[depth].hash);
    return wanted;
}

static struct sl_span number_literal(const uint8_t *bytes)
{
    size_t length = 0;
    while ((bytes[length] >= '0' && bytes[length] <= '9') || bytes[length] == '-' || bytes[length] == '+' ||
           bytes[length] == '.' || bytes[length] == 'e' || bytes[length] == 'E')
        length++;
    return (struct sl_span){.bytes = bytes, .length = length};
}

static struct json_value value_of(const struct event *event, const uint64_t *word)
{
    static const struct json_value truths[] = {{.kind = JSON_KIND_BOOL, .text = {"false", 5}},
                                               {.kind = JSON_KIND_BOOL, .text = {"true", 4}}};
    const uint8_t *string = event->view->strings + (uint32_t)*word;
    uint32_t length;
    uint8_t type = word_type(*word);
    switch (type) {
    case '{':
    case '[':
        return (struct json_value){.kind = type == '{' ? JSON_KIND_OBJECT : JSON_KIND_ARRAY};
    case '"':
        memcpy(&length, string, sizeof(length));
        return (struct json_value){.kind = JSON_KIND_STRING, .text = {string + sizeof(length), length}};
    case 'l':
    case 'u':
    case 'd':
        return (struct json_value){
            .kind = type == 'd' ? JSON_KIND_REAL : JSON_KIND_INTEGER,
            .text = number_literal(event->bytes + event->view->structurals[structural_of(event, word)])};
    case 't':
    case 'f':
        return truths[type == 't'];
    default:
        sl_assert(type == 'n');
        return (struct json_value){.kind = JSON_KIND_NULL};
    }
}

// Stores the value for the pointers that end here; returns those that lead on into it.
static JSON_OUT_OF_LINE uint32_t take_value(const struct event *event, uint32_t matched, uint32_t depth,
                                            const uint64_t *word)
{
    uint32_t further = 0;
    for (uint32_t rest = matched; rest != 0; rest &= rest - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(rest);
        if (event->pointers[i]->token_count == depth + 1)
            event->values[i] = value_of(event, word);
        else
            further |= UINT32_C(1) << i;
    }
    return further;
}

// ---- the walk

static struct key_set key_set_begin(struct json_tape *tape, const struct json_view *view, uint32_t structurals)
{
    // An event has fewer objects than bytes, and those are far from half of 2^32.
    if (tape->serial > UINT32_MAX / 2) {
        memset(tape->slots, 0, tape->slot_count * sizeof(*tape->slots));
        tape->serial = 0;
    }
    size_t slots = slots_for(structurals);
    sl_assert(slots <= tape->slot_count);
    return (struct key_set){
        .slots = tape->slots, .strings = view->strings, .mask = slots - 1, .serial_first = tape->serial + 1};
}

// serial 0: an array.
static JSON_OUT_OF_LINE void open_frame(const struct event *event, struct json_frame *frame, uint32_t active,
                                        uint32_t depth, uint32_t serial)
{
    *frame = (struct json_frame){
        .wanted = wanted_bits(event, active, depth),
        .salt = serial * UINT64_C(0x9e3779b97f4a7c15), // spreads the same keys of many objects over the table
        .serial = serial,
        .active = active,
        .object = serial != 0,
    };
}

enum json_tape_result json_tape_read(struct json_tape *tape, const struct json_view *view, const uint8_t *bytes,
                                     uint32_t first, uint32_t last, const struct json_pointer *const *pointers,
                                     size_t pointer_count, struct json_value *values, struct json_duplicate *duplicate)
{
    const struct event event = {view, bytes, first, pointers, values};
    const struct key_set set = key_set_begin(tape, view, last - first + 1);
    uint32_t active = 0;
    for (size_t i = 0; i < pointer_count; i++) {
        values[i] = (struct json_value){.kind = JSON_KIND_ABSENT};
        active |= (uint32_t)(pointers[i] != NULL) << i;
    }
    struct json_frame *frame = tape->frames;
    open_frame(&event, frame, active, 0, ++tape->serial);
    uint32_t depth = 0;                    // of *frame
    const uint64_t *word = view->tape + 2; // behind the root word and '{'

    for (;;) {
        uint32_t matched = 0;
        uint8_t type = word_type(*word);
        if (is_close(type)) {
            if (depth == 0)
                return JSON_TAPE_READ;
            depth--;
            frame--;
            word++;
            continue;
        }
        if (frame->object) {
            struct key key = key_at(view, *word);
            if (!add_key(&set, &key, frame)) {
                *duplicate = (struct json_duplicate){structural_of(&event, word), {key.bytes, key.length}};
                return JSON_TAPE_DUPLICATE;
            }
            if ((frame->wanted & hash_bit(key.hash)) != 0)
                matched = match(&event, frame->active, depth, &key, 0);
            word++;
            type = word_type(*word);
        } else if (frame->active != 0) {
            matched = match(&event, frame->active, depth, NULL, frame->element++);
        }
        if (matched != 0)
            matched = take_value(&event, matched, depth, word);
        word += words_of(type);
        if (type == '{' || type == '[') {
            if (++depth == tape->depth_max)
                return JSON_TAPE_DEPTH;
            frame++;
            open_frame(&event, frame, matched, depth, type == '{' ? ++tape->serial : 0);
        }
    }
}
