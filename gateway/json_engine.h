// The seam between simdjson (C++, json.cc) and the rest of the JSON code (C): one plain array. Internal to
// gateway/json*.
//
// Threads: an engine belongs to one thread.
#ifndef SLUICE_GATEWAY_JSON_ENGINE_H
#define SLUICE_GATEWAY_JSON_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct json_engine;

// window_bytes: the longest input of one call. NULL: no memory.
struct json_engine *json_engine_new(size_t window_bytes);
void json_engine_free(struct json_engine *engine);

// Offsets, in the indexed bytes, of every { } [ ] : , outside of strings and of the first byte of every string and
// scalar, ascending. A scalar is any run of other bytes but blanks; what it is made of has not been looked at, and 0x0c
// and 0x1a may be listed by themselves. The pointer stays the same for the engine's life.
const uint32_t *json_engine_structurals(const struct json_engine *engine);

// Stage 1 over `bytes` (JSON_PADDING readable bytes must follow): checks UTF-8 and control characters in strings, finds
// the structurals. Returns how many, 0 when the bytes are not valid. *in_string: they end inside a string, which says
// nothing about the rest of them.
uint32_t json_engine_index(struct json_engine *engine, const uint8_t *bytes, size_t length, bool *in_string);

#ifdef __cplusplus
}
#endif

#endif
