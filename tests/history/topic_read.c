// Reads whole topics as a read_committed consumer sees them, and proves that it read to the end.
//
//     topic_read -b BROKERS [--timeout S] [--values] [--headers] [--missing-ok] [--uncommitted] TOPIC...
//
// One line a record, columns separated by tabs, escaped as in PostgreSQL's COPY (\N is null, \\ \t \n \r, \xHH for
// other control bytes):
//
//     topic  partition  offset  timestamp_ms  key  event_id  sluice-stream  sluice-seq  crc32c(value)  [value]
//     [name=value]...
//
// and after the last record the line "\.<tab>records": without it the output is cut. Records come in the order of
// offsets within a partition.
//
// The end. A first handle at read_uncommitted asks for every partition's high watermark. A second one at read_committed
// then reads until its position has reached it. End-of-partition events alone prove nothing: one comes at the last
// stable offset too, which an open transaction holds back; and a read_committed handle's own watermark is that offset.
// Here such an event only tells the position, which moves over control records and aborted records without any message.
//
// What can go wrong: a transaction that stays open, a dead broker, a missing topic. Each ends in exit code 1 and a
// message that names the partitions and how far they were read. Exit code 2: usage.
#include "base/crc32c.h"

#include <getopt.h>
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OUTPUT_BUFFER_BYTES = 1 << 20, POLL_MS = 200, CALL_MS = 5000 };

struct partition {
    const char *topic; // of argv
    int32_t id;
    int64_t low, high;
    int64_t position; // the next offset to be seen
};

struct reader {
    const char *brokers;
    int timeout_s;
    bool values, headers, missing_ok, uncommitted;
    struct timespec end; // CLOCK_MONOTONIC
    struct partition *partitions;
    size_t partition_count;
    size_t open_count; // partitions with position < high
    uint64_t records;
};

static int remaining_ms(const struct reader *reader)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t left = (int64_t)(reader->end.tv_sec - now.tv_sec) * 1000 + (reader->end.tv_nsec - now.tv_nsec) / 1000000;
    return left < 0 ? 0 : (int)left;
}

static rd_kafka_t *consumer_new(const struct reader *reader, const char *isolation)
{
    const char *const settings[][2] = {
        {"bootstrap.servers", reader->brokers},
        {"group.id", "topic-read"}, // required for assign(); nothing is ever committed under it
        {"enable.auto.commit", "false"},
        {"enable.partition.eof", "true"},
        {"isolation.level", isolation},
        {"auto.offset.reset", "error"},
        {"check.crcs", "true"},
        {"allow.auto.create.topics", "false"},
        {"fetch.wait.max.ms", "100"},
        {"queued.max.messages.kbytes", "65536"},
        {"topic.metadata.refresh.fast.interval.ms", "100"},
        {"reconnect.backoff.max.ms", "1000"},
    };
    char text[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        if (rd_kafka_conf_set(conf, settings[i][0], settings[i][1], text, sizeof(text)) != RD_KAFKA_CONF_OK) {
            fprintf(stderr, "topic_read: %s\n", text);
            exit(2);
        }
    }
    rd_kafka_t *handle = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
    if (handle == NULL) {
        fprintf(stderr, "topic_read: %s\n", text);
        exit(1);
    }
    return handle;
}

// ---- what there is to read

static bool add_partitions(struct reader *reader, const char *topic, const struct rd_kafka_metadata_topic *found)
{
    size_t count = (size_t)found->partition_cnt;
    struct partition *grown = (struct partition *)realloc(reader->partitions, (reader->partition_count + count) *
                                                                                  sizeof(*reader->partitions));
    if (grown == NULL)
        return false;
    reader->partitions = grown;
    for (size_t i = 0; i < count; i++)
        grown[reader->partition_count++] = (struct partition){.topic = topic, .id = found->partitions[i].id};
    return true;
}

// A topic that does not exist is told apart from brokers that do not answer; the latter are asked again until the end.
static bool find_topic(struct reader *reader, rd_kafka_t *handle, const char *topic)
{
    rd_kafka_topic_t *object = rd_kafka_topic_new(handle, topic, NULL);
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR__TIMED_OUT;
    bool found = false;
    while (!found && remaining_ms(reader) > 0) {
        const struct rd_kafka_metadata *metadata = NULL;
        error = rd_kafka_metadata(handle, 0, object, &metadata, CALL_MS);
        if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
            continue;
        error = metadata->topic_cnt == 1 ? metadata->topics[0].err : RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR && metadata->topics[0].partition_cnt > 0)
            found = add_partitions(reader, topic, &metadata->topics[0]);
        rd_kafka_metadata_destroy(metadata);
        if (error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || error == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)
            break;
    }
    rd_kafka_topic_destroy(object);
    if (found || (reader->missing_ok &&
                  (error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || error == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)))
        return true;
    fprintf(stderr, "topic_read: %s: %s\n", topic, rd_kafka_err2str(error));
    return false;
}

