/* layer_mlp.c -- SwiGLU, dense or as a mixture of experts with a shared one. */
#include "base/mem.h"
#include "calib/layer_run.h"

/* row: of the tile; used where inputs are kept, which is not so for experts. */
static qd_code swiglu_piece(const qd_step *s, const qd_swiglu *w, const float *h, uint64_t row, uint64_t m, float *y,
                            qd_err *err)
{
    qd_lane *l = s->lane;
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    uint64_t inter = w->gate->n, hidden = s->p->m->hidden;
    float *g = NULL, *u = NULL;
    const float *in = NULL;
    qd_code rc = QD_OK;
    if (s->p->resumes && s->p->stage == QD_STAGE_MLP) {
        QD_TRY(qd_step_kept(s, row, m, inter, &in, err));
        QD_TRY(l->ops->linear(l, in, m, inter, w->down, y, hidden, err));
        goto out;
    }
    QD_TRY(qd_scratch_take(&l->scratch, m, inter, &g, err));
    QD_TRY(qd_scratch_take(&l->scratch, m, inter, &u, err));
    QD_TRY(qd_step_see(s, w->in, w->expert, h, m, hidden, &in, err));
    if (qd_step_ends(s, QD_STAGE_MLP_IN)) goto out;
    QD_TRY(l->ops->linear(l, in, m, hidden, w->gate, g, inter, err));
    QD_TRY(l->ops->linear(l, in, m, hidden, w->up, u, inter, err));
    l->ops->silu_mul(l, g, inter, u, inter, m, inter);
    QD_TRY(qd_lane_tick(l, err));
    QD_TRY(qd_step_see(s, w->out, w->expert, g, m, inter, &in, err));
    if (s->p->keeps) QD_TRY(qd_step_keep(s, row, in, m, inter, err));
    if (qd_step_ends(s, QD_STAGE_MLP_DOWN)) goto out;
    QD_TRY(l->ops->linear(l, in, m, inter, w->down, y, hidden, err));
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}

