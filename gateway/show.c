#include "gateway/show.h"

#include "base/clock.h"

#include <time.h>

void show_family(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

json_t *show_number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

json_t *show_time(int64_t wall_ns)
{
    if (wall_ns == 0)
        return json_null();
    time_t seconds = (time_t)(wall_ns / SL_NS_PER_S);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    char text[32];
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
    return json_string(text);
}
