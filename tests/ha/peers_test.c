// Sessions over plain TCP: what passes, what ends them, the interface.
#include "tests/ha/peers_node.h"
#include "tests/ha/peers_partner.h"

#include <sys/wait.h>
#include <unistd.h>

// ---- what passes

static void messages_pass_both_ways(void **state)
{
    (void)state;
    struct node a, b;
    unsigned released = 0;
    node_world_begin();
    node_options(&a, 0);
    node_options(&b, 1);
    node_pair(&a, &b);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    assert_true(node_send_heartbeat(&a, 1));
    assert_true(node_send_frame(&a, 1, 1, 1000, &released));
    assert_true(node_send_frame(&b, 0, 1, 2000, &released));
    AWAIT(b.messages[0] == 2 && a.messages[1] == 1 && released == 2);
    assert_int_equal(b.last.kind, HA_FRAME);
    assert_int_equal(b.frame_bytes, 1000);
    assert_int_equal(a.frame_bytes, 2000);
    assert_false(a.broken_frame || b.broken_frame);
    struct peer_status status;
    peers_status(a.peers, 1, &status);
    assert_true(status.up && !status.tls && status.sessions == 1 && status.trouble[0] == '\0');
    assert_true(status.bytes_out > 1000 && status.bytes_in > 2000 && status.output_bytes == 0);
    assert_string_equal(status.address, a.addresses[1]);
    node_stop(&a);
    AWAIT(!node_up(&b, 0));
    assert_string_equal(b.why[0], "the other end closed the connection");
    assert_int_equal(a.downs[1], 0); // who stops hears nothing
    node_stop(&b);
    node_world_end();
}

static void three_members_are_all_in_session(void **state)
{
    (void)state;
    struct node a, b, c;
    node_world_begin();
    node_options(&a, 0);
    node_options(&b, 1);
    node_options(&c, 2);
    node_start(&c);
    node_address(&b, 2, peers_port(c.peers));
    node_address(&a, 2, peers_port(c.peers));
    node_pair(&a, &b);
    AWAIT(node_up(&a, 1) && node_up(&a, 2) && node_up(&b, 0) && node_up(&b, 2) && node_up(&c, 0) && node_up(&c, 1));
    assert_true(node_send_heartbeat(&c, 0));
    AWAIT(a.messages[2] == 1);
    assert_int_equal(a.messages[1] + b.messages[0] + b.messages[2], 0);
    node_stop(&a);
    node_stop(&b);
    node_stop(&c);
    node_world_end();
}

static void frames_of_all_sizes_keep_their_order(void **state)
{
    (void)state;
    static const size_t sizes[] = {4, 5, 4096, 65536, 200001, 3 << 20, 100, 16, 1000000, 262144, 5 << 20, 7};
    struct node a, b;
    unsigned released = 0;
    uint64_t seq = 0;
    node_world_begin();
    node_options(&a, 0);
    node_options(&b, 1);
    node_pair(&a, &b);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    while (seq < 48) {
        AWAIT(peers_has_room(a.peers, 1));
        seq++;
        assert_true(node_send_frame(&a, 1, seq, sizes[seq % (sizeof(sizes) / sizeof(sizes[0]))], &released));
    }
    AWAIT(b.last_seq[0] == seq && released == seq);
    assert_false(b.broken_frame);
    node_stop(&a);
    node_stop(&b);
    node_world_end();
}

static void a_slow_reader_bounds_what_waits(void **state)
{
    (void)state;
    struct node a, b;
    unsigned released = 0;
    uint64_t seq = 0;
    struct peer_status status;
    node_world_begin();
    node_options(&a, 0);
    node_options(&b, 1);
    b.hold_at_frame = true;
    node_pair(&a, &b);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    // The kernel's buffers take some; then there is no room, however often the loop turns.
    for (unsigned turns_without_room = 0; turns_without_room < 100; node_turn()) {
        turns_without_room = peers_has_room(a.peers, 1) ? 0 : turns_without_room + 1;
        while (peers_has_room(a.peers, 1))
            assert_true(node_send_frame(&a, 1, ++seq, 100000, &released));
    }
    peers_status(a.peers, 1, &status);
    assert_true(status.output_bytes >= a.options.output_high_bytes);
    assert_true(status.output_bytes < a.options.output_high_bytes + 200000);
    assert_int_equal(b.last_seq[0], 1);  // held from within the first one's callback
    unsigned writables = a.writables[1]; // while the kernel's buffers were filling
    b.hold_at_frame = false;
    peers_hold_reading(b.peers, 0, false);
    AWAIT(b.last_seq[0] == seq && released == seq);
    assert_false(b.broken_frame);
    assert_int_equal(a.writables[1], writables + 1);
    node_stop(&a);
    node_stop(&b);
    node_world_end();
}

