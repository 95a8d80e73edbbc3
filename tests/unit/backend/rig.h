/* rig.h -- backends over one bus in process, with threads of their own, a small model and a directory; a
 * gateway's calls of the bus can get lost, or it "crashes": from some call on nothing of it arrives. */
#ifndef QD_TESTS_UNIT_BACKEND_RIG_H
#define QD_TESTS_UNIT_BACKEND_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/bus_mem.h"
#include "gateway/backend_inside.h"
#include "tests/unit/engine/small_model.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

typedef enum loss {
    LOSE_NOTHING,
    LOSE_REQUEST, /* of one call */
    LOSE_REPLY,
    LOSE_ALL /* from that call on: a crash */
} loss;

typedef struct rig {
    char dir[64], models[96], files[96], output[96], index[2][96];
    qd_bus_mem *mem;
    pthread_mutex_t lock; /* bus_mem knows no threads */
    qd_bus *bus;          /* the test's own */
    qd_glog log;
    atomic_int lose, lose_at, calls; /* of the threads that make calls */
    atomic_bool stalled;             /* feeds of gateway 1 tell nothing */
    qd_backend_config cfg;
    qd_backend *gate[2];
} rig;

typedef struct rig_bus {
    qd_bus bus; /* first */
    qd_bus *real;
    rig *r;
    bool calls, second;
} rig_bus;

static inline rig_bus *rb(qd_bus *b)
{
    return b->ctx;
}

static inline loss rig_fate(qd_bus *b)
{
    rig *r = rb(b)->r;
    loss l = (loss)atomic_load(&r->lose);
    if (!rb(b)->calls || l == LOSE_NOTHING) return LOSE_NOTHING;
    int n = atomic_fetch_add(&r->calls, 1), at = atomic_load(&r->lose_at);
    return l == LOSE_ALL ? (n >= at ? LOSE_REQUEST : LOSE_NOTHING) : n == at ? l : LOSE_NOTHING;
}

#define RIG_CALL(call)                                                             \
    loss f = rig_fate(b);                                                          \
    if (f == LOSE_REQUEST) return qd_fail(err, QD_E_AWAY, "the request was lost"); \
    (void)pthread_mutex_lock(&rb(b)->r->lock);                                     \
    qd_code rc = (call);                                                           \
    (void)pthread_mutex_unlock(&rb(b)->r->lock);                                   \
    return f == LOSE_REPLY ? qd_fail(err, QD_E_AWAY, "the reply was lost") : rc

