// Segments made ahead of need: allocated, filled with zeros, synced, named. Writing over zeroed blocks is what makes a
// sync cheap (no metadata to journal), and allocating here is what keeps ENOSPC away from the writer.
//
// Threads: none; one preparer belongs to one thread (the keeper). Calls block for the disk, at most for one chunk.
#ifndef SLUICE_SPOOL_PREPARE_H
#define SLUICE_SPOOL_PREPARE_H

#include "spool/segment.h"

struct preparer {
    const struct storage *storage;
    char dir[SPOOL_PATH_MAX]; // <spool>/ready
    uint64_t next_number;
    bool active;                 // `making` is under way
    struct ready_segment making; // its path ends in .tmp
    uint64_t zeroed;
};

// Creates the directory when it is not there.
bool preparer_init(struct preparer *preparer, const struct storage *storage, const char *spool_dir,
                   struct sl_error *err) SL_MUST_USE;
// Takes over what an earlier process prepared: at most `capacity`, lowest number first. Deletes unfinished files and
// files that carry a header already (see segment.c).
bool preparer_adopt(struct preparer *preparer, struct ready_segment *out, size_t capacity, size_t *count,
                    struct sl_error *err) SL_MUST_USE;
// Creates and allocates. SL_E_NO_SPACE leaves nothing behind.
bool preparer_begin(struct preparer *preparer, uint64_t size_bytes, struct sl_error *err) SL_MUST_USE;
// Zeroes and syncs the next chunk. *complete when all is zero. On an error the file is gone.
bool preparer_fill(struct preparer *preparer, bool *complete, struct sl_error *err) SL_MUST_USE;
// Gives the file its name and hands it over; it need not be zeroed to its end (writes behind that are slower, not
// wrong).
bool preparer_finish(struct preparer *preparer, struct ready_segment *out, struct sl_error *err) SL_MUST_USE;
// Deletes what is under way.
void preparer_cancel(struct preparer *preparer);

#endif
