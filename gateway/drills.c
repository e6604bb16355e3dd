// Reads the verdicts of the last drills. The file is another program's: what it holds is checked, and copied field by
// field, before it is shown.
#include "gateway/drills.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const fields[] = {"name", "verdict", "at", "line", "why"};

static bool is_verdict(const char *word)
{
    return strcmp(word, "PASS") == 0 || strcmp(word, "FAIL") == 0 || strcmp(word, "SKIP") == 0;
}

// NULL when a field is missing or of another type.
static json_t *copy_drill(const json_t *drill)
{
    json_t *copy = json_object();
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        json_t *value = json_object_get(drill, fields[i]);
        if (!json_is_string(value)) {
            json_decref(copy);
            return NULL;
        }
        json_object_set(copy, fields[i], value);
    }
    if (!is_verdict(json_string_value(json_object_get(copy, "verdict")))) {
        json_decref(copy);
        return NULL;
    }
    return copy;
}

static bool parse(const char *text, size_t length, json_t **out, struct sl_error *err)
{
    json_error_t problem;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &problem);
    if (root == NULL)
        return sl_fail(err, SL_E_INVALID, "line %d: %s", problem.line, problem.text);
    json_t *drills = json_object_get(root, "drills");
    json_t *list = json_array();
    bool good = json_integer_value(json_object_get(root, "version")) == 1 && json_is_array(drills) &&
                json_array_size(drills) <= DRILLS_COUNT_MAX;
    if (!good)
        sl_fail(err, SL_E_INVALID, "not a list of at most %d drills of version 1", DRILLS_COUNT_MAX);
    for (size_t i = 0; good && i < json_array_size(drills); i++) {
        json_t *copy = copy_drill(json_array_get(drills, i));
        good = copy != NULL && json_array_append_new(list, copy) == 0;
        if (!good)
            sl_fail(err, SL_E_INVALID, "drill %zu: not name, verdict, at, line and why", i);
    }
    json_decref(root);
    if (!good) {
        json_decref(list);
        return false;
    }
    *out = list;
    return true;
}

static bool read_all(int fd, char *bytes, size_t capacity, size_t *length, struct sl_error *err)
{
    *length = 0;
    while (*length < capacity) {
        ssize_t got = read(fd, bytes + *length, capacity - *length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return sl_fail_errno(err, SL_E_IO, errno, "read");
        if (got == 0)
            return true;
        *length += (size_t)got;
    }
    return sl_fail(err, SL_E_TOO_LARGE, "over %d bytes", DRILLS_BYTES_MAX);
}

static bool read_file(int fd, json_t **out, struct sl_error *err)
{
    struct stat what;
    if (fstat(fd, &what) != 0 || !S_ISREG(what.st_mode))
        return sl_fail(err, SL_E_INVALID, "not a regular file");
    char *bytes = malloc(DRILLS_BYTES_MAX + 1);
    if (bytes == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "no memory");
    size_t length;
    bool good = read_all(fd, bytes, DRILLS_BYTES_MAX + 1, &length, err) && parse(bytes, length, out, err);
    free(bytes);
    return good;
}

bool drills_read(const char *spool_dir, json_t **out, struct sl_error *err)
{
    *out = NULL;
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof(path), "%s/%s", spool_dir, DRILLS_FILE) >= sizeof(path))
        return sl_fail(err, SL_E_TOO_LARGE, "the path of %s", DRILLS_FILE);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return true;
    if (fd < 0)
        return sl_fail_errno(err, SL_E_IO, errno, "%s", path);
    bool good = read_file(fd, out, err);
    close(fd);
    return good || sl_wrap(err, "%s", path);
}
