#include "tests/unit/jobs/rig.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether this call gets lost, and how. */
static loss fate(qd_bus *b)
{
    program *p = b->ctx;
    if (p->lose == LOSE_NOTHING || p->calls++ != p->lose_at) return LOSE_NOTHING;
    p->lost = true;
    return p->lose;
}

static qd_bus *real(qd_bus *b)
{
    return ((program *)b->ctx)->real;
}

#define LOSABLE(call)                                                              \
    loss f = fate(b);                                                              \
    if (f == LOSE_REQUEST) return qd_fail(err, QD_E_AWAY, "the request was lost"); \
    qd_code rc = (call);                                                           \
    return f == LOSE_REPLY ? qd_fail(err, QD_E_AWAY, "the reply was lost") : rc

static qd_code r_publish(qd_bus *b, const qd_bus_pub *p, qd_bus_puback *ret, qd_err *err)
{
    LOSABLE(qd_bus_publish(real(b), p, ret, err));
}
static qd_code r_purge(qd_bus *b, const char *stream, const char *subject, uint64_t up_to, uint64_t *n, qd_err *err)
{
    LOSABLE(qd_bus_purge(real(b), stream, subject, up_to, n, err));
}
static qd_code r_stream(qd_bus *b, const char *stream, qd_bus_stream_state *ret, qd_err *err)
{
    LOSABLE(qd_bus_stream(real(b), stream, ret, err));
}
static qd_code r_get(qd_bus *b, const char *bucket, const char *key, qd_bus_msg *ret, qd_err *err)
{
    if (fate(b) != LOSE_NOTHING) return qd_fail(err, QD_E_AWAY, "a read was lost");
    return qd_bus_kv_get(real(b), bucket, key, ret, err);
}
static qd_code r_put(qd_bus *b, const char *bucket, const char *key, const void *data, size_t bytes, uint64_t expect,
                     uint64_t *ret_rev, qd_err *err)
{
    uint64_t rev = 0;
    LOSABLE(qd_bus_kv_put(real(b), bucket, key, data, bytes, expect, f == LOSE_NOTHING ? ret_rev : &rev, err));
}
static qd_code r_delete(qd_bus *b, const char *bucket, const char *key, uint64_t expect, qd_err *err)
{
    LOSABLE(qd_bus_kv_delete(real(b), bucket, key, expect, err));
}
static qd_code r_pull_open(qd_bus *b, const qd_bus_pull_spec *spec, qd_bus_pull **ret, qd_err *err)
{
    return qd_bus_pull_open(real(b), spec, ret, err);
}
static qd_code r_fetch(qd_bus *b, qd_bus_pull *p, uint64_t wait_ms, qd_bus_msg *ret, bool *got, qd_err *err)
{
    return qd_bus_pull_fetch(real(b), p, wait_ms, ret, got, err);
}
static qd_code r_ack(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    LOSABLE(qd_bus_pull_ack(real(b), m, err));
}
static qd_code r_nak(qd_bus *b, const qd_bus_msg *m, uint64_t delay_ms, qd_err *err)
{
    return fate(b) == LOSE_NOTHING ? qd_bus_pull_nak(real(b), m, delay_ms, err) : QD_OK;
}
static qd_code r_progress(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    return fate(b) == LOSE_NOTHING ? qd_bus_pull_progress(real(b), m, err) : QD_OK;
}
static qd_code r_term(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    return fate(b) == LOSE_NOTHING ? qd_bus_pull_term(real(b), m, err) : QD_OK;
}
static void r_pull_close(qd_bus *b, qd_bus_pull *p)
{
    qd_bus_pull_close(real(b), p);
}
static qd_code r_feed_open(qd_bus *b, const qd_bus_feed_spec *spec, qd_bus_feed **ret, qd_err *err)
{
    if (fate(b) != LOSE_NOTHING) return qd_fail(err, QD_E_AWAY, "a feed was lost");
    return qd_bus_feed_open(real(b), spec, ret, err);
}
static qd_code r_feed_next(qd_bus *b, qd_bus_feed *f, uint64_t wait_ms, qd_bus_feed_event *event, qd_bus_msg *ret,
                           qd_err *err)
{
    return qd_bus_feed_next(real(b), f, wait_ms, event, ret, err);
}
static int r_feed_fd(qd_bus *b, qd_bus_feed *f)
{
    return qd_bus_feed_fd(real(b), f);
}
static void r_feed_close(qd_bus *b, qd_bus_feed *f)
{
    qd_bus_feed_close(real(b), f);
}
static qd_code r_hint_open(qd_bus *b, const char *subject, qd_bus_hint **ret, qd_err *err)
{
    return qd_bus_hint_open(real(b), subject, ret, err);
}
static void r_hint_take(qd_bus *b, qd_bus_hint *h, qd_bus_news *ret)
{
    qd_bus_hint_take(real(b), h, ret);
}
static int r_hint_fd(qd_bus *b, qd_bus_hint *h)
{
    return qd_bus_hint_fd(real(b), h);
}
static void r_hint_close(qd_bus *b, qd_bus_hint *h)
{
    qd_bus_hint_close(real(b), h);
}
static void r_state(qd_bus *b, qd_bus_state *ret)
{
    qd_bus_state_get(real(b), ret);
}
static void r_free(qd_bus *b)
{
    (void)b;
}

