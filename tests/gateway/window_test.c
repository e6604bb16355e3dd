// The window of a process at its start, over a real spool in a directory: what of its ids is damaged or lost makes the
// window shorter, and nothing else does. And the alarm of a memory that is too small, which ends.
#include "base/clock.h"
#include "base/crc32c.h"
#include "gateway/window_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { BATCHES = 24, EACH = 250, RECORDS = BATCHES * EACH, SEGMENT_BYTES = 1 << 20, FILES_MAX = 64 };
#define WINDOW_NS (24 * 3600 * SL_NS_PER_S)
#define STEP_NS   (600 * SL_NS_PER_S) // between two batches

struct node {
    char dir[64];
    int64_t first_ns;              // when the first batch was received
    int64_t wall_ns, monotonic_ns; // the spool's clocks
    uint64_t chance;
    struct spool_environment environment;
    struct window *window;
    struct spool *spool;
    char stream[SPOOL_STREAM_ID_MAX];
};

static int64_t wall(void *context)
{
    return ((struct node *)context)->wall_ns;
}

static int64_t monotonic(void *context)
{
    return ((struct node *)context)->monotonic_ns += 1000;
}

static void scatter(void *context, void *bytes, size_t length)
{
    struct node *node = context;
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)((node->chance += UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

static struct dedupe_id id_of(uint64_t number)
{
    uint64_t first = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    return (struct dedupe_id){{first, (first ^ first >> 29) * UINT64_C(0xbf58476d1ce4e5b9)}};
}

static int64_t received_ns(const struct node *node, uint64_t number)
{
    return node->first_ns + (int64_t)(number / EACH) * STEP_NS;
}

static void open_node(struct node *node)
{
    static const char *const lanes[] = {"main"};
    struct window_options window = {.storage = &storage_posix,
                                    .spool_dir = node->dir,
                                    .window_ns = WINDOW_NS,
                                    .memory_bytes = dedupe_memory_min() * 2,
                                    .snapshot_every_ns = WINDOW_NS};
    node->environment =
        (struct spool_environment){.wall_ns = wall, .monotonic_ns = monotonic, .random = scatter, .context = node};
    struct spool_options spool = {.storage = &storage_posix,
                                  .dir = node->dir,
                                  .node = "gw",
                                  .segment_bytes = SEGMENT_BYTES,
                                  .max_bytes = 64 << 20,
                                  .prepared = 1,
                                  .append_bytes = 32 << 20,
                                  .ids_window_ns = WINDOW_NS,
                                  .lanes = lanes,
                                  .lane_count = 1,
                                  .environment = &node->environment,
                                  .manual = true};
    struct sl_error err;
    if (!window_new(&node->window, &window, &err))
        fail_msg("%s", err.text);
    memcpy(spool.ids_key_id, window_key(node->window)->id, sizeof(spool.ids_key_id));
    if (!spool_open(&node->spool, &spool, &err))
        fail_msg("%s", err.text);
}

static void close_node(struct node *node)
{
    struct sl_error err;
    window_stop(node->window);
    window_free(node->window);
    assert_true(spool_close(node->spool, &err));
}

static void done(struct spool_batch *batch)
{
    assert_int_equal(batch->outcome, SPOOL_SYNCED);
}

static void append(struct node *node, uint64_t from)
{
    static const char payload[1000] = "{}";
    struct spool_batch batch = {.done = done, .lane_counts = {EACH}};
    node->wall_ns = received_ns(node, from);
    for (uint64_t i = from; i < from + EACH; i++) {
        struct dedupe_id id = id_of(i);
        struct record record = {.kind = RECORD_EVENT,
                                .payload_hash = i,
                                .received_wall_ns = node->wall_ns,
                                .payload_crc = sl_crc32c(payload, sizeof(payload)),
                                .source = sl_span_of("s"),
                                .lane = sl_span_of("main"),
                                .topic = sl_span_of("t"),
                                .event_id = sl_span_of("e"),
                                .payload = {payload, sizeof(payload)}};
        dedupe_id_store(&id, record.id_hash);
        assert_true(record_append(&batch.records, &record, NULL, 0));
    }
    assert_true(spool_submit(node->spool, &batch));
    while (batch.outcome == SPOOL_SYNCED && batch.first_seq == 0)
        (void)(spool_step_writer(node->spool) || spool_step_keeper(node->spool));
    record_buffer_free(&batch.records);
}

static size_t files(const struct node *node, const char *suffix, uint64_t first_seqs[FILES_MAX])
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", node->dir, node->stream);
    DIR *list = opendir(path);
    size_t count = 0;
    for (struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL;) {
        const char *dot = strrchr(entry->d_name, '.');
        if (dot == NULL || strcmp(dot, suffix) != 0)
            continue;
        assert_true(count < FILES_MAX);
        uint64_t seq = strtoull(entry->d_name, NULL, 16);
        size_t at = count++;
        for (; at > 0 && first_seqs[at - 1] > seq; at--)
            first_seqs[at] = first_seqs[at - 1];
        first_seqs[at] = seq;
    }
    if (list != NULL)
        closedir(list);
    return count;
}

static void path_of(const struct node *node, uint64_t first_seq, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s/%016llx.ids", node->dir, node->stream, (unsigned long long)first_seq);
    if (access(path, F_OK) != 0)
        fail_msg("no %s", path);
}

// A stream whose segments are all deleted, and whose ids are kept; the process ended, and another one opened.
static int set_up(void **state)
{
    struct node *node = calloc(1, sizeof(*node));
    snprintf(node->dir, sizeof(node->dir), "/tmp/sluice-window.XXXXXX");
    assert_non_null(mkdtemp(node->dir));
    node->first_ns = sl_wall_ns() - BATCHES * STEP_NS - STEP_NS;
    node->wall_ns = node->first_ns;
    node->monotonic_ns = SL_NS_PER_S;
    open_node(node);
    snprintf(node->stream, sizeof(node->stream), "%s", spool_incarnation_id(node->spool, 0));
    for (uint64_t i = 0; i < RECORDS; i += EACH)
        append(node, i);
    close_node(node);
    open_node(node);
    uint64_t seqs[FILES_MAX];
    while (spool_step_keeper(node->spool)) // walks the stream
        ;
    spool_note_committed(node->spool, node->stream, "main", RECORDS, RECORDS);
    spool_note_verified(node->spool, node->stream, "main", RECORDS);
    for (unsigned i = 0; files(node, ".seg", seqs) > 0; i++) {
        assert_true(i < 1000);
        node->wall_ns = sl_wall_ns();
        node->monotonic_ns += SL_NS_PER_S;
        while (spool_step_keeper(node->spool))
            ;
    }
    assert_true(files(node, ".ids", seqs) >= 5);
    *state = node;
    return 0;
}

static void delete_below(const char *path)
{
    DIR *list = opendir(path);
    for (struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL;) {
        char name[PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            snprintf(name, sizeof(name), "%s/%s", path, entry->d_name) >= PATH_MAX)
            continue;
        if (unlink(name) != 0)
            delete_below(name);
    }
    if (list != NULL)
        closedir(list);
    rmdir(path);
}

static int tear_down(void **state)
{
    struct node *node = *state;
    close_node(node);
    delete_below(node->dir);
    free(node);
    return 0;
}

// ---- coverage

static bool knows(struct node *node, uint64_t number)
{
    struct dedupe_found found;
    struct dedupe_id id = id_of(number);
    bool known = dedupe_look(window_dedupe(node->window), &id, number, &found) == DEDUPE_DUPLICATE;
    assert_true(!known || found.seq == number + 1);
    return known;
}

// Loads the window; everything in [from, to) is missing. Returns since when it is complete.
static int64_t load(struct node *node, uint64_t from, uint64_t to)
{
    assert_true(window_load(node->window, node->spool));
    for (uint64_t i = 0; i < RECORDS; i++)
        assert_int_equal(knows(node, i), i < from || i >= to);
    struct dedupe_figures figures;
    int64_t now_ns = sl_wall_ns();
    dedupe_figures(window_dedupe(node->window), now_ns, &figures);
    return now_ns - figures.covered_ns;
}

static void whole_ids_cover_all(void **state)
{
    struct node *node = *state;
    assert_in_range(load(node, 0, 0), 0, received_ns(node, 0));
}

// What is missing was received before the window's beginning; what came a batch later is promised.
static void assert_covered_behind(const struct node *node, int64_t since_ns, uint64_t missing_to)
{
    assert_in_range(since_ns, received_ns(node, missing_to - 1), received_ns(node, missing_to - 1) + STEP_NS);
}

static void damage(struct node *node, bool last)
{
    uint64_t seqs[FILES_MAX];
    char path[PATH_MAX];
    size_t count = files(node, ".ids", seqs), at = last ? count - 1 : count / 2;
    uint64_t end = last ? RECORDS : seqs[at + 1] - 1;
    path_of(node, seqs[at], path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "broken", 6, SPOOL_BLOCK + SPOOL_BLOCK / 2), 6); // in its one ids frame
    close(fd);
    assert_covered_behind(node, load(node, seqs[at] - 1, end), end);
}

