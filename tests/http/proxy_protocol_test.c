// The parser of PROXY headers: what HAProxy really sends, every truncation, every field wrong on its own.
#include "base/crc32c.h"
#include "gateway/proxy_protocol.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { BYTES_MAX = PROXY_HEADER_BYTES_MAX + 64 };

struct header {
    enum proxy_version version;
    uint8_t bytes[BYTES_MAX];
    size_t length;
};

// From memory of exactly that size, so that a sanitizer sees a byte too far.
static enum proxy_result parse(struct proxy_header *out, enum proxy_version version, const void *bytes, size_t length,
                               const char **why)
{
    uint8_t *copy = malloc(length > 0 ? length : 1);
    assert_non_null(copy);
    if (length > 0)
        memcpy(copy, bytes, length);
    *why = NULL;
    enum proxy_result result = proxy_parse(out, version, copy, length, why);
    free(copy);
    assert_true((result == PROXY_WRONG) == (*why != NULL));
    return result;
}

// Whole; each shorter piece wants more; what follows is left alone; who the client is.
static void check_good(enum proxy_version version, const void *bytes, size_t length, const char *client, uint16_t port)
{
    struct proxy_header header;
    const char *why;
    for (size_t i = 0; i < length; i++)
        assert_int_equal(parse(&header, version, bytes, i, &why), PROXY_MORE);
    for (size_t more = 0; more <= 40; more++) {
        uint8_t longer[BYTES_MAX + 40];
        memcpy(longer, bytes, length);
        memset(longer + length, more % 2 == 0 ? '\n' : 0, more);
        enum proxy_result result = parse(&header, version, longer, length + more, &why);
        if (result != PROXY_WHOLE)
            fail_msg("%s", why);
        assert_int_equal(header.length, length);
    }
    char text[INET6_ADDRSTRLEN] = "";
    if (header.family == AF_UNIX)
        snprintf(text, sizeof(text), "unix");
    else if (header.family != AF_UNSPEC)
        assert_non_null(inet_ntop(header.family, header.address, text, sizeof(text)));
    assert_string_equal(text, client);
    assert_int_equal(header.port, port);
}

