// Starting, readiness, trimming, "empty", tombstones, limits.
#include "tests/ha/hand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void ready_when_the_peers_have_spoken(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    assert_false(ha_ready(&hand->core));
    hand_pass(hand, HAND_S / 2, 6);
    assert_true(ha_ready(&hand->core));
    hand_free(hand);
}

static void not_ready_while_a_peer_has_more_of_an_own_stream(void **state)
{
    (void)state;
    struct ha_id old = hand_stream(0, 4);
    struct hand *hand = hand_new(0);
    struct ha_head head = hand_head();
    assert_true(ha_held(&hand->core, hand->now_ns, old, &head, 1, 7, false, 0));
    struct ha_message *heartbeat = hand_heartbeat(hand, 1);
    hand_entry(heartbeat, old, 1, 9, 0);
    hand_hear(hand, heartbeat);
    hand_forget(hand);
    hand_pass(hand, 3 * HAND_S, 6);
    assert_false(ha_ready(&hand->core));
    hand_frame(hand, 1, old, 8, 9, 0, true);
    assert_non_null(hand_find(hand, HA_STORE, old));
    ha_synced(&hand->core, hand->now_ns, old, 9);
    hand_pass(hand, HAND_S / 2, 6);
    assert_true(ha_ready(&hand->core));
    hand_free(hand);
}

static void own_older_streams_are_claimed_at_once(void **state)
{
    (void)state;
    struct ha_id old = hand_stream(0, 4);
    struct hand *hand = hand_new(0);
    struct ha_head head = hand_head();
    assert_true(ha_held(&hand->core, hand->now_ns, old, &head, 1, 7, false, 0));
    hand_forget(hand);
    ha_tick(&hand->core, hand->now_ns);
    hand_take(hand);
    assert_int_equal(hand_number(hand, HA_INIT, old), 2);
    struct ha_message heartbeat;
    ha_heartbeat(&hand->core, hand->now_ns, &heartbeat);
    bool kept = false;
    for (uint32_t i = 0; i < heartbeat.entry_count; i++)
        kept |= ha_same(heartbeat.entries[i].stream, old) && (heartbeat.entries[i].flags & HA_ENTRY_KEPT);
    assert_true(kept);
    hand_free(hand);
}

static void only_what_every_lane_produced_is_trimmed(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1);
    struct hand *hand = hand_new(0);
    struct ha_head head = hand_head();
    assert_true(ha_held(&hand->core, hand->now_ns, dead, &head, 1, 9, false, 0));
    hand_progress(hand, dead, 7, 9, 1, dead);
    hand_forget(hand);
    hand_pass(hand, 3 * HAND_S, 6);
    assert_null(hand_find(hand, HA_TRIM, dead));
    hand_progress(hand, dead, 8, 5, 1, dead);
    hand_pass(hand, 3 * HAND_S, 6);
    const struct ha_action *trim = hand_find(hand, HA_TRIM, dead);
    assert_true(trim != NULL && trim->last == 5);
    hand_free(hand);
}

static void progress_is_removed_when_everybody_is_empty(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1);
    struct hand *hand = hand_new(0);
    struct ha_head head = hand_head();
    assert_true(ha_held(&hand->core, hand->now_ns, dead, &head, 1, 9, false, 0));
    hand_progress(hand, dead, 7, 9, 1, dead);
    hand_progress(hand, dead, 8, 9, 1, dead);
    struct ha_message *one = hand_heartbeat(hand, 1), *two = hand_heartbeat(hand, 2);
    hand_entry(one, hand_stream(1, 2), 1, 0, HA_ENTRY_CURRENT);
    hand_entry(one, dead, 10, 9, HA_ENTRY_EMPTY);
    hand_entry(two, dead, 10, 9, HA_ENTRY_EMPTY);
    hand_hear(hand, one);
    hand_hear(hand, two);
    assert_true(ha_held(&hand->core, hand->now_ns, dead, &head, 10, 9, false, 0)); // trimmed
    hand_forget(hand);
    hand_pass(hand, 3 * HAND_S, 6);
    const struct ha_action *mark = hand_find(hand, HA_MARK_EMPTY, dead);
    assert_true(mark != NULL && mark->last == 9);
    assert_null(hand_find(hand, HA_TOMBSTONE, dead));
    ha_done(&hand->core, hand->now_ns, &(struct ha_done){.kind = HA_MARK_EMPTY, .stream = dead, .through = 9});
    hand_pass(hand, 3 * HAND_S, 6);
    assert_non_null(hand_find(hand, HA_TOMBSTONE, dead));
    // Nothing at or below it is taken any more.
    hand_forget(hand);
    hand_frame(hand, 2, dead, 8, 9, 7, true);
    assert_null(hand_find(hand, HA_STORE, dead));
    hand_free(hand);
}

