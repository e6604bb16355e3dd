// The cell: ha.peers and ha.tls, which have a shape of their own, and what must hold among the keys of a cell.
#include "dedupe/dedupe.h"
#include "gateway/config_internal.h"

#include <string.h>

// ---- small blocks inside one value

enum { PARTS_MAX = 3 };
struct parts { // of one block
    const char *names[PARTS_MAX], *whats[PARTS_MAX];
    struct config_scalar values[PARTS_MAX];
    int lines[PARTS_MAX]; // 0: not given, or not usable
};

// Every part is required and is one value. False after a problem.
static bool take_parts(const struct config_place *place, const struct config_node *block, struct parts *parts)
{
    struct config_load *load = place->load;
    size_t errors = load->error_count;
    bool given[PARTS_MAX] = {false};
    for (const struct config_node *node = block->first; node != NULL; node = node->next) {
        size_t i = 0;
        while (i < PARTS_MAX && strcmp(parts->names[i], node->key) != 0)
            i++;
        const char *path = config_format(&load->scratch, "%s.%s", place->key->path, node->key);
        const char *near = i < PARTS_MAX ? NULL : config_nearest(node->key, parts->names, PARTS_MAX);
        if (near != NULL)
            config_error(load, place->file, node->key_line, "unknown key %s: did you mean %s?", path, near);
        else if (i == PARTS_MAX)
            config_error(load, place->file, node->key_line, "unknown key %s", path);
        else if (given[i] = true, config_scalar_of(load, place->file, node, path, false, &parts->values[i]))
            parts->lines[i] = node->line;
    }
    for (size_t i = 0; i < PARTS_MAX; i++)
        if (!given[i])
            config_error(load, place->file, block->line, "%s.%s is missing: %s", place->key->path, parts->names[i],
                         parts->whats[i]);
    return load->error_count == errors;
}

// ---- ha.peers

static bool peer_name(const struct config_place *place, const struct parts *parts, size_t part)
{
    if (config_is_name(parts->values[part].text))
        return true;
    config_error(place->load, place->file, parts->lines[part],
                 "%s.%s must be 1 to %d of a-z, 0-9 and -, not beginning with -, is %s", place->key->path,
                 parts->names[part], (int)CONFIG_NAME_MAX, config_shown(place->load, &parts->values[part]));
    return false;
}

static bool peer_of(const struct config_place *place, const struct config_node *node, struct config_peer *out)
{
    struct parts parts = {.names = {"name", "zone", "address"},
                          .whats = {"the peer's node.name", "the peer's node.zone",
                                    "where the peer listens (its ha.listen), such as gw-b1:9470"}};
    struct config_arena *arena = &place->load->owner->arena;
    if (node->kind == CONFIG_BROKEN)
        return false;
    if (node->kind != CONFIG_BLOCK) {
        config_error(place->load, place->file, node->line,
                     "%s must be a list of peers, each with name, zone and address", place->key->path);
        return false;
    }
    if (!take_parts(place, node, &parts))
        return false;
    const char *fault = config_address_fault(parts.values[2].text, 1);
    if (fault != NULL)
        config_error(place->load, place->file, parts.lines[2], "%s.address %s, is %s", place->key->path, fault,
                     config_shown(place->load, &parts.values[2]));
    bool good = peer_name(place, &parts, 0);
    good = peer_name(place, &parts, 1) && good && fault == NULL;
    *out = (struct config_peer){.name = config_copy(arena, parts.values[0].text, parts.values[0].length),
                                .zone = config_copy(arena, parts.values[1].text, parts.values[1].length),
                                .address = config_copy(arena, parts.values[2].text, parts.values[2].length),
                                .line = node->line};
    return good;
}

void config_apply_peers(const struct config_place *place, const struct config_node *node)
{
    struct config *config = place->base;
    struct config_scalar value;
    if (node->kind == CONFIG_SCALAR &&
        !config_scalar_of(place->load, place->file, node, place->key->path, false, &value))
        return;
    if (node->kind == CONFIG_BROKEN)
        return;
    if (node->kind != CONFIG_LIST) {
        config_error(place->load, place->file, node->line,
                     "%s must be a list of peers, each with name, zone and address", place->key->path);
        return;
    }
    if (node->count > CONFIG_PEERS_MAX) {
        config_error(place->load, place->file, node->line,
                     "%s names %zu peers; a cell is one gateway in each of up to three zones, so at most %d",
                     place->key->path, node->count, (int)CONFIG_PEERS_MAX);
        return;
    }
    struct config_peer *peers = config_alloc(&place->load->owner->arena, CONFIG_PEERS_MAX * sizeof(*peers));
    size_t good = 0;
    for (const struct config_node *one = node->first; one != NULL; one = one->next)
        good += peer_of(place, one, &peers[good]);
    if (good != node->count)
        return;
    config->ha.peers = peers;
    config->ha.peer_count = good;
}

