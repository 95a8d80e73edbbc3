/* new_job.c -- what tells one request for a job from another. */
#include "access/apikey.h"
#include "base/buf.h"
#include "base/mem.h"
#include "gateway/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add(qd_buf *b, const char *s)
{
    qd_buf_str(b, s == NULL ? "" : s);
    qd_buf_add(b, "", 1);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A JSON object's members have no order, and calibration files are all taken. */
static qd_code add_sorted(qd_buf *b, const char *const *list, size_t n, qd_err *err)
{
    const char **sorted = qd_calloc(n + 1, sizeof *sorted);
    if (sorted == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a digest");
    if (n != 0) {
        memcpy(sorted, list, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, by_text);
    }
    for (size_t i = 0; i < n; i++) add(b, sorted[i]);
    qd_free(sorted);
    return QD_OK;
}

qd_code qd_new_job_digest(const qd_new_job *n, char ret[QD_NEW_JOB_DIGEST_BYTES], qd_err *err)
{
    char hex[QD_SHA256_HEX_BYTES];
    qd_buf b = {0};
    const char *const texts[] = {n->name, n->description, n->model->id, n->tmpl->id, n->output_suffix};
    qd_code rc = QD_OK;
    qd_buf_printf(&b, "%d %d %u %zu %zu ", (int)n->origin, n->unique_name, n->n_settings, n->n_files, n->n_api_fields);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) add(&b, texts[i]);
    QD_TRY(add_sorted(&b, n->settings, n->n_settings, err));
    QD_TRY(add_sorted(&b, n->files, n->n_files, err));
    for (size_t i = 0; i < 2 * n->n_api_fields; i++) add(&b, n->api_fields[i]);
    QD_TRY(qd_buf_check(&b, err));
    QD_TRY(qd_sha256_hex(b.data, b.len, hex, err));
    (void)snprintf(ret, QD_NEW_JOB_DIGEST_BYTES, "%.32s", hex);
out:
    qd_buf_done(&b);
    return rc;
}
