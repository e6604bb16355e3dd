// The window of event ids: what was seen is dropped, what was not is never dropped.
//
// What a user may rely on:
//   - A verdict other than DEDUPE_NEW is given only for an id that is in the window: all 128 bits of it were compared.
//   - Of any number of threads that claim one id at once, one alone is told DEDUPE_NEW.
//   - An id that was claimed and not forgotten is found again for as long as dedupe_figures says that the window
//   covers.
//   - No thread ever waits for another. Memory is taken once, in dedupe_new.
//
// Threads: any, unless a function says otherwise.
#ifndef SLUICE_DEDUPE_DEDUPE_H
#define SLUICE_DEDUPE_DEDUPE_H

#include "base/cursor.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- identity

enum { DEDUPE_KEY_BYTES = 16, DEDUPE_KEY_ID_BYTES = 8 };
struct dedupe_key {
    uint8_t bytes[DEDUPE_KEY_BYTES];
    uint8_t id[DEDUPE_KEY_ID_BYTES]; // names the key without giving it away; 8 zero bytes: no key
    uint64_t payload_seed;           // private: of dedupe_payload_hash
};
void dedupe_key_derive(struct dedupe_key *key); // fills the rest from bytes
// Reads the key file (32 hex digits, a newline; mode 0600 or 0400). With `create`, makes it when there is none, and of
// several processes that do so at once all get the same. SL_E_INVALID (its mode, its content), SL_E_IO. The text names
// the file and never the key.
bool dedupe_key_load(struct dedupe_key *key, const char *path, bool create, struct sl_error *err) SL_MUST_USE;

struct dedupe_id {
    uint64_t words[2]; // uniformly spread for whoever does not hold the key
};
enum dedupe_domain {
    DEDUPE_EVENT = 'e',      // (source, event id)
    DEDUPE_BUSINESS = 'b',   // (source, business fields)
    DEDUPE_QUARANTINE = 'q', // a conflict that was quarantined: (source, event id) and its payload
};
// SipHash-2-4-128 (libsodium) over domain, source, NUL, id. A canonical UUID (RFC 9562: 8-4-4-4-12) is lowercased
// first. Any length; the source is at most 255 bytes and holds no NUL.
struct dedupe_id dedupe_id_of(const struct dedupe_key *key, enum dedupe_domain domain, struct sl_span source,
                              struct sl_span id);
// 64-bit keyed hash of a payload (XXH3). The caller takes out whitespace that does not count.
uint64_t dedupe_payload_hash(const struct dedupe_key *key, struct sl_span payload);
void dedupe_id_store(const struct dedupe_id *id, uint8_t bytes[16]); // little-endian, as in a record
struct dedupe_id dedupe_id_load(const uint8_t bytes[16]);

// ---- the window

struct dedupe;

struct dedupe_options {
    uint64_t memory_bytes; // everything, filter included; at least dedupe_memory_min()
    int64_t window_ns;     // > 0
    int64_t now_wall_ns;
};
uint64_t dedupe_memory_min(void);
bool dedupe_new(struct dedupe **out, const struct dedupe_options *options, struct sl_error *err) SL_MUST_USE;
void dedupe_free(struct dedupe *dedupe);

// Where an event was stored first: a stream. Index 0 is the stream that this process writes; others are given out here
// and live as long as the window remembers something of them. UINT32_MAX: too many at once.
enum { DEDUPE_ORIGIN_OWN = 0 };
uint32_t dedupe_origin(struct dedupe *dedupe, const char *stream);
// Names DEDUPE_ORIGIN_OWN. Once, when the stream is known; until then its name is not.
void dedupe_own_stream(struct dedupe *dedupe, const char *stream);
// The stream's name of an origin. False when it is no longer known.
bool dedupe_origin_name(const struct dedupe *dedupe, uint32_t origin, char *out, size_t capacity);

