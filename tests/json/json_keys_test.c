// Duplicate keys where events resemble the one before: keys missing, added, moved, doubled, in random turns. What is a
// duplicate is said by plain comparison of all keys with all.
//   SEED=7 RUNS=100000 json_keys_test      repeats or extends a run; both are printed
#include "tests/json/json_lib.h"

#include <stdio.h>

enum { RUNS_DEFAULT = 60000, MEMBERS_MAX = 24, OBJECTS = 4, KEYS = 12, TEXT_MAX = 8192 };

// The same key in two ways of writing it, of lengths on both sides of what is compared at once or remembered.
static const struct {
    const char *plain;
    const char *escaped;
} keys[KEYS] = {
    {"", ""},
    {"a", "\\u0061"},
    {"ab", "a\\u0062"},
    {"event_id", "event\\u005fid"},
    {"a\\\\bb", "\\u0061\\u005cbb"}, // unescaped it reads as the next one does escaped
    {"a\\bb", "a\\u0008b"},
    {"0123456789abc", "0123456789ab\\u0063"},
    {"0123456789abcd", "\\u00300123456789abcd"}, // two keys
    {"0123456789abcdefghi", "0123456789abcdefg\\u0068i"},
    {"0123456789abcdefghj", "0123456789abcdefg\\u0068j"},
    {"a key that is just short enough to be known.!", "a key that is just short enough to be known.\\u0021"},
    {"a key of more bytes than are remembered of a key, and more", "\\u0061 key"}, // two keys
};

static uint64_t state;

// xorshift64*: repeatable everywhere.
static uint32_t roll(uint32_t below)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(0x2545f4914f6cdd1d)) >> 33) % below;
}

struct member {
    uint32_t object; // 0: the event itself; its members "o1", "o2" and "o3", or two elements of "o2"
    uint32_t key;
    bool escaped;
};

struct model {
    struct member members[MEMBERS_MAX];
    size_t count;
    bool in_array; // "o2" is an array, and two objects in it
    bool blanks;   // between key and colon
    bool nested_first;
};

static uint32_t meaning(const struct member *member)
{
    bool two = member->escaped && (member->key == 7 || member->key == 11);
    return member->object * 100 + member->key + (two ? 50 : 0);
}

struct text {
    char bytes[TEXT_MAX];
    size_t length;
    uint32_t meanings[MEMBERS_MAX]; // so far
    size_t meaning_count;
    size_t duplicate; // offset of the first one's quote, 0: none
    char value[24];   // of /event_id, "": none
    char nested[24];  // of /o1/ab
};

static void put(struct text *text, const char *bytes)
{
    size_t length = strlen(bytes);
    assert_in_range(text->length + length, 0, TEXT_MAX);
    lib_put(text->bytes + text->length, bytes, length);
    text->length += length;
}

static void put_key(struct text *text, const char *key, bool blanks)
{
    put(text, text->bytes[text->length - 1] == '{' ? "\"" : ",\"");
    put(text, key);
    put(text, blanks ? "\" :" : "\":");
}

static void note_meaning(struct text *text, uint32_t meaning, size_t quote)
{
    for (size_t i = 0; i < text->meaning_count && text->duplicate == 0; i++)
        text->duplicate = text->meanings[i] == meaning ? quote : 0;
    text->meanings[text->meaning_count++] = meaning;
}

static void put_members(struct text *text, const struct model *model, uint32_t object)
{
    for (size_t i = 0; i < model->count; i++) {
        const struct member *member = &model->members[i];
        if (member->object != object)
            continue;
        note_meaning(text, meaning(member), text->length + (text->bytes[text->length - 1] != '{'));
        put_key(text, member->escaped ? keys[member->key].escaped : keys[member->key].plain, model->blanks);
        char value[24];
        snprintf(value, sizeof(value), "%u", roll(1000000));
        put(text, value);
        if (object == 0 && member->key == 3)
            snprintf(text->value, sizeof(text->value), "%s", value);
        if (object == 1 && member->key == 2)
            snprintf(text->nested, sizeof(text->nested), "%s", value);
    }
}

