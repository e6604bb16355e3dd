// An event loop: one thread, one h2o context.
//
// A turn: sleep until a socket is ready, a task was posted or a timer is due; run h2o's callbacks (requests reach the
// user here) and h2o's timers (answers are written here); run what was posted; run our own timers and the sweep; tell
// the user that the turn is over.
//
// Posting is a push onto a stack that the loop takes as a whole and turns round, so that tasks run in the order of the
// posts; only the push onto an empty stack wakes the loop.
#include "gateway/http_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SWEEP_NS SL_NS_PER_S

enum { WAIT_MS_MAX = 1000, FINISH_TURNS_MAX = 1000 };

uint32_t http_loop_index(const struct http_loop *loop)
{
    return loop->index;
}

int64_t http_loop_now_ns(const struct http_loop *loop)
{
    if (loop->now_ns == 0)
        ((struct http_loop *)(uintptr_t)loop)->now_ns = sl_monotonic_ns(); // a cache: const to whoever asks
    return loop->now_ns;
}

// ---- posting

static void wake(struct http_loop *loop)
{
    uint64_t one = 1;
    ssize_t written;
    do {
        written = write(loop->wake_fd, &one, sizeof(one));
    } while (written == -1 && errno == EINTR);
    sl_assert(written == sizeof(one) || errno == EAGAIN); // EAGAIN: it is awake already
}

void http_loop_post(struct http_loop *loop, struct http_task *task)
{
    struct http_task *newest = atomic_load_explicit(&loop->posted, memory_order_relaxed);
    do {
        task->next = newest;
    } while (!atomic_compare_exchange_weak_explicit(&loop->posted, &newest, task, memory_order_acq_rel,
                                                    memory_order_relaxed));
    if (newest == NULL)
        wake(loop);
}

static void run_posted(struct http_loop *loop)
{
    struct http_task *newest = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acquire), *oldest = NULL;
    while (newest != NULL) {
        struct http_task *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct http_task *next = oldest->next; // the task may be freed, or posted again, by its own run
        oldest->run(oldest);
        oldest = next;
    }
}

static void on_wake(h2o_socket_t *sock, const char *err)
{
    sl_assert(err == NULL);
    h2o_buffer_consume(&sock->input, sock->input->size);
    run_posted(sock->data);
}

static void on_shed(struct http_task *task)
{
    struct http_loop *loop = H2O_STRUCT_FROM_MEMBER(struct http_loop, shed_task, task);
    atomic_store(&loop->shed_wanted, false);
    loop->budget_next = 0;
    http_budget_enforce(loop);
}

// ---- timers

struct every_task {
    struct http_task task;
    struct http_loop *loop;
    struct http_loop_timer timer;
};

static void on_every(struct http_task *task)
{
    struct every_task *every = H2O_STRUCT_FROM_MEMBER(struct every_task, task, task);
    struct http_loop *loop = every->loop;
    sl_assert(loop->timer_count < HTTP_TIMERS_MAX);
    every->timer.next_ns = http_loop_now_ns(loop) + every->timer.interval_ns;
    loop->timers[loop->timer_count++] = every->timer;
    free(every);
}

void http_loop_every(struct http_loop *loop, int64_t interval_ns, void (*run)(struct http_loop *loop, void *user),
                     void *user)
{
    sl_assert(interval_ns >= SL_NS_PER_MS);
    struct every_task *every = h2o_mem_alloc(sizeof(*every));
    *every = (struct every_task){
        .task = {.run = on_every}, .loop = loop, .timer = {.interval_ns = interval_ns, .run = run, .user = user}};
    http_loop_post(loop, &every->task);
}

// Runs what is due and returns when the next is.
static int64_t run_timers(struct http_loop *loop)
{
    int64_t now_ns = http_loop_now_ns(loop);
    if (now_ns >= loop->sweep_ns) {
        loop->sweep_ns = now_ns + SWEEP_NS;
        http_sweep(loop);
    }
    int64_t next_ns = loop->sweep_ns;
    for (uint32_t i = 0; i < loop->timer_count; i++) {
        struct http_loop_timer *timer = &loop->timers[i];
        if (now_ns >= timer->next_ns) {
            timer->next_ns = now_ns + timer->interval_ns;
            timer->run(loop, timer->user);
        }
        if (timer->next_ns < next_ns)
            next_ns = timer->next_ns;
    }
    return next_ns;
}

// ---- turns

// Until the next timer, rounded up, so that a timer is due when the sleep ends.
static int32_t wait_ms(struct http_loop *loop, int32_t most_ms)
{
    int64_t now_ns = sl_monotonic_ns(), next_ns = loop->sweep_ns;
    for (uint32_t i = 0; i < loop->timer_count; i++)
        if (loop->timers[i].next_ns < next_ns)
            next_ns = loop->timers[i].next_ns;
    if (next_ns <= now_ns)
        return 0;
    int64_t until_ms = (next_ns - now_ns + SL_NS_PER_MS - 1) / SL_NS_PER_MS;
    return until_ms < most_ms ? (int32_t)until_ms : most_ms;
}

