// What stands before the thread: options, members, names, the sessions' options, and the question that a node with a
// new disk asks.
#include "ha/cell_internal.h"

#include "base/crc32c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { PEER_OUTPUT_HIGH = 8 << 20, PEER_OUTPUT_LOW = 2 << 20 };

// ---- options

static const char *copy_text(const char *text)
{
    if (text == NULL)
        return NULL;
    char *copy = strdup(text);
    sl_assert(copy != NULL);
    return copy;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct cell_peer *)a)->name, ((const struct cell_peer *)b)->name);
}

// Members in the order of their names, so that all nodes count alike.
static void sort_members(struct cell *cell, const struct cell_options *options)
{
    struct cell_peer all[HA_MEMBERS_MAX] = {{options->node, options->zone, ""}};
    for (size_t i = 0; i < options->peer_count; i++)
        all[i + 1] = options->peers[i];
    cell->members = (uint8_t)(options->peer_count + 1);
    qsort(all, cell->members, sizeof(all[0]), by_name);
    for (uint8_t i = 0; i < cell->members; i++) {
        cell->names[i] = copy_text(all[i].name);
        cell->zones[i] = copy_text(all[i].zone);
        cell->addresses[i] = copy_text(all[i].address);
        if (strcmp(all[i].name, options->node) == 0)
            cell->self = i;
    }
}

static bool check(const struct cell_options *options, struct sl_error *err)
{
    if (options->peer_count == 0 || options->peer_count > CELL_PEERS_MAX)
        return sl_fail(err, SL_E_INVALID, "%zu peers; 1 to %d are possible", options->peer_count, CELL_PEERS_MAX);
    for (size_t i = 0; i < options->peer_count; i++) {
        if (strcmp(options->peers[i].name, options->node) == 0)
            return sl_fail(err, SL_E_INVALID, "peer %s has this node's own name", options->node);
        for (size_t k = 0; k < i; k++)
            if (strcmp(options->peers[i].name, options->peers[k].name) == 0)
                return sl_fail(err, SL_E_INVALID, "two peers are called %s", options->peers[i].name);
    }
    return true;
}

static void free_options(struct cell *cell)
{
    for (uint8_t i = 0; i < cell->members; i++) {
        free((void *)(uintptr_t)cell->names[i]);
        free((void *)(uintptr_t)cell->zones[i]);
        free((void *)(uintptr_t)cell->addresses[i]);
    }
    struct cell_options *options = &cell->options;
    const char *texts[] = {options->cluster, options->listen, options->tls_certificate, options->tls_key,
                           options->tls_ca};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        free((void *)(uintptr_t)texts[i]);
}

bool cell_new(struct cell **out, const struct cell_options *options, struct sl_error *err)
{
    if (!check(options, err))
        return sl_wrap(err, "cell");
    struct cell *cell = calloc(1, sizeof(*cell));
    sl_assert(cell != NULL);
    cell->core = calloc(1, sizeof(*cell->core));
    cell->status = calloc(1, sizeof(*cell->status));
    cell->base = event_base_new();
    cell->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    sl_assert(cell->core != NULL && cell->status != NULL);
    cell->posts_tail = &cell->posts;
    cell->jobs_tail = &cell->jobs;
    pthread_mutex_init(&cell->post_mutex, NULL);
    pthread_mutex_init(&cell->job_mutex, NULL);
    pthread_mutex_init(&cell->status_mutex, NULL);
    pthread_cond_init(&cell->job_wanted, NULL);
    sort_members(cell, options);
    struct cell_options *copy = &cell->options;
    *copy = *options;
    copy->node = cell->names[cell->self];
    copy->zone = cell->zones[cell->self];
    copy->peers = NULL;
    copy->cluster = copy_text(options->cluster);
    copy->listen = copy_text(options->listen);
    copy->tls_certificate = copy_text(options->tls_certificate);
    copy->tls_key = copy_text(options->tls_key);
    copy->tls_ca = copy_text(options->tls_ca);
    if (cell->base == NULL || cell->wake_fd < 0) {
        cell_free(cell);
        return sl_fail(err, SL_E_NO_MEMORY, "cell: event loop");
    }
    *out = cell;
    return true;
}

void cell_free(struct cell *cell)
{
    if (cell == NULL)
        return;
    cell_drop_posts(cell); // what the spool said between cell_stop and its close
    if (cell->base != NULL)
        event_base_free(cell->base);
    if (cell->wake_fd >= 0)
        close(cell->wake_fd);
    pthread_mutex_destroy(&cell->post_mutex);
    pthread_mutex_destroy(&cell->job_mutex);
    pthread_mutex_destroy(&cell->status_mutex);
    pthread_cond_destroy(&cell->job_wanted);
    free_options(cell);
    free(cell->seen);
    free(cell->core);
    free(cell->status);
    free(cell);
}

// ---- names

