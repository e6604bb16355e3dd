// The recovery table: every row is reached, every combination of facts has one, and each row says what the design says.
#include "spool/recover.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void every_row_is_reached_and_every_fact_has_one(void **state)
{
    (void)state;
    bool reached[64] = {false};
    assert_true(recover_row_count < 64);
    for (unsigned bits = 0; bits < 1u << 8; bits++)
        for (unsigned header = HEADER_OK; header <= HEADER_FOREIGN; header <<= 1)
            for (unsigned body = BODY_OK; body <= BODY_UNREAD; body <<= 1)
                for (unsigned order = ORDER_NEXT; order <= ORDER_BEHIND; order <<= 1) {
                    struct facts facts = {.header = header,
                                          .body = body,
                                          .order = order,
                                          .cut = bits & 1,
                                          .zero_sector = bits & 2,
                                          .rest_zero = bits & 4,
                                          .later = bits & 8,
                                          .last_segment = bits & 16,
                                          .no_record = bits & 32,
                                          .acked = bits & 64,
                                          .goes_on = bits & 128};
                    size_t row;
                    enum verdict verdict = recover_classify(&facts, &row);
                    reached[row] = true;
                    // Whatever the facts: what was told to a client is never passed over in silence.
                    if (facts.acked && verdict != VERDICT_TAKE)
                        assert_true(verdict_is_damage(verdict));
                    // And an end that is no damage is only found where nothing follows.
                    if (!verdict_is_damage(verdict) && verdict != VERDICT_TAKE && verdict != VERDICT_GOES_ON)
                        assert_true(facts.last_segment && !facts.later);
                    // What follows must say that it goes on from here.
                    if (verdict == VERDICT_GOES_ON)
                        assert_true(facts.goes_on && !facts.last_segment && !facts.later);
                }
    for (size_t row = 0; row < recover_row_count; row++)
        if (!reached[row])
            fail_msg("row \"%s\" is never reached", recover_row_name(row));
}

static void rows_say_what_the_design_says(void **state)
{
    (void)state;
    const struct facts tail = {.header = HEADER_OK, .body = BODY_BAD, .order = ORDER_NEXT, .last_segment = true};
    const struct facts zero = {
        .header = HEADER_ZERO, .body = BODY_UNREAD, .order = ORDER_NEXT, .rest_zero = true, .last_segment = true};
    struct {
        const char *row;
        struct facts facts;
        enum verdict verdict;
    } cases[] = {
        {"a frame in order", {.header = HEADER_OK, .body = BODY_OK, .order = ORDER_NEXT}, VERDICT_TAKE},
        {"a frame, seqs before it left out",
         {.header = HEADER_OK, .body = BODY_OK, .order = ORDER_AHEAD},
         VERDICT_HOLE},
        {"a frame whose seqs were there before",
         {.header = HEADER_OK, .body = BODY_OK, .order = ORDER_BEHIND},
         VERDICT_MISDIRECTED},
        {"a frame that was not written behind the one before it",
         {.header = HEADER_OK, .body = BODY_OK, .order = ORDER_CHAIN},
         VERDICT_MISDIRECTED},
        {"no record stood here, as later frames say", tail, VERDICT_LOST_SEAL},
        {"never written, and later frames are there", zero, VERDICT_HOLE},
        {"the writer was killed here, and a later process went on in the next segment", tail, VERDICT_GOES_ON},
        {"no record stood here, as the next segment says", zero, VERDICT_LOST_SEAL},
        {"never written, and later segments are there", zero, VERDICT_HOLE},
        {"never written, and a client was told of it", zero, VERDICT_LOST_ACKNOWLEDGED},
        {"the file ends where it was allocated", zero, VERDICT_TRUNCATED},
        {"never written to the end", zero, VERDICT_CLEAN_END},
        {"a body without its header", zero, VERDICT_TORN_TAIL},
        {"another place's frame", tail, VERDICT_MISDIRECTED},
        {"does not verify, and later frames do", tail, VERDICT_CORRUPT_MIDDLE},
        {"does not verify, and later segments are there", tail, VERDICT_CORRUPT_MIDDLE},
        {"ids or a seal that were synced", tail, VERDICT_LOST_SEAL},
        {"does not verify, and a client was told of it", tail, VERDICT_LOST_ACKNOWLEDGED},
        {"the file ends inside the last frame", tail, VERDICT_TRUNCATED},
        {"ids or a seal, completely written", tail, VERDICT_LOST_SEAL},
        {"the last frame, not completely written", tail, VERDICT_TORN_TAIL},
        {"the last frame, completely written", tail, VERDICT_DAMAGED_TAIL},
    };
    assert_int_equal(sizeof(cases) / sizeof(cases[0]), recover_row_count);
    cases[4].facts.later = cases[4].facts.no_record = true;
    cases[5].facts.later = true;
    cases[6].facts.last_segment = false;
    cases[6].facts.goes_on = cases[6].facts.no_record = true;
    cases[7].facts.last_segment = false;
    cases[7].facts.no_record = true;
    cases[8].facts.last_segment = false;
    cases[9].facts.acked = true;
    cases[10].facts.header = HEADER_ABSENT;
    cases[12].facts.rest_zero = false;
    cases[13].facts.header = HEADER_FOREIGN;
    cases[14].facts.later = true;
    cases[15].facts.last_segment = false;
    cases[16].facts.acked = cases[16].facts.no_record = true;
    cases[17].facts.acked = true;
    cases[18].facts.cut = true;
    cases[19].facts.no_record = true;
    cases[20].facts.zero_sector = true;
    for (size_t i = 0; i < recover_row_count; i++) {
        size_t row;
        assert_int_equal(recover_classify(&cases[i].facts, &row), cases[i].verdict);
        assert_string_equal(recover_row_name(row), cases[i].row);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_reached_and_every_fact_has_one),
        cmocka_unit_test(rows_say_what_the_design_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
