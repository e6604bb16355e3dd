// kafka.properties: any librdkafka property, but for those on which the guarantees stand. Whether librdkafka knows a
// property and takes its value is found out by produce/ at start.
//
// Values are often secrets: no message here shows one.
#include "gateway/config_internal.h"

#include <string.h>
#include <strings.h>

static const struct {
    const char *name, *reason;
} refused[] = {
    {"acks", "an event counts as stored only when all in-sync replicas have it (acks=all)"},
    {"request.required.acks", "an event counts as stored only when all in-sync replicas have it (acks=all)"},
    {"enable.idempotence", "without it a retry inside the client could double or reorder events"},
    {"transactional.id", "Sluice forms it from cluster, stream and lane, so that a rival is fenced"},
    {"partitioner", "keys go to the partition the Java client would choose (murmur2)"},
    {"max.in.flight", "the idempotent producer sets it, and order depends on it"},
    {"max.in.flight.requests.per.connection", "the idempotent producer sets it, and order depends on it"},
    {"bootstrap.servers", "use kafka.brokers"},
    {"metadata.broker.list", "use kafka.brokers"},
    {"transaction.timeout.ms", "Sluice sizes its transactions to it"},
};

// Properties that are paths, so that they too are relative to the file that names them.
static const char *const path_properties[] = {
    "ssl.ca.location",       "ssl.certificate.location", "ssl.key.location",
    "ssl.keystore.location", "ssl.crl.location",         "sasl.kerberos.keytab",
};

static const char *refusal_of(const char *name)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        if (strcasecmp(refused[i].name, name) == 0)
            return refused[i].reason;
    return NULL;
}

static bool is_path(const char *name, const char *value)
{
    if (value[0] == '\0' || strcmp(value, "probe") == 0) // librdkafka: look in the usual places
        return false;
    for (size_t i = 0; i < sizeof(path_properties) / sizeof(path_properties[0]); i++)
        if (strcmp(path_properties[i], name) == 0)
            return true;
    return false;
}

static bool property_of(const struct config_place *place, const struct config_node *node, struct config_property *out)
{
    struct config_arena *arena = &place->load->owner->arena;
    const char *path = config_format(&place->load->scratch, "%s.%s", place->key->path, node->key);
    const char *reason = refusal_of(node->key);
    if (reason != NULL) {
        config_error(place->load, place->file, node->key_line, "%s must not be set: %s", path, reason);
        return false;
    }
    if (node->kind == CONFIG_BLOCK) {
        config_error(place->load, place->file, node->key_line,
                     "%s must be one value; librdkafka's names are written with their dots, such as ssl.ca.location",
                     path);
        return false;
    }
    struct config_scalar value;
    if (!config_scalar_of(place->load, place->file, node, path, true, &value))
        return false;
    out->name = config_copy(arena, node->key, strlen(node->key));
    out->value = is_path(node->key, value.text) ? config_path_from(arena, place->file, value.text)
                                                : config_copy(arena, value.text, value.length);
    out->line = node->key_line;
    return true;
}

void config_apply_properties(const struct config_place *place, const struct config_node *node)
{
    struct config *config = place->base;
    if (node->kind == CONFIG_BROKEN)
        return;
    if (node->kind != CONFIG_BLOCK) {
        config_error(place->load, place->file, node->line, "%s must be a block of librdkafka properties",
                     place->key->path);
        return;
    }
    struct config_property *properties = config_alloc(&place->load->owner->arena, node->count * sizeof(*properties));
    size_t count = 0;
    for (const struct config_node *one = node->first; one != NULL; one = one->next)
        count += property_of(place, one, &properties[count]);
    config->kafka.properties = properties;
    config->kafka.property_count = count;
}
