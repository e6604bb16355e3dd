#include "gateway/json_keys.h"

#include <stdlib.h>

enum {
    TABLE_SLOTS_MIN = 256,
    TABLE_GROWTH = 4,
    SKIP_MAX = 4,     // how many keys of its path in a row an event may lack
    SIBLINGS_MAX = 8, // more are names that somebody made up, and are not remembered
    // Events that resemble none before are learned one in LEARN_COST, a few at once.
    LEARN_COST = 8,
    CREDIT_MAX = 64,
};

bool json_keys_init(struct json_keys *keys, size_t keys_max)
{
    size_t slots = TABLE_SLOTS_MIN;
    size_t all = slots;
    while (slots / 2 < keys_max) {
        slots *= TABLE_GROWTH;
        all += slots;
    }
    *keys = (struct json_keys){.serial = 1, .slot_count = all, .credit = CREDIT_MAX};
    keys->none.child = keys->none.sibling = keys->none.parent = &keys->none;
    keys->root = keys->none;
    // calloc of this size is zero pages of the kernel: what no event needs is never touched.
    keys->slots = calloc(all, sizeof(*keys->slots));
    keys->known = calloc(JSON_KNOWN_KEYS, sizeof(*keys->known));
    return keys->slots != NULL && keys->known != NULL;
}

void json_keys_free(struct json_keys *keys)
{
    free(keys->slots);
    free(keys->known);
}

static void forget_known(struct json_keys *keys)
{
    keys->known_count = 0;
    keys->root.child = &keys->none;
}

void json_keys_begin(struct json_keys *keys)
{
    // An event has fewer objects than bytes, and those are far from half of 2^32.
    if (keys->serial > UINT32_MAX / 2) {
        memset(keys->slots, 0, keys->slot_count * sizeof(*keys->slots));
        forget_known(keys);
        keys->serial = 1;
    }
    keys->last = &keys->root;
    keys->learning = false;
    keys->skipped = false;
}

// ---- learning

static void learn_begin(struct json_keys *keys)
{
    size_t siblings = 0;
    for (const struct json_known_key *known = keys->last->child; known != &keys->none; known = known->sibling)
        siblings++;
    keys->exact = keys->exact || keys->skipped;
    keys->learning = !keys->skipped && siblings < SIBLINGS_MAX && keys->credit >= LEARN_COST;
    keys->room = true;
    keys->learned_count = 0;
    keys->branch = keys->last;
}

static JSON_OUT_OF_LINE void learn(struct json_keys *keys, const struct json_key *key, uint32_t object)
{
    uint32_t length = key->length + 3;
    uint32_t at = keys->known_count + keys->learned_count;
    // Nor are the keys behind one that cannot be remembered.
    keys->room = keys->room && at < JSON_KNOWN_KEYS && length <= JSON_KNOWN_TEXT && !key->escaped;
    if (!keys->room)
        return;
    struct json_known_key *known = &keys->known[at];
    uint32_t first = length < 16 ? length : 16;
    known->hash = key->hash;
    memcpy(known->masks, json_masks[first], sizeof(known->masks));
    known->text[0] = '"';
    memcpy(known->text + 1, key->bytes, key->length);
    memcpy(known->text + 1 + key->length, "\":", 2);
    known->length = length;
    known->object = object;
    known->seen = 0;
    known->parent = keys->learned_count == 0 ? keys->branch : known - 1;
    known->child = known->sibling = &keys->none;
    keys->learned_count++;
}

static void learn_end(struct json_keys *keys)
{
    struct json_known_key *first = &keys->known[keys->known_count];
    keys->credit -= LEARN_COST;
    keys->exact = false;
    if (keys->known_count + keys->learned_count == JSON_KNOWN_KEYS) {
        forget_known(keys);
        return;
    }
    for (uint32_t i = 0; i + 1 < keys->learned_count; i++)
        first[i].child = &first[i + 1];
    first->sibling = keys->branch->child;
    keys->branch->child = first;
    keys->known_count += keys->learned_count;
}

void json_keys_end(struct json_keys *keys, uint32_t objects, bool good)
{
    keys->serial += objects;
    if (good && keys->learning && keys->learned_count > 0)
        learn_end(keys);
    else if (keys->credit < CREDIT_MAX)
        keys->credit++;
}

