// Records from holder to holder: the owner's stream as it grows, and copies of what has lost one.
//
// Happy path: the owner sends what it handed to its own disk, without waiting for that disk; the peer stores it behind
// its copy's end, syncs, and says how far it is durable; that moves `copies[peer].end`, which the acknowledgement rule
// reads.
//
// Failure modes: a frame that is lost, late or doubled: positions are cumulative, and when nothing is answered for
// resend_ns the first record behind the peer's end is sent again, alone. A peer that takes no more than that one had
// lost what came behind it, which is sent again, too; one that takes more had it all the time, and stood still: its
// disk has no room, or is slow, and another window each second would leave it no time for anything else. A peer that
// begins anew says so in its first heartbeat and is sent from where it is, or from the produced position if that is
// later (the base rule in take_frame decides whether it may begin there). A peer with a fence mark refuses the owner;
// what it holds still grows by repair copies.
#include "ha/core_internal.h"

// Of the holders that the peer hears, the one with most, and among equals the first, offers copies: the others would
// send the same bytes.
static bool offers(const struct ha_core *core, const struct ha_stream *stream, uint8_t peer)
{
    const struct ha_copy *own = &stream->copies[core->options.self];
    for (uint8_t other = 0; other < core->options.members; other++) {
        const struct ha_copy *copy = &stream->copies[other];
        if (other == core->options.self || other == peer || !copy->there || !ha_alive(core, other))
            continue;
        if (core->members[peer].silence_ns[other] > core->options.takeover_after_ns)
            continue;
        if (copy->end > own->end || (copy->end == own->end && other < core->options.self))
            return false;
    }
    return true;
}

static bool may_send(const struct ha_core *core, const struct ha_stream *stream, uint8_t peer)
{
    if (!core->members[peer].up || !core->members[peer].spoke)
        return false;
    if (stream->current)
        return true;
    const struct ha_copy *own = &stream->copies[core->options.self];
    // A stream that its owner still writes comes from there, unless the owner is not heard any more.
    if (stream->id.member == peer && (stream->copies[peer].flags & HA_ENTRY_CURRENT))
        return false;
    bool written = stream->id.member != core->options.self && ha_alive(core, stream->id.member) &&
                   (stream->copies[stream->id.member].flags & HA_ENTRY_CURRENT);
    return ha_unproduced(stream, own) && !written && offers(core, stream, peer);
}

// First record that the peer lacks and this node can give.
static uint64_t wanted_from(const struct ha_core *core, const struct ha_stream *stream, uint8_t peer)
{
    const struct ha_copy *own = &stream->copies[core->options.self];
    uint64_t from = stream->copies[peer].there ? stream->copies[peer].end + 1 : 1;
    uint64_t through = ha_through(stream);
    if (from <= through)
        from = through + 1;
    return from < own->base ? own->base : from;
}

static bool send(struct ha_core *core, struct ha_stream *stream, uint8_t peer, uint64_t first, uint64_t last)
{
    struct ha_action *action = ha_emit(core, HA_SEND, stream);
    if (action == NULL)
        return false;
    action->peer = peer;
    action->first = first;
    action->last = last;
    action->repair = !stream->current;
    action->stated_through = ha_through(stream);
    core->figures.repairs_sent += action->repair;
    return true;
}

// False: no room for another action.
static bool send_again(struct ha_core *core, struct ha_stream *stream, uint8_t peer, uint64_t wanted)
{
    // The time runs from the last answer that moved, not from the last send: a stream that grows is always sending.
    bool moved = stream->waits_for[peer] != wanted || stream->next[peer] <= wanted;
    bool overdue = core->now_ns - stream->waits_ns[peer] >= core->options.resend_ns;
    if (moved) {
        bool alone = stream->probed[peer] && wanted == stream->waits_for[peer] + 1;
        if (stream->next[peer] < wanted || alone)
            stream->next[peer] = wanted;
        stream->probed[peer] = false;
    } else if (overdue) {
        if (!send(core, stream, peer, wanted, wanted))
            return false;
        stream->probed[peer] = true;
    }
    if (moved || overdue) {
        stream->waits_for[peer] = wanted;
        stream->waits_ns[peer] = core->now_ns;
    }
    return true;
}

