// Any bytes as the header of a PROXY protocol. The first byte picks the version (1; else 2), and 3 says that the
// checksum of version 2 is put right first, or hardly any input with one would be taken.
#include "gateway/proxy_protocol.h"

#include "base/crc32c.h"
#include "base/error.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// The first vector of type 3 and length 4 behind addresses of IPv4.
static void put_checksum_right(uint8_t *bytes, size_t length)
{
    enum { FIRST = 16 + 12 };
    if (length < FIRST || bytes[13] != 0x11)
        return;
    size_t end = 16 + (size_t)bytes[14] * 256 + bytes[15], at = FIRST;
    while (at + 7 <= end && end <= length) {
        size_t value_length = (size_t)bytes[at + 1] * 256 + bytes[at + 2];
        if (bytes[at] == 3 && value_length == 4) {
            memset(bytes + at + 3, 0, 4);
            uint32_t crc = htonl(sl_crc32c(bytes, end));
            memcpy(bytes + at + 3, &crc, 4);
            return;
        }
        at += 3 + value_length;
    }
}

// From memory of exactly that size, so that a sanitizer sees one byte too far.
static enum proxy_result parse(struct proxy_header *out, enum proxy_version version, const uint8_t *bytes,
                               size_t length)
{
    uint8_t *copy = malloc(length > 0 ? length : 1);
    sl_assert(copy != NULL);
    if (length > 0)
        memcpy(copy, bytes, length);
    const char *why = NULL;
    enum proxy_result result = proxy_parse(out, version, copy, length, &why);
    sl_assert((result == PROXY_WRONG) == (why != NULL && why[0] != '\0'));
    free(copy);
    return result;
}

static void check_header(const struct proxy_header *header, enum proxy_version version, size_t length)
{
    size_t most = version == PROXY_V1 ? PROXY_V1_BYTES_MAX : PROXY_HEADER_BYTES_MAX;
    sl_assert(header->length > 0 && header->length <= length && header->length <= most);
    sl_assert(header->family == AF_UNSPEC || header->family == AF_UNIX || header->family == AF_INET ||
              header->family == AF_INET6);
    sl_assert(header->port == 0 || header->family == AF_INET || header->family == AF_INET6);
}

// What the reader of the socket goes by: every piece that is too short wants more, a verdict stays once it is given,
// and the reader's buffer is never too small.
static void check_pieces(enum proxy_version version, const uint8_t *bytes, size_t length, enum proxy_result whole,
                         const struct proxy_header *header)
{
    size_t most = version == PROXY_V1 ? PROXY_V1_BYTES_MAX : PROXY_HEADER_BYTES_MAX;
    enum proxy_result before = PROXY_MORE;
    for (size_t i = 0; i <= length; i += i < 160 || i + 8 > length ? 1 : 7) {
        struct proxy_header piece;
        enum proxy_result result = parse(&piece, version, bytes, i);
        sl_assert(before == PROXY_MORE || result == before);
        sl_assert(result != PROXY_MORE || i < most);
        if (whole == PROXY_WHOLE)
            sl_assert((result == PROXY_WHOLE) == (i >= header->length));
        if (result == PROXY_WHOLE)
            sl_assert(piece.length == header->length && piece.family == header->family &&
                      memcmp(piece.address, header->address, sizeof(piece.address)) == 0);
        before = result;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 2 * PROXY_HEADER_BYTES_MAX)
        return 0;
    enum proxy_version version = data[0] == 1 ? PROXY_V1 : PROXY_V2;
    size_t length = size - 1;
    uint8_t *bytes = malloc(size);
    sl_assert(bytes != NULL);
    memcpy(bytes, data + 1, length);
    if (data[0] == 3)
        put_checksum_right(bytes, length);
    struct proxy_header header;
    enum proxy_result result = parse(&header, version, bytes, length);
    if (result == PROXY_WHOLE)
        check_header(&header, version, length);
    check_pieces(version, bytes, length, result, &header);
    free(bytes);
    return 0;
}
