// What an event is known by: the hash beside OpenSSL's SipHash, and what counts as the same id.
#include "dedupe/dedupe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#define UUID "0195e7a4-7c1f-7d3a-9b5e-2f6a1c8d4e90"

static struct dedupe_key key;

static int set_up(void **state)
{
    (void)state;
    for (uint8_t i = 0; i < DEDUPE_KEY_BYTES; i++)
        key.bytes[i] = i;
    dedupe_key_derive(&key);
    return 0;
}

static struct dedupe_id id_of(enum dedupe_domain domain, const char *source, const char *id)
{
    return dedupe_id_of(&key, domain, sl_span_of(source), sl_span_of(id));
}

static bool same(struct dedupe_id a, struct dedupe_id b)
{
    return a.words[0] == b.words[0] && a.words[1] == b.words[1];
}

static bool same_event(const char *a, const char *b)
{
    return same(id_of(DEDUPE_EVENT, "payments", a), id_of(DEDUPE_EVENT, "payments", b));
}

// `openssl mac -macopt hexkey:000102030405060708090a0b0c0d0e0f -macopt size:16 -in - SIPHASH` over domain, source, NUL,
// id. They are in every record on disk: these values must never change.
static void hashes_are_fixed(void **state)
{
    (void)state;
    const struct {
        enum dedupe_domain domain;
        const char *source, *id, *hash;
    } cases[] = {
        {DEDUPE_EVENT, "payments", "gw-0001", "F2E9A7CB52547B746AC1AF98766916F5"},
        {DEDUPE_EVENT, "payments", "", "C6B033DC12874D13CECE049B0237B07E"},
        {DEDUPE_BUSINESS, "payments", "gw-0001", "39B5E29EFD77979AE3E12C71EAEB70C2"},
        {DEDUPE_EVENT, "saas", UUID, "4274A1A15017B48323C9CE3B919D3DF0"},
        {DEDUPE_EVENT, "saas", "0195E7A4-7C1F-7D3A-9B5E-2F6A1C8D4E90", "4274A1A15017B48323C9CE3B919D3DF0"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dedupe_id id = id_of(cases[i].domain, cases[i].source, cases[i].id);
        uint8_t bytes[16];
        char text[33];
        dedupe_id_store(&id, bytes);
        for (size_t j = 0; j < sizeof(bytes); j++)
            snprintf(text + 2 * j, 3, "%02X", bytes[j]);
        assert_string_equal(text, cases[i].hash);
        assert_true(same(id, dedupe_id_load(bytes)));
    }
}

static void openssl_siphash(const struct dedupe_key *with, const uint8_t *bytes, size_t length, uint8_t out[16])
{
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "SIPHASH", NULL);
    assert_non_null(mac);
    EVP_MAC_CTX *context = EVP_MAC_CTX_new(mac);
    size_t size = 16, got = 0;
    OSSL_PARAM parameters[] = {OSSL_PARAM_construct_size_t("size", &size), OSSL_PARAM_construct_end()};
    assert_int_equal(EVP_MAC_init(context, with->bytes, sizeof(with->bytes), parameters), 1);
    assert_int_equal(EVP_MAC_update(context, bytes, length), 1);
    assert_int_equal(EVP_MAC_final(context, out, &got, 16), 1);
    assert_int_equal(got, 16);
    EVP_MAC_CTX_free(context);
    EVP_MAC_free(mac);
}

// Every length up to the longest that is hashed as it is, with random bytes, NUL and capitals among them.
static void agrees_with_another_implementation(void **state)
{
    (void)state;
    enum { LONGEST = 1024 + 200 };
    uint8_t message[LONGEST + 64], expected[16], got[16];
    unsigned random = 1;
    for (size_t length = 0; length <= LONGEST; length++) {
        struct dedupe_key other;
        for (size_t i = 0; i < sizeof(other.bytes); i++)
            other.bytes[i] = (uint8_t)((random = random * 1103515245 + 12345) >> 16);
        dedupe_key_derive(&other);
        size_t source = length % 40;
        message[0] = DEDUPE_QUARANTINE;
        memset(message + 1, 's', source);
        message[1 + source] = 0;
        uint8_t *id = message + 2 + source;
        for (size_t i = 0; i < length; i++)
            id[i] = (uint8_t)((random = random * 1103515245 + 12345) >> 16);
        openssl_siphash(&other, message, 2 + source + length, expected);
        struct dedupe_id found = dedupe_id_of(&other, DEDUPE_QUARANTINE, (struct sl_span){message + 1, source},
                                              (struct sl_span){id, length});
        dedupe_id_store(&found, got);
        assert_memory_equal(got, expected, sizeof(got));
    }
}

