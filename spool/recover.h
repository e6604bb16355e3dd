// Recovery: what is found at a place where a frame should begin, and what that means. recover_classify is a pure
// function over a table of data (recover.c); the scanner (scan.c) gathers the facts, walks a stream's files and acts on
// the verdicts. Readers, the keeper, tools and simulators all use this one scanner.
//
// Threads: none; a scanner belongs to its caller and blocks for the disk.
#ifndef SLUICE_SPOOL_RECOVER_H
#define SLUICE_SPOOL_RECOVER_H

#include "spool/segment.h"

struct frame_pool;
struct spool_frame;

// ---- the decision table

// verdict, word, whether it is damage (recorded, logged as an error), what it means
#define SPOOL_VERDICTS(X)                                                                                              \
    X(VERDICT_TAKE, "take", false)                          /* a frame in order */                                     \
    X(VERDICT_CLOSED_END, "closed-end", false)              /* the stream was closed on purpose */                     \
    X(VERDICT_GOES_ON, "goes-on", false)                    /* in the next segment: here its writer was killed */      \
    X(VERDICT_CLEAN_END, "clean-end", false)                /* nothing was ever written from here on */                \
    X(VERDICT_TORN_TAIL, "torn-tail", false)                /* a write that a crash cut short: nobody was told */      \
    X(VERDICT_DAMAGED_TAIL, "damaged-tail", true)           /* completely written last frame that does not verify */   \
    X(VERDICT_TRUNCATED, "truncated", true)                 /* the file was shortened: no crash does that */           \
    X(VERDICT_HOLE, "hole", true)                           /* a write that is not there although later ones are */    \
    X(VERDICT_CORRUPT_MIDDLE, "corrupt-middle", true)       /* does not verify, and later frames do */                 \
    X(VERDICT_LOST_ACKNOWLEDGED, "lost-acknowledged", true) /* told to a client, and not there */                      \
    X(VERDICT_MISDIRECTED, "misdirected", true)             /* verifies, but belongs elsewhere */                      \
    X(VERDICT_MISSING_SEGMENT, "missing-segment", true)     /* a whole file is not there */                            \
    X(VERDICT_LOST_HEADER, "lost-header", true)             /* header block; its frames verify by themselves */        \
    X(VERDICT_LOST_SEAL, "lost-seal", true)                 /* a seal or ids: a frame that holds no records */

enum verdict {
#define X(verdict, word, damage) verdict,
    SPOOL_VERDICTS(X)
#undef X
};
const char *verdict_word(enum verdict verdict);
bool verdict_is_damage(enum verdict verdict);

// Masks, so that a row of the table can name several values.
enum fact_header {
    HEADER_OK = 1,      // verifies and belongs here
    HEADER_ABSENT = 2,  // the file ends before it
    HEADER_ZERO = 4,    // never written
    HEADER_BAD = 8,     // does not verify
    HEADER_FOREIGN = 16 // verifies with another segment's UUID or another offset
};
enum fact_body { BODY_OK = 1, BODY_BAD = 2, BODY_UNREAD = 4 };
enum fact_order {
    ORDER_NEXT = 1,   // first_seq is the expected one and the chain holds
    ORDER_CHAIN = 2,  // the expected one, but previous_crc is not that of the frame before
    ORDER_AHEAD = 4,  // seqs are left out
    ORDER_BEHIND = 8, // seqs come again
};
struct facts {
    enum fact_header header;
    enum fact_body body;   // BODY_UNREAD when the header is not OK
    enum fact_order order; // ORDER_NEXT when the header is not OK
    bool cut;              // the file ends inside the frame
    bool zero_sector;      // an all-zero sector of 512 bytes lies inside the frame: the write was not completed
    bool rest_zero;        // nothing but zeros from here to the end of the file
    bool later;            // a frame that verifies follows in this file
    bool last_segment;     // no other file follows
    bool acked;            // a client was told of the expected seq
    // The next file says that it was begun by a later process behind the frame before this place, or that the stream
    // began anew with it.
    bool goes_on;
    // What is found says that no record stood here: a later frame of the file, else the next file, goes on with the
    // expected seq; else the header (OK) says that the frame holds none.
    bool no_record;
};
extern const size_t recover_row_count;
const char *recover_row_name(size_t row);
// The first row that matches; every combination of facts has one. *row may be NULL.
enum verdict recover_classify(const struct facts *facts, size_t *row);

