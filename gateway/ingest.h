// The way of an event from a complete HTTP request to a 2xx: parse, validate, encode into the loop's batch, hand the
// batch to the spool at the turn's end, answer when the acknowledgement rule says so.
//
// Threads: one struct ingest serves all loops of one http_server; each loop has its own part. Functions marked "loop
// thread" are http.h callbacks. The rest: any thread.
#ifndef SLUICE_GATEWAY_INGEST_H
#define SLUICE_GATEWAY_INGEST_H

#include "dedupe/dedupe.h"
#include "gateway/http.h"
#include "gateway/routes.h"
#include "gateway/stats.h"
#include "spool/spool.h"

struct ingest;

struct ingest_options {
    struct spool *spool;
    struct stats *stats;
    struct routes *routes; // retained
    uint32_t loop_count;
    // NULL: nothing is deduplicated. Else both outlive the ingest, and requests are answered 503 until
    // ingest_window_complete().
    struct dedupe *dedupe;
    const struct dedupe_key *key;
    // In a cell: through which seq a stream is durable in two zones, or in Kafka, as far as this node knows. Any
    // thread; must be quick. NULL: there is no cell.
    uint64_t (*two_zones)(void *user, const char *stream);
    // Own older streams reach as far as any copy in reach: asked until it says so, and requests are answered 503
    // before. As above.
    bool (*ready)(void *user);
    void *user;
};
bool ingest_new(struct ingest **out, const struct ingest_options *options, struct sl_error *err) SL_MUST_USE;
// Ties the loops of the started server to it. Before it, requests are answered 503. Once, by the thread that started
// the server.
void ingest_attach(struct ingest *ingest, struct http_server *server);
// After http_server_stop() and spool_close(): nothing calls it any more.
void ingest_free(struct ingest *ingest);

// For struct http_options; `user` is the struct ingest. Loop thread.
void ingest_on_request(struct http_request *request, void *user);
void ingest_on_turn_end(struct http_loop *loop, void *user);
void ingest_on_refused(struct http_loop *loop, int status, struct sl_span path, void *user);

// From now on every request is answered 503 (draining); those that were taken are still finished. When it returns, all
// that was taken is with the spool, and no loop calls the spool again. Not on a loop thread; not after
// http_server_stop().
void ingest_refuse_new(struct ingest *ingest);
// Each loop takes the new routes at its next turn; returns when all have (their requests in flight need the old ones no
// more). Not on a loop thread; not after http_server_stop().
void ingest_set_routes(struct ingest *ingest, struct routes *routes);
// Kafka has everything of the stream's lane up to `through`, as a commit or verified progress says. A stream that this
// process did not write, or long ago: nothing happens. Any thread, cheap.
void ingest_note_committed(struct ingest *ingest, const char *stream, const char *lane, uint64_t through);
// Another zone has everything of this process' stream number `incarnation` up to here, durably. Any thread, cheap.
void ingest_note_peer(struct ingest *ingest, uint32_t incarnation, uint64_t peer_synced);

// The window knows everything that it can: requests are taken from now on. Once, any thread.
void ingest_window_complete(struct ingest *ingest);
// Every event of the streams before *incarnation, and of that one through *through, is settled in the window. Any
// thread.
void ingest_settled(const struct ingest *ingest, uint32_t *incarnation, uint64_t *through);
// Everything of a stream is in Kafka through this seq; UINT64_MAX: all of it. `origin`: as the window names the stream.
// Duplicates at the levels az2 and kafka wait for it. Any thread.
void ingest_note_older(struct ingest *ingest, uint32_t origin, const char *stream, uint64_t through);
// dedupe_origin() while requests come: an origin that named another stream before is not mistaken for it. UINT32_MAX:
// too many at once. Any thread.
uint32_t ingest_name_origin(struct ingest *ingest, const char *stream);

// Events taken and not answered yet.
uint64_t ingest_in_flight(const struct ingest *ingest);
// The largest difference that any loop has seen in the sums of stats.h, ever; 0 is right.
uint64_t ingest_conservation_error(const struct ingest *ingest);

#endif
