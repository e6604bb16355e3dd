// Every event of a set has the same layout: a head whose fields are patched at fixed places, then a tail that only the
// template decides. Numbers keep their width by leading spaces, which JSON allows before a value.
#include "bench/payload.h"

#include "base/clock.h"
#include "base/error.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEMPLATE_BYTES_ALL = 4 << 20, TAIL_MAX = 2048 };

// Offsets of the patched fields from the start of an event.
struct layout {
    size_t id_counter, key, seq, second, micros, amount, code, trace, tail;
};

struct payload_set {
    size_t event_bytes;
    size_t template_count;
    struct layout layout;
    size_t run_length;
    char run[PAYLOAD_RUN_MAX + 1];
    int64_t second; // whose text is in second_text
    char second_text[20];
    uint8_t *templates;
};

static void put_digits(uint8_t *out, size_t width, uint64_t value)
{
    size_t at = width;
    do {
        out[--at] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value != 0 && at > 0);
    memset(out, '0', at);
}

static void put_hex(uint8_t *out, uint64_t value)
{
    for (size_t i = 0; i < 16; i++, value >>= 4)
        out[i] = (uint8_t) "0123456789abcdef"[value & 15];
}

// ---- templates

struct text {
    char *bytes;
    size_t length, capacity;
    uint64_t random;
};

static void add(struct text *text, const char *part)
{
    size_t length = strlen(part);
    sl_assert(text->length + length <= text->capacity);
    memcpy(text->bytes + text->length, part, length);
    text->length += length;
}

static uint64_t below(struct text *text, uint64_t limit)
{
    return payload_random(&text->random) % limit;
}

static void add_from(struct text *text, const char *alphabet, size_t count)
{
    size_t size = strlen(alphabet);
    char part[2] = {0};
    for (size_t i = 0; i < count; i++) {
        part[0] = alphabet[below(text, size)];
        add(text, part);
    }
}

#define PICK(text, list) add((text), (list)[below((text), sizeof(list) / sizeof((list)[0]))])
static const char digits[] = "0123456789";
static const char hexes[] = "0123456789abcdef";
static const char capitals[] = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char *const types[] = {"payment.authorized", "payment.captured", "payment.refunded", "payment.declined",
                                    "payment.settled"};
static const char *const currencies[] = {"EUR", "GBP", "USD", "CHF", "SEK", "PLN", "DKK", "NOK"};
static const char *const countries[] = {"DE", "GB", "FR", "NL", "ES", "IT", "PL", "SE", "DK", "AT", "BE", "CH"};
static const char *const brands[] = {"visa", "mastercard", "amex", "maestro", "jcb"};
static const char *const cities[] = {"Berlin",   "London", "Lyon",   "Rotterdam", "Sevilla",   "Torino",
                                     "Warszawa", "Malmo",  "Aarhus", "Graz",      "Antwerpen", "Basel",
                                     "Leeds",    "Kassel", "Nantes", "Bilbao"};
static const char *const names[] = {"Novak",   "Murphy", "Silva",  "Jansen",   "Rossi", "Garcia",
                                    "Weber",   "Dubois", "Larsen", "Kowalska", "Brown", "Moreau",
                                    "Fischer", "Ahmed",  "Peters", "Lindqvist"};
static const char *const words[] = {"coffee", "market",   "books",    "garden",  "bakery",  "hotel",   "rail",
                                    "fuel",   "music",    "pharmacy", "travel",  "grocery", "cinema",  "fashion",
                                    "tools",  "flowers",  "optics",   "sports",  "toys",    "wine",    "paper",
                                    "office", "electric", "kitchen",  "station", "north",   "central", "royal",
                                    "green",  "harbour",  "corner",   "city"};
static const char *const agents[] = {
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X)", "Mozilla/5.0 (Linux; Android 14; Pixel 8)",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64)", "PayKit-iOS/8.12.0", "PayKit-Android/8.11.3"};

