// The protocol core of a cell: what a gateway knows of its peers and of every stream that they hold, and what it does
// next. No I/O, no clock, no allocation, no randomness but a seed: inputs are function calls, outputs are actions that
// the caller takes with ha_next() after every input and carries out. docs/protocol-ha.md is the prose; the names here
// are its names.
//
// Threads: none of its own and no lock. One thread makes all calls for one struct ha_core (in the product the
// replication thread); messages are read during the call only, actions are the caller's copies.
//
// Units: times are monotonic ns of this machine, never compared with another's. Seqs start at 1; a position p means
// "every record up to and including p", 0 means none.
#ifndef SLUICE_HA_HA_H
#define SLUICE_HA_HA_H

#include "spool/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HA_MEMBERS_MAX = 3, // a cell is one gateway in each of three zones
    HA_LANES_MAX = SPOOL_LANES_MAX,
    // Streams that a node looks after at once; a node that holds more takes them up oldest first as room appears.
    HA_STREAMS_MAX = 64,
    HA_ACTIONS_MAX = 512,     // waiting to be taken; whatever finds no room is decided again at the next tick
    HA_SEND_SEQS_MAX = 4096,  // records that one HA_SEND names
    HA_WINDOW_SEQS = 1 << 16, // sent to a peer and not yet answered
};

// "<node>.<counter>-<chance>" without its text. member: index of the node in the cell.
struct ha_id {
    uint64_t counter; // 0: no stream
    uint32_t chance;
    uint8_t member;
};
static inline bool ha_same(struct ha_id a, struct ha_id b)
{
    return a.counter == b.counter && a.chance == b.chance && a.member == b.member;
}

struct ha_options {
    uint8_t self, members;        // members sorted by name, so that all nodes count alike
    uint8_t zone[HA_MEMBERS_MAX]; // equal numbers: the same zone
    uint64_t seed;                // for jitter
    int64_t takeover_after_ns;    // silence that makes a drainer suspect
    int64_t heartbeat_ns;         // ≤ takeover_after / 4
    int64_t turn_ns;              // between the turns of two holders: longer than a takeover takes
    int64_t let_go_ns;            // how long an owner without Kafka keeps a stream that a peer could drain
    int64_t order_wait_ns;        // how long a stream waits for a predecessor that nobody in reach holds
    int64_t rival_wait_ns;        // first wait after a rival's fence; doubles
    int64_t rival_wait_max_ns;    // where the doubling ends
    int64_t resend_ns;            // without an answer one record is sent again, and what that shows to be lost
    int64_t retry_ns;             // after a failed step
    int64_t trim_every_ns;        // how often replicas are shortened to what is not produced
};

// What every holder of a stream must know of it; it stands in the header of its segments. Lanes are a set: their order
// may differ from node to node.
struct ha_head {
    uint32_t lane_count;
    uint32_t lane_ids[HA_LANES_MAX]; // CRC32C of the lane's name
    struct ha_id predecessor;
    uint64_t predecessor_seq;
};

// The content of a progress record (section 6 of the design), as a read_committed reader saw it.
struct ha_progress {
    uint64_t through, claim;
    struct ha_id drainer; // counter 0: no record yet
};

// ---- what members say to each other

enum ha_message_kind {
    HA_HEARTBEAT, // everything a member knows of itself; replaces what it said before
    HA_FRAME,     // records first..last of a stream
    HA_DURABLE,   // the sender's disk holds the stream through `last`
    HA_REFUSED,   // the sender has a fence mark on the stream: it acknowledges nothing to its owner any more
};
enum ha_entry_flags {
    HA_ENTRY_CURRENT = 1,  // the sender writes it
    HA_ENTRY_KEPT = 2,     // the sender owns it and means to drain it
    HA_ENTRY_DRAINING = 4, // the sender drains it now
    HA_ENTRY_EMPTY = 8,    // the sender recorded durably that it holds nothing of it; end is the `through` of that
    HA_ENTRY_TAKING = 16,  // the sender is on its way to a claim on another's stream: INIT, READ
};
struct ha_entry {
    struct ha_id stream;
    uint64_t base, end; // durable there: base..end; base = end + 1 when empty
    uint8_t flags;
    struct ha_head head;
};
struct ha_message {
    enum ha_message_kind kind;
    uint8_t from;
    // HA_FRAME, HA_DURABLE, HA_REFUSED
    struct ha_id stream;
    uint64_t first, last;
    uint64_t stated_through; // HA_FRAME: what the sender verified to be produced in every lane
    uint64_t acked_through;  // HA_FRAME of its owner: durable in two zones
    bool repair;             // HA_FRAME: a copy offered by a holder, not the owner's own stream as it grows
    struct ha_head head;
    // HA_HEARTBEAT
    bool kafka;                         // the sender reaches Kafka
    int64_t silence_ns[HA_MEMBERS_MAX]; // how long ago the sender heard of each member
    uint64_t heartbeat_acked_through;   // of the sender's current stream
    uint32_t entry_count;
    struct ha_entry entries[HA_STREAMS_MAX];
};

