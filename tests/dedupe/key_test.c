// The key file: what is taken, what is refused, and that nobody ever sees half a key, whoever races and whatever fails.
#include "dedupe/dedupe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define KEY_TEXT "000102030405060708090a0b0c0d0e0f\n"

static char dir[64], path[96];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/sluice-key-test.XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/dedupe.key", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir); // fails when a temporary file was left
}

static void put(const char *text, size_t length, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, length), length);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void reads_what_is_there(void **state)
{
    (void)state;
    struct dedupe_key key, upper;
    struct sl_error err;
    put(KEY_TEXT, strlen(KEY_TEXT), 0600);
    assert_true(dedupe_key_load(&key, path, false, &err));
    for (uint8_t i = 0; i < DEDUPE_KEY_BYTES; i++)
        assert_int_equal(key.bytes[i], i);
    put("000102030405060708090A0B0C0D0E0F\n", strlen(KEY_TEXT), 0400);
    assert_true(dedupe_key_load(&upper, path, true, &err));
    assert_memory_equal(&key, &upper, sizeof(key));
}

// Computed with `openssl mac -macopt hexkey:000102030405060708090a0b0c0d0e0f -macopt size:16 -in - SIPHASH` over the
// constants in key.c. These values are in segment headers and snapshots: they must never change.
static void derived_values_are_fixed(void **state)
{
    (void)state;
    struct dedupe_key key = {.id = {0}}, other;
    for (uint8_t i = 0; i < DEDUPE_KEY_BYTES; i++)
        key.bytes[i] = i;
    dedupe_key_derive(&key);
    const uint8_t id[] = {0xF9, 0xB0, 0x6A, 0x7B, 0x1F, 0x7E, 0x4A, 0xAB};
    assert_memory_equal(key.id, id, sizeof(id));
    const uint8_t seed[] = {0x58, 0xEC, 0x3A, 0xB0, 0x9F, 0xBE, 0x6F, 0xA3};
    assert_memory_equal(&key.payload_seed, seed, sizeof(seed));
    for (size_t bit = 0; bit < 8 * (size_t)DEDUPE_KEY_BYTES; bit++) {
        other = key;
        other.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        dedupe_key_derive(&other);
        assert_memory_not_equal(other.id, key.id, sizeof(key.id));
        assert_true(other.payload_seed != key.payload_seed);
    }
}

static void others_must_have_no_access(void **state)
{
    (void)state;
    const mode_t refused[] = {0640, 0604, 0660, 0644, 0610, 0601, 0602, 0620, 0440, 0666, 0777};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct dedupe_key key;
        struct sl_error err;
        put(KEY_TEXT, strlen(KEY_TEXT), refused[i]);
        assert_false(dedupe_key_load(&key, path, true, &err));
        assert_int_equal(err.code, SL_E_INVALID);
        assert_non_null(strstr(err.text, path));
        assert_non_null(strstr(err.text, "mode"));
    }
}

static void content_must_be_exact(void **state)
{
    (void)state;
    const char *refused[] = {
        "",
        "\n",
        "000102030405060708090a0b0c0d0e0f",     // cut before its newline
        "000102030405060708090a0b0c0d0e0\n",    // a digit less
        "000102030405060708090a0b0c0d0e0f0\n",  // a digit more
        "000102030405060708090a0b0c0d0e0g\n",   // no digit
        "00010203 405060708090a0b0c0d0e0f\n",   // a blank
        "000102030405060708090a0b0c0d0e0f\n\n", // more than a line
        "000102030405060708090a0b0c0d0e0f\r\n",
        "000102030405060708090a0b0c0d0e0f ",
        " 000102030405060708090a0b0c0d0e0f\n",
        "0x0102030405060708090a0b0c0d0e0f\n",
    };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct dedupe_key key;
        struct sl_error err;
        put(refused[i], strlen(refused[i]), 0600);
        assert_false(dedupe_key_load(&key, path, true, &err)); // and nothing is made over it
        assert_int_equal(err.code, SL_E_INVALID);
        assert_non_null(strstr(err.text, path));
        assert_null(strstr(err.text, "0405060708")); // the key is in no message
    }
    put("000102030405060708090a0b0c0d0e0\0\n", 33, 0600);
    struct dedupe_key key;
    struct sl_error err;
    assert_false(dedupe_key_load(&key, path, false, &err));
    assert_int_equal(err.code, SL_E_INVALID);
}

static void what_is_no_file_is_refused(void **state)
{
    (void)state;
    struct dedupe_key key;
    struct sl_error err;
    assert_int_equal(mkfifo(path, 0600), 0); // and does not hold the caller up
    assert_false(dedupe_key_load(&key, path, true, &err));
    assert_int_equal(err.code, SL_E_INVALID);
    unlink(path);
    assert_false(dedupe_key_load(&key, dir, true, &err));
    assert_int_equal(err.code, SL_E_INVALID);
    assert_false(dedupe_key_load(&key, path, false, &err));
    assert_int_equal(err.code, SL_E_IO);
    assert_int_equal(err.sys_errno, ENOENT);
    char nowhere[128];
    snprintf(nowhere, sizeof(nowhere), "%s/none/dedupe.key", dir);
    assert_false(dedupe_key_load(&key, nowhere, true, &err));
    assert_int_equal(err.code, SL_E_IO);
}

