// h2o's buffers, allocated here: the functions h2o_buffer_reserve() and h2o_buffer__do_free() replace the library's.
//
// Why they are replaced and not wrapped: a body must be followed by HTTP_BODY_PADDING readable bytes; it must never be
// written to a file (the library maps buffers over 32 MiB from /tmp); its bytes must be charged to a connection from
// the first one on; and growth must not copy (16 MiB by doubling costs 32 MiB of copying and, for a moment, both
// copies).
//
// A buffer is one of five kinds:
//   - the prototype's own size (8 KiB for input and bodies, 80 KiB for output): from the prototype's free list
//   - HTTP_READ_BYTES: what one read of an HTTP/2 connection fills; from a free list of this thread
//   - larger, up to PART_BYTES with its head: a part of a huge page, from a free list of this thread, while it has any
//   - otherwise up to MAP_BYTES: malloc
//   - larger: mmap and mremap, so that the memory goes back to the system the moment it is freed
// In front of each lies a struct buffer_head that says whose it is.
//
// Charging: the buffer of a stream's body is charged when it grows (to http_here.conn, during its DATA frame); the
// input buffer of a socket by looking at it after each read (http_buffer_charge_input). The connection outlives its
// buffers.
#include "gateway/http_internal.h"

#include <string.h>
#include <sys/mman.h>

enum {
    MAP_BYTES = 131072,
    BODY_EXPECTED_MAX = 131072, // believe a content-length up to this and allocate it at once
    READ_LIST_MAX = 64,
    INPUT_RECYCLED_MAX = 1024, // 8 KiB buffers kept a thread: h2o's own 16 are fewer than the requests in flight
    OUTPUT_RECYCLED_MAX = 64,
    BUDGET_STEP_BYTES = 1 << 20,
    // Bodies of a hundred events: many are filled side by side, and fresh memory costs a page fault for every 4 KiB.
    CHUNK_BYTES = 2 << 20, // a huge page, where the system has them
    CHUNK_PARTS = 15,
    PART_BYTES = CHUNK_BYTES / CHUNK_PARTS / 64 * 64,
    CHUNKS_MAX = 4, // of a thread, until it ends
};

struct buffer_head {
    struct http_conn *owner; // charged; NULL = nobody
    size_t charged_bytes;
    size_t mapped_bytes; // 0 = not mapped
    bool held;           // charged as held, not as unfinished
    bool part;           // of a chunk
};

struct idle {
    struct idle *next;
};
struct idle_list {
    struct idle *first;
    uint32_t count;
};

static __thread struct idle_list idle_reads;
static __thread struct idle_list idle_parts;
static __thread char *chunks[CHUNKS_MAX];
static __thread uint32_t chunk_count;
static __thread h2o_buffer_prototype_t *output_prototype; // h2o's, static there; seen here when it is first used

static struct buffer_head *head_of(h2o_buffer_t *buffer)
{
    return (struct buffer_head *)(void *)((char *)buffer - sizeof(struct buffer_head));
}

static size_t total_bytes(size_t capacity)
{
    return sizeof(struct buffer_head) + offsetof(h2o_buffer_t, _buf) + capacity + HTTP_BODY_PADDING;
}

static bool is_recycled(const h2o_buffer_t *buffer)
{
    return buffer->capacity == buffer->_prototype->_initial_buf.capacity;
}

static void publish(struct http_loop *loop)
{
    atomic_store_explicit(&loop->counters.body_bytes, loop->body_bytes, memory_order_relaxed);
}

static void charge(struct http_conn *conn, uint64_t *account, size_t bytes)
{
    *account += bytes;
    conn->loop->body_bytes += bytes;
    publish(conn->loop);
}

static void discharge(struct http_conn *conn, uint64_t *account, size_t bytes)
{
    sl_assert(*account >= bytes && conn->loop->body_bytes >= bytes);
    *account -= bytes;
    conn->loop->body_bytes -= bytes;
    publish(conn->loop);
}

static void discharge_buffer(struct buffer_head *head)
{
    if (head->owner == NULL)
        return;
    discharge(head->owner, head->held ? &head->owner->held_bytes : &head->owner->unfinished_bytes, head->charged_bytes);
    head->owner = NULL;
    head->charged_bytes = 0;
}

void http_buffer_hold(h2o_buffer_t *buffer)
{
    struct buffer_head *head = head_of(buffer);
    if (buffer->bytes == NULL || head->owner == NULL || head->held)
        return;
    head->held = true;
    head->owner->unfinished_bytes -= head->charged_bytes;
    head->owner->held_bytes += head->charged_bytes;
}

