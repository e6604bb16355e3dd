#include "chaos/client/payments.h"

#include "base/clock.h"
#include "base/error.h"

#include <inttypes.h>
#include <isa-l/crc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    RECENT_COUNT = 4096,
    FILLER_BYTES = 256 << 10,
    REFUNDED_PERCENT = 4,
    CAPTURED_PERCENT = 92,
    DAY_S = 86400,
};

enum type { AUTH, CAPTURE, REFUND, CHARGEBACK, TYPE_COUNT };
static const char *const type_words[] = {"AUTH", "CAPTURE", "REFUND", "CHARGEBACK"};

struct account {
    uint32_t seq;
    uint32_t payment; // of the last event
    int64_t auth_ns;  // event_ts of the last AUTH
    uint8_t last;     // enum type; TYPE_COUNT: none yet
    bool reused;      // the last AUTH is itself one that reused a key
    bool busy;
};

// struct load_event's detail: payment | type << 32 | drift << 40.
static uint32_t payment_of(const struct load_event *event)
{
    return (uint32_t)event->detail;
}

static enum type type_of(const struct load_event *event)
{
    return (enum type)(event->detail >> 32 & 0xff);
}

static bool has_drift(const struct load_event *event)
{
    return (event->detail >> 40 & 1) != 0;
}

struct payments {
    struct load_source source; // the first member: the two are converted into each other
    struct payments_options options;
    char run[PAYLOAD_RUN_MAX + 1];
    struct account *accounts;
    uint64_t turn, stride; // the next account is turn * stride modulo their number
    uint32_t idle;
    uint64_t counter; // new events
    uint64_t calls;   // of next()
    uint64_t types[TYPE_COUNT], reused, drifted;
    uint64_t recent_count; // ever
    struct load_event recent[RECENT_COUNT];
    char *filler;
};

// ---- chance: everything is decided by a hash of what it is decided for

static uint64_t mix(uint64_t seed, uint64_t a, uint64_t b)
{
    uint64_t state = seed ^ a * UINT64_C(0xd6e8feb86659fd93);
    state = payload_random(&state) ^ b * UINT64_C(0xa0761d6478bd642f);
    return payload_random(&state);
}

static bool chance(double share, uint64_t hash)
{
    return (double)(hash >> 11) * 0x1p-53 < share;
}

// ---- which event

static bool ready(const struct load_source *source, uint32_t count)
{
    return ((const struct payments *)source)->idle >= count;
}

static uint32_t take_account(struct payments *payments)
{
    uint32_t key;
    do {
        key = (uint32_t)(payments->turn++ * payments->stride % payments->options.accounts);
    } while (payments->accounts[key].busy);
    payments->accounts[key].busy = true;
    payments->idle--;
    return key;
}

// What follows the account's last event.
static enum type next_type(const struct payments *payments, uint32_t key, const struct account *account)
{
    uint64_t hash = mix(payments->options.seed, key, account->payment);
    if (account->last == AUTH && hash % 100 < CAPTURED_PERCENT)
        return CAPTURE;
    if (account->last != CAPTURE)
        return AUTH;
    if (chance(payments->options.late, mix(hash, 1, 0)))
        return CHARGEBACK;
    return mix(hash, 2, 0) % 100 < REFUNDED_PERCENT ? REFUND : AUTH;
}

static bool take_again(struct payments *payments, struct load_event *event)
{
    uint64_t hash = mix(payments->options.seed, payments->calls++, 3), count = payments->recent_count;
    if (count == 0 || !chance(payments->options.duplicates, hash))
        return false;
    *event = payments->recent[mix(hash, 4, 0) % (count < RECENT_COUNT ? count : RECENT_COUNT)];
    event->again = true;
    return true;
}

static void next(struct load_source *source, int64_t wall_ns, struct load_event *event)
{
    struct payments *payments = (struct payments *)source;
    const struct payments_options *options = &payments->options;
    if (take_again(payments, event))
        return;
    uint32_t key = take_account(payments);
    struct account *account = &payments->accounts[key];
    *event = (struct load_event){.counter = payments->counter++, .seq = ++account->seq, .wall_ns = wall_ns, .key = key};
    enum type type = AUTH;
    uint64_t hash = mix(options->seed, key, event->seq);
    if (account->last == AUTH && !account->reused && chance(options->reused, hash)) {
        event->wall_ns = account->auth_ns;
        account->reused = true;
        payments->reused++;
    } else {
        type = next_type(payments, key, account);
        account->payment += type == AUTH;
        account->reused = false;
    }
    if (type == AUTH)
        account->auth_ns = event->wall_ns;
    if (type == CHARGEBACK)
        event->wall_ns -= DAY_S * SL_NS_PER_S;
    account->last = (uint8_t)type;
    bool drift = event->counter >= options->drift_from && chance(options->drift, mix(hash, 5, 0));
    event->detail = account->payment | (uint64_t)type << 32 | (uint64_t)drift << 40;
    payments->types[type]++;
    payments->drifted += drift;
}