static void makes_a_key_once(void **state)
{
    (void)state;
    struct dedupe_key first, second, third;
    struct sl_error err;
    mode_t before = umask(0); // the mode is the file's own, whatever the caller's mask
    assert_true(dedupe_key_load(&first, path, true, &err));
    umask(before);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(status.st_size, 33);
    assert_int_equal(status.st_nlink, 1);
    assert_true(dedupe_key_load(&second, path, true, &err));
    assert_memory_equal(&first, &second, sizeof(first));
    unlink(path);
    assert_true(dedupe_key_load(&third, path, true, &err));
    assert_memory_not_equal(first.bytes, third.bytes, sizeof(first.bytes));
    assert_memory_not_equal(first.id, third.id, sizeof(first.id));
}

static unsigned names_in_dir(void)
{
    DIR *folder = opendir(dir);
    assert_non_null(folder);
    unsigned names = 0;
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder))
        names += entry->d_name[0] != '.';
    closedir(folder);
    return names;
}

// A disk that takes a part of the file only.
static void a_write_cut_short_leaves_nothing(void **state)
{
    (void)state;
    for (rlim_t room = 0; room <= 33; room++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct sigaction ignore = {.sa_handler = SIG_IGN};
            sigaction(SIGXFSZ, &ignore, NULL);
            struct rlimit limit = {room, room};
            struct dedupe_key key;
            struct sl_error err = {.code = SL_OK};
            bool made = setrlimit(RLIMIT_FSIZE, &limit) == 0 && dedupe_key_load(&key, path, true, &err);
            _exit(made ? 1 : err.code == SL_E_IO ? 0 : 2);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), room == 33);
        assert_int_equal(names_in_dir(), room == 33);
    }
}

enum { RACERS = 8, ROUNDS = 200 };

// All racers are held before the gate's pipe until it is closed.
static pid_t start_racer(const int gate[2], int answer)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0)
        return child;
    char nothing;
    close(gate[1]);
    struct dedupe_key key;
    struct sl_error err;
    if (read(gate[0], &nothing, 1) != 0 || !dedupe_key_load(&key, path, true, &err))
        _exit(1);
    _exit(write(answer, key.bytes, sizeof(key.bytes)) == (ssize_t)sizeof(key.bytes) ? 0 : 1);
}

static void racers_get_one_key(void **state)
{
    (void)state;
    for (unsigned round = 0; round < ROUNDS / 4; round++) {
        int gate[2], answers[2];
        pid_t racers[RACERS];
        assert_int_equal(pipe(gate), 0);
        assert_int_equal(pipe(answers), 0);
        for (unsigned i = 0; i < RACERS; i++)
            racers[i] = start_racer(gate, answers[1]);
        close(gate[0]);
        close(gate[1]); // go
        uint8_t first[DEDUPE_KEY_BYTES], next[DEDUPE_KEY_BYTES];
        for (unsigned i = 0; i < RACERS; i++) {
            int status;
            assert_int_equal(waitpid(racers[i], &status, 0), racers[i]);
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            assert_int_equal(read(answers[0], i == 0 ? first : next, sizeof(first)), sizeof(first));
            if (i > 0)
                assert_memory_equal(first, next, sizeof(first));
        }
        close(answers[0]);
        close(answers[1]);
        assert_int_equal(names_in_dir(), 1);
        assert_int_equal(unlink(path), 0);
    }
}

// What another process sees at any instant is what a kill at that instant leaves.
static void a_key_appears_whole(void **state)
{
    (void)state;
    pid_t maker = fork();
    assert_true(maker >= 0);
    if (maker == 0) {
        for (unsigned round = 0; round < ROUNDS; round++) {
            struct dedupe_key key;
            struct sl_error err;
            if (!dedupe_key_load(&key, path, true, &err) || unlink(path) != 0)
                _exit(1);
        }
        _exit(0);
    }
    int status = 0;
    unsigned wrong = 0;
    while (waitpid(maker, &status, WNOHANG) == 0) {
        struct dedupe_key key;
        struct sl_error err;
        if (!dedupe_key_load(&key, path, false, &err))
            wrong += err.sys_errno != ENOENT;
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_what_is_there, set_up, tear_down),
        cmocka_unit_test(derived_values_are_fixed),
        cmocka_unit_test_setup_teardown(others_must_have_no_access, set_up, tear_down),
        cmocka_unit_test_setup_teardown(content_must_be_exact, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_file_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(makes_a_key_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_write_cut_short_leaves_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(racers_get_one_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_key_appears_whole, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
