// Malformed input, as a table: what is refused, under which kind, at which event and byte, and in which words.
#include "tests/json/json_lib.h"

#include <stdio.h>

#define TEXT(literal) (literal), sizeof(literal) - 1
#define DOC           JSON_SHAPE_DOCUMENT
#define LINES         JSON_SHAPE_LINES

static const struct {
    enum json_shape shape;
    enum json_fault_kind kind;
    const char *text;
    size_t length;
    size_t index;
    size_t offset;
    const char *detail; // a part of it
} faults[] = {
    // nothing there
    {DOC, JSON_FAULT_EMPTY, TEXT(""), 0, 0, "holds no event"},
    {DOC, JSON_FAULT_EMPTY, TEXT(" \r\n\t "), 0, 5, "holds no event"},
    {DOC, JSON_FAULT_EMPTY, TEXT(" [ ] "), 0, 3, "the array holds no event"},
    {LINES, JSON_FAULT_EMPTY, TEXT(""), 0, 0, "holds no event"},
    {LINES, JSON_FAULT_EMPTY, TEXT("\n \r\n\t\n"), 0, 6, "holds no event"},
    // no object
    {DOC, JSON_FAULT_NOT_OBJECT, TEXT("42"), 0, 0, "this is a number"},
    {DOC, JSON_FAULT_NOT_OBJECT, TEXT(" \"x\" "), 0, 1, "this is a string"},
    {DOC, JSON_FAULT_NOT_OBJECT, TEXT("null"), 0, 0, "this is null"},
    {DOC, JSON_FAULT_NOT_OBJECT, TEXT("[{},true]"), 1, 4, "this is true or false"},
    {DOC, JSON_FAULT_NOT_OBJECT, TEXT("[{}, [{}]]"), 1, 5, "this is an array"},
    {DOC, JSON_FAULT_NOT_OBJECT, TEXT("[-1.5]"), 0, 1, "this is a number"},
    {LINES, JSON_FAULT_NOT_OBJECT, TEXT("{}\n[{}]\n"), 1, 3, "this is an array"},
    {LINES, JSON_FAULT_NOT_OBJECT, TEXT("{}\n\n  7  \n{}"), 1, 6, "this is a number"},
    // no object, and more wrong with it
    {DOC, JSON_FAULT_SYNTAX, TEXT("42 43"), 0, 3, "more follows the object"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[[1,}]"), 0, 4, "closing bracket"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[1 2]"), 0, 3, "expected ',' or ']' after an event"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[1"), 0, 2, "the body ends inside the array of events"},
    // ends early
    {DOC, JSON_FAULT_SYNTAX, TEXT("{"), 0, 1, "the body ends inside an object"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a"), 0, 3, "the body ends inside a string"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\\"), 0, 4, "the body ends inside a string"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\\u00"), 0, 7, "the body ends inside a string"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\\ud800\\"), 0, 10, "the body ends inside a string"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\""), 0, 4, "the body ends inside an object"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":"), 0, 5, "the body ends inside an object"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":tr"), 0, 7, "the body ends inside true, false or null"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":-"), 0, 6, "the body ends inside a number"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":[1,"), 0, 8, "the body ends inside an array"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":1,\n"), 0, 8, "the body ends inside an object"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("["), 0, 1, "the body ends inside the array of events"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[{},"), 1, 4, "the body ends inside the array of events"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[{} "), 1, 4, "the body ends inside the array of events"},
    {LINES, JSON_FAULT_SYNTAX, TEXT("{}\n{\"a\":\n1}"), 1, 8, "the line ends inside an object"},
    {LINES, JSON_FAULT_SYNTAX, TEXT("{\"a\":1\r\n}"), 0, 7, "the line ends inside an object"},
    // punctuation
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\" 1}"), 0, 5, "expected ':' after a key"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":1 \"b\":2}"), 0, 7, "expected ',' or '}' after a member"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":[1 2]}"), 0, 8, "expected ',' or ']' after an element"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":1,}"), 0, 7, "expected a key in double quotes after ','"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":[1,]}"), 0, 8, "is there a ',' too many?"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":}"), 0, 5, "expected a value"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{,}"), 0, 1, "expected '}', or a key in double quotes"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{a:1}"), 0, 1, "key in double quotes"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{1:1}"), 0, 1, "key in double quotes"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":1]"), 0, 6, "expected ',' or '}'"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":[1}}"), 0, 7, "expected ',' or ']'"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{}}"), 0, 2, "more follows the object"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{}{}"), 0, 2, "application/x-ndjson"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{}\n{}\n"), 0, 3, "application/x-ndjson"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[{}{}]"), 1, 3, "expected ',' or ']' after an event"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[{},]"), 1, 4, "is there a ',' too many?"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[,{}]"), 0, 1, "expected a value"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[{}}"), 1, 3, "expected ',' or ']' after an event"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[{}] x"), 1, 5, "more follows the array of events"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[{}][{}]"), 1, 4, "more follows the array of events"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[]]"), 0, 2, "more follows the array of events"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("]"), 0, 0, "expected a value"},
    {LINES, JSON_FAULT_SYNTAX, TEXT("{} {}\n"), 0, 3, "one object a line"},
    {LINES, JSON_FAULT_SYNTAX, TEXT("{}\n{},\n{}"), 1, 5, "one object a line"},
    // not JSON at all, and dialects of it
    {DOC, JSON_FAULT_SYNTAX, TEXT("hello"), 0, 0, "expected a value"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("\xef\xbb\xbf{}"), 0, 0, "byte order mark"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\0\"\0a\0\"\0:\0001\0}\0"), 0, 1, "key in double quotes"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{}\0"), 0, 2, "more follows"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":1\0}"), 0, 6, "expected ',' or '}'"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\"\f:1}"), 0, 4, "expected ':'"},
    {DOC, JSON_FAULT_SYNTAX,
     TEXT("{\"a\":\xc2\xa0"
          "1}"),
     0, 5, "expected a value"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{'a':1}"), 0, 1, "double quotes"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":'x'}"), 0, 5, "double quotes"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":1/*x*/}"), 0, 6, "expected ',' or '}'"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("//x\n{}"), 0, 0, "no comments"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":NaN}"), 0, 5, "no NaN"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":-Infinity}"), 0, 6, "expected a digit after '-'"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":True}"), 0, 5, "lower case"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":trux}"), 0, 8, "expected true, false or null"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":nul}"), 0, 8, "expected true, false or null"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":truex}"), 0, 9, "expected ',' or '}'"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":undefined}"), 0, 5, "expected a value"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\\\"a\":1}"), 0, 1, "key in double quotes"},
    // numbers
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":01}"), 0, 6, "must not begin with 0"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":-01}"), 0, 7, "must not begin with 0"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":+1}"), 0, 5, "begins with a digit"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":.5}"), 0, 5, "begins with a digit"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":1.}"), 0, 7, "digit after '.'"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":1.e5}"), 0, 7, "digit after '.'"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":1e}"), 0, 7, "exponent"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":1e+}"), 0, 8, "exponent"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":0x1F}"), 0, 6, "expected ',' or '}'"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":1.2.3}"), 0, 8, "expected ',' or '}'"},
    {DOC, JSON_FAULT_NUMBER, TEXT("{\"a\":18446744073709551616}"), 0, 5, "64 bits"},
    {DOC, JSON_FAULT_NUMBER, TEXT("{\"a\":-9223372036854775809}"), 0, 5, "64 bits"},
    {DOC, JSON_FAULT_NUMBER, TEXT("{\"a\":123456789012345678901}"), 0, 5, "64 bits"},
    {DOC, JSON_FAULT_NUMBER, TEXT("[{},{\"a\":[0, 1e999]}]"), 1, 13, "double"},
    {DOC, JSON_FAULT_NUMBER, TEXT("{\"a\":-1E+400}"), 0, 5, "double"},
    {DOC, JSON_FAULT_NUMBER, TEXT("{\"a\":1.7976931348623159e308}"), 0, 5, "double"},
    {DOC, JSON_FAULT_NUMBER, TEXT("{\"a\":1e99999999999999999999}"), 0, 5, "double"},
    {DOC, JSON_FAULT_NUMBER, TEXT("{\"a\":0.00001e314}"), 0, 5, "double"},
    // strings
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":\"x\ny\"}"), 0, 7, "control character"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":\"\t\"}"), 0, 6, "control character"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":\"\0\"}"), 0, 6, "control character"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\x1f\":1}"), 0, 3, "control character"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":\"\\x41\"}"), 0, 7, "escape"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":\"\\'\"}"), 0, 7, "escape"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":\"\\u12G4\"}"), 0, 10, "four hexadecimal digits"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":\"\\u12\"}"), 0, 10, "four hexadecimal digits"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("{\"a\":\"\\U0041\"}"), 0, 7, "escape"},
    // Unicode
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\\ud800\"}"), 0, 6, "lone surrogate"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\\udc00\"}"), 0, 6, "lone surrogate"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"x\\uD83Dx\"}"), 0, 7, "lone surrogate"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\\ud83d\\n\"}"), 0, 6, "lone surrogate"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\\ud800\\ud800\"}"), 0, 6, "lone surrogate"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"\\udc00\\ud800\":1}"), 0, 2, "lone surrogate"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\\udc00\\udc00\"}"), 0, 6, "lone surrogate"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\xff\"}"), 0, 6, "UTF-8"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"x\xc3\"}"), 0, 7, "UTF-8"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\xc0\xaf\"}"), 0, 6, "UTF-8"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\xe0\x80\xaf\"}"), 0, 6, "UTF-8"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\xed\xa0\x80\"}"), 0, 6, "UTF-8"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\xf4\x90\x80\x80\"}"), 0, 6, "UTF-8"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\x80\"}"), 0, 6, "UTF-8"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"\xfe\":1}"), 0, 2, "UTF-8"},
    {DOC, JSON_FAULT_UTF8, TEXT("{\"a\":\"\xe2\x82"), 0, 6, "UTF-8"},
    {LINES, JSON_FAULT_UTF8, TEXT("{}\n{\"a\":\"\xff\"}"), 1, 9, "UTF-8"},
    // duplicate keys
    {DOC, JSON_FAULT_DUPLICATE_KEY, TEXT("{\"a\":1,\"a\":2}"), 0, 7, "duplicate key \"a\""},
    {DOC, JSON_FAULT_DUPLICATE_KEY, TEXT("{\"a\":1, \"\\u0061\":2}"), 0, 8, "duplicate key \"a\""},
    {DOC, JSON_FAULT_DUPLICATE_KEY, TEXT("{\"\":1,\"\":1}"), 0, 6, "duplicate key \"\""},
    {DOC, JSON_FAULT_DUPLICATE_KEY, TEXT("[{},{\"x\":{\"y\":[{\"z\":1,\"b\":{},\"z\":1}]}}]"), 1, 29,
     "duplicate key \"z\""},
    {DOC, JSON_FAULT_DUPLICATE_KEY, TEXT("{\"a\":{\"b\":{\"a\":1}},\"b\":1,\"a\":0}"), 0, 25, "duplicate key \"a\""},
    {DOC, JSON_FAULT_DUPLICATE_KEY, TEXT("{\"0123456789abcdefg\":1,\"0123456789abcdefG\":1,\"0123456789abcdefg\":1}"),
     0, 45, "abcdefg"},
    {DOC, JSON_FAULT_DUPLICATE_KEY, TEXT("{\"\\u0000\":1,\"\\u0000\":2}"), 0, 12, "duplicate key \"\\u0000\""},
    {DOC, JSON_FAULT_DUPLICATE_KEY, TEXT("{\"a\\\"\\\\\\n\":1,\"a\\\"\\\\\\n\":2}"), 0, 13,
     "duplicate key \"a\\\"\\\\\\u000a\""},
    {DOC, JSON_FAULT_DUPLICATE_KEY, TEXT("{\"caf\xc3\xa9\":1,\"caf\\u00e9\":2}"), 0, 11,
     "duplicate key \"caf\xc3\xa9\""},
    {LINES, JSON_FAULT_DUPLICATE_KEY, TEXT("{\"a\":1}\n{\"a\":1,\"a\":1}\n"), 1, 15, "duplicate key \"a\""},
    // the first fault counts; in one event syntax comes before duplicates
    {DOC, JSON_FAULT_DUPLICATE_KEY, TEXT("[{\"a\":1,\"a\":2},{\"b\":\"\xff\"}]"), 0, 8, "duplicate key \"a\""},
    {DOC, JSON_FAULT_UTF8, TEXT("[{\"b\":\"\xff\"},{\"a\":1,\"a\":2}]"), 0, 7, "UTF-8"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[{\"a\":1,\"a\":x}]"), 0, 12, "expected a value"},
    {DOC, JSON_FAULT_SYNTAX, TEXT("[{\"i\":1},{\"i\":2},{\"i\":3},{\"i\":\"\\q\"}]"), 3, 32, "escape"},
};

