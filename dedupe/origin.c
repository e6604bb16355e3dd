// Names of the streams in which ids were stored. Giving one out takes a lock (it happens once for a stream); reading
// one does not: the version is odd while the name changes.
#include "dedupe/internal.h"

#include <string.h>

static void name_store(struct origin *origin, const char *stream)
{
    size_t length = strlen(stream);
    atomic_fetch_add(&origin->version, 1);
    for (size_t i = 0; i < ORIGIN_NAME_MAX; i++)
        atomic_store(&origin->name[i], i < length ? stream[i] : '\0');
    atomic_fetch_add(&origin->version, 1);
}

static bool name_load(const struct origin *origin, char name[ORIGIN_NAME_MAX])
{
    uint32_t before = atomic_load(&origin->version);
    for (size_t i = 0; i < ORIGIN_NAME_MAX; i++)
        name[i] = atomic_load(&origin->name[i]);
    return before % 2 == 0 && atomic_load(&origin->version) == before && name[0] != '\0';
}

void origin_used(struct dedupe *dedupe, uint32_t origin, uint64_t number)
{
    _Atomic uint64_t *last = &dedupe->origins[origin].last;
    uint64_t seen = atomic_load(last);
    while (seen < number && !atomic_compare_exchange_weak(last, &seen, number)) {
    }
}

void dedupe_own_stream(struct dedupe *dedupe, const char *stream)
{
    sl_assert(strlen(stream) < ORIGIN_NAME_MAX);
    pthread_mutex_lock(&dedupe->origins_mutex);
    name_store(&dedupe->origins[DEDUPE_ORIGIN_OWN], stream);
    pthread_mutex_unlock(&dedupe->origins_mutex);
}

// One that nothing can be in any more: never given out, or swept.
static uint32_t find_free(const struct dedupe *dedupe)
{
    uint64_t swept = atomic_load(&dedupe->swept);
    for (uint32_t i = DEDUPE_ORIGIN_OWN + 1; i < ORIGINS; i++) {
        if (atomic_load(&dedupe->origins[i].last) < swept)
            return i;
    }
    return UINT32_MAX;
}

uint32_t dedupe_origin(struct dedupe *dedupe, const char *stream)
{
    sl_assert(strlen(stream) < ORIGIN_NAME_MAX && stream[0] != '\0');
    char name[ORIGIN_NAME_MAX];
    uint32_t index = UINT32_MAX;
    pthread_mutex_lock(&dedupe->origins_mutex);
    for (uint32_t i = 0; i < ORIGINS && index == UINT32_MAX; i++) {
        if (name_load(&dedupe->origins[i], name) && strcmp(name, stream) == 0)
            index = i;
    }
    if (index == UINT32_MAX) {
        index = find_free(dedupe);
        if (index != UINT32_MAX)
            name_store(&dedupe->origins[index], stream);
    }
    if (index != UINT32_MAX)
        origin_used(dedupe, index, atomic_load(&dedupe->current));
    pthread_mutex_unlock(&dedupe->origins_mutex);
    return index;
}

bool dedupe_origin_name(const struct dedupe *dedupe, uint32_t origin, char *out, size_t capacity)
{
    char name[ORIGIN_NAME_MAX];
    if (origin >= ORIGINS || !name_load(&dedupe->origins[origin], name) || strlen(name) >= capacity)
        return false;
    memcpy(out, name, strlen(name) + 1);
    return true;
}
