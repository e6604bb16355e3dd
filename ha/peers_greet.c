// The greeting: HELLO both ways, WELCOME both ways, then the session. Nothing that a wrong partner says gets further.
//
// Failure modes: each difference is told with both values and what to do; the connection ends, and whoever dials tries
// again after a pause, because the other side may be put right at any time. Both ends see the difference by themselves:
// each got the other's HELLO.
#include "ha/peers_internal.h"

#include "base/clock.h"

#include <event2/event.h>
#include <stdio.h>
#include <string.h>

bool link_greet(struct link *link)
{
    struct peers *peers = link->peers;
    return link_put(link, peers->head, wire_encode_hello(&peers->hello, peers->head));
}

static void members_text(const struct wire_hello *hello, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (uint8_t i = 0; i < hello->member_count && used < size; i++) {
        int wrote = snprintf(text + used, size - used, "%s%s (%s)", i > 0 ? ", " : "", hello->members[i].name,
                             hello->members[i].zone);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
}

static bool same_members(const struct wire_hello *a, const struct wire_hello *b)
{
    if (a->member_count != b->member_count)
        return false;
    for (uint8_t i = 0; i < a->member_count; i++)
        if (strcmp(a->members[i].name, b->members[i].name) != 0 || strcmp(a->members[i].zone, b->members[i].zone) != 0)
            return false;
    return true;
}

static void key_text(const uint8_t key[IDS_KEY_ID_BYTES], char text[2 * IDS_KEY_ID_BYTES + 1])
{
    for (size_t i = 0; i < IDS_KEY_ID_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", key[i]);
}

static uint8_t member_of(const struct peers *peers, const char *name)
{
    for (uint8_t i = 0; i < peers->options.members; i++)
        if (strcmp(peers->options.names[i], name) == 0)
            return i;
    return PEER_NONE;
}

// Whether it is somebody whom this link can be with.
static bool right_name(const struct link *link, uint8_t member, const char *name, char *why)
{
    const struct peers *peers = link->peers;
    if (member == peers->options.self)
        snprintf(why, WHY_MAX,
                 link->dialled ? "at this address answers %s, which is this node's own name: correct the address in "
                                 "ha.peers, or node.name of one of them"
                               : "it says that it is %s, which is this node's own name: correct node.name of one of "
                                 "them, or the address in the ha.peers of the node that dialled",
                 name);
    else if (member == PEER_NONE)
        snprintf(why, WHY_MAX, "it says that it is %s, and ha.peers of this node has no such name", name);
    else if (link->dialled && member != link->peer)
        snprintf(why, WHY_MAX, "at this address answers %s, not %s: correct the addresses in ha.peers", name,
                 peers->options.names[link->peer]);
    else if (!link->dialled && member > peers->options.self)
        snprintf(why, WHY_MAX, "%s dialled, although it has the greater name", name);
    else
        return true;
    return false;
}

static bool same_cell(const struct wire_hello *ours, const struct wire_hello *theirs, char *why)
{
    if (strcmp(theirs->cluster, ours->cluster) != 0) {
        snprintf(why, WHY_MAX, "it is of the cluster %s, and this node of %s: node.cluster must be the same",
                 theirs->cluster, ours->cluster);
        return false;
    }
    if (!same_members(theirs, ours)) {
        char left[220], right[220]; // three names and zones of usual length
        members_text(theirs, left, sizeof(left));
        members_text(ours, right, sizeof(right));
        snprintf(why, WHY_MAX, "members or zones differ, there %s, here %s: make node.zone and ha.peers agree", left,
                 right);
        return false;
    }
    if (memcmp(theirs->dedupe_key_id, ours->dedupe_key_id, IDS_KEY_ID_BYTES) != 0) {
        char left[2 * IDS_KEY_ID_BYTES + 1], right[2 * IDS_KEY_ID_BYTES + 1];
        key_text(theirs->dedupe_key_id, left);
        key_text(ours->dedupe_key_id, right);
        snprintf(why, WHY_MAX,
                 "its dedupe key has the id %s, and this node's %s (zeros: none): give all nodes the same "
                 "dedupe.key_file",
                 left, right);
        return false;
    }
    return true;
}

static bool take(struct link *link, const struct wire_hello *theirs, char *why)
{
    const struct peers *peers = link->peers;
    const char *name = theirs->members[theirs->self].name;
    uint8_t member = member_of(peers, name);
    if (!link->dialled && member != PEER_NONE && member != peers->options.self)
        link->peer = member; // whatever is wrong is told under that name
    if (theirs->version != WIRE_VERSION) {
        snprintf(why, WHY_MAX,
                 "%s speaks version %u of the protocol, and this node %u: they replicate again when both run the same "
                 "release",
                 name, theirs->version, (unsigned)WIRE_VERSION);
        return false;
    }
    if (!right_name(link, member, name, why) || !same_cell(&peers->hello, theirs, why))
        return false;
    return link->ssl == NULL || tls_names(link, member, why);
}

bool link_take_hello(struct link *link, const struct wire_header *header, const uint8_t *bytes, char *why)
{
    struct wire_hello theirs;
    struct sl_error err;
    if (!wire_decode_hello(&theirs, header, bytes, &err)) {
        snprintf(why, WHY_MAX, "%s", err.text);
        return false;
    }
    if (link->peer != PEER_NONE)
        link->peers->peer[link->peer].mute_ends = 0;
    // The other end gets to see ours in any case, so that its log says the same.
    if (link->dialled && link->ssl != NULL && !link_greet(link))
        return true;
    if (!take(link, &theirs, why))
        return false;
    link->chance = theirs.chance;
    link->state = LINK_WELCOME;
    uint8_t *welcome = link->peers->head;
    link_put(link, welcome, wire_encode_welcome(welcome));
    return true;
}

static void replace(struct link *older, uint64_t chance)
{
    // Two processes of one name would replace each other for ever: the line says so.
    link_close(older, older->chance == chance ? "a newer connection of the same process replaces it"
                                              : "a newer connection replaces it, of another process of that name");
}

bool link_take_welcome(struct link *link, const struct wire_header *header, const uint8_t *bytes, char *why)
{
    struct peers *peers = link->peers;
    struct peer *peer = &peers->peer[link->peer];
    struct sl_error err;
    if (!wire_decode_welcome(header, bytes, &err)) {
        snprintf(why, WHY_MAX, "%s", err.text);
        return false;
    }
    if (peer->link != NULL)
        replace(peer->link, link->chance);
    link->state = LINK_UP;
    link->up_ns = link->received_ns = sl_monotonic_ns();
    peer->link = link;
    peer->status.since_wall_ns = sl_wall_ns();
    peer->status.sessions++;
    peer->status.trouble[0] = '\0';
    peer->notice = (struct notice){0};
    struct timeval soon = {.tv_sec = 0, .tv_usec = 1000}; // the timer finds out by itself how long it has to run
    event_add(link->timer, &soon);
    sl_logf(SL_INFO, "peers", "session with a peer", SL_STR("peer", peers->options.names[link->peer]),
            SL_STR("zone", peers->options.zones[link->peer]), SL_STR("address", link->address),
            SL_BOOL("tls", link->ssl != NULL));
    peers->options.on_up(peers->options.user, link->peer);
    return true;
}
