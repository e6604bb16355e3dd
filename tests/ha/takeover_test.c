// Suspicion, turns, the steps of a lane, fences, sealing, order.
#include "tests/ha/hand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct ha_id none;

// Node `self` holds 1..9 of node 1's dead stream; the third one holds `third` records of it.
static struct hand *beside_a_dead_node(uint8_t self, uint64_t third)
{
    struct hand *hand = hand_new(self);
    struct ha_head head = hand_head();
    uint8_t other = self == 0 ? 2 : 0;
    assert_true(ha_held(&hand->core, hand->now_ns, hand_stream(1, 1), &head, 1, 9, false, 0));
    struct ha_message *heartbeat = hand_heartbeat(hand, other);
    if (third > 0)
        hand_entry(heartbeat, hand_stream(1, 1), 1, third, 0);
    hand_hear(hand, heartbeat);
    hand_forget(hand);
    return hand;
}

static const unsigned both_but_1 = 1 | 4;

static void silence_then_a_turn(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1);
    struct hand *first = beside_a_dead_node(2, 9); // right behind node 1
    hand_pass(first, 5 * HAND_S, both_but_1);
    assert_null(hand_find(first, HA_INIT, dead));
    hand_pass(first, HAND_S / 2, both_but_1);
    assert_non_null(hand_find(first, HA_INIT, dead));
    hand_free(first);
    struct hand *second = beside_a_dead_node(0, 9);
    hand_pass(second, 7 * HAND_S, both_but_1);
    assert_null(hand_find(second, HA_INIT, dead));
    hand_pass(second, HAND_S, both_but_1);
    assert_non_null(hand_find(second, HA_INIT, dead));
    hand_free(second);
}

static void the_longer_copy_goes_first(void **state)
{
    (void)state;
    struct hand *hand = beside_a_dead_node(2, 12);
    hand_pass(hand, 9 * HAND_S, both_but_1);
    assert_null(hand_find(hand, HA_INIT, hand_stream(1, 1)));
    hand_pass(hand, 4 * HAND_S, both_but_1); // but if it does not come, this one does
    assert_non_null(hand_find(hand, HA_INIT, hand_stream(1, 1)));
    hand_free(hand);
}

static void who_is_about_to_claim_goes_first(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1);
    struct hand *hand = beside_a_dead_node(0, 9); // its turn comes 2 s after the other one's
    struct ha_message *heartbeat = hand_heartbeat(hand, 2);
    hand_entry(heartbeat, dead, 1, 9, HA_ENTRY_TAKING);
    hand_hear(hand, heartbeat);
    hand_pass(hand, 10 * HAND_S, both_but_1);
    assert_null(hand_find(hand, HA_INIT, dead));
    hand_pass(hand, 4 * HAND_S, both_but_1); // but not for ever
    assert_non_null(hand_find(hand, HA_INIT, dead));
    hand_free(hand);
}

static bool says(struct hand *hand, struct ha_id stream, uint8_t flag)
{
    static struct ha_message heartbeat;
    ha_heartbeat(&hand->core, hand->now_ns, &heartbeat);
    for (uint32_t i = 0; i < heartbeat.entry_count; i++)
        if (ha_same(heartbeat.entries[i].stream, stream))
            return heartbeat.entries[i].flags & flag;
    return false;
}

static void the_way_to_a_claim_is_told_at_once(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1);
    struct hand *hand = beside_a_dead_node(2, 9);
    while (hand_find(hand, HA_INIT, dead) == NULL) {
        assert_false(says(hand, dead, HA_ENTRY_TAKING));
        hand_forget(hand);
        hand_pass(hand, HAND_S / 4, both_but_1);
    }
    const struct ha_action *init = hand_find(hand, HA_INIT, dead);
    assert_true(init + 2 < hand->actions + hand->count);
    assert_true(init[1].kind == HA_SAY_ALL && init[2].kind == HA_SAY_ALL && init[1].peer != init[2].peer);
    assert_true(says(hand, dead, HA_ENTRY_TAKING));
    hand_ok(hand, HA_INIT, dead, 7, (struct ha_progress){0}, 0);
    assert_true(says(hand, dead, HA_ENTRY_TAKING));
    hand_fail(hand, HA_READ, dead, 7, HA_FAILED);
    hand_fail(hand, HA_INIT, dead, 8, HA_FAILED);
    assert_false(says(hand, dead, HA_ENTRY_TAKING | HA_ENTRY_DRAINING));
    hand_free(hand);
}

