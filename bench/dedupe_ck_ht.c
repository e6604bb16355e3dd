// Concurrency Kit's hash table: any number of readers beside one writer. Its entries point at the ids, which lie in an
// array. Reserved for all of them, because a table that grows hands its old map to a reclamation that readers need.
#include "base/error.h"
#include "bench/dedupe_tables.h"

#include <ck_ht.h>
#include <stdlib.h>
#include <string.h>

struct table {
    ck_ht_t ht;
    struct table_key *records;
    uint64_t count, capacity;
};

static void *allocate(size_t size)
{
    return malloc(size);
}

static void release(void *bytes, size_t size, bool defer)
{
    (void)size;
    sl_assert(!defer); // it would have grown
    free(bytes);
}

static struct ck_malloc allocator = {.malloc = allocate, .free = release};

static void hash(ck_ht_hash_t *out, const void *key, size_t length, uint64_t seed)
{
    (void)length;
    (void)seed;
    memcpy(&out->value, key, sizeof(out->value)); // a keyed hash already
}

static void *create(uint64_t ids)
{
    struct table *table = calloc(1, sizeof(*table));
    if (table == NULL)
        return NULL;
    table->capacity = ids;
    table->records = malloc(ids * sizeof(table->records[0]));
    // It grows when it is more than half full; the size is rounded to the next power of two.
    uint64_t slots = 64;
    while (slots < 2 * (ids + 1))
        slots *= 2;
    if (table->records == NULL || !ck_ht_init(&table->ht, CK_HT_MODE_BYTESTRING, hash, &allocator, slots, 0)) {
        free(table->records);
        free(table);
        return NULL;
    }
    return table;
}

static void destroy(void *opaque)
{
    struct table *table = opaque;
    ck_ht_destroy(&table->ht);
    free(table->records);
    free(table);
}

static struct table_result claim(void *opaque, const struct table_key *keys, size_t count)
{
    struct table *table = opaque;
    struct table_result result = {.fresh = 0};
    for (size_t i = 0; i < count; i++) {
        ck_ht_hash_t value;
        ck_ht_entry_t entry;
        ck_ht_hash(&value, &table->ht, keys[i].id, sizeof(keys[i].id));
        ck_ht_entry_key_set(&entry, keys[i].id, sizeof(keys[i].id));
        if (ck_ht_get_spmc(&table->ht, value, &entry)) {
            const struct table_key *found = ck_ht_entry_value(&entry);
            if (found->payload_hash == keys[i].payload_hash)
                result.duplicates++;
            else
                result.others++;
            continue;
        }
        sl_assert(table->count < table->capacity);
        struct table_key *record = &table->records[table->count++];
        *record = keys[i];
        ck_ht_entry_set(&entry, value, record->id, sizeof(record->id), record);
        if (ck_ht_put_spmc(&table->ht, value, &entry))
            result.fresh++;
        else
            result.others++;
    }
    return result;
}

static double bytes_per_id(void *opaque)
{
    (void)opaque;
    return 0;
}

const struct table_ops table_ck_ht = {.name = "ck_ht, one writer",
                                      .many_writers = false,
                                      .create = create,
                                      .destroy = destroy,
                                      .claim = claim,
                                      .bytes_per_id = bytes_per_id};
