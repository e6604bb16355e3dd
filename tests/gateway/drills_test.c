// The last drills' verdicts: what chaos/drill writes is shown, anything else is refused with its reason.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/drills.h"

#define GOOD                                                                                                           \
    "{\"name\":\"zone-loss\",\"verdict\":\"PASS\",\"at\":\"2026-11-21T18:00:00Z\",\"line\":\"PASS\",\"why\":\"\"}"

static char directory[64];
static char path[128];

static int setup(void **state)
{
    (void)state;
    snprintf(directory, sizeof(directory), "/tmp/sluice-drills-XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/%s", directory, DRILLS_FILE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove(path);
    return rmdir(directory);
}

static void put(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(0, fclose(file));
}

static void test_no_file_is_no_error(void **state)
{
    (void)state;
    struct sl_error err;
    json_t *drills = (json_t *)directory;
    assert_true(drills_read(directory, &drills, &err));
    assert_null(drills);
}

static void test_reads_what_is_written(void **state)
{
    (void)state;
    struct sl_error err;
    json_t *drills;
    put("{\"version\":1,\"drills\":[" GOOD "," GOOD "]}");
    assert_true(drills_read(directory, &drills, &err));
    assert_int_equal(2, json_array_size(drills));
    assert_string_equal("zone-loss", json_string_value(json_object_get(json_array_get(drills, 1), "name")));
    json_decref(drills);
}

static void refuses(const char *text, enum sl_code code)
{
    struct sl_error err;
    json_t *drills;
    put(text);
    assert_false(drills_read(directory, &drills, &err));
    assert_null(drills);
    assert_int_equal(code, err.code);
    assert_non_null(strstr(err.text, DRILLS_FILE));
}

static void test_refuses_everything_else(void **state)
{
    (void)state;
    refuses("", SL_E_INVALID);
    refuses("{\"version\":1,\"drills\":[", SL_E_INVALID);
    refuses("{\"version\":2,\"drills\":[]}", SL_E_INVALID);
    refuses("{\"version\":1,\"drills\":{}}", SL_E_INVALID);
    refuses("{\"version\":1,\"drills\":[" GOOD ",7]}", SL_E_INVALID);
    refuses("{\"version\":1,\"drills\":[{\"name\":\"x\",\"verdict\":\"PASS\"}]}", SL_E_INVALID);
    refuses("{\"version\":1,\"drills\":[{\"name\":\"x\",\"verdict\":\"fine\",\"at\":\"\",\"line\":\"\",\"why\":\"\"}]}",
            SL_E_INVALID);
}

static void test_refuses_too_much(void **state)
{
    (void)state;
    static char large[DRILLS_BYTES_MAX + 100];
    memset(large, ' ', sizeof(large) - 1);
    refuses(large, SL_E_TOO_LARGE);
    FILE *file = fmemopen(large, sizeof(large), "w");
    assert_non_null(file);
    fputs("{\"version\":1,\"drills\":[" GOOD, file);
    for (int i = 0; i < DRILLS_COUNT_MAX; i++)
        fputs("," GOOD, file);
    fputs("]}", file);
    assert_int_equal(0, fclose(file));
    refuses(large, SL_E_INVALID);
}

static void test_waits_for_nobody(void **state)
{
    (void)state;
    struct sl_error err;
    json_t *drills;
    assert_int_equal(0, mkfifo(path, 0600));
    assert_false(drills_read(directory, &drills, &err));
    assert_int_equal(SL_E_INVALID, err.code);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_file_is_no_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reads_what_is_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refuses_everything_else, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refuses_too_much, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waits_for_nobody, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
