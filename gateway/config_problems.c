#include "gateway/config_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct config_problem {
    const struct config_file *file;
    int line;
    bool warning;
    size_t order; // of finding: keeps the sort stable
    char *text;
};

SL_PRINTF(5, 0)
static void add(struct config_load *load, const struct config_file *file, int line, bool warning, const char *format,
                va_list args)
{
    if (!warning)
        load->error_count++;
    if (load->problem_count == CONFIG_PROBLEMS_MAX)
        return;
    if (load->problem_count == load->problem_capacity) {
        load->problem_capacity = load->problem_capacity == 0 ? 16 : load->problem_capacity * 2;
        load->problems = realloc(load->problems, load->problem_capacity * sizeof(*load->problems));
        sl_assert(load->problems != NULL);
    }
    struct config_problem *problem = &load->problems[load->problem_count];
    const struct config_problem *last = load->problem_count == 0 ? NULL : problem - 1;
    *problem = (struct config_problem){.file = file, .line = line, .warning = warning, .order = load->problem_count};
    sl_assert(vasprintf(&problem->text, format, args) >= 0);
    // A line full of aliases is said once.
    if (last != NULL && last->file == file && last->line == line && strcmp(last->text, problem->text) == 0)
        free(problem->text);
    else
        load->problem_count++;
}

void config_error(struct config_load *load, const struct config_file *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add(load, file, line, false, format, args);
    va_end(args);
}

void config_warn(struct config_load *load, const struct config_file *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add(load, file, line, true, format, args);
    va_end(args);
}

static int by_place(const void *left, const void *right)
{
    const struct config_problem *a = left, *b = right;
    if (a->file->rank != b->file->rank)
        return a->file->rank < b->file->rank ? -1 : 1;
    if (a->line != b->line)
        return a->line < b->line ? -1 : 1;
    return a->order < b->order ? -1 : 1;
}

bool config_problems_write(struct config_load *load, FILE *out, struct sl_error *err)
{
    if (load->problem_count > 0)
        qsort(load->problems, load->problem_count, sizeof(*load->problems), by_place);
    bool failed = false;
    for (size_t i = 0; i < load->problem_count; i++) {
        const struct config_problem *problem = &load->problems[i];
        fprintf(out, "%s:%d: %s%s\n", problem->file->shown, problem->line, problem->warning ? "warning: " : "",
                problem->text);
        if (!problem->warning && !failed) {
            failed = true;
            sl_fail(err, SL_E_CONFIG, "%s:%d: %s", problem->file->shown, problem->line, problem->text);
        }
    }
    if (load->problem_count == CONFIG_PROBLEMS_MAX) {
        fprintf(out, "%s:1: warning: only the first %d problems are shown\n", load->problems[0].file->shown,
                (int)CONFIG_PROBLEMS_MAX);
        // Warnings may have used up the room before the first error came.
        if (load->error_count > 0 && !failed) {
            failed = true;
            sl_fail(err, SL_E_CONFIG, "%s:1: more than %d problems", load->problems[0].file->shown,
                    (int)CONFIG_PROBLEMS_MAX);
        }
    }
    return !failed;
}

void config_problems_free(struct config_load *load)
{
    for (size_t i = 0; i < load->problem_count; i++)
        free(load->problems[i].text);
    free(load->problems);
    load->problems = NULL;
    load->problem_count = load->problem_capacity = 0;
}
