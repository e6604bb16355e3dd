// The scanner: walks a stream's files frame by frame, gathers the facts at each place, and acts on the table's verdict.
//
// The happy path: open the first file, check its header, take frame after frame, pass the seal, open the next file. At
// the end of the last file: nothing written any more (clean end), or the seal of a closed stream.
//
// After damage it goes on at the next frame of the file that verifies (found block by block: a frame verifies only with
// its file's UUID and its own offset), else at the next file; the seqs in between are the lost range. The chain starts
// anew there.
//
// Headers only (the keeper's first walk of an older stream): bodies are not read, but for the last frame's, the only
// one that can be torn: when the place behind it holds no frame, the scanner takes it again with its body. Bodies of
// ids frames are never read but in that way.
#include "spool/internal.h"
#include "spool/search.h"

#include <errno.h>
#include <string.h>

enum { READ_FAILURES_MAX = 3 };

static void place(struct scanner *scanner, uint64_t offset, uint64_t expected, bool chain_known, uint32_t chain)
{
    scanner->offset = offset;
    scanner->expected = expected;
    scanner->chain_known = chain_known;
    scanner->chain = chain;
    scanner->read_failures = 0;
}

void scanner_init(struct scanner *scanner, uint64_t segment, uint64_t expected)
{
    scanner->handle = -1;
    scanner->file = (struct scan_segment){0};
    scanner->next_file = segment;
    scanner->unread = scanner->force_body = scanner->ended = scanner->closed_seal = false;
    scanner->acked = scanner->acked_floor;
    place(scanner, 0, expected, false, 0);
}

void scanner_init_at(struct scanner *scanner, uint64_t segment, uint64_t offset, uint64_t expected)
{
    scanner_init(scanner, segment, expected);
    scanner->offset = offset;
}

static void close_file(struct scanner *scanner)
{
    if (scanner->handle >= 0)
        scanner->storage->ops->close(scanner->storage->context, scanner->handle);
    scanner->handle = -1;
}

void scanner_release(struct scanner *scanner)
{
    close_file(scanner);
}

// ---- files

static void damage_event(struct scanner *scanner, struct scan_event *event, enum verdict verdict, uint64_t first_seq,
                         uint64_t last_seq)
{
    event->verdict = verdict;
    event->segment = scanner->file.first_seq;
    event->offset = scanner->offset;
    event->end_offset = scanner->offset;
    event->first_seq = first_seq;
    event->last_seq = last_seq;
}

enum opened { OPENED, OPENED_DAMAGED, OPEN_WAIT, OPEN_NONE, OPEN_FAILED };

// The header block of the file just opened. OPENED_DAMAGED: *event says what is wrong; the frames are read all the
// same, unless none can be (then the file is passed over, and the gap shows at the next one).
static enum opened check_file_header(struct scanner *scanner, struct scan_event *event, struct sl_error *err)
{
    uint8_t block[SPOOL_BLOCK];
    size_t got;
    if (!scan_read_at(scanner, block, sizeof(block), 0, &got, err))
        return OPEN_FAILED;
    struct segment_header header;
    struct sl_error why;
    bool decoded = got == sizeof(block) && segment_header_decode(&header, block, &why);
    bool ours = decoded && strcmp(header.stream, scanner->stream) == 0 && header.first_seq == scanner->file.first_seq;
    damage_event(scanner, event, decoded ? VERDICT_MISDIRECTED : VERDICT_LOST_HEADER, scanner->expected,
                 scanner->expected - 1);
    scanner->declared_bytes = decoded ? header.size_bytes : scanner->file_bytes;
    if (!decoded) {
        bool found = false;
        if (!scan_find_uuid(scanner, &found, err))
            return OPEN_FAILED;
        if (!found) // whatever is not zero in it gets its verdict there
            memset(&scanner->uuid, 0, sizeof(scanner->uuid));
        return OPENED_DAMAGED;
    }
    if (!ours) {
        close_file(scanner);
        scanner->next_file = scanner->file.first_seq + 1;
        return OPENED_DAMAGED;
    }
    scanner->uuid = header.uuid;
    bool other = scanner->chain_known && scanner->chain != header.previous_frame_crc;
    if (scanner->offset == SPOOL_BLOCK) {
        scanner->chain_known = true;
        scanner->chain = header.previous_frame_crc;
    }
    return other ? OPENED_DAMAGED : OPENED; // misdirected: not written behind the segment before it
}

