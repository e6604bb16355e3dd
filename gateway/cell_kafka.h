// The drain as a cell wants it (ha/cell.h), out of produce's orders (produce/drain.h): neither folder knows the other.
//
// Threads: the cell's replication thread orders; produce's threads answer; the main thread attaches and detaches. An
// order while nothing is attached is dropped: the cell hears no answer, as of a Kafka that is away.
#ifndef SLUICE_GATEWAY_CELL_KAFKA_H
#define SLUICE_GATEWAY_CELL_KAFKA_H

#include "ha/cell.h"
#include "produce/produce.h"

#include <pthread.h>

struct cell_drain {
    pthread_mutex_t lock;
    struct produce *produce; // lock; NULL: not there yet, or not any more
    bool reachable;          // lock; as it was last
};
void cell_drain_init(struct cell_drain *drain);
void cell_drain_destroy(struct cell_drain *drain);
// For struct cell_options; `drain` lives as long as the cell.
struct cell_kafka cell_drain_table(struct cell_drain *drain);
// When detaching (NULL) returns, nothing calls produce any more.
void cell_drain_attach(struct cell_drain *drain, struct produce *produce);

// produce's callbacks, as the cell wants them.
void cell_drain_on_done(struct cell *cell, const struct produce_done *done);
void cell_drain_on_progress(struct cell *cell, const char *stream, const char *lane,
                            const struct produce_progress *progress, bool gone);

#endif
