/* world.h -- a gateway with keys, a model, a file and jobs, and whole requests to both of its APIs, as the server would
 * put them. */
#ifndef QD_TESTS_UNIT_BACKEND_WORLD_H
#define QD_TESTS_UNIT_BACKEND_WORLD_H

#include "tests/unit/backend/rig.h"

#include "access/apikey.h"
#include "base/fault.h"
#include "base/json.h"
#include "gateway/api.h"
#include "gateway/bce_sign.h"
#include "gateway/upload.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>

#define REQUEST_ID "11111111-2222-4333-8444-555555555555"
#define NOW_MS     UINT64_C(1775908800000) /* 2026-04-11T12:00:00Z */
#define ROOT       "/api/v1/fine-tunes/compress"

enum {
    QUERY_MAX = 8,
    BODY_BYTES = 1024
};

typedef struct world {
    rig *r;
    qd_api_env env;
    char bearer[QD_KEY_TEXT_BYTES], ak[QD_ID_BYTES], secret[QD_KEY_TEXT_BYTES];
    char file[QD_ID_BYTES], done_job[QD_ID_BYTES], live_job[QD_ID_BYTES], model[64], set[64];
    int round;
} world;

/* A request as the server has read it; made before anything fails. */
typedef struct request {
    char target[256], body[BODY_BYTES], authorization[512];
    qd_http_pair query[QUERY_MAX], headers[8];
    qd_http_request http;
} request;

/* ---- what there is ---- */

static inline void put_key(rig *r, const qd_api_key *k)
{
    char key[QD_SUBJECT_BYTES];
    qd_buf b = {0};
    assert_int_equal(qd_key(QD_KEY_APIKEY, k->id, key, NULL), QD_OK);
    assert_int_equal(qd_msg_encode(&k->base, &b, NULL), QD_OK);
    assert_int_equal(qd_bus_kv_put(r->bus, QD_BUCKET_ACCESS, key, b.data, b.len, QD_REV_ANY, NULL, NULL), QD_OK);
    qd_buf_done(&b);
}

static inline void make_keys(world *w)
{
    char path[128];
    qd_seal seal;
    qd_api_key *k = qd_api_key_new();
    (void)snprintf(path, sizeof path, "%s/seal", w->r->dir);
    assert_int_equal(
        qd_file_replace(path, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 64, NULL), QD_OK);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(qd_seal_load(path, &seal, NULL), QD_OK);
    assert_int_equal(qd_apikey_make_bearer(k, w->bearer, NULL), QD_OK);
    assert_int_equal(qd_text_set(&k->tenant, "acme", NULL), QD_OK);
    put_key(w->r, k);
    qd_msg_free(k);
    k = qd_api_key_new();
    assert_int_equal(qd_apikey_make_pair(k, &seal, w->secret, NULL), QD_OK);
    assert_int_equal(qd_text_set(&k->tenant, "acme", NULL), QD_OK);
    (void)snprintf(w->ak, sizeof w->ak, "%s", k->id);
    put_key(w->r, k);
    qd_msg_free(k);
    w->r->cfg.seal_key_file = qd_strdup(path);
}

static inline qd_job_record *record_of(world *w, const char *id, uint64_t *ret_rev)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_job_record *rec = NULL;
    assert_int_equal(qd_key(QD_KEY_JOB, id, key, NULL), QD_OK);
    if (qd_bus_kv_get(w->r->bus, QD_BUCKET_JOBS, key, &m, NULL) == QD_OK)
        assert_int_equal(qd_job_record_decode(m.data, m.bytes, &rec, NULL), QD_OK);
    if (ret_rev != NULL) *ret_rev = m.seq;
    qd_bus_msg_done(&m);
    return rec;
}

