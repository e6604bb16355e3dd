#include "gateway/config_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct config_chunk {
    struct config_chunk *next;
    size_t size, used;
    _Alignas(max_align_t) unsigned char bytes[];
};

enum { CHUNK_BYTES = 8192 };

void *config_alloc(struct config_arena *arena, size_t size)
{
    const size_t alignment = _Alignof(max_align_t);
    size_t rounded = (size + alignment - 1) / alignment * alignment;
    struct config_chunk *chunk = arena->chunks;
    if (chunk == NULL || chunk->size - chunk->used < rounded) {
        size_t room = rounded > CHUNK_BYTES ? rounded : CHUNK_BYTES;
        chunk = calloc(1, sizeof(*chunk) + room);
        sl_assert(chunk != NULL);
        chunk->size = room;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    void *memory = chunk->bytes + chunk->used;
    chunk->used += rounded;
    return memory;
}

char *config_copy(struct config_arena *arena, const char *text, size_t length)
{
    char *copy = config_alloc(arena, length + 1);
    memcpy(copy, text, length);
    return copy;
}

char *config_format(struct config_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = NULL;
    int length = vasprintf(&text, format, args);
    va_end(args);
    sl_assert(length >= 0);
    char *copy = config_copy(arena, text, (size_t)length);
    free(text);
    return copy;
}

void config_arena_free(struct config_arena *arena)
{
    while (arena->chunks != NULL) {
        struct config_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
}
