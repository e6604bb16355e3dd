// `sluice serve`: the life of the process.
//
// Happy path: configuration, spool (a new stream), drain, admin endpoint, ingest endpoint, ready; then signals: SIGHUP
// reloads, SIGTERM and SIGINT drain, a second one ends at once.
//
// Draining: readiness off; accept for drain.accept_for, because the balancer goes on sending until it has noticed; then
// GOAWAY and 503; finish what is in flight; give Kafka the rest until drain.timeout; seal the stream; exit 0. What
// Kafka has not taken stays spooled.
//
// A failed sync: every waiting request is told 503, the process ends with code 4 and the next start opens a new stream.
// Nothing is retried: after an error the kernel may have marked the lost pages clean, and a second sync would report a
// success that is none.
#include "gateway/gateway.h"

#include "gateway/drills.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FAILURE_GRACE_MS = 2000 }; // how long the 503s of a failed sync may take to be written out

// ---- start

static void process_limits(const struct config *config)
{
    umask(077);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files) != 0)
            sl_log(SL_WARN, "serve", "could not raise the limit of open files");
    }
    if (!config->log.core_dumps) {
        // Events in memory are somebody's payments: no dump unless it was asked for.
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        prctl(PR_SET_DUMPABLE, 0);
    }
}

// Writer thread.
static void on_spool_failed(void *user, const struct sl_error *err)
{
    struct gateway *gateway = user;
    snprintf(gateway->failure, sizeof(gateway->failure), "%s", err->text);
    atomic_store_explicit(&gateway->spool_failed, true, memory_order_release);
    uint64_t one = 1;
    ssize_t ignored = write(gateway->wake_fd, &one, sizeof(one));
    (void)ignored;
}

// Writer thread, both; only in a cell.
static void on_frame(void *user, struct spool_frame *frame)
{
    struct gateway *gateway = user;
    cell_on_frame(cell_link_cell(gateway->link), frame);
}

static void on_synced(void *user, uint32_t incarnation, uint64_t through)
{
    struct gateway *gateway = user;
    cell_on_synced(cell_link_cell(gateway->link), incarnation, through);
}

// Drain threads.
static void on_committed(void *user, const char *stream, const char *lane, uint64_t through)
{
    struct gateway *gateway = user;
    ingest_note_committed(gateway->ingest, stream, lane, through);
}

// Drain threads and the reader of progress; only in a cell.
static void on_done(void *user, const struct produce_done *done)
{
    struct gateway *gateway = user;
    cell_link_on_done(gateway->link, done);
}

static void on_progress(void *user, const char *stream, const char *lane, const struct produce_progress *progress,
                        bool gone)
{
    struct gateway *gateway = user;
    cell_link_on_progress(gateway->link, stream, lane, progress, gone);
}

// The key and the memory of the window, if there is one.
static bool open_window(struct gateway *gateway, const struct config *config, struct sl_error *err)
{
    if (config->dedupe.window_ns == 0)
        return true;
    struct window_options options = {
        .storage = &storage_posix,
        .spool_dir = config->spool.dir,
        .key_file = config->dedupe.key_file,
        .window_ns = config->dedupe.window_ns,
        .memory_bytes = config->dedupe.memory_bytes,
        .snapshot_every_ns = config->dedupe.snapshot_every_ns,
    };
    return window_new(&gateway->window, &options, err) || sl_wrap(err, "dedupe");
}

static bool open_spool(struct gateway *gateway, const struct config *config, struct sl_error *err)
{
    struct spool_options options = {
        .storage = &storage_posix,
        .dir = config->spool.dir,
        .node = config->node_name,
        .segment_bytes = config->spool.segment_bytes,
        .max_bytes = config->spool.max_bytes,
        .retain_ns = config->spool.retain_ns,
        .prepared = config->spool.prepared,
        .append_bytes = config->limits.append_bytes,
        .lanes = config->lanes,
        .lane_count = config->lane_count,
        .on_failed = on_spool_failed,
        .user = gateway,
    };
    if (gateway->window != NULL) {
        memcpy(options.ids_key_id, window_key(gateway->window)->id, sizeof(options.ids_key_id));
        options.ids_window_ns = config->dedupe.window_ns;
    }
    if (gateway->link != NULL) {
        options.on_frame = on_frame;
        options.on_synced = on_synced;
        options.counter_min = cell_link_counter(gateway->link, config->spool.dir) + 1;
    }
    return spool_open(&gateway->spool, &options, err);
}

