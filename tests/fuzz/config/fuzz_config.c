// Fuzzing of the configuration through its front door: real files, config_load, config_reload.
//
// An input is the main file; what follows a line "%%" is a file of the sources directory. The files lie in a directory
// of this process, in /dev/shm where there is one.
#include "gateway/config.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char directory[64];

static const char *path_of(const char *name)
{
    static char path[sizeof(directory) + 32];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static void leave(void)
{
    unlink(path_of("sources/a.yaml"));
    unlink(path_of("main.yaml"));
    rmdir(path_of("sources"));
    rmdir(directory);
}

static void enter(void)
{
    if (directory[0] != '\0')
        return;
    snprintf(directory, sizeof(directory), "%s/config-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    sl_assert(mkdtemp(directory) != NULL && mkdir(path_of("sources"), 0700) == 0);
    atexit(leave);
}

static void put_file(const char *name, const uint8_t *bytes, size_t length)
{
    int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    sl_assert(fd >= 0);
    sl_assert(write(fd, bytes, length) == (ssize_t)length);
    close(fd);
}

// What every caller may rely on.
static void check(const struct config *config)
{
    sl_assert(config->node_name != NULL && config->kafka.embedded == (config->kafka.brokers == NULL));
    sl_assert(config->listen.ingest_count > 0 && config->listen.threads >= 1 && config->listen.threads <= 64);
    sl_assert(config->spool.dir[0] == '/' && config->spool.max_bytes / 4 >= config->spool.segment_bytes);
    sl_assert(config->lane_count >= 1 && config->lane_count <= CONFIG_LANES_MAX);
    for (size_t i = 0; i < config->source_count; i++) {
        const struct config_source *source = config->sources[i];
        sl_assert(source->name != NULL && source->topic != NULL && source->lane != NULL && source->id_part_count > 0);
        sl_assert(source->ack != ACK_AZ2 && source->ack_timeout_ns > 0);
        sl_assert(config_find_source(config, source->name, strlen(source->name)) == source);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char mark[] = "\n%%\n";
    static FILE *nowhere;
    enter();
    if (nowhere == NULL)
        nowhere = fopen("/dev/null", "w");
    sl_assert(nowhere != NULL);
    const uint8_t *cut = size == 0 ? NULL : memmem(data, size, mark, strlen(mark));
    size_t length = cut == NULL ? size : (size_t)(cut - data) + 1;
    put_file("main.yaml", data, length);
    if (cut != NULL)
        put_file("sources/a.yaml", cut + strlen(mark), size - length - (strlen(mark) - 1));
    else
        unlink(path_of("sources/a.yaml"));
    struct config *config = NULL, *again = NULL;
    struct sl_error err = {0};
    if (!config_load(&config, path_of("main.yaml"), nowhere, &err)) {
        sl_assert(err.code == SL_E_CONFIG && strstr(err.text, ".yaml:") != NULL);
        return 0;
    }
    check(config);
    if (config_reload(&again, config, nowhere, &err))
        check(again);
    config_release(again);
    config_release(config);
    return 0;
}