// ---- what the core wants done

enum ha_action_kind {
    HA_SEND,    // records first..last of a stream to a peer, as HA_FRAME messages with the head, through and flag given
    HA_SAY,     // to a peer: HA_REFUSED if `refused`, else HA_DURABLE through `last`
    HA_SAY_ALL, // ha_heartbeat() to a peer
    HA_STORE,   // records first..last of the frame just received; with new_base: the base is durable before them
    HA_FENCE_MARK, // a durable mark on the stream; answer with ha_done
    HA_INIT,       // init_transactions of stream and lane; ha_done
    HA_READ,       // progress to the high watermark; ha_done with `progress`
    HA_CLAIM,      // commit progress {through, claim, drainer = this process}; ha_done
    HA_PRODUCE,    // from first on through last; ha_done when committed. The current stream: until released. While
                   // records wait, progress is committed anew at least each takeover_after / 3, moved or not
    HA_CLOSE,      // commit progress with `closed` (a hint), ha_done
    HA_RELEASE,    // destroy the producer; no answer; nothing of earlier actions of the lane may answer after it
    HA_LOOK,       // HA_READ without a producer; ha_done
    HA_OPEN,       // end the current stream, open a new one, ha_open()
    HA_TRIM,       // delete records of a replica through `last`; ha_held() says what is left
    HA_MARK_EMPTY, // record durably that nothing is held and `last` was its through; ha_done
    HA_TOMBSTONE,  // remove the stream's progress from Kafka
    HA_RECALL,     // tell again, with ha_saw_progress(), the last progress of each lane of the stream
    HA_ALARM,      // progress went back: the lane stands still until a person decides
};
struct ha_action {
    enum ha_action_kind kind;
    struct ha_id stream;
    uint32_t lane_id;
    uint32_t ticket; // for ha_done
    uint8_t peer;
    bool repair, refused, new_base;
    uint64_t first, last;
    uint64_t stated_through, claim;
    struct ha_head head;
};
enum ha_result {
    HA_OK,
    HA_FAILED, // refused, timed out, unknown: nothing is concluded from it
    HA_FENCED, // another producer of this transactional.id, or the coordinator timed the transaction out
};
struct ha_done {
    enum ha_action_kind kind;
    struct ha_id stream;
    uint32_t lane_id, ticket;
    enum ha_result result;
    struct ha_progress progress; // HA_READ, HA_LOOK
    uint64_t through;            // HA_PRODUCE
};

// ---- the core: a value of about 210 KB; the fields are for the folder's own files

enum ha_step {
    HA_STEP_IDLE,
    HA_STEP_INIT,
    HA_STEP_READ,
    HA_STEP_CLAIM,
    HA_STEP_FENCE,
    HA_STEP_READY, // claimed; older streams of the same node come first
    HA_STEP_PRODUCE,
    HA_STEP_CLOSE,
    HA_STEP_LOOK,
    HA_STEP_STOPPED,
};
struct ha_lane {
    struct ha_progress seen; // the last verified progress record
    int64_t moved_ns;        // when a record was last seen, or watching began
    enum ha_step step;
    uint32_t ticket;
    uint64_t claim;    // of this process, 0: none
    uint64_t produced; // as commits said
    bool releasing;    // a producer is to be destroyed
    int64_t not_before_ns, rival_wait_ns;
    int64_t suspect_since_ns; // 0: not suspect
    int64_t order_since_ns;   // since when only the predecessor is missing; 0: not
};
struct ha_copy { // what a member holds, as it says
    uint64_t base, end;
    uint8_t flags;
    bool there;
};
struct ha_stream {
    struct ha_id id; // counter 0: the place is free
    struct ha_head head;
    struct ha_copy copies[HA_MEMBERS_MAX];
    uint64_t stored_end;                // own replica: given to the disk
    uint64_t appended;                  // current stream: handed to the disk
    uint64_t next[HA_MEMBERS_MAX];      // to send
    uint64_t waits_for[HA_MEMBERS_MAX]; // first record without an answer, since waits_ns
    int64_t waits_ns[HA_MEMBERS_MAX];
    bool probed[HA_MEMBERS_MAX]; // that record was sent again, alone
    uint64_t peer_synced;        // kept at what it was when the stream was sealed
    uint64_t owner_acked;        // durable in two zones, as its owner says
    uint64_t guard; // durably known here to be produced in every lane: what is below the base, or was when emptied
    uint8_t fed_by;
    bool current, kept, fence_marked, marking, emptying, tombstoned, recall;
    struct ha_lane lanes[HA_LANES_MAX];
};
struct ha_member {
    bool up;    // a session exists
    bool spoke; // a heartbeat came in this session
    bool kafka;
    int64_t heard_ns;
    int64_t silence_ns[HA_MEMBERS_MAX];
};
struct ha_figures {
    uint64_t takeovers, fenced, sealed, refused, order_given_up, repairs_sent, tombstones;
};
struct ha_core {
    struct ha_options options;
    struct ha_member members[HA_MEMBERS_MAX];
    struct ha_stream streams[HA_STREAMS_MAX];
    struct ha_stream *current; // NULL while a new one is being opened
    uint64_t chance;
    int64_t started_ns, now_ns, said_ns, trimmed_ns;
    int64_t kafka_lost_ns; // 0: reachable
    bool ready, opening;
    uint32_t tickets;
    struct ha_action actions[HA_ACTIONS_MAX];
    uint32_t action_first, action_count;
    struct ha_figures figures;
};