// The others wait for this node's word that it hears nothing either: it is said when it is true, between heartbeats.
static void a_silence_is_told_at_once(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    hand_hear(hand, hand_heartbeat(hand, 2));
    int64_t heard_ns = hand->core.members[1].heard_ns, limit_ns = heard_ns + hand->core.options.takeover_after_ns;
    hand->now_ns = limit_ns - HAND_S / 100;
    hand->core.members[2].heard_ns = hand->now_ns;
    hand->core.now_ns = hand->now_ns - 1; // no process that was stopped
    ha_tick(&hand->core, hand->now_ns);
    hand_take(hand);
    hand_forget(hand);
    ha_tick(&hand->core, limit_ns);
    hand_take(hand);
    assert_int_equal(hand_number(hand, HA_SAY_ALL, (struct ha_id){0}), 0);
    ha_tick(&hand->core, limit_ns + 1);
    hand_take(hand);
    assert_true(hand_number(hand, HA_SAY_ALL, (struct ha_id){0}) >= 1);
    hand_forget(hand);
    ha_tick(&hand->core, limit_ns + 2); // once
    hand_take(hand);
    assert_int_equal(hand_number(hand, HA_SAY_ALL, (struct ha_id){0}), 0);
    hand_free(hand);
}

static void a_heartbeat_or_progress_is_a_sign_of_life(void **state)
{
    (void)state;
    struct ha_id theirs = hand_stream(1, 1);
    struct hand *hand = beside_a_dead_node(2, 9);
    struct ha_message *heartbeat = hand_heartbeat(hand, 1);
    hand_entry(heartbeat, theirs, 1, 9, HA_ENTRY_CURRENT);
    hand_hear(hand, heartbeat);
    hand_pass(hand, 20 * HAND_S, 7);
    assert_null(hand_find(hand, HA_INIT, theirs));
    for (uint64_t i = 0; i < 10; i++) {
        hand_pass(hand, 3 * HAND_S, both_but_1);
        hand_progress(hand, theirs, 7, 1, 1, theirs);
        hand_progress(hand, theirs, 8, 1, 1, theirs);
    }
    assert_null(hand_find(hand, HA_INIT, theirs));
    hand_pass(hand, 6 * HAND_S, both_but_1);
    assert_non_null(hand_find(hand, HA_INIT, theirs));
    hand_free(hand);
}

static void the_other_peer_must_agree(void **state)
{
    (void)state;
    struct hand *hand = beside_a_dead_node(2, 9);
    for (int i = 0; i < 40; i++) {
        hand_pass(hand, HAND_S / 2, both_but_1);
        struct ha_message *heartbeat = hand_heartbeat(hand, 0); // it hears node 1
        hand_entry(heartbeat, hand_stream(1, 1), 1, 9, 0);
        hand_hear(hand, heartbeat);
    }
    assert_null(hand_find(hand, HA_INIT, hand_stream(1, 1)));
    hand_pass(hand, 8 * HAND_S, 0); // and is silent itself now
    assert_non_null(hand_find(hand, HA_INIT, hand_stream(1, 1)));
    hand_free(hand);
}

static void what_a_living_owner_let_go_is_taken(void **state)
{
    (void)state;
    struct ha_id old = hand_stream(1, 1);
    struct hand *hand = beside_a_dead_node(2, 9);
    struct ha_message *heartbeat = hand_heartbeat(hand, 1);
    hand_entry(heartbeat, hand_stream(1, 2), 1, 0, HA_ENTRY_CURRENT);
    hand_hear(hand, heartbeat);
    hand_pass(hand, 6 * HAND_S, 7);
    assert_non_null(hand_find(hand, HA_INIT, old));
    hand_free(hand);
}

static void a_stopped_process_does_not_suspect_the_others(void **state)
{
    (void)state;
    struct hand *hand = beside_a_dead_node(2, 9);
    hand->now_ns += 60 * HAND_S; // SIGSTOP
    ha_tick(&hand->core, hand->now_ns);
    hand_take(hand);
    assert_null(hand_find(hand, HA_INIT, hand_stream(1, 1)));
    hand_free(hand);
}

