/* Whichever allocation, read, write, sync or rename fails while a request of either API is answered, the answer is the
 * right one or a clean 500 or 503; no job and no file is lost, made twice or left half done; and asked again it is
 * answered.
 *
 * The gateway's follower is kept still meanwhile, so that the n-th call is the request's own. */
#include "tests/unit/backend/world.h"

enum {
    CALLS_MAX = 20000 /* of a request: more is a loop */
};

/* ---- what is asked, and what must hold afterwards ---- */

typedef struct shape {
    const char *name;
    void (*make)(world *w, request *q); /* with what it needs */
    /* NULL: a whole answer is that of an untroubled request. */
    void (*check)(world *w, const request *q, const qd_http_reply *r);
} shape;

static void ask_again(const world *w, const request *q, qd_http_reply *ret)
{
    answer(w, q, ret);
    if (ret->status != 200) fail_msg("asked again: %d %s", ret->status, ret->body.data);
}

/* How many jobs the bus has. */
static qd_code count_one(void *arg, const qd_bus_msg *m, qd_err *err)
{
    (void)m;
    (void)err;
    ++*(size_t *)arg;
    return QD_OK;
}

static size_t n_keys(world *w, const char *bucket, const char *filter)
{
    size_t n = 0;
    assert_int_equal(qd_bus_kv_list(w->r->bus, bucket, filter, count_one, &n, NULL), QD_OK);
    return n;
}

static char t_key[64], t_id[QD_ID_BYTES];
static size_t t_before;

static void make_create(world *w, request *q, bool qianfan, bool repeats)
{
    char body[BODY_BYTES];
    (void)snprintf(t_key, sizeof t_key, "key-%d", ++w->round);
    if (qianfan)
        (void)snprintf(
            body, sizeof body,
            "{\"name\":\"n%d\",\"description\":\"d\",\"sourceModelId\":\"%s\",\"modelSetId\":\"%s\",\"config\":{"
            "\"strategy\":\"Quantization\",\"weight\":\"nvfp4-w4a4\"}}",
            w->round, w->model, w->set);
    else
        (void)snprintf(
            body, sizeof body,
            "{\"model\":\"small\",\"template_id\":\"nvfp4-w4a4\",\"job_name\":\"n%d\",\"job_description\":\"d\","
            "\"output_model_suffix\":\"x\",\"hyper_parameters\":{\"calib_samples\":8},"
            "\"custom_calibration_file_ids\":[\"%s\"]}",
            w->round, w->file);
    if (!repeats && !qianfan) { /* the model is looked at anew */
        char path[160];
        const struct timespec times[2] = {{.tv_sec = w->round}, {.tv_sec = w->round}};
        (void)snprintf(path, sizeof path, "%s/small/config.json", w->r->models);
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    }
    t_before = n_keys(w, QD_BUCKET_JOBS, QD_KEYS_JOBS);
    prepare(w, q, "POST", qianfan ? "CreateModelCompTask" : ROOT "/jobs", body, repeats ? t_key : NULL);
}

static void remove_job(world *w, Quantd__ApiOrigin origin, const char *id)
{
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    assert_int_equal(ops(w)->job_cancel(ctx(w), &ask, origin, id, NULL), QD_OK);
    assert_int_equal(ops(w)->job_delete(ctx(w), &ask, origin, id, NULL), QD_OK);
    assert_null(record_of(w, id, NULL));
}

static const char *id_of(const qd_http_reply *r, bool qianfan, char ret[QD_ID_BYTES])
{
    return qianfan ? member(r, NULL, "result", ret) : member(r, "output", "job_id", ret);
}

/* The job has the name that it was made with. */
static void check_name(world *w, const char *id)
{
    char name[32], key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    (void)snprintf(name, sizeof name, "n%d", w->round);
    assert_int_equal(qd_key_name("acme", name, key, NULL), QD_OK);
    assert_int_equal(qd_bus_kv_get(w->r->bus, QD_BUCKET_JOBS, key, &m, NULL), QD_OK);
    assert_int_equal(m.bytes, strlen(id));
    assert_memory_equal(m.data, id, m.bytes);
    qd_bus_msg_done(&m);
}

/* The same request again is answered with the one job there is. */
static void check_repeated(world *w, const request *q, const qd_http_reply *r)
{
    bool qianfan = q->http.n_query != 0;
    char first[QD_ID_BYTES] = "", id[QD_ID_BYTES];
    qd_http_reply again;
    if (is_answer(r)) (void)id_of(r, qianfan, first);
    ask_again(w, q, &again);
    (void)id_of(&again, qianfan, id);
    if (first[0] != '\0') assert_string_equal(id, first);
    assert_int_equal(n_keys(w, QD_BUCKET_JOBS, QD_KEYS_JOBS), t_before + 1);
    qd_http_reply_done(&again);
    if (!qianfan) check_name(w, id);
    remove_job(w, qianfan ? QUANTD__API_ORIGIN__API_QIANFAN : QUANTD__API_ORIGIN__API_BAILIAN, id);
}

