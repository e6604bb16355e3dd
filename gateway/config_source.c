// The directory of sources: one file each, *.yaml or *.yml, hidden ones ignored (Kubernetes keeps its own there).
#include "gateway/config_internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sources {
    struct config_load *load;
    const struct config_lines *main; // where problems of the directory itself belong
    const char *shown;               // the directory as messages name it
    struct config_source **list;
    int *lines; // of `source:` in each one's file
    const struct config_file **files;
    size_t count, capacity;
};

static bool is_source_file(const char *name)
{
    const char *dot = strrchr(name, '.');
    return name[0] != '.' && dot != NULL && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

static int by_text(const void *left, const void *right)
{
    const char *const *a = left, *const *b = right;
    return strcmp(*a, *b);
}

// As the user would name it: from the main file's own name, where the directory lies beside it.
static const char *shown_directory(struct config_load *load, const struct config_file *main, const char *directory)
{
    size_t length = strlen(main->directory);
    if (strcmp(main->shown, main->absolute) == 0 || strncmp(directory, main->directory, length) != 0 ||
        directory[length] != '/')
        return directory;
    const char *slash = strrchr(main->shown, '/');
    int prefix = slash == NULL ? 0 : (int)(slash - main->shown) + 1;
    return config_format(&load->scratch, "%.*s%s", prefix, main->shown, directory + length + 1);
}

// The names of the files, sorted, in scratch; false after a problem.
static bool list_files(struct sources *sources, const char ***names, size_t *count)
{
    struct config_load *load = sources->load;
    const char *directory = load->owner->config.sources_dir;
    int line = config_line_of(sources->main, "sources", NULL);
    *count = 0;
    *names = NULL;
    DIR *dir = opendir(directory);
    if (dir == NULL) {
        if (config_was_given(sources->main, "sources") || errno != ENOENT)
            config_error(load, sources->main->file, line, "sources: the directory %s cannot be opened: %s",
                         sources->shown, strerrordesc_np(errno));
        else
            config_warn(load, sources->main->file, line, "there are no sources: %s does not exist", sources->shown);
        return false;
    }
    const char **list = config_alloc(&load->scratch, CONFIG_SOURCES_MAX * sizeof(*list));
    bool fits = true;
    for (const struct dirent *entry; fits && (entry = readdir(dir)) != NULL;) {
        if (!is_source_file(entry->d_name))
            continue;
        fits = *count < CONFIG_SOURCES_MAX;
        if (fits)
            list[(*count)++] = config_copy(&load->scratch, entry->d_name, strlen(entry->d_name));
    }
    closedir(dir);
    if (!fits)
        config_error(load, sources->main->file, line, "sources: more than %d files in %s", (int)CONFIG_SOURCES_MAX,
                     sources->shown);
    else if (*count == 0)
        config_warn(load, sources->main->file, line, "there are no sources: %s holds no *.yaml file", sources->shown);
    qsort(list, *count, sizeof(*list), by_text);
    *names = list;
    return fits;
}

static void check_business_key(struct config_load *load, const struct config_lines *lines,
                               const struct config_source *source)
{
    int line = config_line_of(lines, "business_key.fields", "business_key.on_duplicate");
    if (config_was_given(lines, "business_key.on_duplicate") && !config_was_given(lines, "business_key.fields"))
        config_error(load, lines->file, line,
                     "business_key.on_duplicate needs business_key.fields: a list of JSON Pointers");
    if (source->id_part_count + source->business_field_count > CONFIG_PICKED_MAX)
        config_error(load, lines->file, line, "event_id and business_key.fields together name %zu fields, over %d",
                     source->id_part_count + source->business_field_count, (int)CONFIG_PICKED_MAX);
    if (source->business_field_count > 0 && load->owner->config.dedupe.window_ns == 0)
        config_warn(load, lines->file, line, "business_key has no effect: dedupe.window is 0");
}

static void load_source(struct sources *sources, const char *name)
{
    struct config_load *load = sources->load;
    struct config_owner *owner = load->owner;
    const char *shown = config_format(&load->scratch, "%s/%s", sources->shown, name);
    struct config_file *file =
        config_file_read(load, shown, true, sources->main->file, config_line_of(sources->main, "sources", NULL));
    const struct config_node *root = file == NULL ? NULL : config_yaml_parse(load, file);
    if (root == NULL)
        return;
    struct config_source *source = config_alloc(&owner->arena, sizeof(*source));
    struct config_lines lines;
    config_walk(load, &config_schema_source, file, root, source, &lines);
    source->file = config_copy(&owner->arena, file->shown, strlen(file->shown));
    check_business_key(load, &lines, source);
    if (!config_was_given(&lines, "ack"))
        source->ack = owner->config.ha.ack;
    else if (source->ack == ACK_AZ2 && owner->config.ha.peer_count == 0)
        config_error(load, file, config_line_of(&lines, "ack", NULL),
                     "ack: az2 needs ha.peers in the main file; without them disk or kafka");
    if (!config_was_given(&lines, "ack_timeout"))
        source->ack_timeout_ns = owner->config.ha.ack_timeout_ns;
    if (source->name == NULL)
        return;
    sources->list[sources->count] = source;
    sources->lines[sources->count] = config_line_of(&lines, "source", NULL);
    sources->files[sources->count++] = file;
}

static void report_doubles(const struct sources *sources)
{
    for (size_t i = 0; i < sources->count; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(sources->list[i]->name, sources->list[j]->name) == 0) {
                config_error(sources->load, sources->files[i], sources->lines[i],
                             "source %s is already defined in %s:%d", sources->list[i]->name, sources->files[j]->shown,
                             sources->lines[j]);
                break;
            }
}

static int by_name(const void *left, const void *right)
{
    const struct config_source *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static bool add_lane(const char **lanes, size_t *count, const char *lane)
{
    for (size_t i = 0; i < *count; i++)
        if (strcmp(lanes[i], lane) == 0)
            return true;
    if (*count == CONFIG_LANES_MAX)
        return false;
    lanes[(*count)++] = lane;
    return true;
}

// `main` is always there, so that a reload can add a source to it; and a lane that runs is never stopped by a reload.
static void collect_lanes(const struct sources *sources)
{
    struct config_load *load = sources->load;
    struct config *config = &load->owner->config;
    struct config_arena *arena = &load->owner->arena;
    const char **lanes = config_alloc(arena, CONFIG_LANES_MAX * sizeof(*lanes));
    size_t count = 0;
    add_lane(lanes, &count, "main");
    for (size_t i = 0; load->current != NULL && i < load->current->lane_count; i++)
        add_lane(lanes, &count, config_copy(arena, load->current->lanes[i], strlen(load->current->lanes[i])));
    for (size_t i = 0; i < sources->count; i++)
        if (!add_lane(lanes, &count, sources->list[i]->lane)) {
            config_error(load, sources->files[i], sources->lines[i], "lane %s is one more than the %d there may be%s",
                         sources->list[i]->lane, (int)CONFIG_LANES_MAX,
                         load->current == NULL ? "" : " (those that run stay until a restart)");
            break;
        }
    qsort(lanes, count, sizeof(*lanes), by_text);
    config->lanes = lanes;
    config->lane_count = count;
}

void config_sources_load(struct config_load *load, const struct config_lines *lines)
{
    struct config *config = &load->owner->config;
    struct sources sources = {.load = load, .main = lines};
    const char **names = NULL;
    size_t count = 0;
    if (config->sources_dir != NULL) {
        sources.shown = shown_directory(load, lines->file, config->sources_dir);
        if (!list_files(&sources, &names, &count))
            count = 0;
    }
    sources.list = config_alloc(&load->owner->arena, count * sizeof(struct config_source *));
    sources.lines = config_alloc(&load->scratch, count * sizeof(*sources.lines));
    sources.files = config_alloc(&load->scratch, count * sizeof(*sources.files));
    for (size_t i = 0; i < count; i++)
        load_source(&sources, names[i]);
    report_doubles(&sources);
    collect_lanes(&sources);
    qsort(sources.list, sources.count, sizeof(struct config_source *), by_name);
    config->sources = sources.list;
    config->source_count = sources.count;
}

const struct config_source *config_find_source(const struct config *config, const char *name, size_t name_length)
{
    size_t low = 0, high = config->source_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct config_source *source = config->sources[middle];
        // The name comes from a URL and may hold anything, a NUL as well.
        size_t length = strlen(source->name);
        int order = memcmp(name, source->name, name_length < length ? name_length : length);
        if (order == 0 && name_length == length)
            return source;
        if (order > 0 || (order == 0 && name_length > length))
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
