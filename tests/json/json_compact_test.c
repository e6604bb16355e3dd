// The compact form of an event: a table, and random values written twice, with and without whitespace. The second is
// what json_compact() must give for both.
//   SEED=7 RUNS=100000 json_compact_test      repeats or extends a run; both are printed
#include "tests/json/json_lib.h"

#include <stdio.h>

enum { RUNS_DEFAULT = 20000, TEXT_MAX = 16384, NEST_MAX = 6 };

struct outcome {
    struct json_parser *parser;
    size_t count;
    size_t length[4];
    bool compact[4];
    char text[4][TEXT_MAX];
};

static bool on_event(const struct json_event *event, void *user)
{
    struct outcome *outcome = user;
    size_t i = outcome->count++;
    assert_in_range(i, 0, 3);
    // Exactly as much room as promised, so that a sanitizer sees every byte too far.
    uint8_t *out = malloc(event->raw.length);
    assert_non_null(out);
    outcome->length[i] = json_compact(outcome->parser, event, out);
    outcome->compact[i] = event->compact;
    assert_in_range(outcome->length[i], 2, event->raw.length);
    lib_put(outcome->text[i], (const char *)out, outcome->length[i]);
    free(out);
    return true;
}

static void compact(struct json_parser *parser, enum json_shape shape, const char *text, size_t length,
                    struct outcome *outcome)
{
    struct sl_span body = lib_body(text, length);
    struct json_fault fault;
    outcome->parser = parser;
    outcome->count = 0;
    if (!json_walk(parser, shape, body, NULL, 0, on_event, outcome, &fault))
        fail_msg("%s at %zu", fault.detail, fault.offset);
    free((void *)(uintptr_t)body.bytes);
}

static void assert_text(const struct outcome *outcome, size_t i, const char *text, size_t length)
{
    assert_int_equal(outcome->length[i], length);
    assert_memory_equal(outcome->text[i], text, length);
}

static void table(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        const char *compact; // NULL: as it is
    } cases[] = {
        {"{}", NULL},
        {"{ }", "{}"},
        {"{\t\r\n }", "{}"},
        {"{\"a\":1}", NULL},
        {"{\"a\" :1}", "{\"a\":1}"},
        {"{\"a\": 1}", "{\"a\":1}"},
        {"{\"a\":1 }", "{\"a\":1}"},
        {"{ \"a\":1}", "{\"a\":1}"},
        {"{\"a b\":\" x \"}", NULL},
        {"{\"a b\":\" x \" }", "{\"a b\":\" x \"}"},
        {"{\"\\\" : \":\" { } , [ ] \\\\\"}", NULL},
        {"{\"\\\\\" : \"\\\\\\\" , \" }", "{\"\\\\\":\"\\\\\\\" , \"}"},
        {"{\"a\":[ ],\"b\":[ [1 ,2 ] , { } ]}", "{\"a\":[],\"b\":[[1,2],{}]}"},
        {"{\"a\":[-0.0 , 1E+05,true\n,null ,\tfalse]}", "{\"a\":[-0.0,1E+05,true,null,false]}"},
        {"{\"\":\"\" , \" \":\" \"}", "{\"\":\"\",\" \":\" \"}"},
        {"{\"a\":\"\\u0020 \\t\"}", NULL}, // tokens keep their bytes
    };
    struct json_parser *parser = json_parser_new(LIB_CAPACITY, LIB_DEPTH);
    assert_non_null(parser);
    static struct outcome outcome;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *expected = cases[i].compact != NULL ? cases[i].compact : cases[i].text;
        compact(parser, JSON_SHAPE_DOCUMENT, cases[i].text, strlen(cases[i].text), &outcome);
        assert_int_equal(outcome.count, 1);
        assert_int_equal(outcome.compact[0], cases[i].compact == NULL);
        assert_text(&outcome, 0, expected, strlen(expected));
    }
    json_parser_free(parser);
}

// What stands around an event is none of it.
static void whitespace_around_events(void **unused)
{
    (void)unused;
    struct json_parser *parser = json_parser_new(LIB_CAPACITY, LIB_DEPTH);
    assert_non_null(parser);
    static const char array[] = " [ {\"a\":1} ,\n{ \"a\":1}\t, {\"a\":1}] ";
    static const char lines[] = " {\"a\":1} \r\n{\"a\": 1}\n\n\t{\"a\":1}";
    static struct outcome outcome;
    for (int shape = 0; shape < 2; shape++) {
        const char *text = shape == 0 ? array : lines;
        compact(parser, shape == 0 ? JSON_SHAPE_DOCUMENT : JSON_SHAPE_LINES, text, strlen(text), &outcome);
        assert_int_equal(outcome.count, 3);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(outcome.compact[i], i != 1);
            assert_text(&outcome, i, "{\"a\":1}", 7);
        }
    }
    json_parser_free(parser);
}

