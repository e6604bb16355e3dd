// The configuration's own parts; nothing outside gateway/config*.c and its tests includes this.
//
// A load goes: file → tree of nodes with line numbers (config_yaml.c) → walk against the schema (config_walk.c, the
// tables are config_schema.c, one value at a time config_values.c) → cross-checks (config_check.c) → sources
// (config_source.c). Problems are gathered all along (config_problems.c) and written once, in the order of the lines.
//
// Threads: one load is one thread's. Memory: two arenas, one that dies with the load, one that becomes the config.
// Running out of memory ends the process (sl_assert): a few hundred KiB are at stake, at start or on SIGHUP, and what
// has been acknowledged is on disk by then.
#ifndef SLUICE_GATEWAY_CONFIG_INTERNAL_H
#define SLUICE_GATEWAY_CONFIG_INTERNAL_H

#include "gateway/config.h"
#include "gateway/json.h"

#include <stdatomic.h>

enum {
    CONFIG_FILE_BYTES_MAX = 1 << 20,  // of one YAML file
    CONFIG_VALUE_BYTES_MAX = 1 << 16, // of what file: names
    CONFIG_DEPTH_MAX = 16,            // the schema itself needs 4
    CONFIG_ENTRIES_MAX = 1000,        // of one block or list
    CONFIG_NODES_MAX = 100000,        // of one file
    CONFIG_PROBLEMS_MAX = 200,        // shown of one load
    CONFIG_KEYS_MAX = 96,             // rows of a schema table
};

// ---- memory (config_arena.c)

struct config_chunk;
struct config_arena {
    struct config_chunk *chunks;
};
// Zeroed, aligned for any type; freed with the arena.
void *config_alloc(struct config_arena *arena, size_t size);
char *config_copy(struct config_arena *arena, const char *text, size_t length); // NUL-terminated
char *config_format(struct config_arena *arena, const char *format, ...) SL_PRINTF(2, 3);
void config_arena_free(struct config_arena *arena);

// ---- a load

struct config_file {
    const char *shown;     // as messages name it
    const char *absolute;  // the same, from the root
    const char *directory; // of `absolute`; what relative paths inside are relative to
    unsigned rank;         // order of opening; messages are sorted by it
    const char *text;      // the contents, NUL-terminated
    size_t length;
};

struct config_pointer_link { // a JSON pointer that is freed with its config
    struct json_pointer *pointer;
    struct config_pointer_link *next;
};

struct config_owner { // what a struct config * really points into
    struct config config;
    _Atomic unsigned references;
    struct config_arena arena;
    struct config_pointer_link *pointers;
};

struct config_problem;
struct config_load {
    struct config_owner *owner;   // being built
    const struct config *current; // reload only: the values that stay
    struct config_arena scratch;  // dies with the load
    unsigned file_count;
    struct config_problem *problems;
    size_t problem_count, problem_capacity, error_count;
};

// ---- problems (config_problems.c)

void config_error(struct config_load *load, const struct config_file *file, int line, const char *format, ...)
    SL_PRINTF(4, 5);
void config_warn(struct config_load *load, const struct config_file *file, int line, const char *format, ...)
    SL_PRINTF(4, 5);
// Writes them all, sorted by file and line. Returns true when there was no error, else fills *err with the first one.
bool config_problems_write(struct config_load *load, FILE *out, struct sl_error *err);
void config_problems_free(struct config_load *load);

// ---- files and trees (config_file.c, config_yaml.c)

// Opens and reads; NULL after a problem at `from`:`line` (or at the file itself when `from` is NULL). With `regular`,
// what is no regular file is refused: a pipe among the sources would hang a reload.
struct config_file *config_file_read(struct config_load *load, const char *shown, bool regular,
                                     const struct config_file *from, int line);
// `path` as seen from the file that names it; in the arena given.
const char *config_path_from(struct config_arena *arena, const struct config_file *file, const char *path);
// The whole of a small file without its last newline, in scratch; NULL with *err.
const char *config_value_read(struct config_load *load, const char *path, size_t *length, struct sl_error *err);
bool config_file_is_readable(const char *path, struct sl_error *err);

struct config_node {
    enum config_node_kind {
        CONFIG_SCALAR,
        CONFIG_BLOCK, // keys and values
        CONFIG_LIST,
        CONFIG_BROKEN, // already reported; nothing more is said about it
    } kind;
    bool quoted;     // CONFIG_SCALAR: an empty one is meant
    int line;        // 1-based, of the value
    const char *key; // in a block; NUL-free
    int key_line;
    const char *text; // CONFIG_SCALAR: NUL-terminated, may hold NUL bytes
    size_t length;
    size_t count; // children
    struct config_node *first, *last, *next;
};
// NULL after a problem that leaves nothing to go on with.
struct config_node *config_yaml_parse(struct config_load *load, const struct config_file *file);

// ---- values (config_values.c)

// One scalar, with file: and env: resolved.
struct config_scalar {
    const char *text; // NUL-free and NUL-terminated
    size_t length;
    const char *origin; // "env:NAME", "file:PATH", or NULL when the text stands in the YAML file itself
};
// False after a problem. With `any_text`, quoted empty values and line breaks are let through.
bool config_scalar_of(struct config_load *load, const struct config_file *file, const struct config_node *node,
                      const char *path, bool any_text, struct config_scalar *out);
// The value as messages may show it: quoted, cut, and only its origin when that may be a secret's place.
const char *config_shown(struct config_load *load, const struct config_scalar *scalar);

