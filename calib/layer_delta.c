/* layer_delta.c -- the token mixer with a state: projections, short convolution, gated delta rule, gated norm. */
#include "calib/layer_run.h"

typedef struct projected {
    float *qkv, *z; /* [rows][2 key + value], [rows][value] */
    float *b, *a;   /* [rows][v_heads] */
} projected;

static qd_code take_all(const qd_step *s, uint64_t qkv, uint64_t value, projected *p, qd_err *err)
{
    qd_scratch *scratch = &s->lane->scratch;
    uint64_t rows = s->tile->n_rows;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(scratch, rows, qkv, &p->qkv, err));
    QD_TRY(qd_scratch_take(scratch, rows, value, &p->z, err));
    QD_TRY(qd_scratch_take(scratch, rows, s->p->m->v_heads, &p->b, err));
    QD_TRY(qd_scratch_take(scratch, rows, s->p->m->v_heads, &p->a, err));
out:
    return rc;
}

/* qwen3_next: rows of q, k, v, z (and b, a) of one key head lie together; taken apart here. */
static qd_code project_interleaved(const qd_step *s, const float *h, const float *in, projected *p, qd_err *err)
{
    const qd_model_config *m = s->p->m;
    const qd_weight *w = s->p->layer->w;
    qd_lane *l = s->lane;
    uint64_t rows = s->tile->n_rows, group = m->v_heads / m->k_heads, gv = group * m->v_dim;
    uint64_t key = m->k_heads * m->k_dim, value = m->v_heads * m->v_dim, qkv = 2 * key + value;
    uint64_t head = 2 * m->k_dim + 2 * gv, all = m->k_heads * head;
    float *qkvz = NULL, *ba = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&l->scratch, rows, all, &qkvz, err));
    QD_TRY(qd_scratch_take(&l->scratch, rows, 2 * m->v_heads, &ba, err));
    QD_TRY(l->ops->linear(l, in, rows, m->hidden, &w[QD_DELTA_QKVZ], qkvz, all, err));
    QD_TRY(l->ops->linear(l, h, rows, m->hidden, &w[QD_DELTA_BA], ba, 2 * m->v_heads, err));
    l->ops->copy(l, qkvz, all, head, rows, m->k_heads, m->k_dim, p->qkv, qkv, m->k_dim);
    l->ops->copy(l, qkvz + m->k_dim, all, head, rows, m->k_heads, m->k_dim, p->qkv + key, qkv, m->k_dim);
    l->ops->copy(l, qkvz + 2 * m->k_dim, all, head, rows, m->k_heads, gv, p->qkv + 2 * key, qkv, gv);
    l->ops->copy(l, qkvz + 2 * m->k_dim + gv, all, head, rows, m->k_heads, gv, p->z, value, gv);
    l->ops->copy(l, ba, 2 * m->v_heads, 2 * group, rows, m->k_heads, group, p->b, m->v_heads, group);
    l->ops->copy(l, ba + group, 2 * m->v_heads, 2 * group, rows, m->k_heads, group, p->a, m->v_heads, group);
out:
    return rc;
}

/* in: what the quantizable projections read; h: what b and a read. */
static qd_code project(const qd_step *s, const float *h, const float *in, projected *p, qd_err *err)
{
    const qd_model_config *m = s->p->m;
    const qd_weight *w = s->p->layer->w;
    qd_lane *l = s->lane;
    uint64_t rows = s->tile->n_rows, value = m->v_heads * m->v_dim, qkv = 2 * m->k_heads * m->k_dim + value;
    qd_code rc = QD_OK;
    if (m->interleaved_qkvz) return project_interleaved(s, h, in, p, err);
    QD_TRY(l->ops->linear(l, in, rows, m->hidden, &w[QD_DELTA_QKV], p->qkv, qkv, err));
    QD_TRY(l->ops->linear(l, in, rows, m->hidden, &w[QD_DELTA_Z], p->z, value, err));
    QD_TRY(l->ops->linear(l, h, rows, m->hidden, &w[QD_DELTA_B], p->b, m->v_heads, err));
    QD_TRY(l->ops->linear(l, h, rows, m->hidden, &w[QD_DELTA_A], p->a, m->v_heads, err));
out:
    return rc;
}