static void check_wrong(enum proxy_version version, const void *bytes, size_t length, const char *says)
{
    struct proxy_header header;
    const char *why;
    enum proxy_result result = parse(&header, version, bytes, length, &why);
    if (result != PROXY_WRONG)
        fail_msg("taken, but should say: %s", says);
    if (strstr(why, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", why, says);
}

// ---- version 1

static void test_lines(void **state)
{
    (void)state;
    static const struct {
        const char *line, *client;
        uint16_t port;
    } good[] = {
        // as HAProxy 2.6 sends them
        {"PROXY TCP4 127.0.0.1 127.0.0.1 49058 43181\r\n", "127.0.0.1", 49058},
        {"PROXY TCP6 ::1 ::1 35046 40315\r\n", "::1", 35046},
        {"PROXY UNKNOWN\r\n", "", 0},
        // the longest of each kind, and the borders
        {"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255", 65535},
        {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535},
        {"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
         "65535\r\n",
         "", 0},
        {"PROXY UNKNOWN whatever \r there \n is\r\n", "", 0},
        {"PROXY UNKNOWN \r\n", "", 0},
        {"PROXY TCP4 0.0.0.0 1.2.3.4 0 1\r\n", "0.0.0.0", 0},
        {"PROXY TCP6 2001:DB8::F 2001:db8:0:0:0:0:0:1 1 2\r\n", "2001:db8::f", 1},
        {"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", "::ffff:192.0.2.7", 1},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        check_good(PROXY_V1, good[i].line, strlen(good[i].line), good[i].client, good[i].port);
}

static void test_wrong_lines(void **state)
{
    (void)state;
    static const char destination[] = "destination's address", client[] = "client's address";
    static const char *const wrong[][2] = {
        {"GET / HTTP/1.1\r\n", "no PROXY header"},
        {"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "no PROXY header"},
        {"PROXYTCP4 1.2.3.4 1.2.3.4 1 2\r\n", "no PROXY header"},
        {" PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "no PROXY header"},
        {"\x16\x03\x01", "a TLS handshake"},
        {"\r\n\r\n", "no PROXY header"},
        {"PROXY \r\n", "neither TCP4"},
        {"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "neither TCP4"},
        {"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", "neither TCP4"},
        {"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "neither TCP4"},
        {"PROXY TCP4\r\n", "neither TCP4"},
        {"PROXY UNKNOWNS\r\n", "neither TCP4"},
        {"PROXY unknown\r\n", "neither TCP4"},
        {"PROXY TCP4 \r\n", client},
        {"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", client},
        {"PROXY TCP4 ::1 1.2.3.4 1 2\r\n", client},
        {"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", client},
        {"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", client},
        {"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", client},
        {"PROXY TCP4 1.2.3.4\t1.2.3.4 1 2\r\n", client},
        {"PROXY TCP6 1.2.3.4 ::1 1 2\r\n", client},
        {"PROXY TCP6 1::2::3 ::1 1 2\r\n", client},
        {"PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", client},
        {"PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", client},
        {"PROXY TCP6 12345:: ::1 1 2\r\n", client},
        {"PROXY TCP4 1.2.3.4 ::1 1 2\r\n", destination},
        {"PROXY TCP4 1.2.3.4  1 2\r\n", destination},
        {"PROXY TCP4 1.2.3.4\r\n", destination},
        {"PROXY TCP6 ::1 1.2.3.4 1 2\r\n", destination},
        {"PROXY TCP4 1.2.3.4 1.2.3.4\r\n", "client's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 x 2\r\n", "client's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", "client's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "client's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", "client's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "client's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 4294967297 2\r\n", "client's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "destination's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", "destination's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n", "destination's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n", "destination's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "destination's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "destination's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n", "destination's port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n", "destination's port"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        check_wrong(PROXY_V1, wrong[i][0], strlen(wrong[i][0]), wrong[i][1]);
    static const char with_nul[] = "PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n";
    check_wrong(PROXY_V1, with_nul, sizeof(with_nul) - 1, "NUL");
    static const char binary[] = "\r\n\r\n\0\r\nQUIT\n\x20";
    check_wrong(PROXY_V1, binary, sizeof(binary) - 1, "version 2 instead of 1");
}

static void test_long_lines(void **state)
{
    (void)state;
    char line[PROXY_V1_BYTES_MAX + 2];
    memset(line, 'x', sizeof(line));
    memcpy(line, "PROXY UNKNOWN ", 14);
    struct proxy_header header;
    const char *why;
    assert_int_equal(parse(&header, PROXY_V1, line, PROXY_V1_BYTES_MAX - 1, &why), PROXY_MORE);
    check_wrong(PROXY_V1, line, PROXY_V1_BYTES_MAX, "within 107 bytes");
    memcpy(line + PROXY_V1_BYTES_MAX - 1, "\r\n", 2); // one byte too late
    check_wrong(PROXY_V1, line, PROXY_V1_BYTES_MAX + 1, "within 107 bytes");
    memcpy(line + PROXY_V1_BYTES_MAX - 2, "\r\n", 2);
    check_good(PROXY_V1, line, PROXY_V1_BYTES_MAX, "", 0);
}

// ---- version 2

static void add(struct header *header, const void *bytes, size_t length)
{
    assert_true(header->length + length <= sizeof(header->bytes));
    memcpy(header->bytes + header->length, bytes, length);
    header->length += length;
    if (header->length >= 16) {
        header->bytes[14] = (uint8_t)((header->length - 16) >> 8);
        header->bytes[15] = (uint8_t)(header->length - 16);
    }
}

static void add_vector(struct header *header, uint8_t type, const void *value, size_t length)
{
    const uint8_t head[3] = {type, (uint8_t)(length >> 8), (uint8_t)length};
    add(header, head, 3);
    add(header, value, length);
}

static struct header make(uint8_t command, uint8_t family)
{
    struct header header = {.version = PROXY_V2};
    const uint8_t fixed[4] = {command, family};
    add(&header, "\r\n\r\n\0\r\nQUIT\n", 12);
    add(&header, fixed, 4);
    switch (family >> 4) {
    case 1:
        add(&header, "\300\0\2\7\12\0\0\1", 8);
        break;
    case 2:
        add(&header, "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\x7\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 32);
        break;
    case 3:
        for (int i = 0; i < 6; i++)
            add(&header, "/run/client.sock\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 36);
        return header;
    default:
        return header;
    }
    add(&header, "\x12\x34\x01\xbb", 4);
    return header;
}

static void add_checksum(struct header *header)
{
    static const uint8_t zeros[4];
    add_vector(header, 3, zeros, 4);
    uint32_t crc = htonl(sl_crc32c(header->bytes, header->length));
    memcpy(header->bytes + header->length - 4, &crc, 4);
}

static void good(const struct header *header, const char *client, uint16_t port)
{
    check_good(PROXY_V2, header->bytes, header->length, client, port);
}

static void wrong(const struct header *header, const char *says)
{
    check_wrong(PROXY_V2, header->bytes, header->length, says);
}

// As HAProxy 2.6 sent them with send-proxy-v2 and proxy-v2-options crc32c,unique-id: an encoder that is not ours.
static void test_from_haproxy(void **state)
{
    (void)state;
    static const char inet[] = "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x16\x7f\x00\x00\x01\x7f"
                               "\x00\x00\x01\xc6\x90\x85\xdf\x03\x00\x04\x66\xbd\xa6\x84\x05\x00\x00";
    static const char inet6[] =
        "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x21\x00\x2e\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        "\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x86\xec\x82\x7b\x03\x00"
        "\x04\x27\x8f\xe9\x7c\x05\x00\x00";
    static const char check[] = "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x20\x00\x00\x07\x03\x00\x04\xa9\xb8"
                                "\x7e\x8f";
    check_good(PROXY_V2, inet, sizeof(inet) - 1, "127.0.0.1", 50832);
    check_good(PROXY_V2, inet6, sizeof(inet6) - 1, "::1", 34540);
    check_good(PROXY_V2, check, sizeof(check) - 1, "", 0);
}

static void test_families_and_transports(void **state)
{
    (void)state;
    struct header header;
    for (uint8_t transport = 1; transport <= 2; transport++) {
        header = make(0x21, 0x10 | transport);
        good(&header, "192.0.2.7", 0x1234);
        header = make(0x21, 0x20 | transport);
        good(&header, "2001:db8::7", 0x1234);
        header = make(0x21, 0x30 | transport);
        good(&header, "unix", 0);
    }
    for (uint8_t family = 0; family <= 3; family++) { // nobody is named
        header = make(0x21, (uint8_t)(family << 4));
        good(&header, "", 0);
        header = make(0x21, family < 3 ? family : 0);
        good(&header, "", 0);
    }
    for (unsigned family = 0; family <= 255; family++) { // of LOCAL it is to be ignored, and so is what follows
        header = make(0x20, (uint8_t)family);
        good(&header, "", 0);
        add(&header, "\3\377\377 no vector", 12);
        good(&header, "", 0);
    }
    for (unsigned family = 0; family <= 255; family++) {
        header = make(0x21, (uint8_t)family);
        if (family >> 4 > 3 || (family & 15) > 2)
            wrong(&header, "that there is not");
    }
}

static void test_wrong_fixed_parts(void **state)
{
    (void)state;
    struct header header = make(0x21, 0x11);
    for (size_t i = 0; i < 12; i++) { // each byte of the signature, at the moment it is there
        struct header bad = header;
        bad.bytes[i] ^= 0x20;
        check_wrong(PROXY_V2, bad.bytes, i + 1, "no PROXY header");
    }
    for (unsigned command = 0; command <= 255; command++) {
        struct header bad = header;
        bad.bytes[12] = (uint8_t)command;
        if (command >> 4 != 2)
            check_wrong(PROXY_V2, bad.bytes, 13, "another version number");
        else if (command > 0x21)
            check_wrong(PROXY_V2, bad.bytes, 13, "neither LOCAL nor PROXY");
    }
    static const uint8_t families[] = {0x11, 0x12, 0x21, 0x31};
    for (size_t i = 0; i < sizeof(families); i++) {
        struct header bad = make(0x21, families[i]);
        bad.length--;
        bad.bytes[15]--;
        wrong(&bad, "shorter than the addresses");
        check_wrong(PROXY_V2, bad.bytes, 16, "shorter than the addresses"); // without waiting for them
    }
    check_wrong(PROXY_V2, "PROXY TCP4 1.2.3.4 ", 19, "version 1 instead of 2");
    check_wrong(PROXY_V2, "GET / HTTP/1.1", 14, "no PROXY header");
    check_wrong(PROXY_V2, "\x16\x03\x01", 3, "a TLS handshake");
}

static void test_length_bound(void **state)
{
    (void)state;
    static const uint8_t zeros[PROXY_HEADER_BYTES_MAX];
    static const uint8_t commands[] = {0x20, 0x21};
    for (size_t i = 0; i < sizeof(commands); i++) {
        struct header header = make(commands[i], 0x11);
        add_vector(&header, 4, zeros, PROXY_HEADER_BYTES_MAX - header.length - 3);
        assert_int_equal(header.length, PROXY_HEADER_BYTES_MAX);
        good(&header, commands[i] == 0x21 ? "192.0.2.7" : "", commands[i] == 0x21 ? 0x1234 : 0);
        add(&header, zeros, 1);
        check_wrong(PROXY_V2, header.bytes, 16, "more than 4096");
        header.bytes[14] = header.bytes[15] = 0xff;
        check_wrong(PROXY_V2, header.bytes, 16, "more than 4096");
    }
}

static void test_vectors(void **state)
{
    (void)state;
    struct header plain = make(0x21, 0x21), header = plain;
    add_vector(&header, 4, "", 0);
    add_vector(&header, 0x20, "\1\0\0\0\0\x21\0\7TLSv1.3", 15);
    add_vector(&header, 0xea, "\1vpce-08d2bf15fac5001c9", 23);
    good(&header, "2001:db8::7", 0x1234);
    for (size_t cut = 1; cut <= 2; cut++) { // a vector of one and two bytes
        struct header bad = header;
        add(&bad, "\4\0", cut);
        wrong(&bad, "beyond the header's end");
    }
    struct header bad = header;
    add(&bad, "\4\0\1", 3);
    wrong(&bad, "beyond the header's end");
    bad = plain;
    add_vector(&bad, 4, "abc", 3);
    bad.bytes[bad.length - 5] = 0xff; // its length
    wrong(&bad, "beyond the header's end");
}

static void test_checksum(void **state)
{
    (void)state;
    struct header plain = make(0x21, 0x11), header = plain;
    add_vector(&header, 0xea, "before", 6);
    add_checksum(&header);
    good(&header, "192.0.2.7", 0x1234);
    struct header twice = header;
    add_vector(&twice, 3, "\0\0\0", 4);
    wrong(&twice, "a second one");
    for (size_t length = 0; length <= 8; length++) {
        struct header other = plain;
        add_vector(&other, 3, "\0\0\0\0\0\0\0", length);
        wrong(&other, length == 4 ? "checksum is wrong" : "of another length");
    }
    // Whichever bit flips: it is not taken, unless it is said to name nobody now, and then nothing of it is used. But
    // for what says that there is a checksum: without it nobody looks.
    int refused = 0, unnamed = 0;
    for (size_t bit = 0; bit < header.length * 8; bit++) {
        if (bit / 8 == header.length - 7)
            continue;
        struct header flipped = header;
        flipped.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct proxy_header out;
        const char *why;
        enum proxy_result result = parse(&out, PROXY_V2, flipped.bytes, flipped.length, &why);
        bool names_nobody = flipped.bytes[12] == 0x20 || flipped.bytes[13] == 0x01 || flipped.bytes[13] == 0x10;
        assert_true(result != PROXY_WHOLE || names_nobody || out.length < header.length);
        if (result == PROXY_WHOLE && !names_nobody) // shorter now: cut before its checksum, between vectors
            assert_true(bit / 8 == 14 || bit / 8 == 15);
        refused += result == PROXY_WRONG;
        unnamed += result == PROXY_WHOLE;
    }
    assert_true(refused > (int)header.length * 7 && unnamed >= 3);
}

static void test_words(void **state)
{
    (void)state;
    assert_string_equal(proxy_version_word(PROXY_OFF), "off");
    assert_string_equal(proxy_version_word(PROXY_V1), "v1");
    assert_string_equal(proxy_version_word(PROXY_V2), "v2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_wrong_lines),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_from_haproxy),
        cmocka_unit_test(test_families_and_transports),
        cmocka_unit_test(test_wrong_fixed_parts),
        cmocka_unit_test(test_length_bound),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_checksum),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
