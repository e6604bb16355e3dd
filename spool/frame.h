// The bytes on disk: segment header, frame, record. Pure functions from values to bytes and back; no I/O, no allocation
// but in record_buffer. docs/disk-format.md is the prose; this header and that page change together.
//
//   segment = header block (4 KiB), then frames, each starting on a 4 KiB boundary and padded to it with zeros
//   frame   = frame header (128 bytes), then the body; one frame is one group commit
//   body    = records, back to back; of an ids frame: what the records before it are known by
//
// Threads: none of this has state; buffers belong to their callers.
#ifndef SLUICE_SPOOL_FRAME_H
#define SLUICE_SPOOL_FRAME_H

#include "base/cursor.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SPOOL_BLOCK = 4096,
    FRAME_HEADER_BYTES = 128,
    SPOOL_VERSION = 1,
    SPOOL_NAME_MAX = 63,      // node and lane names
    SPOOL_STREAM_ID_MAX = 96, // "<node>.<counter>-<random>" with its terminator
    SPOOL_LANES_MAX = 16,
    IDS_KEY_ID_BYTES = 8,
    // One request is one batch and a batch is never split over frames, so this bounds a request.
    FRAME_BODY_MAX = 64 << 20,
};

struct segment_uuid {
    uint8_t bytes[16];
};

// ---- segment header: the first block of a file

struct segment_header {
    struct segment_uuid uuid; // random, of this file alone
    char stream[SPOOL_STREAM_ID_MAX];
    char node[SPOOL_NAME_MAX + 1];
    uint64_t first_seq; // of the first record that this segment can hold; seqs of a stream start at 1
    uint64_t counter;   // of the stream: how many streams this spool directory has opened
    int64_t created_wall_ns;
    uint64_t size_bytes; // of the file as allocated
    // The stream that this node wrote before, "" for none, and the last seq known of it then (a lower bound).
    char predecessor[SPOOL_STREAM_ID_MAX];
    uint64_t predecessor_seq;
    // Every lane that a record of this stream may name, up to and including this segment.
    uint32_t lane_count;
    char lanes[SPOOL_LANES_MAX][SPOOL_NAME_MAX + 1];
    uint32_t previous_frame_crc; // header_crc of the last frame (the seal) of the segment before; 0 for the first
    // Of the key under which hashes of its records were made: derived from it, public. All zero: there are no hashes,
    // and no ids frames.
    uint8_t ids_key_id[IDS_KEY_ID_BYTES];
};

void segment_header_encode(const struct segment_header *header, uint8_t block[SPOOL_BLOCK]);
// SL_E_CORRUPT with the field that is wrong.
bool segment_header_decode(struct segment_header *header, const uint8_t block[SPOOL_BLOCK],
                           struct sl_error *err) SL_MUST_USE;

// What a holder of another node's stream must know of it besides its records; it stands in the headers of its segments.
struct spool_head {
    uint32_t lane_count;
    char lanes[SPOOL_LANES_MAX][SPOOL_NAME_MAX + 1];
    char predecessor[SPOOL_STREAM_ID_MAX]; // "": none
    uint64_t predecessor_seq;
};

// ---- frame

enum frame_kind {
    FRAME_DATA = 1, // records
    // The last frame of a segment: nothing follows. count = 0, first_seq = the next seq. Its body is the offset (u64)
    // of the last ids frame, when the ids frames of the segment hold all of its records; else it is empty.
    FRAME_SEAL = 2,
    // What records before it are known by, so that a start need not read their bodies. Between data frames and before
    // the seal; count = 0, first_seq = the next seq: no record is lost with it.
    FRAME_IDS = 3,
};
enum { SEAL_BODY_BYTES = 8 };
enum { FRAME_FLAG_STREAM_CLOSED = 1 }; // on a seal: the stream ends here on purpose

struct frame_header {
    enum frame_kind kind;
    uint16_t flags;
    struct segment_uuid uuid; // of the segment; in every frame, so that a lost header block loses nothing else
    uint32_t body_length;     // without padding
    uint32_t body_crc;        // CRC32C of the body, seeded with the CRC32C of the segment UUID
    uint32_t header_crc;      // CRC32C of the other header bytes
    uint32_t previous_crc;    // header_crc of the frame before in the stream; chain
    uint32_t count;
    uint64_t first_seq;
    uint64_t acked_through; // highest seq that a client was told of when this frame was built: a lower bound
    int64_t written_wall_ns;
    uint64_t offset; // of this frame in its segment: a misdirected write never verifies
    // Bytes 80..127 are zero: room for the key id, nonce and tag of encryption at rest.
};

