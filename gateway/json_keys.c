#include "gateway/json_keys.h"

#include <stdlib.h>

enum {
    TABLE_SLOTS_MIN = 128,
    TABLE_GROWTH = 4,
    SKIP_MAX = 4, // how many remembered keys in a row an event may lack
};

bool json_keys_init(struct json_keys *keys, size_t keys_max)
{
    size_t slots = TABLE_SLOTS_MIN;
    size_t all = slots;
    while (slots / 2 < keys_max) {
        slots *= TABLE_GROWTH;
        all += slots;
    }
    *keys = (struct json_keys){.serial = 1, .slot_count = all, .none = {.length = JSON_NOT_KNOWN}};
    // calloc of this size is zero pages of the kernel: what no event needs is never touched.
    keys->slots = calloc(all, sizeof(*keys->slots));
    keys->known = calloc(JSON_KNOWN_KEYS + 1, sizeof(*keys->known));
    keys->learned = calloc(JSON_KNOWN_KEYS + 1, sizeof(*keys->learned));
    if (keys->slots == NULL || keys->known == NULL || keys->learned == NULL)
        return false;
    keys->known->length = JSON_NOT_KNOWN;
    return true;
}

void json_keys_free(struct json_keys *keys)
{
    free(keys->slots);
    free(keys->known);
    free(keys->learned);
}

void json_keys_begin(struct json_keys *keys)
{
    // An event has fewer objects than bytes, and those are far from half of 2^32.
    if (keys->serial > UINT32_MAX / 2) {
        memset(keys->slots, 0, keys->slot_count * sizeof(*keys->slots));
        keys->known->length = JSON_NOT_KNOWN;
        keys->serial = 1;
    }
    keys->next = keys->known;
    keys->learning = false;
}

void json_keys_end(struct json_keys *keys, uint32_t objects, bool good)
{
    keys->serial += objects;
    if (!good)
        return;
    if (keys->learning) {
        struct json_known_key *learned = keys->learned;
        learned[keys->learned_count].length = JSON_NOT_KNOWN;
        keys->learned = keys->known;
        keys->known = learned;
    }
    // Of two kinds of event that take turns, one stays remembered.
    keys->missed = keys->next == &keys->none && !keys->learning;
}

// ---- the table

// Returns the key's slot, or a free one.
static inline struct json_key_slot *find_slot(const struct json_keys *keys, const struct json_key *key, uint32_t serial)
{
    size_t mask = keys->table_slots - 1;
    uint64_t spread = key->hash + serial * UINT64_C(0x9e3779b97f4a7c15); // the same keys of many objects
    for (size_t i = (spread ^ spread >> 32) & mask;; i = (i + 1) & mask) {
        struct json_key_slot *slot = &keys->table[i];
        if (slot->serial < keys->serial ||
            (slot->serial == serial && slot->hash == key->hash && slot->length == key->length &&
             json_same_bytes(slot->bytes, key->bytes, key->length)))
            return slot;
    }
}

static void put(struct json_keys *keys, struct json_key_slot *slot, const struct json_key *key, uint32_t serial)
{
    *slot = (struct json_key_slot){.hash = key->hash, .bytes = key->bytes, .length = key->length, .serial = serial};
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
        if (slot->serial >= keys->serial)
            put(keys, find_slot(keys, &key, slot->serial), &key, slot->serial);
    }
}

static void learn(struct json_keys *keys, const struct json_key *key, uint32_t object)
{
    struct json_known_key *learned = &keys->learned[keys->learned_count];
    uint32_t length = key->length + 3;
    if (length > JSON_KNOWN_TEXT || key->escaped)
        keys->learned_room = keys->learned_count; // nor are those that follow
    if (keys->learned_count == keys->learned_room)
        return;
    uint32_t first = length < 16 ? length : 16;
    *learned = (struct json_known_key){.hash = key->hash,
                                       .masks = {json_masks[first][0], json_masks[first][1]},
                                       .text = {'"'},
                                       .length = length,
                                       .object = object};
    memcpy(learned->text + 1, key->bytes, key->length);
    memcpy(learned->text + 1 + key->length, "\":", 2);
    keys->learned_count++;
}

static bool table_add(struct json_keys *keys, const struct json_key *key, uint32_t object)
{
    if (keys->table_used >= keys->table_slots / 2)
        grow(keys);
    struct json_key_slot *slot = find_slot(keys, key, keys->serial + object);
    if (slot->serial >= keys->serial)
        return false;
    put(keys, slot, key, keys->serial + object);
    if (keys->learning)
        learn(keys, key, object);
    return true;
}

// From here on all keys of the event go into the table, and those before as well.
static JSON_OUT_OF_LINE void leave_known(struct json_keys *keys)
{
    struct json_known_key *end = keys->next;
    keys->learning = keys->missed || keys->known->length == JSON_NOT_KNOWN;
    keys->learned_count = 0;
    keys->learned_room = JSON_KNOWN_KEYS;
    keys->table = keys->slots;
    keys->table_slots = TABLE_SLOTS_MIN;
    keys->table_used = 0;
    for (struct json_known_key *known = keys->known; known < end; known++) {
        struct json_key key = {.bytes = known->text + 1, .length = known->length - 3, .hash = known->hash};
        if (known->seen == keys->serial)
            table_add(keys, &key, known->object);
    }
    keys->next = &keys->none;
}

// Is the key one of the next few? The event then lacks those before it.
static bool skip_known(struct json_keys *keys, struct json_key *key, const uint8_t *text, uint32_t length,
                       uint32_t object)
{
    for (int skipped = 0; skipped < SKIP_MAX && keys->next->length != JSON_NOT_KNOWN; skipped++) {
        keys->next++;
        if (json_keys_take(keys, text, length, object, &key->hash))
            return true;
    }
    return false;
}

bool json_keys_add(struct json_keys *keys, struct json_key *key, const uint8_t *text, uint32_t length, uint32_t object)
{
    if (keys->next != &keys->none) {
        if (skip_known(keys, key, text, length, object))
            return true;
        leave_known(keys);
    }
    key->hash = json_key_hash(key->bytes, key->length);
    return table_add(keys, key, object);
}
