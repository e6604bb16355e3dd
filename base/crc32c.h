// CRC32C (Castagnoli, RFC 3720 appendix B.4): init ~0, final ~, as in iSCSI and ext4. Computed by isa-l.
// crc32c("123456789", 9) == 0xe3069283.
#ifndef SLUICE_BASE_CRC32C_H
#define SLUICE_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

// Any thread. `seed` is 0, or the result for the bytes before: extend(extend(0, a), b) == crc32c of a then b.
uint32_t sl_crc32c_extend(uint32_t seed, const void *bytes, size_t length);

static inline uint32_t sl_crc32c(const void *bytes, size_t length)
{
    return sl_crc32c_extend(0, bytes, length);
}

#endif
