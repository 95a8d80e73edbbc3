/* remote_lane.c -- where a job may run: device class and numerics id. */
#include "cli/remote.h"
#include "jobs/worker.h"

#include <stdio.h>
#include <string.h>

enum {
    IDS_MAX = 64,    /* of one class; more are not looked at */
    SILENT_BEATS = 4 /* a worker that missed so many heartbeats does not count */
};

typedef struct choice {
    const char *device_class;
    char id[IDS_MAX][QD_ID_BYTES];
    unsigned n_workers[IDS_MAX];
    unsigned n_ids, n_all;
} choice;

static qd_code count_worker(void *ctx, const qd_worker_heartbeat *hb, uint64_t age_ms, qd_err *err)
{
    choice *c = ctx;
    bool leaves =
        hb->state == QUANTD__WORKER_STATE__WORKER_DRAINING || hb->state == QUANTD__WORKER_STATE__WORKER_DRAINED;
    (void)err;
    if (leaves || age_ms > SILENT_BEATS * (uint64_t)hb->heartbeat_ms) return QD_OK;
    if (strcmp(hb->device_class, c->device_class) != 0 || hb->numerics_id[0] == '\0') return QD_OK;
    unsigned i = 0;
    while (i < c->n_ids && strcmp(c->id[i], hb->numerics_id) != 0) i++;
    if (i == IDS_MAX) return QD_OK;
    if (i == c->n_ids) (void)snprintf(c->id[c->n_ids++], QD_ID_BYTES, "%s", hb->numerics_id);
    c->n_workers[i]++;
    c->n_all++;
    return QD_OK;
}

/* The most common one; of several the first by name, so that two who ask at once choose alike. */
static const char *most_common(const choice *c)
{
    unsigned best = 0;
    if (c->n_ids == 0) return NULL;
    for (unsigned i = 1; i < c->n_ids; i++)
        if (c->n_workers[i] > c->n_workers[best] ||
            (c->n_workers[i] == c->n_workers[best] && strcmp(c->id[i], c->id[best]) < 0))
            best = i;
    return c->id[best];
}

static bool has(const choice *c, const char *numerics)
{
    bool found = strcmp(numerics, "any") == 0 && c->n_all != 0;
    for (unsigned i = 0; i < c->n_ids; i++) found = found || strcmp(c->id[i], numerics) == 0;
    return found;
}

qd_code qd_remote_lane(qd_remote *r, const char *device_class, const char *numerics, bool calibrated, qd_job_lane *ret,
                       qd_err *err)
{
    choice c = {.device_class = device_class != NULL ? device_class : "cpu"};
    qd_code rc = qd_id_check(c.device_class, "--device-class", err);
    if (rc == QD_OK && numerics != NULL) rc = qd_id_check(numerics, "--numerics", err);
    if (rc == QD_OK && (calibrated || numerics != NULL || device_class != NULL))
        rc = qd_jobs_workers(r->jobs, count_worker, &c, err);
    if (rc != QD_OK) return rc;
    const char *chosen = numerics != NULL ? numerics : calibrated ? most_common(&c) : "any";
    if (chosen == NULL)
        (void)fprintf(
            stderr,
            "quantctl: no worker of class %s is there to choose a numerics id from: the job starts anew when it "
            "comes to a worker with another one\n",
            c.device_class);
    else if ((numerics != NULL || device_class != NULL) && !has(&c, chosen))
        (void)fprintf(stderr, "quantctl: no worker of class %s with numerics id %s is there: the job waits for one\n",
                      c.device_class, chosen);
    rc = qd_text_set(&ret->device_class, c.device_class, err);
    return rc == QD_OK ? qd_text_set(&ret->numerics_id, chosen != NULL ? chosen : "any", err) : rc;
}