static enum opened open_file(struct scanner *scanner, struct scan_event *event, struct sl_error *err)
{
    struct scan_segment file = {0};
    if (!scanner->source.segment(scanner->source.user, scanner->next_file, &file)) {
        scanner->file.live = file.live; // it may have ended since
        return OPEN_NONE;
    }
    if (file.live && file.limit <= SPOOL_BLOCK)
        return OPEN_WAIT; // it may yet be replaced by another empty one
    if (scanner->expected < file.first_seq) {
        uint64_t first = scanner->expected;
        bool deleted = file.first_seq <= file.base_seq;
        scanner->file = file;
        scanner->next_file = file.first_seq;
        place(scanner, 0, file.first_seq, false, 0);
        if (!deleted) {
            damage_event(scanner, event, VERDICT_MISSING_SEGMENT, first, file.first_seq - 1);
            return OPENED_DAMAGED;
        }
    }
    char path[SPOOL_PATH_MAX];
    segment_path(path, scanner->dir, file.first_seq);
    struct storage_file_info info;
    const struct storage *storage = scanner->storage;
    int rc = storage->ops->info(storage->context, path, &info);
    int handle = rc < 0 ? rc : storage->ops->open(storage->context, path, STORAGE_READ);
    if (handle < 0) {
        sl_fail_errno(err, SL_E_IO, -handle, "open %s", path);
        return OPEN_FAILED;
    }
    scanner->file = file;
    scanner->handle = handle;
    scanner->file_bytes = info.size_bytes;
    if (scanner->offset < SPOOL_BLOCK)
        scanner->offset = SPOOL_BLOCK;
    enum opened opened = check_file_header(scanner, event, err);
    if (opened == OPEN_FAILED)
        close_file(scanner);
    return opened;
}

static void next_file(struct scanner *scanner)
{
    close_file(scanner);
    scanner->next_file = scanner->file.first_seq + 1;
    scanner->offset = 0;
}

// ---- one place

struct look {
    struct facts facts;
    struct frame_header header;
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct search search;
    uint64_t next_first_seq; // of the file that follows, when one does
};

static enum fact_header look_at_header(struct scanner *scanner, struct look *look, struct sl_error *err, bool *failed)
{
    size_t got;
    *failed = false;
    if (!scan_read_at(scanner, look->bytes, sizeof(look->bytes), scanner->offset, &got, err)) {
        // A sector that cannot be read again and again is damage like any other; below that count it may pass.
        *failed = ++scanner->read_failures < READ_FAILURES_MAX;
        memset(look->bytes, 0, sizeof(look->bytes));
        return HEADER_BAD;
    }
    if (got == 0)
        return HEADER_ABSENT;
    if (got < sizeof(look->bytes)) {
        bool zero = spool_all_zero(look->bytes, got);
        memset(look->bytes + got, 0, sizeof(look->bytes) - got);
        return zero ? HEADER_ABSENT : HEADER_BAD;
    }
    switch (frame_header_decode(&look->header, look->bytes)) {
    case FRAME_HEADER_ZERO:
        return HEADER_ZERO;
    case FRAME_HEADER_BAD:
        return HEADER_BAD;
    case FRAME_HEADER_OK:
        break;
    }
    return segment_uuid_equal(&look->header.uuid, &scanner->uuid) && look->header.offset == scanner->offset
               ? HEADER_OK
               : HEADER_FOREIGN;
}

static enum fact_order order_of(const struct scanner *scanner, const struct frame_header *header)
{
    if (header->first_seq != scanner->expected)
        return header->first_seq > scanner->expected ? ORDER_AHEAD : ORDER_BEHIND;
    return !scanner->chain_known || header->previous_crc == scanner->chain ? ORDER_NEXT : ORDER_CHAIN;
}

// Reads the body into a frame. *failed as in look_at_header.
static enum fact_body look_at_body(struct scanner *scanner, const struct frame_header *header, struct spool_frame **out,
                                   struct sl_error *err, bool *failed)
{
    *failed = false;
    struct spool_frame *frame = frame_pool_take(scanner->pool, header->body_length);
    if (frame == NULL) {
        *failed = true;
        sl_fail(err, SL_E_NO_MEMORY, "frame of %u bytes", header->body_length);
        return BODY_BAD;
    }
    size_t got;
    if (!scan_read_at(scanner, frame_bytes(frame), header->body_length, scanner->offset + FRAME_HEADER_BYTES, &got,
                      err)) {
        *failed = ++scanner->read_failures < READ_FAILURES_MAX;
        spool_frame_release(frame);
        return BODY_BAD;
    }
    if (got < header->body_length || !frame_body_verify(header, frame_bytes(frame))) {
        spool_frame_release(frame);
        return BODY_BAD;
    }
    frame->header = *header;
    *out = frame;
    return BODY_OK;
}

