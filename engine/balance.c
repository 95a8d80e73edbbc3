/* balance.c -- balanced scaling: each channel of an input is divided by s and the weights that read it multiplied, so
 * that both are as even as they can be. s goes into the norm before, or the rows of the linear before.
 *
 * s_j = (mean_t x_tj^2 / mean_i W_ij^2)^(1/4), divided by its geometric mean; or its square root, or 1, where the
 * estimate of the outputs' error (strength.c) is less. At run time it costs nothing. */
#include "base/mem.h"
#include "engine/layer_work.h"
#include "gpu/num.h"

#include <math.h>
#include <string.h>

#define CLEARLY 0.9  /* the estimate is from some hundred tokens, and blind to what layers do together */
#define FLOOR   1e-6 /* of the mean: channels that are never used */
enum {
    CHUNK_ROWS = 64,
    N_STRENGTHS = 3
};

static qd_code no_memory(qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory for scaling");
}

static uint32_t site_of(const qd_layer_work *w, qd_site_kind kind, int32_t expert)
{
    for (uint32_t i = 0; i < w->n_sites; i++)
        if (w->sites[i].kind == kind && w->sites[i].expert == expert) return i;
    return QD_NONE;
}

/* The item of a site whose weight is x. */
static uint32_t item_of(const qd_layer_work *w, uint32_t site, const qd_weight *x)
{
    for (uint32_t i = 0; site != QD_NONE && i < w->sites[site].n_items; i++)
        if (qd_work_weight(w, w->sites[site].items[i]) == x) return w->sites[site].items[i];
    return QD_NONE;
}

/* The copied item of a whole tensor. */
static uint32_t copy_of(const qd_layer_work *w, uint32_t tensor)
{
    const qd_plan *p = w->run->plan;
    for (uint32_t i = 0; i < p->n_items; i++)
        if (p->items[i].tensor == tensor && p->units[p->items[i].unit].kind == QD_UNIT_COPY) return i;
    return QD_NONE;
}

typedef struct squares {
    const qd_layer_work *w;
    uint32_t site, item;
    float *rows;  /* [n_threads][CHUNK_ROWS][n] */
    double *sums; /* [chunks][n] */
    uint64_t n;
} squares;

static qd_code square_chunk(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    const squares *q = arg;
    uint64_t rows = q->w->run->plan->items[q->item].rows, first = task * CHUNK_ROWS;
    uint64_t m = qd_min_u64(CHUNK_ROWS, rows - first);
    float *x = q->rows + worker * CHUNK_ROWS * q->n;
    double *sum = q->sums + task * q->n;
    qd_code rc = qd_work_rows(q->w, q->site, q->item, first, m, x, err);
    for (uint64_t r = 0; rc == QD_OK && r < m; r++)
        for (uint64_t k = 0; k < q->n; k++) sum[k] += (double)x[r * q->n + k] * (double)x[r * q->n + k];
    return rc;
}

/* Mean over rows of W^2 of the linears of a site; sums in the order of chunks. */
static qd_code weight_moments(const qd_layer_work *w, uint32_t site, double *ret, qd_err *err)
{
    const qd_input_site *s = &w->sites[site];
    squares q = {.w = w, .site = site, .n = s->n_channels};
    double rows = 0;
    qd_code rc = QD_OK;
    memset(ret, 0, q.n * sizeof *ret);
    q.rows = qd_malloc(w->tasks->n_threads * CHUNK_ROWS * q.n * sizeof *q.rows);
    for (uint32_t i = 0; i < s->n_items; i++) {
        uint64_t n = w->run->plan->items[s->items[i]].rows, chunks = qd_div_up(n, CHUNK_ROWS);
        q.item = s->items[i];
        q.sums = qd_calloc(chunks * q.n, sizeof *q.sums);
        rc = q.rows == NULL || q.sums == NULL ? no_memory(err) : qd_tasks_run(w->tasks, chunks, square_chunk, &q, err);
        for (uint64_t c = 0; rc == QD_OK && c < chunks; c++)
            for (uint64_t k = 0; k < q.n; k++) ret[k] += q.sums[c * q.n + k];
        rows += (double)n;
        qd_free(q.sums);
        if (rc != QD_OK) break;
    }
    qd_free(q.rows);
    for (uint64_t k = 0; k < q.n; k++) ret[k] /= rows;
    return rc;
}

static void lift(double *v, uint32_t n)
{
    double mean = 0;
    for (uint32_t k = 0; k < n; k++) mean += v[k];
    mean = mean / n * FLOOR;
    for (uint32_t k = 0; k < n; k++) v[k] = v[k] > mean ? v[k] : mean;
}

