/* layer_run.c -- a decoder layer: norm, token mixer, residual, norm, MLP, residual. */
#include "calib/layer_run.h"

#include "base/mem.h"

#include <inttypes.h>

/* on_input on copies in the program's memory; `there`: the device's room for what replaces them. */
static qd_code see_here(const qd_step *s, qd_site site, float *there, bool *ret_replaced, qd_err *err)
{
    const qd_forward_hooks *hooks = s->p->hooks;
    qd_lane *l = s->lane;
    const bool on_host = l->ops->on_host;
    const uint64_t n = site.rows * site.cols;
    float *copy = NULL, *seen_copy = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_lane_see(l, site.x, n, &site.x, &seen_copy, err));
    copy = on_host ? there : qd_malloc(n * sizeof *copy);
    if (copy == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for %" PRIu64 " values", n);
        goto out;
    }
    QD_TRY(hooks->on_input(hooks->ctx, &site, copy, ret_replaced, err));
    if (*ret_replaced && !on_host) QD_TRY(l->ops->upload(l, QD_F32, copy, n, there, err));
out:
    if (!on_host) qd_free(copy);
    qd_free(seen_copy);
    return rc;
}

qd_code qd_step_see(const qd_step *s, qd_site_kind kind, int64_t expert, const float *x, uint64_t rows, uint64_t cols,
                    const float **ret, qd_err *err)
{
    const qd_forward_hooks *hooks = s->p->hooks;
    qd_lane *l = s->lane;
    float *there = NULL;
    bool replaced = false, done = false;
    qd_code rc = QD_OK;
    *ret = x;
    if (hooks->on_input == NULL || rows == 0) return QD_OK;
    const qd_site site = {.kind = kind,
                          .layer = s->p->layer != NULL ? s->p->layer->number : s->p->m->n_layers,
                          .expert = expert,
                          .tile = s->tile->number,
                          .row = s->tile->first_row,
                          .worker = s->worker,
                          .lane = l,
                          .x = x,
                          .rows = rows,
                          .cols = cols,
                          .ld = cols};
    QD_TRY(qd_scratch_take(&l->scratch, rows, cols, &there, err));
    if (!l->ops->on_host && hooks->on_input_there != NULL)
        QD_TRY(hooks->on_input_there(hooks->ctx, &site, there, &replaced, &done, err));
    if (!done) QD_TRY(see_here(s, site, there, &replaced, err));
    if (replaced) *ret = there;
    rc = qd_lane_tick(l, err);
out:
    return rc;
}

/* Rows lie side by side from the place of the first one on: no more than a->cols wide, they end before the next piece's
 * begin. */
qd_code qd_step_keep(const qd_step *s, uint64_t row, const float *x, uint64_t rows, uint64_t cols, qd_err *err)
{
    const qd_activations *a = &s->p->kept;
    return s->lane->ops->download(s->lane, a->dtype, x, rows * cols, qd_activations_row(a, s->tile->first_row + row),
                                  err);
}

qd_code qd_step_kept(const qd_step *s, uint64_t row, uint64_t rows, uint64_t cols, const float **ret, qd_err *err)
{
    const qd_activations *a = &s->p->kept;
    float *x = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&s->lane->scratch, rows, cols, &x, err));
    QD_TRY(
        s->lane->ops->upload(s->lane, a->dtype, qd_activations_row(a, s->tile->first_row + row), rows * cols, x, err));
    *ret = x;
    rc = qd_lane_tick(s->lane, err);
out:
    return rc;
}

/* In pieces: a long sequence is a large tile, and a pass over all of it, in fresh memory, takes a hundred milliseconds.
 */
static qd_code norm(const qd_step *s, qd_slot slot, float *h, qd_err *err)
{
    const qd_model_config *m = s->p->m;
    qd_code rc = QD_OK;
    for (uint64_t r = 0; r < s->tile->n_rows; r += QD_MLP_ROWS) {
        const uint64_t at = r * m->hidden;
        s->lane->ops->rms_norm(s->lane, s->x + at, m->hidden, qd_min_u64(QD_MLP_ROWS, s->tile->n_rows - r), 1, 0,
                               m->hidden, qd_layer_vec(s->p->layer, slot),
                               m->norm_plus_one ? QD_NORM_PLUS_ONE : QD_NORM_PLAIN, m->eps, h + at, m->hidden, 0);
        QD_TRY(qd_lane_tick(s->lane, err));
    }
out:
    return rc;
}

qd_code qd_layer_run(const qd_step *s, qd_err *err)
{
    const qd_model_config *m = s->p->m;
    const qd_layer_kind *kind = &s->p->layer->kind;
    qd_scratch *scratch = &s->lane->scratch;
    qd_scratch_mark mark = qd_scratch_here(scratch);
    float *h = NULL, *y = NULL;
    uint64_t rows = s->tile->n_rows;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(scratch, rows, m->hidden, &h, err));
    QD_TRY(qd_scratch_take(scratch, rows, m->hidden, &y, err));
    if (s->p->stage != QD_STAGE_MLP_DOWN && s->p->stage != QD_STAGE_MLP) {
        if (!s->p->resumes) QD_TRY(norm(s, QD_IN_NORM, h, err));
        QD_TRY(kind->linear_attention ? qd_delta_run(s, h, y, err) : qd_attention_run(s, h, y, err));
        if (qd_step_ends(s, QD_STAGE_MIXER_IN) || qd_step_ends(s, QD_STAGE_MIXER_OUT)) goto out;
        s->lane->ops->add(s->lane, s->x, m->hidden, y, m->hidden, rows, m->hidden);
    }
    if (!s->p->resumes || s->p->stage != QD_STAGE_MLP) QD_TRY(norm(s, QD_POST_NORM, h, err));
    QD_TRY(kind->moe ? qd_moe_run(s, h, y, err) : qd_mlp_run(s, h, y, err));
    if (qd_step_ends(s, QD_STAGE_MLP_IN) || qd_step_ends(s, QD_STAGE_MLP_DOWN)) goto out;
    s->lane->ops->add(s->lane, s->x, m->hidden, y, m->hidden, rows, m->hidden);
out:
    qd_scratch_back(scratch, mark);
    return rc;
}
