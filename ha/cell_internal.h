// What the files of the driver share. Nothing here is for other folders.
//
// Threads: everything belongs to the replication thread but what is said to be shared. Other threads leave posts, which
// the replication thread takes; it leaves jobs for the disk thread, whose answers are posts again.
#ifndef SLUICE_HA_CELL_INTERNAL_H
#define SLUICE_HA_CELL_INTERNAL_H

#include "ha/cell.h"
#include "ha/peers.h"
#include "ha/wire.h"
#include "spool/replica.h"

#include "base/clock.h"
#include "base/log.h"

#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    OWN_STREAMS = 8,  // of this process: the newest, and sealed ones that requests may still wait for
    LANE_NAMES = 256, // over all streams
    TICK_MS = 50,     // of the core
    STATUS_EVERY = 4, // ticks between two copies of the status
    LANES_EVERY = 10, // ticks between two looks for new lanes of the own stream
    REST_EVERY = 40,  // ticks between two looks for a place for streams that found none
};

// ---- posts: what other threads tell

enum post_kind {
    POST_FRAME,    // of the own stream: about to be written
    POST_SYNCED,   // the own stream's disk
    POST_STORED,   // a copy's
    POST_DONE,     // the drain, or the disk thread: a mark is durable
    POST_PROGRESS, // the reader of sluice.progress
    POST_OPENED,   // the disk thread: the next own stream
    POST_GIVEN,    // the disk thread: ids for a peer
};
struct post {
    struct post *next;
    enum post_kind kind;
};
struct frame_post {
    struct post post;
    struct spool_frame *frame; // retained
};
struct synced_post {
    struct post post;
    uint32_t incarnation;
    uint64_t through;
};
struct store_post {
    struct post post;
    struct cell *cell;
    struct spool_store store;
    size_t bytes;
    uint8_t body[];
};
struct done_post {
    struct post post;
    struct ha_done done;
};
struct progress_post {
    struct post post;
    char stream[SPOOL_STREAM_ID_MAX], lane[SPOOL_NAME_MAX + 1], drainer[SPOOL_STREAM_ID_MAX];
    uint64_t through, claim;
    bool gone;
};
struct opened_post {
    struct post post;
    bool good;
    uint32_t incarnation;
};

// ---- jobs: what waits for the disk

enum job_kind { JOB_FENCE_MARK, JOB_MARK_EMPTY, JOB_DROP_MARKS, JOB_OPEN, JOB_GIVE };
struct giving;
struct job {
    struct job *next;
    enum job_kind kind;
    struct ha_action action;
    struct giving *giving; // JOB_GIVE
};

// ---- frames of the own stream in memory, so that peers get them without a read, and before they are synced

struct tap {
    struct spool_frame **frames; // ring, in the order of incarnation and seq
    size_t first, count, capacity;
    size_t bytes;
};

// ---- what is to be sent to a peer

struct range {
    struct ha_action send;
    uint64_t next; // first record not sent yet
};
struct outbox {
    struct range *ranges; // ring
    size_t first, count, capacity;
    struct spool_reader *reader; // of the stream below; NULL: none
    struct ha_id reading;
    uint64_t reader_next; // the seq that the reader gives next
};

// How fast a peer follows: the time that it needs to reach where another was.
struct pace {
    uint64_t mark; // 0: it is level with the furthest
    int64_t since_ns;
    bool slow;
};

struct own_stream {
    bool there;
    uint32_t incarnation;
    struct ha_id id;
    uint64_t appended, synced, peer_synced;
};

// The last progress record of a stream's lane.
struct seen {
    struct ha_id stream;
    uint32_t lane_id;
    struct ha_progress progress;
};

struct cell {
    struct cell_options options;                                                           // strings are the cell's
    const char *names[HA_MEMBERS_MAX], *zones[HA_MEMBERS_MAX], *addresses[HA_MEMBERS_MAX]; // sorted by name
    uint8_t self, members;
    struct ha_core *core;
    struct spool *spool;
    struct peers *peers;
    struct event_base *base;
    struct event *tick, *wake;
    int wake_fd;
    pthread_t thread, disk_thread;
    bool started;
    _Atomic bool stopping;

    pthread_mutex_t post_mutex;
    struct post *posts, **posts_tail; // post_mutex
    bool posted;                      // post_mutex; wake_fd is written

    pthread_mutex_t job_mutex;
    pthread_cond_t job_wanted;
    struct job *jobs, **jobs_tail; // job_mutex
    bool jobs_end;                 // job_mutex

