// The events of sluice-sender: payments of accounts, as README.md shows one.
//
// An account's events form payments one after the other: AUTH, mostly CAPTURE, seldom REFUND or CHARGEBACK. An account
// has at most one new event outstanding, so that its events are acknowledged in the order of `seq`. What account k's
// event number s says, its times apart, is a function of (seed, k, s) alone; accounts come in a fixed turn, in which
// one that still waits for an answer is passed over.
//
// Memory: 24 bytes an account, 4,096 events to be sent again, and the text that fills events.
#ifndef SLUICE_CHAOS_CLIENT_PAYMENTS_H
#define SLUICE_CHAOS_CLIENT_PAYMENTS_H

#include "bench/load_source.h"

enum { PAYMENTS_EVENT_BYTES_MIN = 640, PAYMENTS_EVENT_BYTES_DEFAULT = 1048 };

struct payments_options {
    const char *run;
    size_t event_bytes; // from PAYMENTS_EVENT_BYTES_MIN to PAYLOAD_BYTES_MAX
    uint32_t accounts;  // from 1 to PAYLOAD_KEYS_MAX
    uint32_t merchants; // from 1
    uint64_t seed;
    // Shares from 0 to 1.
    double duplicates; // of all events: one of the last acknowledged ones again, with its id and its bytes
    double reused;     // of AUTHs: followed by the same business key under a new id
    double late;       // of captured payments: a CHARGEBACK whose event_ts lies 24 hours back
    double drift;      // of events from number drift_from on: with fields that nobody announced
    uint64_t drift_from;
};

// `options` is copied, the text of `run` too. NULL: no memory.
struct load_source *payments_new(const struct payments_options *options);

#endif