enum dedupe_verdict {
    DEDUPE_NEW,       // claimed by this call: *claim must be settled or forgotten
    DEDUPE_DUPLICATE, // same id, same payload hash
    DEDUPE_CONFLICT,  // same id, another payload hash
    DEDUPE_UNSURE,    // somebody is claiming it this instant: ask again (with dedupe_look) when time has passed
};
enum dedupe_state {
    DEDUPE_PENDING, // its first event's outcome is open
    DEDUPE_DURABLE, // stored: origin and seq are known
    DEDUPE_GONE,    // not in the window (dedupe_look alone says so)
};
struct dedupe_claim {
    uint64_t slot,
        word; // private; word 0: nothing is held (the window had no room for it), both calls below do nothing
};
struct dedupe_found {
    enum dedupe_state state;
    uint32_t origin; // when durable
    uint64_t seq;
};

// Optional: brings the cache lines of a claim that will follow soon.
void dedupe_prefetch(const struct dedupe *dedupe, const struct dedupe_id *id);
// Optional, some events after it and some before the claim: brings the last line, which only the others tell.
void dedupe_prefetch_slot(const struct dedupe *dedupe, const struct dedupe_id *id);
// Optional: the same for a claim that will be settled or forgotten soon.
void dedupe_prefetch_claim(const struct dedupe *dedupe, const struct dedupe_claim *claim);
// *claim is filled for DEDUPE_NEW, *found for DUPLICATE and CONFLICT.
enum dedupe_verdict dedupe_claim(struct dedupe *dedupe, const struct dedupe_id *id, uint64_t payload_hash,
                                 int64_t now_wall_ns, struct dedupe_claim *claim, struct dedupe_found *found);
// The event is durable as `seq` of DEDUPE_ORIGIN_OWN. Any thread, once for each claim; or:
void dedupe_settle(struct dedupe *dedupe, const struct dedupe_claim *claim, uint64_t seq);
// The same as `seq` of another stream that this process wrote: of dedupe_origin().
void dedupe_settle_in(struct dedupe *dedupe, const struct dedupe_claim *claim, uint32_t origin, uint64_t seq);
// It was not stored, and never will be: the next one with this id is new.
void dedupe_forget(struct dedupe *dedupe, const struct dedupe_claim *claim);
// Without claiming. NEW: not in the window (found->state GONE).
enum dedupe_verdict dedupe_look(struct dedupe *dedupe, const struct dedupe_id *id, uint64_t payload_hash,
                                struct dedupe_found *found);
// An id that is durable elsewhere: from the spool or a snapshot at start, or accepted at a peer. Already there: nothing
// changes. `seen_wall_ns` says when it leaves the window; what is older than the window is not taken.
void dedupe_insert(struct dedupe *dedupe, const struct dedupe_id *id, uint64_t payload_hash, int64_t seen_wall_ns,
                   uint32_t origin, uint64_t seq);

// Rotates generations, clears what has expired. One thread at a time, about once a second.
void dedupe_tick(struct dedupe *dedupe, int64_t now_wall_ns);
// Nothing received before this time is claimed to be remembered: told once, when the rebuild at start has ended, with
// the time from which on the ids are complete.
void dedupe_covered_since(struct dedupe *dedupe, int64_t wall_ns);

// ---- filling: at a start, before the first claim
//
// Some times as fast as dedupe_insert, because ids are entered in the order of memory. Any number of threads, each with
// a filler of its own; what was added is in the window when the filler has ended, and is then what dedupe_insert would
// have made of it. dedupe_insert and dedupe_look may go on meanwhile, claims and ticks may not. An id that two threads
// bring at one instant may be there twice: that changes no verdict.

