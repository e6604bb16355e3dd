// The one binary: finds the subcommand and runs it. Exit codes: 0 clean, 1 configuration, 2 usage, 3 spool, 4 sync
// failure.
#include "gateway/config.h"
#include "gateway/gateway.h"

#include <stdio.h>
#include <string.h>

static const char usage_text[] =
    "usage: sluice COMMAND [OPTION …]\n"
    "\n"
    "  serve -c FILE         run the gateway; SIGTERM drains, SIGHUP reloads the sources\n"
    "  check-config -c FILE  check a configuration: exit 0, or 1 with file:line: what is wrong\n"
    "  version               print the version\n"
    "\n"
    "Exit codes: 0 clean, 1 configuration, 2 usage, 3 spool locked or unusable, 4 sync failure.\n";

static int usage_error(const char *what, const char *which)
{
    fprintf(stderr, "sluice: %s%s%s\n\n%s", what, which != NULL ? ": " : "", which != NULL ? which : "", usage_text);
    return EXIT_USAGE;
}

static bool is_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0 || strcmp(argument, "help") == 0;
}

static int check_config(const char *file)
{
    struct sl_error err;
    struct config *config;
    if (!config_load(&config, file, stderr, &err))
        return EXIT_CONFIG;
    printf("%s: ok, %zu source%s\n", file, config->source_count, config->source_count == 1 ? "" : "s");
    config_release(config);
    return EXIT_CLEAN;
}

// The commands whose one option is -c FILE.
static int with_config(int (*command)(const char *file), int argc, char **argv)
{
    const char *file = NULL;
    for (int i = 2; i < argc; i++) {
        if (is_help(argv[i])) {
            fputs(usage_text, stdout);
            return EXIT_CLEAN;
        }
        bool is_option = strcmp(argv[i], "-c") == 0 || strcmp(argv[i], "--config") == 0;
        if (!is_option)
            return usage_error("unknown option", argv[i]);
        if (i + 1 == argc)
            return usage_error("a file name must follow", argv[i]);
        if (file != NULL)
            return usage_error("more than one configuration", argv[i + 1]);
        file = argv[++i];
    }
    return file != NULL ? command(file) : usage_error("which configuration? -c FILE", NULL);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage_error("a command is missing", NULL);
    if (is_help(argv[1])) {
        fputs(usage_text, stdout);
        return EXIT_CLEAN;
    }
    if (strcmp(argv[1], "serve") == 0)
        return with_config(gateway_serve, argc, argv);
    if (strcmp(argv[1], "check-config") == 0)
        return with_config(check_config, argc, argv);
    if (strcmp(argv[1], "version") == 0 || strcmp(argv[1], "--version") == 0) {
        puts("sluice " SLUICE_VERSION);
        return EXIT_CLEAN;
    }
    return usage_error("unknown command", argv[1]);
}