void http_loop_turn(struct http_loop *loop, int32_t wait_ms_max)
{
    int32_t wait = wait_ms(loop, wait_ms_max);
    loop->now_ns = 0; // read afresh by whoever asks first, after the sleep
    if (h2o_evloop_run(loop->evloop, wait) != 0)
        sl_assert(errno == EINTR);
    run_timers(loop);
    if (loop->server->options.on_turn_end != NULL)
        loop->server->options.on_turn_end(loop, loop->server->options.user);
}

void http_loop_finish(struct http_loop *loop)
{
    int turns = 0;
    run_posted(loop);
    http_proxy_close_all(loop);
    for (; loop->conns != NULL && turns < FINISH_TURNS_MAX; turns++) {
        http_conn_close_all(loop);
        http_loop_turn(loop, 5);
    }
    sl_assert(loop->conns == NULL && loop->proxy_waits == NULL);
    http_linger_sweep(loop, INT64_MAX);
    run_posted(loop);
    http_loop_turn(loop, 0); // h2o frees closed sockets at the beginning of the next turn
}

static void *loop_main(void *argument)
{
    struct http_loop *loop = argument;
    char name[16];
    snprintf(name, sizeof(name), "%.9s-%u", loop->server->options.name, loop->index % 1000);
    pthread_setname_np(pthread_self(), name);
    sigset_t all; // signals, SIGPIPE too, are the main thread's
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    http_loop_open(loop);
    while (!loop->stop)
        http_loop_turn(loop, WAIT_MS_MAX);
    http_loop_finish(loop);
    http_loop_close(loop);
    return NULL;
}

// ---- life

struct stop_task {
    struct http_task task;
    struct http_loop *loop;
};

static void on_stop(struct http_task *task)
{
    struct stop_task *stop = H2O_STRUCT_FROM_MEMBER(struct stop_task, task, task);
    stop->loop->stop = true;
    free(stop);
}

bool http_loop_prepare(struct http_loop *loop, struct http_server *server, uint32_t index, struct sl_error *err)
{
    memset(loop, 0, sizeof(*loop));
    loop->server = server;
    loop->index = index;
    loop->shed_task.run = on_shed;
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return loop->wake_fd != -1 || sl_fail_errno(err, SL_E_IO, errno, "eventfd");
}

void http_loop_open(struct http_loop *loop)
{
    struct http_server *server = loop->server;
    loop->sweep_ns = sl_monotonic_ns() + SWEEP_NS;
    loop->evloop = h2o_evloop_create();
    h2o_context_init(&loop->context, loop->evloop, &server->globalconf);
    loop->accept_plain = (h2o_accept_ctx_t){.ctx = &loop->context, .hosts = server->globalconf.hosts};
    loop->accept_tls = loop->accept_plain;
    loop->accept_tls.ssl_ctx = server->tls;
    loop->wake_socket = h2o_evloop_socket_create(loop->evloop, loop->wake_fd, 0);
    loop->wake_socket->data = loop;
    h2o_socket_read_start(loop->wake_socket, on_wake);
    wake(loop); // what was posted before
}

bool http_loop_start(struct http_loop *loop, struct sl_error *err)
{
    int error = pthread_create(&loop->thread, NULL, loop_main, loop);
    return error == 0 || sl_fail_errno(err, SL_E_NO_MEMORY, error, "thread of loop %u", loop->index);
}

void http_loop_stop(struct http_loop *loop)
{
    struct stop_task *stop = h2o_mem_alloc(sizeof(*stop));
    *stop = (struct stop_task){.task = {.run = on_stop}, .loop = loop};
    http_loop_post(loop, &stop->task);
    pthread_join(loop->thread, NULL);
}

// h2o's event loop is made of h2o_evloop_t and, behind it, this; it forgets to close the descriptor.
struct evloop_epoll {
    h2o_evloop_t super;
    int epoll_fd;
};

void http_loop_close(struct http_loop *loop)
{
    h2o_socket_close(loop->wake_socket); // and the eventfd with it
    h2o_multithread_queue_t *queue = loop->context.queue;
    h2o_context_dispose(&loop->context);
    free(queue);                     // h2o_multithread_destroy_queue() frees it for libuv only
    h2o_evloop_run(loop->evloop, 0); // frees the sockets just closed
    close(((struct evloop_epoll *)(void *)loop->evloop)->epoll_fd);
    h2o_evloop_destroy(loop->evloop);
    http_buffer_thread_end();
}