static void the_steps_in_their_order(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1);
    struct hand *hand = beside_a_dead_node(2, 9);
    hand_pass(hand, 6 * HAND_S, both_but_1);
    assert_int_equal(hand_number(hand, HA_INIT, dead), 2); // a lane each
    hand_ok(hand, HA_INIT, dead, 7, (struct ha_progress){0}, 0);
    hand_ok(hand, HA_READ, dead, 7, (struct ha_progress){.through = 4, .claim = 3, .drainer = dead}, 0);
    const struct ha_action *claim = hand_find(hand, HA_CLAIM, dead);
    assert_true(claim->claim == 4 && claim->stated_through == 4 && claim->lane_id == 7);
    assert_null(hand_find(hand, HA_FENCE_MARK, dead));
    hand_ok(hand, HA_CLAIM, dead, 7, (struct ha_progress){0}, 0);
    assert_null(hand_find(hand, HA_PRODUCE, dead));
    hand_ok(hand, HA_FENCE_MARK, dead, 7, (struct ha_progress){0}, 0);
    const struct ha_action *produce = hand_find(hand, HA_PRODUCE, dead);
    assert_true(produce->first == 5 && produce->last == 9 && produce->lane_id == 7);
    // Its copy grows meanwhile.
    hand_frame(hand, 0, dead, 10, 12, 0, true);
    ha_synced(&hand->core, hand->now_ns, dead, 12);
    hand_forget(hand);
    struct ha_stream *stream = ha_find(&hand->core, dead);
    ha_done(&hand->core, hand->now_ns,
            &(struct ha_done){
                .kind = HA_PRODUCE, .stream = dead, .lane_id = 7, .ticket = stream->lanes[0].ticket, .through = 9});
    hand_take(hand);
    produce = hand_find(hand, HA_PRODUCE, dead);
    assert_true(produce->first == 10 && produce->last == 12);
    hand_ok(hand, HA_PRODUCE, dead, 7, (struct ha_progress){0}, 12);
    assert_true(hand_find(hand, HA_CLOSE, dead)->stated_through == 12);
    hand_ok(hand, HA_CLOSE, dead, 7, (struct ha_progress){0}, 12);
    assert_non_null(hand_find(hand, HA_RELEASE, dead));
    assert_int_equal(hand->core.figures.takeovers, 1);
    hand_free(hand);
}

static void a_late_answer_of_a_released_producer_is_nothing(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1);
    struct hand *hand = beside_a_dead_node(2, 9);
    hand_pass(hand, 6 * HAND_S, both_but_1);
    uint32_t ticket = ha_find(&hand->core, dead)->lanes[0].ticket;
    hand_fail(hand, HA_INIT, dead, 7, HA_FAILED);
    assert_non_null(hand_find(hand, HA_RELEASE, dead));
    hand_forget(hand);
    ha_done(&hand->core, hand->now_ns,
            &(struct ha_done){.kind = HA_INIT, .stream = dead, .lane_id = 7, .ticket = ticket});
    hand_take(hand);
    assert_int_equal(hand->count, 0);
    hand_pass(hand, 2 * HAND_S, both_but_1);
    assert_non_null(hand_find(hand, HA_INIT, dead));
    hand_free(hand);
}

static void progress_that_went_back_stops(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1);
    struct hand *hand = beside_a_dead_node(2, 9);
    hand_progress(hand, dead, 7, 6, 2, dead);
    hand_pass(hand, 6 * HAND_S, both_but_1);
    hand_ok(hand, HA_INIT, dead, 7, (struct ha_progress){0}, 0);
    hand_ok(hand, HA_READ, dead, 7, (struct ha_progress){.through = 5, .claim = 2, .drainer = dead}, 0);
    assert_non_null(hand_find(hand, HA_ALARM, dead));
    assert_null(hand_find(hand, HA_CLAIM, dead));
    hand_forget(hand);
    hand_pass(hand, 60 * HAND_S, both_but_1);
    for (size_t i = 0; i < hand->count; i++)
        assert_false(hand->actions[i].kind == HA_INIT && hand->actions[i].lane_id == 7 &&
                     ha_same(hand->actions[i].stream, dead));
    // Behind what was verified it stays; with what was verified there again it goes on.
    hand_progress(hand, dead, 7, 5, 3, dead);
    assert_int_equal(ha_find(&hand->core, dead)->lanes[0].step, HA_STEP_STOPPED);
    hand_progress(hand, dead, 7, 6, 3, dead);
    hand_forget(hand);
    hand_pass(hand, 12 * HAND_S, both_but_1);
    assert_non_null(hand_find(hand, HA_INIT, dead));
    hand_free(hand);
}