void http_buffer_charge_input(struct http_conn *conn, bool held)
{
    const h2o_buffer_t *input = conn->sock->input;
    size_t bytes = input->bytes != NULL ? input->capacity : 0;
    if (bytes == conn->input_bytes && held == conn->input_held)
        return;
    http_buffer_uncharge_input(conn);
    conn->input_bytes = bytes;
    conn->input_held = held;
    charge(conn, held ? &conn->held_bytes : &conn->unfinished_bytes, bytes);
}

void http_buffer_uncharge_input(struct http_conn *conn)
{
    discharge(conn, conn->input_held ? &conn->held_bytes : &conn->unfinished_bytes, conn->input_bytes);
    conn->input_bytes = 0;
    conn->input_held = false;
}

// ---- allocation

static void idle_put(struct idle_list *list, void *memory)
{
    struct idle *idle = memory;
    idle->next = list->first;
    list->first = idle;
    list->count++;
}

static void *idle_take(struct idle_list *list)
{
    struct idle *idle = list->first;
    if (idle == NULL)
        return NULL;
    list->first = idle->next;
    list->count--;
    return idle;
}

static void *take_part(void)
{
    if (idle_parts.first == NULL && chunk_count < CHUNKS_MAX) {
        char *chunk = aligned_alloc(CHUNK_BYTES, CHUNK_BYTES);
        if (chunk == NULL)
            return NULL;
        (void)madvise(chunk, CHUNK_BYTES, MADV_HUGEPAGE); // refused where the system has none
        chunks[chunk_count++] = chunk;
        for (size_t i = 0; i < CHUNK_PARTS; i++)
            idle_put(&idle_parts, chunk + i * PART_BYTES);
    }
    return idle_take(&idle_parts);
}

static struct buffer_head *allocate_mapped(size_t total)
{
    size_t bytes = (total + 4095) & ~(size_t)4095;
    struct buffer_head *head = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (head == MAP_FAILED)
        h2o_fatal("no memory for a request body");
    *head = (struct buffer_head){.mapped_bytes = bytes};
    return head;
}

static struct buffer_head *allocate_head(size_t capacity, h2o_buffer_prototype_t *prototype)
{
    size_t total = total_bytes(capacity);
    struct buffer_head *head = NULL;
    bool part = false;
    if (capacity == prototype->_initial_buf.capacity) {
        head = h2o_mem_alloc_recycle(&prototype->allocator, total);
    } else if (capacity == HTTP_READ_BYTES) {
        head = idle_take(&idle_reads);
    } else if (capacity > HTTP_READ_BYTES && total <= PART_BYTES) {
        head = take_part();
        part = head != NULL;
    }
    if (head == NULL && total >= MAP_BYTES)
        return allocate_mapped(total);
    if (head == NULL)
        head = h2o_mem_alloc(total);
    *head = (struct buffer_head){.part = part};
    return head;
}

static h2o_buffer_t *allocate(size_t capacity, h2o_buffer_prototype_t *prototype)
{
    struct buffer_head *head = allocate_head(capacity, prototype);
    h2o_buffer_t *buffer = (h2o_buffer_t *)(void *)(head + 1);
    buffer->capacity = capacity;
    buffer->size = 0;
    buffer->bytes = buffer->_buf;
    buffer->_prototype = prototype;
    buffer->_fd = -1;
    return buffer;
}

void h2o_buffer__do_free(h2o_buffer_t *buffer)
{
    HTTP_HOOK_SEEN(h2o_buffer__do_free);
    struct buffer_head *head = head_of(buffer);
    discharge_buffer(head);
    if (head->mapped_bytes != 0)
        munmap(head, head->mapped_bytes);
    else if (head->part)
        idle_put(&idle_parts, head);
    else if (is_recycled(buffer))
        h2o_mem_free_recycle(&buffer->_prototype->allocator, head);
    else if (buffer->capacity == HTTP_READ_BYTES && idle_reads.count < READ_LIST_MAX)
        idle_put(&idle_reads, head);
    else
        free(head);
}

// A new first buffer of a prototype.
static h2o_buffer_t *create(h2o_buffer_prototype_t *prototype, size_t capacity)
{
    size_t initial = prototype->_initial_buf.capacity;
    bool output = prototype != &h2o_socket_buffer_prototype && initial > 0;
    size_t recycled_max = output ? OUTPUT_RECYCLED_MAX : INPUT_RECYCLED_MAX;
    if (prototype->allocator.max < recycled_max && initial > 0)
        prototype->allocator.max = recycled_max;
    if (output)
        output_prototype = prototype;
    return allocate(capacity < initial ? initial : capacity, prototype);
}

