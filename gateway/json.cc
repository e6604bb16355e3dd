// simdjson behind plain C. Its two stages are called by themselves, as its own dom::document_stream does, because one
// stage 1 then serves many events of an array, and because the structural indexes give every offset for nothing: raw
// slices, duplicate keys, literals of numbers. dom::parser hides them, and On-Demand would index every event twice.
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
    simdjson::dom::document document;
};

struct json_engine *json_engine_new(size_t window_bytes, size_t document_bytes, uint32_t depth_max)
{
    std::unique_ptr<json_engine> engine(new (std::nothrow) json_engine());
    if (!engine)
        return nullptr;
    // It refuses at its limit, we above it; and it does not count empty containers, so that ours is checked besides.
    if (simdjson::get_active_implementation()->create_dom_parser_implementation(window_bytes, depth_max + 1,
                                                                                engine->implementation) ||
        engine->document.allocate(document_bytes))
        return nullptr;
    return engine.release();
}

void json_engine_free(struct json_engine *engine)
{
    delete engine;
}

struct json_view json_engine_view(const struct json_engine *engine)
{
    return {engine->implementation->structural_indexes.get(), engine->document.tape.get(),
            engine->document.string_buf.get()};
}

uint32_t json_engine_index(struct json_engine *engine, const uint8_t *bytes, size_t length, bool *in_string)
{
    simdjson::error_code error = engine->implementation->stage1(bytes, length, simdjson::stage1_mode::regular);
    *in_string = error == simdjson::UNCLOSED_STRING;
    return error ? 0 : engine->implementation->n_structural_indexes;
}

bool json_engine_parse_all(struct json_engine *engine)
{
    return !engine->implementation->stage2(engine->document);
}

bool json_engine_parse(struct json_engine *engine, uint32_t structural)
{
    engine->implementation->next_structural_index = structural;
    return !engine->implementation->stage2_next(engine->document);
}
