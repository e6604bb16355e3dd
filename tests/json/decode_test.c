// gzip and zstd bodies: what comes out, what is refused and why, and that a refusal leaves the decoder usable.
#include "gateway/decode.h"
#include "gateway/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

enum { LIMIT = 1024 * 1024, KEEP = 128 * 1024 };

struct bytes {
    uint8_t *data;
    size_t length;
};

static struct bytes gzip(const uint8_t *data, size_t length)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    size_t size = deflateBound(&stream, length);
    uint8_t *out = malloc(size);
    assert_non_null(out);
    stream.next_in = (Bytef *)(uintptr_t)data;
    stream.avail_in = (uInt)length;
    stream.next_out = out;
    stream.avail_out = (uInt)size;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    size_t used = stream.total_out;
    deflateEnd(&stream);
    return (struct bytes){out, used};
}

// declared: the frame says how large it is. window_log 0: the library's choice.
static struct bytes zstd(const uint8_t *data, size_t length, bool declared, int window_log)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, declared);
    if (declared)
        ZSTD_CCtx_setPledgedSrcSize(context, length);
    size_t size = ZSTD_compressBound(length) + 64;
    ZSTD_outBuffer out = {.dst = malloc(size), .size = size};
    ZSTD_inBuffer in = {.src = data, .size = length};
    assert_non_null(out.dst);
    // In two steps: in one, the encoder would know the size all the same and shrink the window to it.
    if (!declared)
        assert_false(ZSTD_isError(ZSTD_compressStream2(context, &out, &in, ZSTD_e_continue)));
    assert_int_equal(ZSTD_compressStream2(context, &out, &in, ZSTD_e_end), 0);
    ZSTD_freeCCtx(context);
    return (struct bytes){out.dst, out.pos};
}

static struct bytes encode(enum decode_encoding encoding, const uint8_t *data, size_t length)
{
    return encoding == DECODE_GZIP ? gzip(data, length) : zstd(data, length, true, 0);
}

// Not compressible to nothing, and the same in every run.
static struct bytes text_of(size_t length)
{
    uint8_t *data = malloc(length + 16);
    assert_non_null(data);
    uint32_t state = 12345;
    for (size_t i = 0; i < length; i++) {
        state = state * 1664525 + 1013904223;
        data[i] = (uint8_t)("{\"id\":0123456789abcdef,}"[state >> 24 & 15]);
    }
    return (struct bytes){data, length};
}

static struct sl_span span_of(struct bytes bytes)
{
    return (struct sl_span){.bytes = bytes.data, .length = bytes.length};
}

static void assert_decodes(struct decoder *decoder, enum decode_encoding encoding, struct bytes encoded,
                           struct bytes wanted)
{
    struct sl_span out;
    struct sl_error err = {.text = ""};
    if (!decoder_run(decoder, encoding, span_of(encoded), &out, &err))
        fail_msg("%s", err.text);
    assert_int_equal(out.length, wanted.length);
    assert_memory_equal(out.bytes, wanted.data, wanted.length);
    uint8_t sum = 0;
    for (size_t i = 0; i < JSON_PADDING; i++)
        sum |= ((const uint8_t *)out.bytes)[out.length + i]; // a sanitizer looks at this
    assert_int_equal(sum, 0);
}

static void assert_refused(struct decoder *decoder, enum decode_encoding encoding, struct sl_span encoded,
                           enum sl_code code, const char *part)
{
    struct sl_span out;
    struct sl_error err;
    assert_false(decoder_run(decoder, encoding, encoded, &out, &err));
    if (err.code != code || strstr(err.text, part) == NULL)
        fail_msg("%s: %s, not %s", sl_code_word(err.code), err.text, part);
}

static const enum decode_encoding encodings[] = {DECODE_GZIP, DECODE_ZSTD};

static void names(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        enum decode_encoding encoding;
    } headers[] = {
        {"", DECODE_IDENTITY},  {"  ", DECODE_IDENTITY},        {"identity", DECODE_IDENTITY},
        {"gzip", DECODE_GZIP},  {" \tGZip ", DECODE_GZIP},      {"x-gzip", DECODE_GZIP},
        {"ZSTD", DECODE_ZSTD},  {"zstd, gzip", DECODE_UNKNOWN}, {"gzip,", DECODE_UNKNOWN},
        {"br", DECODE_UNKNOWN}, {"gzi", DECODE_UNKNOWN},        {"deflate", DECODE_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
        assert_int_equal(decode_encoding_of(sl_span_of(headers[i].text)), headers[i].encoding);
    assert_int_equal(decode_encoding_of((struct sl_span){NULL, 0}), DECODE_IDENTITY);
}

static void sizes_up_to_the_limit(void **unused)
{
    (void)unused;
    static const size_t sizes[] = {0, 1, 63, 1000, 65535, 65536, 65537, 393216, LIMIT - 1, LIMIT, LIMIT + 1, 3 * LIMIT};
    struct decoder *decoder = decoder_new(LIMIT, KEEP);
    for (size_t e = 0; e < 2; e++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            struct bytes wanted = text_of(sizes[i]);
            struct bytes variants[2] = {encode(encodings[e], wanted.data, wanted.length), {NULL, 0}};
            if (encodings[e] == DECODE_ZSTD)
                variants[1] = zstd(wanted.data, wanted.length, false, 0);
            for (size_t v = 0; v < 2 && variants[v].data != NULL; v++) {
                if (sizes[i] <= LIMIT)
                    assert_decodes(decoder, encodings[e], variants[v], wanted);
                else
                    assert_refused(decoder, encodings[e], span_of(variants[v]), SL_E_TOO_LARGE, "1048576 bytes");
                if (i % 2 == 0)
                    decoder_trim(decoder);
                free(variants[v].data);
            }
            free(wanted.data);
        }
    }
    decoder_free(decoder);
    decoder_free(NULL);
}

