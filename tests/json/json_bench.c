// How long json_walk() takes for an event: a payment of about 1 KiB with 25 keys, alone, in an array of 100, as NDJSON.
// Not a test: run it by hand. The best of several rounds, so that a busy machine disturbs less.
//   json_bench [rounds]
#include "base/clock.h"
#include "gateway/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVENTS = 100, DOCUMENTS = 256 };

static size_t write_event(char *text, size_t size, unsigned number)
{
    return (size_t)snprintf(
        text, size,
        "{\"event_id\":\"018f3a7c-%04x-7d11-b6a0-9e54c0d1%04x\",\"event_type\":\"payment.authorised\",\"schema_"
        "version\":3,"
        "\"event_ts\":\"2025-03-14T09:26:53.%03uZ\",\"account_id\":\"acc_%08u\",\"card_id\":\"card_%08x\","
        "\"amount\":%u.%02u,\"currency\":\"EUR\",\"exchange_rate\":1.0843,\"is_recurring\":false,\"retry_count\":%u,"
        "\"parent_payment_id\":null,\"merchant\":{\"merchant_id\":\"mrc_%06u\",\"name\":\"Caf\xc3\xa9 Zentral GmbH\","
        "\"category_code\":\"5812\",\"country\":\"DE\",\"city\":\"Frankfurt am Main\",\"terminal\":\"T-%05u\"},"
        "\"device\":{\"ip\":\"203.0.113.%u\",\"fingerprint\":\"%08x%08x%08x%08x\",\"user_agent\":\"Mozilla/5.0 (Linux; "
        "Android "
        "14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Mobile Safari/537.36\"},"
        "\"risk\":{\"score\":0.%03u,\"rules\":[\"velocity_1h\",\"geo_mismatch\",\"new_device\"],\"decision\":"
        "\"approve\"},"
        "\"description\":\"Order %u, \\\"express\\\" delivery\","
        "\"metadata\":{\"order_id\":\"ord_%08u\",\"basket\":\"%08x%08x%08x\",\"channel\":\"mobile_app\",\"campaign\":"
        "\"spring"
        "-2025-loyalty-programme\"},\"signature\":\"%08x%08x%08x%08x%08x%08x%08x%08x\"}",
        number & 0xffff, number & 0xffff, number % 1000, number, number * 2654435761U, number % 9999, number % 100,
        number % 4, number % 1000000, number % 100000, number % 256, number * 7U, number * 11U, number * 13U,
        number * 17U, number % 1000, number, number, number * 19U, number * 23U, number * 29U, number * 31U,
        number * 37U, number * 41U, number * 43U, number * 47U, number * 53U, number * 59U, number * 61U);
}

static bool count(const struct json_event *event, void *user)
{
    size_t *sum = user;
    *sum += event->values[0].text.length + event->values[1].text.length;
    return true;
}

struct bodies {
    char *bytes[DOCUMENTS];
    size_t lengths[DOCUMENTS];
    size_t count;
    size_t events; // in each
    enum json_shape shape;
};

// Bodies of `events` events; single objects for 1. Different ones, so that no branch predictor learns them by heart.
static void bodies_make(struct bodies *bodies, size_t count_of_bodies, size_t events, enum json_shape shape)
{
    bodies->count = count_of_bodies;
    bodies->events = events;
    bodies->shape = shape;
    for (size_t i = 0; i < count_of_bodies; i++) {
        size_t size = events * 2048 + JSON_PADDING;
        char *text = calloc(1, size);
        size_t used = 0;
        for (size_t n = 0; n < events; n++) {
            if (shape == JSON_SHAPE_DOCUMENT && events > 1)
                text[used++] = n == 0 ? '[' : ',';
            used += write_event(text + used, size - used, (unsigned)(i * events + n) * 7919U);
            if (shape == JSON_SHAPE_LINES)
                text[used++] = '\n';
        }
        if (shape == JSON_SHAPE_DOCUMENT && events > 1)
            text[used++] = ']';
        bodies->bytes[i] = text;
        bodies->lengths[i] = used;
    }
}

static void measure(const char *name, struct json_parser *parser, const struct bodies *bodies,
                    const struct json_pointer *const *pointers, unsigned rounds)
{
    double best = 1e9;
    size_t sum = 0;
    for (unsigned round = 0; round < rounds; round++) {
        int64_t start = sl_monotonic_ns();
        for (size_t i = 0; i < bodies->count; i++) {
            struct json_fault fault;
            struct sl_span body = {.bytes = bodies->bytes[i], .length = bodies->lengths[i]};
            if (!json_walk(parser, bodies->shape, body, pointers, 2, count, &sum, &fault)) {
                fprintf(stderr, "%s: %s\n", name, fault.detail);
                exit(1);
            }
        }
        double each = (double)(sl_monotonic_ns() - start) / (double)(bodies->count * bodies->events);
        best = each < best ? each : best;
    }
    double bytes = (double)bodies->lengths[0] / (double)bodies->events;
    printf("%-22s %6.0f bytes an event %7.1f ns an event %6.2f GB/s\n", name, bytes, best, bytes / best);
}

static void bodies_free(struct bodies *bodies)
{
    for (size_t i = 0; i < bodies->count; i++)
        free(bodies->bytes[i]);
}

// A body that fails at its very end costs a second pass: that must not be a way to stop an event loop.
static void measure_fault(struct json_parser *parser)
{
    enum { LENGTH = 900 * 1024 };
    char *text = calloc(1, LENGTH + JSON_PADDING);
    size_t used = (size_t)snprintf(text, LENGTH, "{\"a\":[");
    while (used < LENGTH - 16)
        used += (size_t)snprintf(text + used, LENGTH - used, "[],{},");
    struct json_fault fault;
    size_t sum = 0;
    int64_t start = sl_monotonic_ns();
    if (json_walk(parser, JSON_SHAPE_DOCUMENT, (struct sl_span){text, used}, NULL, 0, count, &sum, &fault))
        exit(1);
    printf("%-22s %6.0f KiB %.2f ms (%s at %zu)\n", "fault at the end", (double)used / 1024,
           (double)(sl_monotonic_ns() - start) / 1e6, fault.detail, fault.offset);
    free(text);
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 200;
    struct json_parser *parser = json_parser_new(900 * 1024, 64);
    struct json_pointer *pointers[2];
    struct sl_error err;
    if (parser == NULL || !json_pointer_compile(&pointers[0], "/event_id", &err) ||
        !json_pointer_compile(&pointers[1], "/account_id", &err))
        return 1;
    const struct json_pointer *const *asked = (const struct json_pointer *const *)pointers;

    static struct bodies bodies;
    bodies_make(&bodies, DOCUMENTS, 1, JSON_SHAPE_DOCUMENT);
    measure("one object", parser, &bodies, asked, rounds);
    bodies_free(&bodies);
    bodies_make(&bodies, 10, EVENTS, JSON_SHAPE_DOCUMENT);
    measure("array of 100", parser, &bodies, asked, rounds);
    bodies_free(&bodies);
    bodies_make(&bodies, 1, 10000, JSON_SHAPE_DOCUMENT);
    measure("array of 10,000", parser, &bodies, asked, rounds / 10 + 1);
    bodies_free(&bodies);
    bodies_make(&bodies, 10, EVENTS, JSON_SHAPE_LINES);
    measure("NDJSON of 100", parser, &bodies, asked, rounds);
    bodies_free(&bodies);
    measure_fault(parser);

    json_pointer_free(pointers[0]);
    json_pointer_free(pointers[1]);
    json_parser_free(parser);
    return 0;
}
