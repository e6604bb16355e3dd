#include "tests/ha/peers_node.h"

#include <signal.h>

struct event_base *node_base;
static struct event *tick;

static const char *const names[] = {"gw-a1", "gw-b1", "gw-c1"};
static const char *const zones[] = {"az-a", "az-b", "az-c"};

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    (void)user;
}

void node_world_begin(void)
{
    static const struct timeval every = {.tv_usec = 3000};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    node_base = event_base_new();
    sl_assert(node_base != NULL);
    tick = event_new(node_base, -1, EV_PERSIST, on_tick, NULL);
    sl_assert(tick != NULL && event_add(tick, &every) == 0);
}

void node_world_end(void)
{
    event_free(tick);
    event_base_free(node_base);
    node_base = NULL;
}

void node_turn(void)
{
    event_base_loop(node_base, EVLOOP_ONCE);
}

// ---- what happens

static void on_up(void *user, uint8_t peer)
{
    struct node *node = user;
    assert_true(node->ups[peer] == node->downs[peer]);
    node->ups[peer]++;
    node->last_seq[peer] = 0;
}

static void on_down(void *user, uint8_t peer, const char *why)
{
    struct node *node = user;
    assert_true(node->ups[peer] == node->downs[peer] + 1);
    assert_true(why[0] != '\0');
    node->downs[peer]++;
    snprintf(node->why[peer], sizeof(node->why[peer]), "%s", why);
    // Of an ended session there is nothing to send to.
    assert_false(peers_has_room(node->peers, peer));
    assert_false(node_send_heartbeat(node, peer));
}

static void on_writable(void *user, uint8_t peer)
{
    struct node *node = user;
    assert_true(peers_has_room(node->peers, peer));
    node->writables[peer]++;
}

static uint8_t pattern(uint64_t seq, size_t at)
{
    return (uint8_t)(seq * 31 + at * 7 + (at >> 8));
}

static void take_frame(struct node *node, uint8_t peer, const struct wire_message *message)
{
    const uint8_t *bytes = message->body.bytes;
    if (message->message.first != node->last_seq[peer] + 1 || message->count != 1)
        node->broken_frame = true;
    for (size_t at = 4; at < message->body.length; at++)
        if (bytes[at] != pattern(message->message.first, at))
            node->broken_frame = true;
    node->last_seq[peer] = message->message.last;
    node->frame_bytes += message->body.length;
    if (node->hold_at_frame)
        peers_hold_reading(node->peers, peer, true);
}

static void on_message(void *user, uint8_t peer, const struct wire_message *message)
{
    struct node *node = user;
    assert_true(node->ups[peer] == node->downs[peer] + 1);
    assert_int_equal(message->message.from, peer);
    node->messages[peer]++;
    node->last = message->message;
    if (message->message.kind == HA_FRAME)
        take_frame(node, peer, message);
}

// ---- nodes

void node_options(struct node *node, uint8_t self)
{
    memset(node, 0, sizeof(*node));
    node->options = (struct peers_options){.base = node_base,
                                           .self = self,
                                           .members = 3,
                                           .listen = "127.0.0.1:0",
                                           .cluster = "payments",
                                           .dedupe_key_id = {1, 2, 3},
                                           .silence_ns = 600 * SL_NS_PER_S,
                                           .message_bytes_max = 8 << 20,
                                           .output_high_bytes = 1 << 20,
                                           .output_low_bytes = 256 << 10,
                                           .on_up = on_up,
                                           .on_down = on_down,
                                           .on_message = on_message,
                                           .on_writable = on_writable,
                                           .user = node};
    for (uint8_t i = 0; i < HA_MEMBERS_MAX; i++) {
        node->options.names[i] = names[i];
        node->options.zones[i] = zones[i];
        node_address(node, i, 1); // reserved: nobody listens there
    }
}

void node_address(struct node *node, uint8_t peer, uint16_t port)
{
    snprintf(node->addresses[peer], sizeof(node->addresses[peer]), "127.0.0.1:%u", port);
}

void node_start(struct node *node)
{
    struct sl_error err = {.text = ""};
    for (uint8_t i = 0; i < HA_MEMBERS_MAX; i++)
        node->options.addresses[i] = node->addresses[i];
    if (!peers_start(&node->peers, &node->options, &err))
        fail_msg("start: %s", err.text);
}

void node_stop(struct node *node)
{
    peers_stop(node->peers);
    node->peers = NULL;
}

bool node_up(const struct node *node, uint8_t peer)
{
    struct peer_status status;
    peers_status(node->peers, peer, &status);
    assert_int_equal(status.up, node->ups[peer] == node->downs[peer] + 1);
    return status.up;
}

const char *node_trouble(const struct node *node, uint8_t peer)
{
    static struct peer_status status;
    peers_status(node->peers, peer, &status);
    return status.trouble;
}

bool node_says(const struct node *node, uint8_t peer, const char *part)
{
    return strstr(node_trouble(node, peer), part) != NULL;
}

void node_pair(struct node *a, struct node *b)
{
    node_start(b);
    node_address(a, 1, peers_port(b->peers));
    node_start(a);
}

// ---- messages

struct sent {
    unsigned *released;
    uint8_t bytes[];
};

static void release(void *user)
{
    struct sent *sent = user;
    ++*sent->released;
    free(sent);
}

bool node_send_frame(struct node *node, uint8_t peer, uint64_t seq, size_t length, unsigned *released)
{
    struct wire_message *message = calloc(1, sizeof(*message));
    struct sent *sent = malloc(sizeof(*sent) + length);
    sl_assert(message != NULL && sent != NULL && length >= 4);
    uint32_t inner = (uint32_t)(length - 4);
    memcpy(sent->bytes, &inner, 4);
    for (size_t at = 4; at < length; at++)
        sent->bytes[at] = pattern(seq, at);
    sent->released = released;
    message->message = (struct ha_message){.kind = HA_FRAME,
                                           .stream = {.counter = 7, .chance = 1, .member = node->options.self},
                                           .first = seq,
                                           .last = seq};
    message->count = 1;
    message->head.lane_count = 1;
    snprintf(message->head.lanes[0], sizeof(message->head.lanes[0]), "payments");
    message->body = (struct sl_span){.bytes = sent->bytes, .length = length};
    bool taken = peers_send(node->peers, peer, message, release, sent);
    free(message);
    return taken;
}

bool node_send_heartbeat(struct node *node, uint8_t peer)
{
    struct wire_message *message = calloc(1, sizeof(*message));
    sl_assert(message != NULL);
    message->message.kind = HA_HEARTBEAT;
    bool taken = peers_send(node->peers, peer, message, NULL, NULL);
    free(message);
    return taken;
}