static void table(void **unused)
{
    (void)unused;
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct lib_events events;
        struct json_fault fault;
        bool good = lib_walk(faults[i].shape, faults[i].text, faults[i].length, &events, &fault);
        if (!good && fault.kind == faults[i].kind && fault.index == faults[i].index &&
            fault.offset == faults[i].offset && strstr(fault.detail, faults[i].detail) != NULL &&
            events.count == fault.index)
            continue;
        wrong++;
        print_error("row %zu, %s: %s kind %d index %zu offset %zu after %zu events: %s\n", i, faults[i].text,
                    good ? "taken;" : "refused:", (int)fault.kind, fault.index, fault.offset, events.count,
                    fault.detail);
    }
    assert_int_equal(wrong, 0);
}

static void append(char **end, const char *text)
{
    memcpy(*end, text, strlen(text));
    *end += strlen(text);
}

// `depth` nested objects, or arrays in an object.
static char *nested(size_t depth, bool arrays, size_t *length)
{
    char *text = malloc(depth * 6 + 16);
    assert_non_null(text);
    char *end = text;
    for (size_t i = 0; i < depth; i++)
        append(&end, i > 0 && arrays ? "[" : i + 1 == depth ? "{" : "{\"a\":");
    for (size_t i = depth; i > 0; i--)
        append(&end, i > 1 && arrays ? "]" : "}");
    *length = (size_t)(end - text);
    return text;
}