static void a_base_above_progress_never_claims(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1);
    struct hand *hand = hand_new(2);
    struct ha_head head = hand_head();
    assert_true(ha_held(&hand->core, hand->now_ns, dead, &head, 5, 9, false, 0));
    hand_hear(hand, hand_heartbeat(hand, 0));
    hand_forget(hand);
    hand_pass(hand, 6 * HAND_S, both_but_1);
    hand_ok(hand, HA_INIT, dead, 7, (struct ha_progress){0}, 0);
    hand_ok(hand, HA_READ, dead, 7, (struct ha_progress){.through = 2, .claim = 1, .drainer = dead}, 0);
    assert_null(hand_find(hand, HA_CLAIM, dead));
    hand_free(hand);
}

static void a_rival_is_let_have_it(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1), rival = hand_stream(0, 1);
    struct hand *hand = beside_a_dead_node(2, 9);
    int64_t last_wait_ns = 0;
    for (int round = 0; round < 4; round++) {
        hand_pass(hand, 80 * HAND_S, both_but_1);
        hand_ok(hand, HA_INIT, dead, 7, (struct ha_progress){0}, 0);
        hand_fail(hand, HA_READ, dead, 7, HA_FENCED);
        struct ha_progress now = {.through = 1, .claim = 2 + (uint64_t)round, .drainer = rival};
        hand_ok(hand, HA_LOOK, dead, 7, now, 0);
        const struct ha_lane *lane = &ha_find(&hand->core, dead)->lanes[0];
        assert_true(lane->rival_wait_ns == (round == 0 ? 4 * HAND_S : 2 * last_wait_ns));
        assert_true(lane->not_before_ns >= hand->now_ns + lane->rival_wait_ns / 2);
        last_wait_ns = lane->rival_wait_ns;
        hand_forget(hand);
        ha_tick(&hand->core, hand->now_ns);
        hand_take(hand);
        assert_null(hand_find(hand, HA_INIT, dead));
    }
    hand_free(hand);
}

// The answer to a claim comes late; what a rival claimed meanwhile has been seen, with a higher number.
static void a_rivals_claim_before_the_answer_to_ones_own(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1), rival = hand_stream(0, 1);
    struct hand *hand = beside_a_dead_node(2, 9);
    hand_pass(hand, 6 * HAND_S, both_but_1);
    hand_ok(hand, HA_INIT, dead, 7, (struct ha_progress){0}, 0);
    hand_ok(hand, HA_READ, dead, 7, (struct ha_progress){.through = 4, .claim = 3, .drainer = dead}, 0);
    assert_true(hand_find(hand, HA_CLAIM, dead)->claim == 4);
    uint32_t ticket = ha_find(&hand->core, dead)->lanes[0].ticket;
    // Its own, read before it is answered, is no rival's.
    hand_progress(hand, dead, 7, 4, 4, hand_stream(2, 1));
    assert_int_equal(ha_find(&hand->core, dead)->lanes[0].step, HA_STEP_CLAIM);
    hand_forget(hand);
    hand_progress(hand, dead, 7, 6, 5, rival);
    assert_non_null(hand_find(hand, HA_RELEASE, dead));
    hand_forget(hand);
    ha_done(&hand->core, hand->now_ns,
            &(struct ha_done){.kind = HA_CLAIM, .stream = dead, .lane_id = 7, .ticket = ticket});
    hand_take(hand);
    assert_null(hand_find(hand, HA_FENCE_MARK, dead));
    assert_null(hand_find(hand, HA_PRODUCE, dead));
    hand_free(hand);
}

