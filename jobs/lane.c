/* lane.c -- the lanes of the work queue that a worker serves. */
#include "jobs/inside.h"
#include "jobs/worker.h"

#include <stdio.h>
#include <string.h>

enum {
    ALL_LANES_MS = 10000,
    RUNNING_MAX = 100000 /* of a lane; as many as the queue holds, not JetStream's 1000 */
};

static qd_code open_lane(qd_jobs *j, const qd_lane *lane, qd_err *err)
{
    char filter[QD_SUBJECT_BYTES], durable[QD_SUBJECT_BYTES];
    qd_code rc = qd_subject_lane(lane, filter, durable, err);
    qd_bus_pull_spec spec = {.stream = QD_STREAM_JOBS,
                             .durable = durable,
                             .filter = filter,
                             .ack_wait_ms = j->opts.lease_ms,
                             .ack_pending_max = RUNNING_MAX};
    if (rc == QD_OK) rc = qd_bus_pull_open(j->bus, &spec, &j->lanes[j->n_lanes], err);
    if (rc == QD_OK) j->lane_of[j->n_lanes++] = *lane;
    return rc;
}

qd_code qd_jobs_lanes_open(qd_jobs *j, const char *device_class, const char *numerics_id, qd_err *err)
{
    qd_lane lane = {0};
    qd_code rc = qd_id_check(device_class, "device class", err);
    if (rc == QD_OK && numerics_id != NULL) rc = qd_id_check(numerics_id, "numerics id", err);
    if (rc != QD_OK) return rc;
    bool two = numerics_id != NULL && strcmp(numerics_id, "any") != 0;
    (void)snprintf(lane.device_class, sizeof lane.device_class, "%s", device_class);
    size_t done = j->n_lanes, at = 0; /* an earlier call may have come as far as this */
    for (uint32_t p = 0; p <= QD_PRIORITY_MAX && rc == QD_OK; p++) {
        lane.priority = p;
        /* What only some workers can do comes first. */
        (void)snprintf(lane.numerics_id, sizeof lane.numerics_id, "%s", numerics_id == NULL ? "any" : numerics_id);
        if (two && at++ >= done) rc = open_lane(j, &lane, err);
        (void)snprintf(lane.numerics_id, sizeof lane.numerics_id, "any");
        if (rc == QD_OK && at++ >= done) rc = open_lane(j, &lane, err);
    }
    return rc;
}

/* A lane without a job that lives is asked now and then only: with every priority and numerics id there are twenty, and
 * thousands of idle workers ask every second. */
qd_code qd_jobs_fetch(qd_jobs *j, qd_bus_msg *ret, bool *ret_got, qd_err *err)
{
    qd_code rc = QD_OK;
    uint64_t now_ms = qd_jobs_mono_ms(j);
    bool all = now_ms >= j->lanes_all_ms;
    if (all) j->lanes_all_ms = now_ms + ALL_LANES_MS;
    *ret_got = false;
    for (size_t i = 0; i < j->n_lanes && !*ret_got && rc == QD_OK; i++)
        if (all || qd_view_may_hold(&j->view, &j->lane_of[i]))
            rc = qd_bus_pull_fetch(j->bus, j->lanes[i], j->opts.step_ms, ret, ret_got, err);
    return rc;
}
