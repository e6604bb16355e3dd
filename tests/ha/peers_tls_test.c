// Sessions over mutual TLS 1.3: whose certificate is taken, and what both ends say when one is not.
#include "tests/ha/certificates.h"
#include "tests/ha/peers_node.h"
#include "tests/ha/peers_partner.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DAY_S = 86400 };

// A folder of its own, with two CAs of which the nodes trust the first.
static char folder[64];
static struct ca trusted, other;

static const char *in_folder(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static int world_begin(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/sluice-peers-XXXXXX");
    sl_assert(mkdtemp(folder) != NULL);
    ca_make(&trusted, "the cell's CA", in_folder("ca.pem"));
    ca_make(&other, "another CA", in_folder("other.pem"));
    node_world_begin();
    return 0;
}

static int world_end(void **state)
{
    (void)state;
    static const char *const files[] = {"ca.pem", "other.pem", "a.pem", "a.key", "b.pem", "b.key"};
    node_world_end();
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        unlink(in_folder(files[i]));
    sl_assert(rmdir(folder) == 0);
    ca_free(&trusted);
    ca_free(&other);
    return 0;
}

// Options of a node with its own certificate in <name>.pem.
static void tls_options(struct node *node, uint8_t self)
{
    static char paths[2][3][128];
    node_options(node, self);
    snprintf(paths[self][0], 128, "%s", in_folder(self == 0 ? "a.pem" : "b.pem"));
    snprintf(paths[self][1], 128, "%s", in_folder(self == 0 ? "a.key" : "b.key"));
    snprintf(paths[self][2], 128, "%s", in_folder("ca.pem"));
    node->options.tls_certificate = paths[self][0];
    node->options.tls_key = paths[self][1];
    node->options.tls_ca = paths[self][2];
}

static void good_certificates(void)
{
    ca_issue(&trusted, "gw-a1", -DAY_S, DAY_S, in_folder("a"));
    ca_issue(&trusted, "gw-b1", -DAY_S, DAY_S, in_folder("b"));
}

// Both ends say, in the end, what is expected, and there never was a session. After that the certificates are replaced
// by good ones, and the session begins without a restart.
static void expect_refusal_then_rotate(const char *a_says, const char *b_says)
{
    struct node a, b;
    tls_options(&a, 0);
    tls_options(&b, 1);
    node_pair(&a, &b);
    AWAIT(node_says(&a, 1, a_says));
    if (b_says != NULL)
        AWAIT(node_says(&b, 0, b_says) || strstr(b.peers->stranger.text, b_says) != NULL);
    assert_int_equal(a.ups[1] + b.ups[0], 0);
    good_certificates();
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    node_stop(&a);
    node_stop(&b);
}

static void frames_pass(void **state)
{
    (void)state;
    static const size_t sizes[] = {4, 16384, 65536, 3 << 20, 100, 5 << 20};
    struct node a, b;
    unsigned released = 0;
    uint64_t seq = 0;
    good_certificates();
    tls_options(&a, 0);
    tls_options(&b, 1);
    node_pair(&a, &b);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    struct link *link = a.peers->peer[1].link;
    assert_string_equal(SSL_get_version(link->ssl), "TLSv1.3");
    while (seq < 24) {
        AWAIT(peers_has_room(a.peers, 1) && peers_has_room(b.peers, 0));
        seq++;
        assert_true(node_send_frame(&a, 1, seq, sizes[seq % 6], &released));
        assert_true(node_send_frame(&b, 0, seq, sizes[(seq + 1) % 6], &released));
        assert_true(node_send_heartbeat(&b, 0));
    }
    AWAIT(b.last_seq[0] == seq && a.last_seq[1] == seq && released == 2 * seq && a.messages[1] == 2 * seq);
    assert_false(a.broken_frame || b.broken_frame);
    struct peer_status status;
    peers_status(b.peers, 0, &status);
    assert_true(status.up && status.tls);
    node_stop(&a);
    AWAIT(!node_up(&b, 0));
    assert_string_equal(b.why[0], "the other end closed the connection");
    node_stop(&b);
}

static void a_slow_reader_bounds_what_waits(void **state)
{
    (void)state;
    struct node a, b;
    unsigned released = 0;
    uint64_t seq = 0;
    good_certificates();
    tls_options(&a, 0);
    tls_options(&b, 1);
    b.hold_at_frame = true;
    node_pair(&a, &b);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    for (unsigned turns_without_room = 0; turns_without_room < 100; node_turn()) {
        turns_without_room = peers_has_room(a.peers, 1) ? 0 : turns_without_room + 1;
        while (peers_has_room(a.peers, 1))
            assert_true(node_send_frame(&a, 1, ++seq, 100000, &released));
    }
    assert_int_equal(b.last_seq[0], 1);
    b.hold_at_frame = false;
    peers_hold_reading(b.peers, 0, false);
    AWAIT(b.last_seq[0] == seq && released == seq);
    assert_false(b.broken_frame);
    node_stop(&a);
    node_stop(&b);
}

static void the_zone_is_a_name(void **state)
{
    (void)state;
    struct node a, b;
    ca_issue(&trusted, "az-a", -DAY_S, DAY_S, in_folder("a"));
    ca_issue(&trusted, "az-b", -DAY_S, DAY_S, in_folder("b"));
    tls_options(&a, 0);
    tls_options(&b, 1);
    node_pair(&a, &b);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    node_stop(&a);
    node_stop(&b);
}

static void another_ca_is_refused(void **state)
{
    (void)state;
    good_certificates();
    ca_issue(&other, "gw-a1", -DAY_S, DAY_S, in_folder("a"));
    expect_refusal_then_rotate("does not take this node's certificate", "unable to get local issuer certificate");
    ca_issue(&other, "gw-b1", -DAY_S, DAY_S, in_folder("b"));
    expect_refusal_then_rotate("unable to get local issuer certificate", "does not take this node's certificate");
}

static void an_expired_certificate_is_refused(void **state)
{
    (void)state;
    good_certificates();
    ca_issue(&trusted, "gw-a1", -2 * DAY_S, -DAY_S, in_folder("a"));
    expect_refusal_then_rotate("certificate expired", "certificate has expired, ");
    ca_issue(&trusted, "gw-b1", -2 * DAY_S, -DAY_S, in_folder("b"));
    expect_refusal_then_rotate("certificate has expired, ", "certificate expired");
    ca_issue(&trusted, "gw-a1", DAY_S / 2, DAY_S, in_folder("a"));
    expect_refusal_then_rotate("does not take this node's certificate", "certificate is not yet valid, ");
}

static void a_wrong_name_is_refused(void **state)
{
    (void)state;
    good_certificates();
    ca_issue(&trusted, "gw-b1", -DAY_S, DAY_S, in_folder("a"));
    expect_refusal_then_rotate("closed the connection instead of a WELCOME: its log says why",
                               "their certificate names gw-b1; it must have the DNS name gw-a1 or az-a");
    ca_issue(&trusted, "gw-c1", -DAY_S, DAY_S, in_folder("b"));
    expect_refusal_then_rotate("their certificate names gw-c1; it must have the DNS name gw-b1 or az-b", NULL);
    // The common name is gw-a1.
    ca_issue(&trusted, "", -DAY_S, DAY_S, in_folder("a"));
    expect_refusal_then_rotate("instead of a WELCOME: its log says why", "their certificate names nobody");
    ca_issue(&trusted, "*", -DAY_S, DAY_S, in_folder("a"));
    expect_refusal_then_rotate("instead of a WELCOME: its log says why", "their certificate names *");
}

static void certificates_are_read_for_each_session(void **state)
{
    (void)state;
    struct node a, b;
    good_certificates();
    tls_options(&a, 0);
    tls_options(&b, 1);
    node_pair(&a, &b);
    AWAIT(node_up(&a, 1) && node_up(&b, 0));
    // A session goes on with what it began with; the next one does not.
    ca_issue(&other, "gw-a1", -DAY_S, DAY_S, in_folder("a"));
    assert_true(node_send_heartbeat(&a, 1));
    AWAIT(b.messages[0] == 1);
    assert_true(node_up(&a, 1));
    link_doom(a.peers->peer[1].link, "the test wants it");
    AWAIT(a.downs[1] == 1 && node_says(&a, 1, "does not take this node's certificate"));
    // A file that is not there is told, and the next attempt finds the new one.
    assert_int_equal(unlink(in_folder("a.pem")), 0);
    AWAIT(node_says(&a, 1, "this node's own certificate") && node_says(&a, 1, "No such file"));
    good_certificates();
    AWAIT(a.ups[1] == 2 && node_up(&b, 0));
    node_stop(&a);
    node_stop(&b);
}

static void plain_and_tls_do_not_meet(void **state)
{
    (void)state;
    struct node a, b;
    good_certificates();
    tls_options(&a, 0);
    node_options(&b, 1);
    node_pair(&a, &b);
    AWAIT(node_says(&a, 1, "does not speak TLS"));
    AWAIT(strstr(b.peers->stranger.text, "speaks TLS and this node does not") != NULL);
    node_stop(&a);
    node_stop(&b);
    node_options(&a, 0);
    tls_options(&b, 1);
    node_pair(&a, &b);
    AWAIT(node_says(&a, 1, "is ha.tls on there, and off here?"));
    AWAIT(strstr(b.peers->stranger.text, "does not speak TLS") != NULL);
    assert_int_equal(a.ups[1] + b.ups[0], 0);
    node_stop(&a);
    node_stop(&b);
}

// A client made by hand, until it is told something that it does not like, or the connection ends.
static void hand_tls(const struct node *to, int version, char *told, size_t size)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    assert_non_null(context);
    assert_int_equal(SSL_CTX_set_max_proto_version(context, version), 1);
    SSL *ssl = SSL_new(context);
    int fd = hand_dial(peers_port(to->peers));
    assert_int_equal(SSL_set_fd(ssl, fd), 1);
    SSL_set_connect_state(ssl);
    char byte;
    int result;
    ERR_clear_error();
    AWAIT((result = SSL_read(ssl, &byte, 1)) <= 0 && SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ);
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    snprintf(told, size, "%s", reason != NULL ? reason : "nothing");
    ERR_clear_error();
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(fd);
}

