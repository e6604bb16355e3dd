// The acknowledgement rule against its definition, for every combination of positions in a small world.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gateway/ack.h"

enum { POSITIONS = 6 }; // 0..5, with the event's seq anywhere between 1 and 5

static enum ack_verdict decide(enum ack_level level, uint64_t seq, uint64_t synced, uint64_t peer, uint64_t kafka,
                               bool failed)
{
    struct ack_positions positions = {
        .synced = synced, .peer_synced = peer, .kafka_committed = kafka, .stream_failed = failed};
    return ack_decide(level, seq, &positions);
}

// The table of DESIGN.md section 1, written down a second time: which sets of places suffice for a level.
static bool suffices(enum ack_level level, bool disk, bool peer, bool kafka)
{
    static const bool table[3][2][2][2] = {
        //             disk=0: peer=0 {k0,k1}  peer=1 {k0,k1}     disk=1: peer=0 {k0,k1}  peer=1 {k0,k1}
        [ACK_DISK] = {{{false, false}, {false, false}}, {{true, true}, {true, true}}},
        [ACK_AZ2] = {{{false, false}, {false, false}}, {{false, true}, {true, true}}},
        [ACK_KAFKA] = {{{false, true}, {false, true}}, {{false, true}, {false, true}}},
    };
    return table[level][disk][peer][kafka];
}

static void test_every_combination(void **state)
{
    (void)state;
    int given = 0, waiting = 0, refused = 0;
    for (int level = ACK_DISK; level <= ACK_KAFKA; level++)
        for (uint64_t seq = 1; seq < POSITIONS; seq++)
            for (uint64_t synced = 0; synced < POSITIONS; synced++)
                for (uint64_t peer = 0; peer < POSITIONS; peer++)
                    for (uint64_t kafka = 0; kafka < POSITIONS; kafka++)
                        for (int failed = 0; failed < 2; failed++) {
                            enum ack_verdict verdict = decide((enum ack_level)level, seq, synced, peer, kafka, failed);
                            bool reached = suffices((enum ack_level)level, synced >= seq, peer >= seq, kafka >= seq);
                            enum ack_verdict expected = reached ? ACK_GIVE : failed ? ACK_REFUSE : ACK_WAIT;
                            assert_int_equal(verdict, expected);
                            given += verdict == ACK_GIVE;
                            waiting += verdict == ACK_WAIT;
                            refused += verdict == ACK_REFUSE;
                        }
    // The loops met all three verdicts: the comparison above was not vacuous.
    assert_true(given > 0 && waiting > 0 && refused > 0);
}

// A verdict once given is never taken back while positions only grow.
static void test_monotonic(void **state)
{
    (void)state;
    for (int level = ACK_DISK; level <= ACK_KAFKA; level++)
        for (uint64_t synced = 0; synced < POSITIONS; synced++)
            for (uint64_t peer = 0; peer < POSITIONS; peer++)
                for (uint64_t kafka = 0; kafka < POSITIONS; kafka++) {
                    if (decide((enum ack_level)level, 3, synced, peer, kafka, false) != ACK_GIVE)
                        continue;
                    assert_int_equal(decide((enum ack_level)level, 3, synced + 1, peer, kafka, false), ACK_GIVE);
                    assert_int_equal(decide((enum ack_level)level, 3, synced, peer + 1, kafka, false), ACK_GIVE);
                    assert_int_equal(decide((enum ack_level)level, 3, synced, peer, kafka + 1, false), ACK_GIVE);
                    assert_int_equal(decide((enum ack_level)level, 2, synced, peer, kafka, false), ACK_GIVE);
                }
}

// A duplicate is answered as its original would be by ack_decide, never earlier; and without one it is refused.
static void test_every_original(void **state)
{
    (void)state;
    for (int level = ACK_DISK; level <= ACK_KAFKA; level++)
        for (int peer = 0; peer < 2; peer++)
            for (int kafka = 0; kafka < 2; kafka++) {
                struct ack_original original = {.at_peer = peer, .in_kafka = kafka};
                original.state = ACK_ORIGINAL_PENDING;
                assert_int_equal(ack_decide_original((enum ack_level)level, &original), ACK_WAIT);
                original.state = ACK_ORIGINAL_GONE;
                assert_int_equal(ack_decide_original((enum ack_level)level, &original), ACK_REFUSE);
                original.state = ACK_ORIGINAL_STORED;
                enum ack_verdict its_own =
                    decide((enum ack_level)level, 3, 3, peer ? 3 : 2, kafka ? 3 : 2, /*failed*/ false);
                assert_int_equal(ack_decide_original((enum ack_level)level, &original), its_own);
                assert_int_equal(its_own == ACK_GIVE, suffices((enum ack_level)level, true, peer, kafka));
            }
}

static void test_both(void **state)
{
    (void)state;
    static const enum ack_verdict expected[3][3] = {
        [ACK_WAIT] = {[ACK_WAIT] = ACK_WAIT, [ACK_GIVE] = ACK_WAIT, [ACK_REFUSE] = ACK_REFUSE},
        [ACK_GIVE] = {[ACK_WAIT] = ACK_WAIT, [ACK_GIVE] = ACK_GIVE, [ACK_REFUSE] = ACK_REFUSE},
        [ACK_REFUSE] = {[ACK_WAIT] = ACK_REFUSE, [ACK_GIVE] = ACK_REFUSE, [ACK_REFUSE] = ACK_REFUSE},
    };
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
            assert_int_equal(ack_both((enum ack_verdict)a, (enum ack_verdict)b), expected[a][b]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_combination), cmocka_unit_test(test_monotonic),
                                       cmocka_unit_test(test_every_original), cmocka_unit_test(test_both)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
