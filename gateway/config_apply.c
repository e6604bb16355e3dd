// One row of the schema, one value of the file: check, then store.
#include "gateway/config_internal.h"

#include <inttypes.h>
#include <string.h>
#include <sys/un.h>

static struct config_arena *kept(const struct config_place *place)
{
    return &place->load->owner->arena;
}

void config_store(const struct config_key *key, void *base, uint64_t value)
{
    if (key->width == 0)
        return;
    unsigned char *at = (unsigned char *)base + key->offset;
    sl_assert(key->width <= sizeof(value) && (key->width == sizeof(value) || value >> (8 * key->width) == 0));
    memcpy(at, &value, key->width); // little-endian, as base/cursor.h insists
}

uint64_t config_fetch(const struct config_key *key, const void *base)
{
    uint64_t value = 0;
    sl_assert(key->width <= sizeof(value));
    memcpy(&value, (const unsigned char *)base + key->offset, key->width);
    return value;
}

static void store_text(const struct config_place *place, const char *text)
{
    if (place->key->width == 0)
        return;
    sl_assert(place->key->width == sizeof(text));
    memcpy((unsigned char *)place->base + place->key->offset, &text, sizeof(text));
}

static bool scalar(const struct config_place *place, const struct config_node *node, struct config_scalar *out)
{
    return config_scalar_of(place->load, place->file, node, place->key->path, false, out);
}

static void apply_name(const struct config_place *place, const struct config_node *node)
{
    struct config_scalar value;
    if (!scalar(place, node, &value))
        return;
    if (!config_is_name(value.text))
        config_error(place->load, place->file, node->line,
                     "%s must be 1 to %d of a-z, 0-9 and -, not beginning with -, is %s", place->key->path,
                     (int)CONFIG_NAME_MAX, config_shown(place->load, &value));
    else
        store_text(place, config_copy(kept(place), value.text, value.length));
}

static void apply_topic(const struct config_place *place, const struct config_node *node)
{
    struct config_scalar value;
    if (!scalar(place, node, &value))
        return;
    const char *fault = config_topic_fault(value.text);
    if (fault != NULL) {
        config_error(place->load, place->file, node->line, "%s %s, is %s", place->key->path, fault,
                     config_shown(place->load, &value));
        return;
    }
    if (value.length >= 4 && strcmp(value.text + value.length - 4, ".dlq") == 0)
        config_warn(place->load, place->file, node->line,
                    "%s ends in .dlq, which is how Sluice names its dead-letter topics", place->key->path);
    else if (value.length > 249 - strlen(".dlq"))
        config_warn(place->load, place->file, node->line,
                    "%s is so long that its dead-letter topic (.dlq at the end) cannot exist", place->key->path);
    store_text(place, config_copy(kept(place), value.text, value.length));
}

static void apply_path(const struct config_place *place, const struct config_node *node)
{
    struct config_scalar value;
    if (!scalar(place, node, &value))
        return;
    const char *path = config_path_from(kept(place), place->file, value.text);
    struct sl_error err;
    if (place->key->kind == CONFIG_KIND_FILE && !config_file_is_readable(path, &err))
        config_error(place->load, place->file, node->line, "%s: %s %s", place->key->path,
                     config_shown(place->load, &value), err.text);
    else
        store_text(place, path);
}

static void number_text(const struct config_key *key, char out[CONFIG_NUMBER_SIZE], uint64_t value)
{
    if (key->kind == CONFIG_KIND_SIZE)
        config_size_text(out, value);
    else if (key->kind == CONFIG_KIND_DURATION)
        config_duration_text(out, value);
    else
        snprintf(out, CONFIG_NUMBER_SIZE, "%" PRIu64, value);
}