// ---- the scanner

struct scan_segment {
    uint64_t first_seq; // its name
    bool last;          // no other segment follows now
    bool live;          // being written by this process: nothing at or behind `limit` exists yet
    uint64_t limit;     // not live: where the file ends, when this process has written it; else UINT64_MAX
    uint64_t limit_seq; // live: seq of the frame that will begin at `limit`
    uint64_t base_seq;  // everything below was deleted on purpose
};
// Where a scanner gets its files from; the list of a stream being written grows while it is read.
struct scan_source {
    // The first segment with first_seq ≥ at_least. False: there is none, and out->live says whether one may come.
    bool (*segment)(void *user, uint64_t at_least, struct scan_segment *out);
    // The frame that stands there, verified, for the scanner to release; NULL: it is to be read from its file. May be
    // NULL itself. Asked for streams that are being written.
    struct spool_frame *(*recent)(void *user, uint64_t first_seq, uint64_t offset);
    void *user;
};

struct scanner {
    // set by the owner before scanner_init
    const struct storage *storage;
    struct frame_pool *pool;
    const char *dir;    // of the stream
    const char *stream; // its id
    struct scan_source source;
    uint64_t acked_floor; // highest seq known from elsewhere to have been told to a client; 0 = none
    // Verify and hand out bodies of data frames; without, only the last frame's body is verified. Ids are passed over
    // either way (ids.h reads them).
    bool bodies;

    // the scanner's own
    struct scan_segment file;
    int handle; // -1: no file is open
    struct segment_uuid uuid;
    uint64_t file_bytes, declared_bytes;
    uint64_t offset, expected;
    uint64_t next_file; // lowest first_seq that the next file may have
    bool chain_known;
    uint32_t chain;
    uint64_t acked;
    bool ended;
    enum verdict end;
    bool closed_seal;
    unsigned read_failures;
    // Headers only: the last frame, whose body nobody has read.
    bool unread, force_body;
    struct frame_header unread_header;
    bool unread_chain_known;
    uint32_t unread_chain;
};

enum scan_result {
    SCAN_FRAME,  // event->header, and event->frame when bodies are read (the caller releases it)
    SCAN_SEAL,   // end of a segment; event->header
    SCAN_WAIT,   // live: nothing new
    SCAN_END,    // event->verdict says how; again at every further call
    SCAN_DAMAGE, // event->{verdict, first_seq, last_seq, ...}; last_seq < first_seq: no record is lost by it
    SCAN_FAILED, // *err; the next call tries the same place again
    SCAN_PASSED, // (inside the scanner) an ids frame: scanner_next goes on to the next place
};
struct scan_event {
    enum verdict verdict;
    size_t row; // of the table, for tests
    struct frame_header header;
    struct spool_frame *frame;
    uint64_t segment; // first_seq of the file
    uint64_t offset, end_offset;
    uint64_t first_seq, last_seq;
};

// Starts at the first segment with first_seq ≥ `segment`, expecting seq `expected`.
void scanner_init(struct scanner *scanner, uint64_t segment, uint64_t expected);
// Starts inside a segment, at a place where a frame is known to begin. For seeks.
void scanner_init_at(struct scanner *scanner, uint64_t segment, uint64_t offset, uint64_t expected);
enum scan_result scanner_next(struct scanner *scanner, struct scan_event *event, struct sl_error *err);
void scanner_release(struct scanner *scanner);

#endif