bool config_parse_size(const char *text, uint64_t *bytes);
bool config_parse_duration(const char *text, uint64_t *ns);
bool config_parse_count(const char *text, uint64_t *count);
enum { CONFIG_NUMBER_SIZE = 32 };
const char *config_size_text(char out[CONFIG_NUMBER_SIZE], uint64_t bytes);
const char *config_duration_text(char out[CONFIG_NUMBER_SIZE], uint64_t ns);
bool config_is_name(const char *text);
// NULL when it is one, else what is wrong.
const char *config_topic_fault(const char *text);
// "host:port" with [] round IPv6, or NULL-free "unix:" handled by the caller. NULL when good, else what is wrong.
const char *config_address_fault(const char *text, uint64_t port_least);
const char *config_brokers_fault(const char *text);
// The nearest of `count` words, when it is near enough to be a slip of the pen; else NULL.
const char *config_nearest(const char *text, const char *const *words, size_t count);

// ---- schema (config_schema.c) and walk (config_walk.c)

enum config_kind {
    CONFIG_KIND_NAME,        // const char *
    CONFIG_KIND_TOPIC,       // const char *
    CONFIG_KIND_DIRECTORY,   // const char *, absolute; need not exist
    CONFIG_KIND_FILE,        // const char *, absolute; readable
    CONFIG_KIND_ADMIN,       // const char *: an address, or NULL for `off`
    CONFIG_KIND_LISTENERS,   // listen.ingest
    CONFIG_KIND_BROKERS,     // kafka.brokers and kafka.embedded
    CONFIG_KIND_PROPERTIES,  // kafka.properties
    CONFIG_KIND_SIZE,        // unsigned integer of `width` bytes, bytes
    CONFIG_KIND_COUNT,       // unsigned integer of `width` bytes
    CONFIG_KIND_DURATION,    // int64_t, ns
    CONFIG_KIND_WORD,        // integer of `width` bytes (enum, bool), one of `words`
    CONFIG_KIND_POINTER,     // struct json_pointer *
    CONFIG_KIND_EVENT_ID,    // id_parts
    CONFIG_KIND_FIELDS,      // business_fields
    CONFIG_KIND_ADDRESS,     // const char *: host:port
    CONFIG_KIND_PEERS,       // ha.peers and ha.peer_count
    CONFIG_KIND_PEER_TLS,    // ha.tls
    CONFIG_KIND_UNSUPPORTED, // refused, unless it is exactly `harmless`
};

struct config_word {
    const char *word; // NULL ends the list
    int value;
    bool unsupported; // known, but refused by this version
};

struct config_key {
    const char *path; // with dots
    enum config_kind kind;
    size_t offset, width; // in struct config or struct config_source; width 0: checked, then dropped
    uint64_t least, most; // SIZE, COUNT, DURATION
    uint64_t multiple;    // SIZE: 0 or what it must be a multiple of
    const char *fallback; // the default as one would write it, NULL: none
    const char *computed; // the default in words, when it is not a constant
    const char *required; // why it must be there, NULL: it need not
    const char *harmless; // UNSUPPORTED: the one value that means "not used" ("[]" is the empty list)
    const struct config_word *words;
    bool reload; // a reload takes the new value
};

struct config_schema {
    const struct config_key *keys;
    size_t count;
};
extern const struct config_schema config_schema_main;   // offsets in struct config
extern const struct config_schema config_schema_source; // offsets in struct config_source

// The lines on which the keys of a schema were found in a file; 0: absent.
struct config_lines {
    const struct config_schema *schema;
    const struct config_file *file;
    int lines[CONFIG_KEYS_MAX];
};
// Line of the first of these that was given, for a message about both; 1 when neither was. `second` may be NULL.
int config_line_of(const struct config_lines *lines, const char *path, const char *second);
bool config_was_given(const struct config_lines *lines, const char *path);

// Sets every default, then what the tree gives; reports unknown, unsupported, wrong and missing keys. `root` may be
// NULL.
void config_walk(struct config_load *load, const struct config_schema *schema, const struct config_file *file,
                 const struct config_node *root, void *base, struct config_lines *lines);

// One row, one value (config_apply.c): reports what is wrong, or stores at base + key->offset.
struct config_place {
    struct config_load *load;
    const struct config_file *file;
    const struct config_key *key;
    void *base;
};
void config_apply(const struct config_place *place, const struct config_node *node);
// The same for a default; a wrong default is a bug (sl_assert).
void config_apply_default(const struct config_place *place);
void config_store(const struct config_key *key, void *base, uint64_t value); // nothing when the row's width is 0
uint64_t config_fetch(const struct config_key *key, const void *base);

// The values with a shape of their own (config_kafka.c, config_apply.c, config_ha.c).
void config_apply_properties(const struct config_place *place, const struct config_node *node);
void config_apply_listeners(const struct config_place *place, const struct config_node *node);
void config_apply_event_id(const struct config_place *place, const struct config_node *node);
void config_apply_peers(const struct config_place *place, const struct config_node *node);
void config_apply_peer_tls(const struct config_place *place, const struct config_node *node);

// ---- after the walk

// What concerns more than one key (config_check.c).
void config_check(struct config_load *load, const struct config_lines *lines);
// The part of it that is about a cell (config_ha.c).
void config_check_ha(struct config_load *load, const struct config_lines *lines);
// Two sockets cannot have both: equal, and not a port that the kernel picks.
bool config_same_address(const char *a, const char *b);
// Puts the running values back wherever a reload cannot change them (config_reload.c).
void config_keep_running(struct config_load *load, const struct config_lines *lines);
// Reads the directory, fills sources and lanes (config_source.c).
void config_sources_load(struct config_load *load, const struct config_lines *lines);

#endif
