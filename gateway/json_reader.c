// One value, read strictly (RFC 8259), for the fault in it. No recursion: nesting is a bit a level.
#include "gateway/json_reader.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { UTF8_LENGTH_MAX = 4 };

// ---- strings

// The length of the well-formed sequence (Unicode 15, table 3-7) at `at`, 0 if there is none.
static size_t utf8_length(const struct json_reader *reader)
{
    const uint8_t *bytes = reader->bytes + reader->at;
    size_t rest = reader->end - reader->at;
    uint8_t lead = bytes[0];
    size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length <= 1 || length > rest)
        return length > rest ? 0 : length;
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (bytes[1] < low || bytes[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    }
    return length;
}

// The four digits behind "\u", of which `at` is the first.
static bool read_hex4(struct json_reader *reader, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++, reader->at++) {
        if (reader_at_end(reader))
            return reader_refuse_end(reader, "inside a string");
        uint8_t byte = reader->bytes[reader->at];
        uint8_t letter = byte | 0x20;
        if (byte >= '0' && byte <= '9')
            *code = *code * 16 + (byte - '0');
        else if (letter >= 'a' && letter <= 'f')
            *code = *code * 16 + (uint32_t)(letter - 'a' + 10);
        else
            return reader_refuse_here(reader, "\\u in a string needs four hexadecimal digits");
    }
    return true;
}