static void add_card_and_merchant(struct text *text)
{
    add(text, "\"event_type\":\"");
    PICK(text, types);
    add(text, "\",\"currency\":\"");
    PICK(text, currencies);
    add(text, "\",\"card_id\":\"tok_");
    add_from(text, base64, 24);
    add(text, "\",\"card\":{\"brand\":\"");
    PICK(text, brands);
    add(text, "\",\"bin\":\"4");
    add_from(text, digits, 5);
    add(text, "\",\"last4\":\"");
    add_from(text, digits, 4);
    add(text, "\",\"expiry\":\"2029-0");
    add_from(text, "123456789", 1);
    add(text, "\"},\"merchant\":{\"id\":\"mrc_");
    add_from(text, capitals, 12);
    add(text, "\",\"name\":\"");
    PICK(text, names);
    add(text, " ");
    PICK(text, words);
    add(text, "\",\"mcc\":\"5");
    add_from(text, digits, 3);
    add(text, "\",\"city\":\"");
    PICK(text, cities);
    add(text, "\",\"country\":\"");
    PICK(text, countries);
    add(text, "\",\"terminal\":\"");
    add_from(text, digits, 8);
    add(text, "\"}");
}

static void add_references_and_device(struct text *text)
{
    add(text, ",\"acquirer\":{\"arn\":\"7");
    add_from(text, digits, 22);
    add(text, "\",\"rrn\":\"");
    add_from(text, digits, 12);
    add(text, "\"},\"three_ds\":{\"version\":\"2.2.0\",\"eci\":\"05\",\"cavv\":\"");
    add_from(text, base64, 27);
    add(text, "=\",\"ds_transaction\":\"");
    add_from(text, hexes, 32);
    add(text, "\"},\"device\":{\"ip\":\"10.");
    add_from(text, "123456789", 2);
    add(text, ".");
    add_from(text, "123456789", 2);
    add(text, ".7\",\"fingerprint\":\"");
    add_from(text, hexes, 40);
    add(text, "\",\"user_agent\":\"");
    PICK(text, agents);
    add(text, "\"},\"risk\":{\"score\":0.");
    add_from(text, digits, 4);
    add(text, ",\"model\":\"gbm-2026-10\",\"velocity_1h\":");
    add_from(text, "123456789", 1);
    add(text, "},\"customer\":{\"id\":\"cus_");
    add_from(text, capitals, 14);
    add(text, "\",\"email_hash\":\"");
    add_from(text, hexes, 32);
    add(text, "\",\"name\":\"");
    PICK(text, names);
    add(text, "\"}");
}

// Exactly `tail_bytes`, the closing brace included. Small events lose the optional parts; the memo fills the rest.
static void build_tail(struct text *text, size_t tail_bytes)
{
    char scratch[TAIL_MAX];
    struct text parts = {.bytes = scratch, .capacity = sizeof(scratch), .random = text->random};
    add_card_and_merchant(&parts);
    size_t first = parts.length;
    add_references_and_device(&parts);
    static const char memo[] = ",\"memo\":\"", end[] = "\"}";
    size_t spare = sizeof(memo) - 1 + sizeof(end) - 1;
    size_t take = parts.length + spare <= tail_bytes ? parts.length : first + spare <= tail_bytes ? first : 0;
    text->random = parts.random;
    memcpy(text->bytes + text->length, scratch, take);
    text->length += take;
    add(text, take == 0 ? memo + 1 : memo);
    while (text->length + sizeof(end) - 1 < text->capacity) {
        const char *word = words[below(text, sizeof(words) / sizeof(words[0]))];
        size_t room = text->capacity - (sizeof(end) - 1) - text->length;
        size_t length = strlen(word) < room ? strlen(word) : room;
        memcpy(text->bytes + text->length, word, length);
        text->length += length;
        if (length < room)
            text->bytes[text->length++] = ' ';
    }
    add(text, end);
}

static size_t add_field(struct text *text, const char *before, size_t width)
{
    add(text, before);
    size_t at = text->length;
    sl_assert(at + width <= text->capacity);
    memset(text->bytes + at, '0', width);
    text->length += width;
    return at;
}