static const qd_bus_ops rig_ops = {.publish = r_publish,
                                   .purge = r_purge,
                                   .stream_state = r_stream,
                                   .kv_get = r_get,
                                   .kv_put = r_put,
                                   .kv_delete = r_delete,
                                   .pull_open = r_pull_open,
                                   .pull_fetch = r_fetch,
                                   .pull_ack = r_ack,
                                   .pull_nak = r_nak,
                                   .pull_progress = r_progress,
                                   .pull_term = r_term,
                                   .pull_close = r_pull_close,
                                   .feed_open = r_feed_open,
                                   .feed_next = r_feed_next,
                                   .feed_fd = r_feed_fd,
                                   .feed_close = r_feed_close,
                                   .hint_open = r_hint_open,
                                   .hint_take = r_hint_take,
                                   .hint_fd = r_hint_fd,
                                   .hint_close = r_hint_close,
                                   .state = r_state,
                                   .free = r_free};

void lose(program *p, loss what, unsigned at)
{
    p->lose = what;
    p->lose_at = at;
    p->calls = 0;
    p->lost = false;
}

static qd_code disk_adopt(void *ctx, const qd_job_record *rec, bool *ret_found, qd_err *err)
{
    rig *r = ctx;
    if (r->disk_fails) return qd_fail(err, QD_E_IO, "the disk fails");
    if (r->staging != 0 && r->staging < rec->epoch) r->staging = rec->epoch;
    *ret_found = r->staging == rec->epoch;
    return QD_OK;
}
static qd_code disk_output(void *ctx, const qd_job_record *rec, bool *ret_there, qd_report_summary *ret, qd_err *err)
{
    rig *r = ctx;
    (void)rec;
    if (r->disk_fails) return qd_fail(err, QD_E_IO, "the disk fails");
    if (r->out && r->out_broken) return qd_fail(err, QD_E_INPUT, "no run left this");
    *ret_there = r->out;
    ret->tensors_quantized = 42;
    return QD_OK;
}
static qd_code disk_discard_staging(void *ctx, const qd_job_record *rec, qd_err *err)
{
    rig *r = ctx;
    if (r->disk_fails) return qd_fail(err, QD_E_IO, "the disk fails");
    if (r->staging != 0 && r->staging <= rec->epoch) {
        r->staging = 0;
        r->trash = true;
    }
    r->n_discarded++;
    return QD_OK;
}
static qd_code disk_discard_output(void *ctx, const qd_job_record *rec, qd_err *err)
{
    rig *r = ctx;
    (void)rec;
    if (r->disk_fails) return qd_fail(err, QD_E_IO, "the disk fails");
    r->trash = r->trash || r->out;
    r->out = false;
    return QD_OK;
}
static qd_code disk_each(void *ctx, qd_disk_each fn, void *fn_ctx, qd_err *err)
{
    rig *r = ctx;
    qd_disk_item item = {.path = "/x", .job_id = "j1", .epoch = r->staging};
    qd_code rc = QD_OK;
    item.kind = QD_DISK_STAGING;
    if (r->staging != 0) rc = fn(fn_ctx, &item, err);
    item.kind = QD_DISK_OUTPUT;
    if (r->out && rc == QD_OK) rc = fn(fn_ctx, &item, err);
    item.kind = QD_DISK_TRASH;
    if (r->trash && rc == QD_OK) rc = fn(fn_ctx, &item, err);
    return rc;
}
static qd_code disk_discard(void *ctx, const qd_disk_item *item, qd_err *err)
{
    rig *r = ctx;
    (void)err;
    if (item->kind == QD_DISK_STAGING) r->staging = 0;
    if (item->kind == QD_DISK_OUTPUT) r->out = false;
    r->trash = item->kind != QD_DISK_TRASH;
    return QD_OK;
}