static qd_code find_new(void *arg, const qd_bus_msg *m, qd_err *err)
{
    const world *w = arg;
    const char *id = m->key + 4; /* "job." */
    (void)err;
    if (strcmp(id, w->done_job) != 0 && strcmp(id, w->live_job) != 0) (void)snprintf(t_id, sizeof t_id, "%s", id);
    return QD_OK;
}

/* Without a key: the job that was answered, or at most one that nobody was told of; it is whole. */
static void check_single(world *w, const request *q, const qd_http_reply *r)
{
    bool qianfan = q->http.n_query != 0;
    char id[QD_ID_BYTES];
    size_t more = n_keys(w, QD_BUCKET_JOBS, QD_KEYS_JOBS) - t_before;
    assert_true(more <= 1);
    t_id[0] = '\0';
    assert_int_equal(qd_bus_kv_list(w->r->bus, QD_BUCKET_JOBS, QD_KEYS_JOBS, find_new, w, NULL), QD_OK);
    if (is_answer(r)) {
        assert_int_equal(more, 1);
        assert_string_equal(id_of(r, qianfan, id), t_id);
    }
    if (more == 0) return;
    if (!qianfan) check_name(w, t_id);
    remove_job(w, qianfan ? QUANTD__API_ORIGIN__API_QIANFAN : QUANTD__API_ORIGIN__API_BAILIAN, t_id);
}

static void make_bailian_create(world *w, request *q)
{
    make_create(w, q, false, false);
}
static void make_bailian_repeated(world *w, request *q)
{
    make_create(w, q, false, true);
}
static void make_qianfan_create(world *w, request *q)
{
    make_create(w, q, true, false);
}
static void make_qianfan_repeated(world *w, request *q)
{
    make_create(w, q, true, true);
}

static void make_cancel(world *w, request *q)
{
    char target[128];
    make_job(w, QUANTD__API_ORIGIN__API_BAILIAN, t_id);
    (void)snprintf(target, sizeof target, ROOT "/jobs/%s/cancel", t_id);
    prepare(w, q, "POST", target, NULL, NULL);
}
static void make_qianfan_cancel(world *w, request *q)
{
    char body[128];
    make_job(w, QUANTD__API_ORIGIN__API_QIANFAN, t_id);
    (void)snprintf(body, sizeof body, "{\"modelCompTaskId\":\"%s\"}", t_id);
    prepare(w, q, "POST", "CancelModelCompTask", body, NULL);
}

/* Answered: it is canceled; else it is or is not, and is after the next time. */
static void check_canceled(world *w, const request *q, const qd_http_reply *r)
{
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    Quantd__ApiOrigin origin = q->http.n_query != 0 ? QUANTD__API_ORIGIN__API_QIANFAN : QUANTD__API_ORIGIN__API_BAILIAN;
    qd_job_record *rec = record_of(w, t_id, NULL);
    assert_non_null(rec);
    if (is_answer(r)) assert_int_equal(rec->state, QD_JOB_CANCELED);
    qd_msg_free(rec);
    assert_int_equal(ops(w)->job_cancel(ctx(w), &ask, origin, t_id, NULL), QD_OK);
    rec = record_of(w, t_id, NULL);
    assert_int_equal(rec->state, QD_JOB_CANCELED);
    qd_msg_free(rec);
    assert_int_equal(ops(w)->job_delete(ctx(w), &ask, origin, t_id, NULL), QD_OK);
}

static void make_canceled(world *w, Quantd__ApiOrigin origin)
{
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    make_job(w, origin, t_id);
    assert_int_equal(ops(w)->job_cancel(ctx(w), &ask, origin, t_id, NULL), QD_OK);
}
static void make_delete(world *w, request *q)
{
    char target[128];
    make_canceled(w, QUANTD__API_ORIGIN__API_BAILIAN);
    (void)snprintf(target, sizeof target, ROOT "/jobs/%s", t_id);
    prepare(w, q, "DELETE", target, NULL, NULL);
}
static void make_qianfan_delete(world *w, request *q)
{
    char body[128];
    make_canceled(w, QUANTD__API_ORIGIN__API_QIANFAN);
    (void)snprintf(body, sizeof body, "{\"modelCompTaskId\":\"%s\"}", t_id);
    prepare(w, q, "POST", "DeleteModelCompTask", body, NULL);
}
static void check_deleted(world *w, const request *q, const qd_http_reply *r)
{
    qd_http_reply again;
    qd_job_record *rec = record_of(w, t_id, NULL);
    bool there = rec != NULL;
    qd_msg_free(rec);
    if (is_answer(r)) assert_false(there);
    answer(w, q, &again);
    assert_int_equal(again.status, there ? 200 : 404);
    qd_http_reply_done(&again);
    assert_null(record_of(w, t_id, NULL));
}

