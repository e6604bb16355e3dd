// Loading and life of a configuration. See config_internal.h for the steps of a load.
#include "gateway/config_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void owner_free(struct config_owner *owner)
{
    for (struct config_pointer_link *link = owner->pointers; link != NULL; link = link->next)
        json_pointer_free(link->pointer);
    struct config_arena arena = owner->arena;
    free(owner);
    config_arena_free(&arena);
}

static uint32_t default_threads(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    long half = processors / 2;
    return half < 1 ? 1 : half > 64 ? 64 : (uint32_t)half;
}

static void load_files(struct config_load *load, const char *path)
{
    struct config_owner *owner = load->owner;
    struct config_file *file = config_file_read(load, path, false, NULL, 0);
    if (file == NULL)
        return;
    const struct config_node *root = config_yaml_parse(load, file);
    if (root == NULL)
        return;
    owner->config.file = config_copy(&owner->arena, file->absolute, strlen(file->absolute));
    owner->config.listen.threads = default_threads();
    struct config_lines lines;
    config_walk(load, &config_schema_main, file, root, &owner->config, &lines);
    config_check(load, &lines);
    // A file with errors is refused as a whole; what would have to be kept of a good one is not worth saying then.
    if (load->current != NULL && load->error_count == 0)
        config_keep_running(load, &lines);
    config_sources_load(load, &lines);
}

static bool load_config(struct config **out, const char *path, const struct config *current, FILE *problems,
                        struct sl_error *err)
{
    struct config_load load = {.current = current};
    load.owner = calloc(1, sizeof(*load.owner));
    sl_assert(load.owner != NULL);
    atomic_init(&load.owner->references, 1);
    load_files(&load, path);
    bool good = config_problems_write(&load, problems, err);
    if (good)
        *out = &load.owner->config;
    else
        owner_free(load.owner);
    config_problems_free(&load);
    config_arena_free(&load.scratch);
    return good;
}

bool config_load(struct config **out, const char *file, FILE *problems, struct sl_error *err)
{
    return load_config(out, file, NULL, problems, err);
}

bool config_reload(struct config **out, const struct config *current, FILE *problems, struct sl_error *err)
{
    return load_config(out, current->file, current, problems, err);
}

static struct config_owner *owner_of(struct config *config)
{
    return (struct config_owner *)(void *)((unsigned char *)config - offsetof(struct config_owner, config));
}

struct config *config_retain(struct config *config)
{
    atomic_fetch_add_explicit(&owner_of(config)->references, 1, memory_order_relaxed);
    return config;
}

void config_release(struct config *config)
{
    if (config != NULL && atomic_fetch_sub_explicit(&owner_of(config)->references, 1, memory_order_acq_rel) == 1)
        owner_free(owner_of(config));
}

const char *ack_level_word(enum ack_level level)
{
    static const char *const words[] = {[ACK_DISK] = "disk", [ACK_AZ2] = "az2", [ACK_KAFKA] = "kafka"};
    sl_assert((size_t)level < sizeof(words) / sizeof(words[0]));
    return words[level];
}
