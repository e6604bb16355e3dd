// The decision table. Its order is its meaning: the first row that matches gives the verdict, and the last rows match
// everything that is left, from the most to the least that is known.
//
// Why a torn tail may be passed over and a damaged one may not: one frame at a time is in flight, its client is told
// after the sync, and a sector that the sync had covered is not zero. So a last frame with a never-written sector was
// never told of. A last frame that was written to its end and does not verify may have been told of: it is quarantined
// and an alarm.
#include "spool/recover.h"

enum tri { ANY = 0, YES = 1, NO = 2 };

struct recover_row {
    const char *name;
    unsigned header, body, order; // masks of facts; 0 = any
    enum tri cut, zero_sector, rest_zero, later, last_segment, acked, goes_on, no_record;
    enum verdict verdict;
};

enum {
    READABLE = BODY_OK | BODY_UNREAD,
    NOTHING = HEADER_ZERO | HEADER_ABSENT,
    NOT_FOREIGN = HEADER_OK | HEADER_BAD | NOTHING,
};

static const struct recover_row recover_table[] = {
    {.name = "a frame in order", .header = HEADER_OK, .body = READABLE, .order = ORDER_NEXT, .verdict = VERDICT_TAKE},
    {.name = "a frame, seqs before it left out",
     .header = HEADER_OK,
     .body = READABLE,
     .order = ORDER_AHEAD,
     .verdict = VERDICT_HOLE},
    {.name = "a frame whose seqs were there before",
     .header = HEADER_OK,
     .body = READABLE,
     .order = ORDER_BEHIND,
     .verdict = VERDICT_MISDIRECTED},
    {.name = "a frame that was not written behind the one before it",
     .header = HEADER_OK,
     .body = READABLE,
     .order = ORDER_CHAIN,
     .verdict = VERDICT_MISDIRECTED},

    {.name = "no record stood here, as later frames say",
     .header = NOT_FOREIGN,
     .later = YES,
     .no_record = YES,
     .verdict = VERDICT_LOST_SEAL},
    {.name = "never written, and later frames are there", .header = NOTHING, .later = YES, .verdict = VERDICT_HOLE},
    {.name = "the writer was killed here, and a later process went on in the next segment",
     .header = NOT_FOREIGN,
     .later = NO,
     .last_segment = NO,
     .acked = NO,
     .goes_on = YES,
     .verdict = VERDICT_GOES_ON},
    {.name = "no record stood here, as the next segment says",
     .header = NOT_FOREIGN,
     .last_segment = NO,
     .no_record = YES,
     .verdict = VERDICT_LOST_SEAL},
    {.name = "never written, and later segments are there",
     .header = NOTHING,
     .last_segment = NO,
     .verdict = VERDICT_HOLE},
    {.name = "never written, and a client was told of it",
     .header = NOTHING,
     .acked = YES,
     .verdict = VERDICT_LOST_ACKNOWLEDGED},
    {.name = "the file ends where it was allocated", .header = HEADER_ABSENT, .verdict = VERDICT_TRUNCATED},
    {.name = "never written to the end", .header = HEADER_ZERO, .rest_zero = YES, .verdict = VERDICT_CLEAN_END},
    {.name = "a body without its header", .header = HEADER_ZERO, .verdict = VERDICT_TORN_TAIL},

    {.name = "another place's frame", .header = HEADER_FOREIGN, .verdict = VERDICT_MISDIRECTED},
    {.name = "does not verify, and later frames do", .later = YES, .verdict = VERDICT_CORRUPT_MIDDLE},
    {.name = "does not verify, and later segments are there", .last_segment = NO, .verdict = VERDICT_CORRUPT_MIDDLE},
    {.name = "ids or a seal that were synced",
     .header = HEADER_OK,
     .acked = YES,
     .no_record = YES,
     .verdict = VERDICT_LOST_SEAL},
    {.name = "does not verify, and a client was told of it", .acked = YES, .verdict = VERDICT_LOST_ACKNOWLEDGED},
    {.name = "the file ends inside the last frame", .cut = YES, .verdict = VERDICT_TRUNCATED},
    {.name = "ids or a seal, completely written",
     .header = HEADER_OK,
     .zero_sector = NO,
     .no_record = YES,
     .verdict = VERDICT_LOST_SEAL},
    {.name = "the last frame, not completely written", .zero_sector = YES, .verdict = VERDICT_TORN_TAIL},
    {.name = "the last frame, completely written", .verdict = VERDICT_DAMAGED_TAIL},
};
const size_t recover_row_count = sizeof(recover_table) / sizeof(recover_table[0]);

static const struct {
    const char *word;
    bool damage;
} verdicts[] = {
#define X(verdict, word, damage) [verdict] = {word, damage},
    SPOOL_VERDICTS(X)
#undef X
};

const char *verdict_word(enum verdict verdict)
{
    sl_assert((size_t)verdict < sizeof(verdicts) / sizeof(verdicts[0]));
    return verdicts[verdict].word;
}

bool verdict_is_damage(enum verdict verdict)
{
    sl_assert((size_t)verdict < sizeof(verdicts) / sizeof(verdicts[0]));
    return verdicts[verdict].damage;
}

const char *recover_row_name(size_t row)
{
    sl_assert(row < recover_row_count);
    return recover_table[row].name;
}

static bool mask_matches(unsigned mask, unsigned fact)
{
    return mask == 0 || (mask & fact) != 0;
}

static bool tri_matches(enum tri wanted, bool fact)
{
    return wanted == ANY || (wanted == YES) == fact;
}

static bool row_matches(const struct recover_row *row, const struct facts *facts)
{
    return mask_matches(row->header, facts->header) && mask_matches(row->body, facts->body) &&
           mask_matches(row->order, facts->order) && tri_matches(row->cut, facts->cut) &&
           tri_matches(row->zero_sector, facts->zero_sector) && tri_matches(row->rest_zero, facts->rest_zero) &&
           tri_matches(row->later, facts->later) && tri_matches(row->last_segment, facts->last_segment) &&
           tri_matches(row->acked, facts->acked) && tri_matches(row->goes_on, facts->goes_on) &&
           tri_matches(row->no_record, facts->no_record);
}

enum verdict recover_classify(const struct facts *facts, size_t *row)
{
    for (size_t i = 0; i < recover_row_count; i++) {
        if (!row_matches(&recover_table[i], facts))
            continue;
        if (row != NULL)
            *row = i;
        return recover_table[i].verdict;
    }
    sl_panic(__FILE__, __LINE__, "the last row matches everything");
}