static inline qd_code rig_publish(qd_bus *b, const qd_bus_pub *p, qd_bus_puback *ret, qd_err *err)
{
    RIG_CALL(qd_bus_publish(rb(b)->real, p, ret, err));
}
static inline qd_code rig_purge(qd_bus *b, const char *stream, const char *subject, uint64_t up_to, uint64_t *n,
                                qd_err *err)
{
    RIG_CALL(qd_bus_purge(rb(b)->real, stream, subject, up_to, n, err));
}
static inline qd_code rig_stream(qd_bus *b, const char *stream, qd_bus_stream_state *ret, qd_err *err)
{
    RIG_CALL(qd_bus_stream(rb(b)->real, stream, ret, err));
}
static inline qd_code rig_get(qd_bus *b, const char *bucket, const char *key, qd_bus_msg *ret, qd_err *err)
{
    if (rig_fate(b) != LOSE_NOTHING) return qd_fail(err, QD_E_AWAY, "a read was lost");
    (void)pthread_mutex_lock(&rb(b)->r->lock);
    qd_code rc = qd_bus_kv_get(rb(b)->real, bucket, key, ret, err);
    (void)pthread_mutex_unlock(&rb(b)->r->lock);
    return rc;
}
static inline qd_code rig_put(qd_bus *b, const char *bucket, const char *key, const void *data, size_t bytes,
                              uint64_t expect, uint64_t *ret_rev, qd_err *err)
{
    uint64_t rev = 0;
    RIG_CALL(qd_bus_kv_put(rb(b)->real, bucket, key, data, bytes, expect, f == LOSE_NOTHING ? ret_rev : &rev, err));
}
static inline qd_code rig_delete(qd_bus *b, const char *bucket, const char *key, uint64_t expect, qd_err *err)
{
    RIG_CALL(qd_bus_kv_delete(rb(b)->real, bucket, key, expect, err));
}
static inline qd_code rig_feed_open(qd_bus *b, const qd_bus_feed_spec *spec, qd_bus_feed **ret, qd_err *err)
{
    if (rig_fate(b) != LOSE_NOTHING) return qd_fail(err, QD_E_AWAY, "a feed was lost");
    (void)pthread_mutex_lock(&rb(b)->r->lock);
    qd_code rc = qd_bus_feed_open(rb(b)->real, spec, ret, err);
    (void)pthread_mutex_unlock(&rb(b)->r->lock);
    return rc;
}
static inline qd_code rig_feed_next(qd_bus *b, qd_bus_feed *f, uint64_t wait_ms, qd_bus_feed_event *event,
                                    qd_bus_msg *ret, qd_err *err)
{
    *event = QD_FEED_NONE;
    if (rb(b)->second && !rb(b)->calls && atomic_load(&rb(b)->r->stalled)) return QD_OK;
    (void)pthread_mutex_lock(&rb(b)->r->lock);
    qd_code rc = qd_bus_feed_next(rb(b)->real, f, wait_ms, event, ret, err);
    (void)pthread_mutex_unlock(&rb(b)->r->lock);
    return rc;
}
static inline int rig_feed_fd(qd_bus *b, qd_bus_feed *f)
{
    (void)b;
    (void)f;
    return -1;
}
static inline void rig_feed_close(qd_bus *b, qd_bus_feed *f)
{
    (void)pthread_mutex_lock(&rb(b)->r->lock);
    qd_bus_feed_close(rb(b)->real, f);
    (void)pthread_mutex_unlock(&rb(b)->r->lock);
}
static inline void rig_state(qd_bus *b, qd_bus_state *ret)
{
    (void)pthread_mutex_lock(&rb(b)->r->lock);
    qd_bus_state_get(rb(b)->real, ret);
    (void)pthread_mutex_unlock(&rb(b)->r->lock);
}
static inline void rig_bus_free(qd_bus *b)
{
    rig_bus *w = rb(b);
    (void)pthread_mutex_lock(&w->r->lock);
    qd_bus_free(w->real);
    (void)pthread_mutex_unlock(&w->r->lock);
    qd_free(w);
}

