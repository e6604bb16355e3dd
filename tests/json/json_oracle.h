// jansson as the judge of our JSON code. Apart, because jansson.h and gateway/json.h use the same names for kinds.
// Threads: none of its own; values belong to the caller.
#ifndef SLUICE_TESTS_JSON_JSON_ORACLE_H
#define SLUICE_TESTS_JSON_JSON_ORACLE_H

#include <stdbool.h>
#include <stddef.h>

struct json_t; // jansson's

// Any value, duplicate keys refused. NULL: refused; *reason says why, until the next call.
struct json_t *json_oracle_load(const void *bytes, size_t length, const char **reason);
void json_oracle_free(struct json_t *value);
// NULL when `value` has none, or is NULL. index < 0: none.
const struct json_t *json_oracle_step(const struct json_t *value, const char *key, long index);
// kind: "absent", "null", "boolean", "integer", "real", "string", "array" or "object"; text: of the string, or a
// literal.
bool json_oracle_equals(const struct json_t *value, const char *kind, const void *text, size_t length);

#endif