qd_code qd_swiglu_run(const qd_step *s, const qd_swiglu *w, const float *h, uint64_t m, float *y, qd_err *err)
{
    uint64_t hidden = s->p->m->hidden;
    for (uint64_t r = 0; r < m; r += QD_MLP_ROWS) {
        qd_code rc = swiglu_piece(s, w, h + r * hidden, r, qd_min_u64(QD_MLP_ROWS, m - r), y + r * hidden, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

qd_code qd_mlp_run(const qd_step *s, const float *h, float *y, qd_err *err)
{
    const qd_weight *w = s->p->layer->w;
    qd_swiglu mlp = {&w[QD_GATE], &w[QD_UP], &w[QD_DOWN], QD_SITE_MLP_IN, QD_SITE_MLP_DOWN, -1};
    return qd_swiglu_run(s, &mlp, h, s->tile->n_rows, y, err);
}

/* Of a tile's tokens, in the program's memory. */
typedef struct routing {
    uint32_t *index; /* [rows][top_k]; this and the rest are of one block */
    float *weight;   /* [rows][top_k] */
    uint32_t *rows;  /* of one expert's tokens, then (all_experts) those of the others */
    float *share;    /* of each of them */
    float *margin;   /* [rows] */
} routing;

/* uint32_t and float are of one size, so that scratch holds both. */
static uint32_t *as_u32(float *p)
{
    _Static_assert(sizeof(uint32_t) == sizeof(float), "scratch is in floats");
    return (uint32_t *)(void *)p;
}

static qd_code routing_take(const qd_step *s, routing *r, qd_err *err)
{
    uint64_t rows = s->tile->n_rows, k = s->p->m->top_k;
    float *all = qd_malloc(rows * (2 * k + 3) * sizeof *all);
    if (all == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the routing of a tile");
    *r = (routing){.index = as_u32(all),
                   .weight = all + rows * k,
                   .rows = as_u32(all + 2 * rows * k),
                   .share = all + rows * (2 * k + 1),
                   .margin = all + rows * (2 * k + 2)};
    return QD_OK;
}

/* Where the device is not the program's memory the choice is fetched: the program sorts tokens by expert. */
static qd_code route(const qd_step *s, const float *h, routing *r, qd_err *err)
{
    const qd_model_config *m = s->p->m;
    const qd_forward_hooks *hooks = s->p->hooks;
    qd_lane *l = s->lane;
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    uint64_t rows = s->tile->n_rows, k = m->top_k;
    float *logits = NULL, *index = NULL, *weight = NULL, *margin = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&l->scratch, rows, m->n_experts, &logits, err));
    QD_TRY(qd_scratch_take(&l->scratch, rows, k, &index, err));
    QD_TRY(qd_scratch_take(&l->scratch, rows, k, &weight, err));
    QD_TRY(qd_scratch_take(&l->scratch, rows, 1, &margin, err));
    QD_TRY(l->ops->linear(l, h, rows, m->hidden, &s->p->layer->w[QD_ROUTER], logits, m->n_experts, err));
    l->ops->route(l, logits, rows, (uint32_t)m->n_experts, (uint32_t)k, m->normalize_top_k, !m->f32_router_weights,
                  as_u32(index), weight, margin);
    QD_TRY(l->ops->download(l, QD_F32, index, rows * k, r->index, err));
    QD_TRY(l->ops->download(l, QD_F32, weight, rows * k, r->weight, err));
    QD_TRY(l->ops->download(l, QD_F32, margin, rows, r->margin, err));
    if (hooks->on_router != NULL)
        rc = hooks->on_router(hooks->ctx, s->p->layer->number, s->tile->first_row, rows, r->margin, err);
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}

/* The expert's own tokens in front, in order; with all_experts the others after them. Returns how many are its own. */
static uint64_t tokens_of(const qd_step *s, uint32_t expert, const routing *r, uint64_t *ret_n)
{
    uint64_t k = s->p->m->top_k, n = 0, rows = s->tile->n_rows;
    for (int own = 1; own >= 0; own--) {
        if (!own && !s->p->all_experts) break;
        for (uint64_t t = 0; t < rows; t++) {
            int64_t at = -1;
            for (uint64_t j = 0; j < k; j++)
                if (r->index[t * k + j] == expert) at = (int64_t)j;
            if ((at >= 0) != (own != 0)) continue;
            r->rows[n] = (uint32_t)t;
            r->share[n++] = at >= 0 ? r->weight[t * k + (uint64_t)at] : 0.0f;
        }
        if (own) *ret_n = n;
    }
    return n;
}

static qd_code run_expert(const qd_step *s, uint32_t expert, const float *h, const routing *r, float *y, qd_err *err)
{
    const qd_weight *w = s->p->layer->experts[expert];
    qd_swiglu mlp = {&w[QD_EXPERT_GATE], &w[QD_EXPERT_UP],    &w[QD_EXPERT_DOWN],
                     QD_SITE_EXPERT_IN,  QD_SITE_EXPERT_DOWN, expert};
    qd_lane *l = s->lane;
    uint64_t hidden = s->p->m->hidden, own = 0, n = tokens_of(s, expert, r, &own);
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    float *in = NULL, *out = NULL, *to = NULL, *share = NULL;
    qd_code rc = QD_OK;
    if (n == 0) return QD_OK;
    QD_TRY(qd_scratch_take(&l->scratch, qd_min_u64(n, QD_MLP_ROWS), hidden, &in, err));
    QD_TRY(qd_scratch_take(&l->scratch, qd_min_u64(n, QD_MLP_ROWS), hidden, &out, err));
    QD_TRY(qd_scratch_take(&l->scratch, n, 1, &to, err));
    QD_TRY(qd_scratch_take(&l->scratch, n, 1, &share, err));
    QD_TRY(l->ops->upload(l, QD_F32, r->rows, n, to, err));
    QD_TRY(l->ops->upload(l, QD_F32, r->share, n, share, err));
    for (uint64_t t = 0; t < n; t += QD_MLP_ROWS) {
        uint64_t rows = qd_min_u64(QD_MLP_ROWS, n - t);
        l->ops->gather(l, h, hidden, as_u32(to) + t, rows, hidden, in);
        QD_TRY(qd_swiglu_run(s, &mlp, in, rows, out, err));
        if (t < own)
            l->ops->scatter_add(l, out, as_u32(to) + t, share + t, qd_min_u64(rows, own - t), hidden, y, hidden);
    }
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}

static qd_code add_shared(const qd_step *s, const float *h, float *y, qd_err *err)
{
    const qd_weight *w = s->p->layer->w;
    qd_swiglu mlp = {&w[QD_SHARED_GATE], &w[QD_SHARED_UP],    &w[QD_SHARED_DOWN],
                     QD_SITE_SHARED_IN,  QD_SITE_SHARED_DOWN, -1};
    qd_lane *l = s->lane;
    uint64_t rows = s->tile->n_rows, hidden = s->p->m->hidden;
    float *out = NULL, *scale = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&l->scratch, rows, hidden, &out, err));
    QD_TRY(qd_scratch_take(&l->scratch, rows, 1, &scale, err));
    QD_TRY(qd_swiglu_run(s, &mlp, h, rows, out, err));
    QD_TRY(l->ops->linear(l, h, rows, hidden, &w[QD_SHARED_SCALE], scale, 1, err));
    l->ops->gate_rows(l, out, hidden, scale, rows, hidden);
    l->ops->add(l, y, hidden, out, hidden, rows, hidden);
out:
    return rc;
}

qd_code qd_moe_run(const qd_step *s, const float *h, float *y, qd_err *err)
{
    qd_scratch *scratch = &s->lane->scratch;
    qd_scratch_mark mark = qd_scratch_here(scratch);
    routing r = {0};
    const float *seen = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_step_see(s, QD_SITE_ROUTER, -1, h, s->tile->n_rows, s->p->m->hidden, &seen, err));
    qd_scratch_back(scratch, mark);
    QD_TRY(routing_take(s, &r, err));
    QD_TRY(route(s, h, &r, err));
    s->lane->ops->zero(s->lane, y, s->tile->n_rows * s->p->m->hidden);
    for (uint32_t e = 0; e < s->p->m->n_experts; e++) QD_TRY(run_expert(s, e, h, &r, y, err));
    if (s->p->m->shared_intermediate != 0) QD_TRY(add_shared(s, h, y, err));
out:
    qd_scratch_back(scratch, mark);
    qd_free(r.index);
    return rc;
}
