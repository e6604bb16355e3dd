// A failpoint that is asked for ends the process at once; every other one is passed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <signal.h>

#include "base/failpoint.h"

static int end_of(const char *wanted)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (wanted)
            setenv("SLUICE_FAILPOINT", wanted, 1);
        else
            unsetenv("SLUICE_FAILPOINT");
        sl_failpoint("takeover.claim");
        _exit(7);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void test_failpoint(void **state)
{
    (void)state;
    static const char *const hits[] = {"takeover.claim:exit", "takeover.init:exit,takeover.claim:exit",
                                       "takeover.claim:exit,takeover.read:exit"};
    static const char *const misses[] = {NULL,
                                         "",
                                         "takeover.claim",
                                         "takeover.claims:exit",
                                         "takeover.claim:exits",
                                         "takeover.clai:exit",
                                         "x.takeover.claim:exit",
                                         ",,"};
    for (size_t i = 0; i < sizeof(hits) / sizeof(hits[0]); i++) {
        int status = end_of(hits[i]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    for (size_t i = 0; i < sizeof(misses) / sizeof(misses[0]); i++) {
        int status = end_of(misses[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_failpoint)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