// Bytes that the frame takes in the segment, padding included: a multiple of SPOOL_BLOCK.
uint64_t frame_size(uint32_t body_length);
// Fills header->header_crc too.
void frame_header_encode(struct frame_header *header, uint8_t bytes[FRAME_HEADER_BYTES]);
enum frame_header_state {
    FRAME_HEADER_OK,
    FRAME_HEADER_ZERO, // all 128 bytes are zero: never written
    FRAME_HEADER_BAD,  // magic, CRC, version, or a value out of range
    // (whether the uuid and the offset are those of the place where it was found is the caller's to check)
};
enum frame_header_state frame_header_decode(struct frame_header *header, const uint8_t bytes[FRAME_HEADER_BYTES]);
// Reads the fields without any check: for reports on a header that does not verify.
void frame_header_parse(struct frame_header *header, uint16_t *version, uint16_t *reserved,
                        const uint8_t bytes[FRAME_HEADER_BYTES]);
// Whether all bytes are zero.
bool spool_all_zero(const void *bytes, size_t length);
bool segment_uuid_equal(const struct segment_uuid *a, const struct segment_uuid *b);
uint32_t frame_body_seed(const struct segment_uuid *uuid);
void seal_body_encode(uint64_t last_ids_offset, uint8_t body[SEAL_BODY_BYTES]);
uint64_t seal_body_decode(const uint8_t body[SEAL_BODY_BYTES]);
bool frame_body_verify(const struct frame_header *header, const void *body);

// ---- record

enum record_kind {
    RECORD_EVENT = 1,
    RECORD_QUARANTINED = 2, // goes to <topic>.dlq with its cause in the headers
};

struct record_header_field { // a Kafka header; sluice-stream, -seq, -node and event_id are not stored: the drainer adds
                             // them
    struct sl_span name;
    struct sl_span value;
};
enum { RECORD_HEADERS_MAX = 64 };

// What the gateway found when it looked the event up; said in Kafka. Values are the bits on disk.
enum record_flags {
    RECORD_FLAG_BUSINESS_DUPLICATE = 4,   // its business fields were accepted before under another event id: a header
    RECORD_FLAG_CONFLICT = 8,             // quarantined: its id was accepted before with another payload
    RECORD_FLAG_BUSINESS_QUARANTINE = 16, // quarantined: its business fields were accepted under another event id
};
enum { RECORD_HASH_BYTES = 16 };

struct record {
    enum record_kind kind;
    uint8_t flags;                      // of enum record_flags
    uint8_t id_hash[RECORD_HASH_BYTES]; // of (source, event_id), keyed; zero where nothing is deduplicated
    uint64_t payload_hash;              // keyed, of the payload's JSON tokens; 0 where nothing is deduplicated
    bool has_business_hash;
    uint8_t business_hash[RECORD_HASH_BYTES]; // keyed, of the business fields; zero without
    int64_t received_wall_ns;
    uint32_t payload_crc; // CRC32C, taken when the bytes came in
    struct sl_span source, lane, topic, event_id;
    bool has_key;
    struct sl_span key;
    uint32_t header_count;
    struct sl_span headers; // encoded; walk with record_header_next
    struct sl_span payload;
};

// A growing buffer of records, in the form in which they go to disk. Zero-initialise; free with record_buffer_free.
struct record_buffer {
    uint8_t *bytes;
    size_t length;
    size_t capacity;
    uint32_t count;
};
// Appends one record. `fields` are encoded as its headers. record->payload_crc is taken as given. Lengths: source, lane
// ≤ 63, topic ≤ 249, event_id ≤ 1024, key ≤ 64 KiB, payload < 64 MiB. False only when memory is out or a length is over
// (nothing appended).
bool record_append(struct record_buffer *buffer, const struct record *record, const struct record_header_field *fields,
                   size_t field_count) SL_MUST_USE;
void record_buffer_free(struct record_buffer *buffer);
// Cuts back to an earlier length and count: how a request that fails in the middle leaves no trace.
void record_buffer_cut(struct record_buffer *buffer, size_t length, uint32_t count);

