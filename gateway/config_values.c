// One value at a time: text in, number or verdict out. Sizes and durations are whole numbers with a unit; nothing is
// guessed (010 is neither ten nor eight, 30 is no duration).
#include "gateway/config_internal.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct unit {
    const char *word;
    uint64_t factor;
};

static const struct unit size_units[] = {
    {"", 1},
    {"B", 1},
    {"KiB", UINT64_C(1) << 10},
    {"MiB", UINT64_C(1) << 20},
    {"GiB", UINT64_C(1) << 30},
    {"TiB", UINT64_C(1) << 40},
    {"kB", UINT64_C(1000)},
    {"MB", UINT64_C(1000000)},
    {"GB", UINT64_C(1000000000)},
    {"TB", UINT64_C(1000000000000)},
};
static const struct unit duration_units[] = {
    {"ms", UINT64_C(1000000)},      {"s", UINT64_C(1000000000)},     {"m", UINT64_C(60000000000)},
    {"h", UINT64_C(3600000000000)}, {"d", UINT64_C(86400000000000)},
};
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

// The digits at the start; NULL when there are none, they begin with a superfluous 0, or they do not fit.
static const char *parse_digits(const char *text, uint64_t *value)
{
    *value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(*value, UINT64_C(10), value) ||
            __builtin_add_overflow(*value, (uint64_t)(*at - '0'), value))
            return NULL;
    if (at == text || (text[0] == '0' && at - text > 1))
        return NULL;
    return at;
}

static bool parse_with_units(const char *text, const struct unit *units, size_t count, uint64_t *value)
{
    uint64_t number;
    const char *rest = parse_digits(text, &number);
    for (size_t i = 0; rest != NULL && i < count; i++)
        if (strcmp(rest, units[i].word) == 0)
            return !__builtin_mul_overflow(number, units[i].factor, value);
    return false;
}

bool config_parse_size(const char *text, uint64_t *bytes)
{
    return parse_with_units(text, size_units, COUNT_OF(size_units), bytes);
}

bool config_parse_duration(const char *text, uint64_t *ns)
{
    if (strcmp(text, "0") == 0) {
        *ns = 0;
        return true;
    }
    return parse_with_units(text, duration_units, COUNT_OF(duration_units), ns) && *ns <= INT64_MAX;
}

bool config_parse_count(const char *text, uint64_t *count)
{
    const char *rest = parse_digits(text, count);
    return rest != NULL && *rest == '\0';
}

const char *config_size_text(char out[CONFIG_NUMBER_SIZE], uint64_t bytes)
{
    static const char *const words[] = {"", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    for (; bytes != 0 && bytes % 1024 == 0 && unit + 1 < COUNT_OF(words); unit++)
        bytes /= 1024;
    snprintf(out, CONFIG_NUMBER_SIZE, "%" PRIu64 "%s", bytes, words[unit]);
    return out;
}

const char *config_duration_text(char out[CONFIG_NUMBER_SIZE], uint64_t ns)
{
    if (ns == 0) {
        snprintf(out, CONFIG_NUMBER_SIZE, "0");
        return out;
    }
    size_t unit = COUNT_OF(duration_units);
    while (unit > 1 && ns % duration_units[unit - 1].factor != 0)
        unit--;
    snprintf(out, CONFIG_NUMBER_SIZE, "%" PRIu64 "%s", ns / duration_units[unit - 1].factor,
             duration_units[unit - 1].word);
    return out;
}

bool config_is_name(const char *text)
{
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return length > 0 && length <= CONFIG_NAME_MAX && text[length] == '\0' && text[0] != '-';
}

// Kafka's rules: org.apache.kafka.common.internals.Topic.
const char *config_topic_fault(const char *text)
{
    size_t length = strlen(text);
    if (length == 0 || length > 249 || strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
        return "must be a topic name of 1 to 249 characters, not . or ..";
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)text[i]) && strchr("._-", text[i]) == NULL)
            return "must be a topic name of letters, digits, . _ and -";
    if (strcmp(text, "sluice.progress") == 0)
        return "is the topic in which Sluice keeps its own progress: choose another";
    return NULL;
}

