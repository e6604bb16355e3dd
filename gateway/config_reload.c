// What a reload cannot change stays as it runs: each such value is compared with the running one, reported when the
// file says otherwise, and put back.
#include "gateway/config_internal.h"

#include <string.h>

struct keep {
    struct config_load *load;
    struct config *config;        // new
    const struct config *current; // running
    struct config_arena *arena;   // of the new one
};

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static const char *copy_text(const struct keep *keep, const char *text)
{
    return text == NULL ? NULL : config_copy(keep->arena, text, strlen(text));
}

static bool keep_text(const struct keep *keep, const struct config_key *key)
{
    const char *fresh, *running;
    unsigned char *at = (unsigned char *)keep->config + key->offset;
    memcpy(&fresh, at, sizeof(fresh));
    memcpy(&running, (const unsigned char *)keep->current + key->offset, sizeof(running));
    if (same_text(fresh, running))
        return false;
    fresh = copy_text(keep, running);
    memcpy(at, &fresh, sizeof(fresh));
    return true;
}

static bool keep_number(const struct keep *keep, const struct config_key *key)
{
    uint64_t running = config_fetch(key, keep->current);
    if (config_fetch(key, keep->config) == running)
        return false;
    config_store(key, keep->config, running);
    return true;
}

static bool keep_listeners(const struct keep *keep)
{
    size_t count = keep->current->listen.ingest_count;
    const struct http_listener *running = keep->current->listen.ingest;
    bool same = keep->config->listen.ingest_count == count;
    for (size_t i = 0; same && i < count; i++)
        same = keep->config->listen.ingest[i].tls == running[i].tls &&
               same_text(keep->config->listen.ingest[i].address, running[i].address);
    if (same)
        return false;
    struct http_listener *copy = config_alloc(keep->arena, count * sizeof(*copy));
    for (size_t i = 0; i < count; i++)
        copy[i] = (struct http_listener){.address = copy_text(keep, running[i].address), .tls = running[i].tls};
    keep->config->listen.ingest = copy;
    keep->config->listen.ingest_count = count;
    return true;
}

static bool keep_brokers(const struct keep *keep)
{
    if (keep->config->kafka.embedded == keep->current->kafka.embedded &&
        same_text(keep->config->kafka.brokers, keep->current->kafka.brokers))
        return false;
    keep->config->kafka.embedded = keep->current->kafka.embedded;
    keep->config->kafka.brokers = copy_text(keep, keep->current->kafka.brokers);
    return true;
}

static bool keep_properties(const struct keep *keep)
{
    size_t count = keep->current->kafka.property_count;
    const struct config_property *running = keep->current->kafka.properties;
    bool same = keep->config->kafka.property_count == count;
    for (size_t i = 0; same && i < count; i++)
        same = same_text(keep->config->kafka.properties[i].name, running[i].name) &&
               same_text(keep->config->kafka.properties[i].value, running[i].value);
    if (same)
        return false;
    struct config_property *copy = config_alloc(keep->arena, count * sizeof(*copy));
    for (size_t i = 0; i < count; i++) {
        copy[i] = running[i];
        copy[i].name = copy_text(keep, running[i].name);
        copy[i].value = copy_text(keep, running[i].value);
    }
    keep->config->kafka.properties = copy;
    keep->config->kafka.property_count = count;
    return true;
}

static bool keep_peers(const struct keep *keep)
{
    size_t count = keep->current->ha.peer_count;
    const struct config_peer *running = keep->current->ha.peers, *fresh = keep->config->ha.peers;
    bool same = keep->config->ha.peer_count == count;
    for (size_t i = 0; same && i < count; i++)
        same = same_text(fresh[i].name, running[i].name) && same_text(fresh[i].zone, running[i].zone) &&
               same_text(fresh[i].address, running[i].address);
    if (same)
        return false;
    struct config_peer *copy = config_alloc(keep->arena, (count + 1) * sizeof(*copy));
    for (size_t i = 0; i < count; i++)
        copy[i] = (struct config_peer){.name = copy_text(keep, running[i].name),
                                       .zone = copy_text(keep, running[i].zone),
                                       .address = copy_text(keep, running[i].address),
                                       .line = running[i].line};
    keep->config->ha.peers = copy;
    keep->config->ha.peer_count = count;
    return true;
}

static bool keep_peer_tls(const struct keep *keep)
{
    const struct config_peer_tls *running = &keep->current->ha.tls, *fresh = &keep->config->ha.tls;
    if (same_text(fresh->certificate, running->certificate) && same_text(fresh->key, running->key) &&
        same_text(fresh->ca, running->ca))
        return false;
    keep->config->ha.tls = (struct config_peer_tls){.certificate = copy_text(keep, running->certificate),
                                                    .key = copy_text(keep, running->key),
                                                    .ca = copy_text(keep, running->ca)};
    return true;
}

// True when the running value differed and was put back.
static bool keep_value(const struct keep *keep, const struct config_key *key)
{
    switch (key->kind) {
    case CONFIG_KIND_NAME:
    case CONFIG_KIND_TOPIC:
    case CONFIG_KIND_DIRECTORY:
    case CONFIG_KIND_FILE:
    case CONFIG_KIND_ADMIN:
    case CONFIG_KIND_ADDRESS:
        return keep_text(keep, key);
    case CONFIG_KIND_SIZE:
    case CONFIG_KIND_COUNT:
    case CONFIG_KIND_DURATION:
    case CONFIG_KIND_WORD:
        return keep_number(keep, key);
    case CONFIG_KIND_LISTENERS:
        return keep_listeners(keep);
    case CONFIG_KIND_BROKERS:
        return keep_brokers(keep);
    case CONFIG_KIND_PROPERTIES:
        return keep_properties(keep);
    case CONFIG_KIND_PEERS:
        return keep_peers(keep);
    case CONFIG_KIND_PEER_TLS:
        return keep_peer_tls(keep);
    case CONFIG_KIND_POINTER:
    case CONFIG_KIND_EVENT_ID:
    case CONFIG_KIND_FIELDS:
    case CONFIG_KIND_UNSUPPORTED:
        break;
    }
    sl_assert(key->width == 0); // a kind of the main file whose running value nobody keeps
    return false;
}

void config_keep_running(struct config_load *load, const struct config_lines *lines)
{
    struct keep keep = {load, &load->owner->config, load->current, &load->owner->arena};
    for (size_t i = 0; i < lines->schema->count; i++) {
        const struct config_key *key = &lines->schema->keys[i];
        if (!key->reload && key->width > 0 && keep_value(&keep, key))
            config_warn(load, lines->file, config_line_of(lines, key->path, NULL), "%s takes effect at restart",
                        key->path);
    }
}
