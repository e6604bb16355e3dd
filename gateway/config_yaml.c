// YAML into a tree of nodes with line numbers, by libyaml's event interface.
//
// Happy path: one document, one block of keys at the top; every scalar stays the text it was (no guessing of types, so
// that `no`, 010 and 1e3 mean what the schema says).
//
// Refused, because a configuration has no use for it and every one of them has surprised somebody: aliases and anchors
// (and with them expansion bombs and merge keys), tags, more than one document, keys that are not plain text, duplicate
// keys. Limits: CONFIG_FILE_BYTES_MAX, _DEPTH_MAX, _ENTRIES_MAX, _NODES_MAX.
//
// Failure modes: after a syntax error nothing of the file can be trusted, and it is the file's only problem. What is
// merely refused becomes a CONFIG_BROKEN node, and reading goes on.
#include "gateway/config_internal.h"

#include <string.h>
#include <yaml.h>

enum { KEY_BYTES_MAX = 200 };

struct reader {
    struct config_load *load;
    const struct config_file *file;
    yaml_parser_t parser;
    size_t nodes;
};

static int line_of(yaml_mark_t mark)
{
    return (int)mark.line + 1;
}

static int line_at(const struct config_file *file, size_t offset)
{
    int line = 1;
    for (size_t i = 0; i < offset && i < file->length; i++)
        line += file->text[i] == '\n';
    return line;
}

static int last_line(const struct config_file *file)
{
    return line_at(file, file->length > 0 ? file->length - 1 : 0);
}

static bool tab_indents(const struct config_file *file, int line)
{
    const char *at = file->text;
    for (int i = 1; i < line && at != NULL; i++) {
        at = strchr(at, '\n');
        at = at == NULL ? NULL : at + 1;
    }
    return at != NULL && at[strspn(at, " ")] == '\t';
}

static void report_syntax(struct reader *reader)
{
    const yaml_parser_t *parser = &reader->parser;
    const char *problem = parser->problem == NULL ? "out of memory" : parser->problem;
    if (parser->error == YAML_READER_ERROR) {
        config_error(reader->load, reader->file, line_at(reader->file, parser->problem_offset),
                     "the file is not UTF-8 text: %s", problem);
        return;
    }
    int line = line_of(parser->problem_mark);
    if (line > last_line(reader->file))
        line = last_line(reader->file);
    if (tab_indents(reader->file, line))
        config_error(reader->load, reader->file, line, "a tab cannot indent YAML: use spaces");
    else if (parser->context != NULL && line_of(parser->context_mark) < line)
        config_error(reader->load, reader->file, line, "YAML: %s that begins in line %d: %s", parser->context,
                     line_of(parser->context_mark), problem);
    else if (parser->context != NULL)
        config_error(reader->load, reader->file, line, "YAML: %s: %s", parser->context, problem);
    else
        config_error(reader->load, reader->file, line, "YAML: %s", problem);
}

static bool next_event(struct reader *reader, yaml_event_t *event)
{
    if (yaml_parser_parse(&reader->parser, event))
        return true;
    report_syntax(reader);
    return false;
}

static struct config_node *node_new(struct reader *reader, enum config_node_kind kind, int line)
{
    struct config_node *node = config_alloc(&reader->load->scratch, sizeof(*node));
    node->kind = kind;
    node->line = line;
    return node;
}

static void append(struct config_node *parent, struct config_node *child)
{
    if (parent->last == NULL)
        parent->first = child;
    else
        parent->last->next = child;
    parent->last = child;
    parent->count++;
}

// What an event carries beside its value, refused: true when there was something.
static bool refuse_decoration(struct reader *reader, const yaml_char_t *anchor, const yaml_char_t *tag, int line)
{
    if (anchor != NULL)
        config_error(reader->load, reader->file, line, "anchors and aliases are not supported: write the value out");
    if (tag != NULL)
        config_error(reader->load, reader->file, line, "tags are not supported: write the plain value");
    return anchor != NULL || tag != NULL;
}