// The number that its records carry is the one that it claimed, whether or not it has been read meanwhile.
static void a_claim_keeps_its_number(void **state)
{
    (void)state;
    struct ha_id dead = hand_stream(1, 1);
    for (int seen = 0; seen < 2; seen++) {
        struct hand *hand = beside_a_dead_node(2, 9);
        hand_pass(hand, 6 * HAND_S, both_but_1);
        hand_ok(hand, HA_INIT, dead, 7, (struct ha_progress){0}, 0);
        hand_ok(hand, HA_READ, dead, 7, (struct ha_progress){.through = 4, .claim = 3, .drainer = dead}, 0);
        if (seen)
            hand_progress(hand, dead, 7, 4, 4, hand_stream(2, 1));
        hand_ok(hand, HA_CLAIM, dead, 7, (struct ha_progress){0}, 0);
        hand_ok(hand, HA_FENCE_MARK, dead, 7, (struct ha_progress){0}, 0);
        assert_true(hand_find(hand, HA_PRODUCE, dead)->claim == 4);
        hand_free(hand);
    }
}

static void fenced_by_the_coordinator_claims_again(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_id mine = hand_stream(0, 1);
    hand_ok(hand, HA_INIT, mine, 7, (struct ha_progress){0}, 0);
    hand_ok(hand, HA_READ, mine, 7, (struct ha_progress){0}, 0);
    hand_ok(hand, HA_CLAIM, mine, 7, (struct ha_progress){0}, 0);
    hand_pass(hand, HAND_S / 2, 6);
    hand_fail(hand, HA_PRODUCE, mine, 7, HA_FENCED);
    hand_forget(hand);
    ha_done(&hand->core, hand->now_ns,
            &(struct ha_done){.kind = HA_LOOK,
                              .stream = mine,
                              .lane_id = 7,
                              .ticket = ha_find(&hand->core, mine)->lanes[0].ticket,
                              .progress = {.claim = 1, .drainer = mine}});
    hand_take(hand);
    assert_null(hand_find(hand, HA_OPEN, none));
    hand_pass(hand, HAND_S, 6);
    assert_non_null(hand_find(hand, HA_INIT, mine));
    hand_free(hand);
}

static void a_rivals_claim_seals_the_current_stream(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_id mine = hand_stream(0, 1), next = hand_stream(0, 2);
    ha_appended(&hand->core, hand->now_ns, 5);
    struct ha_message durable = {.kind = HA_DURABLE, .from = 1, .stream = mine, .last = 4};
    hand_hear(hand, &durable);
    hand_ok(hand, HA_INIT, mine, 7, (struct ha_progress){0}, 0);
    hand_ok(hand, HA_READ, mine, 7, (struct ha_progress){0}, 0);
    hand_ok(hand, HA_CLAIM, mine, 7, (struct ha_progress){0}, 0);
    hand_progress(hand, mine, 7, 0, 2, hand_stream(1, 1));
    assert_non_null(hand_find(hand, HA_OPEN, none));
    assert_non_null(hand_find(hand, HA_RELEASE, mine));
    // Its word stays what it was.
    durable.last = 5;
    hand_hear(hand, &durable);
    assert_int_equal(ha_peer_synced(&hand->core, mine), 4);
    struct ha_head head = hand_head();
    head.predecessor = mine;
    head.predecessor_seq = 5;
    assert_true(ha_open(&hand->core, hand->now_ns, next, &head));
    assert_true(ha_same(hand->core.current->id, next));
    hand_free(hand);
}

static void a_refusal_seals_the_current_stream_once(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    struct ha_message refused = {.kind = HA_REFUSED, .from = 1, .stream = hand_stream(0, 1)};
    hand_forget(hand);
    hand_hear(hand, &refused);
    hand_hear(hand, &refused);
    assert_int_equal(hand_number(hand, HA_OPEN, none), 1);
    assert_int_equal(hand->core.figures.sealed, 1);
    hand_free(hand);
}

static void without_kafka_an_owner_lets_go(void **state)
{
    (void)state;
    struct hand *hand = hand_new(0);
    ha_appended(&hand->core, hand->now_ns, 1);
    ha_synced(&hand->core, hand->now_ns, hand_stream(0, 1), 1);
    hand_heartbeat(hand, 1)->kafka = false;
    hand_heartbeat(hand, 2)->kafka = false;
    ha_kafka(&hand->core, hand->now_ns, false);
    hand_forget(hand);
    hand_pass(hand, 40 * HAND_S, 6); // nobody has Kafka
    assert_null(hand_find(hand, HA_OPEN, none));
    struct ha_message *heartbeat = hand_heartbeat(hand, 2);
    hand_hear(hand, heartbeat);
    hand_pass(hand, HAND_S, 6);
    assert_non_null(hand_find(hand, HA_OPEN, none));
    hand_free(hand);
}