// ---- inputs

void ha_init(struct ha_core *core, const struct ha_options *options, int64_t now_ns);
// Takes the next action. False: nothing is to be done. Take all of them after each input.
bool ha_next(struct ha_core *core, struct ha_action *out);
// At least every heartbeat_ns / 2.
void ha_tick(struct ha_core *core, int64_t now_ns);
// A session with a peer process begins (what an earlier one said is void) or ends. Messages of a session are given only
// between the two.
void ha_peer_up(struct ha_core *core, int64_t now_ns, uint8_t peer);
void ha_peer_down(struct ha_core *core, int64_t now_ns, uint8_t peer);
void ha_receive(struct ha_core *core, int64_t now_ns, const struct ha_message *message);

// A stream that this node holds: found at start, or changed by HA_TRIM or retention. `fence_marked`, `guard`: its
// durable marks. end < base: nothing is held. False: there is no room in the table; again later.
bool ha_held(struct ha_core *core, int64_t now_ns, struct ha_id stream, const struct ha_head *head, uint64_t base,
             uint64_t end, bool fence_marked, uint64_t guard) SL_MUST_USE;
// Answers HA_OPEN, and tells of the first stream: the one that is written from now on. False as above.
bool ha_open(struct ha_core *core, int64_t now_ns, struct ha_id stream, const struct ha_head *head) SL_MUST_USE;
// Records of the current stream were handed to the disk: they may be sent.
void ha_appended(struct ha_core *core, int64_t now_ns, uint64_t through);
// fdatasync returned for them: the current stream's, or an HA_STORE's.
void ha_synced(struct ha_core *core, int64_t now_ns, struct ha_id stream, uint64_t through);
// From the reader of sluice.progress, in the order of the topic; the caller keeps the last of each stream and lane for
// HA_RECALL. `gone`: a tombstone.
void ha_saw_progress(struct ha_core *core, int64_t now_ns, struct ha_id stream, uint32_t lane_id,
                     const struct ha_progress *progress, bool gone);
void ha_kafka(struct ha_core *core, int64_t now_ns, bool reachable);
void ha_done(struct ha_core *core, int64_t now_ns, const struct ha_done *done);

// ---- what can be asked, at any time

// The heartbeat to send for HA_SAY_ALL.
void ha_heartbeat(const struct ha_core *core, int64_t now_ns, struct ha_message *out);
// For the acknowledgement rule (gateway/ack.h): the furthest position of the stream in another zone than this node's.
// Stops for good when the stream is sealed.
uint64_t ha_peer_synced(const struct ha_core *core, struct ha_id stream);
// Durable in two zones, as far as this node can know: a duplicate at or below it may be answered.
uint64_t ha_two_zones(const struct ha_core *core, struct ha_id stream);
// Own older streams reach as far as any reachable peer's copy: the node may serve.
bool ha_ready(const struct ha_core *core);
// A member that is heard of.
bool ha_alive(const struct ha_core *core, uint8_t member);
struct ha_stream *ha_find(struct ha_core *core, struct ha_id stream);
// Least `through` of the stream's lanes, as verified.
uint64_t ha_through(const struct ha_stream *stream);
// Records acknowledged or not that would be gone for good if this member's disk were lost now, as far as known.
uint64_t ha_at_risk(const struct ha_core *core, uint8_t member);

// "<node>.<counter>-<8 hex digits>" to numbers and back; `names` are the members in the order of the cell. False: it is
// not of this cell, or malformed.
bool ha_id_parse(struct ha_id *out, const char *text, const char *const *names, size_t members);
void ha_id_text(char text[SPOOL_STREAM_ID_MAX], struct ha_id id, const char *const *names);

#endif