static bool find_watermarks(struct reader *reader, rd_kafka_t *handle)
{
    for (size_t i = 0; i < reader->partition_count; i++) {
        struct partition *partition = &reader->partitions[i];
        rd_kafka_resp_err_t error;
        do {
            error = rd_kafka_query_watermark_offsets(handle, partition->topic, partition->id, &partition->low,
                                                     &partition->high, CALL_MS);
        } while (error != RD_KAFKA_RESP_ERR_NO_ERROR && remaining_ms(reader) > 0);
        if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
            fprintf(stderr, "topic_read: %s[%" PRId32 "]: high watermark: %s\n", partition->topic, partition->id,
                    rd_kafka_err2str(error));
            return false;
        }
        partition->position = partition->low;
        reader->open_count += partition->low < partition->high;
    }
    return true;
}

static bool survey(struct reader *reader, char *const *topics, int count)
{
    rd_kafka_t *handle = consumer_new(reader, "read_uncommitted");
    bool fine = true;
    for (int i = 0; fine && i < count; i++)
        fine = find_topic(reader, handle, topics[i]);
    fine = fine && find_watermarks(reader, handle);
    rd_kafka_destroy(handle);
    return fine;
}

// ---- output

static void put_escaped(const void *bytes, size_t length)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *at = (const unsigned char *)bytes;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = at[i];
        if (c >= 0x20 && c != '\\' && c != 0x7f) {
            putc_unlocked(c, stdout);
            continue;
        }
        putc_unlocked('\\', stdout);
        if (c == '\\' || c == '\t' || c == '\n' || c == '\r') {
            putc_unlocked(c == '\\' ? '\\' : c == '\t' ? 't' : c == '\n' ? 'n' : 'r', stdout);
        } else {
            putc_unlocked('x', stdout);
            putc_unlocked(hex[c >> 4], stdout);
            putc_unlocked(hex[c & 15], stdout);
        }
    }
}

static void put_column(const void *bytes, size_t length)
{
    putc_unlocked('\t', stdout);
    if (bytes == NULL)
        fputs_unlocked("\\N", stdout);
    else
        put_escaped(bytes, length);
}

static void put_header(const rd_kafka_headers_t *headers, const char *name)
{
    const void *value = NULL;
    size_t length = 0;
    if (headers == NULL || rd_kafka_header_get_last(headers, name, &value, &length) != RD_KAFKA_RESP_ERR_NO_ERROR)
        value = NULL;
    put_column(value, length);
}

static void put_headers(const rd_kafka_headers_t *headers)
{
    const char *name;
    const void *value;
    size_t length;
    for (size_t i = 0;
         headers != NULL && rd_kafka_header_get_all(headers, i, &name, &value, &length) == RD_KAFKA_RESP_ERR_NO_ERROR;
         i++) {
        put_column(name, strlen(name));
        putc_unlocked('=', stdout);
        put_escaped(value, value == NULL ? 0 : length);
    }
}

static void put_record(const struct reader *reader, const struct partition *partition,
                       const rd_kafka_message_t *message)
{
    rd_kafka_headers_t *headers = NULL;
    if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        headers = NULL;
    printf("%s\t%" PRId32 "\t%" PRId64 "\t%" PRId64, partition->topic, partition->id, message->offset,
           rd_kafka_message_timestamp(message, NULL));
    put_column(message->key, message->key_len);
    put_header(headers, "event_id");
    put_header(headers, "sluice-stream");
    put_header(headers, "sluice-seq");
    if (message->payload == NULL)
        put_column(NULL, 0);
    else
        printf("\t%" PRIu32, sl_crc32c(message->payload, message->len));
    if (reader->values)
        put_column(message->payload, message->len);
    if (reader->headers)
        put_headers(headers);
    putc_unlocked('\n', stdout);
}

// ---- reading

static struct partition *find_partition(struct reader *reader, const rd_kafka_message_t *message)
{
    const char *topic = rd_kafka_topic_name(message->rkt);
    for (size_t i = 0; i < reader->partition_count; i++) {
        struct partition *partition = &reader->partitions[i];
        if (partition->id == message->partition && strcmp(partition->topic, topic) == 0)
            return partition;
    }
    return NULL;
}

static void move_to(struct reader *reader, struct partition *partition, int64_t position)
{
    if (position <= partition->position)
        return;
    if (partition->position < partition->high && position >= partition->high)
        reader->open_count--;
    partition->position = position;
}