static size_t topics_of(const struct config *config, struct produce_topic **out)
{
    struct produce_topic *topics = calloc(config->source_count + 1, sizeof(*topics));
    sl_assert(topics != NULL);
    for (size_t i = 0; i < config->source_count; i++)
        topics[i] = (struct produce_topic){.name = config->sources[i]->topic, .lane = config->sources[i]->lane};
    *out = topics;
    return config->source_count;
}

static bool start_produce(struct gateway *gateway, const struct config *config, struct sl_error *err)
{
    struct produce_property *properties = calloc(config->kafka.property_count + 1, sizeof(*properties));
    sl_assert(properties != NULL);
    for (size_t i = 0; i < config->kafka.property_count; i++)
        properties[i] = (struct produce_property){config->kafka.properties[i].name, config->kafka.properties[i].value};
    struct produce_topic *topics;
    size_t topic_count = topics_of(config, &topics);
    struct produce_options options = {
        .spool = gateway->spool,
        .node = config->node_name,
        .cluster = config->node_cluster,
        .brokers = config->kafka.embedded ? NULL : config->kafka.brokers,
        .embedded_partitions = config->kafka.embedded_partitions,
        .properties = properties,
        .property_count = config->kafka.property_count,
        .transactional = config->kafka.transactional,
        .transaction_time_ns = config->kafka.transaction_time_ns,
        .queue_events = config->kafka.queue_events,
        .queue_bytes = config->kafka.queue_bytes,
        .topics = topics,
        .topic_count = topic_count,
        .lanes = config->lanes,
        .lane_count = config->lane_count,
        .on_committed = on_committed,
        .user = gateway,
    };
    if (gateway->link != NULL) {
        options.driven = true;
        options.takeover_after_ns = config->ha.takeover_after_ns;
        options.on_done = on_done;
        options.on_progress = on_progress;
    }
    bool started = produce_start(&gateway->produce, &options, err);
    free(properties);
    free(topics);
    return started;
}

static bool start_ingest(struct gateway *gateway, const struct config *config, struct sl_error *err)
{
    struct http_options options = {
        .name = "ingest",
        .listeners = config->listen.ingest,
        .listener_count = config->listen.ingest_count,
        .proxy_protocol = config->listen.proxy_protocol,
        .tls = config->tls,
        .loop_count = config->listen.threads,
        .limits = config->limits.http,
        .on_request = ingest_on_request,
        .on_turn_end = ingest_on_turn_end,
        .on_refused = ingest_on_refused,
        .user = gateway->ingest,
    };
    if (!http_server_start(&gateway->ingest_server, &options, err))
        return sl_wrap(err, "ingest endpoint");
    ingest_attach(gateway->ingest, gateway->ingest_server);
    return true;
}

static bool start_admin(struct gateway *gateway, const struct config *config, struct sl_error *err)
{
    if (config->listen.admin == NULL)
        return true;
    struct http_listener listener = {.address = config->listen.admin, .tls = false};
    struct http_options options = {
        .name = "admin",
        .listeners = &listener,
        .listener_count = 1,
        .loop_count = 1,
        .limits = http_limits_default(),
        .on_request = admin_on_request,
        .user = gateway,
    };
    options.limits.body_bytes = 64 << 10;
    options.limits.unfinished_bytes_connection = 128 << 10;
    options.limits.unfinished_bytes = 1 << 20;
    if (!http_server_start(&gateway->admin_server, &options, err))
        return sl_wrap(err, "admin endpoint");
    return true;
}

static void log_ready(struct gateway *gateway, const struct config *config)
{
    for (size_t i = 0; i < config->listen.ingest_count; i++)
        sl_logf(SL_INFO, "serve", "listening for events", SL_STR("address", config->listen.ingest[i].address),
                SL_UINT("port", http_server_port(gateway->ingest_server, i)),
                SL_BOOL("tls", config->listen.ingest[i].tls),
                SL_STR("proxy_protocol", proxy_version_word(http_server_proxy_protocol(gateway->ingest_server, i))));
    if (gateway->link != NULL)
        sl_logf(SL_INFO, "serve", "listening for peers", SL_STR("address", config->ha.listen),
                SL_UINT("port", cell_port(cell_link_cell(gateway->link))));
    if (gateway->admin_server != NULL)
        sl_logf(SL_INFO, "serve", "admin endpoint", SL_STR("address", config->listen.admin),
                SL_UINT("port", http_server_port(gateway->admin_server, 0)));
    sl_logf(SL_INFO, "serve", "ready", SL_STR("version", SLUICE_VERSION), SL_STR("node", config->node_name),
            SL_STR("stream", spool_stream(gateway->spool)), SL_STR("brokers", produce_brokers(gateway->produce)),
            SL_UINT("sources", config->source_count),
            SL_REAL("start_ms", (double)(sl_monotonic_ns() - gateway->started_ns) / 1e6));
}