static void put_object(struct text *text, const struct model *model, uint32_t object)
{
    put(text, "{");
    put_members(text, model, object);
    put(text, "}");
}

static void put_nested(struct text *text, const struct model *model)
{
    put_key(text, "o1", model->blanks);
    put_object(text, model, 1);
    put_key(text, "o2", model->blanks);
    put(text, model->in_array ? "[" : "");
    put_object(text, model, 2);
    if (model->in_array)
        put(text, ",");
    else
        put_key(text, "o3", model->blanks);
    put_object(text, model, 3);
    put(text, model->in_array ? "]" : "");
}

static void put_event(struct text *text, const struct model *model)
{
    put(text, "{");
    if (model->nested_first)
        put_nested(text, model);
    put_members(text, model, 0);
    if (!model->nested_first)
        put_nested(text, model);
    put(text, "}");
}

static void change(struct model *model)
{
    size_t at = roll((uint32_t)model->count + 1);
    struct member *place = &model->members[at];
    switch (roll(8)) {
    case 0: // a key more, perhaps a duplicate
    case 1:
    case 2:
        if (model->count == MEMBERS_MAX)
            break;
        memmove(place + 1, place, (model->count - at) * sizeof(*place));
        *place = (struct member){.object = roll(OBJECTS), .key = roll(KEYS), .escaped = roll(4) == 0};
        model->count++;
        break;
    case 3: // one less
        if (at == model->count)
            break;
        model->count--;
        memmove(place, place + 1, (model->count - at) * sizeof(*place));
        break;
    case 4: // in another order
        if (at + 1 < model->count) {
            struct member first = place[0];
            place[0] = place[1];
            place[1] = first;
        }
        break;
    case 5:
        if (at < model->count)
            place->escaped = !place->escaped;
        break;
    case 6:
        model->in_array = roll(2) == 0;
        model->nested_first = roll(2) == 0;
        break;
    default:
        model->blanks = roll(4) == 0;
    }
}

static void make_good(struct model *model)
{
    size_t kept = 0;
    for (size_t i = 0; i < model->count; i++) {
        bool twice = false;
        for (size_t j = 0; j < kept; j++)
            twice = twice || meaning(&model->members[j]) == meaning(&model->members[i]);
        if (!twice)
            model->members[kept++] = model->members[i];
    }
    model->count = kept;
}

struct values {
    char value[24];
    char nested[24];
};

static bool on_event(const struct json_event *event, void *user)
{
    struct values *values = user;
    snprintf(values->value, sizeof(values->value), "%.*s", (int)event->values[0].text.length,
             event->values[0].kind == JSON_KIND_ABSENT ? "" : (const char *)event->values[0].text.bytes);
    snprintf(values->nested, sizeof(values->nested), "%.*s", (int)event->values[1].text.length,
             event->values[1].kind == JSON_KIND_ABSENT ? "" : (const char *)event->values[1].text.bytes);
    return true;
}

