// What can be tested of the HTTP engine without a client: posting between threads, the chunk decoder at every split of
// its input, refused options.
#include "base/clock.h"
#include "gateway/http.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <cmocka.h>

// As in gateway/http_internal.h, which is not for others.
struct phr_chunked_decoder {
    size_t bytes_left_in_chunk;
    char consume_trailer;
    char hex_count;
    char state;
};
ssize_t phr_decode_chunked(struct phr_chunked_decoder *decoder, char *buf, size_t *bufsz);

static void ignore_request(struct http_request *request, void *user)
{
    (void)user;
    http_respond(request, 204, NULL, NULL, 0, NULL, 0);
}

static struct http_options options_for(const struct http_listener *listener)
{
    return (struct http_options){.name = "unit",
                                 .listeners = listener,
                                 .listener_count = 1,
                                 .loop_count = 3,
                                 .limits = http_limits_default(),
                                 .on_request = ignore_request};
}

// ---- posting

enum { POSTERS = 4, POSTS = 20000, LOOPS = 3 };

struct numbered_task {
    struct http_task task;
    int poster, number;
    uint32_t loop;
};

static struct numbered_task tasks[POSTERS][POSTS];
static int last_seen[LOOPS][POSTERS]; // each loop its own row
static _Atomic int run_count, disorder_count, wrong_thread_count;
static _Thread_local int loop_of_thread = -1;

static void on_task(struct http_task *task)
{
    struct numbered_task *numbered = (struct numbered_task *)(void *)task;
    if (loop_of_thread == -1)
        loop_of_thread = (int)numbered->loop;
    if (loop_of_thread != (int)numbered->loop)
        atomic_fetch_add(&wrong_thread_count, 1);
    int *last = &last_seen[numbered->loop][numbered->poster];
    if (numbered->number <= *last)
        atomic_fetch_add(&disorder_count, 1);
    *last = numbered->number;
    atomic_fetch_add(&run_count, 1);
}

struct poster {
    struct http_server *server;
    int index;
};

static void *post_all(void *argument)
{
    const struct poster *poster = argument;
    for (int i = 0; i < POSTS; i++) {
        struct numbered_task *task = &tasks[poster->index][i];
        *task = (struct numbered_task){
            .task = {.run = on_task}, .poster = poster->index, .number = i + 1, .loop = (uint32_t)(i % LOOPS)};
        http_loop_post(http_server_loop(poster->server, task->loop), &task->task);
    }
    return NULL;
}

// Every task runs once, on its loop, in the order of its poster; also those posted just before the server stops.
static void test_posts(void **state)
{
    (void)state;
    const struct http_listener listener = {.address = "127.0.0.1:0"};
    struct http_options options = options_for(&listener);
    struct sl_error err;
    struct http_server *server;
    assert_true(http_server_start(&server, &options, &err));
    assert_int_equal(http_server_loop_count(server), LOOPS);
    assert_int_not_equal(http_server_port(server, 0), 0);
    pthread_t threads[POSTERS];
    struct poster posters[POSTERS];
    for (int i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){.server = server, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, post_all, &posters[i]), 0);
    }
    for (int i = 0; i < POSTERS; i++)
        pthread_join(threads[i], NULL);
    http_server_stop(server);
    assert_int_equal(run_count, POSTERS * POSTS);
    assert_int_equal(disorder_count, 0);
    assert_int_equal(wrong_thread_count, 0);
}

static void on_tick(struct http_loop *loop, void *user)
{
    (void)loop;
    atomic_fetch_add((_Atomic int *)user, 1);
}

static void test_every(void **state)
{
    (void)state;
    const struct http_listener listener = {.address = "127.0.0.1:0"};
    struct http_options options = options_for(&listener);
    struct sl_error err;
    struct http_server *server;
    _Atomic int ticks = 0;
    assert_true(http_server_start(&server, &options, &err));
    http_loop_every(http_server_loop(server, 0), 2 * SL_NS_PER_MS, on_tick, &ticks);
    while (ticks < 5)
        sched_yield();
    http_server_close_gracefully(server);
    http_server_close_gracefully(server); // twice is no harm
    http_server_stop(server);
}

