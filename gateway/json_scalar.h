// Strings with escapes, numbers and words, strictly as RFC 8259 has them. Internal to gateway/json*.
//
// Threads: none; nothing here keeps anything.
#ifndef SLUICE_GATEWAY_JSON_SCALAR_H
#define SLUICE_GATEWAY_JSON_SCALAR_H

#include "gateway/json_internal.h"

// Offsets of `bytes`, where JSON_PADDING readable bytes follow everything that is asked for.

// The end of the number, true, false or null at `at`, 0 when there is none. next: the next structural, before which
// nothing but the token and blanks may stand.
size_t json_scalar_end(const uint8_t *bytes, size_t at, size_t next);

// Unescapes what stands between quotes. Well-formed UTF-8 without control characters, whose last byte no backslash
// escapes, as stage 1 has seen. `to` takes `length` + 8 bytes. False: an escape sequence is none of JSON's, or stands
// for a lone surrogate.
bool json_unescape(const uint8_t *from, size_t length, uint8_t *to, uint32_t *written);

#endif