/* The mean of v over the query heads that share a key-value head, at each place of a head. */
static void share(double *v, uint32_t n, uint32_t head, uint32_t group)
{
    for (uint32_t k = 0; k < n; k += head * group)
        for (uint32_t d = 0; d < head; d++) {
            double sum = 0;
            for (uint32_t g = 0; g < group; g++) sum += v[k + g * head + d];
            for (uint32_t g = 0; g < group; g++) v[k + g * head + d] = sum / group;
        }
}

/* The strength of the least error, a weaker one only where it is clearly better; *ret NULL: none is better than no
 * scaling. */
static qd_code choose(const qd_layer_work *w, uint32_t site, const double *r, const double *m, const double *log_ratio,
                      float *s, float **ret, qd_err *err)
{
    static const double strength[N_STRENGTHS] = {1, 0.5, 0};
    qd_gang *gang = w->run->gang;
    uint32_t n = w->sites[site].n_channels;
    double error[N_STRENGTHS] = {0}, best = (double)INFINITY, mean = 0, chosen = 0;
    qd_code rc = QD_OK;
    for (uint32_t k = 0; k < n; k++) mean += log_ratio[k] / n;
    for (uint32_t i = 0; i < N_STRENGTHS && w->sites[site].expert < 0; i++) {
        if (i % qd_gang_size(gang) != qd_gang_rank(gang)) continue;
        for (uint32_t k = 0; k < n; k++) s[k] = (float)exp(0.25 * strength[i] * (log_ratio[k] - mean));
        rc = qd_work_tick(w, err);
        if (rc == QD_OK) rc = qd_scaling_error(w, site, r, m, s, &error[i], err);
        if (rc != QD_OK) return rc;
    }
    if (w->sites[site].expert < 0) rc = qd_gang_join(gang, error, sizeof error, err);
    if (rc != QD_OK) return rc;
    for (uint32_t i = 0; i < N_STRENGTHS; i++) {
        if (!(error[i] < best * (i == 0 ? 1 : CLEARLY))) continue;
        best = error[i];
        chosen = strength[i];
    }
    for (uint32_t k = 0; k < n; k++) s[k] = (float)exp(0.25 * chosen * (log_ratio[k] - mean));
    *ret = chosen > 0 ? s : NULL;
    return QD_OK;
}

/* s of a site; NULL: it is not scaled. head, group: see share(). */
static qd_code factors(qd_layer_work *w, uint32_t site, uint32_t head, uint32_t group, float **ret, qd_err *err)
{
    uint32_t n = w->sites[site].n_channels;
    double *r = qd_arena_alloc(&w->arena, n, sizeof *r), *m = qd_arena_alloc(&w->arena, n, sizeof *m);
    double *log_ratio = qd_arena_alloc(&w->arena, n, sizeof *log_ratio);
    float *s = qd_arena_alloc(&w->arena, n, sizeof *s);
    *ret = NULL;
    if (r == NULL || m == NULL || s == NULL || log_ratio == NULL) return no_memory(err);
    qd_work_moments(w, site, r);
    qd_code rc = weight_moments(w, site, m, err);
    if (rc != QD_OK) return rc;
    if (group > 1) {
        share(r, n, head, group);
        share(m, n, head, group);
    }
    lift(r, n);
    lift(m, n);
    if (!(r[0] > 0) || !(m[0] > 0)) return QD_OK; /* all zero */
    for (uint32_t k = 0; k < n; k++) log_ratio[k] = log(r[k] / m[k]);
    return choose(w, site, r, m, log_ratio, s, ret, err);
}

/* One element of a tensor of the source's dtype; returns the value that it holds. */
static float put(qd_dtype dtype, unsigned char *data, uint64_t i, float v)
{
    uint16_t h = dtype == QD_F16 ? qd_f16_from_f32(v) : qd_bf16_from_f32(v);
    if (dtype == QD_F32) {
        memcpy(data + 4 * i, &v, sizeof v);
        return v;
    }
    memcpy(data + 2 * i, &h, sizeof h);
    return dtype == QD_F16 ? qd_f16_to_f32(h) : qd_bf16_to_f32(h);
}

static unsigned char *change(qd_layer_work *w, uint32_t item)
{
    const qd_tensor *t = &w->index->ckpt->tensors[w->run->plan->items[item].tensor];
    unsigned char *data = qd_arena_alloc(&w->arena, t->bytes, 1);
    if (data != NULL) w->changed[w->n_changed++] = (qd_changed_copy){item, data};
    return data;
}

