// simdjson's own parser, whole: gateway/json.cc uses its first stage alone.
#include "tests/json/json_oracle_simdjson.h"

#define SIMDJSON_EXCEPTIONS 0
#include <simdjson.h>

bool json_oracle_simdjson_takes(const uint8_t *bytes, size_t length)
{
    static simdjson::dom::parser parser;
    return parser.parse(bytes, length).error() == simdjson::SUCCESS;
}
