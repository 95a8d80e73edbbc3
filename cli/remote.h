/* remote.h -- what the commands that speak to the bus share: where it is, one connection, records as text and JSON. */
#ifndef QD_CLI_REMOTE_H
#define QD_CLI_REMOTE_H

#include "base/buf.h"
#include "cli/args.h"
#include "jobs/jobs.h"

typedef struct qd_remote_args {
    const char *server, *creds, *ca, *tenant, *user;
    bool json, help;
} qd_remote_args;

#define QD_REMOTE_USAGE                                                                    \
    "  --server URL         the bus (default: $QD_NATS_URL, then nats://127.0.0.1:4222)\n" \
    "  --creds FILE         credentials (default: $QD_NATS_CREDS)\n"                       \
    "  --ca FILE            certificates that sign the server's (default: $QD_NATS_CA)\n"  \
    "  --tenant ID          default: $QD_TENANT, then \"default\"\n"                       \
    "  --json               one JSON object a line on stdout\n"

enum {
    QD_REMOTE_OPTS = 7
};
/* Appends the shared options to opts (room for QD_REMOTE_OPTS) and returns how many. */
uint32_t qd_remote_opts(qd_remote_args *a, qd_opt *opts);

typedef struct qd_remote {
    qd_bus *bus;
    qd_jobs *jobs;
    char self[64];
    const char *tenant;
    qd_jobs_caller caller;
} qd_remote;

/* Connects; QD_E_AWAY "no answer from ..." when nothing answers within a few seconds. */
QD_MUST_CHECK qd_code qd_remote_open(const qd_remote_args *a, qd_remote *ret, qd_err *err);
void qd_remote_close(qd_remote *r);

/* {"event":"job", ...} without newline; text: one line of a table. */
void qd_remote_job_json(const qd_job_record *rec, qd_buf *out);
void qd_remote_job_row(const qd_job_record *rec, qd_buf *out);
/* "2026-04-11 12:02:35" in the zone of $TZ; "-" for 0. */
void qd_remote_time(uint64_t ms, char *ret, size_t room);
/* Prints out and empties it; memory that ran out is an error. */
QD_MUST_CHECK qd_code qd_remote_print(qd_buf *out, qd_err *err);

/* The lane of a job (remote_lane.c): device class (NULL: "cpu") and numerics id. numerics NULL: "any", or for a
 * calibrated job the id that most of the class's living workers have, so that another one can go on with its work.
 * Where the job has to wait for a worker, or no id could be chosen, a sentence goes to stderr. */
QD_MUST_CHECK qd_code qd_remote_lane(qd_remote *r, const char *device_class, const char *numerics, bool calibrated,
                                     qd_job_lane *ret, qd_err *err);

int qd_cmd_submit(int argc, char **argv);
int qd_cmd_watch(int argc, char **argv);
int qd_cmd_logs(int argc, char **argv);
int qd_cmd_list(int argc, char **argv);
int qd_cmd_get(int argc, char **argv);
int qd_cmd_cancel(int argc, char **argv);
int qd_cmd_delete(int argc, char **argv);
int qd_cmd_workers(int argc, char **argv);
int qd_cmd_drain(int argc, char **argv);
int qd_cmd_dlq(int argc, char **argv);
int qd_cmd_audit(int argc, char **argv);
int qd_cmd_keys(int argc, char **argv);
int qd_cmd_tenants(int argc, char **argv);

/* `watch` for a job that is known: 0 when it succeeded. */
int qd_remote_watch(qd_remote *r, const char *id, bool json);

#endif
