#include "gateway/ack.h"

enum ack_verdict ack_decide(enum ack_level level, uint64_t last_seq, const struct ack_positions *positions)
{
    sl_assert(last_seq >= 1);
    bool on_disk = positions->synced >= last_seq;
    bool at_peer = positions->peer_synced >= last_seq;
    bool in_kafka = positions->kafka_committed >= last_seq;

    bool reached = false;
    switch (level) {
    case ACK_DISK:
        reached = on_disk;
        break;
    case ACK_AZ2:
        reached = on_disk && (at_peer || in_kafka);
        break;
    case ACK_KAFKA:
        reached = in_kafka;
        break;
    }
    if (reached)
        return ACK_GIVE;
    // What is not on disk when the stream has failed is not given to anybody from there. What is on disk may still
    // reach a peer or Kafka, but this process is about to exit: nobody would be left to answer.
    return positions->stream_failed ? ACK_REFUSE : ACK_WAIT;
}