static bool host_is_good(const char *host, size_t length)
{
    if (length > 2 && host[0] == '[' && host[length - 1] == ']') {
        for (size_t i = 1; i + 1 < length; i++)
            if (!isxdigit((unsigned char)host[i]) && strchr(":.%", host[i]) == NULL)
                return false;
        return true;
    }
    if (length == 0 || length > 253)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)host[i]) && strchr(".-_", host[i]) == NULL)
            return false;
    return true;
}

const char *config_address_fault(const char *text, uint64_t port_least)
{
    static const char fault[] = "must be an address such as 127.0.0.1:8080, [::]:8080 or host.example:8080";
    const char *colon = strrchr(text, ':');
    uint64_t port;
    if (colon == NULL || !host_is_good(text, (size_t)(colon - text)))
        return fault;
    if (!config_parse_count(colon + 1, &port) || port < port_least || port > 65535)
        return port_least == 0 ? "must end in a port from 0 (the kernel picks one) to 65535"
                               : "must end in a port from 1 to 65535";
    return NULL;
}

// librdkafka's form: [protocol://]host[:port], separated by commas.
static bool broker_is_good(const char *text)
{
    const char *scheme = strstr(text, "://");
    if (scheme != NULL)
        text = scheme + 3;
    const char *bracket = strrchr(text, ']');
    const char *colon = strchr(bracket == NULL ? text : bracket, ':');
    uint64_t port = 1;
    if (colon != NULL && !(config_parse_count(colon + 1, &port) && port >= 1 && port <= 65535))
        return false;
    return host_is_good(text, colon == NULL ? strlen(text) : (size_t)(colon - text));
}

const char *config_brokers_fault(const char *text)
{
    char one[512];
    for (const char *at = text;;) {
        at += strspn(at, " ");
        size_t length = strcspn(at, ",");
        size_t trimmed = length;
        while (trimmed > 0 && at[trimmed - 1] == ' ')
            trimmed--;
        if (trimmed >= sizeof(one))
            return "holds a broker that is too long";
        memcpy(one, at, trimmed);
        one[trimmed] = '\0';
        if (!broker_is_good(one))
            return "must be brokers such as b1:9092,b2:9092, or embedded";
        if (at[length] == '\0')
            return NULL;
        at += length + 1;
    }
}

// Edits, but for upper and lower case, between two short words: insertion, deletion, change, swap of neighbours
// (optimal string alignment).
static size_t distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    enum { MOST = 64 };
    if (a_length >= MOST || b_length >= MOST)
        return SIZE_MAX;
    size_t rows[3][MOST + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_length; j++)
        above[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t best = above[j - 1] + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
            best = best < above[j] + 1 ? best : above[j] + 1;
            best = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
        size_t *spare = before;
        before = above;
        above = row;
        row = spare;
    }
    return above[b_length];
}

const char *config_nearest(const char *text, const char *const *words, size_t count)
{
    size_t length = strlen(text);
    size_t most = length <= 5 ? 1 : length <= 8 ? 2 : 3;
    const char *best = NULL;
    for (size_t i = 0; i < count; i++) {
        size_t edits = distance(text, length, words[i], strlen(words[i]));
        if (edits <= most && edits < length && edits < strlen(words[i])) {
            most = edits == 0 ? 0 : edits - 1; // strictly nearer from here on
            best = words[i];
            if (edits == 0)
                break;
        }
    }
    // segment_size for segment.
    for (size_t i = 0; best == NULL && i < count; i++)
        if (strlen(words[i]) >= 4 && strncasecmp(text, words[i], strlen(words[i])) == 0)
            best = words[i];
    return best;
}

