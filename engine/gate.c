#include "engine/gate.h"

#include "base/mem.h"
#include "quant/divergence.h"

#include <math.h>

typedef struct measuring {
    const qd_tokens *t;
    const uint64_t *end; /* [n_tokens] of the token's sample */
    uint64_t first_row, vocab;
    qd_divergence *row; /* [n_tokens] */
} measuring;

static qd_code see(void *ctx, uint64_t first, uint64_t n, const float *a, const float *b, qd_err *err)
{
    measuring *m = ctx;
    (void)err;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t row = m->first_row + first + i,
                 next = row + 1 < m->end[row] ? row + 1 : row; /* the last has no target: not used */
        m->row[row] = qd_divergence_of(a + i * m->vocab, b + i * m->vocab, m->vocab, (uint64_t)m->t->ids[next]);
    }
    return QD_OK;
}

qd_code qd_gate_measure(qd_stream *source, qd_stream *quantized, const qd_tokens *t, uint64_t first_row, qd_gang *gang,
                        qd_job_quality *ret, qd_err *err)
{
    uint64_t n = t->starts[t->n_seqs], n_targets = 0;
    uint64_t *end = qd_calloc(n, sizeof *end);
    measuring m = {.t = t,
                   .end = end,
                   .first_row = first_row,
                   .vocab = qd_stream_vocab(source),
                   .row = qd_calloc(n, sizeof *m.row)};
    qd_job_quality g = {.n_tokens = n};
    qd_code rc = QD_OK;
    if (end == NULL || m.row == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for the quality gate");
        goto out;
    }
    for (uint64_t s = 0; s < t->n_seqs; s++)
        for (uint64_t i = t->starts[s]; i < t->starts[s + 1]; i++) end[i] = t->starts[s + 1];
    QD_TRY(qd_stream_logits(source, quantized, see, &m, err));
    QD_TRY(qd_gang_join(gang, m.row, n * sizeof *m.row, err));
    for (uint64_t i = 0; i < n; i++) {
        g.kl += m.row[i].kl;
        g.top1 += m.row[i].same_top;
        if (i + 1 == end[i]) continue;
        g.source_perplexity += m.row[i].nll_a;
        g.perplexity += m.row[i].nll_b;
        n_targets++;
    }
    g.kl /= (double)n;
    g.top1 /= (double)n;
    g.source_perplexity = exp(g.source_perplexity / (double)qd_max_u64(n_targets, 1));
    g.perplexity = exp(g.perplexity / (double)qd_max_u64(n_targets, 1));
    *ret = g;
out:
    qd_free(end);
    qd_free(m.row);
    return rc;
}
