// What concerns more than one key. Values that were wrong on their own have their defaults here.
#include "base/clock.h"
#include "dedupe/dedupe.h"
#include "gateway/config_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct check {
    struct config_load *load;
    const struct config_lines *lines;
    const struct config *config;
};

static void check_tls(const struct check *check)
{
    const struct config *config = check->config;
    const struct config_file *file = check->lines->file;
    bool certificate = config_was_given(check->lines, "tls.certificate");
    bool key = config_was_given(check->lines, "tls.key");
    const char *wanted_by = NULL;
    for (size_t i = 0; i < config->listen.ingest_count && wanted_by == NULL; i++)
        if (config->listen.ingest[i].tls)
            wanted_by = config->listen.ingest[i].address;
    if (certificate != key)
        config_error(check->load, file, config_line_of(check->lines, "tls.certificate", "tls.key"),
                     "tls.certificate and tls.key must be given together");
    else if (wanted_by != NULL && !certificate)
        config_error(check->load, file, config_line_of(check->lines, "listen.ingest", NULL),
                     "listen.ingest: %s with tls needs tls.certificate and tls.key", wanted_by);
    else if (wanted_by == NULL && certificate)
        config_warn(check->load, file, config_line_of(check->lines, "tls.certificate", "tls.key"),
                    "tls is not used: no address of listen.ingest says tls");
}

static bool is_unix(const char *address)
{
    return strncmp(address, "unix:", 5) == 0;
}

bool config_same_address(const char *a, const char *b)
{
    size_t length = strlen(a);
    bool any_port = length >= 2 && strcmp(a + length - 2, ":0") == 0 && !is_unix(a);
    return strcmp(a, b) == 0 && !any_port;
}

static void check_addresses(const struct check *check)
{
    const struct config *config = check->config;
    const struct http_listener *ingest = config->listen.ingest;
    for (size_t i = 0; i < config->listen.ingest_count; i++) {
        for (size_t j = 0; j < i; j++)
            if (config_same_address(ingest[i].address, ingest[j].address))
                config_error(check->load, check->lines->file, config_line_of(check->lines, "listen.ingest", NULL),
                             "listen.ingest names %s twice", ingest[i].address);
        if (config->listen.admin != NULL && config_same_address(ingest[i].address, config->listen.admin))
            config_error(check->load, check->lines->file, config_line_of(check->lines, "listen.admin", "listen.ingest"),
                         "listen.admin and listen.ingest both name %s", ingest[i].address);
    }
}

static void check_proxy_protocol(const struct check *check)
{
    const struct config *config = check->config;
    size_t unix_sockets = 0;
    for (size_t i = 0; i < config->listen.ingest_count; i++)
        unix_sockets += is_unix(config->listen.ingest[i].address);
    if (config->listen.proxy_protocol != PROXY_OFF && unix_sockets == config->listen.ingest_count)
        config_warn(check->load, check->lines->file, config_line_of(check->lines, "listen.proxy_protocol", NULL),
                    "listen.proxy_protocol is not used: listen.ingest names unix sockets only, which take no header");
}

struct bound {
    const char *path;
    uint64_t bytes;
};

static void check_at_least(const struct check *check, struct bound larger, struct bound smaller, const char *why)
{
    if (larger.bytes >= smaller.bytes)
        return;
    char large[CONFIG_NUMBER_SIZE], small[CONFIG_NUMBER_SIZE];
    config_error(check->load, check->lines->file, config_line_of(check->lines, larger.path, smaller.path),
                 "%s (%s) must be at least %s (%s): %s", larger.path, config_size_text(large, larger.bytes),
                 smaller.path, config_size_text(small, smaller.bytes), why);
}

static void check_budgets(const struct check *check)
{
    const struct config *config = check->config;
    struct bound body = {"limits.body", config->limits.http.body_bytes};
    struct bound decoded = {"limits.decoded", config->limits.decoded_bytes};
    struct bound append = {"limits.append", config->limits.append_bytes};
    struct bound connection = {"limits.unfinished_per_connection", config->limits.http.unfinished_bytes_connection};
    struct bound all = {"limits.unfinished", config->limits.http.unfinished_bytes};
    check_at_least(check, connection, body, "a body of the full size could never arrive");
    check_at_least(check, all, connection, "one connection's budget is part of it");
    check_at_least(check, append, decoded, "a request of the full size could never be stored");
    if (config->spool.max_bytes / 4 < config->spool.segment_bytes) {
        char large[CONFIG_NUMBER_SIZE], small[CONFIG_NUMBER_SIZE];
        config_error(check->load, check->lines->file, config_line_of(check->lines, "spool.max", "spool.segment"),
                     "spool.max (%s) must be at least 4 times spool.segment (%s)",
                     config_size_text(large, config->spool.max_bytes),
                     config_size_text(small, config->spool.segment_bytes));
    }
    if (config->drain.accept_for_ns > config->drain.timeout_ns)
        config_error(check->load, check->lines->file, config_line_of(check->lines, "drain.accept_for", "drain.timeout"),
                     "drain.accept_for must not be longer than drain.timeout, which includes it");
}

// An event that the client refuses to send would be acknowledged and then never arrive. Beside the event a record has
// its key, its headers and the batch's own: ROOM is far more than they take.
static void check_event_size(const struct check *check)
{
    enum { CLIENT_DEFAULT = 1000000, ROOM = 64 * 1024 }; // message.max.bytes of librdkafka
    const struct config *config = check->config;
    uint64_t most = CLIENT_DEFAULT;
    int line = config_line_of(check->lines, "limits.event", "kafka.properties");
    for (size_t i = 0; i < config->kafka.property_count; i++) {
        const struct config_property *property = &config->kafka.properties[i];
        if (strcmp(property->name, "message.max.bytes") != 0)
            continue;
        line = property->line;
        if (!config_parse_count(property->value, &most)) {
            config_error(check->load, check->lines->file, line, "kafka.properties.message.max.bytes must be a number");
            return;
        }
    }
    char event[CONFIG_NUMBER_SIZE];
    if (config->limits.event_bytes + ROOM > most)
        config_error(check->load, check->lines->file, line,
                     "limits.event (%s) needs kafka.properties with message.max.bytes of at least %llu, and topics and "
                     "brokers that take as much",
                     config_size_text(event, config->limits.event_bytes),
                     (unsigned long long)(config->limits.event_bytes + ROOM));
}

// A key that others can read lets them crowd ids out of the window; one that is not there yet is made at the start.
static void check_dedupe(const struct check *check)
{
    const struct config *config = check->config;
    if (config->dedupe.window_ns == 0)
        return;
    if (config->dedupe.window_ns < SL_NS_PER_S)
        config_error(check->load, check->lines->file, config_line_of(check->lines, "dedupe.window", NULL),
                     "dedupe.window must be 0 (off) or at least 1s");
    struct dedupe_key key;
    struct sl_error err;
    const char *file = config->dedupe.key_file;
    if (file != NULL && access(file, F_OK) == 0 && !dedupe_key_load(&key, file, false, &err))
        config_error(check->load, check->lines->file, config_line_of(check->lines, "dedupe.key_file", NULL),
                     "dedupe.key_file: %s", err.text);
}

void config_check(struct config_load *load, const struct config_lines *lines)
{
    struct check check = {load, lines, &load->owner->config};
    check_tls(&check);
    check_addresses(&check);
    check_proxy_protocol(&check);
    check_budgets(&check);
    check_event_size(&check);
    check_dedupe(&check);
    config_check_ha(load, lines);
}
