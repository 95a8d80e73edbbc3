/* selftest.c -- the checks one after the other, in a directory of their own. */
#include "engine/selftest.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "gpu/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct tester {
    const qd_selftest_opts *o;
    char *dir;
    qd_dev *dev, *reference;
    const qd_ops *ops; /* NULL: this processor */
    unsigned n_failed;
} tester;

/* A directory that is empty. */
static qd_code sub_dir(const tester *t, const char *name, char **ret, qd_err *err)
{
    *ret = qd_path_join(t->dir, name);
    if (*ret == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
    return mkdir(*ret, 0700) == 0 ? QD_OK : qd_fail_errno(err, QD_E_IO, errno, "%s", *ret);
}

static qd_code job_check(tester *t, const char *name, bool calibrated, qd_selftest_check *c, qd_err *err)
{
    char *dir = NULL;
    qd_code rc = sub_dir(t, name, &dir, err);
    if (rc == QD_OK) rc = qd_selftest_job(t->o, t->ops, dir, calibrated, c, err);
    qd_free(dir);
    return rc;
}

typedef enum check {
    NUMBERS,
    AMAX,
    ENCODE,
    OPERATIONS,
    JOB_WEIGHTS,
    JOB_CALIBRATED,
    CHECKS
} check;

static qd_code run_check(tester *t, check which, qd_selftest_check *c, qd_err *err)
{
    switch (which) {
    case NUMBERS:
        qd_selftest_numbers(c);
        return QD_OK;
    case AMAX:
        return qd_selftest_amax(t->dev, t->o->cancel, c, err);
    case ENCODE:
        return qd_selftest_encode(t->dev, t->reference, t->o->cancel, c, err);
    case OPERATIONS:
        return qd_selftest_ops(t->ops, t->o->cancel, c, err);
    case JOB_WEIGHTS:
        return job_check(t, "weights", false, c, err);
    case JOB_CALIBRATED:
        return job_check(t, "calibrated", true, c, err);
    case CHECKS:
        break;
    }
    return QD_OK;
}

/* An error of a device or of the engine is a finding; what keeps us from looking is not. */
static bool is_finding(qd_code rc)
{
    return rc == QD_E_DEVICE || rc == QD_E_VERIFY || rc == QD_E_INTERNAL || rc == QD_E_INPUT || rc == QD_E_QUALITY;
}

static qd_code run_all(tester *t, qd_err *err)
{
    const bool gpu = t->ops != NULL;
    const char *const names[CHECKS] = {"small floats, ties and neighbours",
                                       "largest magnitude",
                                       "NVFP4 encoder, every rule and dtype",
                                       "operations of a forward pass",
                                       "a job, weights only",
                                       gpu ? "a job, rounded with calibration" : "a job, GPTQ with calibration"};
    for (int i = 0; i < CHECKS; i++) {
        if (i == OPERATIONS && !gpu) continue; /* beside itself */
        qd_selftest_check c = {.name = names[i]};
        uint64_t began = qd_mono_ns();
        qd_code rc = run_check(t, (check)i, &c, err);
        if (is_finding(rc))
            qd_selftest_case(&c, false, "%s", err != NULL ? err->msg : qd_code_name(rc));
        else if (rc != QD_OK)
            return rc;
        c.seconds = (double)(qd_mono_ns() - began) * 1e-9;
        t->n_failed += c.n_failed != 0;
        if (t->o->told != NULL) t->o->told(t->o->ctx, &c);
    }
    return QD_OK;
}

static qd_code open_devices(tester *t, qd_err *err)
{
    qd_code rc = qd_dev_open(t->o->device, &t->dev, err);
    if (rc == QD_OK) rc = qd_dev_open_host("scalar", &t->reference, err);
    if (rc == QD_OK && strcmp(t->o->device, "cpu") != 0) rc = qd_ops_open(t->o->device, &t->ops, err);
    return rc;
}

qd_code qd_selftest_run(const qd_selftest_opts *o, unsigned *ret_failed, qd_err *err)
{
    const char *tmp = getenv("TMPDIR"), *base = o->dir != NULL ? o->dir : tmp != NULL ? tmp : "/tmp";
    tester t = {.o = o};
    qd_code rc = QD_OK;
    QD_TRY(open_devices(&t, err));
    t.dir = qd_path_join(base, "quantctl-selftest-XXXXXX");
    if (t.dir == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
        goto out;
    }
    if (mkdtemp(t.dir) == NULL) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s", t.dir);
        qd_free(t.dir);
        t.dir = NULL; /* nothing to remove */
        goto out;
    }
    QD_TRY(run_all(&t, err));
    *ret_failed = t.n_failed;
out:
    if (t.dir != NULL && qd_tree_remove(t.dir, rc == QD_OK ? err : NULL) != QD_OK && rc == QD_OK) rc = QD_E_IO;
    qd_free(t.dir);
    qd_dev_free(t.dev);
    qd_dev_free(t.reference);
    qd_ops_close(t.ops);
    return rc;
}
