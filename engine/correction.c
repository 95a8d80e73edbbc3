/* correction.c -- damped output correction: weights W that read x in the quantized model and x + d in the source become
 * W + a W M (H + damp)^-1 with M = sum d x^T, H = sum x x^T over the calibration tokens: a part `a` of what, by least
 * squares, makes up for what the inputs lost. Source: the asymmetric target of GPTAQ (2504.02692) and Qronos
 * (2505.11695), here damped and in closed form before GPTQ.
 *
 * d needs both inputs of a token at once: the source's of a whole layer stay, in BF16, until the quantized model's
 * come.
 */
#include "base/mem.h"
#include "calib/activations.h"
#include "engine/layerwise_streams.h"

#include <string.h>

typedef struct place {
    uint64_t tile, row; /* tile that a worker is in, tokens of it that are kept */
} place;

struct qd_source_kept {
    qd_activations rows; /* [tokens][inputs of a layer's sites, one after the other] */
    place *at;           /* [sites of the layer][n_workers] */
    uint64_t n_at;
};

/* Experts do not see the same tokens in both. */
bool qd_corrects(const qd_layerwise *l, uint32_t site)
{
    return l->kept != NULL && site < l->work->n_sites && l->work->sites[site].expert < 0;
}

static uint64_t columns(const qd_input_site *s, uint32_t n)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += s[i].expert < 0 ? s[i].n_channels : 0;
    return sum;
}

uint64_t qd_correction_bytes(const qd_plan *p)
{
    uint64_t most = 0;
    for (uint32_t layer = 0; layer < p->n_layers; layer++) {
        uint64_t cols = 0; /* a unit is a site's, or a part of it */
        for (uint32_t u = 0; u < p->n_units; u++) {
            const qd_item *it = &p->items[p->units[u].first_item];
            if (p->units[u].kind == QD_UNIT_QUANTIZE && p->units[u].layer == (int32_t)layer && it->expert < 0)
                cols += it->cols;
        }
        most = qd_max_u64(most, cols);
    }
    return p->pass.n_tokens * most * sizeof(uint16_t);
}

qd_code qd_correction_open(qd_layerwise *l, qd_err *err)
{
    uint64_t cols = 0;
    uint32_t n_sites = 0;
    qd_code rc = QD_OK;
    qd_source_kept *k = qd_calloc(1, sizeof *k);
    if (k == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the source's inputs");
    for (uint32_t i = 0; i < l->run->plan->n_layers; i++) {
        const uint32_t first = l->sites.layer_first[i], n = l->sites.layer_first[i + 1] - first;
        cols = qd_max_u64(cols, columns(l->sites.sites + first, n));
        n_sites = n > n_sites ? n : n_sites;
    }
    k->n_at = (uint64_t)n_sites * l->n_workers;
    k->at = qd_calloc(k->n_at + 1, sizeof *k->at);
    if (k->at == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for the source's inputs");
        goto out;
    }
    QD_TRY(qd_activations_open(QD_BF16, l->calib.starts[l->calib.n_seqs], cols, l->run->plan->activation_bytes,
                               l->o->spill_dir, &k->rows, err));
    l->kept = k;
    k = NULL;
out:
    if (k != NULL) qd_free(k->at);
    qd_free(k);
    return rc;
}

void qd_correction_close(qd_layerwise *l)
{
    if (l->kept == NULL) return;
    qd_activations_done(&l->kept->rows);
    qd_free(l->kept->at);
    qd_free(l->kept);
    l->kept = NULL;
}

void qd_correction_begin(qd_layerwise *l)
{
    for (uint64_t i = 0; l->kept != NULL && i < l->kept->n_at; i++) l->kept->at[i] = (place){.tile = UINT64_MAX};
}

static uint16_t *kept_row(const qd_layerwise *l, uint32_t site, uint64_t token)
{
    return (uint16_t *)qd_activations_row(&l->kept->rows, token) + columns(l->work->sites, site);
}

qd_code qd_correction_keep(qd_layerwise *l, uint32_t site, const qd_site *at, qd_err *err)
{
    place *p = &l->kept->at[(uint64_t)site * l->n_workers + at->worker];
    if (p->tile != at->tile) *p = (place){.tile = at->tile};
    const uint64_t first = at->row + p->row;
    p->row += at->rows;
    for (uint64_t r = 0; r < at->rows; r++)
        l->work->layer->ops->store(QD_BF16, at->x + r * at->ld, at->cols, kept_row(l, site, first + r));
    return qd_lane_tick(at->lane, err);
}

/* pair [rows][2 n]: x and what the source's input, scaled, has beyond it. */
static void fill(const qd_layerwise *l, uint32_t site, uint64_t first, uint64_t rows, const float *x, uint64_t ld,
                 float *pair)
{
    const uint64_t n = l->work->sites[site].n_channels;
    const float *s = l->work->col[site];
    for (uint64_t r = 0; r < rows; r++) {
        float *own = pair + r * 2 * n, *more = own + n;
        memcpy(own, x + r * ld, n * sizeof *own);
        l->work->layer->ops->load(QD_BF16, kept_row(l, site, first + r), n, more);
        for (uint64_t k = 0; k < n; k++) more[k] = (s != NULL ? more[k] / s[k] : more[k]) - own[k];
    }
}

qd_code qd_correction_add(qd_layerwise *l, uint32_t site, const qd_site *at, uint64_t first, const float *x,
                          uint64_t ld, qd_err *err)
{
    qd_lane *lane = &l->lanes[at->worker];
    const uint64_t n = 2 * at->cols;
    qd_scratch_mark mark = qd_scratch_here(&lane->scratch);
    float *pair = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&lane->scratch, qd_min_u64(QD_GRAM_ROWS, at->rows), n, &pair, err));
    for (uint64_t r = 0; r < at->rows; r += QD_GRAM_ROWS) {
        const uint64_t rows = qd_min_u64(QD_GRAM_ROWS, at->rows - r);
        fill(l, site, first + r, rows, x + r * ld, ld, pair);
        QD_TRY(qd_hessian_add(l->seen[site].hessian, lane, pair, n, rows, first + r, rows, err));
    }
out:
    qd_scratch_back(&lane->scratch, mark);
    return rc;
}

qd_code qd_correction_make(qd_layerwise *l, const qd_hessian *h, const qd_gptq_factor *f, float **ret, qd_err *err)
{
    const uint64_t n = f->n;
    const float part = l->run->plan->method.correction;
    float *m = qd_malloc_aligned(64, n * n * sizeof *m);
    if (m == NULL)
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a correction of %llu channels", (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < n; j++) m[i * n + j] = part * qd_hessian_element(h, n + i, j);
    qd_code rc = qd_gptq_solve(&l->tasks, l->lanes, f, m, err);
    if (rc == QD_OK) {
        *ret = m;
        return QD_OK;
    }
    qd_free(m);
    return rc;
}