// A file that cannot be read changes nothing of what is known, and stops nothing.
static void read_drills(struct gateway *gateway, const char *spool_dir)
{
    struct sl_error err;
    json_t *drills;
    if (!drills_read(spool_dir, &drills, &err)) {
        sl_logf(SL_WARN, "serve", "the last drills' verdicts cannot be read", SL_STR("error", err.text));
        return;
    }
    pthread_mutex_lock(&gateway->lock);
    json_t *old = gateway->drills;
    gateway->drills = drills;
    pthread_mutex_unlock(&gateway->lock);
    json_decref(old);
}

static int start(struct gateway *gateway, struct config *config, struct sl_error *err)
{
    if (!open_window(gateway, config, err))
        return err->code == SL_E_IO ? EXIT_SPOOL : EXIT_CONFIG;
    if (config->ha.peer_count > 0 && !cell_link_new(&gateway->link, config, gateway->window, err))
        return EXIT_CONFIG;
    if (!open_spool(gateway, config, err)) {
        sl_wrap(err, "spool %s", config->spool.dir);
        return EXIT_SPOOL;
    }
    gateway->stats = stats_new(config->listen.threads);
    sl_assert(gateway->stats != NULL);
    if (!routes_new(&gateway->routes, config, gateway->spool, gateway->stats, err))
        return EXIT_CONFIG;
    struct ingest_options options = {.spool = gateway->spool,
                                     .stats = gateway->stats,
                                     .routes = gateway->routes,
                                     .loop_count = config->listen.threads};
    if (gateway->window != NULL) {
        options.dedupe = window_dedupe(gateway->window);
        options.key = window_key(gateway->window);
    }
    if (gateway->link != NULL) {
        options.two_zones = cell_link_two_zones;
        options.ready = cell_link_ready;
        options.ready = cell_link_ready;
        options.user = gateway->link;
    }
    if (!ingest_new(&gateway->ingest, &options, err))
        return EXIT_CONFIG;
    gateway->loaded_wall_ns = sl_wall_ns();
    if (gateway->window != NULL && !window_start(gateway->window, gateway->spool, gateway->ingest, err))
        return EXIT_CONFIG;
    read_drills(gateway, config->spool.dir);
    if (!start_produce(gateway, config, err) || !start_ingest(gateway, config, err) ||
        !start_admin(gateway, config, err))
        return EXIT_CONFIG;
    if (gateway->link != NULL &&
        !cell_link_start(gateway->link, gateway->spool, gateway->ingest, gateway->produce, err))
        return EXIT_CONFIG;
    atomic_store(&gateway->phase, PHASE_READY);
    log_ready(gateway, config);
    return EXIT_CLEAN;
}

// ---- end

static void free_parts(struct gateway *gateway)
{
    ingest_free(gateway->ingest);
    cell_link_free(gateway->link);
    window_free(gateway->window);
    routes_release(gateway->routes);
    stats_free(gateway->stats);
    json_decref(gateway->drills);
    close(gateway->wake_fd);
    pthread_mutex_destroy(&gateway->lock);
}

// Stops what was started. Who calls ends before who is called: the drain and the spool's writer post to the ingest
// loops, so the loops go last. Nothing new reaches the spool by then (ingest_refuse_new). Waits for Kafka until
// deadline_ns.
static int stop(struct gateway *gateway, int64_t deadline_ns)
{
    int code = EXIT_CLEAN;
    // From here on the parts that the admin endpoint reads go away.
    if (gateway->admin_server != NULL)
        http_server_stop(gateway->admin_server);
    gateway->admin_server = NULL;
    if (gateway->link != NULL)
        cell_link_detach(gateway->link);
    if (gateway->produce != NULL)
        produce_stop(gateway->produce, deadline_ns);
    gateway->produce = NULL;
    if (gateway->link != NULL)
        cell_link_stop(gateway->link);
    if (gateway->window != NULL)
        window_stop(gateway->window);
    if (gateway->spool != NULL) {
        struct spool_figures figures;
        spool_figures(gateway->spool, &figures);
        struct sl_error err;
        if (!spool_close(gateway->spool, &err)) {
            sl_logf(SL_ERROR, "serve", "the last writes of the spool failed", SL_STR("error", err.text));
            code = EXIT_SYNC;
        }
        sl_logf(SL_INFO, "serve", "stopped", SL_UINT("pending_events", figures.pending_events));
    }
    if (gateway->ingest_server != NULL)
        http_server_stop(gateway->ingest_server);
    gateway->ingest_server = NULL;
    return code;
}

