// Request bodies out of gzip and zstd, in one pass into one buffer that grows up to the limit.
//
// Happy path: the buffer is made as large as the frame says (zstd) or as bodies usually become, the library fills it,
// and it doubles when it is full. Contexts and buffer are kept for the next body.
//
// Failure: a bomb is stopped by the buffer's end: it never holds more than limit + 1 bytes, and the one byte beyond the
// limit is what proves that there was too much. zstd frames are looked at before the library sees them: a window over
// 8 MiB (RFC 9659 allows no more for this encoding), a declared size over the limit and the formats from before
// version 0.8 end there. Whatever is behind a frame or member has to be another one.
#include "gateway/decode.h"

#include "gateway/json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { WINDOW_LOG_MAX = 23, FIRST_BYTES = 64 * 1024, EXPANSION_GUESS = 6, CONTEXT_KEEP = 1024 * 1024 };

struct decoder {
    size_t limit;
    size_t keep;
    uint8_t *bytes;
    size_t size; // allocated, padding included
    size_t used;
    z_stream gzip; // lives while gzip_ready
    bool gzip_ready;
    ZSTD_DCtx *zstd;
};

enum decode_encoding decode_encoding_of(struct sl_span header)
{
    const char *text = header.bytes;
    size_t length = header.length;
    while (length > 0 && (text[0] == ' ' || text[0] == '\t')) {
        text++;
        length--;
    }
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        length--;
    static const struct {
        const char *name;
        enum decode_encoding encoding;
    } names[] = {{"", DECODE_IDENTITY},
                 {"identity", DECODE_IDENTITY},
                 {"gzip", DECODE_GZIP},
                 {"x-gzip", DECODE_GZIP},
                 {"zstd", DECODE_ZSTD}};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (length == strlen(names[i].name) && (length == 0 || strncasecmp(text, names[i].name, length) == 0))
            return names[i].encoding;
    }
    return DECODE_UNKNOWN;
}

struct decoder *decoder_new(size_t limit, size_t keep)
{
    struct decoder *decoder = calloc(1, sizeof(*decoder));
    if (decoder == NULL)
        return NULL;
    decoder->limit = limit;
    decoder->keep = keep;
    return decoder;
}

static void drop_zstd(struct decoder *decoder)
{
    ZSTD_freeDCtx(decoder->zstd);
    decoder->zstd = NULL;
}

void decoder_free(struct decoder *decoder)
{
    if (decoder == NULL)
        return;
    if (decoder->gzip_ready)
        inflateEnd(&decoder->gzip);
    drop_zstd(decoder);
    free(decoder->bytes);
    free(decoder);
}

void decoder_trim(struct decoder *decoder)
{
    if (decoder->size > decoder->keep) {
        free(decoder->bytes);
        decoder->bytes = NULL;
        decoder->size = 0;
        decoder->used = 0;
    }
    // A frame with a large window has made the context large.
    if (decoder->zstd != NULL && ZSTD_sizeof_DCtx(decoder->zstd) > decoder->keep + CONTEXT_KEEP)
        drop_zstd(decoder);
}

// ---- the buffer: limit + 1 bytes can be written at most, and padding follows

static size_t room(const struct decoder *decoder)
{
    return decoder->size == 0 ? 0 : decoder->size - JSON_PADDING - decoder->used;
}

// Makes room for `more` bytes, or for as many as may still come.
static bool reserve(struct decoder *decoder, size_t more, struct sl_error *err)
{
    size_t most = decoder->limit + 1;
    size_t wanted = more < most - decoder->used ? decoder->used + more : most;
    if (room(decoder) >= wanted - decoder->used)
        return true;
    uint8_t *bytes = realloc(decoder->bytes, wanted + JSON_PADDING);
    if (bytes == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "decoding a body into %zu bytes", wanted);
    decoder->bytes = bytes;
    decoder->size = wanted + JSON_PADDING;
    return true;
}

static bool too_large(const struct decoder *decoder, struct sl_error *err)
{
    return sl_fail(err, SL_E_TOO_LARGE, "the body decodes to more than %zu bytes", decoder->limit);
}

// Called when the library may have more to give: room for it, or the limit is passed.
static bool grow(struct decoder *decoder, struct sl_error *err)
{
    if (decoder->used > decoder->limit)
        return too_large(decoder, err);
    return room(decoder) > 0 || reserve(decoder, decoder->used < FIRST_BYTES ? FIRST_BYTES : decoder->used, err);
}

// ---- gzip