static void build_template(struct payload_set *set, struct text *text)
{
    struct layout *layout = &set->layout;
    add(text, "{\"event_id\":\"");
    add(text, set->run);
    layout->id_counter = add_field(text, "-", 12);
    layout->key = add_field(text, "\",\"account_id\":\"acc_", 8);
    layout->seq = add_field(text, "\",\"seq\":\"", 12);
    layout->second = add_field(text, "\",\"event_ts\":\"", sizeof("2026-11-21T10:15:42.") - 1);
    layout->micros = add_field(text, "", 6);
    layout->amount = add_field(text, "Z\",\"amount\":", 6);
    layout->code = add_field(text, ",\"auth_code\":\"", 6);
    layout->trace = add_field(text, "\",\"trace_id\":\"", 32);
    add(text, "\",");
    layout->tail = text->length;
    build_tail(text, text->capacity - text->length);
    sl_assert(text->length == set->event_bytes);
}

struct payload_set *payload_set_new(size_t event_bytes, const char *run, uint64_t seed)
{
    sl_assert(event_bytes >= PAYLOAD_BYTES_MIN && event_bytes <= PAYLOAD_BYTES_MAX);
    sl_assert(strlen(run) > 0 && strlen(run) <= PAYLOAD_RUN_MAX);
    struct payload_set *set = (struct payload_set *)calloc(1, sizeof(*set));
    if (set == NULL)
        return NULL;
    set->event_bytes = event_bytes;
    set->run_length = strlen(run);
    memcpy(set->run, run, set->run_length);
    set->second = -1;
    set->template_count = TEMPLATE_BYTES_ALL / event_bytes;
    set->templates = (uint8_t *)malloc(set->template_count * event_bytes);
    if (set->templates == NULL) {
        free(set);
        return NULL;
    }
    struct text text = {.capacity = event_bytes, .random = seed};
    for (size_t i = 0; i < set->template_count; i++) {
        text.bytes = (char *)set->templates + i * event_bytes;
        text.length = 0;
        build_template(set, &text);
    }
    return set;
}

void payload_set_free(struct payload_set *set)
{
    if (set == NULL)
        return;
    free(set->templates);
    free(set);
}

size_t payload_event_bytes(const struct payload_set *set)
{
    return set->event_bytes;
}

// ---- events

static void set_second(struct payload_set *set, int64_t second)
{
    time_t time = (time_t)second;
    struct tm utc;
    gmtime_r(&time, &utc);
    char text[64];
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.", &utc);
    memcpy(set->second_text, text, sizeof(set->second_text));
    set->second = second;
}

void payload_write(struct payload_set *set, const struct payload_event *event, uint8_t *out)
{
    const struct layout *layout = &set->layout;
    memcpy(out, set->templates + event->counter % set->template_count * set->event_bytes, set->event_bytes);
    int64_t second = event->wall_ns / SL_NS_PER_S;
    if (second != set->second)
        set_second(set, second);
    uint64_t random = event->counter;
    uint64_t first = payload_random(&random);
    put_digits(out + layout->id_counter, 12, event->counter);
    put_digits(out + layout->key, 8, event->key);
    put_digits(out + layout->seq, 12, event->seq);
    memcpy(out + layout->second, set->second_text, sizeof(set->second_text));
    put_digits(out + layout->micros, 6, (uint64_t)(event->wall_ns % SL_NS_PER_S) / 1000);
    put_digits(out + layout->amount, 6, 100000 + first % 900000);
    put_digits(out + layout->code, 6, (first >> 32) % 1000000);
    put_hex(out + layout->trace, first);
    put_hex(out + layout->trace + 16, payload_random(&random));
}

size_t payload_id(const struct payload_set *set, uint64_t counter, char *out)
{
    memcpy(out, set->run, set->run_length);
    out[set->run_length] = '-';
    put_digits((uint8_t *)out + set->run_length + 1, 12, counter);
    return set->run_length + 13;
}

void payload_key(uint32_t key, char *out)
{
    memcpy(out, "acc_", 4);
    put_digits((uint8_t *)out + 4, 8, key);
}
