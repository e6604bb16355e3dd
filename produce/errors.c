// Happy path: none of this is reached. An error either names a record (SUSPECT), a topic (HOLD), a permission (DENIED),
// the transaction (ABORT) or the handle (REBUILD, FENCED). What the table does not name is decided by librdkafka's own
// flags, and by the rule that an unknown outcome is never guessed: REBUILD reads progress before anything else.
#include "produce/errors.h"

#include <stddef.h>

struct error_row {
    rd_kafka_resp_err_t code;
    enum error_action delivery, call;
};

#define E(name) RD_KAFKA_RESP_ERR_##name

static const struct error_row error_table[] = {
    // Records. "Too large" is a batch's or a record's fault; the broker does not say which.
    {E(MSG_SIZE_TOO_LARGE), ERROR_SUSPECT, ERROR_ABORT},
    {E(RECORD_LIST_TOO_LARGE), ERROR_SUSPECT, ERROR_ABORT},
    {E(INVALID_RECORD), ERROR_SUSPECT, ERROR_ABORT},
    {E(INVALID_MSG), ERROR_SUSPECT, ERROR_ABORT},
    {E(INVALID_MSG_SIZE), ERROR_SUSPECT, ERROR_ABORT},
    {E(INVALID_TIMESTAMP), ERROR_SUSPECT, ERROR_ABORT},
    {E(UNSUPPORTED_FOR_MESSAGE_FORMAT), ERROR_SUSPECT, ERROR_ABORT},
    {E(UNSUPPORTED_COMPRESSION_TYPE), ERROR_SUSPECT, ERROR_ABORT},
    {E(_INVALID_DIFFERENT_RECORD), ERROR_INNOCENT, ERROR_ABORT},
    {E(_PURGE_QUEUE), ERROR_INNOCENT, ERROR_ABORT},
    {E(_PURGE_INFLIGHT), ERROR_INNOCENT, ERROR_ABORT},
    // Topics.
    {E(UNKNOWN_TOPIC_OR_PART), ERROR_HOLD, ERROR_HOLD},
    {E(UNKNOWN_TOPIC_ID), ERROR_HOLD, ERROR_HOLD},
    {E(_UNKNOWN_TOPIC), ERROR_HOLD, ERROR_HOLD},
    {E(_UNKNOWN_PARTITION), ERROR_HOLD, ERROR_HOLD},
    {E(TOPIC_EXCEPTION), ERROR_HOLD, ERROR_HOLD},
    {E(TOPIC_AUTHORIZATION_FAILED), ERROR_HOLD, ERROR_HOLD},
    {E(NOT_ENOUGH_REPLICAS), ERROR_HOLD, ERROR_HOLD},
    {E(NOT_ENOUGH_REPLICAS_AFTER_APPEND), ERROR_HOLD, ERROR_HOLD},
    {E(POLICY_VIOLATION), ERROR_HOLD, ERROR_HOLD},
    // librdkafka retried until message.timeout.ms: no leader, too few replicas, a frozen broker. The topic is looked
    // at.
    {E(_MSG_TIMED_OUT), ERROR_HOLD, ERROR_REBUILD},
    // Permissions that no topic has.
    {E(CLUSTER_AUTHORIZATION_FAILED), ERROR_DENIED, ERROR_DENIED},
    {E(TRANSACTIONAL_ID_AUTHORIZATION_FAILED), ERROR_DENIED, ERROR_DENIED},
    {E(SASL_AUTHENTICATION_FAILED), ERROR_DENIED, ERROR_DENIED},
    {E(_AUTHENTICATION), ERROR_DENIED, ERROR_DENIED},
    {E(_UNSUPPORTED_FEATURE), ERROR_DENIED, ERROR_DENIED},
    {E(UNSUPPORTED_VERSION), ERROR_DENIED, ERROR_DENIED},
    {E(INVALID_TRANSACTION_TIMEOUT), ERROR_DENIED, ERROR_DENIED},
    // A rival, or the coordinator timed the transaction out: only progress can tell.
    {E(_FENCED), ERROR_FENCED, ERROR_FENCED},
    {E(INVALID_PRODUCER_EPOCH), ERROR_FENCED, ERROR_FENCED},
    {E(PRODUCER_FENCED), ERROR_FENCED, ERROR_FENCED},
    // The handle or its producer id is of no more use.
    {E(INVALID_PRODUCER_ID_MAPPING), ERROR_REBUILD, ERROR_REBUILD},
    {E(UNKNOWN_PRODUCER_ID), ERROR_REBUILD, ERROR_REBUILD},
    {E(OUT_OF_ORDER_SEQUENCE_NUMBER), ERROR_REBUILD, ERROR_REBUILD},
    {E(DUPLICATE_SEQUENCE_NUMBER), ERROR_REBUILD, ERROR_REBUILD},
    {E(INVALID_TXN_STATE), ERROR_REBUILD, ERROR_REBUILD},
    {E(_FATAL), ERROR_REBUILD, ERROR_REBUILD},
    {E(_STATE), ERROR_REBUILD, ERROR_REBUILD},
    {E(_TIMED_OUT), ERROR_ABORT, ERROR_REBUILD},
    {E(REQUEST_TIMED_OUT), ERROR_ABORT, ERROR_REBUILD},
};

static const struct error_row *find(rd_kafka_resp_err_t code)
{
    for (size_t i = 0; i < sizeof(error_table) / sizeof(error_table[0]); i++) {
        if (error_table[i].code == code)
            return &error_table[i];
    }
    return NULL;
}

enum error_action error_of_delivery(rd_kafka_resp_err_t code)
{
    const struct error_row *row = find(code);
    return row ? row->delivery : ERROR_ABORT;
}

enum error_action error_of_call(rd_kafka_resp_err_t code, bool fatal, bool abortable, bool retriable)
{
    const struct error_row *row = find(code);
    if (row && (row->call == ERROR_FENCED || row->call == ERROR_DENIED))
        return row->call;
    if (fatal)
        return ERROR_REBUILD;
    if (abortable)
        return row && row->call == ERROR_HOLD ? ERROR_HOLD : ERROR_ABORT;
    if (retriable)
        return ERROR_RETRY;
    return row ? row->call : ERROR_REBUILD;
}

const char *error_action_word(enum error_action action)
{
    static const char *const words[] = {"retry", "abort", "rebuild", "fenced", "hold", "denied", "suspect", "innocent"};
    return words[action];
}