// False on an error that reading on cannot mend.
static bool take(struct reader *reader, const rd_kafka_message_t *message)
{
    struct partition *partition = message->rkt == NULL ? NULL : find_partition(reader, message);
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR && partition != NULL) {
        // Records beyond the watermark were not there when reading began; where it stops must not depend on timing.
        if (message->offset < partition->high) {
            put_record(reader, partition, message);
            reader->records++;
        }
        move_to(reader, partition, message->offset + 1);
    } else if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF && partition != NULL) {
        move_to(reader, partition, message->offset);
    } else if (message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET || message->err == RD_KAFKA_RESP_ERR__BAD_MSG ||
               message->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) {
        fprintf(stderr, "topic_read: %s[%" PRId32 "]: %s\n", partition == NULL ? "?" : partition->topic,
                message->partition, rd_kafka_message_errstr(message));
        return false;
    }
    return true; // other errors are about connections; the client mends them, or the deadline ends it
}

static void tell_open(const struct reader *reader)
{
    fprintf(stderr, "topic_read: not at the end after %d s (an open transaction, or a broker that is away):",
            reader->timeout_s);
    for (size_t i = 0; i < reader->partition_count; i++) {
        const struct partition *partition = &reader->partitions[i];
        if (partition->position < partition->high)
            fprintf(stderr, " %s[%" PRId32 "] %" PRId64 " of %" PRId64, partition->topic, partition->id,
                    partition->position, partition->high);
    }
    fputc('\n', stderr);
}

static bool assign(const struct reader *reader, rd_kafka_t *handle)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)reader->partition_count);
    for (size_t i = 0; i < reader->partition_count; i++) {
        const struct partition *partition = &reader->partitions[i];
        if (partition->low < partition->high)
            rd_kafka_topic_partition_list_add(list, partition->topic, partition->id)->offset = partition->low;
    }
    rd_kafka_resp_err_t error = rd_kafka_assign(handle, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        fprintf(stderr, "topic_read: assign: %s\n", rd_kafka_err2str(error));
    return error == RD_KAFKA_RESP_ERR_NO_ERROR;
}

static bool read_all(struct reader *reader)
{
    rd_kafka_t *handle = consumer_new(reader, reader->uncommitted ? "read_uncommitted" : "read_committed");
    bool fine = rd_kafka_poll_set_consumer(handle) == RD_KAFKA_RESP_ERR_NO_ERROR && assign(reader, handle);
    while (fine && reader->open_count > 0) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(handle, POLL_MS);
        if (message != NULL) {
            fine = take(reader, message);
            rd_kafka_message_destroy(message);
        } else if (remaining_ms(reader) == 0) {
            tell_open(reader);
            fine = false;
        }
    }
    rd_kafka_consumer_close(handle);
    rd_kafka_destroy(handle);
    return fine;
}

static void usage(void)
{
    fputs("usage: topic_read -b BROKERS [--timeout S] [--values] [--headers] [--missing-ok] [--uncommitted] TOPIC...\n",
          stderr);
    exit(2);
}

static void parse(struct reader *reader, int argc, char **argv)
{
    enum { TIMEOUT = 256, VALUES, HEADERS, MISSING_OK, UNCOMMITTED };
    static const struct option options[] = {{"brokers", required_argument, NULL, 'b'},
                                            {"timeout", required_argument, NULL, TIMEOUT},
                                            {"values", no_argument, NULL, VALUES},
                                            {"headers", no_argument, NULL, HEADERS},
                                            {"missing-ok", no_argument, NULL, MISSING_OK},
                                            {"uncommitted", no_argument, NULL, UNCOMMITTED},
                                            {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "b:", options, NULL)) != -1) {
        switch (option) {
        case 'b':
            reader->brokers = optarg;
            break;
        case TIMEOUT:
            reader->timeout_s = (int)strtol(optarg, NULL, 10);
            break;
        case VALUES:
            reader->values = true;
            break;
        case HEADERS:
            reader->headers = true;
            break;
        case MISSING_OK:
            reader->missing_ok = true;
            break;
        case UNCOMMITTED:
            reader->uncommitted = true;
            break;
        default:
            usage();
        }
    }
    if (reader->brokers == NULL || reader->timeout_s <= 0 || optind == argc)
        usage();
}

int main(int argc, char **argv)
{
    struct reader reader = {.timeout_s = 60};
    parse(&reader, argc, argv);
    clock_gettime(CLOCK_MONOTONIC, &reader.end);
    reader.end.tv_sec += reader.timeout_s;
    setvbuf(stdout, NULL, _IOFBF, OUTPUT_BUFFER_BYTES);
    bool fine = survey(&reader, argv + optind, argc - optind) && read_all(&reader);
    if (fine)
        printf("\\.\t%" PRIu64 "\n", reader.records);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("topic_read: cannot write the output\n", stderr);
        fine = false;
    }
    free(reader.partitions);
    return fine ? 0 : 1;
}
