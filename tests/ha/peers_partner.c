#include "tests/ha/peers_partner.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

int hand_dial(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0); // the kernel accepts it
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

void hand_say(int fd, const void *bytes, size_t length)
{
    assert_int_equal(send(fd, bytes, length, MSG_NOSIGNAL), length);
}

// Whether the other end closed. What it says is read and passed over.
bool hand_closed(int fd)
{
    char bytes[4096];
    ssize_t got;
    while ((got = recv(fd, bytes, sizeof(bytes), 0)) > 0)
        continue;
    return got == 0 || errno == ECONNRESET;
}

struct wire_hello hand_hello(const struct node *to, uint8_t self)
{
    struct wire_hello hello = {.version = WIRE_VERSION, .member_count = 3, .self = self, .chance = 4711};
    snprintf(hello.cluster, sizeof(hello.cluster), "%s", to->options.cluster);
    for (uint8_t i = 0; i < 3; i++) {
        snprintf(hello.members[i].name, sizeof(hello.members[i].name), "%s", to->options.names[i]);
        snprintf(hello.members[i].zone, sizeof(hello.members[i].zone), "%s", to->options.zones[i]);
    }
    memcpy(hello.dedupe_key_id, to->options.dedupe_key_id, sizeof(hello.dedupe_key_id));
    return hello;
}

void hand_greet(int fd, const struct wire_hello *hello, bool welcome)
{
    uint8_t bytes[WIRE_HEAD_MAX];
    hand_say(fd, bytes, wire_encode_hello(hello, bytes));
    if (welcome)
        hand_say(fd, bytes, wire_encode_welcome(bytes));
}