static inline qd_code rig_open(void *ctx, const char *name, bool follows, qd_bus **ret, qd_err *err)
{
    static const qd_bus_ops ops = {.publish = rig_publish,
                                   .purge = rig_purge,
                                   .stream_state = rig_stream,
                                   .kv_get = rig_get,
                                   .kv_put = rig_put,
                                   .kv_delete = rig_delete,
                                   .feed_open = rig_feed_open,
                                   .feed_next = rig_feed_next,
                                   .feed_fd = rig_feed_fd,
                                   .feed_close = rig_feed_close,
                                   .state = rig_state,
                                   .free = rig_bus_free};
    rig *r = ctx;
    rig_bus *w = qd_calloc(1, sizeof *w);
    if (w == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory");
    w->bus = (qd_bus){.ops = &ops, .ctx = w};
    w->r = r;
    w->calls = !follows && strcmp(name, "test") != 0;
    w->second = strncmp(name, "gate1", 5) == 0;
    (void)pthread_mutex_lock(&r->lock);
    qd_code rc = qd_bus_mem_client(r->mem, name, &w->real, err);
    (void)pthread_mutex_unlock(&r->lock);
    if (rc != QD_OK)
        qd_free(w);
    else
        *ret = &w->bus;
    return rc;
}

static inline qd_code rig_provision(void *ctx, qd_bus *bus, qd_err *err)
{
    (void)ctx;
    (void)bus;
    (void)err;
    return QD_OK;
}

static inline qd_backend_bus *rig_inside(rig *r, int i)
{
    return r->gate[i]->ctx;
}

/* Waits until what must become true is; real time, as threads do it. */
#define EVENTUALLY(condition)                                    \
    do {                                                         \
        bool came = (condition);                                 \
        for (int round_ = 0; !came && round_ < 5000; round_++) { \
            (void)usleep(2000);                                  \
            came = (condition);                                  \
        }                                                        \
        if (!came) fail_msg("never came true: %s", #condition);  \
    } while (0)

static inline void rig_start(rig *r, int i)
{
    qd_err err = {0};
    const qd_backend_bus_door door = {.ctx = r, .open = rig_open, .provision = rig_provision};
    r->cfg.self = i == 0 ? "gate0" : "gate1";
    r->cfg.index_path = r->index[i];
    if (qd_backend_open_at(&r->cfg, &door, &r->gate[i], &err) != QD_OK) fail_msg("%s", err.msg);
    EVENTUALLY(atomic_load(&rig_inside(r, i)->synced));
}

static inline void rig_stop(rig *r, int i)
{
    qd_backend_close(r->gate[i]);
    r->gate[i] = NULL;
}

static inline void rig_lose(rig *r, loss l, int at)
{
    atomic_store(&r->lose, LOSE_NOTHING);
    atomic_store(&r->calls, 0);
    atomic_store(&r->lose_at, at);
    atomic_store(&r->lose, l);
}

/* n_gates of them are started. */
static inline rig *rig_new(int n_gates)
{
    rig *r = test_calloc(1, sizeof *r);
    char model[128];
    char dir[] = "/tmp/qd-gate-XXXXXX";
    assert_non_null(mkdtemp(dir));
    (void)snprintf(r->dir, sizeof r->dir, "%s", dir);
    (void)snprintf(r->models, sizeof r->models, "%s/models", dir);
    (void)snprintf(r->files, sizeof r->files, "%s/files", dir);
    (void)snprintf(r->output, sizeof r->output, "%s/models/out", dir);
    (void)snprintf(model, sizeof model, "%s/models/small", dir);
    for (int i = 0; i < 2; i++) (void)snprintf(r->index[i], sizeof r->index[i], "%s/index%d", dir, i);
    assert_int_equal(mkdir(r->models, 0755), 0);
    assert_int_equal(mkdir(r->files, 0755), 0);
    assert_int_equal(mkdir(r->output, 0755), 0);
    sm_write(model, -1);
    sm_put(model, "quantd.json", "{\"id\": \"small\"}", 15);
    (void)pthread_mutex_init(&r->lock, NULL);
    assert_int_equal(qd_bus_mem_new(1, UINT64_C(1775880155000), NULL, &r->mem, NULL), QD_OK);
    assert_int_equal(rig_open(r, "test", false, &r->bus, NULL), QD_OK);
    qd_glog_begin(&r->log, STDERR_FILENO, QD_LOG_ERROR, 0);
    r->cfg = (qd_backend_config){.models_root = r->models,
                                 .files_root = r->files,
                                 .output_root = r->output,
                                 .templates = QD_TEST_SOURCE_DIR "/deploy/templates",
                                 .seal_key_file = "",
                                 .device_class = "cpu",
                                 .callers = 1,
                                 .log = &r->log};
    for (int i = 0; i < n_gates; i++) rig_start(r, i);
    return r;
}

static inline void rig_free(rig *r)
{
    for (int i = 0; i < 2; i++) qd_backend_close(r->gate[i]);
    qd_bus_free(r->bus);
    qd_bus_mem_free(r->mem);
    qd_glog_done(&r->log);
    (void)pthread_mutex_destroy(&r->lock);
    assert_int_equal(qd_tree_remove(r->dir, NULL), QD_OK);
    test_free(r);
}

static inline void rig_faults(rig *r, const qd_bus_mem_faults *f)
{
    (void)pthread_mutex_lock(&r->lock);
    qd_bus_mem_set_faults(r->mem, f);
    (void)pthread_mutex_unlock(&r->lock);
}

/* What tests ask for. */

static inline void rig_id(uint64_t now_ms, uint64_t random, char ret[QD_ID_BYTES])
{
    (void)now_ms;
    (void)snprintf(ret, QD_ID_BYTES, "ft-%012llx", (unsigned long long)(random & 0xffffffffffff));
}

static inline qd_caller rig_caller(const char *tenant)
{
    qd_caller c = {0};
    (void)snprintf(c.tenant, sizeof c.tenant, "%s", tenant);
    (void)snprintf(c.user, sizeof c.user, "somebody");
    return c;
}

typedef struct rig_ask {
    qd_caller caller;
    qd_ask ask;
    qd_new_job job;
    qd_models *models;
    qd_templates *templates;
    rig *r;
    int gate;
} rig_ask;

static inline void rig_ask_begin(rig_ask *a, rig *r, int gate, const char *tenant)
{
    static const char *const fields[] = {"echo", "me", QD_FIELD_QUANT_SPEC, "w4a16", QD_FIELD_QUANT_METHOD, "rtn"};
    *a = (rig_ask){.r = r, .gate = gate, .caller = rig_caller(tenant)};
    a->ask = (qd_ask){.caller = &a->caller, .request_id = "r1", .from = "127.0.0.1", .program = "test"};
    assert_int_equal(r->gate[gate]->ops->models(r->gate[gate]->ctx, &a->caller, &a->models, NULL), QD_OK);
    assert_int_equal(r->gate[gate]->ops->templates(r->gate[gate]->ctx, &a->templates, NULL), QD_OK);
    assert_true(a->models->n > 0 && a->templates->n > 0);
    a->job = (qd_new_job){.origin = QUANTD__API_ORIGIN__API_BAILIAN,
                          .model = &a->models->items[a->models->n - 1],
                          .tmpl = &a->templates->items[0],
                          .api_fields = fields,
                          .n_api_fields = 3,
                          .make_id = rig_id};
}

static inline void rig_ask_end(rig_ask *a)
{
    a->r->gate[a->gate]->ops->models_drop(a->r->gate[a->gate]->ctx, a->models);
    a->r->gate[a->gate]->ops->templates_drop(a->r->gate[a->gate]->ctx, a->templates);
}

static inline qd_code rig_create(rig *r, int gate, const char *tenant, const char *name, const char *key,
                                 char ret_id[QD_ID_BYTES])
{
    rig_ask a;
    qd_job_record *rec = NULL;
    qd_err err = {0};
    rig_ask_begin(&a, r, gate, tenant);
    a.job.name = name;
    a.job.unique_name = name != NULL;
    a.job.idempotency_key = key;
    qd_code rc = r->gate[gate]->ops->job_create(r->gate[gate]->ctx, &a.ask, &a.job, &rec, &err);
    if (rc == QD_OK && ret_id != NULL) (void)snprintf(ret_id, QD_ID_BYTES, "%s", rec->id);
    qd_msg_free(rec);
    rig_ask_end(&a);
    return rc;
}

static inline qd_code rig_get_job(rig *r, int gate, const char *tenant, const char *id, qd_job_record **ret)
{
    const qd_caller c = rig_caller(tenant);
    qd_job_record *rec = NULL;
    qd_code rc = r->gate[gate]->ops->job_get(r->gate[gate]->ctx, &c, QUANTD__API_ORIGIN__API_BAILIAN, id, &rec, NULL);
    if (ret != NULL)
        *ret = rec;
    else
        qd_msg_free(rec);
    return rc;
}

static inline uint64_t rig_count(rig *r, int gate, const char *tenant)
{
    uint64_t in[QD_JOB_STATES], n = 0;
    qd_index_counts(rig_inside(r, gate)->index, tenant, in);
    for (size_t i = 0; i < QD_JOB_STATES; i++) n += in[i];
    return n;
}

#endif
