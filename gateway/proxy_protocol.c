// See proxy_protocol.h. A header is refused at the first byte that cannot be one, so that who speaks something else
// need not be waited for.
#include "gateway/proxy_protocol.h"

#include "base/crc32c.h"
#include "base/error.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

static const uint8_t signature[12] = {'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};
static const char first_word[] = "PROXY ";
enum { FIRST_WORD_BYTES = sizeof(first_word) - 1 };

const char *proxy_version_word(enum proxy_version version)
{
    static const char *const words[] = {"off", "v1", "v2"};
    return words[version];
}

static enum proxy_result wrong(const char **why, const char *what)
{
    *why = what;
    return PROXY_WRONG;
}

static bool begins(const uint8_t *bytes, size_t length, const void *with, size_t with_length)
{
    return memcmp(bytes, with, length < with_length ? length : with_length) == 0;
}

// What is no header of the wanted version, told as far as its first bytes allow.
static const char *what_it_is_instead(const uint8_t *bytes, size_t length)
{
    if (length >= FIRST_WORD_BYTES && begins(bytes, length, first_word, FIRST_WORD_BYTES))
        return "a PROXY header of version 1 instead of 2";
    if (length >= sizeof(signature) && begins(bytes, length, signature, sizeof(signature)))
        return "a PROXY header of version 2 instead of 1";
    if (bytes[0] == 0x16) // the record type of a handshake, RFC 8446 section 5.1
        return "a TLS handshake without a PROXY header before it";
    return "no PROXY header";
}

// ---- version 1

// Cuts the next field, which ends at exactly one space or at the end of the line, off the front of *rest.
static const char *next_field(char **rest)
{
    char *field = *rest, *space = strchr(field, ' ');
    if (space != NULL)
        *space = '\0';
    *rest = space != NULL ? space + 1 : field + strlen(field);
    return field;
}

static bool parse_port(const char *text, uint16_t *port)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 5 || text[digits] != '\0' || (text[0] == '0' && digits > 1))
        return false;
    uint32_t value = 0;
    for (size_t i = 0; i < digits; i++)
        value = value * 10 + (uint32_t)(text[i] - '0');
    *port = (uint16_t)value;
    return value <= UINT16_MAX;
}

static enum proxy_result parse_addresses(struct proxy_header *out, uint16_t family, char *rest, const char **why)
{
    uint8_t destination[16];
    uint16_t destination_port;
    if (inet_pton(family, next_field(&rest), out->address) != 1)
        return wrong(why, "version 1: the client's address is none of its family");
    if (inet_pton(family, next_field(&rest), destination) != 1)
        return wrong(why, "version 1: the destination's address is none of its family");
    if (!parse_port(next_field(&rest), &out->port))
        return wrong(why, "version 1: the client's port is none");
    if (!parse_port(rest, &destination_port)) // the last field: the rest of the line, so that nothing can follow it
        return wrong(why, "version 1: the destination's port is none, or something follows it");
    out->family = family;
    return PROXY_WHOLE;
}

static enum proxy_result parse_line(struct proxy_header *out, char *line, size_t length, const char **why)
{
    char *rest = line + FIRST_WORD_BYTES;
    if (strncmp(rest, "UNKNOWN", 7) == 0 && (rest[7] == '\0' || rest[7] == ' ')) // what follows is to be ignored
        return PROXY_WHOLE;
    if (strlen(line) != length)
        return wrong(why, "version 1: a NUL byte in the line");
    if (strncmp(rest, "TCP4 ", 5) == 0)
        return parse_addresses(out, AF_INET, rest + 5, why);
    if (strncmp(rest, "TCP6 ", 5) == 0)
        return parse_addresses(out, AF_INET6, rest + 5, why);
    return wrong(why, "version 1: neither TCP4 nor TCP6 nor UNKNOWN");
}

static enum proxy_result parse_v1(struct proxy_header *out, const uint8_t *bytes, size_t length, const char **why)
{
    if (!begins(bytes, length, first_word, FIRST_WORD_BYTES))
        return wrong(why, what_it_is_instead(bytes, length));
    size_t looked_at = length < PROXY_V1_BYTES_MAX ? length : PROXY_V1_BYTES_MAX;
    const uint8_t *end = memmem(bytes, looked_at, "\r\n", 2);
    if (end == NULL && looked_at == PROXY_V1_BYTES_MAX)
        return wrong(why, "version 1: no end of the line within 107 bytes");
    if (end == NULL)
        return PROXY_MORE;
    char line[PROXY_V1_BYTES_MAX];
    size_t line_length = (size_t)(end - bytes);
    memcpy(line, bytes, line_length);
    line[line_length] = '\0';
    out->length = line_length + 2;
    return parse_line(out, line, line_length, why);
}

// ---- version 2

