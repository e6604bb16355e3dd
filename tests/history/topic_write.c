// A transactional producer that is driven line by line, to make the topics that the reader's and the checker's own
// tests need: open, aborted and interleaved transactions.
//
//     topic_write -b BROKERS -t TRANSACTIONAL_ID
//
// Commands on stdin, columns separated by tabs; each is answered by "ok" or "error TEXT" on stdout when it is done:
//     begin | flush | commit | abort
//     put  TOPIC  PARTITION  KEY  EVENT_ID  STREAM  SEQ  VALUE      an empty KEY is null
// `put` only queues; `flush` returns when the brokers have everything, the transaction still being open. End of input
// ends the process at once: what is open stays open until the coordinator times it out, as after kill -9.
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CALL_MS = 30000, COLUMNS = 8 };

static unsigned long failed_deliveries;

static void on_delivery(rd_kafka_t *handle, const rd_kafka_message_t *message, void *user)
{
    (void)handle;
    (void)user;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        failed_deliveries++;
}

static void answer_text(const char *error)
{
    if (error == NULL)
        puts("ok");
    else
        printf("error %s\n", error);
    fflush(stdout);
}

static void answer(rd_kafka_error_t *error)
{
    answer_text(error == NULL ? NULL : rd_kafka_error_string(error));
    if (error != NULL)
        rd_kafka_error_destroy(error);
}

static rd_kafka_t *producer_new(const char *brokers, const char *transactional_id)
{
    const char *const settings[][2] = {{"bootstrap.servers", brokers},
                                       {"transactional.id", transactional_id},
                                       {"transaction.timeout.ms", "60000"},
                                       {"linger.ms", "5"}};
    char text[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        if (rd_kafka_conf_set(conf, settings[i][0], settings[i][1], text, sizeof(text)) != RD_KAFKA_CONF_OK) {
            fprintf(stderr, "topic_write: %s\n", text);
            exit(2);
        }
    }
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_t *handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
    if (handle == NULL) {
        fprintf(stderr, "topic_write: %s\n", text);
        exit(1);
    }
    return handle;
}

static void put(rd_kafka_t *handle, char **column)
{
    size_t key_length = strlen(column[3]);
    rd_kafka_resp_err_t error = rd_kafka_producev(
        handle, RD_KAFKA_V_TOPIC(column[1]), RD_KAFKA_V_PARTITION((int32_t)strtol(column[2], NULL, 10)),
        RD_KAFKA_V_KEY(key_length == 0 ? NULL : column[3], key_length), RD_KAFKA_V_VALUE(column[7], strlen(column[7])),
        RD_KAFKA_V_HEADER("event_id", column[4], -1), RD_KAFKA_V_HEADER("sluice-stream", column[5], -1),
        RD_KAFKA_V_HEADER("sluice-seq", column[6], -1), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    rd_kafka_poll(handle, 0);
    answer_text(error == RD_KAFKA_RESP_ERR_NO_ERROR ? NULL : rd_kafka_err2str(error));
}

static void run(rd_kafka_t *handle, char *line)
{
    char *column[COLUMNS] = {NULL};
    size_t count = 0;
    line[strcspn(line, "\n")] = '\0';
    for (char *rest = line; count < COLUMNS && rest != NULL;)
        column[count++] = strsep(&rest, "\t");
    if (strcmp(line, "begin") == 0) {
        answer(rd_kafka_begin_transaction(handle));
    } else if (strcmp(line, "commit") == 0) {
        answer(rd_kafka_commit_transaction(handle, CALL_MS));
    } else if (strcmp(line, "abort") == 0) {
        answer(rd_kafka_abort_transaction(handle, CALL_MS));
    } else if (strcmp(line, "flush") == 0) {
        rd_kafka_resp_err_t error = rd_kafka_flush(handle, CALL_MS);
        answer_text(error != RD_KAFKA_RESP_ERR_NO_ERROR ? rd_kafka_err2str(error)
                    : failed_deliveries > 0             ? "a delivery failed"
                                                        : NULL);
    } else if (strcmp(line, "put") == 0 && count == COLUMNS) {
        put(handle, column);
    } else {
        answer_text("no such command");
    }
}

int main(int argc, char **argv)
{
    const char *brokers = NULL, *transactional_id = NULL;
    int option;
    while ((option = getopt(argc, argv, "b:t:")) != -1) {
        if (option == 'b')
            brokers = optarg;
        else if (option == 't')
            transactional_id = optarg;
    }
    if (brokers == NULL || transactional_id == NULL) {
        fputs("usage: topic_write -b BROKERS -t TRANSACTIONAL_ID\n", stderr);
        return 2;
    }
    rd_kafka_t *handle = producer_new(brokers, transactional_id);
    answer(rd_kafka_init_transactions(handle, CALL_MS));
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, stdin) > 0)
        run(handle, line);
    _exit(0); // an orderly end would wait for the open transaction
}