static bool gzip_begin(struct decoder *decoder, struct sl_error *err)
{
    enum { GZIP_ONLY = 16 }; // added to the window bits: neither zlib nor raw streams
    int result =
        decoder->gzip_ready ? inflateReset(&decoder->gzip) : inflateInit2(&decoder->gzip, MAX_WBITS + GZIP_ONLY);
    if (result != Z_OK)
        return sl_fail(err, SL_E_NO_MEMORY, "gzip context");
    decoder->gzip_ready = true;
    return true;
}

static bool gzip_run(struct decoder *decoder, struct sl_span encoded, struct sl_error *err)
{
    sl_assert(encoded.length <= UINT32_MAX);
    z_stream *stream = &decoder->gzip;
    size_t members = 0;
    size_t start = 0; // of the member
    if (!gzip_begin(decoder, err))
        return false;
    stream->next_in = (Bytef *)(uintptr_t)encoded.bytes; // zlib only reads it
    stream->avail_in = (uInt)encoded.length;
    for (;;) {
        if (!grow(decoder, err))
            return false;
        size_t space = room(decoder) < UINT32_MAX ? room(decoder) : UINT32_MAX;
        stream->next_out = decoder->bytes + decoder->used;
        stream->avail_out = (uInt)space;
        int result = inflate(stream, Z_NO_FLUSH);
        decoder->used += space - stream->avail_out;
        size_t offset = encoded.length - stream->avail_in;
        if (result == Z_STREAM_END) {
            if (decoder->used > decoder->limit)
                return too_large(decoder, err);
            if (stream->avail_in == 0)
                return true;
            members++;
            start = offset;
            if (inflateReset(stream) != Z_OK)
                return sl_fail(err, SL_E_NO_MEMORY, "gzip context");
        } else if (result == Z_MEM_ERROR) {
            return sl_fail(err, SL_E_NO_MEMORY, "gzip context");
        } else if (result == Z_BUF_ERROR || (result == Z_OK && stream->avail_in == 0 && stream->avail_out > 0)) {
            return sl_fail(err, SL_E_INVALID, "gzip at byte %zu: the body ends inside the compressed data", offset);
        } else if (result != Z_OK) {
            // The header was not even that of a member.
            bool garbage = members > 0 && stream->total_out == 0 && offset - start <= 3;
            return sl_fail(err, SL_E_INVALID, "gzip at byte %zu: %s", garbage ? start : offset,
                           garbage               ? "something else follows the compressed data"
                           : stream->msg != NULL ? stream->msg
                                                 : "invalid data");
        }
    }
}

// ---- zstd

struct frame {
    bool skippable;
    bool size_known;
    uint64_t window_bytes;
    uint64_t size; // of the content
};

enum { SKIPPABLE_MAGIC = 0x184D2A50, SKIPPABLE_MASK = 0x0000000f };

// RFC 8878, 3.1.1.1. False: too short, or not a frame; `bytes` has the rest of the body.
static bool frame_read(struct sl_reader *reader, struct frame *frame)
{
    *frame = (struct frame){.skippable = false};
    uint32_t magic = sl_read_u32(reader);
    if (!reader->failed && (magic & ~(uint32_t)SKIPPABLE_MASK) == SKIPPABLE_MAGIC) {
        frame->skippable = true;
        return true;
    }
    if (reader->failed || magic != ZSTD_MAGICNUMBER)
        return false;
    uint8_t descriptor = sl_read_u8(reader);
    bool single_segment = (descriptor & 0x20) != 0;
    if (!single_segment) {
        uint8_t window = sl_read_u8(reader);
        uint64_t base = UINT64_C(1) << (10 + (window >> 3));
        frame->window_bytes = base + base / 8 * (window & 7);
    }
    static const uint8_t dictionary_bytes[] = {0, 1, 2, 4};
    sl_read_span(reader, dictionary_bytes[descriptor & 3]);
    switch (descriptor >> 6) {
    case 0:
        frame->size_known = single_segment;
        frame->size = single_segment ? sl_read_u8(reader) : 0;
        break;
    case 1:
        frame->size_known = true;
        frame->size = sl_read_u16(reader) + UINT64_C(256);
        break;
    case 2:
        frame->size_known = true;
        frame->size = sl_read_u32(reader);
        break;
    default:
        frame->size_known = true;
        frame->size = sl_read_u64(reader);
    }
    if (single_segment)
        frame->window_bytes = frame->size;
    return !reader->failed;
}

// RFC 8878, 3.1.1.2: a block is a header of 3 bytes and what it says. A compressed one holds at least the headers of
// its two sections; libzstd's streaming decoder passes over one of no bytes all the same, its one-shot decoder does
// not. The rest is left to the library.
static bool find_empty_block(struct sl_reader *reader, const uint8_t **where)
{
    enum { RLE = 1, COMPRESSED = 2 };
    for (bool last = false; !last;) {
        const uint8_t *header = sl_read_span(reader, 3).bytes;
        if (reader->failed)
            return false;
        uint32_t word = header[0] | (uint32_t)header[1] << 8 | (uint32_t)header[2] << 16;
        uint32_t type = word >> 1 & 3, length = word >> 3;
        *where = header;
        if (type == COMPRESSED && length == 0)
            return true;
        sl_read_span(reader, type == RLE ? 1 : length);
        last = word & 1;
    }
    return false;
}

