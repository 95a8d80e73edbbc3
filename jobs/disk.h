/* disk.h -- SEAM: what the job state machine asks of directories. daemon/ has the real one, tests/sim a modelled one.
 *
 * OUT is spec.output_path (its name carries the job id); staging is OUT.staging.<epoch>. Every change is one rename, so
 * that of two that want the same directory one finds it gone: that is QD_OK here, never an error. Trash is a directory
 * on the same file system, of no interest to anybody. Errors: QD_E_IO, QD_E_ROOM and the like, the node's fault. */
#ifndef QD_JOBS_DISK_H
#define QD_JOBS_DISK_H

#include "proto/msg.h"
#include "proto/subject.h"

typedef enum qd_disk_kind {
    QD_DISK_STAGING,
    QD_DISK_OUTPUT,
    QD_DISK_TRASH
} qd_disk_kind;

typedef struct qd_disk_item {
    qd_disk_kind kind;
    const char *path;
    const char *job_id;
    uint64_t epoch; /* of staging */
} qd_disk_item;

typedef qd_code (*qd_disk_each)(void *ctx, const qd_disk_item *item, qd_err *err);

typedef struct qd_jobs_disk {
    void *ctx;
    /* Renames the newest OUT.staging.<e> with e < rec.epoch to OUT.staging.<rec.epoch>, whose old holder's paths fail
     * from then on. *ret_found: staging of this epoch is there now, so a resume can be tried. */
    qd_code (*adopt)(void *ctx, const qd_job_record *rec, bool *ret_found, qd_err *err);
    /* Whether OUT is there: the rename was the last step, so it is whole and verified. Fills ret (texts by
     * qd_text_set()) from the report beside it. QD_E_INPUT, the job's fault: something is there that no run left. */
    qd_code (*output)(void *ctx, const qd_job_record *rec, bool *ret_there, qd_report_summary *ret, qd_err *err);
    /* All OUT.staging.<e> with e <= rec.epoch to trash; younger ones belong to somebody else. */
    qd_code (*discard_staging)(void *ctx, const qd_job_record *rec, qd_err *err);
    qd_code (*discard_output)(void *ctx, const qd_job_record *rec, qd_err *err);
    /* Tells everything below the directories that jobs may use, until fn fails. */
    qd_code (*each)(void *ctx, qd_disk_each fn, void *fn_ctx, qd_err *err);
    /* Staging or output to trash; trash is removed for good. */
    qd_code (*discard)(void *ctx, const qd_disk_item *item, qd_err *err);
} qd_jobs_disk;

#endif