static void depth(void **unused)
{
    (void)unused;
    struct lib_events events;
    struct json_fault fault;
    for (int arrays = 0; arrays < 2; arrays++) {
        static const size_t depths[] = {64, 65, 10000};
        for (size_t i = 0; i < 3; i++) {
            size_t length;
            char *text = nested(depths[i], arrays, &length);
            assert_int_equal(lib_walk(DOC, text, length, &events, &fault), depths[i] <= LIB_DEPTH);
            if (depths[i] > LIB_DEPTH) {
                assert_int_equal(fault.kind, JSON_FAULT_DEPTH);
                // Every level takes 5 bytes, or 1 after the first.
                assert_int_equal(fault.offset, arrays ? 5 + 63 : 64 * 5);
                assert_non_null(strstr(fault.detail, "deeper than 64"));
            }
            free(text);
        }
    }
    // An empty bracket is a level as any other, and comes before a duplicate key, alone and in an array.
    for (int alone = 0; alone < 2; alone++) {
        size_t length;
        char text[1024];
        char *inner = nested(64, true, &length);
        int size = snprintf(text, sizeof(text), "%s{\"b\":1,\"b\":2,%.*s%s", alone ? " " : "[", (int)length - 1,
                            inner + 1, alone ? "" : "]");
        char *last = strchr(text, ']') - 1; // the innermost '[', which is level 64, becomes "[[" and level 65
        memmove(last + 2, last + 1, (size_t)(text + size - last));
        last[1] = '[';
        memmove(last + 3, last + 2, strlen(last + 2) + 1);
        last[2] = ']';
        size = (int)strlen(text);
        free(inner);
        assert_false(lib_walk(DOC, text, (size_t)size, &events, &fault));
        assert_int_equal(fault.kind, JSON_FAULT_DEPTH);
        assert_int_equal(fault.offset, last + 1 - text);
    }
    // The array around events is no level of theirs.
    char text[1024];
    size_t length;
    char *event = nested(64, false, &length);
    int size = snprintf(text, sizeof(text), "[%.*s]", (int)length, event);
    free(event);
    assert_true(lib_walk(DOC, text, (size_t)size, &events, &fault));
}

