// The filter: a blocked Bloom filter of four generations at once. A cell has one bit for each of them, a word of 64
// bits has 16 cells, an id has three cells of one word: one load asks all generations, one instruction adds an id.
// It may only say "certainly new". That two claims of one id never both succeed is the table's business alone.
#include "dedupe/internal.h"

void filter_clear(struct dedupe *dedupe, uint32_t filter, uint64_t from, uint64_t to)
{
    const uint64_t mask = UINT64_C(0x1111111111111111) << filter;
    for (uint64_t i = from; i < to; i++) {
        if ((atomic_load_explicit(&dedupe->cells[i], memory_order_relaxed) & mask) != 0)
            atomic_fetch_and(&dedupe->cells[i], ~mask);
    }
}
