// Bodies made from good ones by random damage: every one of them goes through json_check_body().
//   SEED=7 RUNS=100000 json_property_test      repeats or extends a run; both are printed
#include "tests/json/json_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RUNS_DEFAULT = 60000, BODY_MAX = 4096 };

static const char *const good[] = {
    "{\"id\":\"evt_1\",\"a\":{\"b\":\"x\"},\"b\":[1,{\"a\":true}],\"n\":null,\"r\":1.5e3,\"s\":\"caf\xc3\xa9 \\u00e9 "
    "\\ud83d\\ude00\"}",
    "[{\"id\":1},{\"id\":2,\"a/b\":[]},{\"id\":-3,\"\":{}}]",
    "[ {\"id\":\"a\"} , {\"id\":\"b\",\"a\":\"},{\\\"x\\\":[\\\\\"} ,\n{\"id\":\"c\",\"b\":[[],[[]],{\"a\":1}]} ]",
    "{\"id\":1}\n{\"id\":2}\r\n\n  {\"id\":3, \"a\":{\"b\":[0]}}\n",
    "{\"a\":18446744073709551615,\"b\":[-9223372036854775808,1e308,-0],\"id\":\"\\u0000\"}",
    "[{\"a\":{\"a\":{\"a\":{\"a\":{}}}}},{\"a\":{\"a\":{\"b\":[]},\"b\":[]}}]",
    "[{\"a\":\"0123456789012345678901234567890123456789\",\"b\":\"0123456789012345678901234567890123456789\"},"
    "{\"a\":\"\\\"\\\"\\\"\\\\\\\\\",\"b\":[\"\\\\\",\"}\",\"]\",\",\"]},{\"long key long key long key 1\":1,\"long "
    "key long key long key 2\":2}]",
};

static const char *const tokens[] = {
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "\\ud800",
    "\\udc00",
    "\\udc00\\udc00",
    "null",
    "true",
    "false",
    "0",
    "-",
    "1e999",
    "1e-999",
    "01",
    "-0",
    ".5",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\xc3",
    "\xff",
    "\xed\xa0\x80",
    "\x01",
    "\x7f",
    "{}",
    "[]",
    "\"a\":1,",
    "\"a\"",
    "\"id\":",
    "},{",
    "\\\"",
    "\\\\",
    "//",
    "\xef\xbb\xbf",
    "9223372036854775808",
    "18446744073709551616",
    "123456789012345678901234567890",
    "1.7976931348623159e308",
    "\"\\u0061\":2,",
    "{\"id\":7}",
};

static uint64_t state;

// xorshift64*: repeatable everywhere.
static uint32_t roll(uint32_t below)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(0x2545f4914f6cdd1d)) >> 33) % below;
}

struct body {
    char bytes[BODY_MAX];
    size_t length;
};

static void insert(struct body *body, size_t at, const char *bytes, size_t length)
{
    if (length > sizeof(body->bytes) - body->length)
        return;
    char copy[BODY_MAX];
    memcpy(copy, bytes, length); // it may come from the body
    memmove(body->bytes + at + length, body->bytes + at, body->length - at);
    memcpy(body->bytes + at, copy, length);
    body->length += length;
}

static void erase(struct body *body, size_t at, size_t length)
{
    memmove(body->bytes + at, body->bytes + at + length, body->length - at - length);
    body->length -= length;
}

static void damage(struct body *body)
{
    size_t at = roll((uint32_t)body->length + 1);
    size_t rest = body->length - at;
    const char *token = tokens[roll(sizeof(tokens) / sizeof(tokens[0]))];
    switch (roll(6)) {
    case 0:
        insert(body, at, token, strlen(token));
        break;
    case 1:
        if (rest > 0)
            body->bytes[at] = (char)roll(256);
        break;
    case 2:
        erase(body, at, rest > 0 ? roll((uint32_t)(rest < 12 ? rest : 12)) : 0);
        break;
    case 3:
        body->length = at;
        break;
    case 4: // a piece of it again
        if (rest > 0)
            insert(body, roll((uint32_t)body->length + 1), body->bytes + at, roll((uint32_t)(rest < 40 ? rest : 40)));
        break;
    default: // a token instead of a byte
        if (rest > 0)
            erase(body, at, 1);
        insert(body, at, token, strlen(token));
    }
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void damaged_bodies(void **unused)
{
    (void)unused;
    uint64_t seed = number_from("SEED", 1);
    uint64_t runs = number_from("RUNS", RUNS_DEFAULT);
    fprintf(stderr, "SEED=%llu RUNS=%llu\n", (unsigned long long)seed, (unsigned long long)runs);
    state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    struct json_check *check = json_check_new();
    uint64_t accepted = 0;
    for (uint64_t run = 0; run < runs; run++) {
        static struct body body;
        const char *text = good[roll(sizeof(good) / sizeof(good[0]))];
        body.length = strlen(text);
        memcpy(body.bytes, text, body.length);
        for (uint32_t times = roll(4); times > 0; times--)
            damage(&body);
        accepted += json_check_body(check, roll(4) == 0 ? JSON_SHAPE_LINES : JSON_SHAPE_DOCUMENT,
                                    (struct sl_span){body.bytes, body.length}, roll(3));
    }
    json_check_free(check);
    // Both sides of the border are visited.
    assert_in_range(accepted, runs / 20, runs * 19 / 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(damaged_bodies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
