#include "gateway/json_scalar.h"

#include "gateway/json_reader.h"

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

static inline uint64_t load(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return word;
}

// ---- numbers and words

// How many digits `bytes` begins with, up to 8.
static inline size_t digit_count(const uint8_t *bytes)
{
    uint64_t values = load(bytes) ^ EACH_BYTE('0'); // 0 to 9 for digits
    uint64_t others = (((values & EACH_BYTE(0x7f)) + EACH_BYTE(0x7f - 9)) | values) & EACH_BYTE(0x80);
    return others == 0 ? 8 : (size_t)__builtin_ctzll(others) / 8;
}

// Any number: exponents, many digits.
static JSON_OUT_OF_LINE size_t long_number_end(const uint8_t *bytes, size_t at, size_t next)
{
    struct json_fault unused;
    struct json_reader reader = {.bytes = bytes, .at = at, .end = next, .input = "", .fault = &unused};
    return json_read_number(&reader) ? reader.at : 0;
}

// So few digits that 64 bits or a double hold them.
static inline size_t number_end(const uint8_t *bytes, size_t at, size_t next)
{
    size_t digits = at + (bytes[at] == '-');
    size_t count = digit_count(bytes + digits);
    if (count == 8)
        count += digit_count(bytes + digits + 8);
    size_t end = digits + count;
    if (count == 0 || (bytes[digits] == '0' && count > 1))
        return 0;
    if (bytes[end] == '.') {
        size_t fraction = digit_count(bytes + end + 1);
        if (fraction == 0)
            return 0;
        end += 1 + fraction;
        count = fraction == 8 ? 16 : count;
    }
    return count == 16 || (bytes[end] | 0x20) == 'e' ? long_number_end(bytes, at, next) : end;
}

static inline bool is_word(const uint8_t *bytes, const char word[4])
{
    return memcmp(bytes, word, 4) == 0;
}

size_t json_scalar_end(const uint8_t *bytes, size_t at, size_t next)
{
    size_t end = 0;
    uint8_t byte = bytes[at];
    if ((uint8_t)(byte - '0') <= 9 || byte == '-')
        end = number_end(bytes, at, next);
    else if (byte == 't')
        end = is_word(bytes + at, "true") ? at + 4 : 0;
    else if (byte == 'n')
        end = is_word(bytes + at, "null") ? at + 4 : 0;
    else if (byte == 'f')
        end = is_word(bytes + at + 1, "alse") ? at + 5 : 0;
    // Behind a blank there is nothing else: it would be a structural.
    return end == next || (end < next && json_is_blank(bytes[end])) ? end : 0;
}

// ---- strings

static bool hex4(const uint8_t *bytes, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t letter = bytes[i] | 0x20;
        if ((uint8_t)(bytes[i] - '0') <= 9)
            *code = *code * 16 + bytes[i] - '0';
        else if (letter >= 'a' && letter <= 'f')
            *code = *code * 16 + letter - 'a' + 10;
        else
            return false;
    }
    return true;
}

static size_t put_utf8(uint8_t *to, uint32_t code)
{
    if (code < 0x80) {
        to[0] = (uint8_t)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, code >>= 6)
        to[i] = (uint8_t)(0x80 | (code & 0x3f));
    to[0] = (uint8_t)(0xf00 >> length | code);
    return length;
}

// The escape at `from`, of `rest` bytes; returns its length, 0 when it is none.
static size_t unescape_code(const uint8_t *from, size_t rest, uint8_t **to)
{
    enum { SHORT = 6, PAIR = 12 };
    uint32_t code;
    uint32_t low;
    if (rest < SHORT || !hex4(from + 2, &code))
        return 0;
    if (code < 0xd800 || code > 0xdfff) {
        *to += put_utf8(*to, code);
        return SHORT;
    }
    bool paired = code < 0xdc00 && rest >= PAIR && from[6] == '\\' && from[7] == 'u' && hex4(from + 8, &low) &&
                  low >= 0xdc00 && low <= 0xdfff;
    if (!paired)
        return 0;
    *to += put_utf8(*to, 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00));
    return PAIR;
}

bool json_unescape(const uint8_t *from, size_t length, uint8_t *to, uint32_t *written)
{
    static const uint8_t escapes[256] = {
        ['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t'};
    const uint8_t *end = from + length;
    const uint8_t *start = to;
    while (from < end) {
        // Eight bytes at a time, up to the next backslash.
        uint64_t word = load(from);
        memcpy(to, &word, sizeof(word));
        uint64_t other = word ^ EACH_BYTE('\\');
        uint64_t found = (other - EACH_BYTE(1)) & ~other & EACH_BYTE(0x80); // its lowest bit is exact
        size_t plain = found == 0 ? 8 : (size_t)__builtin_ctzll(found) / 8;
        if (plain > (size_t)(end - from))
            plain = (size_t)(end - from);
        from += plain;
        to += plain;
        if (plain == 8 || from == end)
            continue;
        size_t used = 2;
        if (from[1] == 'u')
            used = unescape_code(from, (size_t)(end - from), &to);
        else
            *to++ = escapes[from[1]];
        if (used == 0 || (used == 2 && escapes[from[1]] == 0))
            return false;
        from += used;
    }
    *written = (uint32_t)(to - start);
    return true;
}