// What is found out about a record after it was encoded. `offset` is where it begins: buffer->length before its
// record_append.
// Where the next record begins; buffer->length behind the last one.
size_t record_buffer_after(const struct record_buffer *buffer, size_t offset);
// Replaces kind and flags (of enum record_flags) and, unless it is NULL, the id's hash.
void record_buffer_mark(struct record_buffer *buffer, size_t offset, enum record_kind kind, unsigned flags,
                        const uint8_t id_hash[RECORD_HASH_BYTES]);
// Marks a record as dropped: record_buffer_compact must follow before anybody reads or stores the buffer.
void record_buffer_drop(struct record_buffer *buffer, size_t offset);
// Takes the dropped records out, from the one at `from` to the end, in one pass; length and count are put right, and
// later records move forward. Returns how many went. Nothing is allocated.
uint32_t record_buffer_compact(struct record_buffer *buffer, size_t from);

// Takes the next record from a body. False at the end (reader->failed false) and on malformed bytes (reader->failed
// true).
bool record_next(struct sl_reader *reader, struct record *out);
// Walks record->headers; the same convention.
bool record_header_next(struct sl_reader *reader, struct record_header_field *out);

// ---- ids

// As on disk.
struct ids_entry {
    uint8_t id_hash[RECORD_HASH_BYTES];
    uint64_t payload_hash;
};
struct ids_business {
    uint32_t index; // of the record's entry
    uint8_t hash[RECORD_HASH_BYTES];
};
_Static_assert(sizeof(struct ids_entry) == 24 && sizeof(struct ids_business) == 20, "as on disk");

// The fields of a record that ids are made of; nothing else of it is looked at. The convention of record_next.
struct record_ids {
    struct ids_entry entry;
    bool has_business_hash;
    uint8_t business_hash[RECORD_HASH_BYTES];
    int64_t received_wall_ns;
};
bool record_ids_next(struct sl_reader *reader, struct record_ids *out);

// The body of an ids frame: one entry a record, in the order of seqs without a gap.
enum { IDS_HEAD_BYTES = 48, IDS_BODY_MAX = (2 << 20) - FRAME_HEADER_BYTES };
struct ids_head {
    uint64_t first_seq;
    uint32_t count;
    uint32_t business_count;
    int64_t first_received_wall_ns, last_received_wall_ns; // no record was received outside
    uint64_t previous_offset;                              // of the ids frame before it in this file; 0 = none
    uint8_t key_id[IDS_KEY_ID_BYTES];
};
void ids_head_encode(const struct ids_head *head, uint8_t bytes[IDS_HEAD_BYTES]);
// Bytes of the body that the head begins.
uint64_t ids_body_length(const struct ids_head *head);
// False: `bytes` (at least IDS_HEAD_BYTES of them) do not begin a body of body_length bytes.
bool ids_head_decode(struct ids_head *head, const uint8_t *bytes, uint32_t body_length) SL_MUST_USE;
// Views into the body, which must be aligned to 8 and live as long. False: it is malformed.
bool ids_body_decode(struct ids_head *head, const struct ids_entry **entries, const struct ids_business **business,
                     const uint8_t *body, uint32_t body_length) SL_MUST_USE;

// Entries on their way into ids frames. Zero-initialise with first_seq; free with ids_buffer_free.
struct ids_buffer {
    uint64_t first_seq; // of entries[0]
    struct ids_entry *entries;
    struct ids_business *business;
    uint32_t count, capacity, business_count, business_capacity;
    int64_t first_received_wall_ns, last_received_wall_ns;
};
// Adds what the records of a body (or of a part of it, in whole records) are known by. False: memory is out, or they
// are malformed; the buffer is as it was.
bool ids_buffer_add(struct ids_buffer *buffer, const void *records, size_t length) SL_MUST_USE;
// Adds entries that are known already; business indexes count from the first of them.
bool ids_buffer_append(struct ids_buffer *buffer, const struct ids_head *head, const struct ids_entry *entries,
                       const struct ids_business *business) SL_MUST_USE;
// How many of the first entries fit into a body of at most body_max bytes. *head describes that body, but for
// previous_offset and key_id.
uint32_t ids_buffer_head(const struct ids_buffer *buffer, uint32_t body_max, struct ids_head *head);
// Takes out what *head describes.
void ids_buffer_drop(struct ids_buffer *buffer, const struct ids_head *head);
void ids_buffer_reset(struct ids_buffer *buffer, uint64_t first_seq); // empties it, keeps its memory
void ids_buffer_free(struct ids_buffer *buffer);

#endif
