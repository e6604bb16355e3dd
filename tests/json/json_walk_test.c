// Good bodies: which events come out, with which values; large bodies; pointers; counting.
#include "gateway/json_internal.h"
#include "tests/json/json_lib.h"

#include <stdio.h>
#include <sys/resource.h>

#define TEXT(literal) (literal), sizeof(literal) - 1
#define DOC           JSON_SHAPE_DOCUMENT
#define LINES         JSON_SHAPE_LINES

// ---- values

struct wanted {
    const char *pointer;
    enum json_kind kind;
    const char *text;
    size_t length;
};

struct values_visit {
    const struct wanted *wanted;
    size_t count;
};

static bool compare_values(const struct json_event *event, void *user)
{
    const struct values_visit *visit = user;
    for (size_t i = 0; i < visit->count; i++) {
        const struct wanted *wanted = &visit->wanted[i];
        if (event->values[i].kind != wanted->kind || event->values[i].text.length != wanted->length ||
            memcmp(event->values[i].text.bytes != NULL ? event->values[i].text.bytes : "", wanted->text,
                   wanted->length) != 0)
            fail_msg("%s: kind %d, %.*s", wanted->pointer, (int)event->values[i].kind,
                     (int)event->values[i].text.length, (const char *)event->values[i].text.bytes);
    }
    return true;
}

static const char event_text[] =
    " {\"id\":\"evt\\u005f1\\u0000\\ud83d\\ude00\",\"n\":-0,\"big\":18446744073709551615,\"small\":-"
    "9223372036854775808,"
    "\"r\":1.50E+2, \"tiny\":1e-999, \"zero\":0e999, \"edge\":1.7976931348623158e308,\"t\":true,\"f\":false,\"z\":null,"
    "\"o\":{\"id\":7,\"o\":{\"id\":\"deep\"}},\"l\":[0,[10,{\"x\":11}],\"two\"],\"e\":{},\"\":\"empty\","
    "\"a/b\":1,\"m~n\":2,\"0\":\"zeroth\",\"a key that is longer than sixteen bytes\":3,\"last\" : 1.0 }\n";

static const struct wanted wanted_values[] = {
    {"/id", JSON_KIND_STRING, TEXT("evt_1\0\xf0\x9f\x98\x80")},
    {"/n", JSON_KIND_INTEGER, TEXT("-0")},
    {"/big", JSON_KIND_INTEGER, TEXT("18446744073709551615")},
    {"/small", JSON_KIND_INTEGER, TEXT("-9223372036854775808")},
    {"/r", JSON_KIND_REAL, TEXT("1.50E+2")},
    {"/tiny", JSON_KIND_REAL, TEXT("1e-999")},
    {"/zero", JSON_KIND_REAL, TEXT("0e999")},
    {"/edge", JSON_KIND_REAL, TEXT("1.7976931348623158e308")},
    {"/t", JSON_KIND_BOOL, TEXT("true")},
    {"/f", JSON_KIND_BOOL, TEXT("false")},
    {"/z", JSON_KIND_NULL, TEXT("")},
    {"/o", JSON_KIND_OBJECT, TEXT("")},
    {"/o/id", JSON_KIND_INTEGER, TEXT("7")},
    {"/o/o/id", JSON_KIND_STRING, TEXT("deep")},
    {"/o/o/id/x", JSON_KIND_ABSENT, TEXT("")},
    {"/l", JSON_KIND_ARRAY, TEXT("")},
    {"/l/0", JSON_KIND_INTEGER, TEXT("0")},
    {"/l/1/0", JSON_KIND_INTEGER, TEXT("10")},
    {"/l/1/1/x", JSON_KIND_INTEGER, TEXT("11")},
    {"/l/2", JSON_KIND_STRING, TEXT("two")},
    {"/l/3", JSON_KIND_ABSENT, TEXT("")},
    {"/l/-", JSON_KIND_ABSENT, TEXT("")},
    {"/l/00", JSON_KIND_ABSENT, TEXT("")},
    {"/e", JSON_KIND_OBJECT, TEXT("")},
    {"/e/x", JSON_KIND_ABSENT, TEXT("")},
    {"/", JSON_KIND_STRING, TEXT("empty")},
    {"/a~1b", JSON_KIND_INTEGER, TEXT("1")},
    {"/m~0n", JSON_KIND_INTEGER, TEXT("2")},
    {"/0", JSON_KIND_STRING, TEXT("zeroth")},
    {"/a key that is longer than sixteen bytes", JSON_KIND_INTEGER, TEXT("3")},
    {"/a key that is longer than sixteen bytez", JSON_KIND_ABSENT, TEXT("")},
    {"/last", JSON_KIND_REAL, TEXT("1.0")},
};