// An event of `length` bytes: {"a":"xxx…"}.
static void fill_event(char *at, size_t length)
{
    memset(at, 'x', length);
    lib_put(at, "{\"a\":\"", 6);
    lib_put(at + length - 2, "\"}", 2);
}

static void too_large(void **unused)
{
    (void)unused;
    struct lib_events events;
    struct json_fault fault;
    char *text = malloc(3 * LIB_CAPACITY);
    assert_non_null(text);

    fill_event(text, LIB_CAPACITY);
    assert_true(lib_walk(DOC, text, LIB_CAPACITY, &events, &fault));
    assert_true(lib_walk(LINES, text, LIB_CAPACITY, &events, &fault));
    fill_event(text, LIB_CAPACITY + 1);
    assert_false(lib_walk(DOC, text, LIB_CAPACITY + 1, &events, &fault));
    assert_int_equal(fault.kind, JSON_FAULT_TOO_LARGE);
    assert_int_equal(fault.offset, 0);

    lib_put(text, "[{}, ", 5);
    fill_event(text + 5, LIB_CAPACITY + 1);
    text[5 + LIB_CAPACITY + 1] = ']';
    assert_false(lib_walk(DOC, text, LIB_CAPACITY + 7, &events, &fault));
    assert_int_equal(fault.kind, JSON_FAULT_TOO_LARGE);
    assert_int_equal(fault.index, 1);
    assert_int_equal(fault.offset, 5);
    assert_int_equal(events.count, 1);
    assert_non_null(strstr(fault.detail, "longer than 921600 bytes"));

    lib_put(text, "{}\n  ", 5);
    assert_false(lib_walk(LINES, text, LIB_CAPACITY + 6, &events, &fault));
    assert_int_equal(fault.kind, JSON_FAULT_TOO_LARGE);
    assert_int_equal(fault.index, 1);
    assert_int_equal(fault.offset, 5);

    // What is wrong within the length allowed comes first.
    fill_event(text, LIB_CAPACITY + 1000);
    text[500000] = '\n';
    assert_false(lib_walk(DOC, text, LIB_CAPACITY + 1000, &events, &fault));
    assert_int_equal(fault.kind, JSON_FAULT_SYNTAX);
    assert_int_equal(fault.offset, 500000);

    // Objects one behind the other, sent under the wrong type, are not one large event.
    for (size_t i = 0; i < 3 * LIB_CAPACITY / 3; i++)
        lib_put(text + i * 3, "{}\n", 3);
    assert_false(lib_walk(DOC, text, 3 * LIB_CAPACITY, &events, &fault));
    assert_int_equal(fault.kind, JSON_FAULT_SYNTAX);
    assert_int_equal(fault.offset, 3);
    free(text);
}

// A key of 64 KiB is named, but not all of it, and a character is not cut in two.
static void long_key(void **unused)
{
    (void)unused;
    enum { KEY = 65536 };
    char *text = malloc(2 * KEY + 64);
    assert_non_null(text);
    char *end = text;
    for (int i = 0; i < 2; i++) {
        append(&end, i == 0 ? "{\"k" : ",\"k");
        for (size_t n = 0; n < KEY / 2; n++)
            append(&end, "\xc3\xa9");
        append(&end, "\":1");
    }
    append(&end, "}");
    struct lib_events events;
    struct json_fault fault;
    assert_false(lib_walk(DOC, text, (size_t)(end - text), &events, &fault));
    free(text);
    assert_int_equal(fault.kind, JSON_FAULT_DUPLICATE_KEY);
    assert_int_equal(fault.offset, 1 + 1 + 1 + KEY + 1 + 2 + 1);
    assert_in_range(strlen(fault.detail), 90, sizeof(fault.detail) - 1);
    assert_non_null(strstr(fault.detail, "\xc3\xa9…\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(table), cmocka_unit_test(depth), cmocka_unit_test(too_large),
                                       cmocka_unit_test(long_key)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
