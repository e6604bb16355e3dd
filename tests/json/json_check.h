// What must hold for any body whatever, checked by the property test and by the fuzz target. Ends the process (abort)
// with a message when it does not.
//
// Threads: a check belongs to one thread.
#ifndef SLUICE_TESTS_JSON_JSON_CHECK_H
#define SLUICE_TESTS_JSON_JSON_CHECK_H

#include "gateway/json.h"

struct json_check;
struct json_check *json_check_new(void);
void json_check_free(struct json_check *check);

// Walks the body several times, with windows of different sizes and different bytes behind its end, and holds the
// results against each other, against jansson and against the strict reader. `variant` picks sizes, capacity and depth.
// Returns whether the body was good.
bool json_check_body(struct json_check *check, enum json_shape shape, struct sl_span body, unsigned variant);

#endif
