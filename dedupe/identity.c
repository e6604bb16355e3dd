// What an event is known by. SipHash is a keyed hash: without the key nobody can find ids of one hash, of one set of
// the table, or of one line of the filter.
#include "dedupe/dedupe.h"

#include <sodium.h>
#include <xxhash.h>

enum {
    UUID_LENGTH = 36,
    SOURCE_BYTES_MAX = 255,
    DIGEST_BYTES = 32,
    // Longer ones (business keys of long fields) go in as their digest.
    INLINE_BYTES = 1280,
    LONG_DOMAIN = 0x80, // set in the domain: a digest is never taken for a short id
};

// Whether any of 36 bytes may be a capital: bit 6 set and bit 5 clear. Most UUIDs come in lower case and need no more.
static bool has_capitals(const uint8_t *text)
{
    const uint64_t bit6 = UINT64_C(0x4040404040404040);
    uint64_t found = 0;
    for (size_t i = 0; i <= 32; i += 8) {
        uint64_t word;
        memcpy(&word, text + (i < 32 ? i : UUID_LENGTH - 8), sizeof(word));
        found |= word & ~(word << 1) & bit6;
    }
    return found != 0;
}

// In place, when it is a canonical UUID; anything else stays as it is.
static void uuid_lowercase(uint8_t *text)
{
    if (text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-')
        return;
    uint8_t lower[UUID_LENGTH];
    for (size_t i = 0; i < UUID_LENGTH; i++) {
        bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
        bool digit = (uint8_t)(text[i] - '0') <= 9, letter = (uint8_t)((text[i] | 0x20) - 'a') <= 5;
        if (!hyphen && !digit && !letter)
            return;
        lower[i] = letter ? text[i] | 0x20 : text[i];
    }
    memcpy(text, lower, UUID_LENGTH);
}

struct dedupe_id dedupe_id_of(const struct dedupe_key *key, enum dedupe_domain domain, struct sl_span source,
                              struct sl_span id)
{
    uint8_t bytes[INLINE_BYTES], hash[16], digest[DIGEST_BYTES];
    uint8_t first = (uint8_t)domain;
    sl_assert(source.length <= SOURCE_BYTES_MAX);
    if (2 + source.length + id.length > sizeof(bytes)) {
        crypto_generichash(digest, sizeof(digest), id.bytes, id.length, key->bytes, sizeof(key->bytes));
        id = (struct sl_span){.bytes = digest, .length = sizeof(digest)};
        first |= LONG_DOMAIN;
    }
    struct sl_writer writer = sl_writer_of(bytes, sizeof(bytes));
    sl_write_u8(&writer, first);
    sl_write_bytes(&writer, source.bytes, source.length);
    sl_write_u8(&writer, 0);
    uint8_t *at = bytes + writer.position;
    sl_write_bytes(&writer, id.bytes, id.length);
    if (id.length == UUID_LENGTH && has_capitals(id.bytes))
        uuid_lowercase(at);
    crypto_shorthash_siphashx24(hash, bytes, writer.position, key->bytes);
    return dedupe_id_load(hash);
}

uint64_t dedupe_payload_hash(const struct dedupe_key *key, struct sl_span payload)
{
    return XXH3_64bits_withSeed(payload.bytes, payload.length, key->payload_seed);
}

void dedupe_id_store(const struct dedupe_id *id, uint8_t bytes[16])
{
    memcpy(bytes, id->words, sizeof(id->words)); // little-endian, as base/cursor.h demands of the machine
}

struct dedupe_id dedupe_id_load(const uint8_t bytes[16])
{
    struct dedupe_id id;
    memcpy(id.words, bytes, sizeof(id.words));
    return id;
}
