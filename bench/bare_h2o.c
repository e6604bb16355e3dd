// bare-h2o: the yardstick. The same library as Sluice's listeners, N event loops, each with its own SO_REUSEPORT
// socket; every request gets a fixed 200 as long as Sluice's answer, and nothing else is done.
//
// Prints "port N" when it listens and runs until it is killed.
#include <h2o.h>
#include <h2o/http1.h>
#include <h2o/http2.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOPS_MAX = 64, BODY_BYTES_MAX = 16 << 20 };

static const char answer[] = "{\"ack\":\"disk\",\"accepted\":100,\"duplicates\":0,\"quarantined\":0,"
                             "\"stream\":\"gw-a1.42-7f3a\",\"first_seq\":471100,\"last_seq\":471199}";

static h2o_globalconf_t config;
static uint16_t port;

struct loop {
    h2o_context_t context;
    h2o_accept_ctx_t accept;
    int listen_fd;
    pthread_t thread;
};

static int on_request(h2o_handler_t *handler, h2o_req_t *request)
{
    (void)handler;
    static h2o_generator_t generator;
    request->res.status = 200;
    request->res.reason = "OK";
    request->res.content_length = sizeof(answer) - 1;
    h2o_add_header(&request->pool, &request->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL, H2O_STRLIT("application/json"));
    h2o_iovec_t body = h2o_iovec_init(answer, sizeof(answer) - 1);
    h2o_start_response(request, &generator);
    h2o_send(request, &body, 1, H2O_SEND_STATE_FINAL);
    return 0;
}

static void on_accept(h2o_socket_t *listener, const char *err)
{
    if (err != NULL)
        return;
    struct loop *loop = (struct loop *)listener->data;
    h2o_socket_t *socket = h2o_evloop_socket_accept(listener);
    if (socket != NULL)
        h2o_accept(&loop->accept, socket);
}

static void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

static int open_listener(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 1024) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        die("bare-h2o: listen");
    port = ntohs(address.sin_port);
    return fd;
}

static void *run_loop(void *argument)
{
    struct loop *loop = (struct loop *)argument;
    h2o_context_init(&loop->context, h2o_evloop_create(), &config);
    loop->accept.ctx = &loop->context;
    loop->accept.hosts = config.hosts;
    h2o_socket_t *listener = h2o_evloop_socket_create(loop->context.loop, loop->listen_fd, H2O_SOCKET_FLAG_DONT_READ);
    listener->data = loop;
    h2o_socket_read_start(listener, on_accept);
    for (;;)
        h2o_evloop_run(loop->context.loop, INT32_MAX);
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned loop_count = 1;
    int option;
    while ((option = getopt(argc, argv, "t:p:")) != -1) {
        if (option == 't')
            loop_count = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'p')
            port = (uint16_t)strtoul(optarg, NULL, 10);
        else
            loop_count = 0;
    }
    if (loop_count < 1 || loop_count > LOOPS_MAX) {
        fprintf(stderr, "usage: bare-h2o [-t LOOPS] [-p PORT]\n");
        return 2;
    }
    // As in Sluice: never a temporary file for a large body.
    h2o_socket_buffer_mmap_settings.threshold = SIZE_MAX;
    h2o_config_init(&config);
    config.max_request_entity_size = BODY_BYTES_MAX;
    h2o_hostconf_t *host = h2o_config_register_host(&config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    h2o_pathconf_t *path = h2o_config_register_path(host, "/", 0);
    h2o_create_handler(path, sizeof(h2o_handler_t))->on_req = on_request;

    static struct loop loops[LOOPS_MAX];
    for (unsigned i = 0; i < loop_count; i++)
        loops[i].listen_fd = open_listener();
    for (unsigned i = 0; i < loop_count; i++)
        if (pthread_create(&loops[i].thread, NULL, run_loop, &loops[i]) != 0)
            die("bare-h2o: thread");
    printf("port %u\n", (unsigned)port);
    fflush(stdout);
    pthread_join(loops[0].thread, NULL);
    return 0;
}