static void test_refused_options(void **state)
{
    (void)state;
    const struct http_listener listener = {.address = "127.0.0.1:0"};
    struct http_server *server;
    struct sl_error err;
    struct http_options options = options_for(&listener);
    options.loop_count = 0;
    assert_false(http_server_start(&server, &options, &err));
    assert_int_equal(err.code, SL_E_CONFIG);
    assert_null(server);
    options = options_for(&listener);
    options.limits.unfinished_bytes = options.limits.body_bytes - 1;
    assert_false(http_server_start(&server, &options, &err));
    options = options_for(&listener);
    options.limits.header_block_bytes = 1 << 20;
    assert_false(http_server_start(&server, &options, &err));
}

// ---- chunks

static const char chunked[] =
    "3;ext=1\r\nabc\r\n0A\r\n0123456789\r\n1\r\n\r\r\n000\r\nTrailer: x\r\nOther: y\r\n\r\nREST";
static const char decoded[] = "abc0123456789\r";

// Feeds the bytes as h2o does: what is new lies behind what has been decoded.
static void decode_split(const size_t *ends, size_t count)
{
    struct phr_chunked_decoder decoder = {.consume_trailer = 1};
    char buffer[sizeof(chunked)];
    size_t decoded_bytes = 0, fed = 0;
    ssize_t left = -2;
    for (size_t i = 0; i < count && left == -2; i++) {
        size_t size = ends[i] - fed;
        memcpy(buffer + decoded_bytes, chunked + fed, size);
        fed = ends[i];
        left = phr_decode_chunked(&decoder, buffer + decoded_bytes, &size);
        assert_int_not_equal(left, -1);
        decoded_bytes += size;
    }
    assert_int_equal(decoded_bytes, sizeof(decoded) - 1);
    assert_memory_equal(buffer, decoded, sizeof(decoded) - 1);
    assert_true(left >= 0);
    // What is behind the body lies behind the decoded bytes, as far as it has been fed.
    assert_int_equal((size_t)left, fed - (sizeof(chunked) - 1 - 4));
    assert_memory_equal(buffer + decoded_bytes, "REST", (size_t)left);
}

static void test_chunks_at_every_split(void **state)
{
    (void)state;
    size_t length = sizeof(chunked) - 1;
    for (size_t first = 0; first <= length; first++)
        for (size_t second = first; second <= length; second++)
            decode_split((size_t[]){first, second, length}, 3);
    size_t single[sizeof(chunked)];
    for (size_t i = 0; i < length; i++)
        single[i] = i + 1;
    decode_split(single, length);
}

// No input makes the decoder write or read outside of what it was given, or loop: random bytes over its own alphabet.
static void test_chunks_of_noise(void **state)
{
    (void)state;
    static const char alphabet[] = "0123456789abcdefABCDEF\r\n\r\n\r\n;: xX";
    unsigned seed = 4711;
    for (int round = 0; round < 200000; round++) {
        struct phr_chunked_decoder decoder = {.consume_trailer = 1};
        size_t size = (size_t)(rand_r(&seed) % 40), given = size;
        char *buffer = malloc(size + 1);
        for (size_t i = 0; i < size; i++)
            buffer[i] = alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
        ssize_t left = phr_decode_chunked(&decoder, buffer, &size);
        assert_true(left >= -2);
        assert_true(size + (left > 0 ? (size_t)left : 0) <= given);
        free(buffer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_posts),           cmocka_unit_test(test_every),
        cmocka_unit_test(test_refused_options), cmocka_unit_test(test_chunks_at_every_split),
        cmocka_unit_test(test_chunks_of_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