static void strangers_are_told_why(void **state)
{
    (void)state;
    struct node b;
    char told[128];
    good_certificates();
    tls_options(&b, 1);
    node_start(&b);
    hand_tls(&b, TLS1_3_VERSION, told, sizeof(told));
    assert_non_null(strstr(told, "certificate required"));
    AWAIT(strstr(b.peers->stranger.text, "shows no certificate") != NULL);
    node_stop(&b);
    node_start(&b);
    hand_tls(&b, TLS1_2_VERSION, told, sizeof(told));
    assert_non_null(strstr(told, "protocol version"));
    AWAIT(strstr(b.peers->stranger.text, "does not speak TLS 1.3") != NULL);
    node_stop(&b);
}

static void a_key_must_belong_to_its_certificate(void **state)
{
    (void)state;
    struct node a;
    struct sl_error err;
    good_certificates();
    tls_options(&a, 0);
    for (uint8_t i = 0; i < HA_MEMBERS_MAX; i++)
        a.options.addresses[i] = a.addresses[i];
    a.options.tls_key = in_folder("b.key");
    assert_false(peers_start(&a.peers, &a.options, &err));
    assert_int_equal(err.code, SL_E_CONFIG);
    assert_non_null(strstr(err.text, "does not belong to certificate"));
    a.options.tls_key = in_folder("a.key");
    a.options.tls_ca = in_folder("a.key");
    assert_false(peers_start(&a.peers, &a.options, &err));
    assert_int_equal(err.code, SL_E_CONFIG);
    assert_non_null(strstr(err.text, "ca "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(frames_pass, world_begin, world_end),
        cmocka_unit_test_setup_teardown(a_slow_reader_bounds_what_waits, world_begin, world_end),
        cmocka_unit_test_setup_teardown(the_zone_is_a_name, world_begin, world_end),
        cmocka_unit_test_setup_teardown(another_ca_is_refused, world_begin, world_end),
        cmocka_unit_test_setup_teardown(an_expired_certificate_is_refused, world_begin, world_end),
        cmocka_unit_test_setup_teardown(a_wrong_name_is_refused, world_begin, world_end),
        cmocka_unit_test_setup_teardown(certificates_are_read_for_each_session, world_begin, world_end),
        cmocka_unit_test_setup_teardown(plain_and_tls_do_not_meet, world_begin, world_end),
        cmocka_unit_test_setup_teardown(strangers_are_told_why, world_begin, world_end),
        cmocka_unit_test_setup_teardown(a_key_must_belong_to_its_certificate, world_begin, world_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
