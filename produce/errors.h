// What a librdkafka error asks for: a table as data (errors.c), every row tested. Pure; any thread.
#ifndef SLUICE_PRODUCE_ERRORS_H
#define SLUICE_PRODUCE_ERRORS_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>

enum error_action {
    ERROR_RETRY,    // the same call again
    ERROR_ABORT,    // abort, read progress, go on from through + 1
    ERROR_REBUILD,  // the outcome is unknown or the handle is dead: destroy it, make a new one, read progress
    ERROR_FENCED,   // the same, but look first whether a rival has claimed
    ERROR_HOLD,     // abort; the topic holds the lane up until it is well again
    ERROR_DENIED,   // destroy; the lane is held up until somebody grants what is missing
    ERROR_SUSPECT,  // names a record or its batch: bisect, dead-letter
    ERROR_INNOCENT, // failed only because another record or the transaction did
};
const char *error_action_word(enum error_action action);

// Of a delivery report.
enum error_action error_of_delivery(rd_kafka_resp_err_t code);
// Of a call of the transactional API; the flags are those of rd_kafka_error_t.
enum error_action error_of_call(rd_kafka_resp_err_t code, bool fatal, bool abortable, bool retriable);

#endif