static void make_upload(world *w, request *q)
{
    prepare(w, q, "POST", "/api/v1/files",
            "--b\r\nContent-Disposition: form-data; name=\"files\"; filename=\"c.jsonl\"\r\n\r\n{\"text\":1}\r\n"
            "--b\r\nContent-Disposition: form-data; name=\"descriptions\"\r\n\r\nabout it\r\n"
            "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--b--\r\n",
            NULL);
    t_before = n_keys(w, QD_BUCKET_ACCESS, "file.>");
}

static int n_in(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) n += e->d_name[0] != '.';
    (void)closedir(d);
    return n;
}

/* A record and a file, or neither; parts are gone. Its room is given back when it is deleted. */
static void check_uploaded(world *w, const request *q, const qd_http_reply *r)
{
    char dir[128], id[QD_ID_BYTES] = "";
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    size_t n = n_keys(w, QD_BUCKET_ACCESS, "file.>");
    (void)q;
    (void)snprintf(dir, sizeof dir, "%s/acme", w->r->files);
    assert_int_equal(n_in(dir), n);
    assert_true(n <= t_before + 1);
    if (r->status == 400) /* the fields of a form that could not be kept */
        assert_int_equal(n, t_before);
    else if (is_answer(r)) {
        json_t *v = json_loadb(r->body.data, r->body.len, 0, NULL);
        const json_t *data = json_object_get(v, "data"), *taken = json_object_get(data, "uploaded_files");
        assert_int_equal(json_array_size(taken) + json_array_size(json_object_get(data, "failed_uploads")), 1);
        assert_int_equal(json_array_size(taken), n - t_before);
        json_decref(v);
    }
    qd_file_page page = {0};
    still(w, false);
    do {
        qd_file_page_done(&page);
        (void)usleep(200);
        assert_int_equal(ops(w)->file_list(ctx(w), &c, 0, 10, &page, NULL), QD_OK);
    } while (page.total != n);
    for (size_t i = 0; i < page.n; i++)
        if (strcmp(page.files[i]->id, w->file) != 0) (void)snprintf(id, sizeof id, "%s", page.files[i]->id);
    qd_file_page_done(&page);
    if (id[0] != '\0') assert_int_equal(ops(w)->file_delete(ctx(w), &ask, id, NULL), QD_OK);
}

static void make_file_delete(world *w, request *q)
{
    char target[128];
    store_file(w, t_id);
    (void)snprintf(target, sizeof target, "/api/v1/files/%s", t_id);
    prepare(w, q, "DELETE", target, NULL, NULL);
}
static void check_file_deleted(world *w, const request *q, const qd_http_reply *r)
{
    char dir[128];
    qd_http_reply again;
    bool there = n_keys(w, QD_BUCKET_ACCESS, "file.>") == 2;
    (void)snprintf(dir, sizeof dir, "%s/acme", w->r->files);
    if (is_answer(r)) assert_false(there);
    answer(w, q, &again);
    assert_int_equal(again.status, there ? 200 : 400);
    qd_http_reply_done(&again);
    assert_int_equal(n_keys(w, QD_BUCKET_ACCESS, "file.>"), 1);
    assert_int_equal(n_in(dir), 1);
}

#define GET(fn, ...)                                    \
    static void fn(world *w, request *q)                \
    {                                                   \
        char text[256];                                 \
        (void)snprintf(text, sizeof text, __VA_ARGS__); \
        prepare(w, q, "GET", text, NULL, NULL);         \
    }
#define ACTION(fn, action, ...)                         \
    static void fn(world *w, request *q)                \
    {                                                   \
        char text[256];                                 \
        (void)snprintf(text, sizeof text, __VA_ARGS__); \
        prepare(w, q, "POST", action, text, NULL);      \
    }
GET(get_templates, ROOT "/templates?page_no=1")
GET(get_job, ROOT "/jobs/%s", w->done_job)
GET(get_jobs, ROOT "/jobs?status=SUCCEEDED&job_name=%s", w->done_job)
GET(get_log_of_file, ROOT "/jobs/%s/logs", w->done_job)
GET(get_log_of_events, ROOT "/jobs/%s/logs?line=10", w->live_job)
GET(get_files, "/api/v1/files?page_no=1")
GET(get_file, "/api/v1/files/%s", w->file)
ACTION(get_tasks, "DescribeModelCompTasks", "{\"maxKeys\":10}")
ACTION(get_task, "DescribeModelCompTask", "{\"modelCompTaskId\":\"%s\"}", t_id)
ACTION(get_model, "DescribeModel", "{\"modelId\":\"%s\"}", w->model)
ACTION(get_set, "DescribeModelSet", "{\"modelSetId\":\"%s\"}", w->set)
ACTION(get_sets, "DescribeCustomModelSets", "{\"maxKeys\":%d}", 10)

