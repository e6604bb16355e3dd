// problem_write: what comes out is JSON whatever goes in and however small the buffer; jansson is the judge.
#include "gateway/problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static json_t *parse(const char *text, size_t length)
{
    json_error_t error;
    json_t *json = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (json == NULL)
        fail_msg("%s at %d of %.*s", error.text, error.position, (int)length, text);
    return json;
}

static void test_without_detail(void **state)
{
    (void)state;
    char out[256];
    struct problem problem = {.status = 503};
    size_t length = problem_write(out, sizeof(out), &problem);
    assert_string_equal(out, "{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503}");
    assert_int_equal(length, strlen(out));
}

static void test_everything(void **state)
{
    (void)state;
    char out[512];
    struct problem_error errors[] = {
        {.index = 3, .has_offset = true, .offset = 117, .detail = "not JSON"},
        {.index = SIZE_MAX, .pointer = "/a~1\"b", .detail = NULL},
        {.index = 0, .has_offset = true, .offset = 0},
    };
    struct problem problem = {.status = 400, .detail = "Event 3: not JSON.", .errors = errors, .error_count = 3};
    size_t length = problem_write(out, sizeof(out), &problem);
    assert_string_equal(out, "{\"type\":\"about:blank\",\"title\":\"Bad Request\",\"status\":400,"
                             "\"detail\":\"Event 3: not JSON.\",\"errors\":["
                             "{\"index\":3,\"offset\":117,\"detail\":\"not JSON\"},"
                             "{\"index\":18446744073709551615,\"pointer\":\"/a~1\\\"b\"},"
                             "{\"index\":0,\"offset\":0}]}");
    assert_int_equal(length, strlen(out));
}

static void test_every_status_of_the_contract_has_its_title(void **state)
{
    (void)state;
    static const int statuses[] = {400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 500, 503};
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        char out[PROBLEM_SIZE_MIN];
        struct problem problem = {.status = statuses[i]};
        json_t *json = parse(out, problem_write(out, sizeof(out), &problem));
        assert_int_equal(json_integer_value(json_object_get(json, "status")), statuses[i]);
        assert_string_equal(json_string_value(json_object_get(json, "title")), problem_title(statuses[i]));
        assert_string_not_equal(problem_title(statuses[i]), "Error");
        json_decref(json);
    }
    assert_string_equal(problem_title(599), "Error");
}

static void test_every_byte_is_escaped(void **state)
{
    (void)state;
    for (int byte = 1; byte < 256; byte++) {
        char detail[] = {'<', (char)byte, '>', '\0'}, out[256];
        struct problem problem = {.status = 400, .detail = detail};
        json_t *json = parse(out, problem_write(out, sizeof(out), &problem));
        const char *back = json_string_value(json_object_get(json, "detail"));
        assert_string_equal(back, byte < 0x80 ? detail : "<\xef\xbf\xbd>");
        json_decref(json);
    }
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", "\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},                                 // overlong
        {"\xe0\x9f\xbf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                 // overlong
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                 // surrogate
        {"\xf0\x8f\xbf\xbf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, // overlong
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, // beyond U+10FFFF
        {"a\xe2\x82", "a\xef\xbf\xbd\xef\xbf\xbd"},                               // ends within
        {"\xf0\x9f\x98", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                 // ends within
        {"\xe2\x82z", "\xef\xbf\xbd\xef\xbf\xbdz"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[256];
        struct problem problem = {.status = 400, .detail = rows[i].in};
        json_t *json = parse(out, problem_write(out, sizeof(out), &problem));
        assert_string_equal(json_string_value(json_object_get(json, "detail")), rows[i].out);
        json_decref(json);
    }
}

// Each buffer size is its own allocation, so that the address sanitizer sees one byte too many.
static size_t write_into(size_t size, const struct problem *problem, json_t **json)
{
    char *out = malloc(size);
    assert_non_null(out);
    size_t length = problem_write(out, size, problem);
    assert_true(length < size);
    assert_int_equal(out[length], '\0');
    *json = parse(out, length);
    free(out);
    return length;
}

static void test_a_detail_is_cut_between_characters(void **state)
{
    (void)state;
    char detail[1200] = "";
    for (size_t i = 0; i < 100; i++)
        memcpy(detail + i * 11, "a\xc3\xa9\xe2\x82\xac\"\xf0\x9f\x98\x80", 12);
    size_t whole = 0;
    for (size_t size = PROBLEM_SIZE_MIN; size < 1400; size++) {
        struct problem problem = {.status = 422, .detail = detail};
        json_t *json;
        size_t length = write_into(size, &problem, &json);
        const char *back = json_string_value(json_object_get(json, "detail"));
        assert_non_null(back);
        size_t kept = strlen(back);
        if (strcmp(back, detail) == 0) {
            whole++;
        } else {
            assert_true(kept > 3 && strcmp(back + kept - 3, "\xe2\x80\xa6") == 0);
            assert_memory_equal(back, detail, kept - 3);
            assert_true(size - length <= 8); // no more is given away than a character and its escape
        }
        json_decref(json);
    }
    assert_true(whole > 0);
}

static void test_errors_are_left_out_whole_and_counted(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    struct problem_error errors[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        errors[i] = (struct problem_error){.index = i,
                                           .has_offset = i % 2 == 0,
                                           .offset = i * 1000,
                                           .pointer = i % 3 == 0 ? "/a\n" : NULL,
                                           .detail = "no\tgood"};
    size_t seen_none = 0, seen_all = 0;
    for (size_t size = PROBLEM_SIZE_MIN; size < 1600; size++) {
        struct problem problem = {.status = 422, .detail = "Some are wrong.", .errors = errors, .error_count = COUNT};
        json_t *json;
        write_into(size, &problem, &json);
        json_t *list = json_object_get(json, "errors");
        size_t written = json_array_size(list);
        for (size_t i = 0; i < written; i++) {
            json_t *one = json_array_get(list, i);
            assert_int_equal(json_integer_value(json_object_get(one, "index")), i);
            assert_int_equal(json_object_get(one, "offset") != NULL, i % 2 == 0);
            assert_string_equal(json_string_value(json_object_get(one, "detail")), "no\tgood");
            if (i % 3 == 0)
                assert_string_equal(json_string_value(json_object_get(one, "pointer")), "/a\n");
        }
        json_t *omitted = json_object_get(json, "omitted");
        if (written == COUNT)
            assert_null(omitted);
        else if (omitted != NULL)
            assert_int_equal(json_integer_value(omitted), COUNT - written);
        else
            assert_int_equal(written, 0); // a buffer in which not even the number fits
        seen_none += written == 0;
        seen_all += written == COUNT;
        json_decref(json);
    }
    assert_true(seen_none > 0 && seen_all > 0);
}

static void test_a_long_detail_leaves_room_for_errors(void **state)
{
    (void)state;
    char detail[4000];
    memset(detail, 'x', sizeof(detail) - 1);
    detail[sizeof(detail) - 1] = '\0';
    struct problem_error error = {.index = 7, .detail = "here"};
    struct problem problem = {.status = 400, .detail = detail, .errors = &error, .error_count = 1};
    json_t *json;
    write_into(1024, &problem, &json);
    assert_int_equal(json_array_size(json_object_get(json, "errors")), 1);
    assert_true(json_string_length(json_object_get(json, "detail")) > 400);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_detail),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_every_status_of_the_contract_has_its_title),
        cmocka_unit_test(test_every_byte_is_escaped),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_a_detail_is_cut_between_characters),
        cmocka_unit_test(test_errors_are_left_out_whole_and_counted),
        cmocka_unit_test(test_a_long_detail_leaves_room_for_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
