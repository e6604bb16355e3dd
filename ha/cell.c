// The driver of the protocol core: one thread that owns it, and everything that happens comes to it.
//
// Happy path: a post or a message is told to the core; cell_act carries out what the core wants done; the positions
// that requests wait for are told to the gateway. Nothing here decides: whatever a node may do is in the core.
//
// Failure modes: a peer that is too slow gets less (its outbox waits for room, the core sends again); a disk that is
// too slow for copies holds the reading of sessions back; memory is bounded by tap_bytes, replica_bytes and the
// sessions' output.
#include "ha/cell_internal.h"

#include "base/crc32c.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

int64_t cell_now(void)
{
    return sl_monotonic_ns();
}

// ---- posts

void cell_post(struct cell *cell, struct post *post)
{
    post->next = NULL;
    pthread_mutex_lock(&cell->post_mutex);
    *cell->posts_tail = post;
    cell->posts_tail = &post->next;
    bool wake = !cell->posted;
    cell->posted = true;
    pthread_mutex_unlock(&cell->post_mutex);
    uint64_t one = 1;
    if (wake && write(cell->wake_fd, &one, sizeof(one)) != sizeof(one))
        sl_assert(errno == EAGAIN); // it is set already
}

static struct post *take_posts(struct cell *cell)
{
    uint64_t count;
    ssize_t ignored = read(cell->wake_fd, &count, sizeof(count));
    (void)ignored;
    pthread_mutex_lock(&cell->post_mutex);
    struct post *posts = cell->posts;
    cell->posts = NULL;
    cell->posts_tail = &cell->posts;
    cell->posted = false;
    pthread_mutex_unlock(&cell->post_mutex);
    return posts;
}

static void take_opened(struct cell *cell, const struct opened_post *post)
{
    if (post->good)
        cell_open(cell, post->incarnation);
    else
        cell->open_again_ns = cell_now() + SL_NS_PER_S;
}

static void take(struct cell *cell, struct post *post)
{
    switch (post->kind) {
    case POST_FRAME:
        cell_frame(cell, ((struct frame_post *)(void *)post)->frame);
        break;
    case POST_SYNCED:
        cell_synced(cell, ((struct synced_post *)(void *)post)->incarnation,
                    ((struct synced_post *)(void *)post)->through);
        break;
    case POST_STORED:
        cell_stored(cell, (struct store_post *)(void *)post);
        break;
    case POST_DONE:
        ha_done(cell->core, cell_now(), &((struct done_post *)(void *)post)->done);
        break;
    case POST_PROGRESS:
        cell_take_progress(cell, (struct progress_post *)(void *)post);
        break;
    case POST_OPENED:
        take_opened(cell, (struct opened_post *)(void *)post);
        break;
    case POST_GIVEN:
        cell_given(cell, post);
        break;
    }
    free(post);
}