/* Every sequence on its own: convolution and state begin anew. */
static qd_code mix(const qd_step *s, const projected *p, float *conv, float *beta, float *g, float *out, qd_err *err)
{
    const qd_model_config *m = s->p->m;
    const qd_layer *w = s->p->layer;
    qd_lane *l = s->lane;
    uint64_t rows = s->tile->n_rows, heads = m->v_heads, value = heads * m->v_dim;
    uint64_t qkv = 2 * m->k_heads * m->k_dim + value;
    l->ops->decay(l, p->b, heads, p->a, heads, qd_layer_vec(w, QD_DELTA_A_LOG), qd_layer_vec(w, QD_DELTA_DT), rows,
                  heads, beta, g);
    for (uint64_t i = 0; i < s->tile->n_seqs; i++) {
        uint64_t at = s->tile->starts[i] - s->tile->first_row, n = s->tile->starts[i + 1] - s->tile->starts[i];
        l->ops->conv_silu(l, p->qkv + at * qkv, qkv, n, qkv, qd_layer_vec(w, QD_DELTA_CONV), m->conv_taps,
                          conv + at * qkv, qkv);
        qd_code rc = qd_lane_tick(l, err);
        if (rc != QD_OK) return rc;
        qd_delta d = {.n_tokens = n,
                      .n_k_heads = m->k_heads,
                      .n_v_heads = heads,
                      .k_dim = m->k_dim,
                      .v_dim = m->v_dim,
                      .qkv = conv + at * qkv,
                      .qkv_token = qkv,
                      .beta = beta + at * heads,
                      .g = g + at * heads,
                      .out = out + at * value};
        rc = l->ops->delta_rule(l, &d, err);
        if (rc != QD_OK) return rc;
    }
    l->ops->gated_norm(l, out, p->z, value, rows, heads, m->v_dim, qd_layer_vec(w, QD_DELTA_NORM), m->eps, out);
    return QD_OK;
}

qd_code qd_delta_run(const qd_step *s, const float *h, float *y, qd_err *err)
{
    const qd_model_config *m = s->p->m;
    qd_lane *l = s->lane;
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    uint64_t rows = s->tile->n_rows, value = m->v_heads * m->v_dim, qkv = 2 * m->k_heads * m->k_dim + value;
    projected p = {0};
    float *conv = NULL, *beta = NULL, *g = NULL, *out = NULL;
    const float *in = NULL;
    qd_code rc = QD_OK;
    QD_TRY(take_all(s, qkv, value, &p, err));
    QD_TRY(qd_scratch_take(&l->scratch, rows, qkv, &conv, err));
    QD_TRY(qd_scratch_take(&l->scratch, rows, m->v_heads, &beta, err));
    QD_TRY(qd_scratch_take(&l->scratch, rows, m->v_heads, &g, err));
    QD_TRY(qd_scratch_take(&l->scratch, rows, value, &out, err));
    QD_TRY(qd_step_see(s, QD_SITE_DELTA_IN, -1, h, rows, m->hidden, &in, err));
    if (qd_step_ends(s, QD_STAGE_MIXER_IN)) goto out;
    QD_TRY(project(s, h, in, &p, err));
    QD_TRY(mix(s, &p, conv, beta, g, out, err));
    QD_TRY(qd_step_see(s, QD_SITE_DELTA_OUT, -1, out, rows, value, &in, err));
    if (qd_step_ends(s, QD_STAGE_MIXER_OUT)) goto out;
    QD_TRY(l->ops->linear(l, in, rows, value, &s->p->layer->w[QD_DELTA_OUT], y, m->hidden, err));
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}
