// Stream ids as text and as numbers.
#include "ha/ha.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool digits(const char **at, int base, size_t most, uint64_t *out)
{
    static const char alphabet[] = "0123456789abcdef";
    uint64_t value = 0;
    size_t length = 0;
    for (; **at != '\0' && length < most; (*at)++, length++) {
        const char *digit = memchr(alphabet, **at, (size_t)base);
        if (digit == NULL)
            break;
        value = value * (uint64_t)base + (uint64_t)(digit - alphabet);
    }
    *out = value;
    return length > 0;
}

bool ha_id_parse(struct ha_id *out, const char *text, const char *const *names, size_t members)
{
    const char *dot = strchr(text, '.');
    uint64_t counter, chance;
    if (dot == NULL)
        return false;
    const char *at = dot + 1;
    // 18 digits fit 64 bits.
    if (!digits(&at, 10, 18, &counter) || counter == 0 || *at++ != '-')
        return false;
    const char *chance_text = at;
    if (!digits(&at, 16, 8, &chance) || at - chance_text != 8 || *at != '\0')
        return false;
    for (size_t i = 0; i < members; i++) {
        if (strlen(names[i]) == (size_t)(dot - text) && memcmp(names[i], text, (size_t)(dot - text)) == 0) {
            *out = (struct ha_id){.counter = counter, .chance = (uint32_t)chance, .member = (uint8_t)i};
            return true;
        }
    }
    return false;
}

void ha_id_text(char text[SPOOL_STREAM_ID_MAX], struct ha_id id, const char *const *names)
{
    snprintf(text, SPOOL_STREAM_ID_MAX, "%s.%llu-%08x", names[id.member], (unsigned long long)id.counter, id.chance);
}
