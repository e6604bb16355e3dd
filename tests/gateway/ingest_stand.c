// The ingest with a real HTTP server, a real spool and a real window of ids, and with positions that the test gives:
// there is no peer and no Kafka. `ingest_stand CONFIG` prints the port, then obeys lines on stdin, each answered "ok":
//
//   peer INCARNATION SEQ                another zone has the stream through SEQ
//   committed INCARNATION LANE SEQ      Kafka has
//   next                                the stream is sealed, the next one is written
//   end
#include "base/clock.h"
#include "gateway/config_internal.h"
#include "gateway/ingest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct parts {
    struct config *config;
    struct spool *spool;
    struct stats *stats;
    struct routes *routes;
    struct dedupe *dedupe;
    struct dedupe_key key;
    struct ingest *ingest;
    struct http_server *server;
};

static void must(bool good, const struct sl_error *err)
{
    if (good)
        return;
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static void start(struct parts *parts, const char *file)
{
    struct sl_error err;
    must(config_load(&parts->config, file, stderr, &err), &err);
    const struct config *config = parts->config;
    struct spool_options spool = {.storage = &storage_posix,
                                  .dir = config->spool.dir,
                                  .node = config->node_name,
                                  .segment_bytes = config->spool.segment_bytes,
                                  .max_bytes = config->spool.max_bytes,
                                  .prepared = config->spool.prepared,
                                  .append_bytes = config->limits.append_bytes,
                                  .lanes = config->lanes,
                                  .lane_count = config->lane_count};
    must(spool_open(&parts->spool, &spool, &err), &err);
    parts->stats = stats_new(config->listen.threads);
    must(routes_new(&parts->routes, parts->config, parts->spool, parts->stats, &err), &err);
    struct dedupe_options dedupe = {
        .memory_bytes = dedupe_memory_min(), .window_ns = 3600 * SL_NS_PER_S, .now_wall_ns = sl_wall_ns()};
    must(dedupe_new(&parts->dedupe, &dedupe, &err), &err);
    dedupe_own_stream(parts->dedupe, spool_stream(parts->spool));
    dedupe_key_derive(&parts->key);
    struct ingest_options ingest = {.spool = parts->spool,
                                    .stats = parts->stats,
                                    .routes = parts->routes,
                                    .loop_count = config->listen.threads,
                                    .dedupe = parts->dedupe,
                                    .key = &parts->key};
    must(ingest_new(&parts->ingest, &ingest, &err), &err);
    ingest_window_complete(parts->ingest);
    struct http_options http = {.name = "ingest",
                                .listeners = config->listen.ingest,
                                .listener_count = config->listen.ingest_count,
                                .loop_count = config->listen.threads,
                                .limits = config->limits.http,
                                .on_request = ingest_on_request,
                                .on_turn_end = ingest_on_turn_end,
                                .on_refused = ingest_on_refused,
                                .user = parts->ingest};
    must(http_server_start(&parts->server, &http, &err), &err);
    ingest_attach(parts->ingest, parts->server);
}

static bool obey(struct parts *parts, const char *line)
{
    struct sl_error err;
    uint32_t incarnation;
    uint64_t seq;
    char lane[64];
    if (sscanf(line, "peer %" SCNu32 " %" SCNu64, &incarnation, &seq) == 2)
        ingest_note_peer(parts->ingest, incarnation, seq);
    else if (sscanf(line, "committed %" SCNu32 " %63s %" SCNu64, &incarnation, lane, &seq) == 3)
        ingest_note_committed(parts->ingest, spool_incarnation_id(parts->spool, incarnation), lane, seq);
    else if (strcmp(line, "next\n") == 0)
        must(spool_next_stream(parts->spool, &err), &err);
    else
        return false;
    return true;
}

static void stop(struct parts *parts)
{
    struct sl_error err;
    ingest_refuse_new(parts->ingest);
    must(spool_close(parts->spool, &err), &err);
    uint64_t wrong = ingest_conservation_error(parts->ingest);
    for (uint32_t i = 0; i < parts->config->listen.threads; i++)
        wrong += stats_check_shard(parts->stats, i);
    http_server_stop(parts->server);
    ingest_free(parts->ingest);
    dedupe_free(parts->dedupe);
    routes_release(parts->routes);
    stats_free(parts->stats);
    config_release(parts->config);
    printf("conservation %" PRIu64 "\n", wrong);
}

int main(int argc, char **argv)
{
    static struct parts parts;
    char line[200];
    if (argc != 2)
        return 2;
    start(&parts, argv[1]);
    printf("%u\n", http_server_port(parts.server, 0));
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL && obey(&parts, line)) {
        puts("ok");
        fflush(stdout);
    }
    stop(&parts);
    return 0;
}