bool cell_parse(const struct cell *cell, const char *text, struct ha_id *out)
{
    *out = (struct ha_id){0};
    return text[0] != '\0' && ha_id_parse(out, text, cell->names, cell->members);
}

void cell_text(const struct cell *cell, struct ha_id id, char out[SPOOL_STREAM_ID_MAX])
{
    ha_id_text(out, id, cell->names);
}

const char *cell_lane_name(const struct cell *cell, uint32_t lane_id)
{
    for (size_t i = 0; i < cell->lane_name_count; i++)
        if (sl_crc32c(cell->lane_names[i], strlen(cell->lane_names[i])) == lane_id)
            return cell->lane_names[i];
    return "";
}

uint32_t cell_lane_id(struct cell *cell, const char *name)
{
    uint32_t id = sl_crc32c(name, strlen(name));
    if (cell_lane_name(cell, id)[0] == '\0' && cell->lane_name_count < LANE_NAMES)
        snprintf(cell->lane_names[cell->lane_name_count++], sizeof(cell->lane_names[0]), "%s", name);
    return id;
}

void cell_head(struct cell *cell, const struct spool_stream_info *info, struct ha_head *out)
{
    *out = (struct ha_head){.lane_count = info->lane_count};
    for (uint32_t i = 0; i < info->lane_count; i++)
        out->lane_ids[i] = cell_lane_id(cell, info->lanes[i]);
    if (cell_parse(cell, info->predecessor, &out->predecessor))
        out->predecessor_seq = info->predecessor_seq;
}

// ---- sessions

bool cell_listen(struct cell *cell, const struct peers_options *callbacks, struct sl_error *err)
{
    const struct cell_options *options = &cell->options;
    struct peers_options peers = *callbacks;
    peers.base = cell->base;
    peers.self = cell->self;
    peers.members = cell->members;
    memcpy(peers.names, cell->names, sizeof(peers.names));
    memcpy(peers.zones, cell->zones, sizeof(peers.zones));
    memcpy(peers.addresses, cell->addresses, sizeof(peers.addresses));
    peers.listen = options->listen;
    peers.cluster = options->cluster;
    memcpy(peers.dedupe_key_id, options->dedupe_key_id, sizeof(peers.dedupe_key_id));
    peers.tls_certificate = options->tls_certificate;
    peers.tls_key = options->tls_key;
    peers.tls_ca = options->tls_ca;
    peers.silence_ns = options->takeover_after_ns;
    peers.output_high_bytes = PEER_OUTPUT_HIGH;
    peers.output_low_bytes = PEER_OUTPUT_LOW;
    peers.user = cell;
    return peers_start(&cell->peers, &peers, err);
}

// ---- the highest counter, on a new disk

// The first heartbeat of a session names every stream that the peer holds, or recorded as empty.
static void hear_counter(void *user, uint8_t peer, const struct wire_message *message)
{
    struct cell *cell = user;
    if (message->what != WIRE_OF_CORE || message->message.kind != HA_HEARTBEAT)
        return;
    uint64_t highest = 0;
    for (uint32_t i = 0; i < message->message.entry_count; i++) {
        struct ha_id id = message->message.entries[i].stream;
        highest = id.member == cell->self && id.counter > highest ? id.counter : highest;
    }
    cell->counters[peer] = highest + 1;
    for (uint8_t i = 0; i < cell->members; i++)
        if (i != cell->self && cell->counters[i] == 0)
            return;
    event_base_loopbreak(cell->base);
}

static void ignore_up(void *user, uint8_t peer)
{
    (void)user;
    (void)peer;
}

static void ignore_down(void *user, uint8_t peer, const char *why)
{
    (void)user;
    (void)peer;
    (void)why;
}

uint64_t cell_counter(struct cell *cell, bool fresh)
{
    if (!fresh)
        return 0;
    struct sl_error err;
    struct peers_options callbacks = {.on_up = ignore_up, .on_down = ignore_down, .on_message = hear_counter};
    sl_log(SL_INFO, "ha", "a new spool directory: asking the peers for the number of this node's last stream");
    if (!cell_listen(cell, &callbacks, &err)) {
        sl_logf(SL_WARN, "ha", "peers cannot be asked", SL_STR("error", err.text));
        return 0;
    }
    struct timeval most = {.tv_sec = (time_t)(cell->options.takeover_after_ns / SL_NS_PER_S),
                           .tv_usec = (suseconds_t)(cell->options.takeover_after_ns % SL_NS_PER_S / 1000)};
    event_base_loopexit(cell->base, &most);
    event_base_dispatch(cell->base);
    uint64_t highest = 0;
    for (uint8_t i = 0; i < cell->members; i++)
        highest = cell->counters[i] > highest ? cell->counters[i] : highest;
    peers_stop(cell->peers);
    cell->peers = NULL;
    // A loop that was told to end with a timer keeps that timer.
    event_base_free(cell->base);
    cell->base = event_base_new();
    sl_assert(cell->base != NULL);
    return highest;
}
