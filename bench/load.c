// The loop, and the end of a run. README.md explains what is measured and how.
#include "bench/load.h"

#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

enum { EVENTS_AT_ONCE = 256 };

const char *const load_cause_words[] = {
#define X(name, word) word,
    LOAD_CAUSES(X)
#undef X
};

static volatile sig_atomic_t stops; // SIGINT, SIGTERM: the first ends sending, the second everything

static void on_signal(int number)
{
    (void)number;
    stops++;
}

// ---- the loop

static void dispatch(struct load *load)
{
    while (load->ready_head != NULL) {
        struct load_connection *connection = load_connection_ready(load);
        if (connection == NULL)
            return;
        struct load_request *request = load_request_next(load);
        if (request == NULL)
            return;
        load_connection_submit(connection, request);
    }
}

static bool unconnected(const struct load *load)
{
    return load->options.fail_unconnected && load->ready_head == NULL && load_connections_up(load) == 0;
}

// Sends what is due and for which there is room.
static void send_due(struct load *load)
{
    dispatch(load);
    if (!unconnected(load))
        return;
    for (struct load_request *request; (request = load_request_next(load)) != NULL;)
        load_request_done(load, request, &load->connections[0], LOAD_CAUSE_CONNECT);
}

static void wait_and_handle(struct load *load, int64_t until_ns)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int64_t wait_ns = until_ns > load->now_ns ? until_ns - load->now_ns : 0;
    const struct timespec timeout = {.tv_sec = wait_ns / SL_NS_PER_S, .tv_nsec = wait_ns % SL_NS_PER_S};
    int count = epoll_pwait2(load->epoll_fd, events, EVENTS_AT_ONCE, &timeout, NULL);
    load->now_ns = sl_monotonic_ns();
    for (int i = 0; i < count; i++)
        load_connection_event((struct load_connection *)events[i].data.ptr, events[i].events);
}

static void open_window(struct load *load)
{
    load->measuring = true;
    load->measure_start_ns = load->now_ns;
    load->measure_acked_start = load->counts.acked;
    load->measure_answered_start = load->counts.attempts_answered;
    load->cpu_start_us = load_cpu_us();
}

static void close_window(struct load *load, int64_t end_ns)
{
    load->measuring = false;
    load->measure_end_ns = end_ns;
    load->measure_acked_end = load->counts.acked;
    load->measure_answered_end = load->counts.attempts_answered;
    load->cpu_end_us = load_cpu_us();
}

static void stop_issuing(struct load *load, int64_t end_ns)
{
    load->issuing = false;
    load->issue_end_ns = end_ns;
    // A run of a number of events is over when the last is answered; a run of some seconds, when they have passed.
    if (load->options.events == 0)
        close_window(load, load->now_ns);
}

static void tick(struct load *load)
{
    load_connections_tick(load);
    if (load->history != NULL)
        history_flush(load->history);
    if (load->options.interval_ns > 0 && load->now_ns >= load->interval_end_ns)
        load_report_interval(load);
}

static void connect_all(struct load *load)
{
    int64_t end_ns = load->now_ns + load->options.wait_ns;
    // All of them, so that none of the first requests waits for a handshake; but a second is enough for that.
    int64_t enough_ns = load->now_ns + SL_NS_PER_S;
    while (stops == 0 && load->now_ns < end_ns) {
        uint32_t up = load_connections_up(load);
        if (up == load->options.connections || (up > 0 && load->now_ns > enough_ns))
            return;
        load_connections_flush(load);
        wait_and_handle(load, load->now_ns + LOAD_TICK_MS * SL_NS_PER_MS);
        load_connections_tick(load);
    }
}

static void start(struct load *load)
{
    load->now_ns = sl_monotonic_ns();
    load->start_ns = load->now_ns;
    load->wall_offset_ns = sl_wall_ns() - load->now_ns;
    load->interval_end_ns = load->now_ns + load->options.interval_ns;
    load->measure_start_ns = load->now_ns + load->options.warmup_ns;
    load->issuing = true;
    if (load->options.warmup_ns == 0)
        open_window(load);
}

