// Positions, frames, the base rule, copies.
#include "tests/ha/hand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void sends_before_the_own_sync(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_id mine = hand_stream(0, 1);
    hand_forget(hand);
    ha_appended(&hand->core, hand->now_ns, 3);
    hand_take(hand);
    assert_int_equal(hand_number(hand, HA_SEND, mine), 2);
    const struct ha_action *send = hand_find(hand, HA_SEND, mine);
    assert_int_equal(send->first, 1);
    assert_int_equal(send->last, 3);
    assert_false(send->repair);
    assert_int_equal(ha_peer_synced(&hand->core, mine), 0);
    hand_free(hand);
}

static void a_position_is_what_a_peer_synced(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_id mine = hand_stream(0, 1);
    ha_appended(&hand->core, hand->now_ns, 9);
    struct ha_message durable = {.kind = HA_DURABLE, .from = 1, .stream = mine, .last = 4};
    hand_hear(hand, &durable);
    assert_int_equal(ha_peer_synced(&hand->core, mine), 4);
    // An older heartbeat does not take it back, a new session does.
    struct ha_message *heartbeat = hand_heartbeat(hand, 1);
    hand_entry(heartbeat, mine, 1, 2, 0);
    hand_hear(hand, heartbeat);
    assert_int_equal(ha_peer_synced(&hand->core, mine), 4);
    ha_peer_down(&hand->core, hand->now_ns, 1);
    assert_int_equal(ha_peer_synced(&hand->core, mine), 4);
    ha_peer_up(&hand->core, hand->now_ns, 1);
    hand_take(hand);
    assert_int_equal(ha_peer_synced(&hand->core, mine), 0);
    hand_hear(hand, heartbeat);
    assert_int_equal(ha_peer_synced(&hand->core, mine), 2);
    hand_free(hand);
}

static void the_same_zone_does_not_count(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    hand->core.options.zone[1] = 0;
    struct ha_id mine = hand_stream(0, 1);
    struct ha_message durable = {.kind = HA_DURABLE, .from = 1, .stream = mine, .last = 4};
    hand_hear(hand, &durable);
    assert_int_equal(ha_peer_synced(&hand->core, mine), 0);
    durable.from = 2;
    hand_hear(hand, &durable);
    assert_int_equal(ha_peer_synced(&hand->core, mine), 4);
    hand_free(hand);
}

// The records first..last that were sent to the peer: how often the first, and up to where.
static size_t sent_from(const struct hand *hand, uint8_t peer, uint64_t first, uint64_t *last)
{
    size_t times = 0;
    for (size_t i = 0; i < hand->count; i++)
        if (hand->actions[i].kind == HA_SEND && hand->actions[i].peer == peer && hand->actions[i].first == first) {
            times++;
            *last = hand->actions[i].last;
        }
    return times;
}

static void what_has_no_answer_is_sent_again(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    ha_appended(&hand->core, hand->now_ns, 5);
    hand_take(hand);
    hand_forget(hand);
    // The stream grows all the time: that must not put the repetition off.
    for (uint64_t seq = 6; seq < 12; seq++) {
        hand_pass(hand, HAND_S / 4, 6);
        ha_appended(&hand->core, hand->now_ns, seq);
        hand_take(hand);
    }
    uint64_t last;
    assert_int_equal(sent_from(hand, 1, 1, &last) + sent_from(hand, 2, 1, &last), 2);
    hand_free(hand);
}

static struct hand *with_an_overdue_answer(void)
{
    struct hand *hand = hand_new(0);
    ha_appended(&hand->core, hand->now_ns, 100);
    hand_take(hand);
    hand_forget(hand);
    hand_pass(hand, 5 * HAND_S / 2, 6);
    uint64_t last = 0;
    assert_int_equal(sent_from(hand, 1, 1, &last), 2); // at 1 s and at 2 s: one record
    assert_int_equal(last, 1);
    assert_int_equal(hand_number(hand, HA_SEND, hand_stream(0, 1)), 4); // and nothing else; two peers
    hand_forget(hand);
    return hand;
}

