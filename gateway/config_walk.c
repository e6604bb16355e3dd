// A tree against a schema table: finds the row of each key, reports keys that have none, and rows that must have one.
#include "gateway/config_internal.h"

#include <string.h>

struct walk {
    struct config_load *load;
    const struct config_schema *schema;
    const struct config_file *file;
    void *base;
    struct config_lines *lines;
};

static const struct config_key *find_row(const struct config_schema *schema, const char *path, size_t *index)
{
    for (size_t i = 0; i < schema->count; i++)
        if (strcmp(schema->keys[i].path, path) == 0) {
            *index = i;
            return &schema->keys[i];
        }
    return NULL;
}

// Whether `key` lies somewhere under the block `path` ("" is the file itself).
static bool is_under(const struct config_key *key, const char *path)
{
    size_t length = strlen(path);
    return length == 0 || (strncmp(key->path, path, length) == 0 && key->path[length] == '.');
}

static bool is_block(const struct config_schema *schema, const char *path)
{
    for (size_t i = 0; i < schema->count; i++)
        if (is_under(&schema->keys[i], path))
            return true;
    return false;
}

// The names that may stand in the block `path`, without repeats; at most CONFIG_KEYS_MAX.
static size_t names_in(struct walk *walk, const char *path, const char **names)
{
    size_t count = 0, skip = path[0] == '\0' ? 0 : strlen(path) + 1;
    for (size_t i = 0; i < walk->schema->count; i++) {
        const struct config_key *key = &walk->schema->keys[i];
        if (!is_under(key, path))
            continue;
        size_t length = strcspn(key->path + skip, ".");
        const char *name = config_copy(&walk->load->scratch, key->path + skip, length);
        bool known = false;
        for (size_t j = 0; j < count && !known; j++)
            known = strcmp(names[j], name) == 0;
        if (!known)
            names[count++] = name;
    }
    return count;
}

// A key of this name in another place of the same schema.
static const char *elsewhere(const struct config_schema *schema, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < schema->count; i++) {
        const char *path = schema->keys[i].path;
        size_t path_length = strlen(path);
        if (path_length >= length && strcmp(path + path_length - length, name) == 0 &&
            (path_length == length || path[path_length - length - 1] == '.'))
            return path;
        // A block's name, too: `tls` under `listen`.
        if (strncmp(path, name, length) == 0 && path[length] == '.')
            return config_schema_main.keys == schema->keys ? name : NULL;
    }
    return NULL;
}

static void report_unknown(struct walk *walk, const struct config_node *node, const char *parent, const char *path)
{
    const char *names[CONFIG_KEYS_MAX];
    size_t count = names_in(walk, parent, names), index;
    const char *near = config_nearest(node->key, names, count);
    const char *other = elsewhere(walk->schema, node->key);
    bool is_main = walk->schema == &config_schema_main;
    const struct config_schema *rest = is_main ? &config_schema_source : &config_schema_main;
    if (strchr(node->key, '.') != NULL && find_row(walk->schema, path, &index) != NULL)
        config_error(walk->load, walk->file, node->key_line,
                     "unknown key %s: write it as a block, %.*s: with %s inside", path, (int)strcspn(node->key, "."),
                     node->key, strchr(node->key, '.') + 1);
    else if (near != NULL)
        config_error(walk->load, walk->file, node->key_line, "unknown key %s: did you mean %s?", path, near);
    else if (other != NULL)
        config_error(walk->load, walk->file, node->key_line, "unknown key %s: did you mean %s?", path, other);
    else if (find_row(rest, path, &index) != NULL || (!is_main && is_block(rest, path)))
        config_error(walk->load, walk->file, node->key_line, "unknown key %s: it belongs in %s", path,
                     is_main ? "a source's own file" : "the main file");
    else
        config_error(walk->load, walk->file, node->key_line, "unknown key %s", path);
}

// Rows under a block that could not be read count as seen: "is missing" would only repeat what was said.
static void mark_under(struct walk *walk, const char *path, int line)
{
    for (size_t i = 0; i < walk->schema->count; i++)
        if (is_under(&walk->schema->keys[i], path))
            walk->lines->lines[i] = line;
}

static void walk_block(struct walk *walk, const struct config_node *block, const char *parent)
{
    for (const struct config_node *node = block->first; node != NULL; node = node->next) {
        const char *path =
            parent[0] == '\0' ? node->key : config_format(&walk->load->scratch, "%s.%s", parent, node->key);
        size_t index;
        // Dots join the names of blocks in messages; a key written with dots is something else.
        bool dotted = strchr(node->key, '.') != NULL;
        const struct config_key *key = dotted ? NULL : find_row(walk->schema, path, &index);
        if (key != NULL) {
            walk->lines->lines[index] = node->key_line;
            struct config_place place = {walk->load, walk->file, key, walk->base};
            config_apply(&place, node);
        } else if (dotted || !is_block(walk->schema, path)) {
            report_unknown(walk, node, parent, path);
        } else if (node->kind == CONFIG_BLOCK) {
            walk_block(walk, node, path);
        } else {
            mark_under(walk, path, node->key_line);
            if (node->kind == CONFIG_BROKEN)
                continue;
            bool empty = node->kind == CONFIG_SCALAR &&
                         (node->length == 0 || strcmp(node->text, "null") == 0 || strcmp(node->text, "~") == 0);
            config_error(walk->load, walk->file, node->line, "%s must %s", path,
                         empty ? "not be empty" : "be a block of keys");
        }
    }
}

// Where to point for a key that is not there: the block that should hold it, else the file's first line.
static int line_of_parent(const struct config_node *root, const char *path)
{
    size_t length = strcspn(path, ".");
    for (const struct config_node *node = root == NULL ? NULL : root->first; node != NULL; node = node->next)
        if (path[length] == '.' && strlen(node->key) == length && strncmp(node->key, path, length) == 0)
            return node->key_line;
    return 1;
}

void config_walk(struct config_load *load, const struct config_schema *schema, const struct config_file *file,
                 const struct config_node *root, void *base, struct config_lines *lines)
{
    *lines = (struct config_lines){.schema = schema, .file = file};
    struct walk walk = {load, schema, file, base, lines};
    for (size_t i = 0; i < schema->count; i++)
        if (schema->keys[i].fallback != NULL) {
            struct config_place place = {load, file, &schema->keys[i], base};
            config_apply_default(&place);
        }
    if (root != NULL)
        walk_block(&walk, root, "");
    for (size_t i = 0; i < schema->count; i++)
        if (schema->keys[i].required != NULL && lines->lines[i] == 0)
            config_error(load, file, line_of_parent(root, schema->keys[i].path), "%s is missing: %s",
                         schema->keys[i].path, schema->keys[i].required);
}

static int line_given(const struct config_lines *lines, const char *path)
{
    size_t index;
    sl_assert(find_row(lines->schema, path, &index) != NULL);
    return lines->lines[index];
}

bool config_was_given(const struct config_lines *lines, const char *path)
{
    return line_given(lines, path) != 0;
}

int config_line_of(const struct config_lines *lines, const char *path, const char *second)
{
    int line = line_given(lines, path);
    if (line == 0 && second != NULL)
        line = line_given(lines, second);
    return line == 0 ? 1 : line;
}