// Some kilobytes that decode to 64 MiB.
static void bombs(void **unused)
{
    (void)unused;
    enum { SIZE = 64 * 1024 * 1024 };
    uint8_t *zeros = calloc(1, SIZE);
    assert_non_null(zeros);
    struct decoder *decoder = decoder_new(LIMIT, KEEP);
    struct bytes bomb[] = {gzip(zeros, SIZE), zstd(zeros, SIZE, true, 0), zstd(zeros, SIZE, false, 0)};
    free(zeros);
    for (size_t i = 0; i < 3; i++) {
        assert_true(bomb[i].length < LIMIT);
        assert_refused(decoder, i == 0 ? DECODE_GZIP : DECODE_ZSTD, span_of(bomb[i]), SL_E_TOO_LARGE, "1048576 bytes");
        free(bomb[i].data);
    }
    decoder_free(decoder);
}

static void several_parts_are_one_body(void **unused)
{
    (void)unused;
    struct decoder *decoder = decoder_new(LIMIT, KEEP);
    struct bytes wanted = text_of(5000);
    static const size_t cuts[] = {0, 1, 1, 4000, 5000};
    for (size_t e = 0; e < 2; e++) {
        uint8_t joined[16384];
        size_t used = 0;
        for (size_t i = 0; i + 1 < sizeof(cuts) / sizeof(cuts[0]); i++) {
            struct bytes part = encode(encodings[e], wanted.data + cuts[i], cuts[i + 1] - cuts[i]);
            memcpy(joined + used, part.data, part.length);
            used += part.length;
            free(part.data);
            if (encodings[e] == DECODE_ZSTD) { // a skippable frame of 3 bytes
                static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'};
                memcpy(joined + used, skippable, sizeof(skippable));
                used += sizeof(skippable);
            }
        }
        assert_decodes(decoder, encodings[e], (struct bytes){joined, used}, wanted);
        // Together they may not pass the limit either.
        struct decoder *small = decoder_new(4999, KEEP);
        assert_refused(small, encodings[e], (struct sl_span){joined, used}, SL_E_TOO_LARGE, "4999 bytes");
        decoder_free(small);
    }
    free(wanted.data);
    decoder_free(decoder);
}

static void truncated_anywhere(void **unused)
{
    (void)unused;
    struct decoder *decoder = decoder_new(LIMIT, KEEP);
    struct bytes wanted = text_of(3000);
    for (size_t e = 0; e < 2; e++) {
        struct bytes encoded = encode(encodings[e], wanted.data, wanted.length);
        assert_refused(decoder, encodings[e], (struct sl_span){encoded.data, 0}, SL_E_INVALID, "the body is empty");
        for (size_t length = 1; length < encoded.length; length++) {
            uint8_t *exact = malloc(length);
            assert_non_null(exact);
            memcpy(exact, encoded.data, length);
            assert_refused(decoder, encodings[e], (struct sl_span){exact, length}, SL_E_INVALID,
                           "the body ends inside the compressed data");
            free(exact);
        }
        assert_decodes(decoder, encodings[e], encoded, wanted);
        free(encoded.data);
    }
    free(wanted.data);
    decoder_free(decoder);
}

