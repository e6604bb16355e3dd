// The log: one JSON object a line on stderr (or plain text, for a terminal), written with one write(2) each.
//
// Threads: any thread may log at any time; lines are never interleaved. Settings are made once, before threads start.
// Secrets never reach a log: pass names and counts, never header values, keys, payloads or connection strings.
#ifndef SLUICE_BASE_LOG_H
#define SLUICE_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum sl_level { SL_DEBUG, SL_INFO, SL_WARN, SL_ERROR };

// One named value of a line. Built with the macros below; lives only as long as the call.
struct sl_field {
    const char *name; // NULL ends the list
    enum { SL_FIELD_TEXT, SL_FIELD_SIGNED, SL_FIELD_UNSIGNED, SL_FIELD_REAL, SL_FIELD_BOOL } kind;
    const char *text; // NULL prints as null
    union {
        int64_t i;
        uint64_t u;
        double r;
        bool b;
    } value;
};

#define SL_STR(name_, text_)                                                                                           \
    {                                                                                                                  \
        .name = (name_), .kind = SL_FIELD_TEXT, .text = (text_)                                                        \
    }
#define SL_INT(name_, number_)                                                                                         \
    {                                                                                                                  \
        .name = (name_), .kind = SL_FIELD_SIGNED, .value.i = (int64_t)(number_)                                        \
    }
#define SL_UINT(name_, number_)                                                                                        \
    {                                                                                                                  \
        .name = (name_), .kind = SL_FIELD_UNSIGNED, .value.u = (uint64_t)(number_)                                     \
    }
#define SL_REAL(name_, number_)                                                                                        \
    {                                                                                                                  \
        .name = (name_), .kind = SL_FIELD_REAL, .value.r = (number_)                                                   \
    }
#define SL_BOOL(name_, truth_)                                                                                         \
    {                                                                                                                  \
        .name = (name_), .kind = SL_FIELD_BOOL, .value.b = (truth_)                                                    \
    }

void sl_log_configure(bool json, enum sl_level least);
bool sl_log_enabled(enum sl_level level);
void sl_log_write(enum sl_level level, const char *component, const char *message, const struct sl_field *fields);

// sl_log(SL_WARN, "spool", "segment is late");
#define sl_log(level, component, message) sl_log_write((level), (component), (message), (const struct sl_field[]){{0}})
// sl_logf(SL_INFO, "spool", "stream opened", SL_STR("stream", id), SL_UINT("first_seq", 1));
#define sl_logf(level, component, message, ...)                                                                        \
    sl_log_write((level), (component), (message), (const struct sl_field[]){__VA_ARGS__, {0}})

#endif
