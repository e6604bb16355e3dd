// A cell as operators see it: /status, /metrics, and one sentence on what would be lost.
//
// Threads: none; no state.
#ifndef SLUICE_GATEWAY_CELL_SHOW_H
#define SLUICE_GATEWAY_CELL_SHOW_H

#include "ha/cell.h"

#include <jansson.h>
#include <stdio.h>

// `status` NULL: there is no cell; what dashboards count on is there all the same.
void cell_show_metrics(FILE *out, const struct cell_status *status);
json_t *cell_show_json(const struct cell_status *status); // of a cell
// What would be gone for good if one member and its disk were lost now, in a sentence. It must be: nothing.
void cell_show_risk(const struct cell_status *status, char *out, size_t capacity);

#endif