static void apply_number(const struct config_place *place, const struct config_node *node)
{
    const struct config_key *key = place->key;
    struct config_scalar value;
    if (!scalar(place, node, &value))
        return;
    uint64_t number;
    bool parsed = key->kind == CONFIG_KIND_SIZE       ? config_parse_size(value.text, &number)
                  : key->kind == CONFIG_KIND_DURATION ? config_parse_duration(value.text, &number)
                                                      : config_parse_count(value.text, &number);
    const char *shown = config_shown(place->load, &value);
    char least[CONFIG_NUMBER_SIZE], most[CONFIG_NUMBER_SIZE];
    number_text(key, least, key->least);
    number_text(key, most, key->most);
    if (!parsed)
        config_error(place->load, place->file, node->line, "%s must be %s, between %s and %s, is %s", key->path,
                     key->kind == CONFIG_KIND_SIZE       ? "a size such as 512, 4KiB, 256MiB or 1GB"
                     : key->kind == CONFIG_KIND_DURATION ? "a duration such as 500ms, 5s, 5m, 24h or 7d"
                                                         : "a whole number",
                     least, most, shown);
    else if (number < key->least || number > key->most)
        config_error(place->load, place->file, node->line, "%s must be between %s and %s, is %s", key->path, least,
                     most, shown);
    else if (key->multiple != 0 && number % key->multiple != 0)
        config_error(place->load, place->file, node->line, "%s must be a multiple of %s, is %s", key->path,
                     config_size_text(least, key->multiple), shown);
    else
        config_store(key, place->base, number);
}

static void apply_word(const struct config_place *place, const struct config_node *node)
{
    struct config_scalar value;
    if (!scalar(place, node, &value))
        return;
    char list[256] = "";
    size_t used = 0;
    for (const struct config_word *word = place->key->words; word->word != NULL; word++) {
        if (strcmp(word->word, value.text) == 0) {
            if (word->unsupported)
                config_error(place->load, place->file, node->line, "%s: %s is not supported by this version",
                             place->key->path, word->word);
            else
                config_store(place->key, place->base, (uint64_t)word->value);
            return;
        }
        const char *between = word == place->key->words ? "" : word[1].word == NULL ? " or " : ", ";
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", between, word->word);
        sl_assert(used < sizeof(list));
    }
    config_error(place->load, place->file, node->line, "%s must be %s, is %s", place->key->path, list,
                 config_shown(place->load, &value));
}

static struct json_pointer *pointer_of(const struct config_place *place, const struct config_node *node,
                                       const struct config_scalar *value)
{
    struct json_pointer *pointer;
    struct sl_error err;
    if (value->text[0] != '/') {
        config_error(place->load, place->file, node->line, "%s must be a JSON Pointer such as /event_id%s, is %s",
                     place->key->path, place->key->kind == CONFIG_KIND_EVENT_ID ? ", or header:NAME" : "",
                     config_shown(place->load, value));
        return NULL;
    }
    if (!json_pointer_compile(&pointer, value->text, &err)) {
        config_error(place->load, place->file, node->line, "%s: %s: %s", place->key->path,
                     config_shown(place->load, value), err.text);
        return NULL;
    }
    struct config_pointer_link *link = config_alloc(kept(place), sizeof(*link));
    *link = (struct config_pointer_link){.pointer = pointer, .next = place->load->owner->pointers};
    place->load->owner->pointers = link;
    return pointer;
}

static void apply_pointer(const struct config_place *place, const struct config_node *node)
{
    struct config_scalar value;
    if (!scalar(place, node, &value))
        return;
    struct json_pointer *pointer = pointer_of(place, node, &value);
    if (pointer != NULL)
        memcpy((unsigned char *)place->base + place->key->offset, &pointer, sizeof(pointer));
}

// A field name of HTTP (RFC 9110, token), lower-cased; NULL when it is none.
static const char *header_name(struct config_arena *arena, const char *text)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t length = strspn(text, token);
    if (length == 0 || length > 128 || text[length] != '\0')
        return NULL;
    char *name = config_copy(arena, text, length);
    for (size_t i = 0; i < length; i++)
        if (name[i] >= 'A' && name[i] <= 'Z')
            name[i] = (char)(name[i] + ('a' - 'A'));
    return name;
}

static void add_id_part(const struct config_place *place, const struct config_node *node)
{
    struct config_source *source = place->base;
    struct config_scalar value;
    if (!scalar(place, node, &value))
        return;
    struct config_id_part part = {.from = ID_FROM_POINTER};
    if (strncmp(value.text, "header:", 7) == 0) {
        part.from = ID_FROM_HEADER;
        part.header = header_name(kept(place), value.text + 7);
        if (part.header == NULL) {
            config_error(place->load, place->file, node->line, "%s must name an HTTP header after header:, is %s",
                         place->key->path, config_shown(place->load, &value));
            return;
        }
    } else {
        part.pointer = pointer_of(place, node, &value);
        if (part.pointer == NULL)
            return;
    }
    source->id_parts[source->id_part_count++] = part;
}

