#include "engine/journal.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define JOURNAL_BYTES_MAX ((uint64_t)1 << 30)

typedef struct file_journal {
    qd_journal base; /* first */
    int fd;
    char *path;
    pthread_mutex_t lock;
} file_journal;

static qd_code append(file_journal *j, const qd_buf *line, qd_err *err)
{
    qd_code rc = QD_OK;
    (void)pthread_mutex_lock(&j->lock);
    for (size_t at = 0; at < line->len && rc == QD_OK;) {
        int fault = qd_fault_here(QD_FAULT_WRITE);
        ssize_t n = fault ? -1 : write(j->fd, line->data + at, line->len - at);
        if (fault) errno = fault;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) rc = qd_fail_errno(err, QD_E_IO, errno, "%s", j->path);
        at += n > 0 ? (size_t)n : 0;
    }
    (void)pthread_mutex_unlock(&j->lock);
    return rc;
}

/* One unit's line into run; false when it does not fit the plan (then the journal ends here). */
static bool take_line(const json_t *o, qd_run *run, bool *seen, qd_hash128 *hash)
{
    const qd_plan *p = run->plan;
    const json_t *items = json_object_get(o, "items");
    json_int_t unit = json_integer_value(json_object_get(o, "unit"));
    const char *hex = json_string_value(json_object_get(o, "hash"));
    qd_hash128 h;
    if (!json_is_integer(json_object_get(o, "unit")) || unit < 0 || (uint64_t)unit >= p->n_units || hex == NULL ||
        !qd_hash_from_hex(hex, &h))
        return false;
    const qd_unit *u = &p->units[unit];
    size_t n = u->kind == QD_UNIT_QUANTIZE ? u->n_items : 0;
    if (json_array_size(items) != n) return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(items, i);
        qd_item_result *r = &run->result[u->first_item + i];
        if (json_array_size(row) != 6) return false;
        for (size_t k = 0; k < 6; k++)
            if (!json_is_number(json_array_get(row, k))) return false;
        r->sums.err2 = json_number_value(json_array_get(row, 0));
        r->sums.w2 = json_number_value(json_array_get(row, 1));
        r->sums.n_clipped = (uint64_t)json_integer_value(json_array_get(row, 2));
        r->sums.n_zero = (uint64_t)json_integer_value(json_array_get(row, 3));
        r->amax = (float)json_number_value(json_array_get(row, 4));
        r->gs = (float)json_number_value(json_array_get(row, 5));
    }
    seen[unit] = true;
    hash[unit] = h;
    return true;
}

/* A layer's input amaxes into run: one for each of its quantized linears, in order. */
static bool take_inputs(const json_t *o, qd_run *run)
{
    const qd_plan *p = run->plan;
    const json_t *list = json_object_get(o, "inputs");
    json_int_t layer = json_integer_value(json_object_get(o, "layer"));
    size_t n = 0;
    if (layer < 0 || (uint64_t)layer >= p->n_layers) return false;
    for (uint32_t i = 0; i < p->n_items; i++) {
        const qd_unit *u = &p->units[p->items[i].unit];
        if (u->kind != QD_UNIT_QUANTIZE || u->layer != (int32_t)layer) continue;
        const json_t *v = json_array_get(list, n++);
        if (!json_is_number(v)) return false;
        run->result[i].input_amax = (float)json_number_value(v);
        run->result[i].input_gs = qd_input_global(&p->recipe, QD_BF16, run->result[i].input_amax);
    }
    if (json_array_size(list) != n) return false;
    list = json_object_get(o, "kv");
    n = 0;
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (p->items[i].kv == 0 || p->units[p->items[i].unit].layer != (int32_t)layer) continue;
        const json_t *v = json_array_get(list, n++);
        if (!json_is_number(v)) return false;
        run->result[i].kv_amax = (float)json_number_value(v);
    }
    if (json_array_size(list) != n) return false;
    run->layer_inputs[layer] = true;
    run->layer_error[layer] = (float)json_number_value(json_object_get(o, "error"));
    return true;
}

/* Length of the part of text that is whole and fits; 0 when the first line is not this plan's. */
static size_t replay(const char *text, size_t len, qd_run *run, bool *seen, qd_hash128 *hash)
{
    char hex[QD_HASH_HEX_BYTES];
    size_t good = 0;
    bool first = true;
    qd_hash_hex(run->plan->hash, hex);
    while (good < len) {
        const char *nl = memchr(text + good, '\n', len - good);
        if (nl == NULL) break;
        json_t *o = NULL;
        size_t n = (size_t)(nl - text) - good;
        if (qd_json_parse(text + good, n, "journal", &o, NULL) != QD_OK) break;
        const char *plan = json_string_value(json_object_get(o, "plan"));
        bool ok = first                                  ? plan != NULL && strcmp(plan, hex) == 0
                  : json_object_get(o, "inputs") != NULL ? take_inputs(o, run)
                                                         : take_line(o, run, seen, hash);
        json_decref(o);
        if (!ok) break;
        first = false;
        good += n + 1;
    }
    return good;
}

