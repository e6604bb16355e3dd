// The scanner's eyes behind a place that holds no frame: later frames of the file, bytes that were never written.
// Threads: none; a scanner belongs to its caller. Parts that cannot be read count as damaged, not as zero.
#ifndef SLUICE_SPOOL_SEARCH_H
#define SLUICE_SPOOL_SEARCH_H

#include "spool/recover.h"

// Up to `length` bytes of the scanner's file; *got is less at its end only.
bool scan_read_at(struct scanner *scanner, void *bytes, size_t length, uint64_t offset, size_t *got,
                  struct sl_error *err) SL_MUST_USE;

struct search {
    bool later;                 // a frame that verifies was found
    struct frame_header header; // of it
    uint64_t offset;
    uint64_t nonzero_end; // behind the last byte from `start` on that is not zero; `start` when there is none
    bool zero_sector;     // a zero sector lies in front of nonzero_end
};
// From `start` (a block boundary) to the end of the file. Frames before first_candidate are not looked for.
// SL_E_NO_MEMORY.
bool scan_search_rest(struct scanner *scanner, uint64_t start, uint64_t first_candidate, struct search *found,
                      struct sl_error *err) SL_MUST_USE;
// Whether a never-written sector lies inside [start, end), the claimed extent of a frame. What is behind the file's end
// was not written either.
bool scan_has_zero_sector(struct scanner *scanner, uint64_t start, uint64_t end);
// The header block is no help: takes the UUID from the first frame that verifies by itself. SL_E_NO_MEMORY.
bool scan_find_uuid(struct scanner *scanner, bool *found, struct sl_error *err) SL_MUST_USE;

#endif