// What the writer has just written and synced need not be read back.
static struct spool_frame *look_in_memory(const struct scanner *scanner, struct look *look)
{
    if (!scanner->bodies || !scanner->file.live || scanner->source.recent == NULL)
        return NULL;
    struct spool_frame *frame = scanner->source.recent(scanner->source.user, scanner->expected, scanner->offset);
    if (frame == NULL)
        return NULL;
    look->header = frame->header;
    look->facts.header = HEADER_OK;
    look->facts.body = BODY_OK;
    look->facts.order = order_of(scanner, &look->header);
    return frame;
}

// Does the next file say that a later process began it behind the last good frame before this place? Then its header
// names that frame, and not a seal. One that names none begins the stream anew: what lies between is below the base.
static bool look_at_next(struct scanner *scanner, const struct scan_segment *next, bool *goes_on, struct sl_error *err)
{
    const struct storage *storage = scanner->storage;
    char path[SPOOL_PATH_MAX];
    segment_path(path, scanner->dir, next->first_seq);
    int handle = storage->ops->open(storage->context, path, STORAGE_READ);
    if (handle < 0)
        return sl_fail_errno(err, SL_E_IO, -handle, "open %s", path);
    uint8_t block[SPOOL_BLOCK];
    ssize_t got = storage->ops->pread(storage->context, handle, block, sizeof(block), 0);
    storage->ops->close(storage->context, handle);
    if (got < 0)
        return sl_fail_errno(err, SL_E_IO, (int)-got, "read %s", path);
    struct segment_header header;
    struct sl_error ignored; // whoever opens it reports it
    *goes_on = false;
    if (got != SPOOL_BLOCK || !segment_header_decode(&header, block, &ignored) ||
        strcmp(header.stream, scanner->stream) != 0 || header.first_seq != next->first_seq)
        return true;
    *goes_on = next->first_seq == scanner->expected
                   ? scanner->chain_known && header.previous_frame_crc == scanner->chain
                   : next->first_seq > scanner->expected && next->first_seq <= next->base_seq &&
                         header.previous_frame_crc == 0;
    return true;
}

// What only matters when there is no good frame here: what lies behind.
static bool look_behind(struct scanner *scanner, struct look *look, struct sl_error *err)
{
    struct facts *facts = &look->facts;
    uint64_t extent = facts->header == HEADER_OK ? frame_size(look->header.body_length) : SPOOL_BLOCK;
    uint64_t first_candidate = scanner->offset + extent;
    if (!scan_search_rest(scanner, scanner->offset, first_candidate, &look->search, err))
        return false;
    facts->later = look->search.later;
    facts->rest_zero = !facts->later && look->search.nonzero_end == scanner->offset;
    if (facts->header == HEADER_OK) {
        uint64_t end = scanner->offset + FRAME_HEADER_BYTES + look->header.body_length;
        facts->cut = end > scanner->file_bytes;
        facts->zero_sector = scan_has_zero_sector(scanner, scanner->offset, end);
    } else {
        facts->cut = scanner->file_bytes < scanner->declared_bytes && scanner->file_bytes % SPOOL_BLOCK != 0;
        facts->zero_sector = look->search.zero_sector;
    }
    struct scan_segment following;
    facts->last_segment = !scanner->source.segment(scanner->source.user, scanner->file.first_seq + 1, &following);
    look->next_first_seq = facts->last_segment ? 0 : following.first_seq;
    if (!facts->last_segment && !look_at_next(scanner, &following, &facts->goes_on, err))
        return false;
    facts->no_record = facts->later           ? look->search.header.first_seq == scanner->expected
                       : !facts->last_segment ? look->next_first_seq <= scanner->expected
                                              : facts->header == HEADER_OK && look->header.count == 0;
    // What this process published was synced, and its clients may have been told.
    facts->acked = scanner->file.live || scanner->expected <= scanner->acked;
    return true;
}

static void pass_seal(struct scanner *scanner, const struct frame_header *seal)
{
    scanner->closed_seal = (seal->flags & FRAME_FLAG_STREAM_CLOSED) != 0;
    next_file(scanner);
}