static void uuids_compare_without_case(void **state)
{
    (void)state;
    assert_true(same_event(UUID, "0195E7A4-7C1F-7D3A-9B5E-2F6A1C8D4E90"));
    assert_true(same_event(UUID, "0195e7A4-7C1f-7d3A-9B5e-2f6A1c8D4e90"));
    assert_true(same_event("abcdefab-cdef-abcd-efab-cdefabcdefab", "ABCDEFAB-CDEF-ABCD-EFAB-CDEFABCDEFAB"));
    // One letter of it at a time.
    for (size_t i = 0; i < strlen(UUID); i++) {
        char changed[] = UUID;
        if (changed[i] >= 'a')
            changed[i] = (char)(changed[i] - 'a' + 'A');
        assert_true(same_event(UUID, changed));
        changed[i] = changed[i] == '-' ? '_' : changed[i] == '0' ? '1' : '0';
        assert_false(same_event(UUID, changed));
    }
}

static void other_ids_keep_their_case(void **state)
{
    (void)state;
    const char *pairs[][2] = {
        {"order-a", "order-A"},
        {"0195e7a47c1f7d3a9b5e2f6a1c8d4e90", "0195E7A47C1F7D3A9B5E2F6A1C8D4E90"},             // 32 digits
        {"{0195e7a4-7c1f-7d3a-9b5e-2f6a1c8d4e90}", "{0195E7A4-7C1F-7D3A-9B5E-2F6A1C8D4E90}"}, // braces
        {"urn:uuid:" UUID, "urn:uuid:0195E7A4-7C1F-7D3A-9B5E-2F6A1C8D4E90"},
        {UUID " ", "0195E7A4-7C1F-7D3A-9B5E-2F6A1C8D4E90 "},
        {"0195e7a47-c1f-7d3a-9b5e-2f6a1c8d4e90", "0195E7A47-C1F-7D3A-9B5E-2F6A1C8D4E90"}, // 9-3-4-4-12
        {"0195e7a4-7c1f-7d3a-9b5e-2f6a1c8d4-90", "0195E7A4-7C1F-7D3A-9B5E-2F6A1C8D4-90"}, // a hyphen too many
        {"0195e7a4-7c1f-7d3a-9b5e-2f6a1c8d4e9g", "0195E7A4-7C1F-7D3A-9B5E-2F6A1C8D4E9G"}, // g is no digit
        {"0195e7a4-7c1f-7d3a-9b5e-2f6a1c8d4e9`", "0195e7a4-7c1f-7d3a-9b5e-2f6a1c8d4e9@"}, // around the letters
        {"0195e7a4-7c1f-7d3a-9b5e-2f6a1c8d4e9{", "0195e7a4-7c1f-7d3a-9b5e-2f6a1c8d4e9["},
        {"0195e7a4-7c1f-7d3a-9b5e-2f6a1c8d4e9\x10", "0195e7a4-7c1f-7d3a-9b5e-2f6a1c8d4e90"}, // 0x10 | 0x20 is '0'
        {"\xc3\xa9"
         "95e7a4-7c1f-7d3a-9b5e-2f6a1c8d4e90",
         "\xc3\xa9"
         "95E7A4-7C1F-7D3A-9B5E-2F6A1C8D4E90"},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        assert_false(same_event(pairs[i][0], pairs[i][1]));
}

static void every_byte_counts(void **state)
{
    (void)state;
    for (int value = 0; value < 256; value++) { // against a UUID in each position
        char changed[] = UUID;
        for (size_t i = 0; i < strlen(UUID); i++) {
            char old = changed[i];
            changed[i] = (char)value;
            bool is_same = same(id_of(DEDUPE_EVENT, "s", UUID),
                                dedupe_id_of(&key, DEDUPE_EVENT, sl_span_of("s"), (struct sl_span){changed, 36}));
            bool lowers = value >= 'A' && value <= 'F' && (value | 0x20) == old;
            assert_int_equal(is_same, (char)value == old || lowers);
            changed[i] = old;
        }
    }
}

// Where the source ends is never in doubt, and what is asked is a part of the question.
static void scopes_do_not_mix(void **state)
{
    (void)state;
    assert_false(same(id_of(DEDUPE_EVENT, "ab", "c"), id_of(DEDUPE_EVENT, "a", "bc")));
    assert_false(same(id_of(DEDUPE_EVENT, "", "abc"), id_of(DEDUPE_EVENT, "abc", "")));
    // An id may hold a NUL; a source cannot.
    struct dedupe_id with_nul = dedupe_id_of(&key, DEDUPE_EVENT, sl_span_of("a"), (struct sl_span){"b\0c", 3});
    assert_false(same(with_nul, id_of(DEDUPE_EVENT, "a", "b")));
    assert_false(same(with_nul, dedupe_id_of(&key, DEDUPE_EVENT, sl_span_of("ab"), (struct sl_span){"c", 1})));
    assert_false(same(id_of(DEDUPE_EVENT, "a", "b"), id_of(DEDUPE_BUSINESS, "a", "b")));
    assert_false(same(id_of(DEDUPE_EVENT, "a", "b"), id_of(DEDUPE_QUARANTINE, "a", "b")));
    struct dedupe_key other = key;
    other.bytes[15] ^= 1;
    dedupe_key_derive(&other);
    assert_false(
        same(id_of(DEDUPE_EVENT, "a", "b"), dedupe_id_of(&other, DEDUPE_EVENT, sl_span_of("a"), sl_span_of("b"))));
}

// Fields of a business key have no limit of their own.
static void long_ids_count_to_their_last_byte(void **state)
{
    (void)state;
    enum { LONG = 900 << 10 };
    char *text = malloc(LONG);
    assert_non_null(text);
    memset(text, 'x', LONG);
    const size_t lengths[] = {1000, 1200, 1269, 1270, 1271, 1278, 1279, 1280, 1281, 5000, LONG};
    const size_t count = sizeof(lengths) / sizeof(lengths[0]);
    struct dedupe_id found[sizeof(lengths) / sizeof(lengths[0])];
    for (size_t i = 0; i < count; i++) {
        found[i] = dedupe_id_of(&key, DEDUPE_BUSINESS, sl_span_of("payments"), (struct sl_span){text, lengths[i]});
        text[lengths[i] - 1] = 'y';
        struct dedupe_id last =
            dedupe_id_of(&key, DEDUPE_BUSINESS, sl_span_of("payments"), (struct sl_span){text, lengths[i]});
        text[lengths[i] - 1] = 'x';
        assert_false(same(found[i], last));
        assert_false(same(
            found[i], dedupe_id_of(&key, DEDUPE_EVENT, sl_span_of("payments"), (struct sl_span){text, lengths[i]})));
        for (size_t j = 0; j < i; j++)
            assert_false(same(found[i], found[j]));
    }
    free(text);
}

static void payload_hashes(void **state)
{
    (void)state;
    // XXH3_64bits_withSeed with the seed that key_test.c fixes. In every record on disk: it must never change.
    struct dedupe_key other = key;
    const char text[] = "{\"amount\":4200,\"currency\":\"EUR\"}";
    uint64_t hash = dedupe_payload_hash(&key, sl_span_of(text));
    assert_true(hash == UINT64_C(0xFD6E4163B94E7E6E));
    assert_true(hash == dedupe_payload_hash(&key, sl_span_of(text)));
    other.bytes[0] ^= 1;
    dedupe_key_derive(&other);
    assert_true(hash != dedupe_payload_hash(&other, sl_span_of(text)));
    char changed[sizeof(text)];
    for (size_t bit = 0; bit < 8 * (sizeof(text) - 1); bit++) {
        memcpy(changed, text, sizeof(text));
        changed[bit / 8] = (char)(changed[bit / 8] ^ (1 << bit % 8));
        assert_true(hash != dedupe_payload_hash(&key, (struct sl_span){changed, sizeof(text) - 1}));
    }
    assert_true(dedupe_payload_hash(&key, (struct sl_span){NULL, 0}) == dedupe_payload_hash(&key, sl_span_of("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_are_fixed),
        cmocka_unit_test(agrees_with_another_implementation),
        cmocka_unit_test(uuids_compare_without_case),
        cmocka_unit_test(other_ids_keep_their_case),
        cmocka_unit_test(every_byte_counts),
        cmocka_unit_test(scopes_do_not_mix),
        cmocka_unit_test(long_ids_count_to_their_last_byte),
        cmocka_unit_test(payload_hashes),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
