// What the values of a load client's options say.
#include "bench/load.h"

#include "base/clock.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

const char *load_program = "sluice-load";

uint64_t load_whole(const char *text, uint64_t least, uint64_t most, bool *good)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *text == '-' || value < least || value > most) {
        fprintf(stderr, "%s: %s: expected a number from %" PRIu64 " to %" PRIu64 "\n", load_program, text, least, most);
        *good = false;
        return least;
    }
    return value;
}

double load_real(const char *text, bool *good)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0) || value > 1e9) {
        fprintf(stderr, "%s: %s: expected a number from 0 to 1e9\n", load_program, text);
        *good = false;
        return 0;
    }
    return value;
}

int64_t load_nanoseconds(const char *text, bool *good)
{
    return (int64_t)(load_real(text, good) * (double)SL_NS_PER_S);
}

bool load_add_header(struct load_options *options, char *text)
{
    char *colon = strchr(text, ':');
    if (colon == NULL || colon == text || options->header_count == LOAD_HEADERS_MAX)
        return false;
    *colon = '\0';
    char *value = colon + 1 + strspn(colon + 1, " ");
    for (char *at = text; *at != '\0'; at++)
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at - 'A' + 'a'); // HTTP/2 refuses capitals
    options->headers[options->header_count++] = (nghttp2_nv){
        .name = (uint8_t *)text, .value = (uint8_t *)value, .namelen = strlen(text), .valuelen = strlen(value)};
    return true;
}

bool load_is_run_name(const char *text)
{
    size_t good = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
    return good > 0 && good <= PAYLOAD_RUN_MAX && text[good] == '\0';
}

// Splits in place, as load_add_header() does.
static bool take_url(struct load_url *url, char *text)
{
    static const char scheme[] = "http://";
    sl_assert(text != NULL);
    url->text = text;
    if (strncmp(text, scheme, strlen(scheme)) != 0)
        goto invalid;
    char *host = text + strlen(scheme);
    char *path = host + strcspn(host, "/");
    const char *bad = strpbrk(text, "\"\\ "); // it goes into the history and the summary as it is
    if (*path == '\0' || bad != NULL || (size_t)(path - host) >= sizeof(url->authority))
        goto invalid;
    memcpy(url->authority, host, (size_t)(path - host));
    url->path = path;
    char name[sizeof(url->authority)];
    memcpy(name, url->authority, sizeof(name));
    char *colon = strrchr(name, ':');
    if (colon == NULL)
        goto invalid;
    *colon = '\0';
    char *bare = name[0] == '[' && colon > name && colon[-1] == ']' ? name + 1 : name;
    if (bare != name)
        colon[-1] = '\0';
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;
    int status = getaddrinfo(bare, colon + 1, &hints, &found);
    if (status != 0) {
        fprintf(stderr, "%s: %s: %s\n", load_program, text, gai_strerror(status));
        return false;
    }
    memcpy(&url->address, found->ai_addr, found->ai_addrlen);
    url->address_length = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
invalid:
    fprintf(stderr, "%s: %s: expected http://HOST:PORT/PATH (clear-text HTTP/2 only)\n", load_program, text);
    return false;
}

bool load_take_urls(struct load_options *options, int argc, char **argv)
{
    for (; optind < argc; optind++) {
        if (options->url_count == LOAD_URLS_MAX || !take_url(&options->urls[options->url_count], argv[optind]))
            return false;
        options->url_count++;
    }
    if (options->url_count == 0)
        fprintf(stderr, "%s: no URL\n", load_program);
    return options->url_count > 0;
}

void load_complete(struct load_options *options)
{
    static char run[17];
    uint64_t random = 0;
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        random = (uint64_t)sl_wall_ns();
    if (options->run == NULL) {
        snprintf(run, sizeof(run), "%08" PRIx32, (uint32_t)(random >> 32));
        options->run = run;
    }
    if (options->seed == 0)
        options->seed = random;
    if (options->events == 0 && options->duration_ns < 0)
        options->duration_ns = 10 * SL_NS_PER_S;
    if (options->drain_ns < 0)
        options->drain_ns = options->retry ? options->retry_for_ns : 15 * SL_NS_PER_S;
}
