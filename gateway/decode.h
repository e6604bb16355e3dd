// Content-Encoding of request bodies: gzip (RFC 1952) and zstd (RFC 8878), with a hard limit on what comes out.
//
// Threads: a struct decoder belongs to one thread and is reused, so that a request allocates nothing in the steady
// state.
#ifndef SLUICE_GATEWAY_DECODE_H
#define SLUICE_GATEWAY_DECODE_H

#include "base/cursor.h"
#include "base/error.h"

enum decode_encoding { DECODE_IDENTITY, DECODE_GZIP, DECODE_ZSTD, DECODE_UNKNOWN };

// The value of a Content-Encoding header (case-insensitive, surrounding blanks allowed); empty means identity; lists
// ("gzip, zstd") and x-gzip: x-gzip is gzip, lists are UNKNOWN.
enum decode_encoding decode_encoding_of(struct sl_span header);

struct decoder;
// limit: the most bytes that may come out. Memory grows as needed up to limit + padding, and decoder_trim() takes it
// back to `keep` bytes. NULL: no memory.
struct decoder *decoder_new(size_t limit, size_t keep);
void decoder_free(struct decoder *decoder);

// Decodes a whole body. *out points into the decoder, is followed by JSON_PADDING readable bytes, and lives until the
// next call. DECODE_IDENTITY is not accepted here. Errors: SL_E_TOO_LARGE (413; stops at the limit, before more memory
// is used), SL_E_INVALID (400: truncated, bad checksum, trailing garbage, a window over 8 MiB; text names the byte
// offset in the encoded body), SL_E_NO_MEMORY (503). Concatenated gzip members and zstd frames are one body.
bool decoder_run(struct decoder *decoder, enum decode_encoding encoding, struct sl_span encoded, struct sl_span *out,
                 struct sl_error *err) SL_MUST_USE;

// Releases memory beyond `keep`; call when the bytes of the last run are no longer needed.
void decoder_trim(struct decoder *decoder);

#endif
