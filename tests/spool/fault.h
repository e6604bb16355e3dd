// Faults for any storage: the n-th call of an operation fails, once or from then on, or is slow. Wraps another storage.
//
// Threads: any; rules are set before or between, the counters are atomic.
#ifndef SLUICE_TESTS_SPOOL_FAULT_H
#define SLUICE_TESTS_SPOOL_FAULT_H

#include "spool/storage.h"

#include <stdatomic.h>

enum fault_op {
    FAULT_OPEN,
    FAULT_PREAD,
    FAULT_PWRITEV,
    FAULT_FDATASYNC,
    FAULT_ALLOCATE,
    FAULT_TRUNCATE,
    FAULT_RENAME,
    FAULT_UNLINK,
    FAULT_MKDIR,
    FAULT_RMDIR,
    FAULT_SYNC_DIRECTORY,
    FAULT_INFO,
    FAULT_LIST,
    FAULT_LOCK,
    FAULT_OPS,
};
extern const char *const fault_op_names[FAULT_OPS];

struct fault {
    struct storage storage; // what is wrapped
    _Atomic uint64_t calls[FAULT_OPS];
    // The call with this number (from 1) fails with -error; 0 = none. `forever`: and all behind it.
    _Atomic uint64_t at[FAULT_OPS];
    _Atomic int error[FAULT_OPS];
    _Atomic bool forever[FAULT_OPS];
    _Atomic bool fired;
    _Atomic uint64_t slow_ns[FAULT_OPS]; // each call takes that much longer
    // Calls of fdatasync wait while this is true: a disk that hangs. Let go with fault_release.
    _Atomic bool hang;
};

void fault_init(struct fault *fault, const struct storage *storage);
struct storage fault_storage(struct fault *fault);
void fault_set(struct fault *fault, enum fault_op op, uint64_t at, int error, bool forever);
void fault_clear(struct fault *fault);

#endif