static void values(void **unused)
{
    (void)unused;
    enum { COUNT = sizeof(wanted_values) / sizeof(wanted_values[0]) };
    struct json_parser *parser = json_parser_new(LIB_CAPACITY, LIB_DEPTH);
    struct sl_span body = lib_body(event_text, sizeof(event_text) - 1);
    struct json_pointer *pointers[COUNT];
    struct sl_error err;
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(json_pointer_compile(&pointers[i], wanted_values[i].pointer, &err));
        assert_string_equal(json_pointer_text(pointers[i]), wanted_values[i].pointer);
    }
    // As many at a time as one walk takes, and each alone.
    for (size_t first = 0; first < COUNT; first++) {
        for (size_t count = 1; count <= JSON_POINTERS_MAX && first + count <= COUNT; count += JSON_POINTERS_MAX - 1) {
            struct values_visit visit = {.wanted = wanted_values + first, .count = count};
            struct json_fault fault;
            assert_true(json_walk(parser, DOC, body, (const struct json_pointer *const *)pointers + first, count,
                                  compare_values, &visit, &fault));
        }
    }
    for (size_t i = 0; i < COUNT; i++)
        json_pointer_free(pointers[i]);
    free((void *)(uintptr_t)body.bytes);
    json_parser_free(parser);
}

// A NULL pointer is an absent value, and moves no other.
static void null_pointers(void **unused)
{
    (void)unused;
    struct json_parser *parser = json_parser_new(LIB_CAPACITY, LIB_DEPTH);
    struct sl_span body = lib_body(TEXT("{\"a\":1}"));
    struct json_pointer *pointer;
    struct sl_error err;
    assert_true(json_pointer_compile(&pointer, "/a", &err));
    const struct json_pointer *pointers[] = {NULL, pointer, NULL};
    const struct wanted wanted[] = {
        {"", JSON_KIND_ABSENT, TEXT("")}, {"/a", JSON_KIND_INTEGER, TEXT("1")}, {"", JSON_KIND_ABSENT, TEXT("")}};
    struct json_fault fault;
    assert_true(json_walk(parser, DOC, body, pointers, 3, compare_values, &(struct values_visit){wanted, 3}, &fault));
    json_pointer_free(pointer);
    json_pointer_free(NULL);
    free((void *)(uintptr_t)body.bytes);
    json_parser_free(parser);
}

static void bad_pointers(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"", "a", "a/b", "/~", "/~2", "/a~", "/x/~/y"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct json_pointer *pointer;
        struct sl_error err;
        assert_false(json_pointer_compile(&pointer, bad[i], &err));
        assert_int_equal(err.code, SL_E_INVALID);
    }
}

// ---- slices

struct slices {
    const char *const *wanted;
    size_t count;
    size_t seen;
};

static bool compare_slice(const struct json_event *event, void *user)
{
    struct slices *slices = user;
    assert_true(slices->seen < slices->count);
    const char *wanted = slices->wanted[slices->seen++];
    assert_int_equal(event->raw.length, strlen(wanted));
    assert_memory_equal(event->raw.bytes, wanted, strlen(wanted));
    return true;
}