static uint64_t unix_ms(void *ctx)
{
    return qd_bus_mem_now_ms(ctx) + UINT64_C(1700000000000);
}
static uint64_t mono_ms(void *ctx)
{
    return qd_bus_mem_now_ms(ctx);
}

static void program_open(rig *r, program *p, const char *name, const qd_jobs_opts *more)
{
    qd_jobs_opts opts = more == NULL ? (qd_jobs_opts){0} : *more;
    qd_jobs_clock clock = {.ctx = r->mem, .unix_ms = unix_ms, .mono_ms = mono_ms};
    p->bus = (qd_bus){.ops = &rig_ops, .ctx = p};
    opts.self = name;
    opts.clock = &clock;
    opts.disk = &r->disk;
    opts.lease_ms = LEASE_MS;
    assert_int_equal(qd_bus_mem_client(r->mem, name, &p->real, NULL), QD_OK);
    assert_int_equal(qd_jobs_open(&p->bus, &opts, &p->jobs, NULL), QD_OK);
}

rig *rig_new(const qd_jobs_opts *opts)
{
    rig *r = calloc(1, sizeof *r);
    assert_non_null(r);
    assert_int_equal(qd_bus_mem_new(1, 1000000, NULL, &r->mem, NULL), QD_OK);
    r->disk = (qd_jobs_disk){.ctx = r,
                             .adopt = disk_adopt,
                             .output = disk_output,
                             .discard_staging = disk_discard_staging,
                             .discard_output = disk_discard_output,
                             .each = disk_each,
                             .discard = disk_discard};
    program_open(r, &r->gate, "gate", opts);
    program_open(r, &r->w1, "w1", opts);
    program_open(r, &r->w2, "w2", opts);
    assert_int_equal(qd_jobs_lanes_open(r->w1.jobs, "cpu", "n1", NULL), QD_OK);
    assert_int_equal(qd_jobs_lanes_open(r->w2.jobs, "cpu", "n1", NULL), QD_OK);
    beat(&r->w1, "w1");
    beat(&r->w2, "w2");
    pass_ms(r, 2 * LEASE_MS); /* long since the connect */
    return r;
}

static void program_close(program *p)
{
    qd_jobs_close(p->jobs);
    qd_bus_free(p->real);
}

void rig_free(rig *r)
{
    program_close(&r->gate);
    program_close(&r->w1);
    program_close(&r->w2);
    qd_bus_mem_free(r->mem);
    free(r);
}

void pass_ms(rig *r, uint64_t ms)
{
    qd_bus_mem_set_now_ms(r->mem, qd_bus_mem_now_ms(r->mem) + ms);
}

qd_job_spec *spec_new(const char *name)
{
    qd_job_record *rec = record_new("x");
    qd_job_spec *s = rec == NULL ? NULL : rec->spec;
    if (s == NULL || qd_text_set(&s->name, name, NULL) != QD_OK) exit(2);
    rec->spec = NULL;
    qd_msg_free(rec);
    return s;
}

