// Memory that is there before it is needed.
#include "dedupe/internal.h"

#include <sys/mman.h>

enum { SLICE_BYTES = 16 << 20 };

void dedupe_populate(struct dedupe *dedupe, bool (*go_on)(void *user), void *user)
{
    uint8_t *memory = dedupe->memory;
    for (uint64_t at = 0; at < dedupe->memory_bytes && go_on(user); at += SLICE_BYTES) {
        uint64_t left = dedupe->memory_bytes - at;
        // Not every kernel can (Linux 5.14); then pages come when they are touched, as they would have anyway.
        if (madvise(memory + at, left < SLICE_BYTES ? left : SLICE_BYTES, MADV_POPULATE_WRITE) != 0)
            return;
    }
}