static void slices(void **unused)
{
    (void)unused;
    static const char *const events[] = {"{}", "{ \"a\" : [ {} , 1 ] }", "{\"b\":\"},{\\\"\\\\\"}", "{\"\":{\"\":{}}}"};
    static const struct {
        enum json_shape shape;
        const char *before, *between, *behind;
        size_t count;
    } frames[] = {
        {DOC, "[", ",", "]", 4},
        {DOC, " \n[ ", "\r\n,\t", " ] \n", 4},
        {DOC, "[", ",", "]", 1},
        {DOC, "\t", "", "\r\n", 1},
        {DOC, "", "", "", 1},
        {LINES, "", "\n", "", 4},
        {LINES, "", "\n", "\n", 4},
        {LINES, "\n\r\n \n", "\r\n\n\t\r\n", "\r\n\n", 4},
        {LINES, " \t", " \r\n ", " ", 4},
        {LINES, "", "", "", 1},
    };
    struct json_parser *parser = json_parser_new(LIB_CAPACITY, LIB_DEPTH);
    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        char text[256];
        int used = snprintf(text, sizeof(text), "%s", frames[i].before);
        for (size_t n = 0; n < frames[i].count; n++)
            used +=
                snprintf(text + used, sizeof(text) - (size_t)used, "%s%s", n > 0 ? frames[i].between : "", events[n]);
        used += snprintf(text + used, sizeof(text) - (size_t)used, "%s", frames[i].behind);
        struct sl_span body = lib_body(text, (size_t)used);
        struct slices seen = {.wanted = events, .count = frames[i].count};
        struct json_fault fault;
        for (size_t window = 1; window < 64; window += 5) {
            json_parser_set_window(parser, window);
            seen.seen = 0;
            if (!json_walk(parser, frames[i].shape, body, NULL, 0, compare_slice, &seen, &fault))
                fail_msg("%s: %s at %zu", text, fault.detail, fault.offset);
            assert_int_equal(seen.seen, frames[i].count);
            assert_int_equal(fault.kind, JSON_FAULT_NONE);
        }
        assert_int_equal(json_count_guess(frames[i].shape, body), frames[i].count);
        free((void *)(uintptr_t)body.bytes);
    }
    json_parser_free(parser);
}

static bool stop_at_second(const struct json_event *event, void *user)
{
    (void)user;
    return event->index < 1;
}

static void stopping(void **unused)
{
    (void)unused;
    struct json_parser *parser = json_parser_new(LIB_CAPACITY, LIB_DEPTH);
    struct sl_span body = lib_body(TEXT("[{},{},{},x]"));
    struct json_fault fault = {.kind = JSON_FAULT_DEPTH};
    assert_false(json_walk(parser, DOC, body, NULL, 0, stop_at_second, NULL, &fault));
    assert_int_equal(fault.kind, JSON_FAULT_NONE);
    free((void *)(uintptr_t)body.bytes);
    json_parser_free(parser);
}

// ---- large bodies

enum { ELEMENT_MAX = 128 };

// Elements of an array that is longer than any window, with what could mislead a search for its parts.
static size_t write_element(char *at, size_t number)
{
    static const char *const rests[] = {
        "\"text\":\"},{\\\"id\\\":1},\\\\\\\\\"",
        "\"list\":[{},{\"a\":[]},[{}]],\"q\":\"\\\"\\\"\\\"\"",
        "\"numbers\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]",
        "\"embedded\":\"{\\\"a\\\":[\\\"b\\\",\\\"c\\\"],\\\"d\\\":\\\"}\\\"}\"",
    };
    return (size_t)snprintf(at, ELEMENT_MAX, "{\"id\":%zu,%s}", number, rests[number % 4]);
}

