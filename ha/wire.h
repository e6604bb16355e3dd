// What members of a cell say to each other, as bytes: docs/protocol-ha.md, "The bytes". Pure functions between values
// and bytes; no I/O, no allocation. The decoder is for hostile bytes: whatever it takes is within the limits of ha.h,
// belongs to this cell, and encodes to the same bytes again.
//
//   message = header (16 bytes), content, and behind a frame's content its body
//
// Threads: none of this has state; values and buffers belong to their callers.
#ifndef SLUICE_HA_WIRE_H
#define SLUICE_HA_WIRE_H

#include "base/error.h"
#include "ha/ha.h"
#include "spool/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_VERSION = 1,
    WIRE_HEADER_BYTES = 16,
    WIRE_CONTENT_MAX = 32 << 10,                          // the longest heartbeat is shorter
    WIRE_HEAD_MAX = WIRE_HEADER_BYTES + WIRE_CONTENT_MAX, // room for what wire_encode writes
    // The longest message that can be valid.
    WIRE_MESSAGE_MAX = WIRE_HEAD_MAX + FRAME_BODY_MAX,
};

enum wire_kind {
    WIRE_HELLO = 1,   // first in both directions: who the sender is
    WIRE_WELCOME = 2, // the other's HELLO was taken: with this, both ways, the session begins
    WIRE_HEARTBEAT = 3,
    WIRE_FRAME = 4,
    WIRE_DURABLE = 5,
    WIRE_REFUSED = 6,
    WIRE_ASK_IDS = 7, // "of these I know the ids; send me all others that you know"
    WIRE_IDS = 8,
};

struct wire_header {
    enum wire_kind kind;
    uint32_t length;         // of content and body
    uint32_t content_length; // a body is behind it, of frames alone
    uint32_t crc;
};

struct wire_member {
    char name[SPOOL_NAME_MAX + 1], zone[SPOOL_NAME_MAX + 1];
};
struct wire_hello {
    uint32_t version;
    char cluster[SPOOL_NAME_MAX + 1];
    struct wire_member members[HA_MEMBERS_MAX]; // of the cell as the sender is configured, in the order of their names
    uint8_t member_count, self;                 // self: which of them the sender is
    uint64_t chance;                            // of the process
    uint8_t dedupe_key_id[IDS_KEY_ID_BYTES];    // zero: the sender deduplicates nothing
};

// What members tell each other beside the core: the ids of events that the other did not hear of when they came.
enum { WIRE_RANGES_MAX = 256 };
struct wire_range { // of a stream's ids: first..last are known
    struct ha_id stream;
    uint64_t first, last;
};
struct wire_ids {
    uint32_t range_count; // ASK_IDS
    struct wire_range ranges[WIRE_RANGES_MAX];
    // IDS: of first .. first + count - 1. The body is their entries, then the business hashes (struct ids_entry,
    // ids_business of spool/frame.h), not aligned.
    bool end; // the last one: it has none
    struct ha_id stream;
    uint64_t first;
    uint32_t count, business_count;
    uint64_t in_kafka; // of the stream, through here; UINT64_MAX: all of it; 0: the cell's table has it
    int64_t first_received_wall_ns, last_received_wall_ns;
};

enum wire_what { WIRE_OF_CORE, WIRE_ASKS_IDS, WIRE_GIVES_IDS };

// One of the four kinds of ha_message; or about ids, then of `message` only `from` means something.
struct wire_message {
    enum wire_what what;
    struct wire_ids ids;
    // HA_FRAME: message.head says the same as `head`, as the core wants it (the encoder looks at `head` alone);
    // count = last - first + 1.
    struct ha_message message;
    // HA_FRAME alone:
    struct spool_head head;
    int64_t written_wall_ns; // by the clock of the node that wrote the records; 0: not known
    uint32_t count;
    struct sl_span body; // whole records, `count` of them, back to back: a view; at most FRAME_BODY_MAX
};

// The cell in which messages mean something: names in the order in which ha_id.member counts.
struct wire_cell {
    const char *const *names;
    uint8_t members;
};

// Bytes written, into at least WIRE_HEAD_MAX bytes; a frame's body follows them on the wire and is not copied. Values
// are within the limits said above (asserted).
size_t wire_encode(const struct wire_cell *cell, const struct wire_message *message, uint8_t *bytes);
size_t wire_encode_hello(const struct wire_hello *hello, uint8_t *bytes);
size_t wire_encode_welcome(uint8_t *bytes);

// Of the first WIRE_HEADER_BYTES of a message. SL_E_CORRUPT: no header, or one of a kind that does not exist;
// SL_E_TOO_LARGE: header, content and body have more than `bytes_max`.
bool wire_decode_header(struct wire_header *out, const uint8_t bytes[WIRE_HEADER_BYTES], size_t bytes_max,
                        struct sl_error *err) SL_MUST_USE;
// A whole message, header included, with `header` from wire_decode_header. SL_E_CORRUPT, with what is wrong.
// message.from is `from`. Of the body: its checksum is right and it consists of `count` records by their lengths; what
// they hold is whole as the sender had it, and is not looked at.
bool wire_decode(struct wire_message *out, const struct wire_cell *cell, uint8_t from, const struct wire_header *header,
                 const uint8_t *bytes, struct sl_error *err) SL_MUST_USE;
// Of another version only the fields up to and including the members are read; dedupe_key_id and chance are zero then.
bool wire_decode_hello(struct wire_hello *out, const struct wire_header *header, const uint8_t *bytes,
                       struct sl_error *err) SL_MUST_USE;
bool wire_decode_welcome(const struct wire_header *header, const uint8_t *bytes, struct sl_error *err) SL_MUST_USE;

#endif
