// A segment that version 1 wrote, in the tree: today's program must still write those bytes, and read them.
//
//   spool_golden_test FILE            compares
//   spool_golden_test --write FILE    writes it anew: only for a new version of the format, under a new name
#include "spool/internal.h"
#include "tests/spool/disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEGMENT = 64 << 10 };

static void die(const char *what)
{
    fprintf(stderr, "not ok: %s\n", what);
    exit(1);
}

static void add(struct stream_log *log, uint32_t count, size_t payload_bytes, int64_t wall_ns)
{
    static char payload[8192];
    memset(payload, 'a', sizeof(payload));
    struct record_buffer buffer = {0};
    const struct record_header_field fields[] = {{sl_span_of("content-type"), sl_span_of("application/json")},
                                                 {sl_span_of("traceparent"), sl_span_of("")}};
    for (uint32_t i = 0; i < count; i++) {
        struct record record = {.kind = i % 2 == 0 ? RECORD_EVENT : RECORD_QUARANTINED,
                                .flags = i % 2 == 0 ? RECORD_FLAG_BUSINESS_DUPLICATE : RECORD_FLAG_CONFLICT,
                                .id_hash = {1, 2, 3, 4},
                                .payload_hash = UINT64_C(0x1122334455667788) + i,
                                .has_business_hash = i % 2 == 0,
                                .business_hash = {5, 6, 7, 8},
                                .received_wall_ns = wall_ns,
                                .payload_crc = 0x12345678,
                                .source = sl_span_of("payments"),
                                .lane = sl_span_of("main"),
                                .topic = sl_span_of("payments.events"),
                                .event_id = sl_span_of("0197e1d2-7a3c-7000-8000-000000000001"),
                                .has_key = i % 2 == 0,
                                .key = sl_span_of("acc_42"),
                                .payload = {payload, payload_bytes}};
        if (!record_append(&buffer, &record, fields, i % 3))
            die("record");
    }
    struct iovec parts[3];
    parts[1] = (struct iovec){buffer.bytes, buffer.length};
    struct frame_header frame;
    struct sl_error err;
    if (!stream_log_append(log, parts, 1, count, wall_ns, &frame, &err))
        die(err.text);
    record_buffer_free(&buffer);
}

static size_t build(uint8_t *bytes)
{
    struct disk *disk = disk_new(1 << 20);
    struct storage storage = disk_storage(disk);
    struct preparer preparer;
    struct ready_segment ready;
    struct stream_log log;
    struct segment_uuid uuid;
    struct sl_error err;
    memset(uuid.bytes, 0xab, sizeof(uuid.bytes));
    storage.ops->mkdir(storage.context, "/spool");
    storage.ops->mkdir(storage.context, "/spool/s");
    stream_log_init(&log, &storage, "/spool/s");
    snprintf(log.header.stream, sizeof(log.header.stream), "gw-a1.1-00c0ffee");
    snprintf(log.header.node, sizeof(log.header.node), "gw-a1");
    snprintf(log.header.predecessor, sizeof(log.header.predecessor), "gw-a1.0-0badcafe");
    snprintf(log.header.lanes[0], sizeof(log.header.lanes[0]), "main");
    snprintf(log.header.lanes[1], sizeof(log.header.lanes[1]), "bulk");
    log.header.lane_count = 2;
    memcpy(log.header.ids_key_id, "key-id-8", sizeof(log.header.ids_key_id));
    log.header.counter = 1;
    log.header.predecessor_seq = 4711;
    if (!preparer_init(&preparer, &storage, "/spool", &err) || !preparer_begin(&preparer, SEGMENT, &err) ||
        !preparer_finish(&preparer, &ready, &err) || !stream_log_activate(&log, &ready, &uuid, 1700000000, &err))
        die(err.text);
    add(&log, 3, 100, 1700000001);
    add(&log, 1, 5000, 1700000002);
    add(&log, 2, 20, 1700000003);
    uint64_t size;
    if (!stream_log_seal(&log, true, 1700000004, &size, &err))
        die(err.text);
    ssize_t got = storage.ops->pread(storage.context, log.handle, bytes, SEGMENT, 0);
    stream_log_release(&log);
    disk_free(disk);
    return (size_t)got;
}

int main(int argc, char **argv)
{
    static uint8_t bytes[SEGMENT], golden[SEGMENT];
    size_t length = build(bytes);
    bool write = argc == 3 && strcmp(argv[1], "--write") == 0;
    if (argc < 2)
        die("usage: spool_golden_test [--write] FILE");
    FILE *file = fopen(argv[argc - 1], write ? "wb" : "rb");
    if (file == NULL)
        die("open");
    if (write) {
        if (fwrite(bytes, 1, length, file) != length)
            die("write");
    } else if (fread(golden, 1, sizeof(golden), file) != length || memcmp(bytes, golden, length) != 0) {
        die("today's program writes other bytes than version 1 did");
    }
    fclose(file);
    printf("ok: %zu bytes\n", length);
    return 0;
}