static struct config_node *build(struct reader *reader, const yaml_event_t *event, int depth);

// The children of a list or block, up to its end. False after a syntax error or an exhausted limit.
static bool build_list(struct reader *reader, struct config_node *list, int depth)
{
    for (;;) {
        yaml_event_t event;
        if (!next_event(reader, &event))
            return false;
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        struct config_node *child = end ? NULL : build(reader, &event, depth + 1);
        yaml_event_delete(&event);
        if (end)
            return true;
        if (child == NULL)
            return false;
        append(list, child);
    }
}

// Takes a key's name over from its event; false when it is none.
static bool take_key(struct reader *reader, const yaml_event_t *event, const char **name)
{
    int line = line_of(event->start_mark);
    *name = NULL;
    if (event->type != YAML_SCALAR_EVENT) {
        config_error(reader->load, reader->file, line, "a key must be a plain word");
        return false;
    }
    const char *text = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            length = 0;
    if (length == 0 || length > KEY_BYTES_MAX) {
        config_error(reader->load, reader->file, line, "a key must be a plain word of at most %d bytes",
                     (int)KEY_BYTES_MAX);
        return false;
    }
    *name = config_copy(&reader->load->scratch, text, length);
    return !refuse_decoration(
        reader, event->data.scalar.anchor,
        event->data.scalar.plain_implicit || event->data.scalar.quoted_implicit ? NULL : event->data.scalar.tag, line);
}

static void add_entry(struct reader *reader, struct config_node *block, struct config_node *child)
{
    for (const struct config_node *other = block->first; other != NULL; other = other->next)
        if (strcmp(other->key, child->key) == 0) {
            config_error(reader->load, reader->file, child->key_line, "duplicate key %s, first given in line %d",
                         child->key, other->key_line);
            return;
        }
    append(block, child);
}

static bool build_block(struct reader *reader, struct config_node *block, int depth)
{
    for (;;) {
        yaml_event_t event;
        if (!next_event(reader, &event))
            return false;
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return true;
        }
        int line = line_of(event.start_mark);
        const char *name;
        bool usable = take_key(reader, &event, &name);
        // A key that is a list or block of its own has to be read to its end all the same.
        struct config_node *skipped = event.type == YAML_SCALAR_EVENT || event.type == YAML_ALIAS_EVENT
                                          ? block
                                          : build(reader, &event, depth + 1);
        yaml_event_delete(&event);
        if (skipped == NULL || !next_event(reader, &event))
            return false;
        struct config_node *child = build(reader, &event, depth + 1);
        yaml_event_delete(&event);
        if (child == NULL)
            return false;
        if (!usable)
            continue;
        child->key = name;
        child->key_line = line;
        if (block->count < CONFIG_ENTRIES_MAX) {
            add_entry(reader, block, child);
            continue;
        }
        config_error(reader->load, reader->file, line, "more than %d keys in one block", (int)CONFIG_ENTRIES_MAX);
        return false;
    }
}

static struct config_node *build_scalar(struct reader *reader, const yaml_event_t *event)
{
    int line = line_of(event->start_mark);
    bool tagged = !event->data.scalar.plain_implicit && !event->data.scalar.quoted_implicit;
    if (refuse_decoration(reader, event->data.scalar.anchor, tagged ? event->data.scalar.tag : NULL, line))
        return node_new(reader, CONFIG_BROKEN, line);
    struct config_node *node = node_new(reader, CONFIG_SCALAR, line);
    node->length = event->data.scalar.length;
    node->text = config_copy(&reader->load->scratch, (const char *)event->data.scalar.value, node->length);
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return node;
}

