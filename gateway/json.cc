// simdjson behind plain C. Its stage 1 is called by itself, as its own dom::document_stream does, because one stage 1
// then serves many events of an array, and because the structural indexes give every offset for nothing: raw slices,
// duplicate keys, literals of numbers. dom::parser hides them, and On-Demand would index every event twice.
#include "gateway/json_engine.h"

#include <memory>
#include <new>

#define SIMDJSON_EXCEPTIONS 0
#include <simdjson.h>

// The calls below are public members that simdjson documents as internal. Seen in 3.0.1 and unchanged in 3.x since.
static_assert(simdjson::SIMDJSON_VERSION_MAJOR == 3,
              "read the notes in json.cc, then run tests/json with the new simdjson");
static_assert(simdjson::SIMDJSON_PADDING <= 64, "JSON_PADDING in gateway/json.h is too small for this simdjson");

struct json_engine {
    std::unique_ptr<simdjson::internal::dom_parser_implementation> implementation;
};

struct json_engine *json_engine_new(size_t window_bytes)
{
    std::unique_ptr<json_engine> engine(new (std::nothrow) json_engine());
    if (!engine || simdjson::get_active_implementation()->create_dom_parser_implementation(window_bytes, 1,
                                                                                           engine->implementation))
        return nullptr;
    return engine.release();
}

void json_engine_free(struct json_engine *engine)
{
    delete engine;
}

const uint32_t *json_engine_structurals(const struct json_engine *engine)
{
    return engine->implementation->structural_indexes.get();
}

uint32_t json_engine_index(struct json_engine *engine, const uint8_t *bytes, size_t length, bool *in_string)
{
    simdjson::error_code error = engine->implementation->stage1(bytes, length, simdjson::stage1_mode::regular);
    *in_string = error == simdjson::UNCLOSED_STRING;
    return error ? 0 : engine->implementation->n_structural_indexes;
}