static bool read_escape(struct json_reader *reader)
{
    static const char escapes[] = {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'};
    size_t start = reader->at++;
    if (reader_at_end(reader))
        return reader_refuse_end(reader, "inside a string");
    if (reader->bytes[reader->at] != 'u') {
        if (memchr(escapes, reader->bytes[reader->at], sizeof(escapes)) == NULL)
            return reader_refuse_here(reader, "no escape sequence of JSON: a backslash in a string is written \\\\");
        reader->at++;
        return true;
    }
    uint32_t code;
    reader->at++;
    if (!read_hex4(reader, &code))
        return false;
    if (code < 0xd800 || code > 0xdfff)
        return true;
    if (code <= 0xdbff && reader->end - reader->at >= 2 && memcmp(reader->bytes + reader->at, "\\u", 2) == 0) {
        reader->at += 2;
        if (!read_hex4(reader, &code))
            return false;
        if (code >= 0xdc00 && code <= 0xdfff)
            return true;
    } else if (code <= 0xdbff &&
               (reader_at_end(reader) || (reader->end - reader->at == 1 && reader_peek(reader) == '\\'))) {
        return reader_refuse_end(reader, "inside a string");
    }
    return reader_refuse(reader, JSON_FAULT_UTF8, start,
                         "a lone surrogate in a string: \\ud800 to \\udfff come in pairs");
}

// `at`: the opening quote.
static bool read_string(struct json_reader *reader)
{
    reader->at++;
    while (!reader_at_end(reader)) {
        uint8_t byte = reader->bytes[reader->at];
        if (byte == '"') {
            reader->at++;
            return true;
        }
        if (byte < 0x20)
            return reader_refuse_here(
                reader, "a control character in a string: it is written as an escape, such as \\n or \\u0001");
        if (byte == '\\') {
            if (!read_escape(reader))
                return false;
            continue;
        }
        size_t length = utf8_length(reader);
        if (length == 0)
            return reader->cut && reader->end - reader->at < UTF8_LENGTH_MAX
                       ? reader_refuse_end(reader, "inside a string")
                       : reader_refuse(reader, JSON_FAULT_UTF8, reader->at, "a string is not valid UTF-8");
        reader->at += length;
    }
    return reader_refuse_end(reader, "inside a string");
}

// ---- numbers

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static bool read_digits(struct json_reader *reader, const char *detail)
{
    if (reader_at_end(reader))
        return reader_refuse_end(reader, "inside a number");
    if (!is_digit(reader_peek(reader)))
        return reader_refuse_here(reader, detail);
    while (is_digit(reader_peek(reader)))
        reader->at++;
    return true;
}

static bool integer_fits(const uint8_t *digits, size_t count, bool negative)
{
    const char *most = negative ? "9223372036854775808" : "18446744073709551615";
    return count < strlen(most) || (count == strlen(most) && memcmp(digits, most, count) <= 0);
}

// A literal with a fraction or an exponent. Only its first digits decide whether it is beyond a double: the least
// decimal that rounds to infinity has 309 digits. Without a point the text means the same to strtod in every locale.
static bool real_fits(const uint8_t *literal, size_t length)
{
    enum { DIGITS = 320, EXPONENT_MAX = 1000000000 };
    char text[DIGITS + 32];
    size_t used = 0;
    long exponent = 0;
    bool fraction = false;
    size_t i = 0;
    for (; i < length && literal[i] != 'e' && literal[i] != 'E'; i++) {
        if (literal[i] == '.')
            fraction = true;
        if (!is_digit(literal[i]))
            continue;
        bool kept = used < DIGITS && (used > 0 || literal[i] != '0');
        if (kept)
            text[used++] = (char)literal[i];
        exponent += (fraction ? -1 : 0) + (kept || used == 0 ? 0 : 1);
    }
    if (used == 0)
        return true; // zero
    long written = 0;
    bool minus = false;
    for (i++; i < length; i++) {
        minus |= literal[i] == '-';
        if (is_digit(literal[i]) && written < EXPONENT_MAX)
            written = written * 10 + (literal[i] - '0');
    }
    exponent += minus ? -written : written;
    snprintf(text + used, sizeof(text) - used, "e%ld", exponent);
    return isfinite(strtod(text, NULL));
}

bool json_read_number(struct json_reader *reader)
{
    size_t start = reader->at;
    bool negative = reader_peek(reader) == '-';
    reader->at += negative;
    size_t digits = reader->at;
    if (reader_peek(reader) == '0') {
        reader->at++;
        if (is_digit(reader_peek(reader)))
            return reader_refuse_here(reader, "a number must not begin with 0");
    } else if (!read_digits(reader, "expected a digit after '-'")) {
        return false;
    }
    size_t digit_count = reader->at - digits;
    bool real = false;
    if (reader_peek(reader) == '.') {
        real = true;
        reader->at++;
        if (!read_digits(reader, "expected a digit after '.' of a number"))
            return false;
    }
    if ((reader_peek(reader) | 0x20) == 'e') {
        real = true;
        reader->at++;
        if (reader_peek(reader) == '+' || reader_peek(reader) == '-')
            reader->at++;
        if (!read_digits(reader, "expected a digit in the exponent of a number"))
            return false;
    }
    if (!real && !integer_fits(reader->bytes + digits, digit_count, negative))
        return reader_refuse(reader, JSON_FAULT_NUMBER, start,
                             "an integer does not fit in 64 bits: send it as a string");
    if (real && !real_fits(reader->bytes + start, reader->at - start))
        return reader_refuse(reader, JSON_FAULT_NUMBER, start, "a number is beyond the range of a double");
    return true;
}

// ---- values

static bool read_word(struct json_reader *reader, const char *word)
{
    for (; *word != '\0'; word++, reader->at++) {
        if (reader_at_end(reader))
            return reader_refuse_end(reader, "inside true, false or null");
        if (reader->bytes[reader->at] != (uint8_t)*word)
            return reader_refuse_here(reader, "expected true, false or null");
    }
    return true;
}

static const char *why_no_value(uint8_t byte)
{
    switch (byte) {
    case '\'':
        return "expected a value: strings are written in double quotes";
    case '/':
    case '#':
        return "expected a value: JSON has no comments";
    case 'N':
    case 'I':
        return "expected a value: JSON has no NaN and no Infinity";
    case 'T':
    case 'F':
        return "expected a value: true, false and null are written in lower case";
    case '+':
    case '.':
        return "expected a value: a number begins with a digit or '-'";
    case ']':
    case '}':
        return "expected a value, not a closing bracket: is there a ',' too many?";
    default:
        return "expected a value";
    }
}

static bool read_scalar(struct json_reader *reader)
{
    uint8_t byte = reader_peek(reader);
    if (byte == '"')
        return read_string(reader);
    if (byte == 't' || byte == 'f' || byte == 'n')
        return read_word(reader, byte == 't' ? "true" : byte == 'f' ? "false" : "null");
    if (byte == '-' || is_digit(byte))
        return json_read_number(reader);
    return reader_refuse_here(reader, why_no_value(byte));
}

// A key and its ':'.
static bool read_key(struct json_reader *reader, const char *expected)
{
    reader_skip_blanks(reader);
    if (reader_at_end(reader))
        return reader_refuse_end(reader, "inside an object");
    if (reader_peek(reader) != '"')
        return reader_refuse_here(reader, expected);
    if (!read_string(reader))
        return false;
    reader_skip_blanks(reader);
    if (reader_at_end(reader))
        return reader_refuse_end(reader, "inside an object");
    if (reader_peek(reader) != ':')
        return reader_refuse_here(reader, "expected ':' after a key");
    reader->at++;
    return true;
}

// One bit a level: is it an object?
struct nesting {
    uint64_t objects[JSON_DEPTH_LIMIT / 64];
    uint32_t depth;
};

static bool in_object(const struct nesting *nesting)
{
    uint32_t level = nesting->depth - 1;
    return (nesting->objects[level / 64] >> level % 64 & 1) != 0;
}

// An opening bracket at `at`, with its first key if it is of an object. *empty: closed again at once.
static bool read_open(struct json_reader *reader, struct nesting *nesting, bool *empty)
{
    bool object = reader_peek(reader) == '{';
    if (nesting->depth == reader->depth_max)
        return json_refuse(reader->fault, JSON_FAULT_DEPTH, reader->index, reader->at, "nested deeper than %u levels",
                           reader->depth_max);
    uint64_t bit = UINT64_C(1) << nesting->depth % 64;
    uint64_t *word = &nesting->objects[nesting->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    nesting->depth++;
    reader->at++;
    reader_skip_blanks(reader);
    *empty = reader_peek(reader) == (object ? '}' : ']');
    if (*empty) {
        reader->at++;
        nesting->depth--;
        return true;
    }
    return !object || read_key(reader, "expected '}', or a key in double quotes");
}

// Behind a value: closes what closes there, up to the whole value or the next ',' (with the key that follows it).
static bool read_close(struct json_reader *reader, struct nesting *nesting)
{
    while (nesting->depth > 0) {
        bool object = in_object(nesting);
        reader_skip_blanks(reader);
        if (reader_at_end(reader))
            return reader_refuse_end(reader, object ? "inside an object" : "inside an array");
        uint8_t byte = reader_peek(reader);
        if (byte != ',' && byte != (object ? '}' : ']'))
            return reader_refuse_here(reader, object ? "expected ',' or '}' after a member"
                                                     : "expected ',' or ']' after an element");
        reader->at++;
        if (byte == ',')
            return !object || read_key(reader, "expected a key in double quotes after ','");
        nesting->depth--;
    }
    return true;
}

bool json_read_value(struct json_reader *reader)
{
    struct nesting nesting = {.depth = 0};
    do {
        reader_skip_blanks(reader);
        if (reader_at_end(reader))
            return reader_refuse_end(reader, nesting.depth == 0    ? "where a value should be"
                                             : in_object(&nesting) ? "inside an object"
                                                                   : "inside an array");
        bool closed = true;
        if (reader_peek(reader) == '{' || reader_peek(reader) == '[') {
            if (!read_open(reader, &nesting, &closed))
                return false;
        } else if (!read_scalar(reader)) {
            return false;
        }
        if (closed && !read_close(reader, &nesting))
            return false;
    } while (nesting.depth > 0);
    return true;
}