static qd_code file_add(qd_journal *j, const qd_run *run, uint32_t unit, qd_hash128 hash, qd_err *err)
{
    const qd_unit *u = &run->plan->units[unit];
    char hex[QD_HASH_HEX_BYTES];
    qd_buf line = {0};
    qd_hash_hex(hash, hex);
    qd_buf_printf(&line, "{\"unit\":%u,\"hash\":\"%s\",\"items\":[", unit, hex);
    for (uint32_t i = 0; u->kind == QD_UNIT_QUANTIZE && i < u->n_items; i++) {
        const qd_item_result *r = &run->result[u->first_item + i];
        qd_buf_printf(&line, "%s[%.17g,%.17g,%" PRIu64 ",%" PRIu64 ",%.9g,%.9g]", i == 0 ? "" : ",", r->sums.err2,
                      r->sums.w2, r->sums.n_clipped, r->sums.n_zero, (double)r->amax, (double)r->gs);
    }
    qd_buf_str(&line, "]}\n");
    qd_code rc = qd_buf_check(&line, err);
    if (rc == QD_OK) rc = append((file_journal *)j, &line, err);
    qd_buf_done(&line);
    return rc;
}

static qd_code file_add_inputs(qd_journal *j, const qd_run *run, uint32_t layer, qd_err *err)
{
    const qd_plan *p = run->plan;
    const char *sep = "";
    qd_buf line = {0};
    qd_buf_printf(&line, "{\"layer\":%u,\"inputs\":[", layer);
    for (uint32_t i = 0; i < p->n_items; i++) {
        const qd_unit *u = &p->units[p->items[i].unit];
        if (u->kind != QD_UNIT_QUANTIZE || u->layer != (int32_t)layer) continue;
        qd_buf_printf(&line, "%s%.9g", sep, (double)run->result[i].input_amax);
        sep = ",";
    }
    qd_buf_str(&line, "],\"kv\":[");
    sep = "";
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (p->items[i].kv == 0 || p->units[p->items[i].unit].layer != (int32_t)layer) continue;
        qd_buf_printf(&line, "%s%.9g", sep, (double)run->result[i].kv_amax);
        sep = ",";
    }
    qd_buf_printf(&line, "],\"error\":%.9g}\n", (double)run->layer_error[layer]);
    qd_code rc = qd_buf_check(&line, err);
    if (rc == QD_OK) rc = append((file_journal *)j, &line, err);
    qd_buf_done(&line);
    return rc;
}

static void file_close(qd_journal *base)
{
    file_journal *j = (file_journal *)base;
    if (j->fd >= 0) (void)close(j->fd);
    (void)pthread_mutex_destroy(&j->lock);
    qd_free(j->path);
    qd_free(j);
}

static const qd_journal_ops k_ops = {file_add, file_add_inputs, file_close};

qd_code qd_journal_open(const char *path, bool resume, qd_run *run, bool *ret_seen, qd_hash128 *ret_hash,
                        bool *ret_fresh, qd_journal **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    char *text = NULL;
    size_t len = 0, good = 0;
    qd_buf line = {0};
    file_journal *j = qd_calloc(1, sizeof *j);
    if (j == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the journal");
    j->base.ops = &k_ops;
    j->fd = -1;
    (void)pthread_mutex_init(&j->lock, NULL);
    j->path = qd_strdup(path);
    if (j->path == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for the journal");
        goto out;
    }
    if (resume && qd_path_exists(path)) {
        QD_TRY(qd_file_read(path, JOURNAL_BYTES_MAX, &text, &len, err));
        good = replay(text, len, run, ret_seen, ret_hash);
    }
    j->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (j->fd < 0 || ftruncate(j->fd, (off_t)good) != 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s", path);
        goto out;
    }
    if (good == 0) {
        char hex[QD_HASH_HEX_BYTES];
        qd_hash_hex(run->plan->hash, hex);
        qd_buf_printf(&line, "{\"quantd_journal\":1,\"plan\":\"%s\"}\n", hex);
        QD_TRY(qd_buf_check(&line, err));
        QD_TRY(append(j, &line, err));
    }
    *ret_fresh = good == 0;
    *ret = &j->base;
    j = NULL;
out:
    qd_buf_done(&line);
    qd_free(text);
    if (j != NULL) file_close(&j->base);
    return rc;
}
