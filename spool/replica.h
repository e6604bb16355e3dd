// Copies of streams that other nodes write, and what must outlive them.
//
// A copy is a stream in the same directory: discovered, walked, read and indexed like an older stream of this node, its
// ids kept and listed like theirs. Only that it grows at its end, in segments of its own (header, UUID and CRCs are
// this place's; the records' bytes are the owner's). An own older stream may grow, too: by the tail that peers give
// back at a start. A segment is never reopened for writing after a restart: growth begins a new one at end + 1.
//
// A copy holds one range, base_seq..end_seq (spool_stream_info). Retention does not touch it: it goes by spool_trim
// alone. Own older streams are retained as ever.
//
// Threads: any, unless a function says otherwise. The spool owns a third thread, "spool-replica", that writes and
// syncs; it has its own files and stands in nobody's way but for the disk. Strings handed in are copied, bodies are
// not.
#ifndef SLUICE_SPOOL_REPLICA_H
#define SLUICE_SPOOL_REPLICA_H

#include "spool/spool.h"

// ---- growing

// Records first_seq..first_seq + count - 1 of a stream. The submitter's before spool_store() and from inside done() on.
struct spool_store {
    char stream[SPOOL_STREAM_ID_MAX];
    struct spool_head head; // (frame.h) goes into the headers of new segments; a lane that is new begins one
    uint64_t first_seq;
    uint32_t count;       // ≥ 1
    const void *body;     // whole records, verified by the caller; must live until done()
    uint32_t body_length; // 1 to FRAME_BODY_MAX
    // The copy begins anew at first_seq, which lies behind its end: the caller knows that everything before is
    // produced. The base is durable before the first record; what was held before is deleted.
    bool new_base;
    void (*done)(struct spool_store *store); // replica thread, exactly once, after fdatasync; must not block
    enum spool_outcome outcome;              // set before done()
    struct spool_store *next;                // the spool's
};
// Never blocks. False: the spool is failed or closing; the store is still the caller's and done() is not called. Stores
// of a stream are written in the order of submission. first_seq is the one behind what was submitted last, or else the
// stream's end + 1; beyond that only with new_base, or where nothing of the stream is held. What lies at or below the
// end is passed over: it is here, or below the base. Not for the stream that this process writes. A store waits while
// its stream is not walked yet (spool_stream_info.scanned), and for space: the own writer goes first. SPOOL_FAILED: the
// spool has failed, or was closed before there was space.
bool spool_store(struct spool *spool, struct spool_store *store) SL_MUST_USE;

// Records of a copy up to `through` are not needed any more: base_seq moves at once, durably and with deletion of whole
// segments by the keeper, in a second or so. A copy with nothing left goes away when it does not grow any more. Own
// streams, and streams that are not there: nothing happens.
void spool_trim(struct spool *spool, const char *stream, uint64_t through);

// Only with options->manual, from the thread of the other steps: at most one frame, or one change of segment. True when
// something was done and another call may do more at once.
bool spool_step_replica(struct spool *spool);

// ---- marks: what this node promised about a stream, durable in <dir>/marks/<stream>, whether it holds data or not

struct spool_marks {
    bool fenced;    // nothing is acknowledged to the stream's owner any more
    uint64_t guard; // every lane is produced through this seq; nothing at or below it is taken again
};
struct spool_marked {
    char stream[SPOOL_STREAM_ID_MAX];
    struct spool_marks marks;
};
// Replaces the stream's marks; durable on return. Blocks for the disk. SL_E_IO, SL_E_NO_SPACE, SL_E_INVALID (id).
bool spool_put_marks(struct spool *spool, const char *stream, const struct spool_marks *marks,
                     struct sl_error *err) SL_MUST_USE;
// All zero where there are none. Blocks for the disk. SL_E_IO, SL_E_CORRUPT, SL_E_INVALID.
bool spool_get_marks(struct spool *spool, const char *stream, struct spool_marks *out,
                     struct sl_error *err) SL_MUST_USE;
// Durable on return; true when there were none.
bool spool_drop_marks(struct spool *spool, const char *stream, struct sl_error *err) SL_MUST_USE;
// All of them, in no order. Returns how many there are; fills at most `capacity`. Marks that cannot be read are given
// as fenced with guard 0, the careful reading, and logged as an error. Blocks for the disk.
size_t spool_list_marks(struct spool *spool, struct spool_marked *out, size_t capacity);

#endif
