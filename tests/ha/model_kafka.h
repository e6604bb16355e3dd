// As much of Kafka as a drain needs, in this process: transactional ids with epochs, progress records, and what was
// committed of each stream. Several cells share one.
//
// Threads: any; each drain is a thread of its own, as in produce/.
#ifndef SLUICE_TESTS_HA_MODEL_KAFKA_H
#define SLUICE_TESTS_HA_MODEL_KAFKA_H

#include "ha/cell.h"

struct model_kafka;

struct model_kafka *model_kafka_new(void);
void model_kafka_free(struct model_kafka *kafka);
void model_kafka_reachable(struct model_kafka *kafka, bool reachable);

// One gateway's client of it.
struct model_client;
struct model_client *model_client_new(struct model_kafka *kafka);
// Its drains read this spool, its answers go to this cell.
void model_client_attach(struct model_client *client, struct cell *cell, struct spool *spool);
struct cell_kafka model_client_table(struct model_client *client);
// Ends its drains. With the process dead nothing of it commits any more.
void model_client_free(struct model_client *client);

// Records of the stream that are committed, and how many of them more than once.
uint64_t model_committed(struct model_kafka *kafka, const char *stream);
uint64_t model_doubled(struct model_kafka *kafka, const char *stream);
// Progress of the stream's lane is something else, in the same breath as whoever drains it is fenced.
void model_progress_is(struct model_kafka *kafka, const char *stream, const char *lane, uint64_t through);
// Somebody fences whoever drains the stream's lane and claims it, at one stroke.
void model_rival_claims(struct model_kafka *kafka, const char *stream, const char *lane, const char *drainer);

#endif
