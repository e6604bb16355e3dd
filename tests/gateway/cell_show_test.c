// What operators see of a cell: every figure lands under its name, and whoever would lose events is named.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/cell_show.h"

static void fill(struct cell_status *status)
{
    memset(status, 0, sizeof(*status));
    *status = (struct cell_status){
        .ready = true,
        .member_count = 3,
        .stream_count = 2,
        .takeovers = 11,
        .fenced = 12,
        .sealed = 13,
        .refused = 14,
        .order_given_up = 15,
        .repairs_sent = 16,
        .tombstones = 17,
        .replica_bytes = 18,
        .alarm = "a person is needed",
    };
    status->members[0] =
        (struct cell_member_status){.name = "gw-a1", .zone = "az-a", .self = true, .up = true, .kafka = true};
    status->members[1] = (struct cell_member_status){.name = "gw-b1",
                                                     .zone = "az-b",
                                                     .up = true,
                                                     .kafka = true,
                                                     .since_wall_ns = INT64_C(1700000000000000000),
                                                     .heard_ns = 250000000,
                                                     .lag_events = 21,
                                                     .bytes_in = 22,
                                                     .bytes_out = 23,
                                                     .address = "10.0.0.2:9470"};
    status->members[2] = (struct cell_member_status){
        .name = "gw-c1", .zone = "az-c", .heard_ns = 7000000000, .trouble = "connect: refused"};
    struct cell_stream_status *own = &status->streams[0], *copy = &status->streams[1];
    *own = (struct cell_stream_status){
        .id = "gw-a1.5-000000aa", .current = true, .through = 90, .peer_synced = 95, .two_zones = 95, .lane_count = 1};
    own->holders[0] = (struct cell_holding){.there = true, .base = 1, .end = 100, .writes = true};
    own->holders[1] = (struct cell_holding){.there = true, .base = 91, .end = 95};
    snprintf(own->lanes[0].name, sizeof(own->lanes[0].name), "main");
    own->lanes[0].step = "produces";
    own->lanes[0].through = 90;
    own->lanes[0].claim = 3;
    *copy = (struct cell_stream_status){
        .id = "gw-c1.2-000000cc", .fenced = true, .through = 40, .drainer = "gw-b1.9-000000bb", .lane_count = 1};
    copy->holders[0] = (struct cell_holding){.there = true, .base = 41, .end = 40, .empty = true};
    copy->holders[1] = (struct cell_holding){.there = true, .base = 41, .end = 60, .drains = true};
    snprintf(copy->lanes[0].name, sizeof(copy->lanes[0].name), "bulk");
    copy->lanes[0].step = "stopped";
}

static char *metrics_of(const struct cell_status *status)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    assert_non_null(out);
    cell_show_metrics(out, status);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void expect_line(const char *text, const char *line)
{
    char whole[200];
    snprintf(whole, sizeof(whole), "\n%s\n", line);
    if (strstr(text, whole) == NULL)
        fail_msg("%s is not in\n%s", line, text);
}

