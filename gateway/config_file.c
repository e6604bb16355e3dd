#include "gateway/config_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// At most `most` bytes of a file, NUL-terminated, on the heap. O_NONBLOCK: opening a pipe that nobody writes to must
// not hang.
static char *slurp(const char *path, size_t most, bool regular, size_t *length, struct sl_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (regular ? O_NONBLOCK : 0));
    if (fd < 0) {
        sl_fail_errno(err, SL_E_CONFIG, errno, "cannot be opened");
        return NULL;
    }
    struct stat status;
    char *bytes = NULL;
    if (fstat(fd, &status) != 0) {
        sl_fail_errno(err, SL_E_CONFIG, errno, "cannot be read");
        goto opened;
    }
    if (S_ISDIR(status.st_mode) || (regular && !S_ISREG(status.st_mode))) {
        sl_fail(err, SL_E_CONFIG, "is %s", S_ISDIR(status.st_mode) ? "a directory" : "not a regular file");
        goto opened;
    }
    // One byte more than the file is said to have, so that the end is seen; a pipe says 0.
    size_t room = status.st_size > 0 && (size_t)status.st_size < most ? (size_t)status.st_size + 1 : most + 1;
    bytes = malloc(room + 1);
    sl_assert(bytes != NULL);
    size_t filled = 0;
    while (filled < room) {
        ssize_t got = read(fd, bytes + filled, room - filled);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            sl_fail_errno(err, SL_E_CONFIG, errno, "cannot be read");
            goto allocated;
        }
        if (got == 0)
            break;
        filled += (size_t)got;
    }
    if (filled > most) {
        sl_fail(err, SL_E_CONFIG, "is larger than %zu KiB", most / 1024);
        goto allocated;
    }
    if (filled == room) {
        sl_fail(err, SL_E_CONFIG, "is being written to");
        goto allocated;
    }
    bytes[filled] = '\0';
    *length = filled;
    close(fd);
    return bytes;
allocated:
    free(bytes);
opened:
    close(fd);
    return NULL;
}

static const char *absolute_path(struct config_arena *arena, const char *path)
{
    if (path[0] == '/')
        return config_copy(arena, path, strlen(path));
    char *here = getcwd(NULL, 0);
    if (here == NULL) // the working directory was removed
        return config_copy(arena, path, strlen(path));
    const char *joined = config_format(arena, "%s/%s", strcmp(here, "/") == 0 ? "" : here, path);
    free(here);
    return joined;
}

static struct config_file *file_new(struct config_load *load, const char *shown)
{
    struct config_file *file = config_alloc(&load->scratch, sizeof(*file));
    file->shown = config_copy(&load->scratch, shown, strlen(shown));
    file->absolute = absolute_path(&load->scratch, shown);
    const char *slash = strrchr(file->absolute, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - file->absolute);
    file->directory = slash == NULL ? "." : length == 0 ? "/" : config_copy(&load->scratch, file->absolute, length);
    file->rank = load->file_count++;
    file->text = "";
    return file;
}

struct config_file *config_file_read(struct config_load *load, const char *shown, bool regular,
                                     const struct config_file *from, int line)
{
    struct config_file *file = file_new(load, shown);
    struct sl_error err;
    char *bytes = slurp(file->absolute, CONFIG_FILE_BYTES_MAX, regular, &file->length, &err);
    if (bytes == NULL) {
        if (from != NULL)
            config_error(load, from, line, "%s %s", shown, err.text);
        else
            config_error(load, file, 1, "the file %s", err.text);
        return NULL;
    }
    file->text = config_copy(&load->scratch, bytes, file->length);
    free(bytes);
    return file;
}

const char *config_path_from(struct config_arena *arena, const struct config_file *file, const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (path[0] == '/')
        return config_copy(arena, path, length);
    while (length > 2 && path[0] == '.' && path[1] == '/') {
        path += 2;
        length -= 2;
    }
    const char *directory = strcmp(file->directory, "/") == 0 ? "" : file->directory;
    return config_format(arena, "%s/%.*s", directory, (int)length, path);
}

const char *config_value_read(struct config_load *load, const char *path, size_t *length, struct sl_error *err)
{
    char *bytes = slurp(path, CONFIG_VALUE_BYTES_MAX, true, length, err);
    if (bytes == NULL)
        return NULL;
    if (*length > 0 && bytes[*length - 1] == '\n')
        (*length)--;
    const char *value = config_copy(&load->scratch, bytes, *length);
    explicit_bzero(bytes, *length); // most often a password
    free(bytes);
    return value;
}

bool config_file_is_readable(const char *path, struct sl_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return sl_fail_errno(err, SL_E_CONFIG, errno, "cannot be opened");
    struct stat status;
    bool directory = fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
    close(fd);
    return directory ? sl_fail(err, SL_E_CONFIG, "is a directory") : true;
}
