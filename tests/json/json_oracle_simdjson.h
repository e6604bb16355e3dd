// simdjson's own parser as a second opinion on what is JSON. It takes duplicate keys.
//
// Threads: one at a time.
#ifndef SLUICE_TESTS_JSON_JSON_ORACLE_SIMDJSON_H
#define SLUICE_TESTS_JSON_JSON_ORACLE_SIMDJSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C"
#endif
    bool
    json_oracle_simdjson_takes(const uint8_t *bytes, size_t length);

#endif