static void test_metrics(void **state)
{
    (void)state;
    static struct cell_status status;
    fill(&status);
    status.members[1].at_risk = 5;
    char *text = metrics_of(&status);
    static const char *const lines[] = {
        "sluice_takeovers_total 11",
        "sluice_ha_fenced_total 12",
        "sluice_ha_sealed_total 13",
        "sluice_ha_refused_total 14",
        "sluice_ha_order_given_up_total 15",
        "sluice_ha_repairs_sent_total 16",
        "sluice_ha_tombstones_total 17",
        "sluice_ha_replica_bytes 18",
        "sluice_ha_ready 1",
        "sluice_ha_streams 2",
        "sluice_ha_stopped_lanes 1",
        "sluice_peer_up{peer=\"gw-b1\",zone=\"az-b\"} 1",
        "sluice_peer_up{peer=\"gw-c1\",zone=\"az-c\"} 0",
        "sluice_peer_kafka{peer=\"gw-b1\"} 1",
        "sluice_peer_lag_events{peer=\"gw-b1\"} 21",
        "sluice_peer_received_bytes_total{peer=\"gw-b1\"} 22",
        "sluice_peer_sent_bytes_total{peer=\"gw-b1\"} 23",
        "sluice_peer_heard_seconds{peer=\"gw-c1\"} 7",
        "sluice_ha_at_risk_events{member=\"gw-a1\"} 0",
        "sluice_ha_at_risk_events{member=\"gw-b1\"} 5",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        expect_line(text, lines[i]);
    assert_null(strstr(text, "sluice_peer_up{peer=\"gw-a1\"")); // the node itself is nobody's peer
    free(text);
    // What dashboards count on is there without a cell, too.
    text = metrics_of(NULL);
    expect_line(text, "sluice_takeovers_total 0");
    assert_null(strstr(text, "peer"));
    free(text);
}

static const char *text_at(json_t *root, const char *a, const char *b, const char *c)
{
    json_t *at = json_object_get(root, a);
    at = b != NULL ? json_object_get(at, b) : at;
    at = c != NULL ? json_object_get(at, c) : at;
    return json_string_value(at);
}

static void test_json(void **state)
{
    (void)state;
    static struct cell_status status;
    fill(&status);
    json_t *root = cell_show_json(&status);
    assert_non_null(root);
    assert_true(json_is_true(json_object_get(root, "ready")));
    assert_string_equal(text_at(root, "alarm", NULL, NULL), "a person is needed");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "counts"), "sealed")), 13);
    json_t *members = json_object_get(root, "members"), *streams = json_object_get(root, "streams");
    assert_int_equal(json_array_size(members), 3);
    json_t *peer = json_array_get(members, 1);
    assert_string_equal(text_at(peer, "since", NULL, NULL), "2023-11-14T22:13:20Z");
    assert_int_equal(json_integer_value(json_object_get(peer, "lag_events")), 21);
    assert_true(json_is_null(json_object_get(json_array_get(members, 2), "since")));
    assert_string_equal(text_at(json_array_get(members, 2), "trouble", NULL, NULL), "connect: refused");
    json_t *own = json_array_get(streams, 0), *copy = json_array_get(streams, 1);
    assert_string_equal(text_at(own, "holders", "gw-a1", "role"), "writes");
    assert_string_equal(text_at(own, "holders", "gw-b1", "role"), "holds");
    json_t *held = json_object_get(json_object_get(own, "holders"), "gw-b1");
    assert_int_equal(json_integer_value(json_object_get(held, "base")), 91);
    assert_int_equal(json_integer_value(json_object_get(held, "end")), 95);
    assert_null(json_object_get(json_object_get(own, "holders"), "gw-c1"));
    assert_true(json_is_null(json_object_get(own, "drainer")));
    assert_string_equal(text_at(copy, "drainer", NULL, NULL), "gw-b1.9-000000bb");
    assert_string_equal(text_at(copy, "holders", "gw-a1", "role"), "empty");
    assert_true(json_is_null(json_object_get(json_object_get(json_object_get(copy, "holders"), "gw-a1"), "base")));
    assert_string_equal(text_at(copy, "holders", "gw-b1", "role"), "drains");
    assert_string_equal(text_at(copy, "lanes", "bulk", "step"), "stopped");
    json_decref(root);
}

static void test_what_would_be_lost(void **state)
{
    (void)state;
    static struct cell_status status;
    char text[200];
    fill(&status);
    cell_show_risk(&status, text, sizeof(text));
    assert_string_equal(text, "nothing, whichever node and disk were lost now");
    status.members[0].at_risk = 3;
    status.members[2].at_risk = 4;
    cell_show_risk(&status, text, sizeof(text));
    assert_string_equal(text, "4 events, if gw-c1 and its disk were lost now: nobody else in reach has them yet");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_metrics), cmocka_unit_test(test_json),
                                       cmocka_unit_test(test_what_would_be_lost)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
