#include "cli/remote_bar.h"

#include "base/clock.h"
#include "base/mem.h"
#include "cli/progress.h"

#include <string.h>

struct qd_remote_bar {
    qd_progress_view view;
    char phase[32];
    uint64_t first_ns, first_bytes;
};

qd_remote_bar *qd_remote_bar_new(bool json)
{
    qd_remote_bar *b = qd_calloc(1, sizeof *b);
    if (b != NULL) qd_progress_begin(&b->view, json);
    return b;
}

void qd_remote_bar_show(qd_remote_bar *b, const Quantd__Progress *p)
{
    uint64_t now = qd_mono_ns();
    if (b->first_ns == 0 || strcmp(b->phase, p->phase) != 0 || p->bytes_done < b->first_bytes) {
        b->first_ns = now; /* the rate is what we saw, not what the worker did before */
        b->first_bytes = p->bytes_done;
    }
    size_t n = strlen(p->phase) < sizeof b->phase ? strlen(p->phase) : sizeof b->phase - 1;
    memmove(b->phase, p->phase, n);
    b->phase[n] = '\0';
    double elapsed = (double)(now - b->first_ns) * 1e-9;
    double rate = elapsed > 0.05 ? (double)(p->bytes_done - b->first_bytes) / elapsed : 0;
    double eta = p->eta_ms != 0 ? (double)p->eta_ms * 1e-3 : -1;
    const qd_job_progress shown = {.phase = b->phase,
                                   .layer = (int32_t)p->layer - 1,
                                   .n_layers = (int32_t)p->layers,
                                   .done_bytes = p->bytes_done,
                                   .total_bytes = p->bytes_total,
                                   .elapsed_s = elapsed,
                                   .eta_s = eta,
                                   .rate_bytes_s = rate};
    qd_job_events e = qd_progress_events(&b->view);
    e.progress(e.ctx, &shown);
}

void qd_remote_bar_note(qd_remote_bar *b, bool warning, const char *text)
{
    qd_job_events e = qd_progress_events(&b->view);
    e.note(e.ctx, warning ? QD_NOTE_WARN : QD_NOTE_INFO, text);
}

void qd_remote_bar_free(qd_remote_bar *b)
{
    if (b == NULL) return;
    qd_progress_end(&b->view);
    qd_free(b);
}
