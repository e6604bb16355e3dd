// The verdicts of the last drills, for /status and the status page. `chaos/drill` leaves them in the spool directory,
// built aside and renamed, and sends SIGHUP: they outlive the process, and no endpoint has to take them.
//
// {"version":1,"drills":[{"name":"zone-loss","verdict":"PASS","at":"2026-11-21T18:00:00+00:00","line":"PASS
// …","why":""}]}
//
// Threads: none of its own; no state. The caller owns what is returned.
#ifndef SLUICE_GATEWAY_DRILLS_H
#define SLUICE_GATEWAY_DRILLS_H

#include "base/error.h"

#include <jansson.h>

#define DRILLS_FILE "last-drills.json"
enum { DRILLS_BYTES_MAX = 64 << 10, DRILLS_COUNT_MAX = 64 };

// Reads the file: *out is an array, newest first as the file has it; NULL (and true) when there is no file. Reads the
// disk, so never from a loop. SL_E_IO, SL_E_TOO_LARGE, SL_E_INVALID.
bool drills_read(const char *spool_dir, json_t **out, struct sl_error *err) SL_MUST_USE;

#endif