/* The record as a worker would leave it. */
static inline void change(world *w, const char *id, qd_job_state state, uint64_t epoch, uint64_t log_lines)
{
    char key[QD_SUBJECT_BYTES];
    uint64_t rev = 0;
    qd_job_record *rec = record_of(w, id, &rev);
    qd_buf b = {0};
    assert_non_null(rec);
    rec->state = state;
    rec->epoch = epoch;
    rec->log_lines = log_lines;
    assert_int_equal(qd_key(QD_KEY_JOB, id, key, NULL), QD_OK);
    assert_int_equal(qd_job_record_encode(rec, &b, NULL), QD_OK);
    assert_int_equal(qd_bus_kv_put(w->r->bus, QD_BUCKET_JOBS, key, b.data, b.len, rev, NULL, NULL), QD_OK);
    qd_buf_done(&b);
    qd_msg_free(rec);
}

static inline void say(world *w, const char *id, const char *text)
{
    char subject[QD_SUBJECT_BYTES];
    qd_buf b = {0};
    qd_bus_puback ack;
    qd_event_batch *e = qd_event_batch_new();
    qd_log_line *l = qd_log_line_new();
    assert_int_equal(qd_text_set(&e->job_id, id, NULL), QD_OK);
    assert_int_equal(qd_text_set(&e->worker, "w1", NULL), QD_OK);
    assert_int_equal(qd_text_set(&l->text, text, NULL), QD_OK);
    assert_int_equal(qd_list_add(&e->lines, &e->n_lines, l, NULL), QD_OK);
    e->epoch = e->first_line = 1;
    assert_int_equal(qd_event_batch_encode(e, &b, NULL), QD_OK);
    assert_int_equal(qd_subject_event(id, "w1", subject, NULL), QD_OK);
    const qd_bus_pub p = {.subject = subject, .data = b.data, .bytes = b.len, .expect_subject_seq = QD_REV_ANY};
    assert_int_equal(qd_bus_publish(w->r->bus, &p, &ack, NULL), QD_OK);
    qd_buf_done(&b);
    qd_msg_free(e);
}

static inline void still(world *w, bool yes)
{
    atomic_store(&w->r->stalled, yes);
    if (yes) (void)usleep(3000); /* the follower's round is over */
}

static inline const qd_backend_ops *ops(const world *w)
{
    return w->r->gate[1]->ops;
}

static inline void *ctx(const world *w)
{
    return w->r->gate[1]->ctx;
}

static inline void store_file(world *w, char ret_id[QD_ID_BYTES])
{
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    qd_upload *u = NULL;
    qd_file_meta *m = NULL;
    assert_int_equal(ops(w)->upload_begin(ctx(w), &c, "a.jsonl", &u, NULL), QD_OK);
    assert_int_equal(ops(w)->upload_write(ctx(w), u, "{}", 2, NULL), QD_OK);
    assert_int_equal(ops(w)->upload_end(ctx(w), u, &ask, "", "", &m, NULL), QD_OK);
    (void)snprintf(ret_id, QD_ID_BYTES, "%s", m->id);
    qd_msg_free(m);
}

static inline void make_job(world *w, Quantd__ApiOrigin origin, char ret_id[QD_ID_BYTES])
{
    rig_ask a;
    qd_job_record *rec = NULL;
    rig_ask_begin(&a, w->r, 1, "acme");
    a.job.origin = origin;
    assert_int_equal(ops(w)->job_create(ctx(w), &a.ask, &a.job, &rec, NULL), QD_OK);
    (void)snprintf(ret_id, QD_ID_BYTES, "%s", rec->id);
    qd_msg_free(rec);
    rig_ask_end(&a);
}

static inline bool is_running(world *w, const char *id)
{
    qd_job_record *rec = NULL;
    bool yes = rig_get_job(w->r, 1, "acme", id, &rec) == QD_OK && rec->state == QD_JOB_RUNNING;
    qd_msg_free(rec);
    return yes;
}

