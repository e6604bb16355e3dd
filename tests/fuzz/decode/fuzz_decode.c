// decoder_run() on any bytes: it ends, within its limit, with a body or a reason; and what it takes, the libraries' own
// one-shot decoders take with the same result. The first byte picks encoding and limit.
#include "gateway/decode.h"
#include "gateway/json.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LIMITS = 3, KEEP = 4096 };

static const size_t limits[LIMITS] = {0, 1000, 1 << 20};

static void check_taken(enum decode_encoding encoding, struct sl_span encoded, struct sl_span out, size_t limit)
{
    sl_assert(out.length <= limit);
    for (size_t i = 0; i < JSON_PADDING; i++)
        sl_assert(((const uint8_t *)out.bytes)[out.length + i] == 0);
    if (encoding != DECODE_ZSTD)
        return;
    char *again = malloc(out.length + 1);
    sl_assert(again != NULL);
    size_t length = ZSTD_decompress(again, out.length + 1, encoded.bytes, encoded.length);
    sl_assert(length == out.length && memcmp(again, out.bytes, length) == 0);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct decoder *decoders[LIMITS]; // reused, as they are in the gateway
    if (size == 0)
        return 0;
    enum decode_encoding encoding = data[0] & 1 ? DECODE_ZSTD : DECODE_GZIP;
    size_t choice = (data[0] >> 1) % LIMITS;
    if (decoders[choice] == NULL)
        decoders[choice] = decoder_new(limits[choice], KEEP);
    struct decoder *decoder = decoders[choice];
    struct sl_span encoded = {.bytes = data + 1, .length = size - 1};
    struct sl_span out;
    struct sl_error err = {.text = ""};
    if (decoder_run(decoder, encoding, encoded, &out, &err))
        check_taken(encoding, encoded, out, limits[choice]);
    else
        sl_assert((err.code == SL_E_INVALID || err.code == SL_E_TOO_LARGE) && err.text[0] != '\0');
    decoder_trim(decoder);
    return 0;
}
