// One line of eight words, looked through at once: which have a tag, which are empty. The answer has bit 2 i set for
// word i, because SSE2 compares halves of a word.
//
// Threads: any; the words are atomics that others change. Each word is read whole, none together with another. A scan
// is ordered behind every locked instruction before it, as each load of its would be: on x86-64 loads are not moved
// before those. What it finds is only a hint: the words it names are loaded again, as atomics, before anything is said.
// ThreadSanitizer, which knows no vectors of atomics, gets the plain loop.
#ifndef SLUICE_DEDUPE_SCAN_H
#define SLUICE_DEDUPE_SCAN_H

#include <stdatomic.h>
#include <stdint.h>

enum { SCAN_WORDS = 8 };

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)

#include <emmintrin.h>

static inline unsigned scan_equal(const _Atomic uint64_t *words, uint64_t want, uint64_t mask)
{
    const __m128i *lines = (const __m128i *)(const void *)words;
    const __m128i wanted = _mm_set1_epi64x((long long)want), masks = _mm_set1_epi64x((long long)mask);
    __asm__ volatile("" ::: "memory");
    __m128i a = _mm_cmpeq_epi32(_mm_and_si128(_mm_load_si128(lines), masks), wanted);
    __m128i b = _mm_cmpeq_epi32(_mm_and_si128(_mm_load_si128(lines + 1), masks), wanted);
    __m128i c = _mm_cmpeq_epi32(_mm_and_si128(_mm_load_si128(lines + 2), masks), wanted);
    __m128i d = _mm_cmpeq_epi32(_mm_and_si128(_mm_load_si128(lines + 3), masks), wanted);
    __m128i packed = _mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
    unsigned halves = (unsigned)_mm_movemask_epi8(packed);
    __asm__ volatile("" ::: "memory");
    return halves & halves >> 1 & 0x5555;
}

#else

static inline unsigned scan_equal(const _Atomic uint64_t *words, uint64_t want, uint64_t mask)
{
    unsigned found = 0;
    for (unsigned i = 0; i < SCAN_WORDS; i++)
        found |= (unsigned)((atomic_load(&words[i]) & mask) == want) << 2 * i;
    return found;
}

#endif

static inline unsigned scan_tags(const _Atomic uint64_t *words, uint64_t want, unsigned shift)
{
    return scan_equal(words, want, UINT64_MAX << shift);
}

static inline unsigned scan_empty(const _Atomic uint64_t *words)
{
    return scan_equal(words, 0, UINT64_MAX);
}

static inline unsigned scan_count(unsigned found)
{
    found = (found & 0x3333) + (found >> 2 & 0x3333);
    found = (found & 0x0f0f) + (found >> 4 & 0x0f0f);
    return (found + (found >> 8)) & 0xff;
}

// Of at least one.
static inline unsigned scan_first(unsigned found)
{
    return (unsigned)__builtin_ctz(found) / 2;
}

#endif