static void who_never_reads_loses_the_session(void **state)
{
    (void)state;
    struct node a, b;
    unsigned released = 0, sent = 0;
    node_world_begin();
    node_options(&a, 0);
    node_options(&b, 1);
    a.options.message_bytes_max = b.options.message_bytes_max = 1 << 20;
    node_pair(&a, &b);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    peers_hold_reading(b.peers, 0, true);
    // Without asking for room.
    while (node_send_frame(&a, 1, ++sent, 100000, &released))
        node_turn();
    AWAIT(a.downs[1] == 1);
    assert_non_null(strstr(a.why[1], "does not read"));
    AWAIT(released == sent);
    node_stop(&a);
    node_stop(&b);
    node_world_end();
}

// ---- ends and beginnings

static void a_peer_that_comes_back_is_met_again(void **state)
{
    (void)state;
    struct node a, b;
    char listen[64];
    node_world_begin();
    node_options(&a, 0);
    node_options(&b, 1);
    node_pair(&a, &b);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    snprintf(listen, sizeof(listen), "127.0.0.1:%u", peers_port(b.peers));
    for (unsigned round = 1; round <= 3; round++) {
        node_stop(&b);
        AWAIT(!node_up(&a, 1));
        AWAIT(node_says(&a, 1, "refused") || node_says(&a, 1, "closed the connection"));
        node_options(&b, 1);
        b.options.listen = listen;
        node_start(&b);
        AWAIT(node_up(&a, 1) && node_up(&b, 0));
        assert_int_equal(a.downs[1], round);
        assert_string_equal(node_trouble(&a, 1), "");
    }
    struct peer_status status;
    peers_status(a.peers, 1, &status);
    assert_int_equal(status.sessions, 4);
    node_stop(&a);
    node_stop(&b);
    node_world_end();
}

static void what_waits_is_released_at_the_end(void **state)
{
    (void)state;
    struct node a, b;
    unsigned released = 0, sent = 0;
    node_world_begin();
    node_options(&a, 0);
    node_options(&b, 1);
    node_pair(&a, &b);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    assert_false(node_send_frame(&a, 2, 1, 100, &released)); // nobody there: released at once
    assert_int_equal(released, 1);
    while (peers_has_room(a.peers, 1))
        assert_true(node_send_frame(&a, 1, ++sent, 100000, &released));
    assert_int_equal(released, 1);
    node_stop(&a);
    assert_int_equal(released, sent + 1);
    node_stop(&b);
    node_world_end();
}

static void a_newer_connection_replaces_the_older(void **state)
{
    (void)state;
    struct node b;
    node_world_begin();
    node_options(&b, 1);
    b.options.members = 3;
    node_start(&b);
    struct wire_hello hello = hand_hello(&b, 0);
    int first = hand_dial(peers_port(b.peers));
    hand_greet(first, &hello, true);
    AWAIT(node_up(&b, 0));
    int second = hand_dial(peers_port(b.peers));
    hand_greet(second, &hello, false);
    // One that has not been welcomed replaces nothing.
    for (int i = 0; i < 20; i++)
        node_turn();
    assert_int_equal(b.ups[0], 1);
    assert_false(hand_closed(first));
    hello.chance++;
    int third = hand_dial(peers_port(b.peers));
    hand_greet(third, &hello, true);
    AWAIT(b.ups[0] == 2 && hand_closed(first));
    assert_int_equal(b.downs[0], 1);
    assert_non_null(strstr(b.why[0], "another process of that name"));
    assert_true(node_up(&b, 0));
    assert_false(hand_closed(third));
    close(first);
    close(second);
    close(third);
    node_stop(&b);
    node_world_end();
}