// ---- reload

static bool reload(struct gateway *gateway, struct sl_error *err)
{
    struct config *config;
    if (!config_reload(&config, routes_config(gateway->routes), stderr, err))
        return false;
    struct produce_topic *topics;
    size_t topic_count = topics_of(config, &topics);
    bool good = true;
    for (size_t i = 0; good && i < config->lane_count; i++)
        good = spool_declare_lane(gateway->spool, config->lanes[i], err);
    good = good && produce_update(gateway->produce, topics, topic_count, config->lanes, config->lane_count, err);
    struct routes *routes = NULL;
    good = good && routes_new(&routes, config, gateway->spool, gateway->stats, err);
    free(topics);
    config_release(config);
    if (!good)
        return false;
    ingest_set_routes(gateway->ingest, routes);
    pthread_mutex_lock(&gateway->lock);
    struct routes *old = gateway->routes;
    gateway->routes = routes;
    gateway->loaded_wall_ns = sl_wall_ns();
    pthread_mutex_unlock(&gateway->lock);
    routes_release(old);
    return true;
}

static void on_reload(struct gateway *gateway)
{
    read_drills(gateway, routes_config(gateway->routes)->spool.dir);
    struct sl_error err = {.text = ""};
    bool good = reload(gateway, &err);
    pthread_mutex_lock(&gateway->lock);
    snprintf(gateway->reload_error, sizeof(gateway->reload_error), "%s", good ? "" : err.text);
    pthread_mutex_unlock(&gateway->lock);
    if (good)
        sl_logf(SL_INFO, "serve", "configuration reloaded", SL_UINT("sources", routes_count(gateway->routes)));
    else
        sl_logf(SL_ERROR, "serve", "reload refused; the old configuration stays", SL_STR("error", err.text));
}

// ---- signals

