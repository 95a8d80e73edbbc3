#include "calib/dataset.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "calib/dataset_parts.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void qd_reading_warn(const qd_reading *r, const char *fmt, ...)
{
    char sentence[QD_ERR_MSG_BYTES];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    if (r->o->warn != NULL) r->o->warn(r->o->warn_user, sentence);
}

static qd_code end_document(qd_reading *r, size_t end, qd_err *err)
{
    if (r->n_docs == r->cap_docs) {
        size_t cap = r->cap_docs < 256 ? 256 : 2 * r->cap_docs;
        size_t *ends = qd_realloc(r->ends, cap * sizeof *ends);
        if (ends == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %zu documents", cap);
        r->ends = ends;
        r->cap_docs = cap;
    }
    uint64_t n = end - (r->n_docs > 0 ? r->ends[r->n_docs - 1] : 0), len = r->o->len;
    r->ends[r->n_docs++] = end;
    r->filled += r->o->pack ? n : qd_min_u64(n, len - r->filled % len);
    if (r->o->seed == 0 && r->filled >= r->o->n_samples * len) r->full = true; /* the first documents are enough */
    return QD_OK;
}

qd_code qd_reading_add(qd_reading *r, size_t start, size_t piece, qd_err *err)
{
    for (size_t i = start; i < r->ids.n; i++)
        if (r->o->n_ids != 0 && (uint32_t)r->ids.data[i] >= r->o->n_ids)
            return qd_fail(err, QD_E_INPUT, "the tokenizer gives id %d, outside the model's vocabulary of %u",
                           (int)r->ids.data[i], r->o->n_ids);
    if (r->ids.n >= QD_DATASET_POOL_IDS_MAX) {
        r->ids.n = QD_DATASET_POOL_IDS_MAX;
        qd_reading_warn(r, "only the first %zu tokens of the data are used", r->ids.n);
        r->full = true;
    }
    for (; piece != 0 && r->ids.n - start > piece; start += piece) {
        qd_code rc = end_document(r, start + piece, err);
        if (rc != QD_OK) return rc;
    }
    return end_document(r, r->ids.n, err);
}

static uint64_t next_random(uint64_t *state) /* SplitMix64 (Steele, Lea, Flood 2014) */
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void shuffle(uint32_t *order, size_t n, uint64_t seed)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)(next_random(&seed) % i);
        uint32_t t = order[i - 1];
        order[i - 1] = order[j];
        order[j] = t;
    }
}

/* Documents in order into d->ids; returns the ids written, at most n_samples x len. */
static uint64_t fill(const qd_reading *r, const uint32_t *order, qd_dataset *d)
{
    uint64_t at = 0, total = (uint64_t)d->n_samples * d->len;
    for (size_t i = 0; i < r->n_docs && at < total; i++) {
        size_t start = order[i] == 0 ? 0 : r->ends[order[i] - 1], n = r->ends[order[i]] - start;
        uint64_t room = r->o->pack ? total - at : d->len - at % d->len;
        if (n > room) n = (size_t)room;
        if (n != 0) memcpy(d->ids + at, r->ids.data + start, n * sizeof *d->ids);
        at += n;
    }
    return at;
}

static qd_code make_samples(qd_reading *r, qd_dataset *ret, qd_err *err)
{
    qd_dataset d = {.n_samples = r->o->n_samples, .len = r->o->len, .n_used = r->n_used, .n_skipped = r->n_skipped};
    uint64_t total = qd_min_u64((uint64_t)d.n_samples * d.len, r->ids.n);
    assert(total > 0); /* options and ids were checked */
    uint32_t *order = qd_malloc(r->n_docs * sizeof *order);
    qd_code rc = QD_OK;
    if (total < d.len) d.len = (uint32_t)total;
    d.n_samples = (uint32_t)(total / d.len);
    d.ids = qd_malloc((size_t)d.n_samples * d.len * sizeof *d.ids);
    if (order == NULL || d.ids == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for %" PRIu64 " ids", total);
        goto out;
    }
    for (size_t i = 0; i < r->n_docs; i++) order[i] = (uint32_t)i;
    if (r->o->seed != 0) shuffle(order, r->n_docs, r->o->seed);
    uint64_t got = fill(r, order, &d);
    assert(got > 0);                        /* no document is empty */
    if (got < d.len) d.len = (uint32_t)got; /* unpacked: rests were dropped */
    d.n_samples = (uint32_t)(got / d.len);
    if (d.n_samples < r->o->n_samples || d.len < r->o->len)
        qd_reading_warn(r, "the data is enough for %u samples of %u tokens; %u of %u were asked for", d.n_samples,
                        d.len, r->o->n_samples, r->o->len);
    *ret = d;
    d = (qd_dataset){0};
out:
    qd_free(order);
    qd_dataset_done(&d);
    return rc;
}

