#include "gateway/ack.h"

static bool reached(enum ack_level level, bool on_disk, bool at_peer, bool in_kafka)
{
    switch (level) {
    case ACK_DISK:
        return on_disk;
    case ACK_AZ2:
        return on_disk && (at_peer || in_kafka);
    case ACK_KAFKA:
        return in_kafka;
    }
    return false;
}

enum ack_verdict ack_decide(enum ack_level level, uint64_t last_seq, const struct ack_positions *positions)
{
    sl_assert(last_seq >= 1);
    if (reached(level, positions->synced >= last_seq, positions->peer_synced >= last_seq,
                positions->kafka_committed >= last_seq))
        return ACK_GIVE;
    // What is not on disk when the stream has failed is not given to anybody from there. What is on disk may still
    // reach a peer or Kafka, but this process is about to exit: nobody would be left to answer.
    return positions->stream_failed ? ACK_REFUSE : ACK_WAIT;
}

enum ack_verdict ack_decide_original(enum ack_level level, const struct ack_original *original)
{
    switch (original->state) {
    case ACK_ORIGINAL_PENDING:
        return ACK_WAIT;
    case ACK_ORIGINAL_GONE:
        return ACK_REFUSE;
    case ACK_ORIGINAL_STORED:
        return reached(level, true, original->at_peer, original->in_kafka) ? ACK_GIVE : ACK_WAIT;
    }
    return ACK_REFUSE;
}

enum ack_verdict ack_both(enum ack_verdict a, enum ack_verdict b)
{
    if (a == ACK_REFUSE || b == ACK_REFUSE)
        return ACK_REFUSE;
    return a == ACK_WAIT || b == ACK_WAIT ? ACK_WAIT : ACK_GIVE;
}
