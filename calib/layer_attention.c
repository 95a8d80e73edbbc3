/* layer_attention.c -- the token mixer with keys and values: projections, norms of heads, RoPE, attention, output gate.
 */
#include "base/mem.h"
#include "calib/layer_run.h"

static qd_code see_cache(const qd_step *s, const float *k, const float *v, uint64_t kv, qd_err *err)
{
    const qd_forward_hooks *hooks = s->p->hooks;
    const float *seen[2] = {NULL};
    float *copy[2] = {NULL};
    uint64_t rows = s->tile->n_rows;
    qd_code rc = QD_OK;
    QD_TRY(qd_lane_see(s->lane, k, rows * kv, &seen[0], &copy[0], err));
    QD_TRY(qd_lane_see(s->lane, v, rows * kv, &seen[1], &copy[1], err));
    rc = hooks->on_cache(hooks->ctx, s->p->layer->number, s->worker, seen[0], seen[1], rows, kv, err);
out:
    qd_free(copy[0]);
    qd_free(copy[1]);
    return rc;
}

/* With an output gate, q_proj gives query and gate of each head side by side. */
static qd_code attend(const qd_step *s, float *q, uint64_t q_cols, uint64_t q_head, float *k, const float *v,
                      float *out, qd_err *err)
{
    const qd_model_config *m = s->p->m;
    const qd_layer *l = s->p->layer;
    const qd_ops *ops = s->lane->ops;
    qd_norm_kind kind = m->norm_plus_one ? QD_NORM_PLUS_ONE : QD_NORM_PLAIN;
    uint64_t rows = s->tile->n_rows, kv = m->n_kv_heads * m->head_dim, o = m->n_heads * m->head_dim;
    if (m->qk_norm) {
        ops->rms_norm(s->lane, q, q_cols, rows, m->n_heads, q_head, m->head_dim, qd_layer_vec(l, QD_Q_NORM), kind,
                      m->eps, q, q_cols, q_head);
        ops->rms_norm(s->lane, k, kv, rows, m->n_kv_heads, m->head_dim, m->head_dim, qd_layer_vec(l, QD_K_NORM), kind,
                      m->eps, k, kv, m->head_dim);
    }
    for (uint64_t i = 0; i < s->tile->n_seqs; i++) {
        uint64_t at = s->tile->starts[i] - s->tile->first_row, n = s->tile->starts[i + 1] - s->tile->starts[i];
        ops->rope(s->lane, q + at * q_cols, n, q_cols, m->n_heads, q_head, m->rope.dim, s->p->cos, s->p->sin);
        ops->rope(s->lane, k + at * kv, n, kv, m->n_kv_heads, m->head_dim, m->rope.dim, s->p->cos, s->p->sin);
        qd_attention a = {.n_tokens = n,
                          .n_heads = m->n_heads,
                          .n_kv_heads = m->n_kv_heads,
                          .head_dim = m->head_dim,
                          .window = l->kind.sliding ? m->window : 0,
                          .scale = (float)(1.0 / __builtin_sqrt((double)m->head_dim)),
                          .q = q + at * q_cols,
                          .k = k + at * kv,
                          .v = v + at * kv,
                          .q_token = q_cols,
                          .q_head = q_head,
                          .kv_token = kv,
                          .out = out + at * o,
                          .out_token = o};
        qd_code rc = ops->attention(s->lane, &a, err);
        if (rc != QD_OK) return rc;
    }
    const qd_forward_hooks *hooks = s->p->hooks;
    if (hooks->on_cache != NULL) {
        qd_code rc = see_cache(s, k, v, kv, err);
        if (rc != QD_OK) return rc;
    }
    if (m->attention_gate) ops->gate(s->lane, out, o, q + m->head_dim, q_cols, rows, m->n_heads, q_head, m->head_dim);
    return QD_OK;
}

qd_code qd_attention_run(const qd_step *s, const float *h, float *y, qd_err *err)
{
    const qd_model_config *m = s->p->m;
    const qd_weight *w = s->p->layer->w;
    qd_lane *lane = s->lane;
    qd_scratch_mark mark = qd_scratch_here(&lane->scratch);
    uint64_t rows = s->tile->n_rows, kv = m->n_kv_heads * m->head_dim, o = m->n_heads * m->head_dim;
    uint64_t q_head = m->head_dim * (m->attention_gate ? 2 : 1), q_cols = m->n_heads * q_head;
    float *q = NULL, *k = NULL, *v = NULL, *out = NULL;
    const float *in = NULL;
    qd_code rc = QD_OK;
    if (s->p->resumes) {
        QD_TRY(qd_step_kept(s, 0, rows, o, &in, err));
        QD_TRY(lane->ops->linear(lane, in, rows, o, &w[QD_O], y, m->hidden, err));
        goto out;
    }
    QD_TRY(qd_scratch_take(&lane->scratch, rows, q_cols, &q, err));
    QD_TRY(qd_scratch_take(&lane->scratch, rows, kv, &k, err));
    QD_TRY(qd_scratch_take(&lane->scratch, rows, kv, &v, err));
    QD_TRY(qd_scratch_take(&lane->scratch, rows, o, &out, err));
    QD_TRY(qd_step_see(s, QD_SITE_ATTN_IN, -1, h, rows, m->hidden, &in, err));
    if (qd_step_ends(s, QD_STAGE_MIXER_IN)) goto out;
    QD_TRY(lane->ops->linear(lane, in, rows, m->hidden, &w[QD_Q], q, q_cols, err));
    QD_TRY(lane->ops->linear(lane, in, rows, m->hidden, &w[QD_K], k, kv, err));
    QD_TRY(lane->ops->linear(lane, in, rows, m->hidden, &w[QD_V], v, kv, err));
    QD_TRY(attend(s, q, q_cols, q_head, k, v, out, err));
    QD_TRY(qd_step_see(s, QD_SITE_ATTN_OUT, -1, out, rows, o, &in, err));
    if (s->p->keeps) QD_TRY(qd_step_keep(s, 0, in, rows, o, err));
    if (qd_step_ends(s, QD_STAGE_MIXER_OUT)) goto out;
    QD_TRY(lane->ops->linear(lane, in, rows, o, &w[QD_O], y, m->hidden, err));
out:
    qd_scratch_back(&lane->scratch, mark);
    return rc;
}
