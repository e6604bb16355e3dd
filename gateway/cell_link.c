#include "gateway/cell_link.h"

#include "base/log.h"
#include "gateway/cell_kafka.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Of the own stream, kept in memory for peers that fall behind; beyond it they are served from the disk.
enum { TAP_BYTES = 32 << 20 };

struct cell_link {
    struct cell *cell;
    struct cell_drain drain;
    struct window *window;           // NULL: off
    _Atomic(struct ingest *) ingest; // NULL until the start
};

// ---- the replication thread

static void on_positions(void *user, uint32_t incarnation, uint64_t peer_synced)
{
    struct cell_link *link = user;
    ingest_note_peer(atomic_load(&link->ingest), incarnation, peer_synced);
}

static void on_incarnation(void *user, uint32_t incarnation, const char *stream)
{
    (void)user; // the ingest finds out when the first batch of it is durable
    sl_logf(SL_INFO, "serve", "a new stream is written", SL_STR("stream", stream), SL_UINT("incarnation", incarnation));
}

static void on_replica(void *user, const char *stream, uint64_t first_seq, uint32_t count, const void *body,
                       size_t length)
{
    struct cell_link *link = user;
    if (link->window != NULL)
        window_replica(link->window, stream, first_seq, count, body, length);
}

static bool wants_ids(void *user)
{
    struct cell_link *link = user;
    return window_is_live(link->window);
}

static void on_ids(void *user, const char *stream, const struct spool_ids_block *block, uint64_t in_kafka)
{
    struct cell_link *link = user;
    window_ids(link->window, stream, block, in_kafka);
}

// ---- life

bool cell_link_new(struct cell_link **out, const struct config *config, struct window *window, struct sl_error *err)
{
    struct cell_link *link = calloc(1, sizeof(*link));
    if (link == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "the cell");
    link->window = window;
    cell_drain_init(&link->drain);
    struct cell_peer peers[CONFIG_PEERS_MAX];
    for (size_t i = 0; i < config->ha.peer_count; i++)
        peers[i] = (struct cell_peer){
            .name = config->ha.peers[i].name, .zone = config->ha.peers[i].zone, .address = config->ha.peers[i].address};
    struct cell_options options = {
        .node = config->node_name,
        .zone = config->node_zone,
        .cluster = config->node_cluster,
        .peers = peers,
        .peer_count = config->ha.peer_count,
        .listen = config->ha.listen,
        .tls_certificate = config->ha.tls.certificate,
        .tls_key = config->ha.tls.key,
        .tls_ca = config->ha.tls.ca,
        .peer_wait_ns = config->ha.peer_wait_ns,
        .takeover_after_ns = config->ha.takeover_after_ns,
        .turn_ns = config->ha.turn_ns,
        .let_go_after_ns = config->ha.let_go_after_ns,
        .order_wait_ns = config->ha.order_wait_ns,
        .replica_bytes = config->ha.replica_bytes,
        .tap_bytes = TAP_BYTES,
        .kafka = cell_drain_table(&link->drain),
        .on_positions = on_positions,
        .on_incarnation = on_incarnation,
        .on_replica = on_replica,
        .wants_ids = window != NULL ? wants_ids : NULL,
        .on_ids = window != NULL ? on_ids : NULL,
        .user = link,
    };
    if (window != NULL)
        memcpy(options.dedupe_key_id, window_key(window)->id, sizeof(options.dedupe_key_id));
    if (!cell_new(&link->cell, &options, err)) {
        cell_drain_destroy(&link->drain);
        free(link);
        return false;
    }
    *out = link;
    return true;
}

struct cell *cell_link_cell(struct cell_link *link)
{
    return link->cell;
}

uint64_t cell_link_counter(struct cell_link *link, const char *spool_dir)
{
    char counter[PATH_MAX];
    int length = snprintf(counter, sizeof(counter), "%s/counter", spool_dir);
    bool fresh = length < (int)sizeof(counter) && access(counter, F_OK) != 0;
    return cell_counter(link->cell, fresh);
}

bool cell_link_start(struct cell_link *link, struct spool *spool, struct ingest *ingest, struct produce *produce,
                     struct sl_error *err)
{
    atomic_store(&link->ingest, ingest);
    cell_drain_attach(&link->drain, produce);
    return cell_start(link->cell, spool, err);
}

void cell_link_detach(struct cell_link *link)
{
    cell_drain_attach(&link->drain, NULL);
}

void cell_link_stop(struct cell_link *link)
{
    cell_stop(link->cell);
}

void cell_link_free(struct cell_link *link)
{
    if (link == NULL)
        return;
    cell_free(link->cell);
    cell_drain_destroy(&link->drain);
    free(link);
}

// ---- questions and answers

uint64_t cell_link_two_zones(void *user, const char *stream)
{
    struct cell_link *link = user;
    return cell_two_zones(link->cell, stream);
}

bool cell_link_ready(void *user)
{
    struct cell_link *link = user;
    return cell_ready(link->cell);
}

void cell_link_on_done(struct cell_link *link, const struct produce_done *done)
{
    cell_drain_on_done(link->cell, done);
}

void cell_link_on_progress(struct cell_link *link, const char *stream, const char *lane,
                           const struct produce_progress *progress, bool gone)
{
    // A stream of this process that a peer drains now: requests may still wait for what is in Kafka of it.
    struct ingest *ingest = atomic_load(&link->ingest);
    if (ingest != NULL && !gone)
        ingest_note_committed(ingest, stream, lane, progress->through);
    cell_drain_on_progress(link->cell, stream, lane, progress, gone);
}