// ---- random values

static uint64_t state;

// xorshift64*: repeatable everywhere.
static uint32_t roll(uint32_t below)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(0x2545f4914f6cdd1d)) >> 33) % below;
}

// The same tokens, with whitespace and without.
struct texts {
    char loose[TEXT_MAX];
    char tight[TEXT_MAX];
    size_t loose_length;
    size_t tight_length;
    uint32_t looseness; // of 100 places between tokens, how many have whitespace
    uint32_t keys;      // counts on, so that no object has the same key twice
};

static void put_token(struct texts *texts, const char *token)
{
    size_t length = strlen(token);
    assert_in_range(texts->loose_length + length + 80, 0, TEXT_MAX);
    for (uint32_t blanks = roll(100) < texts->looseness ? 1 + roll(roll(8) == 0 ? 70 : 3) : 0; blanks > 0; blanks--) {
        if (texts->tight_length > 0) // raw begins at its first token
            texts->loose[texts->loose_length++] = " \t\r\n"[roll(4)];
    }
    lib_put(texts->loose + texts->loose_length, token, length);
    lib_put(texts->tight + texts->tight_length, token, length);
    texts->loose_length += length;
    texts->tight_length += length;
}

static void put_string(struct texts *texts, const char *prefix)
{
    static const char *const pieces[] = {
        " ",        "  ", "\\\"",          "\\\\",    "{", "}",           "[",   "]",
        ",",        ":",  "\\n",           "\\u0020", "x", "caf\xc3\xa9", "\\/", "true",
        "\\\\\\\"", "0",  "\\ud83d\\ude00"};
    char text[400];
    size_t length = (size_t)snprintf(text, sizeof(text), "\"%s", prefix);
    for (uint32_t count = roll(roll(6) == 0 ? 24 : 4); count > 0; count--)
        length += (size_t)snprintf(text + length, sizeof(text) - length, "%s",
                                   pieces[roll(sizeof(pieces) / sizeof(pieces[0]))]);
    snprintf(text + length, sizeof(text) - length, "\"");
    put_token(texts, text);
}

static void put_scalar(struct texts *texts)
{
    static const char *const scalars[] = {
        "0", "-1", "1.5", "-0.0e-7", "1E+30", "true", "null", "false", "18446744073709551615"};
    if (roll(2) == 0)
        put_string(texts, "");
    else
        put_token(texts, scalars[roll(sizeof(scalars) / sizeof(scalars[0]))]);
}

static void put_value(struct texts *texts, int nesting);

static void put_container(struct texts *texts, bool object, int nesting)
{
    put_token(texts, object ? "{" : "[");
    uint32_t count = roll(5);
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            put_token(texts, ",");
        if (object) {
            char prefix[16];
            snprintf(prefix, sizeof(prefix), "k%u.", texts->keys++);
            put_string(texts, prefix);
            put_token(texts, ":");
        }
        put_value(texts, nesting + 1);
    }
    put_token(texts, object ? "}" : "]");
}

static void put_value(struct texts *texts, int nesting)
{
    if (roll(3) == 0 && nesting < NEST_MAX && texts->loose_length < TEXT_MAX / 4)
        put_container(texts, roll(2) == 0, nesting);
    else
        put_scalar(texts);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void random_whitespace(void **unused)
{
    (void)unused;
    uint64_t seed = number_from("SEED", 1);
    uint64_t runs = number_from("RUNS", RUNS_DEFAULT);
    fprintf(stderr, "SEED=%llu RUNS=%llu\n", (unsigned long long)seed, (unsigned long long)runs);
    state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    struct json_parser *parser = json_parser_new(LIB_CAPACITY, LIB_DEPTH);
    assert_non_null(parser);
    static struct outcome outcome;
    static struct texts texts;
    uint64_t loose = 0;
    for (uint64_t run = 0; run < runs; run++) {
        static const uint32_t loosenesses[] = {0, 3, 30, 100};
        texts = (struct texts){.looseness = loosenesses[roll(4)]};
        put_container(&texts, true, 0);
        bool blanks = texts.loose_length != texts.tight_length;
        loose += blanks;
        compact(parser, JSON_SHAPE_DOCUMENT, texts.loose, texts.loose_length, &outcome);
        assert_int_equal(outcome.compact[0], !blanks);
        assert_text(&outcome, 0, texts.tight, texts.tight_length);
        compact(parser, JSON_SHAPE_DOCUMENT, texts.tight, texts.tight_length, &outcome);
        assert_true(outcome.compact[0]);
        assert_text(&outcome, 0, texts.tight, texts.tight_length);
    }
    json_parser_free(parser);
    // Both kinds are visited.
    assert_in_range(loose, runs / 4, runs * 3 / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(whitespace_around_events),
        cmocka_unit_test(random_whitespace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