static inline void world_begin(world *w)
{
    char path[300];
    qd_caller c = rig_caller("acme");
    qd_models *models = NULL;
    qd_job_record *rec = NULL;
    *w = (world){.r = rig_new(0)};
    assert_int_equal(setenv("TZ", "Asia/Shanghai", 1), 0);
    tzset();
    make_keys(w);
    w->r->cfg.storage_bytes_max = 3 << 20; /* room that is not given back is missed: uploads take a MiB at a time */
    rig_start(w->r, 1);
    w->env = (qd_api_env){.backend = w->r->gate[1], .body_bytes_max = 1 << 20, .calibration_files_max = 5};
    store_file(w, w->file);
    assert_int_equal(ops(w)->models(ctx(w), &c, &models, NULL), QD_OK);
    (void)snprintf(w->model, sizeof w->model, "%s", models->items[0].qianfan_id);
    (void)snprintf(w->set, sizeof w->set, "%s", models->items[0].qianfan_set_id);
    ops(w)->models_drop(ctx(w), models);
    make_job(w, QUANTD__API_ORIGIN__API_BAILIAN, w->done_job);
    rec = record_of(w, w->done_job, NULL);
    assert_int_equal(mkdir(rec->spec->output_path, 0755), 0);
    (void)snprintf(path, sizeof path, "%s/quantd.log", rec->spec->output_path);
    assert_int_equal(qd_file_replace(path, "one\ntwo\n", 8, NULL), QD_OK);
    qd_msg_free(rec);
    change(w, w->done_job, QD_JOB_SUCCEEDED, 1, 2);
    make_job(w, QUANTD__API_ORIGIN__API_BAILIAN, w->live_job);
    say(w, w->live_job, "a line");
    change(w, w->live_job, QD_JOB_RUNNING, 1, 0);
    EVENTUALLY(is_running(w, w->live_job));
}

static inline void world_end(world *w)
{
    char *seal = (char *)(uintptr_t)w->r->cfg.seal_key_file;
    rig_free(w->r);
    qd_free(seal);
}

/* ---- requests ---- */

static inline void sign(const world *w, request *q)
{
    char signature[QD_BCE_SIGNATURE_BYTES];
    qd_bce_auth auth = {0};
    qd_buf canonical = {0};
    (void)snprintf(q->authorization, sizeof q->authorization,
                   "bce-auth-v1/%s/2026-04-11T12:00:00Z/300/host;x-bce-date/%064d", w->ak, 0);
    assert_true(qd_bce_parse(q->authorization, &auth));
    assert_true(qd_bce_canonical(&auth, &q->http, &canonical));
    assert_int_equal(qd_bce_signature(&auth, w->secret, &canonical, signature, NULL), QD_OK);
    memcpy(q->authorization + strlen(q->authorization) - 64, signature, 64);
    qd_buf_done(&canonical);
}

/* target: a path with a query, or an action of Qianfan's. body NULL: none. */
static inline void prepare(const world *w, request *q, const char *method, const char *target, const char *body,
                           const char *repeat_key)
{
    bool qianfan = target[0] != '/';
    *q = (request){0};
    (void)snprintf(q->target, sizeof q->target, "%s%s", qianfan ? "/v2/model?Action=" : "", target);
    (void)snprintf(q->body, sizeof q->body, "%s", body == NULL ? "" : body);
    q->http = (qd_http_request){.method = method,
                                .path = q->target,
                                .query = q->query,
                                .headers = q->headers,
                                .body = q->body,
                                .body_bytes = strlen(q->body),
                                .request_id = REQUEST_ID,
                                .from = "127.0.0.1",
                                .now_ms = NOW_MS};
    char *s = strchr(q->target, '?');
    while (s != NULL && q->http.n_query < QUERY_MAX) {
        *s++ = '\0';
        char *value = strchr(s, '='), *next = strchr(s, '&');
        assert_non_null(value);
        *value++ = '\0';
        q->query[q->http.n_query++] = (qd_http_pair){s, value};
        s = next;
    }
    q->headers[q->http.n_headers++] = (qd_http_pair){"Host", "127.0.0.1"};
    q->headers[q->http.n_headers++] = (qd_http_pair){"x-bce-date", "2026-04-11T12:00:00Z"};
    if (repeat_key != NULL) q->headers[q->http.n_headers++] = (qd_http_pair){"Idempotency-Key", repeat_key};
    if (qianfan)
        sign(w, q);
    else
        (void)snprintf(q->authorization, sizeof q->authorization, "Bearer %s", w->bearer);
    q->headers[q->http.n_headers++] = (qd_http_pair){"Authorization", q->authorization};
}

