// Who gets no session, and how that is told.
#include "tests/ha/peers_node.h"
#include "tests/ha/peers_partner.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static void refused_hello(struct node *to, const struct wire_hello *hello, const char *part)
{
    int fd = hand_dial(peers_port(to->peers));
    hand_greet(fd, hello, true);
    AWAIT(hand_closed(fd));
    if (part != NULL)
        assert_non_null(strstr(node_trouble(to, 0), part));
    assert_int_equal(to->ups[0], 0);
    close(fd);
}

static void a_hello_that_differs_is_refused(void **state)
{
    (void)state;
    struct node b;
    node_world_begin();
    node_options(&b, 1);
    node_start(&b);
    const struct wire_hello good = hand_hello(&b, 0);
    struct wire_hello hello = good;
    snprintf(hello.cluster, sizeof(hello.cluster), "orders");
    refused_hello(&b, &hello, "of the cluster orders, and this node of payments");
    hello = good;
    hello.version = 9;
    refused_hello(&b, &hello, "gw-a1 speaks version 9 of the protocol, and this node 1");
    hello = good;
    hello.member_count = 2;
    refused_hello(&b, &hello, "there gw-a1 (az-a), gw-b1 (az-b), here gw-a1 (az-a), gw-b1 (az-b), gw-c1 (az-c)");
    hello = good;
    snprintf(hello.members[0].zone, sizeof(hello.members[0].zone), "az-x");
    refused_hello(&b, &hello, "gw-a1 (az-x)");
    hello = good;
    hello.dedupe_key_id[7] = 0xab;
    refused_hello(&b, &hello, "has the id 01020300000000ab, and this node's 0102030000000000");
    hello = good;
    hello.self = 2;
    refused_hello(&b, &hello, NULL);
    assert_true(node_says(&b, 2, "gw-c1 dialled"));
    // Names that are nobody's trouble: the log alone tells.
    hello = good;
    hello.self = 1;
    refused_hello(&b, &hello, NULL);
    assert_non_null(strstr(b.peers->stranger.text, "this node's own name"));
    hello = good;
    snprintf(hello.members[0].name, sizeof(hello.members[0].name), "gw-0");
    refused_hello(&b, &hello, NULL);
    assert_true(b.peers->stranger.held_back > 0);
    // After all that the right one is welcome.
    int fd = hand_dial(peers_port(b.peers));
    hand_greet(fd, &good, true);
    AWAIT(node_up(&b, 0));
    close(fd);
    node_stop(&b);
    node_world_end();
}

static void both_ends_tell_the_difference(void **state)
{
    (void)state;
    struct node a, b;
    node_world_begin();
    node_options(&a, 0);
    node_options(&b, 1);
    a.options.cluster = "orders";
    node_pair(&a, &b);
    AWAIT(node_says(&a, 1, "of the cluster payments, and this node of orders"));
    AWAIT(node_says(&b, 0, "of the cluster orders, and this node of payments"));
    assert_int_equal(a.ups[1] + b.ups[0], 0);
    node_stop(&a);
    node_stop(&b);
    node_world_end();
}

static void addresses_that_lead_elsewhere_are_told(void **state)
{
    (void)state;
    struct node a, b;
    node_world_begin();
    node_options(&a, 0);
    node_options(&b, 1);
    node_start(&b);
    node_address(&a, 2, peers_port(b.peers)); // gw-c1, as a is told
    snprintf(a.addresses[1], sizeof(a.addresses[1]), "no-such-host.invalid:9470");
    node_start(&a);
    AWAIT(node_says(&a, 2, "answers gw-b1, not gw-c1"));
    AWAIT(node_says(&a, 1, "cannot find the address of no-such-host.invalid"));
    node_stop(&a);
    // Its own.
    char listen[64];
    snprintf(listen, sizeof(listen), "127.0.0.1:%u", peers_port(b.peers));
    node_stop(&b);
    node_options(&a, 0);
    a.options.listen = listen;
    snprintf(a.addresses[1], sizeof(a.addresses[1]), "%s", listen);
    node_start(&a);
    AWAIT(node_says(&a, 1, "this node's own name"));
    node_stop(&a);
    node_world_end();
}

static void host_names_are_looked_up(void **state)
{
    (void)state;
    struct node a, b;
    node_world_begin();
    node_options(&a, 0);
    node_options(&b, 1);
    b.options.listen = "localhost:0";
    node_start(&b);
    snprintf(a.addresses[1], sizeof(a.addresses[1]), "localhost:%u", peers_port(b.peers));
    node_start(&a);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    node_stop(&a);
    node_stop(&b);
    node_world_end();
}