static struct config_node *build_collection(struct reader *reader, const yaml_event_t *event, int depth)
{
    bool list = event->type == YAML_SEQUENCE_START_EVENT;
    int line = line_of(event->start_mark);
    bool broken =
        list ? refuse_decoration(reader, event->data.sequence_start.anchor, event->data.sequence_start.tag, line)
             : refuse_decoration(reader, event->data.mapping_start.anchor, event->data.mapping_start.tag, line);
    if (depth >= CONFIG_DEPTH_MAX) {
        config_error(reader->load, reader->file, line, "nested deeper than %d levels", (int)CONFIG_DEPTH_MAX);
        return NULL;
    }
    struct config_node *node = node_new(reader, list ? CONFIG_LIST : CONFIG_BLOCK, line);
    if (!(list ? build_list(reader, node, depth) : build_block(reader, node, depth)))
        return NULL;
    if (broken)
        node->kind = CONFIG_BROKEN;
    return node;
}

// The node that `event` begins; NULL when reading cannot go on (already reported).
static struct config_node *build(struct reader *reader, const yaml_event_t *event, int depth)
{
    int line = line_of(event->start_mark);
    if (++reader->nodes > CONFIG_NODES_MAX) {
        config_error(reader->load, reader->file, line, "more than %d values in one file", (int)CONFIG_NODES_MAX);
        return NULL;
    }
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return build_scalar(reader, event);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        return build_collection(reader, event, depth);
    case YAML_ALIAS_EVENT:
        refuse_decoration(reader, event->data.alias.anchor, NULL, line);
        return node_new(reader, CONFIG_BROKEN, line);
    default:
        config_error(reader->load, reader->file, line, "YAML: a value is missing");
        return NULL;
    }
}

// Skips to the first event of the document, and hands it over.
static bool open_document(struct reader *reader, yaml_event_t *event)
{
    for (;;) {
        if (!next_event(reader, event))
            return false;
        if (event->type == YAML_STREAM_END_EVENT) {
            config_error(reader->load, reader->file, 1, "the file is empty");
            yaml_event_delete(event);
            return false;
        }
        if (event->type != YAML_STREAM_START_EVENT && event->type != YAML_DOCUMENT_START_EVENT)
            return true;
        yaml_event_delete(event);
    }
}

static bool close_document(struct reader *reader)
{
    for (;;) {
        yaml_event_t event;
        if (!next_event(reader, &event))
            return false;
        yaml_event_type_t type = event.type;
        int line = line_of(event.start_mark);
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT)
            return true;
        if (type == YAML_DOCUMENT_START_EVENT) {
            config_error(reader->load, reader->file, line, "a second document begins here: one file holds one");
            return false;
        }
    }
}

// libyaml counts these as line breaks and no editor does: line numbers would be wrong from there on.
static bool refuse_odd_breaks(struct reader *reader)
{
    static const char *const breaks[] = {"\xc2\x85", "\xe2\x80\xa8", "\xe2\x80\xa9"};
    for (size_t i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++) {
        const char *at = memmem(reader->file->text, reader->file->length, breaks[i], strlen(breaks[i]));
        if (at == NULL)
            continue;
        config_error(reader->load, reader->file, line_at(reader->file, (size_t)(at - reader->file->text)),
                     "the file holds a Unicode line separator (U+0085, U+2028 or U+2029): use plain newlines");
        return false;
    }
    return true;
}

struct config_node *config_yaml_parse(struct config_load *load, const struct config_file *file)
{
    struct reader reader = {.load = load, .file = file};
    if (!refuse_odd_breaks(&reader))
        return NULL;
    sl_assert(yaml_parser_initialize(&reader.parser));
    // The encoding is given, not guessed (UTF-16 is refused); libyaml then does not skip the mark itself.
    size_t mark = file->length >= 3 && memcmp(file->text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)file->text + mark, file->length - mark);
    struct config_node *root = NULL;
    yaml_event_t event;
    if (!open_document(&reader, &event))
        goto initialized;
    root = build(&reader, &event, 0);
    yaml_event_delete(&event);
    if (root != NULL && !close_document(&reader))
        root = NULL;
    if (root != NULL && root->kind != CONFIG_BLOCK) {
        if (root->kind != CONFIG_BROKEN)
            config_error(load, file, root->line, "the file must hold keys and values");
        root = NULL;
    }
initialized:
    yaml_parser_delete(&reader.parser);
    return root;
}
