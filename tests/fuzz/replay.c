// Runs a fuzz target over files and folders of files (its corpus), where libFuzzer is not at hand: a regression test.
//   replay_TARGET FILE_OR_FOLDER...
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    struct stat status;
    if (fstat(fileno(file), &status) != 0)
        status.st_size = 0;
    size_t size = (size_t)status.st_size;
    uint8_t *data = malloc(size > 0 ? size : 1); // exact, so that a sanitizer sees one byte too far
    if (data == NULL || fread(data, 1, size, file) != size) {
        perror(path);
        exit(1);
    }
    fclose(file);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 1;
}

static size_t replay(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL)
        return replay_file(path);
    size_t files = 0;
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char inner[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        files += replay(inner);
    }
    closedir(folder);
    return files;
}

int main(int argc, char **argv)
{
    size_t files = 0;
    for (int i = 1; i < argc; i++)
        files += replay(argv[i]);
    printf("%zu files\n", files);
    return files > 0 ? 0 : 1; // an empty corpus proves nothing
}
