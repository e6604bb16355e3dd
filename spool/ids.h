// What the events in the spool are known by, for a start: read from ids frames, not from the records' bodies.
//
// Older streams only: of the current one the caller knows what it appended. What a unit gives is durable, and of
// records that were stored, produced or not. Ids may be missing: what was deleted beyond options->ids_window_ns,
// released, or dropped for want of space. Then the seqs of a stream's units leave a gap.
//
// Threads: any. Units may be read by several threads at once, also while the spool is written, drained and cleaned up.
#ifndef SLUICE_SPOOL_IDS_H
#define SLUICE_SPOOL_IDS_H

#include "spool/spool.h"

// One segment, or what is kept of one that was deleted.
struct spool_ids_unit {
    char stream[SPOOL_STREAM_ID_MAX];
    uint64_t counter; // of the stream
    uint64_t first_seq;
    uint64_t last_seq;    // UINT64_MAX: nobody knows yet, the stream was not walked
    uint64_t bytes;       // about what will be read, for an estimate of the time
    int64_t last_wall_ns; // about when its last record was written
    bool kept;            // its segment was deleted
};
// Of all older streams, oldest stream first, in each by seq. *units is the caller's to free(). SL_E_NO_MEMORY.
bool spool_ids_list(struct spool *spool, struct spool_ids_unit **units, size_t *count,
                    struct sl_error *err) SL_MUST_USE;

// The same, and what is durable by now of the stream that is written: for other nodes.
bool spool_ids_list_all(struct spool *spool, struct spool_ids_unit **units, size_t *count,
                        struct sl_error *err) SL_MUST_USE;

struct spool_ids_block {
    uint64_t first_seq; // of entries[0]; the others follow without a gap
    uint32_t count, business_count;
    const struct ids_entry *entries;
    const struct ids_business *business;                   // index: into entries; in order
    int64_t first_received_wall_ns, last_received_wall_ns; // none was received outside
};
// Takes a block; its bytes are valid until it returns. False ends the reading.
typedef bool spool_ids_each(void *user, const struct spool_ids_unit *unit, const struct spool_ids_block *block);

enum spool_ids_source {
    SPOOL_IDS_FRAMES,    // from ids frames alone
    SPOOL_IDS_RECORDS,   // at least in part from records: the segment has no ids frames, or damaged ones
    SPOOL_IDS_OTHER_KEY, // nothing: hashed under another key, or under none
    SPOOL_IDS_GONE,      // nothing: it was deleted meanwhile
};
struct spool_ids_result {
    enum spool_ids_source source;
    bool damaged; // something was; it was logged. Of a segment whose records can be read no id is missing for it
    bool stopped; // by each()
    uint64_t ids;
    uint64_t bytes; // read
};
// Gives what the unit has behind after_seq, by seq. SL_E_IO, SL_E_NO_MEMORY: each() may have been called; what it was
// given is true.
bool spool_ids_read(struct spool *spool, const struct spool_ids_unit *unit, uint64_t after_seq, spool_ids_each *each,
                    void *user, struct spool_ids_result *result, struct sl_error *err) SL_MUST_USE;

// A snapshot elsewhere covers the stream's ids (the current one's, too) up to `through`, durably: nothing is kept of
// them beyond their segments. Forgotten at a restart. A stream that is not there: nothing happens.
void spool_ids_release(struct spool *spool, const char *stream, uint64_t through);

#endif