static void many_events(void **unused)
{
    (void)unused;
    enum { EVENTS = 40000 };
    for (int lines = 0; lines < 2; lines++) {
        char *text = malloc(EVENTS * ELEMENT_MAX);
        assert_non_null(text);
        size_t used = 0;
        size_t raw_bytes = 0;
        for (size_t i = 0; i < EVENTS; i++) {
            text[used++] = lines ? '\n' : i == 0 ? '[' : ',';
            size_t length = write_element(text + used, i);
            used += length;
            raw_bytes += length;
        }
        if (!lines)
            text[used++] = ']';
        struct lib_events events;
        struct json_fault fault;
        assert_true(lib_walk(lines ? LINES : DOC, text, used, &events, &fault));
        assert_int_equal(events.count, EVENTS);
        assert_int_equal(events.raw_bytes, raw_bytes);
        // And with a fault near its end, all before it are handed out.
        text[used - (lines ? 1 : 2)] = 'x';
        assert_false(lib_walk(lines ? LINES : DOC, text, used, &events, &fault));
        assert_int_equal(fault.kind, JSON_FAULT_SYNTAX);
        assert_int_equal(fault.index, EVENTS - 1);
        assert_int_equal(events.count, EVENTS - 1);
        free(text);
    }
}

// Events that need the largest window, beside small ones: a window may end inside a string that is longer than it.
static void large_and_small_events(void **unused)
{
    (void)unused;
    static const size_t lengths[] = {20, 700000, 30, 100000, 900000, 10, 65536, 65530, LIB_CAPACITY, 8, 600000};
    enum { COUNT = sizeof(lengths) / sizeof(lengths[0]) };
    static const char fillings[] = "x\"},";
    for (size_t filling = 0; filling < sizeof(fillings) - 1; filling++) {
        char *text = malloc(6 * 1000 * 1000);
        assert_non_null(text);
        size_t used = 0;
        for (size_t i = 0; i < COUNT; i++) {
            text[used++] = i == 0 ? '[' : ',';
            lib_put(text + used, "{\"a\":\"", 6);
            for (size_t n = 6; n < lengths[i] - 2; n++)
                text[used + n] = fillings[filling];
            if (fillings[filling] == '"') { // escaped, in pairs
                for (size_t n = 6; n < lengths[i] - 2; n += 2)
                    text[used + n] = '\\';
            }
            lib_put(text + used + lengths[i] - 2, "\"}", 2);
            used += lengths[i];
        }
        text[used++] = ']';
        struct lib_events events;
        struct json_fault fault;
        if (!lib_walk(DOC, text, used, &events, &fault))
            fail_msg("filling %c: %s at %zu, event %zu", fillings[filling], fault.detail, fault.offset, fault.index);
        assert_int_equal(events.count, COUNT);
        free(text);
    }
}

// How often the tests below repeat: were each key held against all others, one walk would take some seconds and all of
// them more than the processor time that the process may use, which is the judge. As it is, one takes milliseconds.
enum { REPEATS = 40, PROCESSOR_S_MAX = 60 };

static void many_keys(void **unused)
{
    (void)unused;
    char *text = malloc(LIB_CAPACITY + 64);
    assert_non_null(text);
    size_t used = 0;
    size_t keys = 0;
    text[used++] = '{';
    while (used < LIB_CAPACITY - 64)
        used += (size_t)snprintf(text + used, 32, "\"%zx\":1,", keys++);
    size_t last = used;
    used += (size_t)snprintf(text + used, 32, "\"x\":1}");
    struct lib_events events;
    struct json_fault fault;
    for (int i = 0; i < REPEATS; i++)
        assert_true(lib_walk(DOC, text, used, &events, &fault));
    assert_true(keys > 90000);
    text[last + 1] = '0';
    assert_false(lib_walk(DOC, text, used, &events, &fault));
    assert_int_equal(fault.kind, JSON_FAULT_DUPLICATE_KEY);
    assert_int_equal(fault.offset, last);
    free(text);
}

