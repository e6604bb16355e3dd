// Frames in memory: reference counted buffers, recycled, because a fresh large allocation costs a page fault for every
// 4 KiB.
#include "spool/internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    FRAME_MAGIC = 0x46524d45,
    POOL_SLOTS = 8,
    POOL_BYTES_MAX = 16 << 20, // kept when nobody uses them
    CAPACITY_MIN = 16 << 10,
    ALIGNMENT = SPOOL_BLOCK, // of a frame's first byte in memory, for writes past the page cache
    HUGE_PAGE = 2 << 20,
};

struct frame_pool {
    _Atomic unsigned references; // the spool's, and one for each frame in use
    pthread_mutex_t mutex;
    struct pooled *idle[POOL_SLOTS]; // mutex
    size_t idle_bytes;               // mutex
    bool closed;                     // mutex; nothing is kept any more
};

struct pooled {               // fits into the block before its bytes
    struct spool_frame frame; // first: a spool_frame * is a pooled *
    uint32_t magic;
    _Atomic unsigned references;
    struct frame_pool *pool;
    size_t capacity; // of a body
    uint8_t *bytes;  // where a body goes; the frame's header may stand before it, at an aligned address
};

_Static_assert(sizeof(struct pooled) <= ALIGNMENT, "the administration of a frame fits before it");

static struct pooled *pooled_of(struct spool_frame *frame)
{
    struct pooled *pooled = (struct pooled *)(void *)frame;
    sl_assert(pooled->magic == FRAME_MAGIC);
    return pooled;
}

struct frame_pool *frame_pool_new(void)
{
    struct frame_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL)
        return NULL;
    atomic_init(&pool->references, 1);
    pthread_mutex_init(&pool->mutex, NULL);
    return pool;
}

static void drop(struct frame_pool *pool)
{
    if (atomic_fetch_sub_explicit(&pool->references, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

void frame_pool_release(struct frame_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->closed = true;
    for (size_t i = 0; i < POOL_SLOTS; i++) {
        free(pool->idle[i]);
        pool->idle[i] = NULL;
    }
    pthread_mutex_unlock(&pool->mutex);
    drop(pool);
}

// The smallest idle buffer that is large enough, and not wastefully so.
static struct pooled *take_idle(struct frame_pool *pool, size_t length)
{
    pthread_mutex_lock(&pool->mutex);
    size_t best = POOL_SLOTS;
    for (size_t i = 0; i < POOL_SLOTS; i++) {
        const struct pooled *candidate = pool->idle[i];
        if (candidate != NULL && candidate->capacity >= length &&
            (best == POOL_SLOTS || candidate->capacity < pool->idle[best]->capacity))
            best = i;
    }
    struct pooled *pooled = NULL;
    if (best < POOL_SLOTS) {
        pooled = pool->idle[best];
        pool->idle[best] = NULL;
        pool->idle_bytes -= pooled->capacity;
    }
    pthread_mutex_unlock(&pool->mutex);
    return pooled;
}

// Large ones lie in huge pages, where the system has them: a write past the page cache looks up every page of what it
// writes.
static void *allocate(size_t bytes)
{
    bool large = bytes >= HUGE_PAGE;
    void *memory;
    if (posix_memalign(&memory, large ? HUGE_PAGE : ALIGNMENT, bytes) != 0)
        return NULL;
    if (large)
        (void)madvise(memory, bytes, MADV_HUGEPAGE); // refused where the system has none
    return memory;
}

struct spool_frame *frame_pool_take(struct frame_pool *pool, size_t length)
{
    struct pooled *pooled = take_idle(pool, length);
    if (pooled == NULL) {
        size_t capacity = CAPACITY_MIN;
        while (capacity < length)
            capacity *= 2;
        // One block in front for the administration, and one behind the header for a body that is as long as can be.
        pooled = allocate(capacity + 2 * (size_t)ALIGNMENT);
        if (pooled == NULL)
            return NULL;
        pooled->capacity = capacity;
        pooled->bytes = (uint8_t *)pooled + ALIGNMENT + FRAME_HEADER_BYTES;
        pooled->magic = FRAME_MAGIC;
        pooled->pool = pool;
    }
    pooled->frame = (struct spool_frame){.body = pooled->bytes};
    atomic_init(&pooled->references, 1);
    atomic_fetch_add_explicit(&pool->references, 1, memory_order_relaxed);
    return &pooled->frame;
}

uint8_t *frame_bytes(struct spool_frame *frame)
{
    return pooled_of(frame)->bytes;
}

uint8_t *frame_image(struct spool_frame *frame)
{
    return pooled_of(frame)->bytes - FRAME_HEADER_BYTES;
}

struct spool_frame *spool_frame_retain(struct spool_frame *frame)
{
    atomic_fetch_add_explicit(&pooled_of(frame)->references, 1, memory_order_relaxed);
    return frame;
}

void spool_frame_release(struct spool_frame *frame)
{
    struct pooled *pooled = pooled_of(frame);
    if (atomic_fetch_sub_explicit(&pooled->references, 1, memory_order_acq_rel) != 1)
        return;
    struct frame_pool *pool = pooled->pool;
    bool kept = false;
    pthread_mutex_lock(&pool->mutex);
    for (size_t i = 0; i < POOL_SLOTS && !kept && !pool->closed; i++) {
        if (pool->idle[i] != NULL || pool->idle_bytes + pooled->capacity > POOL_BYTES_MAX)
            continue;
        pool->idle[i] = pooled;
        pool->idle_bytes += pooled->capacity;
        kept = true;
    }
    pthread_mutex_unlock(&pool->mutex);
    if (!kept) {
        pooled->magic = 0;
        free(pooled);
    }
    drop(pool);
}
