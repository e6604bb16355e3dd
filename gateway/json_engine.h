// The seam between simdjson (C++, json.cc) and the rest of the JSON code (C): plain arrays in simdjson's documented
// tape format. Internal to gateway/json*.
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

// Arrays of the engine; the pointers stay the same for its whole life, the contents change with each index and parse.
struct json_view {
    // Offsets, in the indexed bytes, of every { } [ ] : , and of the first byte of every string and scalar, ascending.
    const uint32_t *structurals;
    // simdjson's tape of the last parsed value: tape[0] is the root word, the value starts at tape[1]. The type is the
    // high byte of a word, the payload its low 56 bits; numbers take a second word.
    const uint64_t *tape;
    // Strings of that value, unescaped: 4 bytes of length, the bytes, a NUL. At least 16 readable bytes follow any
    // start.
    const uint8_t *strings;
};

// window_bytes: the longest input of one index call; document_bytes: of one parse. NULL: no memory.
struct json_engine *json_engine_new(size_t window_bytes, size_t document_bytes, uint32_t depth_max);
void json_engine_free(struct json_engine *engine);
struct json_view json_engine_view(const struct json_engine *engine);

// Stage 1 over `bytes` (JSON_PADDING readable bytes must follow): checks UTF-8 and control characters in strings, finds
// the structurals. Returns how many, 0 when the bytes are not valid. *in_string: they end inside a string, which says
// nothing about the rest of them. The bytes stay in use until the next call.
uint32_t json_engine_index(struct json_engine *engine, const uint8_t *bytes, size_t length, bool *in_string);

// Stage 2 of all that was indexed, as one value: nothing may be left over. At most document_bytes.
bool json_engine_parse_all(struct json_engine *engine);

// Stage 2 of the container whose bracket is at this structural: full validation, fills tape and strings. The caller has
// seen that its brackets balance, by count, within the indexed bytes and within document_bytes: stage 2 relies on it.
bool json_engine_parse(struct json_engine *engine, uint32_t structural);

#ifdef __cplusplus
}
#endif

#endif