// ---- the table

// Returns the key's slot, or a free one. Where it lies depends on nothing that changes from event to event, so that the
// processor can foresee it.
static inline struct json_key_slot *find_slot(const struct json_keys *keys, const struct json_key *key, uint32_t object)
{
    size_t mask = keys->table_slots - 1;
    uint32_t serial = keys->serial + object;
    uint64_t spread = key->hash + object * UINT64_C(0x9e3779b97f4a7c15); // the same keys of many objects
    for (size_t i = (spread ^ spread >> 32) & mask;; i = (i + 1) & mask) {
        struct json_key_slot *slot = &keys->table[i];
        if (slot->serial < keys->serial ||
            (slot->serial == serial && slot->hash == key->hash && slot->length == key->length &&
             json_same_bytes(slot->bytes, key->bytes, key->length)))
            return slot;
    }
}

static inline void put(struct json_keys *keys, struct json_key_slot *slot, const struct json_key *key, uint32_t object)
{
    slot->hash = key->hash;
    slot->bytes = key->bytes;
    slot->length = key->length;
    slot->serial = keys->serial + object;
    keys->table_used++;
}

static JSON_OUT_OF_LINE void grow(struct json_keys *keys)
{
    const struct json_key_slot *small = keys->table;
    size_t count = keys->table_slots;
    keys->table += count;
    keys->table_slots *= TABLE_GROWTH;
    keys->table_used = 0;
    sl_assert((size_t)(keys->table - keys->slots) + keys->table_slots <= keys->slot_count);
    for (const struct json_key_slot *slot = small; slot < small + count; slot++) {
        struct json_key key = {.bytes = slot->bytes, .length = slot->length, .hash = slot->hash};
        uint32_t object = slot->serial - keys->serial;
        if (slot->serial >= keys->serial)
            put(keys, find_slot(keys, &key, object), &key, object);
    }
}

static inline bool table_add(struct json_keys *keys, const struct json_key *key, uint32_t object)
{
    if (keys->table_used >= keys->table_slots / 2)
        grow(keys);
    struct json_key_slot *slot = find_slot(keys, key, object);
    if (slot->serial >= keys->serial)
        return false;
    put(keys, slot, key, object);
    if (keys->learning)
        learn(keys, key, object);
    return true;
}

// From here on all keys of the event go into the table, and those before as well.
static JSON_OUT_OF_LINE void leave_known(struct json_keys *keys)
{
    keys->table = keys->slots;
    keys->table_slots = TABLE_SLOTS_MIN;
    keys->table_used = 0;
    keys->learning = false;
    for (struct json_known_key *known = keys->last; known != &keys->root; known = known->parent) {
        struct json_key key = {.bytes = known->text + 1, .length = known->length - 3, .hash = known->hash};
        if (known->seen == keys->serial)
            table_add(keys, &key, known->object);
    }
    learn_begin(keys);
    keys->last = &keys->none;
}

// Is the key another of those that came next, or one that came soon after?
static JSON_OUT_OF_LINE bool find_known(struct json_keys *keys, const uint8_t *text, uint32_t length, uint32_t object,
                                        uint64_t *hash)
{
    struct json_known_key *known = keys->last->child;
    struct json_known_key *found = known->sibling;
    while (found != &keys->none && !json_is_known(found, text, length, object))
        found = found->sibling;
    for (int skipped = 0; found == &keys->none && skipped < SKIP_MAX && !keys->exact; skipped++) {
        known = known->child;
        if (json_is_known(known, text, length, object)) {
            found = known;
            keys->skipped = true;
        }
    }
    if (found == &keys->none)
        return false;
    *hash = found->hash;
    found->seen = keys->serial;
    keys->last = found;
    return true;
}

bool json_keys_add(struct json_keys *keys, struct json_key *key, const uint8_t *text, uint32_t length, uint32_t object)
{
    if (keys->last != &keys->none) {
        if (find_known(keys, text, length, object, &key->hash))
            return true;
        leave_known(keys);
    }
    key->hash = json_key_hash(key->bytes, key->length);
    return table_add(keys, key, object);
}
