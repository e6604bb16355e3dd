// The key of the identities: a file of its own, because all gateways of a cell share it and backups of the spool need
// not hold it.
//
// Made: the digits are written to a temporary file beside it and synced, which is then linked to its name. A link never
// replaces: of several processes that start at once one wins, and all of them read what it made. A crash leaves at most
// a temporary file that nobody reads, never half a key.
#include "dedupe/dedupe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEX_DIGITS = 2 * DEDUPE_KEY_BYTES, FILE_BYTES = HEX_DIGITS + 1 };

_Static_assert(DEDUPE_KEY_BYTES == crypto_shorthash_siphashx24_KEYBYTES, "SipHash has keys of 16 bytes");

// A value that says nothing about the key, and is none of the identities: no domain is one of these first bytes.
static void derive(const struct dedupe_key *key, const char *constant, void *out, size_t length)
{
    uint8_t hash[crypto_shorthash_siphashx24_BYTES];
    crypto_shorthash_siphashx24(hash, (const unsigned char *)constant, strlen(constant), key->bytes);
    sl_assert(length <= sizeof(hash));
    memcpy(out, hash, length);
}

void dedupe_key_derive(struct dedupe_key *key)
{
    derive(key, "k sluice: name of a key", key->id, sizeof(key->id));
    derive(key, "p sluice: seed of the payload hash", &key->payload_seed, sizeof(key->payload_seed));
}

static bool sync_directory_of(const char *path, struct sl_error *err)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - path);
    if (slash == NULL || slash == path)
        snprintf(dir, sizeof(dir), "%s", slash == NULL ? "." : "/");
    else
        snprintf(dir, sizeof(dir), "%.*s", (int)length, path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return sl_fail_errno(err, SL_E_IO, errno, "open %s", dir);
    int failed = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return failed == 0 || sl_fail_errno(err, SL_E_IO, failed, "sync %s", dir);
}

static int write_new_key(int fd)
{
    uint8_t bytes[DEDUPE_KEY_BYTES];
    char text[FILE_BYTES + 1];
    sl_assert(getrandom(bytes, sizeof(bytes), 0) == (ssize_t)sizeof(bytes)); // up to 256 bytes are never cut short
    sodium_bin2hex(text, sizeof(text), bytes, sizeof(bytes));
    text[HEX_DIGITS] = '\n';
    ssize_t wrote;
    do
        wrote = write(fd, text, FILE_BYTES);
    while (wrote < 0 && errno == EINTR);
    int failed = wrote < 0 ? errno : wrote != FILE_BYTES ? EIO : 0;
    if (failed == 0 && fsync(fd) != 0)
        failed = errno;
    sodium_memzero(bytes, sizeof(bytes));
    sodium_memzero(text, sizeof(text));
    return failed;
}

// True also when another process was faster: there is a whole key at `path` now.
static bool make(const char *path, struct sl_error *err)
{
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    if (length < 0 || (size_t)length >= sizeof(temporary))
        return sl_fail_errno(err, SL_E_IO, ENAMETOOLONG, "%s", path);
    int fd = mkostemp(temporary, O_CLOEXEC); // mode 0600, O_EXCL
    if (fd < 0)
        return sl_fail_errno(err, SL_E_IO, errno, "create %s", temporary);
    int failed = write_new_key(fd);
    close(fd);
    if (failed == 0 && link(temporary, path) != 0 && errno != EEXIST)
        failed = errno;
    unlink(temporary);
    return failed == 0 || sl_fail_errno(err, SL_E_IO, failed, "create %s", path);
}

static bool check_file(int fd, const char *path, struct sl_error *err)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return sl_fail_errno(err, SL_E_IO, errno, "%s", path);
    if (!S_ISREG(status.st_mode))
        return sl_fail(err, SL_E_INVALID, "%s: no regular file", path);
    // Whoever can read the key can craft ids that crowd others out of their place.
    if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return sl_fail(err, SL_E_INVALID, "%s: mode %04o; only its owner may have access (chmod 600)", path,
                       (unsigned)status.st_mode & 07777);
    return true;
}

static bool read_key(int fd, struct dedupe_key *key, const char *path, struct sl_error *err)
{
    char text[FILE_BYTES + 1]; // one more than there should be
    size_t have = 0, decoded = 0;
    bool good = false;
    while (have < sizeof(text)) {
        ssize_t got = read(fd, text + have, sizeof(text) - have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            sl_fail_errno(err, SL_E_IO, errno, "read %s", path);
            goto wipe;
        }
        if (got == 0)
            break;
        have += (size_t)got;
    }
    good = have == FILE_BYTES && text[HEX_DIGITS] == '\n' &&
           sodium_hex2bin(key->bytes, sizeof(key->bytes), text, HEX_DIGITS, NULL, &decoded, NULL) == 0 &&
           decoded == sizeof(key->bytes);
    if (!good)
        sl_fail(err, SL_E_INVALID, "%s: not %d hexadecimal digits and a newline", path, (int)HEX_DIGITS);
wipe:
    sodium_memzero(text, sizeof(text));
    return good;
}

bool dedupe_key_load(struct dedupe_key *key, const char *path, bool create, struct sl_error *err)
{
    // O_NONBLOCK: a FIFO must not hold up the start.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT && create) {
        if (!make(path, err))
            return false;
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
    if (fd < 0)
        return sl_fail_errno(err, SL_E_IO, errno, "open %s", path);
    // Synced whoever made it: an earlier process may have died between link and sync, and what is hashed under a key
    // that a power loss takes away is forgotten.
    bool good = check_file(fd, path, err) && read_key(fd, key, path, err) && (!create || sync_directory_of(path, err));
    close(fd);
    if (good)
        dedupe_key_derive(key);
    return good;
}
