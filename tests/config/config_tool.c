// Loads a configuration and prints what came of it, for the tables in config_test.py.
//
//   config_tool load FILE      problems, then `failed: <first>` or every value of struct config
//   config_tool each           the same for every file named on stdin, each time with `end STATUS` after it
//   config_tool reload FILE    the same, then waits for a line on stdin, reloads and prints again
//   config_tool schema         a row for each key: which|path|kind|default|least|most|reload
#include "gateway/config_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void text(const char *name, const char *value)
{
    printf("%s = %s\n", name, value == NULL ? "(none)" : value);
}

static void number(const char *name, uint64_t value)
{
    printf("%s = %" PRIu64 "\n", name, value);
}

static void print_limits(const struct config *config)
{
    const struct http_limits *http = &config->limits.http;
    number("limits.http.body_bytes", http->body_bytes);
    number("limits.http.unfinished_bytes_connection", http->unfinished_bytes_connection);
    number("limits.http.unfinished_bytes", http->unfinished_bytes);
    number("limits.http.header_block_bytes", http->header_block_bytes);
    number("limits.http.header_count", http->header_count);
    number("limits.http.connections", http->connections);
    number("limits.http.connections_address", http->connections_address);
    number("limits.http.resets_minute", http->resets_minute);
    number("limits.http.control_frames_minute", http->control_frames_minute);
    number("limits.http.request_timeout_ns", (uint64_t)http->request_timeout_ns);
    number("limits.http.response_timeout_ns", (uint64_t)http->response_timeout_ns);
    number("limits.http.idle_timeout_ns", (uint64_t)http->idle_timeout_ns);
    number("limits.http.handshake_timeout_ns", (uint64_t)http->handshake_timeout_ns);
    number("limits.http.connection_age_ns", (uint64_t)http->connection_age_ns);
    number("limits.decoded_bytes", config->limits.decoded_bytes);
    number("limits.event_bytes", config->limits.event_bytes);
    number("limits.depth", config->limits.depth);
    number("limits.append_bytes", config->limits.append_bytes);
}

static void print_source(const struct config_source *source)
{
    printf("source = %s\n", source->name);
    text("  file", source->file);
    text("  topic", source->topic);
    text("  lane", source->lane);
    for (size_t i = 0; i < source->id_part_count; i++)
        if (source->id_parts[i].from == ID_FROM_HEADER)
            printf("  event_id header = %s\n", source->id_parts[i].header);
        else
            printf("  event_id pointer = %s\n", json_pointer_text(source->id_parts[i].pointer));
    text("  key", source->key == NULL ? NULL : json_pointer_text(source->key));
    text("  time", source->time == NULL ? NULL : json_pointer_text(source->time));
    text("  ack", ack_level_word(source->ack));
    number("  ack_timeout_ns", (uint64_t)source->ack_timeout_ns);
    number("  priority", (uint64_t)source->priority);
    number("  on_conflict", (uint64_t)source->on_conflict);
    for (size_t i = 0; i < source->business_field_count; i++)
        printf("  business_key field = %s\n", json_pointer_text(source->business_fields[i]));
    number("  on_business", (uint64_t)source->on_business);
}

static void print_kafka(const struct config *config)
{
    number("kafka.embedded", config->kafka.embedded);
    text("kafka.brokers", config->kafka.brokers);
    for (size_t i = 0; i < config->kafka.property_count; i++)
        printf("kafka.properties[%zu] = %d %s=%s\n", i, config->kafka.properties[i].line,
               config->kafka.properties[i].name, config->kafka.properties[i].value);
    number("kafka.transactional", config->kafka.transactional);
    number("kafka.embedded_partitions", config->kafka.embedded_partitions);
    number("kafka.transaction_time_ns", (uint64_t)config->kafka.transaction_time_ns);
    number("kafka.queue_events", config->kafka.queue_events);
    number("kafka.queue_bytes", config->kafka.queue_bytes);
}

static void check_finding(const struct config *config, const struct config_source *source)
{
    char name[CONFIG_NAME_MAX + 40] = "";
    size_t length = strlen(source->name);
    memcpy(name, source->name, length); // and then NULs
    sl_assert(config_find_source(config, name, length) == source);
    sl_assert(config_find_source(config, name, length - 1) != source);
    sl_assert(config_find_source(config, name, length + 1) == NULL);
    sl_assert(config_find_source(config, name, sizeof(name)) == NULL);
}

static void print_cell(const struct config *config)
{
    for (size_t i = 0; i < config->ha.peer_count; i++)
        printf("ha.peers[%zu] = %d %s %s %s\n", i, config->ha.peers[i].line, config->ha.peers[i].name,
               config->ha.peers[i].zone, config->ha.peers[i].address);
    text("ha.listen", config->ha.listen);
    text("ha.tls.certificate", config->ha.tls.certificate);
    text("ha.tls.key", config->ha.tls.key);
    text("ha.tls.ca", config->ha.tls.ca);
    number("ha.peer_wait_ns", (uint64_t)config->ha.peer_wait_ns);
    number("ha.takeover_after_ns", (uint64_t)config->ha.takeover_after_ns);
    number("ha.turn_ns", (uint64_t)config->ha.turn_ns);
    number("ha.let_go_after_ns", (uint64_t)config->ha.let_go_after_ns);
    number("ha.order_wait_ns", (uint64_t)config->ha.order_wait_ns);
    number("ha.replica_bytes", config->ha.replica_bytes);
}