// Waits for a signal or a failure for at most timeout_ms (-1: for ever). Returns the signal, or 0.
static int wait_for_signal(struct gateway *gateway, int signal_fd, int timeout_ms)
{
    struct pollfd fds[2] = {{.fd = signal_fd, .events = POLLIN}, {.fd = gateway->wake_fd, .events = POLLIN}};
    if (poll(fds, 2, timeout_ms) <= 0 || (fds[0].revents & POLLIN) == 0)
        return 0;
    struct signalfd_siginfo info;
    return read(signal_fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}

static bool spool_failed(struct gateway *gateway)
{
    return atomic_load_explicit(&gateway->spool_failed, memory_order_acquire);
}

static bool never(struct gateway *gateway)
{
    (void)gateway;
    return false;
}

static bool is_idle(struct gateway *gateway)
{
    return http_server_requests(gateway->ingest_server) == 0 && ingest_in_flight(gateway->ingest) == 0;
}

static bool is_drained(struct gateway *gateway)
{
    struct spool_figures figures;
    spool_figures(gateway->spool, &figures);
    return figures.pending_events == 0;
}

// Waits until `done` or the time. True: go on with the drain. False: the spool failed. A second signal ends the process
// here.
static bool wait_while_draining(struct gateway *gateway, int signal_fd, int64_t until_ns,
                                bool (*done)(struct gateway *))
{
    enum { LOOK_EVERY_MS = 10 };
    for (;;) {
        int64_t left_ms = (until_ns - sl_monotonic_ns()) / SL_NS_PER_MS;
        if (left_ms <= 0 || done(gateway))
            return true;
        int signal_number = wait_for_signal(gateway, signal_fd, left_ms > LOOK_EVERY_MS ? LOOK_EVERY_MS : (int)left_ms);
        if (signal_number == SIGTERM || signal_number == SIGINT) {
            sl_log(SL_WARN, "serve", "second signal: ending at once; what was acknowledged is in the spool");
            _exit(128 + signal_number);
        }
        if (spool_failed(gateway))
            return false;
    }
}

static int drain(struct gateway *gateway, int signal_fd)
{
    const struct config *config = routes_config(gateway->routes);
    int64_t now_ns = sl_monotonic_ns();
    int64_t deadline_ns = now_ns + config->drain.timeout_ns;
    int64_t accept_until_ns = now_ns + config->drain.accept_for_ns;
    if (accept_until_ns > deadline_ns)
        accept_until_ns = deadline_ns;
    sl_logf(SL_INFO, "serve", "draining", SL_INT("accept_for_ms", config->drain.accept_for_ns / SL_NS_PER_MS),
            SL_INT("timeout_ms", config->drain.timeout_ns / SL_NS_PER_MS));
    atomic_store(&gateway->phase, PHASE_DRAINING);
    if (wait_while_draining(gateway, signal_fd, accept_until_ns, never)) {
        atomic_store(&gateway->phase, PHASE_CLOSING);
        ingest_refuse_new(gateway->ingest);
        http_server_close_gracefully(gateway->ingest_server);
        if (wait_while_draining(gateway, signal_fd, deadline_ns, is_idle)) {
            if (gateway->window != NULL)
                window_stop_begin(gateway->window, true); // nothing comes in any more: the last snapshot has it all
            wait_while_draining(gateway, signal_fd, deadline_ns, is_drained);
        }
    }
    return spool_failed(gateway) ? EXIT_SYNC : stop(gateway, deadline_ns);
}

static int fail_stop(struct gateway *gateway)
{
    sl_logf(SL_ERROR, "serve",
            "the spool has failed: nothing more is acknowledged, this process ends; acknowledged events are "
            "safe in the spool and are drained at the next start. Check the disk first.",
            SL_STR("error", gateway->failure));
    atomic_store(&gateway->phase, PHASE_CLOSING);
    ingest_refuse_new(gateway->ingest);
    // The waiting requests get their 503; then nothing is worth waiting for.
    int64_t until_ns = sl_monotonic_ns() + FAILURE_GRACE_MS * SL_NS_PER_MS;
    while (http_server_requests(gateway->ingest_server) > 0 && sl_monotonic_ns() < until_ns) {
        struct timespec moment = {.tv_nsec = 5 * SL_NS_PER_MS};
        nanosleep(&moment, NULL);
    }
    // No orderly end: the drain and the spool may hang on the same disk. The kernel takes the rest.
    _exit(EXIT_SYNC);
}

static int run(struct gateway *gateway, int signal_fd)
{
    for (;;) {
        int signal_number = wait_for_signal(gateway, signal_fd, -1);
        if (spool_failed(gateway))
            return fail_stop(gateway);
        if (signal_number == SIGHUP)
            on_reload(gateway);
        if (signal_number == SIGTERM || signal_number == SIGINT) {
            int code = drain(gateway, signal_fd);
            return spool_failed(gateway) ? fail_stop(gateway) : code;
        }
    }
}

int gateway_serve(const char *config_file)
{
    struct sl_error err;
    struct config *config;
    if (!config_load(&config, config_file, stderr, &err))
        return EXIT_CONFIG;
    sl_log_configure(config->log.json, config->log.level);
    process_limits(config);

    // Every thread inherits this mask: signals are read by the main thread alone.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    sl_assert(signal_fd >= 0);

    static struct gateway gateway;
    gateway.started_wall_ns = sl_wall_ns();
    gateway.started_ns = sl_monotonic_ns();
    gateway.wake_fd = eventfd(0, EFD_CLOEXEC);
    sl_assert(gateway.wake_fd >= 0);
    pthread_mutex_init(&gateway.lock, NULL);

    int code = start(&gateway, config, &err);
    config_release(config);
    if (code == EXIT_CLEAN)
        code = run(&gateway, signal_fd);
    else {
        sl_logf(SL_ERROR, "serve", "could not start", SL_STR("error", err.text), SL_INT("exit_code", code));
        if (gateway.ingest_server != NULL)
            ingest_refuse_new(gateway.ingest);
        stop(&gateway, 0);
    }
    free_parts(&gateway);
    close(signal_fd);
    return code;
}

// ---- what the admin endpoint asks

struct routes *gateway_routes(struct gateway *gateway)
{
    pthread_mutex_lock(&gateway->lock);
    struct routes *routes = routes_retain(gateway->routes);
    pthread_mutex_unlock(&gateway->lock);
    return routes;
}
