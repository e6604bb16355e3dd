// One bounds-checked cursor for every format of bytes, on disk and on the wire. Integers are little-endian.
//
// Threads: none; a cursor belongs to its caller and never owns its bytes. A read or write past the end sets `failed`,
// which stays set; reads then return zero and write nothing, so that a codec checks once, at its end.
#ifndef SLUICE_BASE_CURSOR_H
#define SLUICE_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct sl_span {
    const void *bytes;
    size_t length;
};

static inline struct sl_span sl_span_of(const char *text)
{
    return (struct sl_span){.bytes = text, .length = strlen(text)};
}

struct sl_reader {
    const uint8_t *bytes;
    size_t length;
    size_t position;
    bool failed;
};

struct sl_writer {
    uint8_t *bytes;
    size_t length; // capacity
    size_t position;
    bool failed;
};

static inline struct sl_reader sl_reader_of(const void *bytes, size_t length)
{
    return (struct sl_reader){.bytes = (const uint8_t *)bytes, .length = length};
}

static inline struct sl_writer sl_writer_of(void *bytes, size_t length)
{
    return (struct sl_writer){.bytes = (uint8_t *)bytes, .length = length};
}

// A view of the next `length` bytes, or an empty one when there are fewer.
static inline struct sl_span sl_read_span(struct sl_reader *reader, size_t length)
{
    if (reader->failed || length > reader->length - reader->position) {
        reader->failed = true;
        return (struct sl_span){.bytes = "", .length = 0};
    }
    struct sl_span span = {.bytes = reader->bytes + reader->position, .length = length};
    reader->position += length;
    return span;
}

static inline void sl_write_bytes(struct sl_writer *writer, const void *bytes, size_t length)
{
    if (writer->failed || length > writer->length - writer->position) {
        writer->failed = true;
        return;
    }
    if (length > 0)
        memcpy(writer->bytes + writer->position, bytes, length);
    writer->position += length;
}

#define SL_CURSOR_INTEGER(name, type)                                                                                  \
    static inline type sl_read_##name(struct sl_reader *reader)                                                        \
    {                                                                                                                  \
        type value = 0;                                                                                                \
        struct sl_span span = sl_read_span(reader, sizeof(value));                                                     \
        if (span.length == sizeof(value))                                                                              \
            memcpy(&value, span.bytes, sizeof(value));                                                                 \
        return value;                                                                                                  \
    }                                                                                                                  \
    static inline void sl_write_##name(struct sl_writer *writer, type value)                                           \
    {                                                                                                                  \
        sl_write_bytes(writer, &value, sizeof(value));                                                                 \
    }
SL_CURSOR_INTEGER(u8, uint8_t)
SL_CURSOR_INTEGER(u16, uint16_t)
SL_CURSOR_INTEGER(u32, uint32_t)
SL_CURSOR_INTEGER(u64, uint64_t)
#undef SL_CURSOR_INTEGER

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the formats are little-endian and this cursor copies integers as they are"
#endif

#endif