// A flipped bit is found, or it was of no meaning.
static void damaged_anywhere(void **unused)
{
    (void)unused;
    struct decoder *decoder = decoder_new(LIMIT, KEEP);
    struct bytes wanted = text_of(700);
    for (size_t e = 0; e < 2; e++) {
        struct bytes encoded = encode(encodings[e], wanted.data, wanted.length);
        size_t refused = 0;
        for (size_t bit = 0; bit < encoded.length * 8; bit++) {
            encoded.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            struct sl_span out;
            struct sl_error err;
            if (decoder_run(decoder, encodings[e], span_of(encoded), &out, &err)) {
                assert_int_equal(out.length, wanted.length);
                assert_memory_equal(out.bytes, wanted.data, wanted.length);
            } else {
                assert_true(err.code == SL_E_INVALID || err.code == SL_E_TOO_LARGE);
                refused++;
            }
            encoded.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        assert_true(refused > encoded.length * 7);
        free(encoded.data);
    }
    free(wanted.data);
    decoder_free(decoder);
}

static void refused_by_name(void **unused)
{
    (void)unused;
    struct decoder *decoder = decoder_new(LIMIT, KEEP);
    struct bytes wanted = text_of(2000);
    for (size_t e = 0; e < 2; e++) {
        bool is_gzip = encodings[e] == DECODE_GZIP;
        struct bytes encoded = encode(encodings[e], wanted.data, wanted.length);
        uint8_t *longer = calloc(1, encoded.length + 64);
        char place[64];
        memcpy(longer, encoded.data, encoded.length);
        snprintf(place, sizeof(place), "at byte %zu: something else follows", encoded.length);
        assert_refused(decoder, encodings[e], (struct sl_span){longer, encoded.length + 64}, SL_E_INVALID, place);
        memset(longer + encoded.length, 'x', 64);
        assert_refused(decoder, encodings[e], (struct sl_span){longer, encoded.length + 64}, SL_E_INVALID, place);

        // The checksum: CRC32 and length end a gzip member, 4 bytes of XXH64 a zstd frame.
        longer[encoded.length - (is_gzip ? 8 : 4)] ^= 1;
        assert_refused(decoder, encodings[e], (struct sl_span){longer, encoded.length}, SL_E_INVALID,
                       is_gzip ? "incorrect data check" : "checksum");
        assert_decodes(decoder, encodings[e], encoded, wanted);
        assert_refused(decoder, encodings[1 - e], span_of(encoded), SL_E_INVALID, "at byte");
        free(longer);
        free(encoded.data);
    }
    assert_refused(decoder, DECODE_GZIP, sl_span_of("{\"id\":1}"), SL_E_INVALID, "incorrect header check");
    assert_refused(decoder, DECODE_ZSTD, sl_span_of("{\"id\":1}"), SL_E_INVALID, "at byte 0: not a zstd frame");
    // A zlib stream (RFC 1950) is no gzip; zstd 0.7's frames are no zstd of RFC 8878.
    assert_refused(decoder, DECODE_GZIP, sl_span_of("\x78\x9c\x03"), SL_E_INVALID, "incorrect header check");
    assert_refused(decoder, DECODE_ZSTD, sl_span_of("\x27\xb5\x2f\xfd\x01\x01\x01\x01"), SL_E_INVALID,
                   "not a zstd frame");
    free(wanted.data);
    decoder_free(decoder);
}

// libzstd's streaming decoder takes such a frame, its one-shot decoder does not.
static void an_empty_compressed_block(void **unused)
{
    (void)unused;
    // Magic, no checksum and no size, a window of 2 MiB; a raw block "{}"; a compressed block of no bytes.
    static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 0x10, 0, 0, '{', '}', 5, 0, 0};
    static const uint8_t sound[] = {0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 0x10, 0, 0, '{', '}', 1, 0, 0};
    struct decoder *decoder = decoder_new(1000, 1000);
    struct sl_span out;
    struct sl_error err;
    assert_refused(decoder, DECODE_ZSTD, (struct sl_span){frame, sizeof(frame)}, SL_E_INVALID,
                   "zstd at byte 11: a compressed block of no bytes");
    assert_true(decoder_run(decoder, DECODE_ZSTD, (struct sl_span){sound, sizeof(sound)}, &out, &err));
    assert_int_equal(out.length, 2);
    // The frame before it is sound, and the place is that of the body.
    uint8_t both[sizeof(sound) + sizeof(frame)];
    memcpy(both, sound, sizeof(sound));
    memcpy(both + sizeof(sound), frame, sizeof(frame));
    assert_refused(decoder, DECODE_ZSTD, (struct sl_span){both, sizeof(both)}, SL_E_INVALID,
                   "zstd at byte 25: a compressed block of no bytes");
    decoder_free(decoder);
}

static void zstd_windows(void **unused)
{
    (void)unused;
    struct decoder *decoder = decoder_new(16 * 1024 * 1024, KEEP);
    struct bytes wanted = text_of(9 * 1024 * 1024);
    for (int declared = 0; declared < 2; declared++) {
        struct bytes fits = zstd(wanted.data, wanted.length, declared, 23);
        assert_decodes(decoder, DECODE_ZSTD, fits, wanted);
        free(fits.data);
        struct bytes wide = zstd(wanted.data, wanted.length, declared, 24);
        assert_refused(decoder, DECODE_ZSTD, span_of(wide), SL_E_INVALID,
                       "at byte 0: the frame needs a window of more");
        free(wide.data);
        decoder_trim(decoder);
    }
    free(wanted.data);
    decoder_free(decoder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(sizes_up_to_the_limit),
        cmocka_unit_test(bombs),
        cmocka_unit_test(several_parts_are_one_body),
        cmocka_unit_test(truncated_anywhere),
        cmocka_unit_test(damaged_anywhere),
        cmocka_unit_test(refused_by_name),
        cmocka_unit_test(an_empty_compressed_block),
        cmocka_unit_test(zstd_windows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
