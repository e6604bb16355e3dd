// What /metrics and /status are put together from. Threads: none; no state. The caller owns what is returned.
#ifndef SLUICE_GATEWAY_SHOW_H
#define SLUICE_GATEWAY_SHOW_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

// The two lines that begin a family in the Prometheus text format.
void show_family(FILE *out, const char *name, const char *type, const char *help);

json_t *show_number(uint64_t value);
json_t *show_time(int64_t wall_ns); // UTC, RFC 3339, whole seconds; 0: null

#endif
