// The history: what a load client did and what it was told, for the checker that compares it with the topic afterwards.
//
// JSON lines, UTF-8, no spaces, in the order in which attempts *completed*. Three kinds of line:
//
// 1. The first line describes the run:
//    {"v":1,"run":"9f3a12bc","source_url":"http://127.0.0.1:8080/v1/events/payments","wall_ns":…,"mono_ns":…,
//     "events_per_request":1,"ordered":true,"retry":true}
//    wall_ns and mono_ns are CLOCK_REALTIME and CLOCK_MONOTONIC read together.
//
// 2. One line an event and attempt (a request with 100 events that is sent twice gives 200 lines):
//    {"id":"9f3a12bc-000000000042","k":"acc_00000007","s":6,"c":3808858755,"a":1,"t0":…,"t1":…,"o":"ok","st":200,
//     "i":0,"n":1,"td":…,"cn":3,"cs":1,"sm":"gw-a1.42-7f3a","f":4711,"l":4711,"d":0}
//
//    id  event_id, unique in the run; a retry has the same one (and the same bytes)
//    k   key: the value of account_id, which is the Kafka key
//    s   sequence number of the event within its key, from 1, without gaps; also `seq` in the payload
//    c   CRC32C (base/crc32c.h) of the event's bytes as sent: the JSON object alone, without the comma, bracket or
//        newline around it. Equal to the CRC of the Kafka value where nothing is protected
//    a   attempt, from 1
//    t0  CLOCK_MONOTONIC, ns: the request was handed to the connection. Comparable between processes of one machine
//    t1  the same: the outcome was known
//    o   "ok"       2xx: the event is durable at its ack level
//        "fail"     4xx: the event was refused and nothing of it is stored by this attempt
//        "unknown"  anything else: 5xx (a 503 may still appear later, DESIGN 1.1), no answer in time, a reset stream, a
//                   lost connection, or the end of the run before the answer: the event may or may not appear
//    st  HTTP status, 0 when there was no answer
//    e   only when st is 0: "connect" | "lost" | "reset" | "refused" (REFUSED_STREAM, or above GOAWAY's last stream) |
//        "timeout" | "end"
//    i   index of the event in its request, from 0;  n  events in the request
//    td  CLOCK_MONOTONIC, ns: when the request was due, the same in every attempt; latency counts from here
//    cn  which of the client's connections, from 0;  cs  how often that one had been opened; both of no meaning when e
//    is
//        "connect"
//    x   1: the event had an "ok" before and was sent once more on purpose, as some senders do; else absent. Its copies
//        say nothing about the order of its key
//    sm, f, l, d   only for "ok": stream, first_seq, last_seq, duplicates of the answer, which are about the whole
//        request. With d == 0 the event's own sluice-seq is f + i. f and l are null when all were duplicates; sm is
//        null when the answer names none.
//
// 3. The last line says that the history is whole, and what the checker should have counted:
//    {"end":true,"attempts":…,"ok":…,"fail":…,"unknown":…,"events":…,"acked":…,"refused":…,"open":…,
//     "not_sent":…}
//    attempts = ok + fail + unknown (lines of kind 2); events = distinct ids = acked + refused + open:
//    acked   some attempt was "ok": must be in Kafka exactly once (twice only if an earlier attempt was unknown, and
//    only
//            while dedupe.window is 0)
//    refused every attempt was "fail": must not be in Kafka
//    open    no attempt "ok", some "unknown": may be there or not
//    not_sent: requests that were due and for which there was no room before sending ended; open loop only
//    A history without this line comes from a client that was killed: an event missing in it may still be in Kafka.
//
// With --ordered at most one event of a key is outstanding at any time, so the events of a key were accepted in the
// order of s. An "open" event that was given up may still land behind later ones of its key: leave it out of the check
// of order.
//
// Threads: one; a history belongs to its caller.
#ifndef SLUICE_BENCH_HISTORY_H
#define SLUICE_BENCH_HISTORY_H

#include "base/cursor.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum history_outcome { HISTORY_OK, HISTORY_FAIL, HISTORY_UNKNOWN };

// What the events of one attempt have in common. Nothing is kept after the call.
struct history_attempt {
    uint32_t attempt; // from 1
    int64_t due_ns, invoked_ns, completed_ns;
    uint32_t connection, connection_serial;
    enum history_outcome outcome;
    int status;        // 0: no answer, then `cause` is one of the words above
    const char *cause; // static
    uint32_t event_count;
    struct sl_span stream; // empty: none was named
    bool has_seqs;
    uint64_t first_seq, last_seq, duplicates;
};

struct history_event {
    struct sl_span id, key; // plain ASCII that needs no escape in JSON
    uint64_t seq;
    uint32_t crc32c;
    bool again;
};

struct history_totals {
    uint64_t events, acked, refused, open, not_sent;
};

struct history;

struct history_run {
    const char *run, *url;
    uint32_t events_per_request;
    bool ordered, retry;
};

// Creates or truncates the file and writes the first line.
bool history_open(struct history **out, const char *path, const struct history_run *run,
                  struct sl_error *err) SL_MUST_USE;
// One line an event. A failed write shows in history_close().
void history_write(struct history *history, const struct history_attempt *attempt, const struct history_event *events);
// Hands to the kernel what is buffered; about once a second, so that a reader of a running history lags little.
void history_flush(struct history *history);
// Writes the last line, closes and frees. False when any line was not written. NULL is fine.
bool history_close(struct history *history, const struct history_totals *totals, struct sl_error *err) SL_MUST_USE;

#endif
