// LD_PRELOAD shim: moves the wall clock of one process, while it runs, and no other clock.
//
//   SLUICE_CLOCK_SHIFT   a file of two little-endian 64-bit integers: by how many nanoseconds the clock is off (written
//                        by whoever injects), and how often it was read while it was off (counted here: the proof).
//                        Missing at the start or shorter: the shim does nothing for the life of the process.
//
// What sees the shift: clock_gettime(CLOCK_REALTIME and _COARSE), gettimeofday, time, timespec_get. Monotonic clocks do
// not. Deadlines that were made from the shifted clock are shifted back on their way into the kernel
// (pthread_cond_timedwait, cnd_timedwait), as a kernel whose clock jumped would understand them; a deadline that was
// made just before the jump is off by it, as a moment of bad luck.
//
// pthread_cond_timedwait does not say of which clock its deadline is: one before 2001 is monotonic.
//
// Threads: any; the file is mapped, and its two words are atomic.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

enum { NS_PER_S = 1000000000, MONOTONIC_S_MAX = 1000000000 };

struct shared {
    _Atomic int64_t shift_ns;
    _Atomic uint64_t seen; // readings of the clock that were shifted
};

static struct shared nothing;
static struct shared *shared = &nothing;
static int (*next_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*next_cnd_timedwait)(cnd_t *restrict, mtx_t *restrict, const struct timespec *restrict);

static void __attribute__((constructor)) map_shift(void)
{
    const char *path = getenv("SLUICE_CLOCK_SHIFT");
    // glibc has an older pthread_cond_timedwait, too, which is not for conditions made with today's header.
    void *found = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    *(void **)&next_cond_timedwait = found != NULL ? found : dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    *(void **)&next_cnd_timedwait = dlsym(RTLD_NEXT, "cnd_timedwait");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    if (lseek(fd, 0, SEEK_END) >= (off_t)sizeof *shared) {
        void *map = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED)
            shared = map;
    }
    close(fd);
}

static struct timespec moved(struct timespec when, int64_t by_ns)
{
    int64_t ns = (int64_t)when.tv_nsec + by_ns % NS_PER_S;
    when.tv_sec += by_ns / NS_PER_S;
    if (ns < 0) {
        ns += NS_PER_S;
        when.tv_sec--;
    } else if (ns >= NS_PER_S) {
        ns -= NS_PER_S;
        when.tv_sec++;
    }
    when.tv_nsec = ns;
    return when;
}

static int64_t shift_now(void)
{
    int64_t shift = atomic_load_explicit(&shared->shift_ns, memory_order_relaxed);
    if (shift != 0)
        atomic_fetch_add_explicit(&shared->seen, 1, memory_order_relaxed);
    return shift;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static _Atomic(int (*)(clockid_t, struct timespec *)) next;
    int (*real)(clockid_t, struct timespec *) = atomic_load_explicit(&next, memory_order_relaxed);
    if (real == NULL) { // may be called before our constructor
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
        atomic_store_explicit(&next, real, memory_order_relaxed);
    }
    int rc = real(clock, now);
    if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t shift = shift_now();
        if (shift != 0)
            *now = moved(*now, shift);
    }
    return rc;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME_COARSE, &exact);
    if (now != NULL)
        *now = exact.tv_sec;
    return exact.tv_sec;
}

int timespec_get(struct timespec *now, int base)
{
    if (base != TIME_UTC)
        return 0;
    clock_gettime(CLOCK_REALTIME, now);
    return base;
}

static struct timespec deadline(const struct timespec *when)
{
    int64_t shift = atomic_load_explicit(&shared->shift_ns, memory_order_relaxed);
    return shift != 0 && when->tv_sec > MONOTONIC_S_MAX ? moved(*when, -shift) : *when;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict when)
{
    struct timespec real = deadline(when);
    return next_cond_timedwait(condition, mutex, &real);
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict when)
{
    struct timespec real = deadline(when);
    return next_cnd_timedwait(condition, mutex, &real);
}
