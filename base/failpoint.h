// Places at which a drill may end the process, as kill -9 would: only in builds with the option `failpoints`, and only
// when SLUICE_FAILPOINT names them ("takeover.claim:exit", several apart by commas). Any thread.
#ifndef SLUICE_BASE_FAILPOINT_H
#define SLUICE_BASE_FAILPOINT_H

#ifdef SLUICE_FAILPOINTS
void sl_failpoint(const char *name);
#else
static inline void sl_failpoint(const char *name)
{
    (void)name;
}
#endif

#endif