static void settled(struct load_source *source, const struct load_event *event, bool acked)
{
    struct payments *payments = (struct payments *)source;
    if (event->again)
        return;
    payments->accounts[event->key].busy = false;
    payments->idle++;
    if (acked)
        payments->recent[payments->recent_count++ % RECENT_COUNT] = *event;
}

// ---- its bytes

static uint8_t *put(uint8_t *at, const char *text)
{
    size_t length = strlen(text);
    memcpy(at, text, length);
    return at + length;
}

static uint8_t *put_digits(uint8_t *at, size_t width, uint64_t value)
{
    for (size_t i = width; i > 0; i--, value /= 10)
        at[i - 1] = (uint8_t)('0' + value % 10);
    return at + width;
}

static uint8_t *put_number(uint8_t *at, uint64_t value)
{
    size_t width = 1;
    for (uint64_t rest = value / 10; rest > 0; rest /= 10)
        width++;
    return put_digits(at, width, value);
}

static uint8_t *put_hex(uint8_t *at, size_t width, uint64_t value)
{
    for (size_t i = width; i > 0; i--, value >>= 4)
        at[i - 1] = (uint8_t) "0123456789abcdef"[value & 15];
    return at + width;
}

static uint8_t *put_time(uint8_t *at, int64_t wall_ns)
{
    time_t second = (time_t)(wall_ns / SL_NS_PER_S);
    struct tm utc;
    gmtime_r(&second, &utc);
    at = put(put_digits(at, 4, (uint64_t)(utc.tm_year + 1900)), "-");
    at = put(put_digits(at, 2, (uint64_t)(utc.tm_mon + 1)), "-");
    at = put(put_digits(at, 2, (uint64_t)utc.tm_mday), "T");
    at = put(put_digits(at, 2, (uint64_t)utc.tm_hour), ":");
    at = put(put_digits(at, 2, (uint64_t)utc.tm_min), ":");
    at = put(put_digits(at, 2, (uint64_t)utc.tm_sec), ".");
    return put(put_digits(at, 6, (uint64_t)(wall_ns % SL_NS_PER_S) / 1000), "Z");
}

static size_t id(const struct load_source *source, const struct load_event *event, char *out)
{
    const struct payments *payments = (const struct payments *)source;
    uint8_t *at = put((uint8_t *)out, payments->run);
    at = put_digits(put(at, "-"), 12, event->counter);
    return (size_t)(at - (uint8_t *)out);
}

static size_t key(const struct load_source *source, const struct load_event *event, char *out)
{
    (void)source;
    payload_key(event->key, out);
    return PAYLOAD_KEY_BYTES;
}

// Events of one payment have the same card, merchant, amount and currency.
static uint8_t *put_payment(const struct payments *payments, const struct load_event *event, uint8_t *at)
{
    static const char *const currencies[] = {"EUR", "EUR", "EUR", "GBP", "USD", "CHF", "SEK", "PLN"};
    uint64_t seed = payments->options.seed, hash = mix(seed, event->key, payment_of(event));
    at = put_digits(put(at, ",\"payment_id\":\"pay_"), 8, event->key);
    at = put_digits(put(at, "_"), 8, payment_of(event));
    at = put_hex(put(at, "\",\"card_id\":\"tok_"), 16, mix(seed ^ 6, event->key, hash % 3));
    at = put_digits(put(at, "\",\"merchant_id\":\"mrc_"), 8, (hash >> 8) % payments->options.merchants);
    at = put_digits(put(at, "\",\"amount\":"), 6, 100000 + (hash >> 40) % 900000);
    at = put(put(at, ",\"currency\":\""), currencies[hash >> 61]);
    return at;
}