// ---- ha.tls

static const char *tls_file(const struct config_place *place, const struct parts *parts, size_t part)
{
    struct sl_error err;
    const char *path = config_path_from(&place->load->owner->arena, place->file, parts->values[part].text);
    if (config_file_is_readable(path, &err))
        return path;
    config_error(place->load, place->file, parts->lines[part], "%s.%s: %s %s", place->key->path, parts->names[part],
                 config_shown(place->load, &parts->values[part]), err.text);
    return NULL;
}

void config_apply_peer_tls(const struct config_place *place, const struct config_node *node)
{
    struct config *config = place->base;
    struct config_scalar value;
    if (node->kind == CONFIG_SCALAR) {
        if (config_scalar_of(place->load, place->file, node, place->key->path, false, &value) &&
            strcmp(value.text, "off") != 0)
            config_error(place->load, place->file, node->line,
                         "%s must be off, or a block of certificate, key and ca, is %s", place->key->path,
                         config_shown(place->load, &value));
        return;
    }
    if (node->kind == CONFIG_LIST) {
        config_error(place->load, place->file, node->line,
                     "%s must be off, or a block of certificate, key and ca, not a list", place->key->path);
        return;
    }
    struct parts parts = {.names = {"certificate", "key", "ca"},
                          .whats = {"a PEM file; its SAN names this node or its zone", "its private key, a PEM file",
                                    "a PEM file of those who sign the peers' certificates"}};
    if (node->kind == CONFIG_BROKEN || !take_parts(place, node, &parts))
        return;
    const char *files[PARTS_MAX];
    bool good = true;
    for (size_t i = 0; i < PARTS_MAX; i++) {
        files[i] = tls_file(place, &parts, i);
        good = good && files[i] != NULL;
    }
    if (good)
        config->ha.tls = (struct config_peer_tls){.certificate = files[0], .key = files[1], .ca = files[2]};
}

// ---- among the keys

static bool on_loopback(const char *address)
{
    const char *colon = strrchr(address, ':');
    size_t length = (size_t)(colon - address);
    return (length > 4 && strncmp(address, "127.", 4) == 0 && strspn(address, "0123456789.") == length) ||
           (length == 5 && strncmp(address, "[::1]", 5) == 0) || (length == 9 && strncmp(address, "localhost", 9) == 0);
}

struct check {
    struct config_load *load;
    const struct config_lines *lines;
    const struct config *config;
    int line; // of ha.peers
};

static void check_names(const struct check *check)
{
    const struct config *config = check->config;
    const struct config_peer *peers = config->ha.peers;
    bool other_zone = false;
    for (size_t i = 0; i < config->ha.peer_count; i++) {
        if (config->node_name != NULL && strcmp(peers[i].name, config->node_name) == 0)
            config_error(check->load, check->lines->file, peers[i].line,
                         "ha.peers: %s is this node's own name (node.name); name the other gateways of the cell",
                         peers[i].name);
        for (size_t j = 0; j < i; j++) {
            if (strcmp(peers[i].name, peers[j].name) == 0)
                config_error(check->load, check->lines->file, peers[i].line, "ha.peers names %s twice", peers[i].name);
            else if (strcmp(peers[i].address, peers[j].address) == 0)
                config_error(check->load, check->lines->file, peers[i].line,
                             "ha.peers: %s and %s both have the address %s", peers[j].name, peers[i].name,
                             peers[i].address);
        }
        other_zone = other_zone || strcmp(peers[i].zone, config->node_zone) != 0;
    }
    if (!config_was_given(check->lines, "node.zone"))
        config_error(check->load, check->lines->file, check->line,
                     "node.zone is missing: with ha.peers a node must say in which zone it stands");
    else if (!other_zone)
        config_error(check->load, check->lines->file, check->line,
                     "ha.peers: every peer stands in this node's own zone (%s); az2 needs one in another",
                     config->node_zone);
}