static enum scan_result take(struct scanner *scanner, const struct look *look, struct scan_event *event)
{
    const struct frame_header *header = &look->header;
    event->header = *header;
    event->segment = scanner->file.first_seq;
    event->offset = scanner->offset;
    event->end_offset = scanner->offset + frame_size(header->body_length);
    event->first_seq = header->first_seq;
    event->last_seq = header->first_seq + header->count - 1;
    if (header->acked_through > scanner->acked)
        scanner->acked = header->acked_through;
    scanner->unread = look->facts.body == BODY_UNREAD;
    if (scanner->unread) {
        scanner->unread_header = *header;
        scanner->unread_chain_known = scanner->chain_known;
        scanner->unread_chain = scanner->chain;
    }
    scanner->force_body = false;
    place(scanner, event->end_offset, header->first_seq + header->count, true, header->header_crc);
    if (header->kind == FRAME_DATA)
        return SCAN_FRAME;
    if (header->kind == FRAME_IDS)
        return SCAN_PASSED;
    pass_seal(scanner, header);
    return SCAN_SEAL;
}

// How many records a frame that does not verify says it has, if what it says can be believed.
static uint64_t claimed_count(const struct scanner *scanner, const struct look *look)
{
    struct frame_header raw;
    uint16_t version, reserved;
    frame_header_parse(&raw, &version, &reserved, look->bytes);
    bool believable = segment_uuid_equal(&raw.uuid, &scanner->uuid) && raw.first_seq == scanner->expected &&
                      raw.body_length <= FRAME_BODY_MAX && raw.count <= raw.body_length;
    return believable ? raw.count : 1;
}

// No good frame here: go on behind the damage, or end.
static enum scan_result pass_over(struct scanner *scanner, const struct look *look, struct scan_event *event)
{
    enum verdict verdict = event->verdict;
    if (verdict == VERDICT_GOES_ON) {
        bool behind = look->next_first_seq == scanner->expected;
        next_file(scanner);
        place(scanner, 0, look->next_first_seq, behind, behind ? scanner->chain : 0);
        return SCAN_PASSED;
    }
    if (!verdict_is_damage(verdict)) {
        scanner->ended = true;
        scanner->end = verdict;
        damage_event(scanner, event, verdict, scanner->expected, scanner->expected - 1);
        event->end_offset = look->search.nonzero_end;
        return SCAN_END;
    }
    uint64_t first = scanner->expected;
    if (look->facts.later) {
        damage_event(scanner, event, verdict, first, look->search.header.first_seq - 1);
        event->end_offset = look->search.offset;
        place(scanner, look->search.offset, look->search.header.first_seq, false, 0);
        return SCAN_DAMAGE;
    }
    damage_event(scanner, event, verdict, first, first - 1);
    event->end_offset = scanner->file_bytes;
    if (!look->facts.last_segment) {
        if (look->next_first_seq > first)
            event->last_seq = look->next_first_seq - 1;
        next_file(scanner);
        place(scanner, 0, look->next_first_seq, false, 0);
        return SCAN_DAMAGE;
    }
    if (scanner->file.live) { // the writer goes on behind it
        event->last_seq = scanner->file.limit_seq - 1;
        place(scanner, scanner->file.limit, scanner->file.limit_seq, false, 0);
        return SCAN_DAMAGE;
    }
    // The end of the stream. How much is lost is a guess: what the frame says of itself, at least one record.
    event->last_seq = first + claimed_count(scanner, look) - 1;
    scanner->expected = event->last_seq + 1;
    scanner->ended = true;
    scanner->end = verdict;
    return SCAN_DAMAGE;
}

// A frame that verifies and does not fit to what came before it.
static enum scan_result out_of_order(struct scanner *scanner, const struct look *look, struct scan_event *event)
{
    const struct frame_header *header = &look->header;
    uint64_t end = scanner->offset + frame_size(header->body_length);
    if (look->facts.order == ORDER_AHEAD) {
        damage_event(scanner, event, event->verdict, scanner->expected, header->first_seq - 1);
        place(scanner, scanner->offset, header->first_seq, false, 0);
        return SCAN_DAMAGE;
    }
    bool behind = look->facts.order == ORDER_BEHIND;
    damage_event(scanner, event, event->verdict, scanner->expected,
                 scanner->expected + (behind ? 0 : header->count) - 1);
    event->end_offset = end;
    // Which of two frames that do not chain is the wrong one cannot be known; the chain starts anew, so that it costs
    // one.
    place(scanner, end, event->last_seq + 1, false, 0);
    if (header->kind == FRAME_SEAL)
        pass_seal(scanner, header);
    return SCAN_DAMAGE;
}