static inline void take_upload(const world *w, const qd_api *api, const qd_caller *c, const request *q,
                               qd_http_reply *ret)
{
    const qd_ask ask = {.caller = c, .request_id = REQUEST_ID, .from = "127.0.0.1", .program = "bailian"};
    const qd_uploaded *files = NULL;
    size_t n = 0;
    qd_upload_body *u = NULL;
    qd_err err = {0};
    if (qd_upload_body_open(w->env.backend, c, 10, "multipart/form-data; boundary=b", &u, &err) != QD_OK) {
        assert_int_equal(err.code, QD_E_NO_MEMORY);
        api->refuse(&q->http, QD_REFUSE_INTERNAL, ret);
        return;
    }
    (void)qd_upload_body_feed(u, q->body, strlen(q->body));
    if (!qd_upload_body_whole(u)) {
        api->refuse(&q->http, QD_REFUSE_MULTIPART, ret);
    } else if (!api->takes_purpose(qd_upload_body_purpose(u))) {
        api->refuse(&q->http, QD_REFUSE_PURPOSE, ret);
    } else {
        qd_upload_body_store(u, &ask, &files, &n);
        api->uploaded(&w->env, c, &q->http, files, n, ret);
    }
    qd_upload_body_close(u);
}

/* As gateway/exchange.c does. */
static inline void answer(const world *w, const request *q, qd_http_reply *ret)
{
    const qd_api *apis[] = {qd_api_bailian(), qd_api_qianfan()};
    qd_caller c = {0};
    *ret = (qd_http_reply){0};
    for (size_t i = 0; i < 2; i++) {
        if (!apis[i]->owns(q->http.path)) continue;
        if (!apis[i]->admit(&w->env, &q->http, &c, ret)) return;
        if (apis[i]->uploaded != NULL && apis[i]->is_upload(&q->http))
            take_upload(w, apis[i], &c, q, ret);
        else
            apis[i]->serve(&w->env, &c, &q->http, ret);
        return;
    }
    fail_msg("%s is nobody's", q->http.path);
}

/* A member by path, "" where there is none; kept in ret. */
static inline const char *member(const qd_http_reply *r, const char *object, const char *name, char ret[QD_ID_BYTES])
{
    json_t *v = json_loadb(r->body.data, r->body.len, 0, NULL);
    const json_t *o = object == NULL ? v : json_object_get(v, object);
    const char *s = json_string_value(json_object_get(o, name));
    (void)snprintf(ret, QD_ID_BYTES, "%s", s == NULL ? "" : s);
    json_decref(v);
    return ret;
}

/* The whole answer, or a failure that says so. True: it is the answer. */
static inline bool is_answer(const qd_http_reply *r)
{
    char code[QD_ID_BYTES];
    if (r->status == 0 || r->body.failed) return false; /* the server makes it a 500 */
    if (r->status == 200) return true;
    if (r->status != 500 && r->status != 503) fail_msg("status %d: %s", r->status, r->body.data);
    if (r->body.len != 0 && strcmp(r->body.data, "{}") != 0)
        assert_true(strncmp(member(r, NULL, "code", code), "Internal", 8) == 0);
    return false;
}

#endif
