#include "base/crc32c.h"

#include <isa-l/crc.h>

uint32_t sl_crc32c_extend(uint32_t seed, const void *bytes, size_t length)
{
    // isa-l neither pre- nor post-inverts; its length is an int.
    uint32_t state = ~seed;
    const unsigned char *p = (const unsigned char *)bytes;
    enum { STEP = 1 << 30 };
    while (length > 0) {
        size_t step = length < STEP ? length : STEP;
        // The prototype lacks const; the bytes are only read.
        state = crc32_iscsi((unsigned char *)(uintptr_t)p, (int)step, state);
        p += step;
        length -= step;
    }
    return ~state;
}
