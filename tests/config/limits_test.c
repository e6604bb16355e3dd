// The defaults of `limits:` are written in two places: the schema, where people read them, and http_limits_default(),
// which other users of the HTTP engine start from. They are the same.
#include "gateway/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

_Static_assert(sizeof(struct http_limits) == 3 * sizeof(uint64_t) + 6 * sizeof(uint32_t) + 5 * sizeof(int64_t),
               "no padding: the structs can be compared as bytes");

static void test_defaults_are_those_of_the_engine(void **state)
{
    (void)state;
    static const char text[] = "node: { name: a }\nkafka: { brokers: embedded }\n";
    char path[] = "/tmp/sluice-limits-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    close(fd);
    struct config *config = NULL;
    struct sl_error err;
    bool loaded = config_load(&config, path, stdout, &err);
    unlink(path);
    assert_true(loaded);
    struct http_limits loaded_limits = config->limits.http, limits = http_limits_default();
    assert_int_equal(loaded_limits.body_bytes, limits.body_bytes);
    assert_int_equal(loaded_limits.unfinished_bytes_connection, limits.unfinished_bytes_connection);
    assert_int_equal(loaded_limits.unfinished_bytes, limits.unfinished_bytes);
    assert_int_equal(loaded_limits.header_block_bytes, limits.header_block_bytes);
    assert_int_equal(loaded_limits.header_count, limits.header_count);
    assert_int_equal(loaded_limits.connections, limits.connections);
    assert_int_equal(loaded_limits.connections_address, limits.connections_address);
    assert_int_equal(loaded_limits.resets_minute, limits.resets_minute);
    assert_int_equal(loaded_limits.control_frames_minute, limits.control_frames_minute);
    assert_int_equal(loaded_limits.request_timeout_ns, limits.request_timeout_ns);
    assert_int_equal(loaded_limits.response_timeout_ns, limits.response_timeout_ns);
    assert_int_equal(loaded_limits.idle_timeout_ns, limits.idle_timeout_ns);
    assert_int_equal(loaded_limits.handshake_timeout_ns, limits.handshake_timeout_ns);
    assert_int_equal(loaded_limits.connection_age_ns, limits.connection_age_ns);
    // A field that was added to the engine and has no key yet would be 0 here.
    assert_memory_equal(&loaded_limits, &limits, sizeof(limits));
    config_release(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_defaults_are_those_of_the_engine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