struct dedupe_filling; // what the threads share
struct dedupe_filler;  // one thread's, from its begin to its end
// About so many ids will come, in about the order of their times. The time of a window that has not been used begins
// anew at `oldest_wall_ns`, and passes with the ids, so that they get the generations which they would have had then;
// of one that was loaded from a snapshot it goes on from there. Takes up to 64 MiB for each filler until its end.
struct dedupe_filling *dedupe_filling_new(struct dedupe *dedupe, uint64_t ids, int64_t oldest_wall_ns);
struct dedupe_filler *dedupe_filler_new(struct dedupe_filling *filling);
// Like dedupe_insert. No time later than now.
void dedupe_filler_add(struct dedupe_filler *filler, const struct dedupe_id *id, uint64_t payload_hash,
                       int64_t seen_wall_ns, uint32_t origin, uint64_t seq);
void dedupe_filler_end(struct dedupe_filler *filler);
// When all fillers have ended.
void dedupe_filling_end(struct dedupe_filling *filling, int64_t now_wall_ns);

// Takes the window's memory from the system now, piece by piece: ids lie all over it, so the first seconds of traffic
// would take it all, with a pause of the event loop for each page. Claims go on meanwhile. `go_on` is asked between
// pieces.
void dedupe_populate(struct dedupe *dedupe, bool (*go_on)(void *user), void *user);

struct dedupe_figures {
    uint64_t memory_bytes, entries, capacity; // capacity: slots
    uint64_t generations;
    int64_t window_ns;  // as configured
    int64_t covered_ns; // really: nothing younger than this was let go; ≤ window_ns
    uint64_t evicted;   // let go before their time, since start
    uint64_t unremembered;
    // What a candidate of the filter turned out to be.
    uint64_t confirmed_duplicate, confirmed_conflict, confirmed_new;
    double claims_per_second;     // new ids, over the last minute
    uint64_t memory_needed_bytes; // for window_ns at that rate
    int64_t window_affordable_ns; // with memory_bytes at that rate; INT64_MAX when nothing comes in
    double bytes_per_entry;       // of memory, at the occupancy where eviction starts
};
void dedupe_figures(const struct dedupe *dedupe, int64_t now_wall_ns, struct dedupe_figures *out);

// ---- snapshot

struct storage;
struct dedupe_snapshot_writing {
    // Through which seq of a stream everything that the window knows is in this snapshot; asked before the table is
    // walked. 0: nothing is.
    uint64_t (*through)(void *user, const char *stream);
    // Called after each block: waits so many ns (0: not at all) for the rate, on a condition that the end of the
    // process signals too. False: give up. NULL is allowed where there is no rate.
    bool (*pause)(void *user, int64_t ns);
    void *user;
    uint64_t bytes_per_second; // 0: as fast as it goes
    uint32_t block_bytes;      // a power of two from 4 KiB to 1 MiB; 0: 256 KiB
};
// Writes <dir>/snapshot anew (atomic replace; the directory must be there). Any one thread; claims go on meanwhile:
// what is settled before the call is in it. On false the earlier snapshot is as it was; SL_E_REFUSED: pause gave up.
bool dedupe_snapshot_write(struct dedupe *dedupe, const struct dedupe_key *key, const struct storage *storage,
                           const char *dir, const struct dedupe_snapshot_writing *how, int64_t now_wall_ns,
                           struct sl_error *err) SL_MUST_USE;
struct dedupe_snapshot_info {
    int64_t written_wall_ns;
    int64_t covered_since_wall_ns;
    double claims_per_second;
    uint64_t entries;
};
// Loads it into the window with `threads` threads; nobody else uses the window meanwhile. Into one that has not been
// used since dedupe_new it goes faster, and what is let go first is the oldest again. Tells for each stream through
// which seq it covers. False and SL_E_NOT_FOUND when there is none; SL_E_CORRUPT, SL_E_INVALID (another key): nothing
// or a part of it was taken, and the caller relies on nothing in it.
bool dedupe_snapshot_load(struct dedupe *dedupe, const struct dedupe_key *key, const struct storage *storage,
                          const char *dir, unsigned threads,
                          void (*covers)(void *user, const char *stream, uint64_t through), void *user,
                          int64_t now_wall_ns, struct dedupe_snapshot_info *info, struct sl_error *err) SL_MUST_USE;

#endif