static void a_full_queue_forgets_nothing(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_id mine = hand_stream(0, 1);
    hand_take(hand);
    hand_forget(hand);
    // Nobody takes actions for a while: more is to be sent than the queue holds.
    for (uint64_t seq = 1; seq <= 2 * HA_ACTIONS_MAX; seq++)
        ha_appended(&hand->core, hand->now_ns, seq);
    hand_take(hand);
    hand_pass(hand, HAND_S / 4, 6);
    uint64_t sent[3] = {0};
    for (size_t i = 0; i < hand->count; i++) {
        const struct ha_action *action = &hand->actions[i];
        if (action->kind != HA_SEND || !ha_same(action->stream, mine))
            continue;
        assert_true(action->first <= sent[action->peer] + 1);
        if (sent[action->peer] < action->last)
            sent[action->peer] = action->last;
    }
    assert_int_equal(sent[1], 2 * HA_ACTIONS_MAX);
    assert_int_equal(sent[2], 2 * HA_ACTIONS_MAX);
    hand_free(hand);
}

static void a_full_table_says_so_and_frees_what_nobody_needs(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_head head = hand_head();
    uint64_t held = 0;
    while (ha_held(&hand->core, hand->now_ns, hand_stream(1, held + 1), &head, 1, 3, false, 0))
        held++;
    assert_int_equal(held, HA_STREAMS_MAX - 1); // and the current one
    // One of them is empty, and its mark on disk: its place can be used.
    assert_true(ha_held(&hand->core, hand->now_ns, hand_stream(1, 1), &head, 4, 3, false, 3));
    assert_true(ha_held(&hand->core, hand->now_ns, hand_stream(1, 1000), &head, 1, 3, false, 0));
    assert_null(ha_find(&hand->core, hand_stream(1, 1)));
    hand_free(hand);
}

static void the_same_inputs_give_the_same_actions(void **state)
{
    (void)state;
    struct hand *runs[2];
    for (size_t i = 0; i < 2; i++) {
        struct hand *hand = runs[i] = hand_new(2);
        struct ha_head head = hand_head();
        assert_true(ha_held(&hand->core, hand->now_ns, hand_stream(1, 1), &head, 1, 9, false, 0));
        hand_pass(hand, 12 * HAND_S, 5);
        hand_fail(hand, HA_INIT, hand_stream(1, 1), 7, HA_FENCED);
        hand_ok(hand, HA_LOOK, hand_stream(1, 1), 7, (struct ha_progress){.claim = 1, .drainer = hand_stream(0, 1)}, 0);
        hand_pass(hand, 30 * HAND_S, 5);
    }
    assert_int_equal(runs[0]->count, runs[1]->count);
    assert_memory_equal(runs[0]->actions, runs[1]->actions, runs[0]->count * sizeof(runs[0]->actions[0]));
    hand_free(runs[0]);
    hand_free(runs[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ready_when_the_peers_have_spoken),
        cmocka_unit_test(not_ready_while_a_peer_has_more_of_an_own_stream),
        cmocka_unit_test(own_older_streams_are_claimed_at_once),
        cmocka_unit_test(only_what_every_lane_produced_is_trimmed),
        cmocka_unit_test(progress_is_removed_when_everybody_is_empty),
        cmocka_unit_test(a_full_queue_forgets_nothing),
        cmocka_unit_test(a_full_table_says_so_and_frees_what_nobody_needs),
        cmocka_unit_test(the_same_inputs_give_the_same_actions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