// What the clock decides: windows, the end of sending. False when the run is over.
static bool advance(struct load *load)
{
    const struct load_options *options = &load->options;
    bool sending = load->issue_end_ns == 0;
    if (sending && !load->measuring && load->now_ns >= load->measure_start_ns)
        open_window(load);
    bool time_up = load->now_ns >= load_end_ns(load);
    if (sending && (time_up || stops > 0 || !load->issuing)) {
        send_due(load); // what remains unsent is what there was no room for
        stop_issuing(load, time_up ? load_end_ns(load) : load->now_ns);
        sending = false;
    }
    return sending || (load->outstanding > 0 && stops < 2 && load->now_ns - load->issue_end_ns < options->drain_ns);
}

static void run(struct load *load)
{
    start(load);
    int64_t tick_ns = load->now_ns + LOAD_TICK_MS * SL_NS_PER_MS;
    while (advance(load)) {
        send_due(load);
        load_connections_flush(load);
        int64_t until_ns = tick_ns;
        int64_t due_ns = load->ready_head != NULL || unconnected(load) ? load_request_due_ns(load) : INT64_MAX;
        int64_t end_ns = load->issue_end_ns == 0 ? load_end_ns(load) : INT64_MAX;
        until_ns = due_ns < until_ns ? due_ns : until_ns;
        until_ns = end_ns < until_ns ? end_ns : until_ns;
        wait_and_handle(load, until_ns);
        if (load->now_ns >= tick_ns) {
            tick(load);
            tick_ns = load->now_ns + LOAD_TICK_MS * SL_NS_PER_MS;
        }
    }
    load_connections_give_up(load);
    load_requests_give_up(load);
    if (load->measure_end_ns == 0)
        close_window(load, load->last_ack_ns > load->measure_start_ns ? load->last_ack_ns : load->now_ns);
}

static bool run_all(struct load *load, struct sl_error *err)
{
    const struct load_options *options = &load->options;
    const struct history_run described = {.run = options->run,
                                          .url = options->urls[0].text,
                                          .events_per_request = options->batch,
                                          .ordered = options->ordered,
                                          .retry = options->retry};
    load->epoll_fd = -1;
    load->now_ns = sl_monotonic_ns();
    load->live = options->live_path == NULL ? stderr : fopen(options->live_path, "ae");
    if (load->live == NULL)
        return sl_fail_errno(err, SL_E_IO, errno, "open %s", options->live_path);
    bool good = load_requests_create(load, err) && load_connections_create(load, err) &&
                (options->history_path == NULL || history_open(&load->history, options->history_path, &described, err));
    if (!good)
        return false;
    connect_all(load);
    if (load_connections_up(load) == 0)
        return sl_fail(err, SL_E_UNAVAILABLE, "no connection to %s", options->urls[0].text);
    run(load);
    load_report_summary(load);
    const struct history_totals totals = {.events = load->counts.events,
                                          .acked = load->counts.acked,
                                          .refused = load->counts.refused,
                                          .open = load->counts.open,
                                          .not_sent = load_requests_not_sent(load)};
    struct history *history = load->history;
    load->history = NULL;
    return history_close(history, &totals, err);
}

int load_execute(const struct load_options *options, struct load_source *source)
{
    static struct load load; // its staging buffer is too large for a stack
    load.options = *options;
    load.source = source;
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL); // the default of 50 µs would be in every latency of an open loop
    struct sl_error err;
    bool good = run_all(&load, &err);
    if (!good)
        fprintf(stderr, "%s: %s\n", load_program, err.text);
    load_connections_destroy(&load);
    load_requests_destroy(&load);
    if (load.live != NULL && load.live != stderr)
        fclose(load.live);
    if (!good)
        return EXIT_FAILURE;
    return load.counts.acked == 0 ? LOAD_EXIT_NO_ANSWER : EXIT_SUCCESS;
}