static qd_code read_files(qd_reading *r, qd_err *err)
{
    for (uint32_t i = 0; i < r->o->n_paths && !r->full; i++) {
        const char *path = r->o->paths[i];
        bool lines = qd_str_ends(path, ".jsonl") || qd_str_ends(path, ".json");
        qd_code rc = lines ? qd_dataset_read_lines(r, path, err) : qd_dataset_read_text(r, path, err);
        if (rc != QD_OK) return rc;
    }
    if (r->n_skipped > QD_DATASET_WARNINGS_MAX)
        qd_reading_warn(r, "%" PRIu64 " more lines were skipped", r->n_skipped - QD_DATASET_WARNINGS_MAX);
    return QD_OK;
}

static qd_code check_count(uint32_t n, uint32_t len, qd_err *err)
{
    if (n == 0 || len == 0 || (uint64_t)n * len > QD_DATASET_POOL_IDS_MAX)
        return qd_fail(err, QD_E_USAGE, "calibration data: expected samples x length of 1 to %d tokens, found %u x %u",
                       QD_DATASET_POOL_IDS_MAX, n, len);
    return QD_OK;
}

static qd_code check_options(const qd_dataset_options *o, const qd_tokenizer *t, bool *ret_ids, qd_err *err)
{
    *ret_ids = false;
    if (o->n_paths == 0 || o->n_paths > QD_DATASET_FILES_MAX)
        return qd_fail(err, QD_E_USAGE, "calibration data: expected 1 to %d files, found %u", QD_DATASET_FILES_MAX,
                       o->n_paths);
    *ret_ids = o->ids;
    for (uint32_t i = 0; i < o->n_paths; i++) *ret_ids = *ret_ids || qd_str_ends(o->paths[i], ".safetensors");
    if (*ret_ids && o->n_paths > 1)
        return qd_fail(err, QD_E_USAGE, "calibration data: ids from safetensors stand alone, found %u files",
                       o->n_paths);
    if (*ret_ids) return QD_OK;
    if (t == NULL) return qd_fail(err, QD_E_USAGE, "calibration data: %s needs a tokenizer", o->paths[0]);
    return check_count(o->n_samples, o->len, err);
}

static qd_code add_starts(qd_dataset *d, qd_err *err)
{
    d->starts = qd_malloc(((size_t)d->n_samples + 1) * sizeof *d->starts);
    if (d->starts == NULL) return qd_fail(err, QD_E_NO_MEMORY, "calibration data: out of memory");
    for (uint64_t i = 0; i <= d->n_samples; i++) d->starts[i] = i * d->len;
    return QD_OK;
}

qd_code qd_dataset_load(qd_tokenizer *tokenizer, const qd_chat *chat, const qd_dataset_options *o, qd_dataset *ret,
                        qd_err *err)
{
    qd_reading r = {.o = o, .tokenizer = tokenizer, .chat = chat};
    qd_dataset d = {0};
    bool only_ids = false;
    qd_code rc = QD_OK;
    QD_TRY(check_options(o, tokenizer, &only_ids, err));
    if (only_ids) {
        QD_TRY(qd_dataset_read_ids(o, o->paths[0], &d, err));
        goto done;
    }
    QD_TRY(read_files(&r, err));
    if (r.ids.n == 0) {
        const char *reasons = r.reasons.data != NULL ? r.reasons.data : "; the files are empty";
        rc = qd_fail(err, QD_E_INPUT, "calibration data: no usable sample%s%s", r.n_skipped > 0 ? " in" : "",
                     r.n_skipped > 0 ? reasons + 1 : reasons);
        goto out;
    }
    QD_TRY(make_samples(&r, &d, err));
done:
    QD_TRY(add_starts(&d, err));
    *ret = d;
    d = (qd_dataset){0};
out:
    qd_dataset_done(&d);
    qd_ids_done(&r.ids);
    qd_free(r.ends);
    qd_buf_done(&r.reasons);
    qd_buf_done(&r.text);
    return rc;
}

qd_code qd_dataset_zeros(uint32_t n, uint32_t len, qd_dataset *ret, qd_err *err)
{
    qd_dataset d = {.n_samples = n, .len = len};
    qd_code rc = QD_OK;
    QD_TRY(check_count(n, len, err));
    d.ids = qd_calloc((size_t)n * len, sizeof *d.ids);
    if (d.ids == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "calibration data: out of memory");
        goto out;
    }
    QD_TRY(add_starts(&d, err));
    *ret = d;
    memset(&d, 0, sizeof d); /* ownership moved */
out:
    qd_dataset_done(&d);
    return rc;
}

void qd_dataset_done(qd_dataset *d)
{
    if (d == NULL) return;
    qd_free(d->ids);
    qd_free(d->starts);
    *d = (qd_dataset){0};
}

char *qd_dataset_default_path(void)
{
    static const char *const dirs[] = {QD_CALIB_DIR_INSTALLED, QD_CALIB_DIR_SOURCE};
    char *path = qd_path_join(dirs[0], "default.jsonl");
    if (path == NULL || qd_path_exists(path)) return path;
    qd_free(path);
    return qd_path_join(dirs[1], "default.jsonl");
}
