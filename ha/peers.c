// The sessions of a node: start, stop, what goes out, what is asked.
#include "ha/peers_internal.h"

#include "base/clock.h"

#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void peers_bind(struct peers *peers)
{
    if (!peers->bound) {
        peers->bound = true;
        peers->thread = pthread_self();
    }
    sl_assert(pthread_equal(peers->thread, pthread_self()));
}

void peers_hand_over(struct peers *peers)
{
    peers_bind(peers);
    peers->bound = false;
}

void peers_notice(struct peers *peers, uint8_t peer, const char *address, const char *why)
{
    struct notice *notice = peer == PEER_NONE ? &peers->stranger : &peers->peer[peer].notice;
    if (peer != PEER_NONE && peers->peer[peer].link == NULL)
        snprintf(peers->peer[peer].status.trouble, sizeof(peers->peer[peer].status.trouble), "%.255s", why);
    int64_t now_ns = sl_monotonic_ns(), since_ns = now_ns - notice->said_ns;
    bool news = peer != PEER_NONE && strcmp(notice->text, why) != 0 && since_ns >= SL_NS_PER_S;
    if (notice->said_ns != 0 && since_ns < NOTICE_NS && !news) {
        notice->held_back++;
        return;
    }
    sl_logf(SL_WARN, "peers", peer == PEER_NONE ? "a connection was refused" : "no session with a peer",
            SL_STR("peer", peer == PEER_NONE ? "" : peers->options.names[peer]), SL_STR("address", address),
            SL_STR("why", why), SL_UINT("not_logged_since", notice->held_back));
    *notice = (struct notice){.said_ns = now_ns};
    snprintf(notice->text, sizeof(notice->text), "%s", why);
}

// ---- start and stop

static bool name_ok(const char *name)
{
    size_t length = name != NULL ? strlen(name) : 0;
    return length > 0 && length <= SPOOL_NAME_MAX && strcspn(name, " \t\r\n") == length;
}

static bool check_member(const struct peers_options *options, uint8_t i, struct sl_error *err)
{
    struct host_port where;
    if (!name_ok(options->names[i]) || !name_ok(options->zones[i]))
        return sl_fail(err, SL_E_INVALID, "member %u needs a name and a zone of at most %d characters", i,
                       SPOOL_NAME_MAX);
    if (i > 0 && strcmp(options->names[i - 1], options->names[i]) >= 0)
        return sl_fail(err, SL_E_INVALID, "members %s and %s are not in order", options->names[i - 1],
                       options->names[i]);
    if (i <= options->self)
        return true;
    if (options->addresses[i] == NULL || !host_port_parse(&where, options->addresses[i]) || where.host[0] == '\0' ||
        strcmp(where.port, "0") == 0)
        return sl_fail(err, SL_E_INVALID, "the address of %s is not host:port: %s", options->names[i],
                       options->addresses[i] != NULL ? options->addresses[i] : "none");
    return true;
}

static bool check(const struct peers_options *options, struct sl_error *err)
{
    if (options->members < 2 || options->members > HA_MEMBERS_MAX || options->self >= options->members)
        return sl_fail(err, SL_E_INVALID, "a cell of %u members, this node number %u", options->members, options->self);
    for (uint8_t i = 0; i < options->members; i++)
        if (!check_member(options, i, err))
            return false;
    if (!name_ok(options->cluster))
        return sl_fail(err, SL_E_INVALID, "the cluster needs a name of at most %d characters", SPOOL_NAME_MAX);
    if (options->silence_ns <= 0 || options->output_low_bytes > options->output_high_bytes ||
        options->output_high_bytes == 0 || options->message_bytes_max > WIRE_MESSAGE_MAX)
        return sl_fail(err, SL_E_INVALID, "times or sizes out of range");
    if (options->tls_ca == NULL)
        return true;
    if (options->tls_certificate == NULL || options->tls_key == NULL)
        return sl_fail(err, SL_E_INVALID, "ha.tls needs certificate, key and ca");
    return tls_check_files(options, err);
}

static const char *copied(const char *text, bool *good)
{
    char *copy = text != NULL ? strdup(text) : NULL;
    if (text != NULL && copy == NULL)
        *good = false;
    return copy;
}

static bool copy_options(struct peers *peers, const struct peers_options *options)
{
    bool good = true;
    struct peers_options *own = &peers->options;
    *own = *options;
    for (uint8_t i = 0; i < HA_MEMBERS_MAX; i++) {
        bool there = i < options->members;
        own->names[i] = there ? copied(options->names[i], &good) : NULL;
        own->zones[i] = there ? copied(options->zones[i], &good) : NULL;
        own->addresses[i] = there && i > options->self ? copied(options->addresses[i], &good) : NULL;
    }
    own->listen = copied(options->listen, &good);
    own->cluster = copied(options->cluster, &good);
    own->tls_certificate = copied(options->tls_certificate, &good);
    own->tls_key = copied(options->tls_key, &good);
    own->tls_ca = copied(options->tls_ca, &good);
    if (own->message_bytes_max == 0)
        own->message_bytes_max = WIRE_MESSAGE_MAX;
    return good;
}

static void drop(const char *text)
{
    free((void *)(uintptr_t)text);
}

static void free_options(struct peers_options *own)
{
    for (uint8_t i = 0; i < HA_MEMBERS_MAX; i++) {
        drop(own->names[i]);
        drop(own->zones[i]);
        drop(own->addresses[i]);
    }
    drop(own->listen);
    drop(own->cluster);
    drop(own->tls_certificate);
    drop(own->tls_key);
    drop(own->tls_ca);
}

