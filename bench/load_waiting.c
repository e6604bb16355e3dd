// Requests that wait to be sent again: a binary heap by the time at which each is due, so that thousands of them cost
// little during an outage.
#include "bench/load.h"

static bool earlier(const struct load_request *a, const struct load_request *b)
{
    return a->resend_ns < b->resend_ns;
}

void load_waiting_push(struct load *load, struct load_request *request)
{
    size_t at = load->waiting_count++;
    while (at > 0 && earlier(request, load->waiting[(at - 1) / 2])) {
        load->waiting[at] = load->waiting[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    load->waiting[at] = request;
}

struct load_request *load_waiting_pop(struct load *load)
{
    if (load->waiting_count == 0)
        return NULL;
    struct load_request *first = load->waiting[0], *moved = load->waiting[--load->waiting_count];
    size_t at = 0;
    for (size_t child = 1; child < load->waiting_count; child = 2 * at + 1) {
        if (child + 1 < load->waiting_count && earlier(load->waiting[child + 1], load->waiting[child]))
            child++;
        if (!earlier(load->waiting[child], moved))
            break;
        load->waiting[at] = load->waiting[child];
        at = child;
    }
    load->waiting[at] = moved;
    return first;
}

int64_t load_waiting_due_ns(const struct load *load)
{
    return load->waiting_count == 0 ? INT64_MAX : load->waiting[0]->resend_ns;
}
