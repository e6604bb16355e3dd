// Replicas: what is durable of them on this node, and what is on its way to the disk.
#include "tests/sim/node.h"

#include <string.h>

struct copy *shelf_find(struct node *node, uint32_t stream)
{
    for (size_t i = 0; i < COPIES_MAX; i++)
        if (node->shelf.copies[i].used && node->shelf.copies[i].stream == stream)
            return &node->shelf.copies[i];
    return NULL;
}

static struct copy *made(struct node *node, uint32_t stream)
{
    struct copy *copy = shelf_find(node, stream);
    for (size_t i = 0; i < COPIES_MAX && copy == NULL; i++)
        if (!node->shelf.copies[i].used)
            copy = &node->shelf.copies[i];
    sl_assert(copy != NULL);
    if (!copy->used)
        *copy = (struct copy){.used = true, .stream = stream, .base = 1};
    return copy;
}

static void apply_base(struct node *node, struct copy *copy, uint64_t base)
{
    copy->first = base;
    // What was there is produced, or the base rule would have refused.
    ledger_deleted(node->sim, copy->stream, copy->base, copy->end, node->index);
    copy->base = base;
    copy->end = base - 1;
}

static void apply(struct node *node, const struct shelf_write *write)
{
    struct copy *copy = &node->shelf.copies[write->copy];
    if (write->new_base)
        apply_base(node, copy, write->first);
    sl_assert(write->first == copy->end + 1);
    copy->end = write->last;
    ledger_durable(node->sim, copy->stream, write->first, write->last, node->index);
}

static void written(struct sim *sim, void *arg)
{
    struct node *node = sim->nodes[*(uint8_t *)arg];
    struct shelf *shelf = &node->shelf;
    sl_assert(shelf->write_count > 0);
    const struct shelf_write *write = &shelf->writes[shelf->write_first];
    shelf->write_first = (shelf->write_first + 1) % WRITES_MAX;
    shelf->write_count--;
    apply(node, write);
    ha_synced(&node->core, node_now(node), ledger_at(sim, shelf->copies[write->copy].stream)->id, write->last);
    node_after(node);
}

void shelf_store(struct node *node, const struct ha_action *action)
{
    struct shelf *shelf = &node->shelf;
    uint32_t stream = ledger_stream(node->sim, action->stream);
    // The tail of an own stream, behind what the spool has, begins on the shelf.
    struct copy *copy = made(node, stream);
    uint64_t end = copy->end;
    for (uint32_t i = 0; i < shelf->write_count; i++) {
        const struct shelf_write *write = &shelf->writes[(shelf->write_first + i) % WRITES_MAX];
        end = &shelf->copies[write->copy] == copy ? write->last : end;
    }
    bool new_base = action->new_base || end + 1 != action->first;
    sl_assert(shelf->write_count < WRITES_MAX);
    shelf->writes[(shelf->write_first + shelf->write_count++) % WRITES_MAX] = (struct shelf_write){
        .copy = (uint32_t)(copy - shelf->copies), .first = action->first, .last = action->last, .new_base = new_base};
    // One disk: writes end in the order in which they began.
    int64_t at_ns = node->sim->now_ns + sim_between(node->sim, MS / 10, 3 * MS) + node->slow_disk_ns;
    shelf->busy_until_ns = at_ns > shelf->busy_until_ns ? at_ns : shelf->busy_until_ns;
    sim_at_node(node->sim, node, shelf->busy_until_ns - node->sim->now_ns, written, &node->index, 1);
    node_remember(node, stream, action->first, action->last);
}

void shelf_trim(struct node *node, uint32_t stream, uint64_t last)
{
    struct copy *copy = shelf_find(node, stream);
    if (copy == NULL || last < copy->base)
        return;
    if (last > copy->end)
        last = copy->end;
    ledger_deleted(node->sim, stream, copy->base, last, node->index);
    copy->base = last + 1;
}

// ---- marks

struct mark {
    uint8_t node;
    struct ha_action action;
};

static void apply_mark(struct node *node, const struct ha_action *action)
{
    struct copy *copy = made(node, ledger_stream(node->sim, action->stream));
    if (action->kind == HA_FENCE_MARK) {
        copy->fenced = true;
        return;
    }
    copy->guard = action->last;
    if (copy->end < copy->base) {
        copy->base = action->last + 1;
        copy->end = action->last;
    }
}

static void marked(struct sim *sim, void *arg)
{
    const struct mark *mark = arg;
    struct node *node = sim->nodes[mark->node];
    apply_mark(node, &mark->action);
    ha_done(&node->core, node_now(node),
            &(struct ha_done){.kind = mark->action.kind,
                              .stream = mark->action.stream,
                              .lane_id = mark->action.lane_id,
                              .ticket = mark->action.ticket,
                              .through = mark->action.last});
    node_after(node);
}

void shelf_mark(struct node *node, const struct ha_action *action)
{
    struct mark mark = {.node = node->index, .action = *action};
    sim_at_node(node->sim, node, sim_between(node->sim, MS / 10, 5 * MS) + node->slow_disk_ns, marked, &mark,
                sizeof(mark));
}

// ---- crashes

void shelf_crash(struct node *node)
{
    struct shelf *shelf = &node->shelf;
    for (uint32_t i = 0; i < shelf->write_count; i++) {
        const struct shelf_write *write = &shelf->writes[(shelf->write_first + i) % WRITES_MAX];
        struct copy *copy = &shelf->copies[write->copy];
        uint64_t chance = sim_chance(node->sim) % 3;
        if (chance == 0)
            break;
        if (chance == 1) { // the base alone
            if (write->new_base)
                apply_base(node, copy, write->first);
            break;
        }
        if (write->new_base || write->first == copy->end + 1)
            apply(node, write);
    }
    shelf->write_first = shelf->write_count = 0;
    shelf->busy_until_ns = 0;
}

void shelf_lose(struct node *node)
{
    memset(&node->shelf, 0, sizeof(node->shelf));
}

// ---- what is held

void node_range(struct node *node, uint32_t stream, uint64_t *base, uint64_t *end)
{
    local_range(node, stream, base, end);
    const struct copy *copy = shelf_find(node, stream);
    if (copy == NULL || copy->end < copy->base || copy->base > *end + 1) {
        if (*end < *base && copy != NULL) {
            *base = copy->base;
            *end = copy->end;
        }
        return;
    }
    if (*end < *base)
        *base = copy->base;
    *end = copy->end > *end ? copy->end : *end;
}