enum {
    FIXED_BYTES = 16,
    COMMAND_LOCAL = 0,
    COMMAND_PROXY = 1,
    FAMILY_INET = 1,
    FAMILY_INET6 = 2,
    FAMILY_UNIX = 3,
    TRANSPORT_DGRAM = 2,
    VECTOR_CRC32C = 3,
};

// Of both addresses and ports, by family.
static const size_t addresses_bytes[] = {[0] = 0, [FAMILY_INET] = 12, [FAMILY_INET6] = 36, [FAMILY_UNIX] = 216};

static size_t be16(const uint8_t *bytes)
{
    return (size_t)bytes[0] << 8 | bytes[1];
}

// Section 2.2.3: over the whole header, with zeros where the checksum is.
static bool checksum_is_right(const uint8_t *header, size_t length, const uint8_t *at)
{
    static const uint8_t zeros[4];
    size_t before = (size_t)(at - header);
    uint32_t crc = sl_crc32c_extend(0, header, before);
    crc = sl_crc32c_extend(crc, zeros, 4);
    crc = sl_crc32c_extend(crc, at + 4, length - before - 4);
    return crc == ((uint32_t)be16(at) << 16 | (uint32_t)be16(at + 2));
}

static enum proxy_result check_vectors(const uint8_t *header, size_t length, size_t at, const char **why)
{
    const uint8_t *checksum = NULL;
    while (at < length) {
        if (length - at < 3 || length - at - 3 < be16(header + at + 1))
            return wrong(why, "version 2: a vector goes beyond the header's end");
        size_t value_length = be16(header + at + 1);
        if (header[at] == VECTOR_CRC32C) {
            if (value_length != 4 || checksum != NULL)
                return wrong(why, "version 2: a checksum of another length than 4, or a second one");
            checksum = header + at + 3;
        }
        at += 3 + value_length;
    }
    if (checksum != NULL && !checksum_is_right(header, length, checksum))
        return wrong(why, "version 2: the checksum is wrong");
    return PROXY_WHOLE;
}

static void take_client(struct proxy_header *out, int family, const uint8_t *addresses)
{
    size_t each = family == FAMILY_INET ? 4 : 16;
    if (family == FAMILY_UNIX) {
        out->family = AF_UNIX;
        return;
    }
    out->family = family == FAMILY_INET ? AF_INET : AF_INET6;
    memcpy(out->address, addresses, each);
    out->port = (uint16_t)be16(addresses + 2 * each);
}

// The fixed part as far as it is there: NULL, or what is wrong.
static const char *check_fixed(const uint8_t *bytes, size_t length)
{
    if (!begins(bytes, length, signature, sizeof(signature)))
        return what_it_is_instead(bytes, length);
    if (length > 12 && bytes[12] >> 4 != 2)
        return "version 2: the signature is followed by another version number";
    if (length > 12 && (bytes[12] & 15) > COMMAND_PROXY)
        return "version 2: neither LOCAL nor PROXY";
    bool local = length > 12 && (bytes[12] & 15) == COMMAND_LOCAL; // its family is to be ignored
    if (length > 13 && !local && (bytes[13] >> 4 > FAMILY_UNIX || (bytes[13] & 15) > TRANSPORT_DGRAM))
        return "version 2: an address family or a transport that there is not";
    if (length < FIXED_BYTES)
        return NULL;
    if (FIXED_BYTES + be16(bytes + 14) > PROXY_HEADER_BYTES_MAX)
        return "version 2: a header of more than 4096 bytes";
    bool named = !local && (bytes[13] & 15) != 0;
    if (named && be16(bytes + 14) < addresses_bytes[bytes[13] >> 4])
        return "version 2: shorter than the addresses of its family";
    return NULL;
}

static enum proxy_result parse_v2(struct proxy_header *out, const uint8_t *bytes, size_t length, const char **why)
{
    const char *bad = check_fixed(bytes, length);
    if (bad != NULL)
        return wrong(why, bad);
    if (length < FIXED_BYTES || length - FIXED_BYTES < be16(bytes + 14))
        return PROXY_MORE;
    out->length = FIXED_BYTES + be16(bytes + 14);
    int family = bytes[13] >> 4, transport = bytes[13] & 15;
    if ((bytes[12] & 15) == COMMAND_LOCAL || family == 0 || transport == 0)
        return PROXY_WHOLE;
    take_client(out, family, bytes + FIXED_BYTES);
    return check_vectors(bytes, out->length, FIXED_BYTES + addresses_bytes[family], why);
}

enum proxy_result proxy_parse(struct proxy_header *out, enum proxy_version version, const uint8_t *bytes, size_t length,
                              const char **why)
{
    sl_assert(version == PROXY_V1 || version == PROXY_V2);
    *out = (struct proxy_header){.family = AF_UNSPEC};
    if (length == 0)
        return PROXY_MORE;
    return version == PROXY_V1 ? parse_v1(out, bytes, length, why) : parse_v2(out, bytes, length, why);
}