static void make_hello(struct peers *peers)
{
    struct wire_hello *hello = &peers->hello;
    const struct peers_options *options = &peers->options;
    *hello = (struct wire_hello){.version = WIRE_VERSION, .member_count = options->members, .self = options->self};
    snprintf(hello->cluster, sizeof(hello->cluster), "%s", options->cluster);
    for (uint8_t i = 0; i < options->members; i++) {
        snprintf(hello->members[i].name, sizeof(hello->members[i].name), "%s", options->names[i]);
        snprintf(hello->members[i].zone, sizeof(hello->members[i].zone), "%s", options->zones[i]);
    }
    evutil_secure_rng_get_bytes(&hello->chance, sizeof(hello->chance));
    memcpy(hello->dedupe_key_id, options->dedupe_key_id, sizeof(hello->dedupe_key_id));
}

bool peers_start(struct peers **out, const struct peers_options *options, struct sl_error *err)
{
    if (!check(options, err))
        return false;
    struct peers *peers = calloc(1, sizeof(*peers));
    if (peers == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "peers");
    peers->listen_fd = -1;
    for (uint8_t i = 0; i < HA_MEMBERS_MAX; i++)
        peers->peer[i].peers = peers;
    if (!copy_options(peers, options)) {
        sl_fail(err, SL_E_NO_MEMORY, "peers");
        goto fail;
    }
    make_hello(peers);
    peers->cell = (struct wire_cell){.names = peers->options.names, .members = options->members};
    if (!peers_listen(peers, err))
        goto fail;
    for (uint8_t i = (uint8_t)(options->self + 1); i < options->members; i++) {
        if (!peer_dial_start(peers, i)) {
            sl_fail(err, SL_E_NO_MEMORY, "peers");
            goto fail;
        }
    }
    *out = peers;
    return true;

fail:
    peers_stop(peers);
    return false;
}

void peers_stop(struct peers *peers)
{
    if (peers == NULL)
        return;
    peers_bind(peers);
    while (peers->links != NULL)
        link_free(peers->links);
    for (uint8_t i = 0; i < HA_MEMBERS_MAX; i++)
        peer_dial_stop(peers, i);
    peers_listen_stop(peers);
    free_options(&peers->options);
    free(peers);
}

uint16_t peers_port(const struct peers *peers)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    char text[128];
    if (getsockname(peers->listen_fd, (struct sockaddr *)&address, &size) != 0)
        return 0;
    address_text(&address, text, sizeof(text));
    return (uint16_t)strtoul(strrchr(text, ':') + 1, NULL, 10);
}

// ---- output

// What libevent tells when it needs the memory of a frame no more.
struct held {
    void (*release)(void *);
    void *held;
};

static void on_drained(const void *bytes, size_t length, void *user)
{
    (void)bytes;
    (void)length;
    struct held *held = user;
    held->release(held->held);
    free(held);
}

static void release_now(void (*release)(void *), void *held)
{
    if (release != NULL)
        release(held);
}

static bool put_body(struct link *link, struct sl_span body, void (*release)(void *), void *user)
{
    if (release == NULL)
        return link_put(link, body.bytes, body.length);
    struct held *held = malloc(sizeof(*held));
    if (held != NULL) {
        *held = (struct held){.release = release, .held = user};
        if (evbuffer_add_reference(link->out, body.bytes, body.length, on_drained, held) == 0)
            return true;
        free(held);
    }
    release(user);
    link_doom(link, "no memory for output");
    return false;
}

bool peers_send(struct peers *peers, uint8_t peer, const struct wire_message *message, void (*release)(void *),
                void *held)
{
    const struct peers_options *options = &peers->options;
    struct link *link = peers->peer[peer].link;
    peers_bind(peers);
    if (link == NULL || link->doomed[0] != '\0') {
        release_now(release, held);
        return false;
    }
    size_t waits = evbuffer_get_length(link->out);
    if (waits > options->output_high_bytes + options->message_bytes_max + OUTPUT_SPARE_BYTES) {
        release_now(release, held);
        link_doom(link, "it does not read what is sent to it");
        return false;
    }
    bool body = message->body.length > 0;
    if (!link_put(link, peers->head, wire_encode(&peers->cell, message, peers->head))) {
        release_now(release, held);
        return false;
    }
    if (!body)
        release_now(release, held);
    else if (!put_body(link, message->body, release, held))
        return false;
    if (evbuffer_get_length(link->out) >= options->output_high_bytes)
        link->full = true;
    if (!link->writing)
        link_wake(link);
    return true;
}

bool peers_has_room(const struct peers *peers, uint8_t peer)
{
    const struct link *link = peers->peer[peer].link;
    return link != NULL && link->doomed[0] == '\0' && evbuffer_get_length(link->out) < peers->options.output_high_bytes;
}

void peers_hold_reading(struct peers *peers, uint8_t peer, bool hold)
{
    struct link *link = peers->peer[peer].link;
    peers_bind(peers);
    if (link == NULL || link->held == hold)
        return;
    link->held = hold;
    link->received_ns = sl_monotonic_ns(); // the silence of the time before was asked for
    link_wake(link);                       // to change what it waits for, and for what has been read already
}

void peers_status(const struct peers *peers, uint8_t peer, struct peer_status *out)
{
    const struct peer *from = &peers->peer[peer];
    const struct link *link = from->link != NULL ? from->link : from->dialled;
    *out = from->status;
    out->up = from->link != NULL;
    out->tls = peers->options.tls_ca != NULL;
    out->output_bytes = from->link != NULL ? evbuffer_get_length(from->link->out) : 0;
    if (link != NULL)
        snprintf(out->address, sizeof(out->address), "%s", link->address);
    else if (peers->options.addresses[peer] != NULL)
        snprintf(out->address, sizeof(out->address), "%.127s", peers->options.addresses[peer]);
}
