#include "daemon/child_flood.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/pool.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

enum {
    STEP_NS = 2000000
};

struct qd_child_flood {
    qd_child_link *link;
    qd_cancel *cancel; /* only asked */
    qd_pool *thread;
    atomic_bool stop;
    uint64_t per_s, n;
};

static void say(const qd_child_flood *f, const char *what, uint64_t n)
{
    char text[96];
    (void)snprintf(text, sizeof text, "flood %s %" PRIu64 ": model.layers.12.mlp.down_proj, 4096 x 14336", what, n);
    qd_child_link_log(f->link, QUANTD__LOG_LEVEL__LOG_INFO, text);
}

static bool over(const qd_child_flood *f)
{
    return atomic_load(&f->stop) || qd_cancel_asked(f->cancel) != 0;
}

static void flood(void *arg, unsigned worker)
{
    qd_child_flood *f = arg;
    const struct timespec nap = {.tv_nsec = STEP_NS};
    uint64_t began = qd_mono_ns();
    (void)worker;
    while (!over(f)) {
        uint64_t due = (uint64_t)((double)(qd_mono_ns() - began) * 1e-9 * (double)f->per_s);
        for (; f->n < due && !over(f);) say(f, "line", ++f->n);
        (void)nanosleep(&nap, NULL);
    }
    say(f, "of", f->n);
}

qd_code qd_child_flood_start(qd_child_link *l, qd_cancel *cancel, qd_child_flood **ret, qd_err *err)
{
    unsigned long per_s = qd_fault_armed(QD_FAULT_FLOOD);
    if (per_s == 0) return QD_OK;
    qd_child_flood *f = qd_calloc(1, sizeof *f);
    if (f == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a flood");
    f->link = l;
    f->cancel = cancel;
    f->per_s = per_s;
    qd_code rc = qd_pool_start(1, "flood", flood, f, &f->thread, err);
    if (rc == QD_OK)
        *ret = f;
    else
        qd_free(f);
    return rc;
}

void qd_child_flood_stop(qd_child_flood *f)
{
    if (f == NULL) return;
    atomic_store(&f->stop, true);
    qd_pool_join(f->thread);
    qd_free(f);
}
