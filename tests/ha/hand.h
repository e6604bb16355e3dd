// A core in the hand of a test: inputs with a clock that the test moves, actions gathered until they are looked at.
//
// Threads: none.
#ifndef SLUICE_TESTS_HA_HAND_H
#define SLUICE_TESTS_HA_HAND_H

#include "ha/ha.h"

enum { HAND_ACTIONS_MAX = 4096 };
#define HAND_S INT64_C(1000000000)

struct hand {
    struct ha_core core;
    int64_t now_ns;
    struct ha_action actions[HAND_ACTIONS_MAX];
    size_t count;
};

// Node `self` of three, in zones 0, 1, 2; its first stream is <self>.1, lanes 7 and 8; Kafka is reachable; both peers
// have said that they hold nothing.
struct hand *hand_new(uint8_t self);
void hand_free(struct hand *hand);
struct ha_id hand_stream(uint8_t member, uint64_t counter);
struct ha_head hand_head(void);
// Moves the clock in steps of half a heartbeat; `alive` peers (bits) repeat their last heartbeat meanwhile.
void hand_pass(struct hand *hand, int64_t ns, unsigned alive);
// A heartbeat of the peer: nothing held, Kafka reachable, everybody heard. To be filled further and given to hand_hear.
struct ha_message *hand_heartbeat(struct hand *hand, uint8_t peer);
void hand_entry(struct ha_message *heartbeat, struct ha_id stream, uint64_t base, uint64_t end, uint8_t flags);
void hand_hear(struct hand *hand, const struct ha_message *message);
void hand_frame(struct hand *hand, uint8_t from, struct ha_id stream, uint64_t first, uint64_t last, uint64_t stated,
                bool repair);
void hand_progress(struct hand *hand, struct ha_id stream, uint32_t lane_id, uint64_t through, uint64_t claim,
                   struct ha_id drainer);
// The first action of the kind (of the stream, if its counter is not 0) since hand_forget; NULL: none.
const struct ha_action *hand_find(const struct hand *hand, enum ha_action_kind kind, struct ha_id stream);
size_t hand_number(const struct hand *hand, enum ha_action_kind kind, struct ha_id stream);
void hand_forget(struct hand *hand);
void hand_take(struct hand *hand); // what the core wants, after a direct input
// Answers the lane's open step with OK and what is given; the step must be `kind`.
void hand_ok(struct hand *hand, enum ha_action_kind kind, struct ha_id stream, uint32_t lane_id,
             struct ha_progress progress, uint64_t through);
void hand_fail(struct hand *hand, enum ha_action_kind kind, struct ha_id stream, uint32_t lane_id,
               enum ha_result result);

#endif
