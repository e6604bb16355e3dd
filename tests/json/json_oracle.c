#include "tests/json/json_oracle.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct json_t *json_oracle_load(const void *bytes, size_t length, const char **reason)
{
    static json_error_t error;
    json_t *value =
        json_loadb(length > 0 ? bytes : "", length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    *reason = error.text;
    return value;
}

void json_oracle_free(struct json_t *value)
{
    json_decref(value);
}

const struct json_t *json_oracle_step(const struct json_t *value, const char *key, long index)
{
    if (json_is_object(value))
        return json_object_get(value, key);
    return json_is_array(value) && index >= 0 ? json_array_get(value, (size_t)index) : NULL;
}

static bool same_real(double a, double b)
{
    return !(a < b) && !(a > b) && signbit(a) == signbit(b); // -0.0 is not 0.0
}

bool json_oracle_equals(const struct json_t *value, const char *kind, const void *text, size_t length)
{
    static const char *const kinds[] = {
        [JSON_OBJECT] = "object", [JSON_ARRAY] = "array",  [JSON_STRING] = "string", [JSON_INTEGER] = "integer",
        [JSON_REAL] = "real",     [JSON_TRUE] = "boolean", [JSON_FALSE] = "boolean", [JSON_NULL] = "null"};
    if (strcmp(kind, value == NULL ? "absent" : kinds[json_typeof(value)]) != 0)
        return false;
    if (json_is_string(value))
        return json_string_length(value) == length && memcmp(json_string_value(value), text, length) == 0;
    char *literal = strndup(text != NULL ? text : "", length);
    bool same = literal != NULL;
    if (json_is_boolean(value))
        same = same && strcmp(literal, json_is_true(value) ? "true" : "false") == 0;
    else if (json_is_integer(value))
        same = same && strtoll(literal, NULL, 10) == json_integer_value(value);
    else if (json_is_real(value))
        same = same && same_real(strtod(literal, NULL), json_real_value(value));
    free(literal);
    return same;
}