static const shape k_reads[] = {
    {"templates", get_templates, NULL},
    {"job", get_job, NULL},
    {"jobs", get_jobs, NULL},
    {"log of a file", get_log_of_file, NULL},
    {"log of events", get_log_of_events, NULL},
    {"files", get_files, NULL},
    {"file", get_file, NULL},
    {"tasks", get_tasks, NULL},
    {"task", get_task, NULL},
    {"model", get_model, NULL},
    {"set", get_set, NULL},
    {"sets", get_sets, NULL},
};
static const shape k_creates[] = {
    {"create", make_bailian_create, check_single},
    {"create, repeated", make_bailian_repeated, check_repeated},
    {"create a task", make_qianfan_create, check_single},
    {"create a task, repeated", make_qianfan_repeated, check_repeated},
};
static const shape k_changes[] = {
    {"cancel", make_cancel, check_canceled},
    {"cancel a task", make_qianfan_cancel, check_canceled},
    {"delete", make_delete, check_deleted},
    {"delete a task", make_qianfan_delete, check_deleted},
};
static const shape k_files[] = {
    {"upload", make_upload, check_uploaded},
    {"delete a file", make_file_delete, check_file_deleted},
};

/* ---- each call of each kind fails once ---- */

static const char *t_shape;
static unsigned long t_n;
static int t_kind;

static void where_it_failed(void)
{
    if (t_shape != NULL) (void)fprintf(stderr, "while failure %lu of kind %d was met by: %s\n", t_n, t_kind, t_shape);
}

static unsigned long each_failure(world *w, const shape *s, qd_fault_kind kind, int sys_errno)
{
    unsigned long seen = 1, n = 1;
    qd_http_reply whole = {0};
    request q;
    t_shape = s->name;
    t_kind = (int)kind;
    if (s->check == NULL) {
        s->make(w, &q);
        ask_again(w, &q, &whole);
    }
    for (; n <= seen && n < CALLS_MAX; n++) {
        qd_http_reply r;
        t_n = n;
        s->make(w, &q);
        still(w, true);
        qd_fault_arm(kind, n, sys_errno);
        answer(w, &q, &r);
        seen = qd_fault_count(kind);
        qd_fault_arm(kind, 0, 0);
        if (s->check != NULL)
            s->check(w, &q, &r);
        else if (is_answer(&r))
            assert_string_equal(r.body.data, whole.body.data);
        still(w, false);
        qd_http_reply_done(&r);
    }
    assert_true(n < CALLS_MAX);
    qd_http_reply_done(&whole);
    t_shape = NULL;
    return n - 1;
}

static void all_of(const shape *shapes, size_t n)
{
    world w;
    world_begin(&w);
    make_job(&w, QUANTD__API_ORIGIN__API_QIANFAN, t_id);
    bool reads = shapes == k_reads;
    if (!reads) remove_job(&w, QUANTD__API_ORIGIN__API_QIANFAN, t_id);
    for (size_t i = 0; i < n; i++) {
        unsigned long met = each_failure(&w, &shapes[i], QD_FAULT_ALLOC, ENOMEM);
        assert_true(met >= 3);
        (void)each_failure(&w, &shapes[i], QD_FAULT_READ, EIO);
        (void)each_failure(&w, &shapes[i], QD_FAULT_WRITE, ENOSPC);
        (void)each_failure(&w, &shapes[i], QD_FAULT_SYNC, EIO);
        (void)each_failure(&w, &shapes[i], QD_FAULT_RENAME, EIO);
    }
    world_end(&w);
}

static void whatever_is_read(void **state)
{
    (void)state;
    all_of(k_reads, sizeof k_reads / sizeof k_reads[0]);
}

static void whatever_is_made(void **state)
{
    (void)state;
    all_of(k_creates, sizeof k_creates / sizeof k_creates[0]);
}

static void whatever_is_changed(void **state)
{
    (void)state;
    all_of(k_changes, sizeof k_changes / sizeof k_changes[0]);
}

static void whatever_is_stored(void **state)
{
    (void)state;
    all_of(k_files, sizeof k_files / sizeof k_files[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_is_read),
        cmocka_unit_test(whatever_is_made),
        cmocka_unit_test(whatever_is_changed),
        cmocka_unit_test(whatever_is_stored),
    };
    qd_json_use_qd_memory();
    (void)atexit(where_it_failed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