const char *config_shown(struct config_load *load, const struct config_scalar *scalar)
{
    if (scalar->origin != NULL)
        return config_format(&load->scratch, "the value of %s", scalar->origin);
    enum { SHOWN_MAX = 60 };
    char text[SHOWN_MAX * 4 + 8];
    size_t used = 0;
    text[used++] = '"';
    for (size_t i = 0; i < scalar->length && i < SHOWN_MAX; i++) {
        unsigned char byte = (unsigned char)scalar->text[i];
        if (byte < 0x20 || byte == 0x7f)
            used += (size_t)snprintf(text + used, 5, "\\x%02x", byte);
        else
            text[used++] = (char)byte;
    }
    // A character is cut between its bytes only here; drop what is left of it.
    if (scalar->length > SHOWN_MAX)
        while (used > 1 && ((unsigned char)text[used - 1] & 0xc0) == 0x80)
            used--;
    if (scalar->length > SHOWN_MAX && used > 1 && ((unsigned char)text[used - 1] & 0xc0) == 0xc0)
        used--;
    return config_format(&load->scratch, "%.*s%s", (int)used, text, scalar->length > SHOWN_MAX ? "…\"" : "\"");
}

static bool is_null_word(const struct config_node *node)
{
    if (node->length == 0)
        return true;
    return !node->quoted && (strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0 ||
                             strcmp(node->text, "Null") == 0 || strcmp(node->text, "NULL") == 0);
}

static bool is_one_line(const struct config_scalar *scalar)
{
    for (size_t i = 0; i < scalar->length; i++)
        if ((unsigned char)scalar->text[i] < 0x20 || scalar->text[i] == 0x7f)
            return false;
    return true;
}

// file: and env: put in place of what they name; false after a problem.
static bool resolve(struct config_load *load, const struct config_file *file, const struct config_node *node,
                    const char *path, struct config_scalar *out)
{
    *out = (struct config_scalar){.text = node->text, .length = node->length};
    bool from_env = strncmp(node->text, "env:", 4) == 0, from_file = strncmp(node->text, "file:", 5) == 0;
    if ((from_env || from_file) && !is_one_line(out)) {
        config_error(load, file, node->line, "%s must be one line without control characters", path);
        return false;
    }
    if (from_env) {
        const char *value = getenv(node->text + 4);
        if (value == NULL) {
            config_error(load, file, node->line, "%s names the environment variable %s, which is not set", path,
                         node->text + 4);
            return false;
        }
        *out = (struct config_scalar){
            .text = config_copy(&load->scratch, value, strlen(value)), .length = strlen(value), .origin = node->text};
    } else if (from_file) {
        struct sl_error err;
        size_t length = 0;
        const char *value =
            node->text[5] == '\0'
                ? (sl_fail(&err, SL_E_CONFIG, "names no file"), NULL)
                : config_value_read(load, config_path_from(&load->scratch, file, node->text + 5), &length, &err);
        if (value == NULL) {
            config_error(load, file, node->line, "%s: %s %s", path, node->text, err.text);
            return false;
        }
        *out = (struct config_scalar){.text = value, .length = length, .origin = node->text};
    }
    return true;
}

bool config_scalar_of(struct config_load *load, const struct config_file *file, const struct config_node *node,
                      const char *path, bool any_text, struct config_scalar *out)
{
    if (node->kind == CONFIG_BROKEN)
        return false;
    if (node->kind != CONFIG_SCALAR) {
        config_error(load, file, node->line, "%s must be one value, not %s", path,
                     node->kind == CONFIG_LIST ? "a list" : "a block of keys");
        return false;
    }
    if (strlen(node->text) != node->length) {
        config_error(load, file, node->line, "%s must not hold a NUL", path);
        return false;
    }
    if (is_null_word(node) && !(any_text && node->quoted)) {
        config_error(load, file, node->line, "%s must not be empty", path);
        return false;
    }
    if (!resolve(load, file, node, path, out))
        return false;
    if (strlen(out->text) != out->length)
        config_error(load, file, node->line, "%s must not hold a NUL", path);
    else if (out->length == 0 && !any_text)
        config_error(load, file, node->line, "%s must not be empty: %s is", path, out->origin);
    else if (!any_text && !is_one_line(out))
        config_error(load, file, node->line, "%s must be one line without control characters", path);
    else
        return true;
    return false;
}
