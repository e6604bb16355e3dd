// The gateway's part in its cell: ha/cell.h made from the configuration, its callbacks tied to ingest, window and
// drain.
//
// Threads: the functions belong to the thread that starts and stops the process, but for those that say so.
#ifndef SLUICE_GATEWAY_CELL_LINK_H
#define SLUICE_GATEWAY_CELL_LINK_H

#include "gateway/config.h"
#include "gateway/ingest.h"
#include "gateway/window.h"
#include "ha/cell.h"
#include "produce/produce.h"

struct cell_link;

// Of a configuration with peers. Before spool_open. `window`: NULL where dedupe is off.
bool cell_link_new(struct cell_link **out, const struct config *config, struct window *window,
                   struct sl_error *err) SL_MUST_USE;
struct cell *cell_link_cell(struct cell_link *link);
// The least counter that the next stream may have. On a new disk the peers are asked: takes takeover_after at most.
uint64_t cell_link_counter(struct cell_link *link, const char *spool_dir);
// Everything else is there: from now on the node takes part. SL_E_UNAVAILABLE (ha.listen), SL_E_IO.
bool cell_link_start(struct cell_link *link, struct spool *spool, struct ingest *ingest, struct produce *produce,
                     struct sl_error *err) SL_MUST_USE;
// Before produce_stop: the drain gets no more orders.
void cell_link_detach(struct cell_link *link);
// After produce_stop, before window_stop and spool_close: sessions end, no callback comes after it.
void cell_link_stop(struct cell_link *link);
void cell_link_free(struct cell_link *link); // after spool_close; NULL is allowed

// For struct ingest_options: `user` is the link. Any thread.
uint64_t cell_link_two_zones(void *link, const char *stream);
bool cell_link_ready(void *link);

// For struct produce_options' callbacks. Any thread.
void cell_link_on_done(struct cell_link *link, const struct produce_done *done);
void cell_link_on_progress(struct cell_link *link, const char *stream, const char *lane,
                           const struct produce_progress *progress, bool gone);

#endif
