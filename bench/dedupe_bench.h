// The other two things that dedupe-bench measures. Threads: called by main, alone.
#ifndef SLUICE_BENCH_DEDUPE_BENCH_H
#define SLUICE_BENCH_DEDUPE_BENCH_H

#include <stdint.h>

// What an id and a payload cost before the window is asked: ns each, one line of JSON a length. Returns an exit code.
int bench_identity(void);
// Fills a spool in `dir`, which must be missing or empty, with `ids` records and rebuilds the window from it as
// the gateway does at a start: from the ids alone, and from a snapshot of nine of ten and the ids of the rest. The
// spool stays there: some 120 bytes an id. One line of JSON each. Returns an exit code.
int bench_rebuild(uint64_t ids, const char *dir);

#endif