// ---- order

static void the_predecessor_comes_first(void **state)
{
    (void)state;
    struct ha_id old = hand_stream(1, 1), later = hand_stream(1, 2);
    struct hand *hand = hand_new(2);
    struct ha_head head = hand_head();
    head.predecessor = old;
    head.predecessor_seq = 6;
    assert_true(ha_held(&hand->core, hand->now_ns, later, &head, 1, 9, false, 0));
    hand_hear(hand, hand_heartbeat(hand, 0));
    hand_forget(hand);
    hand_pass(hand, 30 * HAND_S, both_but_1);
    assert_null(hand_find(hand, HA_INIT, later));
    hand_progress(hand, old, 7, 6, 1, old);
    hand_pass(hand, 2 * HAND_S, both_but_1);
    const struct ha_action *init = hand_find(hand, HA_INIT, later);
    assert_true(init != NULL && init->lane_id == 7);
    hand_pass(hand, 60 * HAND_S, both_but_1); // the other lane's predecessor is out of reach: not for ever
    assert_int_equal(hand_number(hand, HA_INIT, later), 2);
    assert_true(hand->core.figures.order_given_up > 0);
    hand_free(hand);
}

static void what_a_reachable_peer_holds_of_an_older_one_comes_first(void **state)
{
    (void)state;
    struct ha_id old = hand_stream(1, 1), later = hand_stream(1, 2);
    struct hand *hand = hand_new(2);
    struct ha_head head = hand_head();
    assert_true(ha_held(&hand->core, hand->now_ns, later, &head, 1, 9, false, 0));
    struct ha_message *heartbeat = hand_heartbeat(hand, 0);
    hand_entry(heartbeat, old, 1, 3, HA_ENTRY_DRAINING);
    hand_hear(hand, heartbeat);
    hand_forget(hand);
    hand_pass(hand, 200 * HAND_S, both_but_1);
    assert_null(hand_find(hand, HA_INIT, later));
    hand_progress(hand, old, 7, 3, 1, hand_stream(0, 1));
    hand_progress(hand, old, 8, 3, 1, hand_stream(0, 1));
    hand_pass(hand, 2 * HAND_S, both_but_1);
    assert_non_null(hand_find(hand, HA_INIT, later));
    hand_free(hand);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silence_then_a_turn),
        cmocka_unit_test(the_longer_copy_goes_first),
        cmocka_unit_test(who_is_about_to_claim_goes_first),
        cmocka_unit_test(the_way_to_a_claim_is_told_at_once),
        cmocka_unit_test(a_silence_is_told_at_once),
        cmocka_unit_test(a_heartbeat_or_progress_is_a_sign_of_life),
        cmocka_unit_test(the_other_peer_must_agree),
        cmocka_unit_test(what_a_living_owner_let_go_is_taken),
        cmocka_unit_test(a_stopped_process_does_not_suspect_the_others),
        cmocka_unit_test(the_steps_in_their_order),
        cmocka_unit_test(a_late_answer_of_a_released_producer_is_nothing),
        cmocka_unit_test(progress_that_went_back_stops),
        cmocka_unit_test(a_base_above_progress_never_claims),
        cmocka_unit_test(a_rival_is_let_have_it),
        cmocka_unit_test(a_rivals_claim_before_the_answer_to_ones_own),
        cmocka_unit_test(a_claim_keeps_its_number),
        cmocka_unit_test(fenced_by_the_coordinator_claims_again),
        cmocka_unit_test(a_rivals_claim_seals_the_current_stream),
        cmocka_unit_test(a_refusal_seals_the_current_stream_once),
        cmocka_unit_test(without_kafka_an_owner_lets_go),
        cmocka_unit_test(the_predecessor_comes_first),
        cmocka_unit_test(what_a_reachable_peer_holds_of_an_older_one_comes_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
