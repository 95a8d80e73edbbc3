#include "gateway/fleet.h"

#include "base/mem.h"
#include "gpu/nvml.h"
#include "proto/msg.h"
#include "proto/subject.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

enum {
    STATES = 6, /* values of WorkerState */
    SILENT_PERIODS = 4
};

typedef struct member {
    qd_worker_heartbeat *hb; /* owned */
    uint64_t seq, since_ms;  /* of this heartbeat, and when it was first seen */
} member;

typedef struct members {
    member *at; /* owned */
    size_t n, cap;
    uint64_t now_ms; /* when they were read */
} members;

struct qd_fleet {
    pthread_mutex_t lock;
    members known; /* changed by who refreshes only, under the lock */
};

static void members_done(members *m)
{
    for (size_t i = 0; i < m->n; i++) qd_msg_free(m->at[i].hb);
    qd_free(m->at);
    *m = (members){0};
}

qd_fleet *qd_fleet_new(void)
{
    qd_fleet *f = qd_calloc(1, sizeof *f);
    if (f != NULL) (void)pthread_mutex_init(&f->lock, NULL);
    return f;
}

void qd_fleet_free(qd_fleet *f)
{
    if (f == NULL) return;
    members_done(&f->known);
    (void)pthread_mutex_destroy(&f->lock);
    qd_free(f);
}

static const member *find(const members *m, const char *id)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->at[i].hb->id, id) == 0) return &m->at[i];
    return NULL;
}

/* Takes hb in any case. */
static qd_code add(members *m, qd_worker_heartbeat *hb, uint64_t seq, uint64_t since_ms, qd_err *err)
{
    if (m->n == m->cap) {
        size_t cap = m->cap == 0 ? 64 : 2 * m->cap;
        member *more = qd_realloc(m->at, cap * sizeof *more);
        if (more == NULL) {
            qd_msg_free(hb);
            return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %zu workers", cap);
        }
        m->at = more;
        m->cap = cap;
    }
    m->at[m->n++] = (member){hb, seq, since_ms};
    return QD_OK;
}

typedef struct refresh {
    const members *before;
    members *now;
} refresh;

static qd_code take(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    refresh *r = ctx;
    qd_worker_heartbeat *hb = NULL;
    qd_code rc = qd_worker_heartbeat_decode(m->data, m->bytes, &hb, err);
    if (rc != QD_OK) return rc == QD_E_NO_MEMORY ? rc : QD_OK; /* of a newer program */
    const member *old = find(r->before, hb->id);
    return add(r->now, hb, m->seq, old != NULL && old->seq == m->seq ? old->since_ms : r->now->now_ms, err);
}

qd_code qd_fleet_refresh(qd_fleet *f, qd_bus *bus, uint64_t now_ms, qd_err *err)
{
    members now = {.now_ms = now_ms};
    refresh r = {.before = &f->known, .now = &now};
    qd_code rc = qd_bus_kv_list(bus, QD_BUCKET_LIVE, QD_KEYS_WORKERS, take, &r, err);
    if (rc == QD_OK) { /* the bus is waited for without the lock: who shows does not */
        (void)pthread_mutex_lock(&f->lock);
        members old = f->known;
        f->known = now;
        now = old;
        (void)pthread_mutex_unlock(&f->lock);
    }
    members_done(&now);
    return rc;
}

static bool silent(const members *all, const member *m)
{
    return all->now_ms - m->since_ms > SILENT_PERIODS * (uint64_t)m->hb->heartbeat_ms;
}

static void show_states(const members *f, qd_buf *ret)
{
    static const char *const names[STATES + 1] = {"unknown", "idle", "busy", "draining", "drained", "paused", "silent"};
    uint64_t n[STATES + 1] = {0};
    for (size_t i = 0; i < f->n; i++) {
        unsigned state = (unsigned)f->at[i].hb->state;
        n[silent(f, &f->at[i]) ? STATES : state < STATES ? state : 0]++;
    }
    qd_buf_str(ret, "# HELP quant_workers Workers by what they last said.\n# TYPE quant_workers gauge\n");
    for (unsigned i = 0; i <= STATES; i++)
        qd_buf_printf(ret, "quant_workers{state=\"%s\"} %" PRIu64 "\n", names[i], n[i]);
}

typedef enum gauge {
    MEMORY,
    MEMORY_FREE,
    TEMPERATURE,
    ECC,
    XID,
    THROTTLE,
    FAULT,
    GAUGES
} gauge;

/* False: it is not known. */
static bool value_of(const qd_worker_heartbeat *hb, gauge g, uint64_t *ret)
{
    static const uint32_t needs[GAUGES] = {QD_GPU_KNOWS_MEMORY, QD_GPU_KNOWS_MEMORY, QD_GPU_KNOWS_TEMPERATURE,
                                           QD_GPU_KNOWS_ECC,    QD_GPU_KNOWS_XID,    QD_GPU_KNOWS_THROTTLE};
    const qd_gpu_state *s = hb->gpu;
    const uint64_t values[GAUGES] = {hb->device_memory_bytes,
                                     hb->device_memory_free_bytes,
                                     s->temperature_c,
                                     s->ecc_uncorrected,
                                     s->xid,
                                     s->throttle,
                                     s->fault[0] != '\0'};
    *ret = values[g];
    return (s->known & needs[g]) == needs[g];
}

static void show_gauge(const members *f, gauge g, qd_buf *ret)
{
    static const struct {
        const char *name, *help;
    } gauges[GAUGES] = {{"quant_gpu_memory_bytes", "Memory of the GPU."},
                        {"quant_gpu_memory_free_bytes", "Of that, not taken."},
                        {"quant_gpu_temperature_celsius", "Of the GPU itself."},
                        {"quant_gpu_ecc_uncorrected", "Uncorrected memory errors since the driver was loaded."},
                        {"quant_gpu_xid", "The last XID since the worker started; 0: none."},
                        {"quant_gpu_throttle_reasons", "NVML's bits of reasons for lower clocks."},
                        {"quant_gpu_fault", "1: the worker takes no more jobs because of its GPU."}};
    uint64_t value = 0;
    qd_buf_printf(ret, "# HELP %s %s\n# TYPE %s gauge\n", gauges[g].name, gauges[g].help, gauges[g].name);
    for (size_t i = 0; i < f->n; i++) {
        const qd_worker_heartbeat *hb = f->at[i].hb;
        if (hb->gpu == NULL || silent(f, &f->at[i]) || !value_of(hb, g, &value)) continue;
        qd_buf_printf(ret, "%s{worker=\"%s\",pci=", gauges[g].name, hb->id);
        qd_buf_json_str(ret, hb->gpu->pci);
        qd_buf_printf(ret, "} %" PRIu64 "\n", value);
    }
}

void qd_fleet_show(qd_fleet *f, qd_buf *ret)
{
    (void)pthread_mutex_lock(&f->lock);
    show_states(&f->known, ret);
    for (int g = 0; g < GAUGES; g++) show_gauge(&f->known, (gauge)g, ret);
    (void)pthread_mutex_unlock(&f->lock);
}
