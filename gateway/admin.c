// The admin endpoint: /livez /readyz /metrics /status, the status page at /, and POST /drain and /reload from loopback.
#include "gateway/gateway.h"

#include "gateway/problem.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern const char status_page[]; // page.html, by scripts/embed.py
extern const size_t status_page_length;

static void answer_problem(struct http_request *request, int status, const char *detail)
{
    char body[512];
    struct problem problem = {.status = status, .detail = detail};
    size_t length = problem_write(body, sizeof(body), &problem);
    http_respond(request, status, "application/problem+json", NULL, 0, body, length);
}

// Takes the malloc'd body.
static void answer_and_free(struct http_request *request, int status, const char *content_type, char *body,
                            size_t length)
{
    if (body == NULL) {
        answer_problem(request, 503, "Out of memory.");
        return;
    }
    struct http_header fresh = {.name = "cache-control", .value = sl_span_of("no-store")};
    http_respond(request, status, content_type, &fresh, 1, body, length);
    free(body);
}

static void get_livez(struct http_request *request, struct gateway *gateway)
{
    (void)gateway; // that this thread answers is the answer
    static const char body[] = "ok\n";
    http_respond(request, 200, "text/plain; charset=utf-8", NULL, 0, body, sizeof(body) - 1);
}

static void get_readyz(struct http_request *request, struct gateway *gateway)
{
    bool ready = false;
    size_t length = 0;
    char *body = ready_json(gateway, &ready, &length);
    answer_and_free(request, ready ? 200 : 503, "application/json", body, length);
}

static void get_metrics(struct http_request *request, struct gateway *gateway)
{
    size_t length = 0;
    char *body = metrics_text(gateway, &length);
    answer_and_free(request, 200, "text/plain; version=0.0.4; charset=utf-8", body, length);
}

static void get_status(struct http_request *request, struct gateway *gateway)
{
    size_t length = 0;
    char *body = status_json(gateway, &length);
    answer_and_free(request, 200, "application/json", body, length);
}

static void get_page(struct http_request *request, struct gateway *gateway)
{
    (void)gateway;
    http_respond(request, 200, "text/html; charset=utf-8", NULL, 0, status_page, status_page_length);
}

// To the main thread as the signal that means the same: one way in for each.
static void post_signal(struct http_request *request, int signal_number, const char *body)
{
    if (!http_request_is_loopback(request)) {
        answer_problem(request, 403, "Only from this machine.");
        return;
    }
    http_respond(request, 202, "application/json", NULL, 0, body, strlen(body));
    kill(getpid(), signal_number);
}

static void post_drain(struct http_request *request, struct gateway *gateway)
{
    (void)gateway;
    post_signal(request, SIGTERM, "{\"draining\":true}");
}

static void post_reload(struct http_request *request, struct gateway *gateway)
{
    (void)gateway;
    post_signal(request, SIGHUP, "{\"reloading\":true}");
}

static const struct endpoint {
    const char *path, *method;
    void (*answer)(struct http_request *request, struct gateway *gateway);
} endpoints[] = {
    {"/livez", "GET", get_livez},     {"/readyz", "GET", get_readyz}, {"/metrics", "GET", get_metrics},
    {"/status", "GET", get_status},   {"/", "GET", get_page},         {"/drain", "POST", post_drain},
    {"/reload", "POST", post_reload},
};

static bool equals(struct sl_span span, const char *text)
{
    return span.length == strlen(text) && memcmp(span.bytes, text, span.length) == 0;
}

void admin_on_request(struct http_request *request, void *user)
{
    struct gateway *gateway = user;
    for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
        if (!equals(http_request_path(request), endpoints[i].path))
            continue;
        bool head = equals(http_request_method(request), "HEAD") && strcmp(endpoints[i].method, "GET") == 0;
        if (head || equals(http_request_method(request), endpoints[i].method)) {
            endpoints[i].answer(request, gateway);
            return;
        }
        struct http_header allow = {.name = "allow", .value = sl_span_of(endpoints[i].method)};
        char body[512];
        struct problem problem = {.status = 405, .detail = "This path takes another method."};
        size_t length = problem_write(body, sizeof(body), &problem);
        http_respond(request, 405, "application/problem+json", &allow, 1, body, length);
        return;
    }
    answer_problem(request, 404, "There is nothing here; see /, /status, /metrics, /readyz, /livez.");
}