// Steps back to the last frame that was taken by its header alone.
static void step_back(struct scanner *scanner)
{
    place(scanner, scanner->unread_header.offset, scanner->unread_header.first_seq, scanner->unread_chain_known,
          scanner->unread_chain);
    scanner->unread = false;
    scanner->force_body = true;
}

static enum scan_result scan_place(struct scanner *scanner, struct scan_event *event, struct sl_error *err)
{
    struct look look = {.facts = {.body = BODY_UNREAD, .order = ORDER_NEXT}};
    bool failed = false;
    struct spool_frame *frame = look_in_memory(scanner, &look);
    if (frame == NULL)
        look.facts.header = look_at_header(scanner, &look, err, &failed);
    if (failed)
        return SCAN_FAILED;
    if (look.facts.header == HEADER_OK && frame == NULL) {
        look.facts.order = order_of(scanner, &look.header);
        bool wanted = look.header.kind == FRAME_SEAL || (scanner->bodies && look.header.kind == FRAME_DATA);
        if (wanted || scanner->force_body || look.facts.order != ORDER_NEXT)
            look.facts.body = look_at_body(scanner, &look.header, &frame, err, &failed);
        if (failed)
            return SCAN_FAILED;
    }
    if (look.facts.header != HEADER_OK || look.facts.body == BODY_BAD) {
        if (scanner->unread) {
            step_back(scanner);
            enum scan_result again = scan_place(scanner, event, err); // once: nothing is unread any more
            bool here = scanner->handle >= 0 && (again == SCAN_FRAME || again == SCAN_PASSED);
            return here ? scan_place(scanner, event, err) : again;
        }
        if (!look_behind(scanner, &look, err))
            return SCAN_FAILED;
    }
    event->verdict = recover_classify(&look.facts, &event->row);
    enum scan_result result;
    if (event->verdict == VERDICT_TAKE)
        result = take(scanner, &look, event);
    else if (frame != NULL)
        result = out_of_order(scanner, &look, event);
    else
        result = pass_over(scanner, &look, event);
    if (result == SCAN_FRAME && scanner->bodies)
        event->frame = frame;
    else if (frame != NULL)
        spool_frame_release(frame);
    return result;
}

static enum scan_result at_end(struct scanner *scanner, struct scan_event *event)
{
    damage_event(scanner, event, scanner->end, scanner->expected, scanner->expected - 1);
    event->verdict = scanner->end;
    return SCAN_END;
}

// One place, or one file opened.
static enum scan_result step(struct scanner *scanner, struct scan_event *event, struct sl_error *err)
{
    memset(event, 0, sizeof(*event));
    if (scanner->ended)
        return at_end(scanner, event);
    if (scanner->handle < 0) {
        switch (open_file(scanner, event, err)) {
        case OPENED:
            break;
        case OPENED_DAMAGED:
            return SCAN_DAMAGE;
        case OPEN_WAIT:
            return SCAN_WAIT;
        case OPEN_FAILED:
            return SCAN_FAILED;
        case OPEN_NONE:
            if (scanner->file.live && !scanner->closed_seal)
                return SCAN_WAIT; // between two segments
            scanner->ended = true;
            scanner->end = scanner->closed_seal ? VERDICT_CLOSED_END : VERDICT_CLEAN_END;
            return at_end(scanner, event);
        }
    }
    if (scanner->file.live) {
        struct scan_segment now;
        if (scanner->source.segment(scanner->source.user, scanner->file.first_seq, &now) &&
            now.first_seq == scanner->file.first_seq)
            scanner->file = now; // not live any more: the stream has ended, and limit is where
        else                     // sealed, produced and deleted since: what is open can be read to its seal
            scanner->file.limit = scanner->declared_bytes;
        if (scanner->file.live && scanner->offset >= scanner->file.limit)
            return SCAN_WAIT;
        scanner->file_bytes = scanner->file.limit;
    }
    return scan_place(scanner, event, err);
}

enum scan_result scanner_next(struct scanner *scanner, struct scan_event *event, struct sl_error *err)
{
    enum scan_result result;
    do
        result = step(scanner, event, err);
    while (result == SCAN_PASSED);
    return result;
}