void ha_replicate(struct ha_core *core, struct ha_stream *stream)
{
    uint64_t end = stream->current ? stream->appended : ha_own(core, stream)->end;
    if (!ha_own(core, stream)->there)
        return;
    HA_EACH_PEER(core, peer)
    {
        if (!may_send(core, stream, peer))
            continue;
        uint64_t wanted = wanted_from(core, stream, peer);
        if (!send_again(core, stream, peer, wanted))
            return;
        while (stream->next[peer] <= end && stream->next[peer] - wanted < HA_WINDOW_SEQS) {
            uint64_t first = stream->next[peer];
            uint64_t last = end - first < HA_SEND_SEQS_MAX ? end : first + HA_SEND_SEQS_MAX - 1;
            if (!send(core, stream, peer, first, last))
                return;
            stream->next[peer] = last + 1;
        }
    }
}

static void answer(struct ha_core *core, const struct ha_message *message, const struct ha_stream *stream, bool refused)
{
    struct ha_action *say = ha_emit(core, HA_SAY, stream);
    if (say == NULL)
        return;
    say->peer = message->from;
    say->refused = refused;
    say->last = stream->copies[core->options.self].end;
}

void ha_take_frame(struct ha_core *core, const struct ha_message *message)
{
    sl_assert(message->first >= 1 && message->first <= message->last);
    struct ha_stream *stream = ha_place(core, message->stream, &message->head);
    if (stream == NULL || stream->current || stream->emptying)
        return; // while "empty" is being recorded nothing is taken; it comes again
    bool from_owner = message->from == stream->id.member;
    if (from_owner && stream->owner_acked < message->acked_through)
        stream->owner_acked = message->acked_through;
    if (stream->fence_marked && from_owner && !message->repair) {
        answer(core, message, stream, true);
        return;
    }
    struct ha_copy *own = ha_own(core, stream);
    uint64_t end = own->there ? stream->stored_end : 0;
    if (end < stream->guard)
        end = stream->guard; // recorded as produced when this node last held nothing of it
    if (message->last <= end) {
        if (own->there)
            answer(core, message, stream, false);
        return;
    }
    // The base rule: what lies below a copy must be known to be produced.
    bool gap = message->first > end + 1;
    if (gap && message->stated_through + 1 < message->first) {
        if (own->there)
            answer(core, message, stream, false);
        return;
    }
    struct ha_action *store = ha_emit(core, HA_STORE, stream);
    if (store == NULL)
        return;
    store->first = gap ? message->first : end + 1;
    store->last = message->last;
    store->new_base = !own->there || store->first != stream->stored_end + 1;
    if (store->new_base) {
        *own = (struct ha_copy){.there = true, .base = store->first, .end = store->first - 1};
        if (stream->guard < own->end)
            stream->guard = own->end;
        for (uint32_t i = 0; i < HA_LANES_MAX; i++)
            stream->lanes[i].moved_ns = core->now_ns;
    }
    stream->stored_end = store->last;
    stream->fed_by = message->from;
}

void ha_take_durable(struct ha_core *core, const struct ha_message *message)
{
    struct ha_stream *stream = ha_find(core, message->stream);
    if (stream == NULL)
        return;
    struct ha_copy *copy = &stream->copies[message->from];
    if (!copy->there)
        *copy = (struct ha_copy){.there = true, .base = 1};
    if (copy->end < message->last) {
        copy->end = message->last;
        copy->flags &= (uint8_t)~HA_ENTRY_EMPTY;
    }
    ha_replicate(core, stream);
}
