// Error answers: problem+json of RFC 9457, written into the caller's buffer.
//
// {"type":"about:blank","title":"Bad
// Request","status":400,"detail":"…","errors":[{"index":3,"offset":117,"detail":"…"}]}
//
// The type is about:blank, so the title is the status's own phrase (RFC 9457 section 4.2.1); what a program may act on
// is the status and, in `errors`, the place. Threads: any; nothing is kept, nothing is allocated.
#ifndef SLUICE_GATEWAY_PROBLEM_H
#define SLUICE_GATEWAY_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>

#define PROBLEM_CONTENT_TYPE "application/problem+json"

enum { PROBLEM_SIZE_MIN = 160 }; // a buffer in which every status fits without detail and errors

// One event that is wrong. Texts are UTF-8; bytes that are not come out as U+FFFD.
struct problem_error {
    size_t index;        // of the event in the request, 0-based
    bool has_offset;     // whether `offset` is known
    size_t offset;       // bytes, 0-based, in the decoded body
    const char *pointer; // JSON Pointer into the event; NULL: none
    const char *detail;  // a sentence or clause; NULL: none
};

struct problem {
    int status;         // of the answer, too
    const char *detail; // NULL: none
    const struct problem_error *errors;
    size_t error_count; // 0: no member "errors"
};

// Writes the object and a terminating NUL; returns its length without the NUL. `size` ≥ PROBLEM_SIZE_MIN (asserted).
// What does not fit is cut so that the result stays valid JSON: `detail` ends in "…" (at half the buffer when there are
// errors), errors at the end are left out whole and the member "omitted" says how many.
size_t problem_write(char *out, size_t size, const struct problem *problem);

// "Bad Request" for 400; "Error" for a status that is not in RFC 9110, 6585 or here.
const char *problem_title(int status);

#endif