static void a_damaged_unit_is_not_covered(void **state)
{
    damage(*state, false);
}

static void a_damaged_end_is_not_covered(void **state)
{
    damage(*state, true);
}

static void a_lost_unit_is_not_covered(void **state)
{
    struct node *node = *state;
    uint64_t seqs[FILES_MAX];
    char path[PATH_MAX];
    size_t count = files(node, ".ids", seqs), at = count / 2;
    path_of(node, seqs[at], path);
    assert_int_equal(unlink(path), 0);
    close_node(node);
    open_node(node);
    assert_covered_behind(node, load(node, seqs[at] - 1, seqs[at + 1] - 1), seqs[at + 1] - 1);
}

// ---- memory

static const char *alarm_at(struct node *node, double part)
{
    static struct window_status status;
    window_status(node->window, &status);
    double memory = (double)status.figures.memory_bytes;
    double rate = part * memory / status.figures.bytes_per_entry / ((double)WINDOW_NS * 1e-9);
    window_check_memory(node->window, rate, "of the test");
    window_status(node->window, &status);
    return status.alarm;
}

// It lasts until a tenth of the memory is to spare, and comes again.
static void the_alarm_ends(void **state)
{
    struct node *node = *state;
    assert_string_equal(alarm_at(node, 0.99), "");
    for (unsigned turn = 0; turn < 2; turn++) {
        assert_non_null(strstr(alarm_at(node, 2), "last for a window of 43200 s"));
        assert_non_null(strstr(alarm_at(node, 1.01), "dedupe.memory is too small"));
        assert_string_not_equal(alarm_at(node, 0.95), "");
        assert_string_equal(alarm_at(node, 0.89), "");
        assert_string_equal(alarm_at(node, 0.95), "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whole_ids_cover_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_unit_is_not_covered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_lost_unit_is_not_covered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_end_is_not_covered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_alarm_ends, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