// A peer whose disk stands still has everything in its memory: it gets one record a second, not all of them.
static void a_peer_that_stands_still_is_not_sent_all_again(void **state)
{
    (void)state;
    struct hand *hand = with_an_overdue_answer();
    struct ha_message durable = {.kind = HA_DURABLE, .from = 1, .stream = hand_stream(0, 1), .last = 60};
    hand_hear(hand, &durable);
    assert_null(hand_find(hand, HA_SEND, hand_stream(0, 1)));
    ha_appended(&hand->core, hand->now_ns, 101);
    hand_take(hand);
    uint64_t last = 0;
    assert_int_equal(sent_from(hand, 1, 101, &last), 1);
    hand_free(hand);
}

static void what_was_lost_is_sent_again(void **state)
{
    (void)state;
    struct hand *hand = with_an_overdue_answer();
    struct ha_message durable = {.kind = HA_DURABLE, .from = 1, .stream = hand_stream(0, 1), .last = 1};
    hand_hear(hand, &durable);
    uint64_t last = 0;
    assert_int_equal(sent_from(hand, 1, 2, &last), 1);
    assert_int_equal(last, 100);
    assert_int_equal(sent_from(hand, 2, 2, &last), 0);
    hand_free(hand);
}

static void frames_are_stored_in_one_piece(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_id theirs = hand_stream(1, 1);
    hand_forget(hand);
    hand_frame(hand, 1, theirs, 1, 3, 0, false);
    const struct ha_action *store = hand_find(hand, HA_STORE, theirs);
    assert_true(store != NULL && store->new_base && store->first == 1 && store->last == 3);
    assert_null(hand_find(hand, HA_SAY, theirs)); // nothing is durable yet
    hand_forget(hand);
    hand_frame(hand, 1, theirs, 2, 5, 0, false); // overlaps
    store = hand_find(hand, HA_STORE, theirs);
    assert_true(store != NULL && !store->new_base && store->first == 4 && store->last == 5);
    hand_forget(hand);
    ha_synced(&hand->core, hand->now_ns, theirs, 3);
    hand_take(hand);
    const struct ha_action *say = hand_find(hand, HA_SAY, theirs);
    assert_true(say != NULL && !say->refused && say->last == 3 && say->peer == 1);
    hand_forget(hand);
    hand_frame(hand, 1, theirs, 1, 5, 0, false); // again: what is durable is said, no more
    assert_null(hand_find(hand, HA_STORE, theirs));
    say = hand_find(hand, HA_SAY, theirs);
    assert_true(say != NULL && say->last == 3);
    hand_free(hand);
}

static void a_gap_needs_a_verified_through(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_id theirs = hand_stream(1, 1);
    hand_forget(hand);
    hand_frame(hand, 1, theirs, 11, 12, 9, false);
    assert_null(hand_find(hand, HA_STORE, theirs));
    hand_frame(hand, 1, theirs, 11, 12, 10, false);
    const struct ha_action *store = hand_find(hand, HA_STORE, theirs);
    assert_true(store != NULL && store->new_base && store->first == 11);
    // From now on this node knows 10 to be produced.
    assert_int_equal(ha_through(ha_find(&hand->core, theirs)), 10);
    hand_forget(hand);
    hand_frame(hand, 1, theirs, 20, 21, 15, false);
    assert_null(hand_find(hand, HA_STORE, theirs));
    hand_free(hand);
}

static void a_fence_mark_refuses_the_owner_alone(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_id theirs = hand_stream(1, 1);
    struct ha_head head = hand_head();
    assert_true(ha_held(&hand->core, hand->now_ns, theirs, &head, 1, 5, true, 0));
    hand_take(hand);
    hand_forget(hand);
    hand_frame(hand, 1, theirs, 6, 7, 0, false);
    const struct ha_action *say = hand_find(hand, HA_SAY, theirs);
    assert_true(say != NULL && say->refused);
    assert_null(hand_find(hand, HA_STORE, theirs));
    hand_frame(hand, 2, theirs, 6, 7, 0, true);
    assert_non_null(hand_find(hand, HA_STORE, theirs));
    hand_free(hand);
}