static size_t grown_capacity(const h2o_buffer_t *buffer, size_t needed, size_t expected)
{
    size_t capacity = buffer->capacity;
    if (needed < MAP_BYTES) {
        while (capacity < needed)
            capacity *= 2;
    } else {
        capacity = needed + needed / 4 + MAP_BYTES;
    }
    return expected >= needed && expected < capacity ? expected : capacity;
}

static h2o_buffer_t *grow(h2o_buffer_t *buffer, size_t capacity)
{
    struct buffer_head *head = head_of(buffer);
    size_t total = (total_bytes(capacity) + 4095) & ~(size_t)4095;
    if (head->mapped_bytes != 0 && total > head->mapped_bytes) {
        memmove(buffer->_buf, buffer->bytes, buffer->size);
        head = mremap(head, head->mapped_bytes, total, MREMAP_MAYMOVE);
        if (head == MAP_FAILED)
            h2o_fatal("no memory for a request body");
        head->mapped_bytes = total;
        buffer = (h2o_buffer_t *)(void *)(head + 1);
        buffer->capacity = capacity;
        buffer->bytes = buffer->_buf;
        return buffer;
    }
    h2o_buffer_t *grown = allocate(capacity, buffer->_prototype);
    memcpy(grown->_buf, buffer->bytes, buffer->size);
    grown->size = buffer->size;
    struct buffer_head *grown_head = head_of(grown);
    grown_head->owner = head->owner;
    grown_head->charged_bytes = head->charged_bytes;
    grown_head->held = head->held;
    head->owner = NULL; // the charge has moved
    h2o_buffer__do_free(buffer);
    return grown;
}

// Whether a body may come to hold `capacity` bytes; charges them when it may.
static bool charge_body(h2o_buffer_t *buffer, size_t capacity)
{
    struct buffer_head *head = head_of(buffer);
    struct http_conn *conn = http_here.conn;
    size_t more = capacity - head->charged_bytes;
    if (HTTP_ARMED("connection-budget") &&
        conn->unfinished_bytes - conn->input_bytes + more > conn->loop->server->limits.unfinished_bytes_connection)
        return false;
    head->owner = conn;
    head->charged_bytes = capacity;
    charge(conn, &conn->unfinished_bytes, more);
    return true;
}

static bool reserve_body(h2o_buffer_t **slot, size_t needed)
{
    h2o_buffer_t *buffer = *slot;
    size_t expected = http_here.stream->_expected_content_length;
    if (expected == SIZE_MAX)
        expected = 0;
    if (buffer->bytes == NULL) {
        h2o_buffer_prototype_t *prototype = H2O_STRUCT_FROM_MEMBER(h2o_buffer_prototype_t, _initial_buf, buffer);
        size_t capacity = expected > BODY_EXPECTED_MAX ? BODY_EXPECTED_MAX : expected;
        buffer = create(prototype, capacity < needed ? needed : capacity);
        if (!charge_body(buffer, buffer->capacity)) {
            h2o_buffer__do_free(buffer);
            return false;
        }
        *slot = buffer;
        return true;
    }
    if (needed <= buffer->capacity - buffer->size)
        return true; // nothing is ever consumed from a body: it begins at the front
    size_t capacity = grown_capacity(buffer, buffer->size + needed, expected);
    if (!charge_body(buffer, capacity))
        return false;
    *slot = grow(buffer, capacity);
    return true;
}

static void reserve_plain(h2o_buffer_t **slot, size_t needed)
{
    h2o_buffer_t *buffer = *slot;
    if (buffer->bytes == NULL) {
        *slot = create(H2O_STRUCT_FROM_MEMBER(h2o_buffer_prototype_t, _initial_buf, buffer), needed);
        return;
    }
    size_t front = (size_t)(buffer->bytes - buffer->_buf);
    if (needed <= buffer->capacity - buffer->size - front)
        return;
    if ((buffer->size + needed) * 2 <= buffer->capacity) {
        memmove(buffer->_buf, buffer->bytes, buffer->size);
        buffer->bytes = buffer->_buf;
        return;
    }
    *slot = grow(buffer, grown_capacity(buffer, buffer->size + needed, 0));
}

h2o_iovec_t h2o_buffer_reserve(h2o_buffer_t **slot, size_t min_guarantee)
{
    HTTP_HOOK_SEEN(h2o_buffer_reserve);
    if (http_here.stream != NULL && slot == &http_here.stream->_req_body) {
        if (!reserve_body(slot, min_guarantee)) {
            http_here.body_refused = true;
            return h2o_iovec_init(NULL, 0);
        }
    } else {
        reserve_plain(slot, min_guarantee);
    }
    h2o_buffer_t *buffer = *slot;
    char *end = buffer->bytes + buffer->size;
    return h2o_iovec_init(end, (size_t)(buffer->_buf + buffer->capacity - end));
}

