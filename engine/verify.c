#include "engine/verify.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/pool.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum {
    VERIFY_THREADS_MAX = 6
};

typedef struct verify {
    qd_run *run;
    qd_source **parts; /* [n_parts] */
    const bool *want;
    bool keep_hashes; /* resume: take what is read; else compare */
    qd_cancel *cancel;
    unsigned char *areas;
    size_t area_bytes;
    atomic_uint next; /* tile */
    atomic_uint running;
    atomic_ullong done_bytes;
    atomic_int stop;
    pthread_mutex_t lock;
    qd_err err; /* the first */
} verify;

static void fail(verify *v, const qd_err *err)
{
    (void)pthread_mutex_lock(&v->lock);
    if (v->err.code == QD_OK) v->err = *err;
    (void)pthread_mutex_unlock(&v->lock);
    atomic_store(&v->stop, 1);
}

static qd_code read_back(const verify *v, const qd_extent *x, unsigned char *area, const unsigned char **ret,
                         qd_err *err)
{
    void *data = NULL;
    qd_code rc = qd_source_read_area(v->parts[x->part], x->off, (size_t)x->bytes, area, v->area_bytes, &data, err);
    *ret = data;
    return rc;
}

static bool has_nan(const unsigned char *scales, uint64_t n)
{
    unsigned found = 0;
    for (uint64_t i = 0; i < n; i++) found |= (scales[i] & 0x7fu) == 0x7fu;
    return found != 0;
}

static qd_code check_tile(verify *v, uint32_t tile, unsigned char *area, qd_err *err)
{
    const qd_plan *p = v->run->plan;
    qd_tile t = qd_plan_tile(p, tile);
    bool quantized = p->units[t.item->unit].kind == QD_UNIT_QUANTIZE;
    qd_tile_hash found = {0};
    for (int k = 0; k < (quantized ? 2 : 1); k++) {
        qd_extent x = qd_plan_extent(p, &t, k == 0 ? QD_PART_CODES : QD_PART_SCALES);
        const unsigned char *data = NULL;
        qd_code rc = read_back(v, &x, area, &data, err);
        if (rc != QD_OK) return rc;
        found.part[k] = qd_hash(data, x.bytes);
        atomic_fetch_add_explicit(&v->done_bytes, x.bytes, memory_order_relaxed);
        if (v->keep_hashes) continue;
        const char *name = p->outs[t.item->out[k]].name;
        if (!qd_hash_equal(found.part[k], v->run->tile_hash[tile].part[k]))
            return qd_fail(err, QD_E_VERIFY,
                           "%s: %s: rows from %" PRIu64
                           " read back differ from what was written: the disk or its cache is faulty",
                           p->parts[x.part].name, name, t.row);
        if (k == 1 && has_nan(data, x.bytes))
            return qd_fail(err, QD_E_VERIFY, "%s: %s: holds a NaN scale", p->parts[x.part].name, name);
    }
    if (v->keep_hashes) v->run->tile_hash[tile] = found;
    return QD_OK;
}

static void work(void *arg, unsigned index)
{
    verify *v = arg;
    const qd_plan *p = v->run->plan;
    unsigned char *area = v->areas + index * v->area_bytes;
    while (atomic_load(&v->stop) == 0) {
        qd_err err = {0};
        uint32_t tile = atomic_fetch_add(&v->next, 1);
        if (tile >= p->n_tiles) break;
        if (v->want != NULL && !v->want[p->items[p->tile_item[tile]].unit]) continue;
        qd_code rc =
            qd_cancel_asked(v->cancel) ? qd_fail(&err, QD_E_CANCELED, "canceled") : check_tile(v, tile, area, &err);
        if (rc != QD_OK) fail(v, &err);
    }
    atomic_fetch_sub(&v->running, 1);
}

static qd_code check_scale(const verify *v, uint32_t item, qd_part_kind k, bool *ret_same, qd_err *err)
{
    const qd_plan *p = v->run->plan;
    const qd_tensor *o = &p->outs[p->items[item].out[k]];
    unsigned char want[QD_STORED_BYTES_MAX], found[QD_STORED_BYTES_MAX] = {0};
    size_t n = qd_run_stored_scale(v->run, item, k, want);
    qd_code rc = qd_source_read(v->parts[o->file], o->off, found, n, err);
    if (rc != QD_OK || memcmp(want, found, n) == 0) return rc;
    *ret_same = false;
    if (v->keep_hashes) return QD_OK;
    return qd_fail(err, QD_E_VERIFY, "%s: %s: read back differs from what was written", p->parts[o->file].name,
                   o->name);
}

/* The scales of whole tensors in a unit: global, input, key-value cache. */
static qd_code check_scales(const verify *v, uint32_t unit, bool *ret_same, qd_err *err)
{
    const qd_plan *p = v->run->plan;
    const qd_unit *u = &p->units[unit];
    qd_code rc = QD_OK;
    *ret_same = true;
    for (uint32_t i = u->first_item; i < u->first_item + u->n_items; i++)
        for (int k = QD_PART_GLOBAL; k < QD_PART_KIND_COUNT && rc == QD_OK; k++)
            if (p->items[i].out[k] != QD_NONE) rc = check_scale(v, i, (qd_part_kind)k, ret_same, err);
    return rc;
}

