// What waits for the disk and must not hold the replication thread up: marks, and the change of the own stream.
#include "ha/cell_internal.h"

#include "base/failpoint.h"

#include <stdlib.h>
#include <string.h>

static void mark(struct cell *cell, const struct job *job)
{
    char stream[SPOOL_STREAM_ID_MAX];
    cell_text(cell, job->action.stream, stream);
    struct spool_marks marks = {0};
    struct sl_error err;
    bool good = spool_get_marks(cell->spool, stream, &marks, &err);
    if (job->kind == JOB_FENCE_MARK)
        marks.fenced = true;
    else if (marks.guard < job->action.last)
        marks.guard = job->action.last;
    good = good && spool_put_marks(cell->spool, stream, &marks, &err);
    if (!good)
        sl_logf(SL_ERROR, "ha", "a mark could not be stored", SL_STR("stream", stream), SL_STR("error", err.text));
    if (job->kind == JOB_FENCE_MARK && job->action.stream.member != cell->self)
        sl_failpoint("takeover.fence");
    struct done_post *post = malloc(sizeof(*post));
    sl_assert(post != NULL);
    *post = (struct done_post){.post.kind = POST_DONE,
                               .done = {.kind = job->action.kind,
                                        .stream = job->action.stream,
                                        .lane_id = job->action.lane_id,
                                        .ticket = job->action.ticket,
                                        .result = good ? HA_OK : HA_FAILED,
                                        .through = job->action.last}};
    cell_post(cell, &post->post);
}

static void drop_marks(struct cell *cell, const struct job *job)
{
    char stream[SPOOL_STREAM_ID_MAX];
    cell_text(cell, job->action.stream, stream);
    struct sl_error err;
    if (!spool_drop_marks(cell->spool, stream, &err))
        sl_logf(SL_WARN, "ha", "marks could not be removed", SL_STR("stream", stream), SL_STR("error", err.text));
}

static void open_next(struct cell *cell)
{
    struct sl_error err;
    struct opened_post *post = calloc(1, sizeof(*post));
    sl_assert(post != NULL);
    post->post.kind = POST_OPENED;
    post->good = spool_next_stream(cell->spool, &err);
    post->incarnation = spool_incarnation(cell->spool);
    if (!post->good)
        sl_logf(SL_ERROR, "ha", "the next stream cannot be opened; trying again", SL_STR("error", err.text));
    cell_post(cell, &post->post);
}

static struct job *next_job(struct cell *cell)
{
    pthread_mutex_lock(&cell->job_mutex);
    while (cell->jobs == NULL && !cell->jobs_end)
        pthread_cond_wait(&cell->job_wanted, &cell->job_mutex);
    struct job *job = cell->jobs_end ? NULL : cell->jobs;
    if (job != NULL) {
        cell->jobs = job->next;
        if (cell->jobs == NULL)
            cell->jobs_tail = &cell->jobs;
    }
    pthread_mutex_unlock(&cell->job_mutex);
    return job;
}

static void *disk_main(void *argument)
{
    struct cell *cell = argument;
    struct job *job;
    while ((job = next_job(cell)) != NULL) {
        switch (job->kind) {
        case JOB_FENCE_MARK:
        case JOB_MARK_EMPTY:
            mark(cell, job);
            break;
        case JOB_DROP_MARKS:
            drop_marks(cell, job);
            break;
        case JOB_OPEN:
            open_next(cell);
            break;
        case JOB_GIVE:
            cell_give_step(cell, job->giving);
            break;
        }
        free(job);
    }
    return NULL;
}

static void queue(struct cell *cell, struct job job_)
{
    struct job *job = malloc(sizeof(*job));
    sl_assert(job != NULL);
    *job = job_;
    pthread_mutex_lock(&cell->job_mutex);
    *cell->jobs_tail = job;
    cell->jobs_tail = &job->next;
    pthread_cond_signal(&cell->job_wanted);
    pthread_mutex_unlock(&cell->job_mutex);
}

void disk_job(struct cell *cell, enum job_kind kind, const struct ha_action *action)
{
    queue(cell, (struct job){.kind = kind, .action = *action});
}

void disk_give(struct cell *cell, struct giving *giving)
{
    queue(cell, (struct job){.kind = JOB_GIVE, .giving = giving});
}

bool disk_start(struct cell *cell)
{
    if (pthread_create(&cell->disk_thread, NULL, disk_main, cell) != 0)
        return false;
    pthread_setname_np(cell->disk_thread, "ha-disk");
    return true;
}

// What was not begun is left: a restart finds it again.
void disk_stop(struct cell *cell)
{
    pthread_mutex_lock(&cell->job_mutex);
    cell->jobs_end = true;
    pthread_cond_signal(&cell->job_wanted);
    pthread_mutex_unlock(&cell->job_mutex);
    pthread_join(cell->disk_thread, NULL);
    while (cell->jobs != NULL) {
        struct job *job = cell->jobs;
        cell->jobs = job->next;
        if (job->giving != NULL)
            cell_free_giving(job->giving);
        free(job);
    }
    cell->jobs_tail = &cell->jobs;
}