void config_apply_event_id(const struct config_place *place, const struct config_node *node)
{
    if (node->kind != CONFIG_LIST) {
        add_id_part(place, node);
        return;
    }
    if (node->count == 0 || node->count > CONFIG_ID_PARTS_MAX) {
        config_error(place->load, place->file, node->line, "%s must have 1 to %d parts, has %zu", place->key->path,
                     (int)CONFIG_ID_PARTS_MAX, node->count);
        return;
    }
    for (const struct config_node *part = node->first; part != NULL; part = part->next)
        add_id_part(place, part);
}

static void apply_fields(const struct config_place *place, const struct config_node *node)
{
    struct config_source *source = place->base;
    bool list = node->kind == CONFIG_LIST;
    size_t count = list ? node->count : 1;
    if (count == 0 || count > CONFIG_BUSINESS_FIELDS_MAX) {
        config_error(place->load, place->file, node->line, "%s must name 1 to %d fields, names %zu", place->key->path,
                     (int)CONFIG_BUSINESS_FIELDS_MAX, count);
        return;
    }
    for (const struct config_node *one = list ? node->first : node; one != NULL; one = list ? one->next : NULL) {
        struct config_scalar value;
        struct json_pointer *pointer = scalar(place, one, &value) ? pointer_of(place, one, &value) : NULL;
        if (pointer != NULL)
            source->business_fields[source->business_field_count++] = pointer;
    }
}

// An address in the form http.h takes, in the config's arena; NULL after a problem.
static const char *address_of(const struct config_place *place, const struct config_node *node,
                              const struct config_scalar *value, size_t length)
{
    const char *text = config_copy(&place->load->scratch, value->text, length);
    if (strncmp(text, "unix:", 5) != 0) {
        const char *fault = config_address_fault(text, 0);
        if (fault == NULL)
            return config_copy(kept(place), text, length);
        config_error(place->load, place->file, node->line, "%s %s, is %s", place->key->path, fault,
                     config_shown(place->load, value));
        return NULL;
    }
    const char *path = config_path_from(&place->load->scratch, place->file, text + 5);
    size_t room = sizeof(((struct sockaddr_un *)0)->sun_path);
    if (text[5] != '\0' && strlen(path) < room)
        return config_format(kept(place), "unix:%s", path);
    config_error(place->load, place->file, node->line, "%s: unix: must be followed by a path of at most %zu bytes",
                 place->key->path, room - 1);
    return NULL;
}

static void apply_admin(const struct config_place *place, const struct config_node *node)
{
    struct config_scalar value;
    if (!scalar(place, node, &value))
        return;
    if (strcmp(value.text, "off") == 0) {
        store_text(place, NULL);
        return;
    }
    const char *address = address_of(place, node, &value, value.length);
    if (address != NULL)
        store_text(place, address);
}

static void apply_address(const struct config_place *place, const struct config_node *node)
{
    struct config_scalar value;
    if (!scalar(place, node, &value))
        return;
    const char *fault = config_address_fault(value.text, 0);
    if (fault != NULL)
        config_error(place->load, place->file, node->line, "%s %s, is %s", place->key->path, fault,
                     config_shown(place->load, &value));
    else
        store_text(place, config_copy(kept(place), value.text, value.length));
}

static bool listener_of(const struct config_place *place, const struct config_node *node, struct http_listener *out)
{
    struct config_scalar value;
    if (!scalar(place, node, &value))
        return false;
    size_t length = strcspn(value.text, " ");
    const char *rest = value.text + length + strspn(value.text + length, " ");
    if (*rest != '\0' && strcmp(rest, "tls") != 0) {
        config_error(place->load, place->file, node->line, "%s must be an address, or an address and tls, is %s",
                     place->key->path, config_shown(place->load, &value));
        return false;
    }
    *out = (struct http_listener){.address = address_of(place, node, &value, length), .tls = *rest != '\0'};
    return out->address != NULL;
}