static qd_code open_parts(verify *v, const char *dir, qd_err *err)
{
    const qd_plan *p = v->run->plan;
    qd_code rc = QD_OK;
    v->parts = qd_calloc(p->n_parts, sizeof *v->parts);
    if (v->parts == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for verification");
    for (uint32_t i = 0; i < p->n_parts && rc == QD_OK; i++) {
        char *path = qd_path_join(dir, p->parts[i].name);
        rc = path == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory for verification")
                          : qd_source_open_file(path, &v->parts[i], err);
        qd_free(path);
    }
    return rc;
}

qd_code qd_verify_units(qd_run *run, const char *dir, const bool *want, const qd_hash128 *expect, bool *ok,
                        const qd_job_events *events, qd_cancel *cancel, qd_err *err)
{
    const qd_plan *p = run->plan;
    verify v = {
        .run = run, .want = want, .keep_hashes = expect != NULL, .cancel = cancel, .area_bytes = p->worker_bytes};
    qd_pool *pool = NULL;
    qd_code rc = QD_OK;
    unsigned threads = p->n_workers < VERIFY_THREADS_MAX ? p->n_workers : VERIFY_THREADS_MAX;
    qd_meter m = {.events = events, .phase = "verify", .start_ns = qd_mono_ns(), .n_layers = (int32_t)p->n_layers};
    (void)pthread_mutex_init(&v.lock, NULL);
    v.areas = qd_map(threads * v.area_bytes);
    if (v.areas == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for verification");
        goto out;
    }
    QD_TRY(open_parts(&v, dir, err));
    for (uint32_t u = 0; u < p->n_units; u++)
        if (want == NULL || want[u]) m.total_bytes += p->units[u].out_bytes;
    atomic_store(&v.running, threads);
    QD_TRY(qd_pool_start(threads, "qd-verify", work, &v, &pool, err));
    while (atomic_load(&v.running) > 0 && atomic_load(&v.stop) == 0) {
        struct timespec nap = {0, 5000000};
        (void)nanosleep(&nap, NULL);
        uint64_t done = qd_min_u64(atomic_load(&v.done_bytes), m.total_bytes);
        qd_meter_show(&m, done, atomic_load(&v.next), (int32_t)p->n_layers - 1, false);
    }
    qd_pool_join(pool);
    if (v.err.code != QD_OK) {
        rc = v.err.code;
        if (err != NULL) *err = v.err;
        goto out;
    }
    for (uint32_t u = 0; u < p->n_units; u++) {
        bool same = true;
        qd_hash128 h = {0, 0};
        if (want != NULL && !want[u]) continue;
        QD_TRY(check_scales(&v, u, &same, err));
        QD_TRY(qd_run_unit_hash(run, u, &h, err));
        if (ok != NULL) ok[u] = same && (expect == NULL || qd_hash_equal(h, expect[u]));
    }
    if (expect == NULL) qd_meter_show(&m, m.total_bytes, p->n_tiles, (int32_t)p->n_layers - 1, true);
out:
    for (uint32_t i = 0; v.parts != NULL && i < p->n_parts; i++) qd_source_free(v.parts[i]);
    qd_free(v.parts);
    qd_unmap(v.areas, threads * v.area_bytes);
    (void)pthread_mutex_destroy(&v.lock);
    return rc;
}

static qd_code check_header(const qd_out_part *part, qd_source *src, char *area, qd_err *err)
{
    if (src->size_bytes != part->size_bytes)
        return qd_fail(err, QD_E_VERIFY, "%s: expected %" PRIu64 " bytes, found %" PRIu64, part->name, part->size_bytes,
                       src->size_bytes);
    qd_code rc = qd_source_read(src, 0, area, part->header.len, err);
    if (rc == QD_OK && memcmp(area, part->header.data, part->header.len) != 0)
        rc = qd_fail(err, QD_E_VERIFY, "%s: the header read back differs from what was written", part->name);
    return rc;
}

qd_code qd_verify_headers(const qd_plan *p, const char *dir, qd_err *err)
{
    qd_code rc = QD_OK;
    for (uint32_t i = 0; i < p->n_parts && rc == QD_OK; i++) {
        const qd_out_part *part = &p->parts[i];
        qd_source *src = NULL;
        char *path = qd_path_join(dir, part->name), *found = qd_malloc(part->header.len);
        rc = path == NULL || found == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory for verification")
                                           : qd_source_open_file(path, &src, err);
        if (src != NULL) rc = check_header(part, src, found, err);
        qd_source_free(src);
        qd_free(found);
        qd_free(path);
    }
    return rc;
}
