// The keys of one event: is one twice in its object? Internal to gateway/json*.
//
// Threads: as in json.h; a set belongs to one parser.
//
// Events of one source mostly have the same keys in the same order, or one of a few orders. So the keys of events are
// remembered as a tree: each is a child of the one that stood before it. The keys of an event that lie on one path from
// the root are different from each other, because those of every path are, and nothing has to be looked up. An event
// may lack keys of its path. From the first key on that is not found so, all keys of the event go into a hash table,
// and if that finds them different they become a new branch.
#ifndef SLUICE_GATEWAY_JSON_KEYS_H
#define SLUICE_GATEWAY_JSON_KEYS_H

#include "gateway/json_internal.h"

enum {
    JSON_KNOWN_KEYS = 1024, // of all events
    JSON_KNOWN_TEXT = 48,   // bytes of `"key":` that is remembered
};

struct json_key {
    const uint8_t *bytes; // unescaped; 16 bytes are readable from any of them on
    uint32_t length;
    bool escaped; // in the input it is written otherwise
    uint64_t hash;
};

struct json_known_key {
    uint64_t hash;
    uint64_t masks[2];             // of the first 16 bytes of text
    uint8_t text[JSON_KNOWN_TEXT]; // `"key":`, as it is written
    uint32_t length;               // of text; 0: no key
    uint32_t object;               // which of the event's objects, by the order of their '{'
    uint32_t seen;                 // serial of the last event that has it
    // None of them is NULL; the ends are keys->none.
    struct json_known_key *parent;
    struct json_known_key *child;   // the first of those that came next
    struct json_known_key *sibling; // another that came next after its parent
};

struct json_key_slot {
    uint64_t hash;
    const uint8_t *bytes;
    uint32_t length;
    uint32_t serial; // of the object that has the key; below the event's: free
};

struct json_keys {
    struct json_known_key *last; // where the event is in the tree; none: its keys go into the table
    struct json_known_key *known;
    uint32_t known_count;
    struct json_known_key root; // no key itself
    struct json_known_key none;
    uint32_t serial; // of the event's first object; its objects count on from there

    bool learning;                 // known[known_count..] becomes a branch, if the event is good
    bool room;                     // for more of it
    uint32_t learned_count;        // the keys of it
    struct json_known_key *branch; // where it starts
    bool skipped;                  // the event lacks keys of its path
    bool exact;                    // no event may, until there is another branch
    uint32_t credit;               // for learning

    struct json_key_slot *slots; // tables of growing size, one behind the other; a small event uses the first one only
    size_t slot_count;           // of all tables
    struct json_key_slot *table; // the present one
    size_t table_slots;
    size_t table_used;
};

// keys_max: of one event.
bool json_keys_init(struct json_keys *keys, size_t keys_max);
void json_keys_free(struct json_keys *keys);

void json_keys_begin(struct json_keys *keys);
// objects: how many the event had, as far as it was read; only a good one's keys are remembered.
void json_keys_end(struct json_keys *keys, uint32_t objects, bool good);

// At least 16 bytes are readable from a and b on.
static inline bool json_same_bytes(const uint8_t *a, const uint8_t *b, size_t length)
{
    if (length > 16)
        return memcmp(a, b, length) == 0;
    uint64_t left[2];
    uint64_t right[2];
    memcpy(left, a, sizeof(left));
    memcpy(right, b, sizeof(right));
    return (((left[0] ^ right[0]) & json_masks[length][0]) | ((left[1] ^ right[1]) & json_masks[length][1])) == 0;
}

// Is `"key":` the remembered one? 16 bytes are readable from any of its `length` on.
static inline bool json_is_known(const struct json_known_key *known, const uint8_t *text, uint32_t length,
                                 uint32_t object)
{
    uint64_t theirs[2];
    uint64_t ours[2];
    memcpy(theirs, text, sizeof(theirs));
    memcpy(ours, known->text, sizeof(ours));
    uint64_t differ = ((theirs[0] ^ ours[0]) & known->masks[0]) | ((theirs[1] ^ ours[1]) & known->masks[1]) |
                      (length ^ known->length) | (object ^ known->object);
    return differ == 0 && (length <= 16 || memcmp(text + 16, known->text + 16, length - 16) == 0);
}

// Takes the key that is written as `"key":`, if it is the one that is most likely due. Fills *hash.
static inline bool json_keys_take(struct json_keys *keys, const uint8_t *text, uint32_t length, uint32_t object,
                                  uint64_t *hash)
{
    struct json_known_key *known = keys->last->child;
    if (!json_is_known(known, text, length, object))
        return false;
    *hash = known->hash;
    known->seen = keys->serial;
    keys->last = known;
    return true;
}

// Takes any other key; text: what was handed to json_keys_take(). Fills key->hash. Returns false when the object has
// the key already. The key's bytes must stay until the next json_keys_begin().
bool json_keys_add(struct json_keys *keys, struct json_key *key, const uint8_t *text, uint32_t length, uint32_t object);

#endif
