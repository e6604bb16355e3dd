#include "produce/guard.h"

#include "base/crc32c.h"
#include "base/cursor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { GUARD_MAGIC = 0x44524753 /* "SGRD" */, GUARD_VERSION = 1 };

bool guard_judge(const struct guard *known, const struct guard *found, struct sl_error *err)
{
    if (known->cluster_id[0] != '\0' && found->cluster_id[0] != '\0' &&
        strcmp(known->cluster_id, found->cluster_id) != 0)
        return sl_fail(err, SL_E_REFUSED,
                       "this is Kafka cluster %s, the stream was drained into %s; adopt it or mend kafka.brokers",
                       found->cluster_id, known->cluster_id);
    bool both = (known->topic_id[0] | known->topic_id[1]) != 0 && (found->topic_id[0] | found->topic_id[1]) != 0;
    if (both && memcmp(known->topic_id, found->topic_id, sizeof(known->topic_id)) != 0)
        return sl_fail(err, SL_E_REFUSED,
                       "sluice.progress was deleted and made again since this stream was drained; adopt it to go on");
    if (found->through < known->through)
        return sl_fail(err, SL_E_REFUSED,
                       "Kafka's progress went back: it says %" PRIu64 ", verified before was %" PRIu64
                       "; Kafka lost data, adopt it to go on",
                       found->through, known->through);
    return true;
}

size_t guard_encode(const struct guard *guard, uint8_t bytes[GUARD_BYTES_MAX])
{
    struct sl_writer out = sl_writer_of(bytes, GUARD_BYTES_MAX);
    sl_write_u32(&out, GUARD_MAGIC);
    sl_write_u8(&out, GUARD_VERSION);
    sl_write_u8(&out, (uint8_t)strlen(guard->lane));
    sl_write_bytes(&out, guard->lane, strlen(guard->lane));
    sl_write_u64(&out, guard->through);
    sl_write_u64(&out, guard->topic_id[0]);
    sl_write_u64(&out, guard->topic_id[1]);
    sl_write_u8(&out, (uint8_t)strlen(guard->cluster_id));
    sl_write_bytes(&out, guard->cluster_id, strlen(guard->cluster_id));
    sl_write_u32(&out, sl_crc32c(bytes, out.position));
    sl_assert(!out.failed);
    return out.position;
}

static bool take_text(struct sl_reader *in, char *out, size_t size)
{
    struct sl_span text = sl_read_span(in, sl_read_u8(in));
    if (text.length >= size)
        return false;
    memcpy(out, text.bytes, text.length);
    out[text.length] = '\0';
    return true;
}

bool guard_decode(struct guard *guard, const void *bytes, size_t length, struct sl_error *err)
{
    *guard = (struct guard){0};
    if (length < sizeof(uint32_t))
        return sl_fail(err, SL_E_CORRUPT, "progress guard: %zu bytes", length);
    size_t body = length - sizeof(uint32_t);
    struct sl_reader tail = sl_reader_of((const uint8_t *)bytes + body, sizeof(uint32_t));
    struct sl_reader in = sl_reader_of(bytes, body);
    if (sl_read_u32(&in) != GUARD_MAGIC || sl_read_u8(&in) != GUARD_VERSION)
        return sl_fail(err, SL_E_CORRUPT, "progress guard: magic or version");
    if (sl_read_u32(&tail) != sl_crc32c(bytes, body))
        return sl_fail(err, SL_E_CORRUPT, "progress guard: checksum");
    bool fits = take_text(&in, guard->lane, sizeof(guard->lane));
    guard->through = sl_read_u64(&in);
    guard->topic_id[0] = sl_read_u64(&in);
    guard->topic_id[1] = sl_read_u64(&in);
    fits = take_text(&in, guard->cluster_id, sizeof(guard->cluster_id)) && fits;
    if (!fits || in.failed || in.position != in.length)
        return sl_fail(err, SL_E_CORRUPT, "progress guard: a field out of range");
    return true;
}

// A lane's name may be longer than a note's: two checksums stand for it, and the note itself holds the name.
static void note_name(char name[GUARD_NAME_MAX], const char *lane)
{
    uint32_t crc = sl_crc32c(lane, strlen(lane));
    snprintf(name, GUARD_NAME_MAX, "guard.%08" PRIx32 "%08" PRIx32, crc, sl_crc32c_extend(~crc, lane, strlen(lane)));
}

bool guard_load(struct spool *spool, const char *stream, const char *lane, struct guard *known, struct sl_error *err)
{
    char name[GUARD_NAME_MAX];
    note_name(name, lane);
    uint8_t bytes[GUARD_BYTES_MAX];
    size_t length = sizeof(bytes);
    if (!spool_get_note(spool, stream, name, bytes, &length, err))
        return sl_wrap(err, "read note %s of %s", name, stream);
    *known = (struct guard){0};
    if (length > 0 && !guard_decode(known, bytes, length, err))
        return sl_wrap(err, "note %s of %s", name, stream);
    if (length > 0 && strcmp(known->lane, lane) != 0)
        return sl_fail(err, SL_E_CORRUPT, "note %s of %s is about lane %s, not %s", name, stream, known->lane, lane);
    snprintf(known->lane, sizeof(known->lane), "%s", lane);
    return true;
}

bool guard_store(struct spool *spool, const char *stream, const struct guard *guard, struct sl_error *err)
{
    char name[GUARD_NAME_MAX];
    note_name(name, guard->lane);
    uint8_t bytes[GUARD_BYTES_MAX];
    size_t length = guard_encode(guard, bytes);
    if (!spool_put_note(spool, stream, name, bytes, length, err))
        return sl_wrap(err, "write note %s of %s", name, stream);
    return true;
}
