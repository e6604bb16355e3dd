#include "base/failpoint.h"

#include "base/log.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool is_asked_for(const char *name)
{
    static const char action[] = ":exit";
    size_t length = strlen(name), action_length = sizeof(action) - 1;
    for (const char *at = getenv("SLUICE_FAILPOINT"); at != NULL; at = strchr(at, ','), at += at != NULL) {
        if (strncmp(at, name, length) == 0 && strncmp(at + length, action, action_length) == 0 &&
            (at[length + action_length] == '\0' || at[length + action_length] == ','))
            return true;
    }
    return false;
}

void sl_failpoint(const char *name)
{
    if (!is_asked_for(name))
        return;
    sl_logf(SL_WARN, "failpoint", "the process ends here", SL_STR("name", name));
    raise(SIGKILL);
}