static void print_config(const struct config *config)
{
    text("file", config->file);
    text("node_name", config->node_name);
    text("node_zone", config->node_zone);
    text("node_cluster", config->node_cluster);
    for (size_t i = 0; i < config->listen.ingest_count; i++)
        printf("listen.ingest[%zu] = %s%s\n", i, config->listen.ingest[i].address,
               config->listen.ingest[i].tls ? " tls" : "");
    text("listen.admin", config->listen.admin);
    text("listen.proxy_protocol", proxy_version_word(config->listen.proxy_protocol));
    number("listen.threads", config->listen.threads);
    text("tls.certificate_file", config->tls.certificate_file);
    text("tls.key_file", config->tls.key_file);
    print_kafka(config);
    text("spool.dir", config->spool.dir);
    number("spool.segment_bytes", config->spool.segment_bytes);
    number("spool.max_bytes", config->spool.max_bytes);
    number("spool.retain_ns", (uint64_t)config->spool.retain_ns);
    number("spool.prepared", config->spool.prepared);
    number("dedupe.window_ns", (uint64_t)config->dedupe.window_ns);
    number("dedupe.memory_bytes", config->dedupe.memory_bytes);
    text("dedupe.key_file", config->dedupe.key_file);
    number("dedupe.snapshot_every_ns", (uint64_t)config->dedupe.snapshot_every_ns);
    text("ha.ack", ack_level_word(config->ha.ack));
    number("ha.ack_timeout_ns", (uint64_t)config->ha.ack_timeout_ns);
    print_cell(config);
    number("log.json", config->log.json);
    number("log.level", (uint64_t)config->log.level);
    number("log.core_dumps", config->log.core_dumps);
    number("drain.accept_for_ns", (uint64_t)config->drain.accept_for_ns);
    number("drain.timeout_ns", (uint64_t)config->drain.timeout_ns);
    print_limits(config);
    text("sources_dir", config->sources_dir);
    for (size_t i = 0; i < config->lane_count; i++)
        printf("lane = %s\n", config->lanes[i]);
    for (size_t i = 0; i < config->source_count; i++) {
        print_source(config->sources[i]);
        check_finding(config, config->sources[i]);
    }
    sl_assert(config_find_source(config, "", 0) == NULL && config_find_source(config, "~none", 5) == NULL);
}

static void print_schema(const char *which, const struct config_schema *schema)
{
    for (size_t i = 0; i < schema->count; i++) {
        const struct config_key *key = &schema->keys[i];
        char least[CONFIG_NUMBER_SIZE] = "", most[CONFIG_NUMBER_SIZE] = "";
        const char *kind = "other";
        if (key->kind == CONFIG_KIND_SIZE) {
            kind = "size";
            config_size_text(least, key->least);
            config_size_text(most, key->most);
        } else if (key->kind == CONFIG_KIND_DURATION) {
            kind = "duration";
            config_duration_text(least, key->least);
            config_duration_text(most, key->most);
        } else if (key->kind == CONFIG_KIND_COUNT) {
            kind = "count";
            snprintf(least, sizeof(least), "%" PRIu64, key->least);
            snprintf(most, sizeof(most), "%" PRIu64, key->most);
        } else if (key->kind == CONFIG_KIND_UNSUPPORTED) {
            kind = "unsupported";
        }
        const char *fallback = key->fallback != NULL   ? key->fallback
                               : key->computed != NULL ? key->computed
                               : key->required != NULL ? "required"
                                                       : "";
        printf("%s|%s|%s|%s|%s|%s|%s\n", which, key->path, kind, fallback, least, most,
               key->reload ? "reload" : "restart");
    }
}

static int reload(struct config *current)
{
    char line[16];
    fflush(stdout);
    if (fgets(line, sizeof(line), stdin) == NULL)
        return 2;
    struct config *fresh;
    struct sl_error err;
    if (!config_reload(&fresh, current, stdout, &err)) {
        printf("failed: %s\n", err.text);
        return 1;
    }
    // Shares nothing with the old one: it has to outlive it.
    config_release(current);
    print_config(fresh);
    current = config_retain(fresh);
    config_release(fresh);
    config_release(current);
    return 0;
}

static int load(const char *file, struct config **out)
{
    struct sl_error err;
    if (!config_load(out, file, stdout, &err)) {
        sl_assert(err.code == SL_E_CONFIG);
        printf("failed: %s\n", err.text);
        return 1;
    }
    print_config(*out);
    return 0;
}

static int load_each(void)
{
    char path[4096];
    while (fgets(path, sizeof(path), stdin) != NULL) {
        path[strcspn(path, "\n")] = '\0';
        struct config *config = NULL;
        printf("end %d\n", load(path, &config));
        fflush(stdout);
        config_release(config);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "schema") == 0) {
        print_schema("main", &config_schema_main);
        print_schema("source", &config_schema_source);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "each") == 0)
        return load_each();
    if (argc != 3)
        return 2;
    struct config *config;
    if (load(argv[2], &config) != 0)
        return 1;
    if (strcmp(argv[1], "reload") == 0) {
        puts("loaded");
        int status = reload(config);
        if (status != 0)
            config_release(config);
        return status;
    }
    config_release(config);
    return 0;
}