static void silence_ends_a_session_and_sounds_do_not(void **state)
{
    (void)state;
    struct node b;
    uint8_t heartbeat[WIRE_HEAD_MAX];
    struct wire_message *message = calloc(1, sizeof(*message));
    assert_non_null(message);
    message->message.kind = HA_HEARTBEAT;
    node_world_begin();
    node_options(&b, 1);
    b.options.silence_ns = SL_NS_PER_S;
    node_start(&b);
    size_t length = wire_encode(&b.peers->cell, message, heartbeat);
    struct wire_hello hello = hand_hello(&b, 0);
    int fd = hand_dial(peers_port(b.peers));
    hand_greet(fd, &hello, true);
    AWAIT(node_up(&b, 0));
    // Half-open: the connection stays, and nobody speaks. Before, for longer than the silence, somebody does.
    for (int64_t until_ns = sl_monotonic_ns() + 2 * SL_NS_PER_S; sl_monotonic_ns() < until_ns; node_turn())
        hand_say(fd, heartbeat, length);
    assert_true(node_up(&b, 0));
    AWAIT(b.downs[0] == 1);
    assert_non_null(strstr(b.why[0], "nothing was received for 1.0 s"));
    AWAIT(hand_closed(fd));
    close(fd);
    // Not while reading is held: then it is this node that does not listen.
    fd = hand_dial(peers_port(b.peers));
    hand_greet(fd, &hello, true);
    AWAIT(node_up(&b, 0));
    peers_hold_reading(b.peers, 0, true);
    for (int64_t until_ns = sl_monotonic_ns() + 2 * SL_NS_PER_S; sl_monotonic_ns() < until_ns;)
        node_turn();
    assert_true(node_up(&b, 0));
    peers_hold_reading(b.peers, 0, false);
    AWAIT(b.downs[0] == 2);
    // And who says nothing from the beginning goes, too.
    int mute = hand_dial(peers_port(b.peers));
    AWAIT(hand_closed(mute));
    close(mute);
    close(fd);
    node_stop(&b);
    free(message);
    node_world_end();
}

// ---- the interface

static void expect_no_start(struct node *node, enum sl_code code)
{
    struct sl_error err = {.text = ""};
    for (uint8_t i = 0; i < HA_MEMBERS_MAX; i++)
        node->options.addresses[i] = node->addresses[i];
    assert_false(peers_start(&node->peers, &node->options, &err));
    assert_int_equal(err.code, code);
    assert_true(err.text[0] != '\0');
}

static void wrong_options_are_told(void **state)
{
    (void)state;
    struct node a, b;
    char listen[64];
    node_world_begin();
    node_options(&a, 0);
    a.options.names[1] = "gw-0";
    expect_no_start(&a, SL_E_INVALID);
    node_options(&a, 0);
    snprintf(a.addresses[1], sizeof(a.addresses[1]), "gw-b1");
    expect_no_start(&a, SL_E_INVALID);
    snprintf(a.addresses[1], sizeof(a.addresses[1]), "::1:9470");
    expect_no_start(&a, SL_E_INVALID);
    snprintf(a.addresses[1], sizeof(a.addresses[1]), "gw-b1:70000");
    expect_no_start(&a, SL_E_INVALID);
    node_options(&a, 0);
    a.options.silence_ns = 0;
    expect_no_start(&a, SL_E_INVALID);
    node_options(&a, 0);
    a.options.listen = "127.0.0.1";
    expect_no_start(&a, SL_E_INVALID);
    node_options(&a, 0);
    a.options.tls_ca = "/nowhere/ca.pem";
    expect_no_start(&a, SL_E_INVALID);
    a.options.tls_certificate = a.options.tls_key = "/nowhere/node.pem";
    expect_no_start(&a, SL_E_CONFIG);
    node_options(&b, 1);
    node_start(&b);
    node_options(&a, 0);
    snprintf(listen, sizeof(listen), "127.0.0.1:%u", peers_port(b.peers));
    a.options.listen = listen;
    expect_no_start(&a, SL_E_IO);
    node_stop(&b);
    node_world_end();
}

static void *call_it(void *user)
{
    struct node *node = user;
    node_send_heartbeat(node, 1);
    return NULL;
}

// No lock protects libevent's objects here, so no second thread may ever come near them.
static void a_second_thread_ends_the_process(void **state)
{
    (void)state;
    struct node b;
    node_world_begin();
    node_options(&b, 1);
    node_start(&b);
    node_turn();
    for (int handed_over = 0; handed_over <= 1; handed_over++) {
        node_send_heartbeat(&b, 0); // binds it to this thread
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            pthread_t thread;
            close(2); // it says so there
            if (handed_over)
                peers_hand_over(b.peers);
            pthread_create(&thread, NULL, call_it, &b);
            pthread_join(thread, NULL);
            _exit(0);
        }
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_int_equal(WIFEXITED(how) && WEXITSTATUS(how) == 0, handed_over);
    }
    node_stop(&b);
    node_world_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_pass_both_ways),
        cmocka_unit_test(three_members_are_all_in_session),
        cmocka_unit_test(frames_of_all_sizes_keep_their_order),
        cmocka_unit_test(a_slow_reader_bounds_what_waits),
        cmocka_unit_test(who_never_reads_loses_the_session),
        cmocka_unit_test(a_peer_that_comes_back_is_met_again),
        cmocka_unit_test(what_waits_is_released_at_the_end),
        cmocka_unit_test(a_newer_connection_replaces_the_older),
        cmocka_unit_test(silence_ends_a_session_and_sounds_do_not),
        cmocka_unit_test(wrong_options_are_told),
        cmocka_unit_test(a_second_thread_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