static void check_transport(const struct check *check)
{
    const struct config *config = check->config;
    const struct config_file *file = check->lines->file;
    if (config->ha.listen == NULL) {
        if (!config_was_given(check->lines, "ha.listen"))
            config_error(check->load, file, check->line,
                         "ha.listen is missing: with ha.peers a node must listen for them, such as 0.0.0.0:9470");
        return;
    }
    const char *open = on_loopback(config->ha.listen) ? NULL : config->ha.listen;
    for (size_t i = 0; i < config->ha.peer_count && open == NULL; i++)
        if (!on_loopback(config->ha.peers[i].address))
            open = config->ha.peers[i].address;
    bool broken = config_was_given(check->lines, "ha.tls") && config->ha.tls.certificate == NULL &&
                  check->load->error_count > 0; // what is wrong with it was said
    if (open != NULL && config->ha.tls.certificate == NULL && !broken)
        config_error(check->load, file, config_line_of(check->lines, "ha.tls", "ha.peers"),
                     "ha.tls may be off or absent only while ha.listen and all peers are on loopback, and %s is not: "
                     "events would cross the network in clear, from anybody to anybody",
                     open);
    for (size_t i = 0; i <= config->listen.ingest_count; i++) {
        const char *other = i < config->listen.ingest_count ? config->listen.ingest[i].address : config->listen.admin;
        if (other != NULL && config_same_address(other, config->ha.listen))
            config_error(check->load, file, config_line_of(check->lines, "ha.listen", NULL),
                         "ha.listen and listen.%s both name %s", i < config->listen.ingest_count ? "ingest" : "admin",
                         config->ha.listen);
    }
}

// A key that each node made for itself would make every event look new at the other gateways.
static void check_shared(const struct check *check)
{
    const struct config *config = check->config;
    const struct config_file *file = check->lines->file;
    struct dedupe_key key;
    struct sl_error err;
    if (config->dedupe.window_ns != 0 && !config_was_given(check->lines, "dedupe.key_file"))
        config_error(check->load, file, check->line,
                     "dedupe.key_file is missing: the gateways of a cell share one key, or none of them would know the "
                     "others' events; make it once and copy it to all");
    else if (config->dedupe.window_ns != 0 && config->dedupe.key_file != NULL &&
             !dedupe_key_load(&key, config->dedupe.key_file, false, &err) && err.code != SL_E_INVALID)
        config_error(check->load, file, config_line_of(check->lines, "dedupe.key_file", NULL),
                     "dedupe.key_file: %s; with ha.peers it is not made: all gateways of the cell have the same one",
                     err.text);
    if (config->kafka.embedded)
        config_error(check->load, file, config_line_of(check->lines, "kafka.brokers", NULL),
                     "kafka.brokers: embedded cannot be used with ha.peers: the gateways of a cell share one Kafka "
                     "cluster");
    if (!config->kafka.transactional)
        config_error(check->load, file, config_line_of(check->lines, "kafka.mode", NULL),
                     "kafka.mode: idempotent cannot be used with ha.peers: only a transaction fences off whoever was "
                     "taken over");
    if (config_was_given(check->lines, "ha.peer_wait") && config->ha.peer_wait_ns > config->ha.ack_timeout_ns)
        config_error(check->load, file, config_line_of(check->lines, "ha.peer_wait", NULL),
                     "ha.peer_wait must not be longer than ha.ack_timeout: one slow peer would turn answers into 503");
}

void config_check_ha(struct config_load *load, const struct config_lines *lines)
{
    struct config *config = &load->owner->config;
    struct check check = {load, lines, config, config_line_of(lines, "ha.peers", NULL)};
    if (config->ha.peer_count == 0) {
        static const char *const unused[] = {"ha.listen", "ha.tls"};
        // Wrong peers were reported; then nothing is said of what depends on them.
        bool wrong = config_was_given(lines, "ha.peers") && load->error_count > 0;
        if (config->ha.ack == ACK_AZ2 && !wrong)
            config_error(load, lines->file, config_line_of(lines, "ha.ack", NULL),
                         "ha.ack: az2 needs ha.peers; without them disk or kafka");
        for (size_t i = 0; i < 2 && !wrong; i++)
            if (config_was_given(lines, unused[i]) && (i == 0 || config->ha.tls.certificate != NULL))
                config_warn(load, lines->file, config_line_of(lines, unused[i], NULL),
                            "%s is not used: ha.peers is empty", unused[i]);
        return;
    }
    if (!config_was_given(lines, "ha.ack"))
        config->ha.ack = ACK_AZ2;
    check_names(&check);
    check_transport(&check);
    check_shared(&check);
}
