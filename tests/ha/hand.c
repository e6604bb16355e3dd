#include "tests/ha/hand.h"

#include <stdlib.h>
#include <string.h>

static struct ha_message heartbeats[HA_MEMBERS_MAX];

struct ha_id hand_stream(uint8_t member, uint64_t counter)
{
    return (struct ha_id){.member = member, .counter = counter, .chance = 0xabcd0000u + member};
}

struct ha_head hand_head(void)
{
    return (struct ha_head){.lane_count = 2, .lane_ids = {7, 8}};
}

void hand_take(struct hand *hand)
{
    struct ha_action action;
    while (ha_next(&hand->core, &action)) {
        sl_assert(hand->count < HAND_ACTIONS_MAX);
        hand->actions[hand->count++] = action;
    }
}

void hand_hear(struct hand *hand, const struct ha_message *message)
{
    if (message->kind == HA_HEARTBEAT && message != &heartbeats[message->from])
        heartbeats[message->from] = *message;
    ha_receive(&hand->core, hand->now_ns, message);
    hand_take(hand);
}

struct ha_message *hand_heartbeat(struct hand *hand, uint8_t peer)
{
    struct ha_message *heartbeat = &heartbeats[peer];
    (void)hand;
    memset(heartbeat, 0, sizeof(*heartbeat));
    heartbeat->kind = HA_HEARTBEAT;
    heartbeat->from = peer;
    heartbeat->kafka = true;
    return heartbeat;
}

void hand_entry(struct ha_message *heartbeat, struct ha_id stream, uint64_t base, uint64_t end, uint8_t flags)
{
    heartbeat->entries[heartbeat->entry_count++] =
        (struct ha_entry){.stream = stream, .base = base, .end = end, .flags = flags, .head = hand_head()};
}

struct hand *hand_new(uint8_t self)
{
    struct hand *hand = calloc(1, sizeof(*hand));
    sl_assert(hand != NULL);
    hand->now_ns = 1000 * HAND_S;
    struct ha_options options = {.self = self,
                                 .members = 3,
                                 .zone = {0, 1, 2},
                                 .seed = 42,
                                 .takeover_after_ns = 5 * HAND_S,
                                 .heartbeat_ns = HAND_S / 2,
                                 .turn_ns = 2 * HAND_S,
                                 .let_go_ns = 30 * HAND_S,
                                 .order_wait_ns = 60 * HAND_S,
                                 .rival_wait_ns = 4 * HAND_S,
                                 .rival_wait_max_ns = 60 * HAND_S,
                                 .resend_ns = HAND_S,
                                 .retry_ns = HAND_S / 2,
                                 .trim_every_ns = 2 * HAND_S};
    ha_init(&hand->core, &options, hand->now_ns);
    ha_kafka(&hand->core, hand->now_ns, true);
    struct ha_head head = hand_head();
    sl_assert(ha_open(&hand->core, hand->now_ns, hand_stream(self, 1), &head));
    for (uint8_t peer = 0; peer < 3; peer++) {
        if (peer == self)
            continue;
        ha_peer_up(&hand->core, hand->now_ns, peer);
        hand_hear(hand, hand_heartbeat(hand, peer));
    }
    hand_take(hand);
    return hand;
}

void hand_free(struct hand *hand)
{
    free(hand);
}

void hand_pass(struct hand *hand, int64_t ns, unsigned alive)
{
    for (int64_t end_ns = hand->now_ns + ns; hand->now_ns < end_ns;) {
        hand->now_ns += HAND_S / 4;
        for (uint8_t peer = 0; peer < 3; peer++) {
            if (peer == hand->core.options.self || !(alive & (1u << peer)))
                continue;
            for (uint8_t other = 0; other < 3; other++)
                if (other != peer && other != hand->core.options.self && !(alive & (1u << other)))
                    heartbeats[peer].silence_ns[other] += HAND_S / 4;
            hand_hear(hand, &heartbeats[peer]);
        }
        ha_kafka(&hand->core, hand->now_ns, hand->core.kafka_lost_ns == 0);
        ha_tick(&hand->core, hand->now_ns);
        hand_take(hand);
    }
}

void hand_frame(struct hand *hand, uint8_t from, struct ha_id stream, uint64_t first, uint64_t last, uint64_t stated,
                bool repair)
{
    static struct ha_message frame;
    frame = (struct ha_message){.kind = HA_FRAME,
                                .from = from,
                                .stream = stream,
                                .first = first,
                                .last = last,
                                .stated_through = stated,
                                .repair = repair,
                                .head = hand_head()};
    hand_hear(hand, &frame);
}

void hand_progress(struct hand *hand, struct ha_id stream, uint32_t lane_id, uint64_t through, uint64_t claim,
                   struct ha_id drainer)
{
    struct ha_progress progress = {.through = through, .claim = claim, .drainer = drainer};
    ha_saw_progress(&hand->core, hand->now_ns, stream, lane_id, &progress, false);
    hand_take(hand);
}

const struct ha_action *hand_find(const struct hand *hand, enum ha_action_kind kind, struct ha_id stream)
{
    for (size_t i = 0; i < hand->count; i++)
        if (hand->actions[i].kind == kind && (stream.counter == 0 || ha_same(hand->actions[i].stream, stream)))
            return &hand->actions[i];
    return NULL;
}

size_t hand_number(const struct hand *hand, enum ha_action_kind kind, struct ha_id stream)
{
    size_t number = 0;
    for (size_t i = 0; i < hand->count; i++)
        number += hand->actions[i].kind == kind && (stream.counter == 0 || ha_same(hand->actions[i].stream, stream));
    return number;
}

void hand_forget(struct hand *hand)
{
    hand->count = 0;
}

static void answer(struct hand *hand, struct ha_done done)
{
    uint32_t ticket = 0;
    for (size_t i = 0; i < hand->count; i++) {
        const struct ha_action *action = &hand->actions[i];
        if (action->kind == done.kind && ha_same(action->stream, done.stream) && action->lane_id == done.lane_id)
            ticket = action->ticket;
    }
    sl_assert(ticket != 0);
    done.ticket = ticket;
    ha_done(&hand->core, hand->now_ns, &done);
    hand_take(hand);
}

void hand_ok(struct hand *hand, enum ha_action_kind kind, struct ha_id stream, uint32_t lane_id,
             struct ha_progress progress, uint64_t through)
{
    answer(hand, (struct ha_done){
                     .kind = kind, .stream = stream, .lane_id = lane_id, .progress = progress, .through = through});
}

void hand_fail(struct hand *hand, enum ha_action_kind kind, struct ha_id stream, uint32_t lane_id,
               enum ha_result result)
{
    answer(hand, (struct ha_done){.kind = kind, .stream = stream, .lane_id = lane_id, .result = result});
}
