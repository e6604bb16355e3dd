// The header of the PROXY protocol: who the client of a connection is that a balancer passes on.
//
// Source: "The PROXY protocol, versions 1 & 2", HAProxy's doc/proxy-protocol.txt, sections 2.1 (version 1, a line of
// text), 2.2 (version 2, binary) and 2.2.3 (its checksum). Where the text leaves a choice:
//   - the version is configured, never guessed, so that a header of the other one is wrong
//   - version 2: LOCAL, and PROXY with an unspecified family or transport, name nobody: the connection's own address
//     counts, and what follows the fixed part is skipped unread. Datagram transports count like streams
//   - the destination is checked for its form and not kept
//   - vectors (TLVs) behind the addresses are walked within their bounds; the checksum is verified where there is one
//
// Threads: pure functions over the caller's bytes; nothing is kept or allocated.
#ifndef SLUICE_GATEWAY_PROXY_PROTOCOL_H
#define SLUICE_GATEWAY_PROXY_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

enum proxy_version { PROXY_OFF, PROXY_V1, PROXY_V2 };
const char *proxy_version_word(enum proxy_version version); // as in the configuration

enum {
    PROXY_V1_BYTES_MAX = 107, // section 2.1: the longest line, with its CRLF
    // Of version 2, which itself has 65,551. Addresses take at most 232 bytes with the fixed part; the vectors that
    // balancers send (endpoint ids of clouds, the names in a client's certificate) some hundreds. A connection that
    // waits for its header holds a buffer of this size, half of what HTTP takes for its first read.
    PROXY_HEADER_BYTES_MAX = 4096,
};

struct proxy_header {
    size_t length;       // bytes of the header; what follows belongs to TLS or HTTP
    uint16_t family;     // of the client: AF_INET, AF_INET6, AF_UNIX; AF_UNSPEC: the connection's own address counts
    uint16_t port;       // of the client, in host order; 0 for AF_UNIX and AF_UNSPEC
    uint8_t address[16]; // IPv4 in the first four bytes
};

enum proxy_result {
    PROXY_MORE,  // the header goes on behind these bytes: all of them belong to it
    PROXY_WHOLE, // *out is filled
    PROXY_WRONG, // no header of this version begins like that; *why says what is wrong, and nothing that was received
};

// The header at the beginning of `bytes`. version: PROXY_V1 or PROXY_V2. What lies behind the header is not looked at,
// and a verdict other than PROXY_MORE does not change when more bytes come (only *why may say it better).
enum proxy_result proxy_parse(struct proxy_header *out, enum proxy_version version, const uint8_t *bytes, size_t length,
                              const char **why);

#endif