    bool told;   // the core knows what the spool holds
    bool untold; // but not of all: its table was full
    struct tap tap;
    struct own_stream own[OWN_STREAMS]; // by incarnation
    uint32_t incarnation;               // of the stream that the core calls current
    int64_t open_again_ns;              // 0: no; the next stream could not be opened
    bool placeless;                     // the own stream is open, and finds no place in the core's table
    struct outbox outboxes[HA_MEMBERS_MAX];
    struct pace paces[HA_MEMBERS_MAX];
    char lane_names[LANE_NAMES][SPOOL_NAME_MAX + 1];
    size_t lane_name_count;
    struct seen *seen;
    size_t seen_count, seen_capacity;
    size_t store_bytes;
    bool held_back;                       // reading from peers is held: too much waits for the disk
    const struct wire_message *receiving; // during on_message
    // What is being sent: a large thing that is filled in as far as its kind goes, by cell_message alone.
    struct wire_message outgoing;
    int64_t member_since_ns[HA_MEMBERS_MAX];
    uint64_t sessions[HA_MEMBERS_MAX];                         // that began
    struct giving *givings[HA_MEMBERS_MAX];                    // that wait for room
    bool ids_asked[HA_MEMBERS_MAX], ids_given[HA_MEMBERS_MAX]; // in this session
    uint64_t counters[HA_MEMBERS_MAX];                         // cell_counter: 1 + what each peer said
    unsigned ticks;

    pthread_mutex_t status_mutex;
    struct cell_status *status; // status_mutex
    _Atomic bool ready, second_zone;
    _Atomic uint16_t port;
};

// cell_new.c
bool cell_listen(struct cell *cell, const struct peers_options *callbacks, struct sl_error *err) SL_MUST_USE;

// cell.c
void cell_post(struct cell *cell, struct post *post); // any thread
void cell_drop_posts(struct cell *cell);              // when the thread has ended
// Every action that the core has, carried out; then what others see of it.
void cell_act(struct cell *cell);
int64_t cell_now(void);
// cell->outgoing, without a body; the caller sets the fields of its kind. Until the next call.
struct wire_message *cell_message(struct cell *cell, enum wire_what what);
bool cell_parse(const struct cell *cell, const char *text, struct ha_id *out);
void cell_text(const struct cell *cell, struct ha_id id, char out[SPOOL_STREAM_ID_MAX]);
uint32_t cell_lane_id(struct cell *cell, const char *name);            // remembered for cell_lane_name
const char *cell_lane_name(const struct cell *cell, uint32_t lane_id); // "" when it is not known
void cell_head(struct cell *cell, const struct spool_stream_info *info, struct ha_head *out);

// cell_streams.c: what the spool holds, told to the core
bool cell_tell_all(struct cell *cell);  // false: older streams are not walked yet
void cell_tell_rest(struct cell *cell); // what found no place then
void cell_tell(struct cell *cell, struct ha_id id);
void cell_open(struct cell *cell, uint32_t incarnation);
void cell_frame(struct cell *cell, struct spool_frame *frame);
void cell_synced(struct cell *cell, uint32_t incarnation, uint64_t through);
void cell_positions(struct cell *cell);
void cell_look_for_lanes(struct cell *cell);

// cell_send.c
void tap_add(struct tap *tap, struct spool_frame *frame, size_t most_bytes, uint64_t synced, uint32_t incarnation);
void tap_clear(struct tap *tap);
void outbox_add(struct cell *cell, const struct ha_action *send);
void outbox_run(struct cell *cell, uint8_t peer); // while there is room
void outbox_clear(struct cell *cell, uint8_t peer);

// cell_take.c
void cell_on_message(void *cell, uint8_t peer, const struct wire_message *message);
void cell_store(struct cell *cell, const struct ha_action *store);
void cell_stored(struct cell *cell, struct store_post *post);

// cell_drain.c
void cell_drain(struct cell *cell, const struct ha_action *action);
void cell_take_progress(struct cell *cell, const struct progress_post *post);
void cell_recall(struct cell *cell, const struct ha_action *action);

// cell_disk.c
bool disk_start(struct cell *cell);
void disk_stop(struct cell *cell);
void disk_job(struct cell *cell, enum job_kind kind, const struct ha_action *action);
void disk_give(struct cell *cell, struct giving *giving);

// cell_ids.c
void cell_ask_ids(struct cell *cell);
bool cell_ids_ready(const struct cell *cell);
void cell_give_step(struct cell *cell, struct giving *giving); // disk thread; answers with a post
void cell_given(struct cell *cell, struct post *post);
void cell_give_on(struct cell *cell, uint8_t peer);
void cell_take_ids(struct cell *cell, uint8_t peer, const struct wire_message *message);
void cell_free_giving(struct giving *giving);
void cell_drop_given(struct post *post); // of a cell that ends

// cell_status.c
void status_refresh(struct cell *cell);

#endif