// The same key in each of 100,000 objects of one event is no duplicate, and costs no search among the others.
static void many_objects(void **unused)
{
    (void)unused;
    char *text = malloc(LIB_CAPACITY);
    assert_non_null(text);
    size_t used = (size_t)snprintf(text, LIB_CAPACITY, "{\"a\":[{\"a\":1}");
    while (used < LIB_CAPACITY - 16)
        used += (size_t)snprintf(text + used, 16, ",{\"a\":1}");
    used += (size_t)snprintf(text + used, 16, "]}");
    struct lib_events events;
    struct json_fault fault;
    for (int i = 0; i < REPEATS; i++)
        assert_true(lib_walk(DOC, text, used, &events, &fault));
    assert_true(used / 9 > 100000);
    free(text);
}

// A parser is used for millions of events: what one leaves behind must not show in the next.
static void parser_reuse(void **unused)
{
    (void)unused;
    struct json_parser *parser = json_parser_new(4096, LIB_DEPTH);
    struct sl_span same =
        lib_body(TEXT("[{\"a\":1,\"b\":{\"a\":1}},{\"a\":1,\"b\":{\"a\":1}},{\"b\":{\"a\":1},\"a\":1}]"));
    struct sl_span twice = lib_body(TEXT("{\"a\":1,\"b\":{},\"b\":1}"));
    struct sl_span broken = lib_body(TEXT("[{\"a\":1,\"b\":{\"a\":[[["));
    for (int i = 0; i < 1000; i++) {
        struct lib_events events = {0};
        struct json_fault fault;
        assert_true(json_walk(parser, DOC, same, NULL, 0, lib_count, &events, &fault));
        assert_int_equal(events.count, 3);
        events.count = 0;
        assert_false(json_walk(parser, DOC, twice, NULL, 0, lib_count, &events, &fault));
        assert_int_equal(fault.kind, JSON_FAULT_DUPLICATE_KEY);
        assert_false(json_walk(parser, DOC, broken, NULL, 0, lib_count, &events, &fault));
        assert_int_equal(fault.kind, JSON_FAULT_SYNTAX);
    }
    free((void *)(uintptr_t)same.bytes);
    free((void *)(uintptr_t)twice.bytes);
    free((void *)(uintptr_t)broken.bytes);
    json_parser_free(parser);
}

// ---- counting what is broken

static void count_guess(void **unused)
{
    (void)unused;
    static const struct {
        enum json_shape shape;
        const char *text;
        size_t count;
    } bodies[] = {
        {DOC, "", 1},
        {DOC, "x", 1},
        {DOC, "[]", 1},
        {DOC, "[", 1},
        {DOC, "{},{}", 1},
        {DOC, "[{},{}", 2},
        {DOC, "[{},{},", 2},
        {DOC, "[{},{},]", 2},
        {DOC, "[1,2,3", 3},
        {DOC, "[{\"a,[", 1},
        {DOC, "[[,,],{\"]\":", 2},
        {DOC, " [{}, x ,{}]", 3},
        {DOC, "[{\"\\\"", 1},
        {DOC, "[{\"\\", 1},
        {LINES, "", 1},
        {LINES, "\n\n", 1},
        {LINES, "x\n\ny", 2},
        {LINES, "{}\n{\n}\n", 3},
    };
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        size_t count = json_count_guess(bodies[i].shape, sl_span_of(bodies[i].text));
        if (count != bodies[i].count)
            fail_msg("%s: %zu", bodies[i].text, count);
    }
}

int main(void)
{
    const struct rlimit most = {.rlim_cur = PROCESSOR_S_MAX, .rlim_max = PROCESSOR_S_MAX};
    if (setrlimit(RLIMIT_CPU, &most) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(null_pointers),
        cmocka_unit_test(bad_pointers),
        cmocka_unit_test(slices),
        cmocka_unit_test(stopping),
        cmocka_unit_test(many_events),
        cmocka_unit_test(large_and_small_events),
        cmocka_unit_test(many_keys),
        cmocka_unit_test(many_objects),
        cmocka_unit_test(parser_reuse),
        cmocka_unit_test(count_guess),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
