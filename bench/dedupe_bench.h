// The other two things that dedupe-bench measures. Threads: called by main, alone.
#ifndef SLUICE_BENCH_DEDUPE_BENCH_H
#define SLUICE_BENCH_DEDUPE_BENCH_H

#include <stdint.h>

// What an id and a payload cost before the window is asked: ns each, one line of JSON a length. Returns an exit code.
int bench_identity(void);
// Fills a window with `ids` ids and writes its snapshot to `dir`, unless one is there already; drops it from the page
// cache, and loads it into a fresh window with `threads` threads. It stays there. One line of JSON. Returns an exit
// code.
int bench_rebuild(uint64_t ids, unsigned threads, const char *dir);

#endif