void create(rig *r, const char *id)
{
    qd_job_spec *s = spec_new(id);
    qd_err err = {0};
    assert_int_equal(qd_jobs_create(r->gate.jobs, id, s, true, NULL, &err), QD_OK);
    qd_msg_free(s);
    admit(r);
}

void admit(rig *r)
{
    qd_jobs_swept swept = {0};
    assert_int_equal(qd_jobs_sweep(r->gate.jobs, &swept, NULL), QD_OK);
}

qd_take take(rig *r, program *p, qd_task **ret)
{
    qd_bus_msg m = {0};
    qd_err err = {0};
    bool got = false;
    qd_take how = QD_TAKE_RUN;
    (void)r;
    *ret = NULL;
    assert_int_equal(qd_jobs_fetch(p->jobs, &m, &got, &err), QD_OK);
    assert_true(got);
    qd_code rc = qd_jobs_take(p->jobs, &m, &how, ret, &err);
    assert_int_equal(rc, QD_OK);
    assert_null(m.block);
    return how;
}

qd_task *take_run(rig *r, program *p)
{
    qd_task *t = NULL;
    assert_int_equal(take(r, p, &t), QD_TAKE_RUN);
    assert_non_null(t);
    return t;
}

void rename_out(rig *r, const qd_task *t)
{
    assert_true(r->staging == 0 || r->staging == qd_task_record(t)->epoch);
    r->staging = 0;
    r->out = true;
}

qd_job_record *record_of(rig *r, const char *id)
{
    qd_job_record *rec = NULL;
    lose(&r->gate, LOSE_NOTHING, 0);
    assert_int_equal(qd_jobs_get(r->gate.jobs, id, &rec, NULL, NULL), QD_OK);
    return rec;
}

qd_job_state state_of(rig *r, const char *id)
{
    qd_job_record *rec = record_of(r, id);
    qd_job_state s = rec->state;
    qd_msg_free(rec);
    return s;
}

bool record_gone(rig *r, const char *id)
{
    qd_job_record *rec = NULL;
    qd_code rc = qd_jobs_get(r->gate.jobs, id, &rec, NULL, NULL);
    qd_msg_free(rec);
    return rc == QD_E_NOT_FOUND;
}

bool key_there(rig *r, const char *bucket, const char *key)
{
    qd_bus_msg m = {0};
    qd_code rc = qd_bus_kv_get(r->gate.real, bucket, key, &m, NULL);
    qd_bus_msg_done(&m);
    return rc == QD_OK;
}

uint64_t stream_msgs(rig *r, const char *stream)
{
    qd_bus_stream_state s = {0};
    assert_int_equal(qd_bus_stream(r->gate.real, stream, &s, NULL), QD_OK);
    return s.msgs;
}

void beat(program *p, const char *id)
{
    qd_worker_heartbeat hb;
    quantd__worker_heartbeat__init(&hb);
    char name[QD_ID_BYTES], cpu[] = "cpu", numerics[] = "n1";
    (void)snprintf(name, sizeof name, "%s", id);
    hb.version = QD_WIRE_VERSION;
    hb.id = name;
    hb.state = QUANTD__WORKER_STATE__WORKER_IDLE;
    hb.device_class = cpu;
    hb.numerics_id = numerics;
    assert_int_equal(qd_jobs_heartbeat(p->jobs, &hb, NULL), QD_OK);
}

qd_job_error error_of(Quantd__ErrorClass c)
{
    static char code[] = "bad_input", message[] = "tensor x: it is broken";
    qd_job_error e;
    quantd__job_error__init(&e);
    e.code = code;
    e.message = message;
    e.error_class = c;
    return e;
}

rig *rig_running(qd_task **ret)
{
    rig *r = rig_new(NULL);
    create(r, "j1");
    *ret = take_run(r, &r->w1);
    return r;
}

void rig_done(rig *r, qd_task *t)
{
    qd_task_free(t);
    rig_free(r);
}