/* Divides a norm's weight by s. What rounding leaves goes into s, so that the product stays what it was. */
static qd_code into_norm(qd_layer_work *w, qd_slot slot, uint32_t site, qd_err *err)
{
    uint32_t tensor = w->index->layers[w->layer->number].weight[slot], item = copy_of(w, tensor);
    float *norm = qd_layer_data(&w->layer->w[slot]), *s = NULL;
    if (site == QD_NONE || item == QD_NONE) return QD_OK;
    qd_code rc = factors(w, site, 0, 1, &s, err);
    if (rc != QD_OK || s == NULL) return rc;
    unsigned char *data = change(w, item);
    if (data == NULL) return no_memory(err);
    float one = w->index->config.norm_plus_one ? 1.0f : 0.0f;
    qd_dtype dtype = w->index->ckpt->tensors[tensor].dtype;
    for (uint32_t k = 0; k < w->sites[site].n_channels; k++) {
        float old = one + norm[k], stored = put(dtype, data, k, old / s[k] - one);
        s[k] = old / (one + stored);
        if (!(fabsf(s[k]) > 0.0f) || !isfinite(s[k]) || !isfinite(stored)) { /* a weight of zero, or out of range */
            stored = put(dtype, data, k, norm[k]);
            s[k] = 1.0f;
        }
        norm[k] = stored;
    }
    w->col[site] = s;
    return QD_OK;
}

/* Divides the rows of the linear before, and its bias. from: the item whose rows are the site's channels, `group` query
 * heads reading each of its heads. */
static qd_code into_rows(qd_layer_work *w, uint32_t site, uint32_t from, const qd_weight *x, uint32_t bias,
                         uint32_t head, uint32_t group, qd_err *err)
{
    float *s = NULL, *div = NULL;
    unsigned char *data = NULL;
    if (site == QD_NONE || from == QD_NONE) return QD_OK;
    uint64_t rows = w->run->plan->items[from].rows;
    if (rows * group != w->sites[site].n_channels || w->row[from - w->first_item] != NULL) return QD_OK;
    uint32_t item = bias != QD_NO_TENSOR ? copy_of(w, bias) : QD_NONE;
    if (bias != QD_NO_TENSOR && item == QD_NONE) return QD_OK;
    qd_code rc = factors(w, site, head, group, &s, err);
    if (rc != QD_OK || s == NULL) return rc;
    div = qd_arena_alloc(&w->arena, rows, sizeof *div);
    if (item != QD_NONE) data = change(w, item);
    if (div == NULL || (item != QD_NONE && data == NULL)) return no_memory(err);
    for (uint64_t r = 0; r < rows; r++) div[r] = s[group == 1 ? r : r / head * head * group + r % head];
    float *b = (void *)(uintptr_t)x->bias;
    for (uint64_t r = 0; item != QD_NONE && r < rows; r++)
        b[r] = put(w->index->ckpt->tensors[bias].dtype, data, r, b[r] / div[r]);
    w->col[site] = s;
    w->row[from - w->first_item] = div;
    return QD_OK;
}

qd_code qd_balance_layer(qd_layer_work *w, qd_err *err)
{
    const qd_model_config *m = &w->index->config;
    const qd_layer_index *at = &w->index->layers[w->layer->number];
    const qd_weight *x = w->layer->w;
    uint32_t attn = site_of(w, QD_SITE_ATTN_IN, -1), mlp = site_of(w, QD_SITE_MLP_IN, -1),
             shared = site_of(w, QD_SITE_SHARED_IN, -1);
    uint32_t v = item_of(w, attn, &x[QD_V]), up = item_of(w, mlp, &x[QD_UP]);
    qd_code rc = QD_OK;
    /* Norms only where everything that reads them is quantized: routers and gates in 16 bits would be rounded. */
    if (attn != QD_NONE && w->sites[attn].n_items == 3) QD_TRY(into_norm(w, QD_IN_NORM, attn, err));
    if (mlp != QD_NONE && w->sites[mlp].n_items == 2) QD_TRY(into_norm(w, QD_POST_NORM, mlp, err));
    QD_TRY(into_rows(w, site_of(w, QD_SITE_ATTN_OUT, -1), v, &x[QD_V], at->bias[QD_V], (uint32_t)m->head_dim,
                     (uint32_t)(m->n_kv_heads != 0 ? m->n_heads / m->n_kv_heads : 1), err));
    QD_TRY(into_rows(w, site_of(w, QD_SITE_MLP_DOWN, -1), up, &x[QD_UP], at->bias[QD_UP], 0, 1, err));
    QD_TRY(into_rows(w, site_of(w, QD_SITE_SHARED_DOWN, -1), item_of(w, shared, &x[QD_SHARED_UP]), &x[QD_SHARED_UP],
                     at->bias[QD_SHARED_UP], 0, 1, err));
    for (uint64_t e = 0; e < w->layer->n_experts; e++)
        QD_TRY(into_rows(w, site_of(w, QD_SITE_EXPERT_DOWN, (int32_t)e),
                         item_of(w, site_of(w, QD_SITE_EXPERT_IN, (int32_t)e), &w->layer->experts[e][QD_EXPERT_UP]),
                         &w->layer->experts[e][QD_EXPERT_UP], QD_NO_TENSOR, 0, 1, err));
out:
    return rc;
}