static void copies_come_from_the_longest(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_id dead = hand_stream(1, 1);
    struct ha_head head = hand_head();
    assert_true(ha_held(&hand->core, hand->now_ns, dead, &head, 1, 9, false, 0));
    struct ha_message *heartbeat = hand_heartbeat(hand, 2);
    hand_entry(heartbeat, dead, 1, 4, 0);
    hand_forget(hand);
    hand_hear(hand, heartbeat);
    hand_pass(hand, 6 * HAND_S, 4); // 1 is silent
    bool sent = false;
    for (size_t i = 0; i < hand->count; i++) {
        const struct ha_action *send = &hand->actions[i];
        if (send->kind == HA_SEND && ha_same(send->stream, dead) && send->peer == 2) {
            // All of it, and, as it has no answer, the first once more.
            assert_true(send->repair && send->first == 5 && send->last == (sent ? 5 : 9));
            sent = true;
        }
    }
    assert_true(sent);
    // Produced: nothing needs a copy.
    hand_progress(hand, dead, 7, 9, 1, hand_stream(2, 1));
    hand_progress(hand, dead, 8, 9, 1, hand_stream(2, 1));
    hand_forget(hand);
    hand_pass(hand, 6 * HAND_S, 4);
    assert_null(hand_find(hand, HA_SEND, dead));
    hand_free(hand);
}

static void the_shorter_one_offers_nothing(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_id dead = hand_stream(1, 1);
    struct ha_head head = hand_head();
    assert_true(ha_held(&hand->core, hand->now_ns, dead, &head, 1, 3, false, 0));
    struct ha_message *heartbeat = hand_heartbeat(hand, 2);
    hand_entry(heartbeat, dead, 1, 4, 0);
    hand_hear(hand, heartbeat);
    hand_forget(hand);
    hand_pass(hand, 6 * HAND_S, 4);
    assert_null(hand_find(hand, HA_SEND, dead));
    assert_int_equal(ha_at_risk(&hand->core, 2), 1); // record 4
    assert_int_equal(ha_at_risk(&hand->core, 0), 0);
    hand_free(hand);
}

static void ids_are_text_and_back(void **state)
{
    (void)state;
    static const char *const names[] = {"gw-a", "gw-b", "gw-c"};
    struct ha_id id;
    char text[SPOOL_STREAM_ID_MAX];
    assert_true(ha_id_parse(&id, "gw-b.42-0a1b2c3d", names, 3));
    assert_true(id.member == 1 && id.counter == 42 && id.chance == 0x0a1b2c3d);
    ha_id_text(text, id, names);
    assert_string_equal(text, "gw-b.42-0a1b2c3d");
    static const char *const bad[] = {"",
                                      "gw-b",
                                      "gw-b.",
                                      "gw-b.0-0a1b2c3d",
                                      "gw-b.42",
                                      "gw-b.42-",
                                      "gw-b.42-0a1b2c3",
                                      "gw-b.42-0a1b2c3d4",
                                      "gw-b.42-0A1B2C3D",
                                      "gw-d.42-0a1b2c3d",
                                      "gw.42-0a1b2c3d",
                                      "gw-b.99999999999999999999-0a1b2c3d"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(ha_id_parse(&id, bad[i], names, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sends_before_the_own_sync),
        cmocka_unit_test(a_position_is_what_a_peer_synced),
        cmocka_unit_test(the_same_zone_does_not_count),
        cmocka_unit_test(what_has_no_answer_is_sent_again),
        cmocka_unit_test(a_peer_that_stands_still_is_not_sent_all_again),
        cmocka_unit_test(what_was_lost_is_sent_again),
        cmocka_unit_test(frames_are_stored_in_one_piece),
        cmocka_unit_test(a_gap_needs_a_verified_through),
        cmocka_unit_test(a_fence_mark_refuses_the_owner_alone),
        cmocka_unit_test(copies_come_from_the_longest),
        cmocka_unit_test(the_shorter_one_offers_nothing),
        cmocka_unit_test(ids_are_text_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