// Judges the frame at `offset` before the library does, and makes room for what it says it holds.
static bool frame_begin(struct decoder *decoder, struct sl_span encoded, size_t offset, struct sl_error *err)
{
    struct sl_reader reader = sl_reader_of((const uint8_t *)encoded.bytes + offset, encoded.length - offset);
    struct frame frame;
    if (!frame_read(&reader, &frame))
        return sl_fail(err, SL_E_INVALID, "zstd at byte %zu: %s", offset,
                       reader.failed ? "the body ends inside the compressed data"
                       : offset > 0  ? "something else follows the compressed data"
                                     : "not a zstd frame");
    if (frame.skippable)
        return true;
    if (frame.size_known && frame.size > decoder->limit - decoder->used)
        return too_large(decoder, err);
    if (frame.window_bytes > UINT64_C(1) << WINDOW_LOG_MAX)
        return sl_fail(err, SL_E_INVALID, "zstd at byte %zu: the frame needs a window of more than 8 MiB", offset);
    const uint8_t *block;
    if (find_empty_block(&reader, &block))
        return sl_fail(err, SL_E_INVALID, "zstd at byte %zu: a compressed block of no bytes",
                       (size_t)(block - (const uint8_t *)encoded.bytes));
    return !frame.size_known || reserve(decoder, (size_t)frame.size, err);
}

static bool zstd_begin(struct decoder *decoder, struct sl_error *err)
{
    if (decoder->zstd == NULL) {
        decoder->zstd = ZSTD_createDCtx();
        if (decoder->zstd == NULL ||
            ZSTD_isError(ZSTD_DCtx_setParameter(decoder->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))) {
            drop_zstd(decoder);
            return sl_fail(err, SL_E_NO_MEMORY, "zstd context");
        }
    }
    ZSTD_DCtx_reset(decoder->zstd, ZSTD_reset_session_only);
    return true;
}

static bool zstd_run(struct decoder *decoder, struct sl_span encoded, struct sl_error *err)
{
    if (!zstd_begin(decoder, err))
        return false;
    ZSTD_inBuffer in = {.src = encoded.bytes, .size = encoded.length, .pos = 0};
    bool between = true; // frames
    for (;;) {
        if (between && !frame_begin(decoder, encoded, in.pos, err))
            return false;
        if (!grow(decoder, err))
            return false;
        ZSTD_outBuffer out = {.dst = decoder->bytes, .size = decoder->used + room(decoder), .pos = decoder->used};
        size_t result = ZSTD_decompressStream(decoder->zstd, &out, &in);
        if (ZSTD_isError(result)) {
            bool memory = ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation;
            return sl_fail(err, memory ? SL_E_NO_MEMORY : SL_E_INVALID, "zstd at byte %zu: %s", in.pos,
                           ZSTD_getErrorName(result));
        }
        decoder->used = out.pos;
        between = result == 0;
        if (between && in.pos == in.size)
            return decoder->used <= decoder->limit || too_large(decoder, err);
        if (!between && in.pos == in.size && out.pos < out.size)
            return sl_fail(err, SL_E_INVALID, "zstd at byte %zu: the body ends inside the compressed data", in.pos);
    }
}

bool decoder_run(struct decoder *decoder, enum decode_encoding encoding, struct sl_span encoded, struct sl_span *out,
                 struct sl_error *err)
{
    sl_assert(encoding == DECODE_GZIP || encoding == DECODE_ZSTD);
    decoder->used = 0;
    const char *name = encoding == DECODE_GZIP ? "gzip" : "zstd";
    if (encoded.length == 0)
        return sl_fail(err, SL_E_INVALID, "%s at byte 0: the body is empty", name);
    size_t guess = encoded.length <= SIZE_MAX / EXPANSION_GUESS ? encoded.length * EXPANSION_GUESS : SIZE_MAX;
    if (!reserve(decoder, guess < FIRST_BYTES ? FIRST_BYTES : guess, err))
        return false;
    if (!(encoding == DECODE_GZIP ? gzip_run(decoder, encoded, err) : zstd_run(decoder, encoded, err))) {
        decoder_trim(decoder);
        return false;
    }
    memset(decoder->bytes + decoder->used, 0, JSON_PADDING);
    *out = (struct sl_span){.bytes = decoder->bytes, .length = decoder->used};
    return true;
}