static bool check(struct json_parser *parser, const struct json_pointer *const *pointers, const struct model *model)
{
    static struct text text;
    text.length = text.duplicate = text.meaning_count = 0;
    text.value[0] = text.nested[0] = '\0';
    put_event(&text, model);
    struct sl_span body = lib_body(text.bytes, text.length);
    struct values values;
    struct json_fault fault;
    bool good = json_walk(parser, JSON_SHAPE_DOCUMENT, body, pointers, 2, on_event, &values, &fault);
    if (good != (text.duplicate == 0))
        fail_msg("%s: %.*s", good ? "taken" : fault.detail, (int)text.length, text.bytes);
    if (good) {
        assert_string_equal(values.value, text.value);
        assert_string_equal(values.nested, text.nested);
    } else {
        assert_int_equal(fault.kind, JSON_FAULT_DUPLICATE_KEY);
        assert_int_equal(fault.offset, text.duplicate);
    }
    free((void *)(uintptr_t)body.bytes); // what is remembered is none of it
    return good;
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void similar_events(void **unused)
{
    (void)unused;
    uint64_t seed = number_from("SEED", 1);
    uint64_t runs = number_from("RUNS", RUNS_DEFAULT);
    fprintf(stderr, "SEED=%llu RUNS=%llu\n", (unsigned long long)seed, (unsigned long long)runs);
    state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    struct json_parser *parser = json_parser_new(LIB_CAPACITY, LIB_DEPTH);
    assert_non_null(parser);
    struct json_pointer *pointers[2];
    struct sl_error err;
    assert_true(json_pointer_compile(&pointers[0], "/event_id", &err));
    assert_true(json_pointer_compile(&pointers[1], "/o1/ab", &err));
    struct model model = {.count = 0};
    uint64_t duplicates = 0;
    for (uint64_t run = 0; run < runs; run++) {
        for (uint32_t times = roll(4); times > 0; times--)
            change(&model);
        duplicates += !check(parser, (const struct json_pointer *const *)pointers, &model);
        if (roll(4) != 0)
            make_good(&model);
    }
    for (int i = 0; i < 2; i++)
        json_pointer_free(pointers[i]);
    json_parser_free(parser);
    assert_in_range(duplicates, runs / 20, runs / 2);
}

// Few keys in any order, so that the tree of what is remembered has every shape.
static void few_keys(void **unused)
{
    (void)unused;
    enum { ALPHABET = 5, LONGEST = 6, EVENTS = 60 };
    struct json_parser *parser = NULL;
    for (uint32_t run = 0; run < 100000; run++) {
        if (run % EVENTS == 0) {
            json_parser_free(parser);
            parser = json_parser_new(1000, 4);
            assert_non_null(parser);
        }
        char text[128];
        size_t used = 0;
        uint32_t seen[2] = {0, 0};
        bool twice = false;
        for (uint32_t count = 1 + roll(LONGEST), i = 0, object = 0; i < count; i++) {
            uint32_t key = roll(ALPHABET);
            twice = twice || (seen[object] & 1U << key) != 0;
            seen[object] |= 1U << key;
            used +=
                (size_t)snprintf(text + used, sizeof(text) - used, "%s\"%c\":0", i == 0 ? "{\"x\":[{" : ",", 'a' + key);
            if (object == 0 && i + 1 < count && roll(4) == 0) {
                object = 1;
                key = roll(ALPHABET);
                seen[1] |= 1U << key;
                used += (size_t)snprintf(text + used, sizeof(text) - used, "},{\"%c\":0", 'a' + key);
            }
        }
        used += (size_t)snprintf(text + used, sizeof(text) - used, "}]}");
        struct sl_span body = lib_body(text, used);
        struct lib_events events = {0};
        struct json_fault fault;
        if (json_walk(parser, JSON_SHAPE_DOCUMENT, body, NULL, 0, lib_count, &events, &fault) == twice)
            fail_msg("%s: %s", twice ? "taken" : "refused", text);
        free((void *)(uintptr_t)body.bytes);
    }
    json_parser_free(parser);
}

// More keys than are remembered, over and over, and once one of them twice.
static void many_keys(void **unused)
{
    (void)unused;
    enum { MANY = 3000, SIZE = MANY * 16 };
    struct json_parser *parser = json_parser_new(LIB_CAPACITY, LIB_DEPTH);
    assert_non_null(parser);
    char *text = malloc(SIZE);
    assert_non_null(text);
    for (int again = -1; again < MANY; again += again < 250 ? 1 : 250) { // the last key is once more this one
        size_t used = 0;
        for (int i = 0; i <= MANY; i++)
            used += (size_t)snprintf(text + used, SIZE - used, "%c\"k%d\":0", i == 0 ? '{' : ',',
                                     i == MANY && again >= 0 ? again : i);
        used += (size_t)snprintf(text + used, SIZE - used, "}");
        struct sl_span body = lib_body(text, used);
        struct lib_events events = {0};
        struct json_fault fault;
        assert_int_equal(json_walk(parser, JSON_SHAPE_DOCUMENT, body, NULL, 0, lib_count, &events, &fault), again < 0);
        if (again >= 0)
            assert_int_equal(fault.kind, JSON_FAULT_DUPLICATE_KEY);
        free((void *)(uintptr_t)body.bytes);
    }
    free(text);
    json_parser_free(parser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(similar_events), cmocka_unit_test(few_keys),
                                       cmocka_unit_test(many_keys)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