// Takes the next connection, reads the HELLO, ends it; with `reset` as a process does that dies with bytes unread.
static void hang_up(int listener, bool reset)
{
    int fd;
    char bytes[4096];
    AWAIT((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0);
    AWAIT(recv(fd, bytes, sizeof(bytes), 0) > 0);
    const struct linger at_once = {.l_onoff = reset};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
    close(fd);
}

static bool is_told(struct node *node, const char *part)
{
    bool told = node_says(node, 1, part);
    node->peers->peer[1].status.trouble[0] = '\0'; // so that the next one is seen to come
    return told;
}

static void who_hangs_up_once_is_not_asked_for_tls(void **state)
{
    (void)state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &length), 0);
    struct node a;
    node_world_begin();
    node_options(&a, 0);
    node_address(&a, 1, ntohs(at.sin_port));
    node_start(&a);
    for (unsigned turn = 0; turn < MUTE_ENDS; turn++) {
        bool last = turn == MUTE_ENDS - 1;
        hang_up(listener, turn % 2 == 1);
        AWAIT(node_says(&a, 1, "before it said a word"));
        assert_int_equal(is_told(&a, "is ha.tls on there"), last);
    }
    // One that cannot be reached is another matter, and what was seen before it counts no more.
    close(listener);
    AWAIT(node_says(&a, 1, "cannot connect"));
    assert_int_equal(a.peers->peer[1].mute_ends, 0);
    node_stop(&a);
    node_world_end();
}

static void bytes_that_are_no_messages_end_the_connection(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27},
        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00", 16}, // TLS
        {"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\x01\x00\x00\x00", 16}, // a HELLO of 4 GiB
        {"\x00\x20\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x01\x00\x00\x00", 16}, // of 8 KiB
        {"\x04\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00zzzz", 20},
        {"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00", 16}, // WELCOME first
    };
    struct node b;
    node_world_begin();
    node_options(&b, 1);
    node_start(&b);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int fd = hand_dial(peers_port(b.peers));
        hand_say(fd, cases[i].bytes, cases[i].length);
        AWAIT(hand_closed(fd));
        close(fd);
    }
    assert_int_equal(b.peers->stranger.held_back, sizeof(cases) / sizeof(cases[0]) - 1);
    node_stop(&b);
    node_world_end();
}

static void a_session_ends_at_bytes_that_do_not_verify(void **state)
{
    (void)state;
    static const char *const parts[] = {"checksum", "a message of 16777216 bytes", "in the middle of a session",
                                        "not the bytes of a message"};
    struct node b;
    uint8_t bytes[WIRE_HEAD_MAX];
    struct wire_message *message = calloc(1, sizeof(*message));
    assert_non_null(message);
    message->message.kind = HA_HEARTBEAT;
    node_world_begin();
    node_options(&b, 1);
    node_start(&b);
    struct wire_hello hello = hand_hello(&b, 0);
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        int fd = hand_dial(peers_port(b.peers));
        hand_greet(fd, &hello, true);
        size_t length = wire_encode(&b.peers->cell, message, bytes);
        hand_say(fd, bytes, length);
        AWAIT(b.messages[0] == i + 1);
        if (i == 0)
            bytes[length - 1] ^= 1;
        else if (i == 1)
            memcpy(bytes, "\x00\x00\x00\x01\x00\x00\x00\x00\x10\x00\x00\x00\x04\x00\x00\x00", 16);
        else if (i == 2)
            length = wire_encode_hello(&hello, bytes);
        else
            bytes[12] = 77;
        hand_say(fd, bytes, length);
        AWAIT(b.downs[0] == i + 1 && hand_closed(fd));
        if (strstr(b.why[0], parts[i]) == NULL)
            fail_msg("%s, not %s", b.why[0], parts[i]);
        assert_int_equal(b.messages[0], i + 1);
        close(fd);
    }
    free(message);
    node_stop(&b);
    node_world_end();
}

static void strangers_do_not_keep_a_peer_out(void **state)
{
    (void)state;
    enum { STRANGERS = 3 * LINKS_GREETING_MAX };
    int fds[STRANGERS];
    struct node a, b;
    node_world_begin();
    node_options(&a, 0);
    node_options(&b, 1);
    node_start(&b);
    for (int i = 0; i < STRANGERS; i++)
        fds[i] = hand_dial(peers_port(b.peers));
    node_address(&a, 1, peers_port(b.peers));
    node_start(&a);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    unsigned links = 0;
    for (const struct link *link = b.peers->links; link != NULL; link = link->next)
        links++;
    assert_true(links <= LINKS_GREETING_MAX + 1);
    assert_true(hand_closed(fds[0]));
    for (int i = 0; i < STRANGERS; i++)
        close(fds[i]);
    node_stop(&a);
    node_stop(&b);
    node_world_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hello_that_differs_is_refused),
        cmocka_unit_test(both_ends_tell_the_difference),
        cmocka_unit_test(addresses_that_lead_elsewhere_are_told),
        cmocka_unit_test(host_names_are_looked_up),
        cmocka_unit_test(who_hangs_up_once_is_not_asked_for_tls),
        cmocka_unit_test(bytes_that_are_no_messages_end_the_connection),
        cmocka_unit_test(a_session_ends_at_bytes_that_do_not_verify),
        cmocka_unit_test(strangers_do_not_keep_a_peer_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