void cell_drop_posts(struct cell *cell)
{
    for (struct post *post = take_posts(cell), *next; post != NULL; post = next) {
        next = post->next;
        if (post->kind == POST_FRAME)
            spool_frame_release(((struct frame_post *)(void *)post)->frame);
        if (post->kind == POST_GIVEN)
            cell_drop_given(post);
        free(post);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    struct cell *cell = user;
    for (struct post *post = take_posts(cell), *next; post != NULL; post = next) {
        next = post->next;
        take(cell, post);
    }
    if (atomic_load(&cell->stopping))
        event_base_loopbreak(cell->base);
    cell_act(cell);
}

// ---- actions

struct wire_message *cell_message(struct cell *cell, enum wire_what what)
{
    struct wire_message *message = &cell->outgoing;
    message->what = what;
    message->message.from = cell->self;
    message->body = (struct sl_span){.bytes = "", .length = 0};
    return message;
}

static void say(struct cell *cell, const struct ha_action *action)
{
    struct wire_message *message = cell_message(cell, WIRE_OF_CORE);
    message->message.kind = action->refused ? HA_REFUSED : HA_DURABLE;
    message->message.stream = action->stream;
    message->message.last = action->last;
    (void)peers_send(cell->peers, action->peer, message, NULL, NULL); // without a session: said again in the next one
}

static void say_all(struct cell *cell, uint8_t peer)
{
    struct wire_message *message = cell_message(cell, WIRE_OF_CORE);
    ha_heartbeat(cell->core, cell_now(), &message->message);
    (void)peers_send(cell->peers, peer, message, NULL, NULL);
}

static void log_alarm(struct cell *cell, const struct ha_action *action)
{
    char stream[SPOOL_STREAM_ID_MAX];
    cell_text(cell, action->stream, stream);
    sl_logf(SL_ERROR, "ha", "Kafka's progress went back: the lane stands still until a person decides",
            SL_STR("stream", stream), SL_STR("lane", cell_lane_name(cell, action->lane_id)));
}

static void trim(struct cell *cell, const struct ha_action *action)
{
    if (action->stream.member != cell->self) {
        char stream[SPOOL_STREAM_ID_MAX];
        cell_text(cell, action->stream, stream);
        spool_trim(cell->spool, stream, action->last);
    }
    cell_tell(cell, action->stream); // own streams go by retention; the protocol hears what is not produced
}

static void seal(struct cell *cell, const struct ha_action *action)
{
    char stream[SPOOL_STREAM_ID_MAX];
    cell_text(cell, action->stream, stream);
    sl_logf(SL_WARN, "ha",
            "this node's stream is drained by another now, or this node cannot reach Kafka: it is sealed, a new one is "
            "opened",
            SL_STR("stream", stream), SL_UINT("end", ha_find(cell->core, action->stream)->copies[cell->self].end));
    disk_job(cell, JOB_OPEN, action);
}

static void act(struct cell *cell, const struct ha_action *action)
{
    switch (action->kind) {
    case HA_SEND:
        outbox_add(cell, action);
        break;
    case HA_SAY:
        say(cell, action);
        break;
    case HA_SAY_ALL:
        say_all(cell, action->peer);
        break;
    case HA_STORE:
        cell_store(cell, action);
        break;
    case HA_FENCE_MARK:
        disk_job(cell, JOB_FENCE_MARK, action);
        break;
    case HA_MARK_EMPTY:
        disk_job(cell, JOB_MARK_EMPTY, action);
        break;
    case HA_OPEN:
        seal(cell, action);
        break;
    case HA_TRIM:
        trim(cell, action);
        break;
    case HA_RECALL:
        cell_recall(cell, action);
        break;
    case HA_ALARM:
        log_alarm(cell, action);
        break;
    case HA_INIT:
    case HA_READ:
    case HA_CLAIM:
    case HA_PRODUCE:
    case HA_CLOSE:
    case HA_RELEASE:
    case HA_LOOK:
    case HA_TOMBSTONE:
        cell_drain(cell, action);
        break;
    }
}

static bool second_zone(const struct cell *cell)
{
    for (uint8_t i = 0; i < cell->members; i++)
        if (i != cell->self && cell->core->members[i].up && strcmp(cell->zones[i], cell->zones[cell->self]) != 0)
            return true;
    return false;
}

void cell_act(struct cell *cell)
{
    struct ha_action action;
    while (ha_next(cell->core, &action))
        act(cell, &action);
    for (uint8_t peer = 0; peer < cell->members; peer++)
        if (peer != cell->self)
            outbox_run(cell, peer);
    cell_positions(cell);
    atomic_store(&cell->second_zone, second_zone(cell));
    if (ha_ready(cell->core) && cell_ids_ready(cell) && !atomic_exchange(&cell->ready, true))
        sl_log(SL_INFO, "ha", "own older streams reach as far as any copy in reach, and peers' ids are known: ready");
}

// ---- sessions

static void on_up(void *user, uint8_t peer)
{
    struct cell *cell = user;
    cell->member_since_ns[peer] = sl_wall_ns();
    cell->sessions[peer]++;
    cell->ids_asked[peer] = cell->ids_given[peer] = false;
    cell->paces[peer] = (struct pace){.mark = UINT64_MAX, .slow = true};
    ha_peer_up(cell->core, cell_now(), peer);
    cell_act(cell);
}

static void on_down(void *user, uint8_t peer, const char *why)
{
    (void)why; // peers.c has logged it, and shows it in its status
    struct cell *cell = user;
    cell->member_since_ns[peer] = sl_wall_ns();
    outbox_clear(cell, peer);
    if (cell->givings[peer] != NULL)
        cell_free_giving(cell->givings[peer]);
    cell->givings[peer] = NULL;
    ha_peer_down(cell->core, cell_now(), peer);
    cell_act(cell);
}

static void on_writable(void *user, uint8_t peer)
{
    outbox_run(user, peer);
    cell_give_on(user, peer);
}

// ---- the thread

// Until the older streams are walked there is nothing that could be said to peers.
static bool tell_and_listen(struct cell *cell, struct sl_error *err)
{
    static const struct peers_options callbacks = {
        .on_up = on_up, .on_down = on_down, .on_message = cell_on_message, .on_writable = on_writable};
    if (!cell_tell_all(cell))
        return true; // at the next tick
    if (cell->core->current == NULL && !cell->placeless)
        cell_open(cell, spool_incarnation(cell->spool));
    if (!cell_listen(cell, &callbacks, err))
        return sl_wrap(err, "ha.listen %s", cell->options.listen);
    atomic_store(&cell->port, peers_port(cell->peers));
    cell->told = true;
    return true;
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    struct cell *cell = user;
    if (atomic_load(&cell->stopping)) {
        event_base_loopbreak(cell->base);
        return;
    }
    struct sl_error err;
    if (!cell->told && !tell_and_listen(cell, &err))
        sl_logf(SL_ERROR, "ha", "cannot talk to peers; trying again", SL_STR("error", err.text));
    int64_t now_ns = cell_now();
    if (cell->open_again_ns != 0 && now_ns >= cell->open_again_ns) {
        cell->open_again_ns = 0;
        disk_job(cell, JOB_OPEN, &(struct ha_action){.kind = HA_OPEN});
    }
    if (cell->placeless)
        cell_open(cell, cell->incarnation);
    if (cell->told) {
        ha_kafka(cell->core, now_ns, cell->options.kafka.reachable(cell->options.kafka.user));
        ha_tick(cell->core, now_ns);
        cell_ask_ids(cell);
        if (cell->ticks % LANES_EVERY == 0)
            cell_look_for_lanes(cell);
        if (cell->ticks % REST_EVERY == 0)
            cell_tell_rest(cell);
        cell_act(cell);
    }
    if (cell->ticks++ % STATUS_EVERY == 0)
        status_refresh(cell);
}

static void *replication_main(void *argument)
{
    struct cell *cell = argument;
    event_base_dispatch(cell->base);
    if (cell->peers != NULL)
        peers_hand_over(cell->peers); // to cell_stop
    return NULL;
}

static void init_core(struct cell *cell)
{
    const struct cell_options *options = &cell->options;
    uint64_t seed;
    sl_assert(getrandom(&seed, sizeof(seed), 0) == (ssize_t)sizeof(seed));
    struct ha_options ha = {.self = cell->self,
                            .members = cell->members,
                            .seed = seed,
                            .takeover_after_ns = options->takeover_after_ns,
                            .heartbeat_ns = options->takeover_after_ns / 10,
                            .turn_ns = options->turn_ns,
                            .let_go_ns = options->let_go_after_ns,
                            .order_wait_ns = options->order_wait_ns,
                            .rival_wait_ns = 4 * SL_NS_PER_S,
                            .rival_wait_max_ns = 60 * SL_NS_PER_S,
                            .resend_ns = SL_NS_PER_S,
                            .retry_ns = SL_NS_PER_S / 2,
                            .trim_every_ns = 2 * SL_NS_PER_S};
    for (uint8_t i = 0; i < cell->members; i++)
        for (uint8_t k = 0; k < cell->members && ha.zone[i] == 0; k++)
            ha.zone[i] = strcmp(cell->zones[i], cell->zones[k]) == 0 ? (uint8_t)(k + 1) : 0;
    ha_init(cell->core, &ha, cell_now());
}

static bool start_thread(struct cell *cell)
{
    sigset_t all, before; // signals are the main thread's
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool good = disk_start(cell);
    if (good && pthread_create(&cell->thread, NULL, replication_main, cell) != 0) {
        disk_stop(cell);
        good = false;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (good)
        pthread_setname_np(cell->thread, "replication");
    return good;
}

bool cell_start(struct cell *cell, struct spool *spool, struct sl_error *err)
{
    cell->spool = spool;
    init_core(cell);
    cell->options.kafka.set_drainer(cell->options.kafka.user, spool_stream(spool));
    struct timeval every = {.tv_usec = TICK_MS * 1000};
    cell->wake = event_new(cell->base, cell->wake_fd, EV_READ | EV_PERSIST, on_wake, cell);
    cell->tick = event_new(cell->base, -1, EV_PERSIST, on_tick, cell);
    sl_assert(cell->wake != NULL && cell->tick != NULL);
    event_add(cell->wake, NULL);
    event_add(cell->tick, &every);
    if (!tell_and_listen(cell, err)) // here, so that an address that cannot be had ends the start
        return false;
    if (cell->peers != NULL)
        peers_hand_over(cell->peers);
    cell->started = start_thread(cell);
    return cell->started || sl_fail(err, SL_E_UNAVAILABLE, "cell: threads");
}

void cell_stop(struct cell *cell)
{
    if (cell->started) {
        atomic_store(&cell->stopping, true);
        uint64_t one = 1;
        ssize_t ignored = write(cell->wake_fd, &one, sizeof(one));
        (void)ignored;
        pthread_join(cell->thread, NULL);
        disk_stop(cell);
        cell->started = false;
    }
    if (cell->peers != NULL)
        peers_stop(cell->peers);
    cell->peers = NULL;
    for (uint8_t peer = 0; peer < cell->members; peer++) {
        outbox_clear(cell, peer);
        if (cell->givings[peer] != NULL)
            cell_free_giving(cell->givings[peer]);
        cell->givings[peer] = NULL;
    }
    tap_clear(&cell->tap);
    cell_drop_posts(cell);
    if (cell->tick != NULL)
        event_free(cell->tick);
    if (cell->wake != NULL)
        event_free(cell->wake);
    cell->tick = cell->wake = NULL;
}

// ---- from the spool's writer

void cell_on_frame(void *user, struct spool_frame *frame)
{
    struct frame_post *post = malloc(sizeof(*post));
    sl_assert(post != NULL);
    *post = (struct frame_post){.post.kind = POST_FRAME, .frame = spool_frame_retain(frame)};
    cell_post(user, &post->post);
}

void cell_on_synced(void *user, uint32_t incarnation, uint64_t through)
{
    struct synced_post *post = malloc(sizeof(*post));
    sl_assert(post != NULL);
    *post = (struct synced_post){.post.kind = POST_SYNCED, .incarnation = incarnation, .through = through};
    cell_post(user, &post->post);
}

// ---- questions

bool cell_ready(const struct cell *cell)
{
    return atomic_load(&cell->ready);
}

bool cell_has_second_zone(const struct cell *cell)
{
    return atomic_load(&cell->second_zone);
}

uint16_t cell_port(const struct cell *cell)
{
    return atomic_load(&cell->port);
}