static void write_event(struct load_source *source, const struct load_event *event, uint8_t *out)
{
    struct payments *payments = (struct payments *)source;
    uint8_t *at = put(out, "{\"event_id\":\"");
    at += id(source, event, (char *)at);
    at = put(at, "\",\"account_id\":\"");
    at += key(source, event, (char *)at);
    at = put_number(put(at, "\",\"seq\":"), event->seq);
    at = put(put(at, ",\"type\":\""), type_words[type_of(event)]);
    at = put(at, "\"");
    at = put_payment(payments, event, at);
    at = put_time(put(at, "\",\"event_ts\":\""), event->wall_ns);
    at = put(at, "\",\"checksum\":\"");
    uint8_t *checksum = at;
    at = put(at, "00000000\"");
    uint64_t hash = mix(payments->options.seed ^ 7, event->key, event->seq);
    if (has_drift(event)) {
        at = put(put(at, ",\"loyalty\":{\"tier\":\""), hash & 1 ? "gold" : "silver");
        at = put_digits(put(at, "\",\"points\":1"), 4, hash >> 8);
        at = put(at, "},\"sca_exemption\":\"low_value\"");
    }
    at = put(at, ",\"memo\":\"");
    sl_assert((size_t)(at - out) + 2 <= payments->source.event_bytes);
    size_t rest = payments->source.event_bytes - (size_t)(at - out) - 2;
    memcpy(at, payments->filler + (hash >> 16) % FILLER_BYTES, rest);
    put(at + rest, "\"}");
    put_hex(checksum, 8, crc32_gzip_refl(0, out, payments->source.event_bytes));
}

// ---- life

static void report(const struct load_source *source, FILE *out)
{
    const struct payments *payments = (const struct payments *)source;
    for (size_t type = 0; type < TYPE_COUNT; type++)
        fprintf(out, "%s\"%s\":%" PRIu64, type == 0 ? ",\"types\":{" : ",", type_words[type], payments->types[type]);
    fprintf(out, "},\"reused\":%" PRIu64 ",\"drifted\":%" PRIu64, payments->reused, payments->drifted);
}

static void free_payments(struct load_source *source)
{
    struct payments *payments = (struct payments *)source;
    free(payments->accounts);
    free(payments->filler);
    free(payments);
}

// Half of it words, half hexadecimal digits: it compresses about as payments do.
static void fill(char *filler, size_t length, uint64_t seed)
{
    static const char *const words[] = {"coffee ", "market ", "books ",  "garden ", "bakery ",  "hotel ",
                                        "rail ",   "fuel ",   "music ",  "travel ", "grocery ", "cinema ",
                                        "tools ",  "sports ", "office ", "city "};
    for (size_t at = 0; at < length;) {
        uint64_t random = payload_random(&seed);
        char part[24];
        uint8_t *end = put_hex(put((uint8_t *)part, words[random & 15]), 6, random >> 8);
        end = put(end, " ");
        size_t take = (size_t)(end - (uint8_t *)part);
        take = take < length - at ? take : length - at;
        memcpy(filler + at, part, take);
        at += take;
    }
}

// About the golden section of the number, with no divisor in common.
static uint64_t stride_of(uint32_t accounts)
{
    for (uint64_t stride = (uint64_t)(accounts * 0.618) + 1;; stride++) {
        uint64_t a = stride, b = accounts;
        while (b != 0) {
            uint64_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            return stride;
    }
}

struct load_source *payments_new(const struct payments_options *options)
{
    sl_assert(options->event_bytes >= PAYMENTS_EVENT_BYTES_MIN && options->accounts > 0 && options->merchants > 0);
    struct payments *payments = (struct payments *)calloc(1, sizeof(*payments));
    if (payments == NULL)
        return NULL;
    payments->source = (struct load_source){.event_bytes = options->event_bytes,
                                            .ready = ready,
                                            .next = next,
                                            .settled = settled,
                                            .write = write_event,
                                            .id = id,
                                            .key = key,
                                            .report = report,
                                            .free = free_payments};
    payments->options = *options;
    size_t run_length = strlen(options->run);
    sl_assert(run_length <= PAYLOAD_RUN_MAX);
    memcpy(payments->run, options->run, run_length);
    payments->options.run = payments->run;
    payments->idle = options->accounts;
    payments->stride = stride_of(options->accounts);
    payments->accounts = (struct account *)calloc(options->accounts, sizeof(*payments->accounts));
    payments->filler = (char *)malloc(FILLER_BYTES + options->event_bytes);
    if (payments->accounts == NULL || payments->filler == NULL) {
        free_payments(&payments->source);
        return NULL;
    }
    for (uint32_t i = 0; i < options->accounts; i++)
        payments->accounts[i].last = TYPE_COUNT;
    fill(payments->filler, FILLER_BYTES + options->event_bytes, options->seed);
    return &payments->source;
}