void http_buffer_compact(h2o_buffer_t **slot)
{
    h2o_buffer_t *buffer = *slot;
    if (buffer->bytes == NULL || buffer->capacity < HTTP_READ_BYTES || buffer->size > 4096)
        return;
    h2o_buffer_t *small = create(buffer->_prototype, 0);
    memcpy(small->_buf, buffer->bytes, buffer->size);
    small->size = buffer->size;
    *slot = small;
    h2o_buffer__do_free(buffer);
}

// ---- the thread's free lists

static void drain_recycled(h2o_mem_recycle_t *allocator)
{
    while (allocator->cnt > 0)
        free(h2o_mem_alloc_recycle(allocator, 1));
}

// h2o keeps free lists in thread-local variables and never gives them back.
void http_buffer_thread_end(void)
{
    drain_recycled(&h2o_socket_buffer_prototype.allocator);
    if (output_prototype != NULL)
        drain_recycled(&output_prototype->allocator);
    while (idle_reads.first != NULL)
        free(idle_take(&idle_reads));
    sl_assert(idle_parts.count == chunk_count * CHUNK_PARTS);
    while (chunk_count > 0)
        free(chunks[--chunk_count]);
    idle_parts = (struct idle_list){0};
    // The list of the request pools' chunks cannot be reached, but a new pool takes its first chunk from it.
    for (int i = 0; i < 16; i++) {
        h2o_mem_pool_t pool;
        h2o_mem_init_pool(&pool);
        h2o_mem_alloc_pool(&pool, 1);
        free(pool.chunks);
    }
}

// ---- the budget of all connections

static uint64_t all_body_bytes(const struct http_server *server)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < server->loop_count; i++)
        total += atomic_load_explicit(&server->loops[i].counters.body_bytes, memory_order_relaxed);
    return total;
}

static struct http_conn *largest_holder(struct http_loop *loop)
{
    struct http_conn *largest = NULL;
    for (struct http_conn *conn = loop->conns; conn != NULL; conn = conn->next)
        if (conn->doom == NULL && !conn->closing &&
            (largest == NULL || conn->unfinished_bytes > largest->unfinished_bytes))
            largest = conn;
    return largest;
}

static h2o_http2_stream_t *largest_body(struct http_conn *conn)
{
    h2o_http2_stream_t *largest = NULL;
    for (uint32_t i = 0; i < conn->slot_count; i++) {
        h2o_http2_stream_t *stream = conn->slots[i].stream;
        if (stream->state == H2O_HTTP2_STREAM_STATE_RECV_BODY && stream->_req_body != NULL &&
            stream->_req_body->bytes != NULL &&
            (largest == NULL || stream->_req_body->capacity > largest->_req_body->capacity))
            largest = stream;
    }
    return largest;
}

static void shed(struct http_conn *conn)
{
    static const char detail[] = "too many request bodies are being received at once";
    h2o_http2_stream_t *stream = conn->protocol == HTTP_2 ? largest_body(conn) : NULL;
    if (stream != NULL) {
        http_stream_refuse(conn, stream, 503, detail, true);
        http_stream_count_reset(conn, stream->stream_id);
    } else if (conn->protocol != HTTP_1 || conn->phase != HTTP_BODY || !http_request_refuse_h1(conn, 503, detail)) {
        http_conn_close(conn, "body budget");
    }
}

static void ask_others(struct http_loop *loop, uint64_t share)
{
    struct http_server *server = loop->server;
    for (uint32_t i = 0; i < server->loop_count; i++) {
        struct http_loop *other = &server->loops[i];
        if (other != loop && atomic_load_explicit(&other->counters.body_bytes, memory_order_relaxed) > share &&
            !atomic_exchange(&other->shed_wanted, true))
            http_loop_post(other, &other->shed_task);
    }
}

void http_budget_enforce(struct http_loop *loop)
{
    uint64_t limit = loop->server->limits.unfinished_bytes;
    uint64_t share = limit / loop->server->loop_count;
    if (loop->body_bytes <= share && loop->body_bytes <= loop->budget_next)
        return;
    loop->budget_next = loop->body_bytes + BUDGET_STEP_BYTES;
    if (!HTTP_ARMED("budget"))
        return;
    while (all_body_bytes(loop->server) > limit) {
        if (loop->body_bytes <= share) {
            ask_others(loop, share);
            return;
        }
        struct http_conn *largest = largest_holder(loop);
        if (largest == NULL || largest->unfinished_bytes <= HTTP_FLOOR_BYTES)
            return;
        uint64_t before = loop->body_bytes;
        shed(largest);
        if (loop->body_bytes >= before)
            return; // it goes when its socket has told h2o so
    }
}
