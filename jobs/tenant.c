/* tenant.c -- what a tenant may have. */
#include "jobs/inside.h"

enum {
    LIMITS_AGE_MS = 30000
};

static uint32_t limit(uint32_t own, uint32_t dflt)
{
    return own != 0 ? own : dflt;
}

void qd_tenant_refresh(qd_jobs *j, qd_tenant *t)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_tenant_limits *l = NULL;
    uint64_t now_ms = qd_jobs_mono_ms(j);
    bool first = t->limits_until_ms == 0;
    if (now_ms < t->limits_until_ms) return;
    qd_code rc = qd_key(QD_KEY_TENANT, t->id, key, NULL);
    if (rc == QD_OK) rc = qd_bus_kv_get(j->bus, QD_BUCKET_ACCESS, key, &m, NULL);
    if (rc == QD_OK && qd_tenant_limits_decode(m.data, m.bytes, &l, NULL) != QD_OK) j->stats.malformed++;
    bool known = rc == QD_OK || rc == QD_E_NOT_FOUND;
    if (known || first) {
        t->running_max = limit(l == NULL ? 0 : l->running_max, j->opts.running_max);
        t->queued_max = limit(l == NULL ? 0 : l->queued_max, j->opts.queued_max);
        t->recorded_max = limit(l == NULL ? 0 : l->recorded_max, j->opts.recorded_max);
    }
    if (known) t->limits_until_ms = now_ms + LIMITS_AGE_MS;
    qd_msg_free(l);
    qd_bus_msg_done(&m);
}