void config_apply_listeners(const struct config_place *place, const struct config_node *node)
{
    enum { LISTENERS_MAX = 64 };
    struct config *config = place->base;
    bool list = node->kind == CONFIG_LIST;
    size_t count = list ? node->count : 1;
    if (count == 0 || count > LISTENERS_MAX) {
        config_error(place->load, place->file, node->line, "%s must name 1 to %d addresses, names %zu",
                     place->key->path, (int)LISTENERS_MAX, count);
        return;
    }
    struct http_listener *listeners = config_alloc(kept(place), count * sizeof(*listeners));
    size_t good = 0;
    for (const struct config_node *one = list ? node->first : node; one != NULL; one = list ? one->next : NULL)
        good += listener_of(place, one, &listeners[good]);
    if (good == count) {
        config->listen.ingest = listeners;
        config->listen.ingest_count = count;
    }
}

static void apply_brokers(const struct config_place *place, const struct config_node *node)
{
    struct config *config = place->base;
    struct config_scalar value;
    if (!scalar(place, node, &value))
        return;
    static const char *const embedded[] = {"embedded"};
    if (strcmp(value.text, embedded[0]) == 0) {
        config->kafka.embedded = true;
        return;
    }
    const char *fault = config_brokers_fault(value.text);
    if (fault != NULL)
        config_error(place->load, place->file, node->line, "%s %s, is %s", place->key->path, fault,
                     config_shown(place->load, &value));
    else if (config_nearest(value.text, embedded, 1) != NULL)
        config_error(place->load, place->file, node->line, "%s: did you mean embedded?", place->key->path);
    else
        config->kafka.brokers = config_copy(kept(place), value.text, value.length);
}

static void apply_unsupported(const struct config_place *place, const struct config_node *node)
{
    const char *harmless = place->key->harmless;
    if (node->kind == CONFIG_BROKEN)
        return;
    if (harmless != NULL && node->kind == CONFIG_SCALAR && strcmp(node->text, harmless) == 0)
        return;
    if (harmless != NULL && node->kind == CONFIG_LIST && node->count == 0 && strcmp(harmless, "[]") == 0)
        return;
    config_error(place->load, place->file, node->key_line, "%s is not supported by this version", place->key->path);
}

void config_apply(const struct config_place *place, const struct config_node *node)
{
    static void (*const by_kind[])(const struct config_place *, const struct config_node *) = {
        [CONFIG_KIND_NAME] = apply_name,
        [CONFIG_KIND_TOPIC] = apply_topic,
        [CONFIG_KIND_DIRECTORY] = apply_path,
        [CONFIG_KIND_FILE] = apply_path,
        [CONFIG_KIND_ADMIN] = apply_admin,
        [CONFIG_KIND_LISTENERS] = config_apply_listeners,
        [CONFIG_KIND_BROKERS] = apply_brokers,
        [CONFIG_KIND_PROPERTIES] = config_apply_properties,
        [CONFIG_KIND_SIZE] = apply_number,
        [CONFIG_KIND_COUNT] = apply_number,
        [CONFIG_KIND_DURATION] = apply_number,
        [CONFIG_KIND_WORD] = apply_word,
        [CONFIG_KIND_POINTER] = apply_pointer,
        [CONFIG_KIND_EVENT_ID] = config_apply_event_id,
        [CONFIG_KIND_FIELDS] = apply_fields,
        [CONFIG_KIND_UNSUPPORTED] = apply_unsupported,
        [CONFIG_KIND_ADDRESS] = apply_address,
        [CONFIG_KIND_PEERS] = config_apply_peers,
        [CONFIG_KIND_PEER_TLS] = config_apply_peer_tls,
    };
    by_kind[place->key->kind](place, node);
}

void config_apply_default(const struct config_place *place)
{
    const char *text = place->key->fallback;
    struct config_node node = {.kind = CONFIG_SCALAR, .text = text, .length = strlen(text), .line = 1, .key_line = 1};
    size_t errors = place->load->error_count;
    config_apply(place, &node);
    sl_assert(place->load->error_count == errors);
}
