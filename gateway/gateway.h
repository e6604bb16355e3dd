// The process `sluice serve`: what its parts are, how it starts, reloads, drains and ends.
//
// Threads: the main thread starts, reloads and stops everything; the admin endpoint's loop reads. What both touch is
// either constant after the start, atomic, or behind `lock`.
#ifndef SLUICE_GATEWAY_GATEWAY_H
#define SLUICE_GATEWAY_GATEWAY_H

#include "gateway/cell_link.h"
#include "gateway/config.h"
#include "gateway/http.h"
#include "gateway/ingest.h"
#include "gateway/routes.h"
#include "gateway/stats.h"
#include "gateway/window.h"
#include "produce/produce.h"
#include "spool/spool.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

// The exit codes of CONTRACT.md; documented in docs/operations.md.
enum gateway_exit { EXIT_CLEAN = 0, EXIT_CONFIG = 1, EXIT_USAGE = 2, EXIT_SPOOL = 3, EXIT_SYNC = 4 };

enum gateway_phase {
    PHASE_STARTING,
    PHASE_READY,
    PHASE_DRAINING, // not ready any more, but still accepting: the balancer has not noticed yet
    PHASE_CLOSING,  // new requests are refused, those in flight are finished
};

struct gateway {
    struct spool *spool;
    struct produce *produce;
    struct stats *stats;
    struct ingest *ingest;
    struct window *window;  // NULL: dedupe is off. Constant after the start
    struct cell_link *link; // NULL: no peers. Constant after the start
    struct http_server *ingest_server, *admin_server;
    int64_t started_wall_ns, started_ns;
    int wake_fd; // eventfd: written when the main thread should look at the atomics below
    _Atomic int phase;
    _Atomic bool spool_failed;
    char failure[500]; // set before spool_failed

    pthread_mutex_t lock;
    struct routes *routes;  // of the newest configuration; lock
    int64_t loaded_wall_ns; // lock
    char reload_error[500]; // of the last reload, "" when it went well; lock
    json_t *drills;         // the last drills' verdicts (drills.h), NULL: none are known; lock
};

// Runs until a signal or a failure ends it. Returns the exit code.
int gateway_serve(const char *config_file);

// The newest routes, retained: the caller releases them. Any thread.
struct routes *gateway_routes(struct gateway *gateway);
// May the events of a source be acknowledged at their level right now? Any thread. *why is a constant sentence when
// not.
bool gateway_source_ready(struct gateway *gateway, const struct config_source *source, const char **why);
// While any source's can: what the load balancer asks.
bool gateway_ready(struct gateway *gateway);

// ---- admin.c

void admin_on_request(struct http_request *request, void *gateway);

// ---- metrics.c, status.c: the body is malloc'd, the caller frees it; NULL when memory is out

char *metrics_text(struct gateway *gateway, size_t *length);
char *status_json(struct gateway *gateway, size_t *length);
char *ready_json(struct gateway *gateway, bool *ready, size_t *length);

#endif
