// What the files of the core share. Nothing here is for other folders (tests/ha excepted).
//
// Threads: as ha.h.
#ifndef SLUICE_HA_CORE_INTERNAL_H
#define SLUICE_HA_CORE_INTERNAL_H

#include "ha/ha.h"

#include "base/error.h"

// core.c
void ha_clock(struct ha_core *core, int64_t now_ns); // first thing of every input
// A free action, zeroed but for kind, stream and head (NULL: of no stream); NULL when there is no room: change no state
// then.
struct ha_action *ha_emit(struct ha_core *core, enum ha_action_kind kind, const struct ha_stream *stream);
// A heartbeat to each peer that is up, as far as there is room for actions.
void ha_say_all(struct ha_core *core);
uint32_t ha_lane_of(struct ha_stream *stream, uint32_t lane_id); // index, made when it is new; HA_LANES_MAX: no room
bool ha_room(const struct ha_core *core, uint32_t actions);
uint64_t ha_chance(struct ha_core *core); // from the seed
// The place of the stream; made when it is not there. NULL: the table is full.
struct ha_stream *ha_place(struct ha_core *core, struct ha_id stream, const struct ha_head *head);
// This node's copy.
struct ha_copy *ha_own(struct ha_core *core, struct ha_stream *stream);
// Records in the copy that no verified progress covers.
bool ha_unproduced(const struct ha_stream *stream, const struct ha_copy *copy);
#define HA_EACH_PEER(core, peer)                                                                                       \
    for (uint8_t peer = 0; peer < (core)->options.members; peer++)                                                     \
        if (peer != (core)->options.self)
#define HA_EACH_STREAM(core, stream)                                                                                   \
    for (struct ha_stream *stream = (core)->streams; stream < (core)->streams + HA_STREAMS_MAX; stream++)              \
        if (stream->id.counter != 0)

// replicate.c
void ha_replicate(struct ha_core *core, struct ha_stream *stream); // sends what may be sent now
void ha_take_frame(struct ha_core *core, const struct ha_message *message);
void ha_take_durable(struct ha_core *core, const struct ha_message *message);

// watch.c
void ha_take_heartbeat(struct ha_core *core, const struct ha_message *message);
// Whether this node may take the lane from whoever drains it: silence, turn and the other peer's word.
bool ha_suspect(struct ha_core *core, struct ha_stream *stream, uint32_t lane);
// Whether what the stream holds may be produced now, with regard to older streams of the same node.
bool ha_in_order(struct ha_core *core, struct ha_stream *stream, uint32_t lane);
// A member that is heard of says that it means to drain the stream.
bool ha_holds_on(const struct ha_stream *stream, uint8_t member);
void ha_get_ready(struct ha_core *core);

// takeover.c
void ha_claims(struct ha_core *core); // starts the steps of every lane that may be drained
void ha_lane_release(struct ha_core *core, struct ha_stream *stream, uint32_t lane);
void ha_lane_rival(struct ha_core *core, struct ha_stream *stream, uint32_t lane); // wait twice as long, let go
bool ha_lane_active(const struct ha_lane *lane);

// seal.c
// The stream is written no more and a new one is opened; this node is a holder of it like the others.
void ha_seal(struct ha_core *core, struct ha_stream *stream);
void ha_let_go(struct ha_core *core); // after let_go_ns without Kafka

// forget.c
void ha_shorten(struct ha_core *core); // trims, empty marks, tombstones

#endif
