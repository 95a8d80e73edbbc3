/* Uploads, logs and models through the backend. */
#include "tests/unit/backend/rig.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>

static qd_code upload(rig *r, const char *tenant, const char *name, const char *data, qd_file_meta **ret)
{
    const qd_backend_ops *ops = r->gate[0]->ops;
    const qd_caller c = rig_caller(tenant);
    const qd_ask ask = {.caller = &c};
    qd_upload *u = NULL;
    qd_file_meta *m = NULL;
    qd_code rc = ops->upload_begin(r->gate[0]->ctx, &c, name, &u, NULL);
    if (rc != QD_OK) return rc;
    for (const char *p = data; rc == QD_OK && *p != '\0'; p++) rc = ops->upload_write(r->gate[0]->ctx, u, p, 1, NULL);
    if (rc != QD_OK) {
        ops->upload_drop(r->gate[0]->ctx, u);
        return rc;
    }
    rc = ops->upload_end(r->gate[0]->ctx, u, &ask, "fine-tune", "about it", &m, NULL);
    if (ret != NULL)
        *ret = m;
    else
        qd_msg_free(m);
    return rc;
}

static int n_in(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    if (d == NULL) return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    (void)closedir(d);
    return n;
}

static void a_file_is_stored_found_listed_and_deleted(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    const qd_backend_ops *ops = r->gate[0]->ops;
    const qd_caller c = rig_caller("acme"), other = rig_caller("zeta");
    const qd_ask ask = {.caller = &c}, theirs = {.caller = &other};
    qd_file_meta *m = NULL, *again = NULL;
    qd_file_page page = {0};
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(upload(r, "acme", "chats 量.jsonl", "hello", &m), QD_OK);
    assert_string_equal(m->md5, "5d41402abc4b2a76b9719d911017c592");
    assert_int_equal(m->size_bytes, 5);
    assert_string_equal(m->name, "chats 量.jsonl");
    assert_int_equal(strlen(m->id), 37);
    assert_true(qd_str_ends(m->path, ".jsonl")); /* by which a worker knows what it is */
    assert_int_equal(qd_file_read(m->path, 100, &text, &n, NULL), QD_OK);
    assert_string_equal(text, "hello");
    qd_free(text);
    assert_int_equal(ops->file_get(r->gate[0]->ctx, &c, m->id, &again, NULL), QD_OK);
    qd_msg_free(again);
    assert_int_equal(ops->file_get(r->gate[0]->ctx, &other, m->id, &again, NULL), QD_E_NOT_FOUND);
    assert_int_equal(ops->file_delete(r->gate[0]->ctx, &theirs, m->id, NULL), QD_E_NOT_FOUND);
    assert_int_equal(upload(r, "acme", "b.txt", "x", NULL), QD_OK);
    assert_int_equal(ops->file_list(r->gate[0]->ctx, &c, 0, 10, &page, NULL), QD_OK);
    assert_int_equal(page.n, 2);
    qd_file_page_done(&page);
    assert_int_equal(ops->file_list(r->gate[0]->ctx, &c, 1, 10, &page, NULL), QD_OK);
    assert_int_equal(page.n, 1);
    assert_int_equal(page.total, 2);
    qd_file_page_done(&page);
    assert_int_equal(ops->file_list(r->gate[0]->ctx, &other, 0, 10, &page, NULL), QD_OK);
    assert_int_equal(page.total, 0);
    qd_file_page_done(&page);
    rig_stop(r, 0);
    rig_start(r, 0); /* nothing of it was this process's only */
    assert_int_equal(r->gate[0]->ops->file_get(r->gate[0]->ctx, &c, m->id, &again, NULL), QD_OK);
    qd_msg_free(again);
    assert_int_equal(r->gate[0]->ops->file_delete(r->gate[0]->ctx, &ask, m->id, NULL), QD_OK);
    assert_false(qd_path_exists(m->path));
    assert_int_equal(r->gate[0]->ops->file_get(r->gate[0]->ctx, &c, m->id, &again, NULL), QD_E_NOT_FOUND);
    assert_int_equal(r->gate[0]->ops->file_delete(r->gate[0]->ctx, &ask, m->id, NULL), QD_E_NOT_FOUND);
    qd_msg_free(m);
    rig_free(r);
}

static void what_is_too_much_is_refused_and_leaves_nothing(void **state)
{
    (void)state;
    rig *r = rig_new(0);
    char dir[128];
    qd_file_meta *m = NULL;
    r->cfg.file_bytes_max = 10;
    r->cfg.storage_bytes_max = 15;
    rig_start(r, 0);
    (void)snprintf(dir, sizeof dir, "%s/acme", r->files);
    assert_int_equal(upload(r, "acme", "a", "01234567890", NULL), QD_E_TOO_LARGE);
    assert_int_equal(n_in(dir), 0);
    assert_int_equal(upload(r, "acme", "a", "0123456789", &m), QD_OK);
    assert_int_equal(upload(r, "acme", "b", "012345", NULL), QD_E_FULL);
    assert_int_equal(n_in(dir), 1);
    assert_int_equal(upload(r, "zeta", "b", "012345", NULL), QD_OK);
    assert_int_equal(upload(r, "acme", "b", "01234", NULL), QD_OK);
    assert_int_equal(upload(r, "acme", "c", "0", NULL), QD_E_FULL);
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    assert_int_equal(r->gate[0]->ops->file_delete(r->gate[0]->ctx, &ask, m->id, NULL), QD_OK);
    assert_int_equal(upload(r, "acme", "c", "0", NULL), QD_OK); /* room was given back */
    qd_msg_free(m);
    static const char *const bad[] = {"", ".", "..", "a/b", "../x", "a\nb", "\xff", "/etc/passwd"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(upload(r, "acme", bad[i], "0", NULL), QD_E_INPUT);
    rig_stop(r, 0);
    r->cfg.disk_free_bytes = UINT64_MAX / 2;
    rig_start(r, 0);
    assert_int_equal(upload(r, "acme", "d", "0", NULL), QD_E_ROOM);
    rig_free(r);
}

static void files_are_counted_whatever_their_size(void **state)
{
    (void)state;
    rig *r = rig_new(0);
    qd_file_meta *m = NULL;
    r->cfg.files_max = 2;
    rig_start(r, 0);
    const qd_backend_ops *ops = r->gate[0]->ops;
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    qd_upload *first = NULL, *second = NULL;
    assert_int_equal(upload(r, "acme", "a", "", &m), QD_OK);
    assert_int_equal(ops->upload_begin(r->gate[0]->ctx, &c, "b", &first, NULL), QD_OK);
    assert_int_equal(ops->upload_begin(r->gate[0]->ctx, &c, "c", &second, NULL), QD_E_FULL); /* those under way too */
    assert_int_equal(upload(r, "zeta", "a", "", NULL), QD_OK);
    ops->upload_drop(r->gate[0]->ctx, first);
    assert_int_equal(upload(r, "acme", "b", "", NULL), QD_OK);
    assert_int_equal(upload(r, "acme", "c", "", NULL), QD_E_FULL);
    rig_stop(r, 0);
    rig_start(r, 0);
    assert_int_equal(upload(r, "acme", "c", "", NULL), QD_E_FULL);
    assert_int_equal(r->gate[0]->ops->file_delete(r->gate[0]->ctx, &ask, m->id, NULL), QD_OK);
    assert_int_equal(upload(r, "acme", "c", "", NULL), QD_OK);
    qd_msg_free(m);
    rig_free(r);
}

static void a_full_disk_is_full_and_leaves_nothing(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    char dir[128];
    (void)snprintf(dir, sizeof dir, "%s/acme", r->files);
    static const qd_fault_kind kinds[] = {QD_FAULT_WRITE, QD_FAULT_SYNC, QD_FAULT_RENAME};
    for (size_t i = 0; i < 3; i++) {
        qd_fault_arm(kinds[i], 1, ENOSPC);
        assert_int_equal(upload(r, "acme", "a", "data", NULL), QD_E_ROOM);
        qd_fault_arm(kinds[i], 0, 0);
        assert_int_equal(n_in(dir), 0);
    }
    rig_free(r);
}

static void make_old(const char *path, time_t age_s)
{
    const struct timespec times[2] = {{.tv_sec = time(NULL) - age_s}, {.tv_sec = time(NULL) - age_s}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void what_uploads_leave_behind_is_swept_in_time(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    char dir[128], orphan[256], fresh[256], part[256];
    qd_file_meta *m = NULL;
    assert_int_equal(upload(r, "acme", "a.txt", "data", &m), QD_OK);
    (void)snprintf(dir, sizeof dir, "%s/acme", r->files);
    (void)snprintf(orphan, sizeof orphan, "%s/file-0123456789abcdef0123456789abcdef.txt", dir);
    (void)snprintf(fresh, sizeof fresh, "%s/file-f123456789abcdef0123456789abcdef.txt", dir);
    (void)snprintf(part, sizeof part, "%s/.file-0123456789abcdef0123456789abcdef.part", dir);
    assert_int_equal(qd_file_replace(orphan, "x", 1, NULL), QD_OK);
    assert_int_equal(qd_file_replace(fresh, "x", 1, NULL), QD_OK);
    assert_int_equal(qd_file_replace(part, "x", 1, NULL), QD_OK);
    make_old(orphan, 4000);
    make_old(m->path, 400000);
    make_old(part, 4000);
    qd_files_sweep(rig_inside(r, 0));
    assert_false(qd_path_exists(orphan));
    assert_true(qd_path_exists(fresh)); /* its record may be under way */
    assert_true(qd_path_exists(part));
    assert_true(qd_path_exists(m->path));
    make_old(part, 100000);
    qd_files_sweep(rig_inside(r, 0));
    assert_false(qd_path_exists(part));
    qd_msg_free(m);
    rig_free(r);
}

static void a_record_in_doubt_is_away_and_keeps_the_file(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    char dir[128];
    (void)snprintf(dir, sizeof dir, "%s/acme", r->files);
    rig_lose(r, LOSE_ALL, 0);
    assert_int_equal(upload(r, "acme", "a", "data", NULL), QD_E_AWAY);
    rig_lose(r, LOSE_NOTHING, 0);
    assert_int_equal(n_in(dir), 1);
    for (int at = 0; at < 3; at++)
        for (int what = LOSE_REQUEST; what <= LOSE_REPLY; what++) {
            rig_lose(r, (loss)what, at);
            assert_int_equal(upload(r, "acme", "a", "data", NULL), QD_OK);
        }
    rig_free(r);
}

/* Logs. */

static void send(rig *r, const char *id, const char *worker, uint64_t epoch, uint64_t first, int n)
{
    char subject[QD_SUBJECT_BYTES], text[32];
    qd_buf b = {0};
    qd_bus_puback ack;
    qd_event_batch *e = qd_event_batch_new();
    assert_int_equal(qd_text_set(&e->job_id, id, NULL), QD_OK);
    assert_int_equal(qd_text_set(&e->worker, worker, NULL), QD_OK);
    e->epoch = epoch;
    e->first_line = first;
    for (int i = 0; i < n; i++) {
        qd_log_line *l = qd_log_line_new();
        (void)snprintf(text, sizeof text, "line %d", (int)first + i);
        l->level = QUANTD__LOG_LEVEL__LOG_WARN;
        assert_int_equal(qd_text_set(&l->text, text, NULL), QD_OK);
        assert_int_equal(qd_list_add(&e->lines, &e->n_lines, l, NULL), QD_OK);
    }
    assert_int_equal(qd_event_batch_encode(e, &b, NULL), QD_OK);
    assert_int_equal(qd_subject_event(id, worker, subject, NULL), QD_OK);
    const qd_bus_pub p = {.subject = subject, .data = b.data, .bytes = b.len, .expect_subject_seq = QD_REV_ANY};
    assert_int_equal(qd_bus_publish(r->bus, &p, &ack, NULL), QD_OK);
    qd_buf_done(&b);
    qd_msg_free(e);
}

/* The record as a worker would leave it. */
static void change(rig *r, const char *id, uint64_t epoch, uint64_t log_lines)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_job_record *rec = NULL;
    qd_buf b = {0};
    assert_int_equal(qd_key(QD_KEY_JOB, id, key, NULL), QD_OK);
    assert_int_equal(qd_bus_kv_get(r->bus, QD_BUCKET_JOBS, key, &m, NULL), QD_OK);
    assert_int_equal(qd_job_record_decode(m.data, m.bytes, &rec, NULL), QD_OK);
    rec->state = log_lines != 0 ? QD_JOB_SUCCEEDED : QD_JOB_RUNNING;
    rec->epoch = epoch;
    rec->log_lines = log_lines;
    assert_int_equal(qd_job_record_encode(rec, &b, NULL), QD_OK);
    assert_int_equal(qd_bus_kv_put(r->bus, QD_BUCKET_JOBS, key, b.data, b.len, m.seq, NULL, NULL), QD_OK);
    qd_buf_done(&b);
    qd_msg_free(rec);
    qd_bus_msg_done(&m);
}

static void lines(rig *r, const char *id, uint64_t offset, size_t n, uint64_t total, size_t got, const char *first)
{
    const qd_caller c = rig_caller("acme");
    qd_log_page p = {0};
    qd_err err = {0};
    if (r->gate[0]->ops->job_logs(r->gate[0]->ctx, &c, QUANTD__API_ORIGIN__API_BAILIAN, id, offset, n, &p, &err) !=
        QD_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(p.total, total);
    assert_int_equal(p.n, got);
    if (got != 0) assert_true(qd_str_ends(p.lines[0], first));
    qd_log_page_done(&p);
}

static void a_log_is_read_live_and_after_the_end(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    char id[QD_ID_BYTES], path[300];
    qd_job_record *rec = NULL;
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, id), QD_OK);
    lines(r, id, 0, 10, 0, 0, "");
    send(r, id, "w1", 1, 1, 5);
    change(r, id, 2, 0);
    lines(r, id, 0, 10, 0, 0, ""); /* of an epoch that was fenced */
    send(r, id, "w2", 2, 1, 3);
    send(r, id, "w2", 2, 2, 3); /* two of them twice */
    send(r, id, "w1", 1, 6, 3);
    lines(r, id, 0, 10, 4, 4, " - WARN - line 1");
    lines(r, id, 2, 1, 4, 1, " - WARN - line 3");
    lines(r, id, 9, 5, 4, 0, "");
    change(r, id, 2, 3); /* stored, but not to be found here */
    lines(r, id, 0, 10, 4, 4, " - WARN - line 1");
    assert_int_equal(rig_get_job(r, 0, "acme", id, &rec), QD_OK);
    assert_int_equal(mkdir(rec->spec->output_path, 0755), 0);
    (void)snprintf(path, sizeof path, "%s/quantd.log", rec->spec->output_path);
    assert_int_equal(qd_file_replace(path, "one\n##FT_COMPLETE##\ntwo \xff\nthree", 31, NULL), QD_OK);
    lines(r, id, 0, 10, 3, 3, "one");
    lines(r, id, 1, 1, 3, 1, "two ?");
    lines(r, id, 2, 5, 3, 1, "three");
    qd_msg_free(rec);
    rig_free(r);
}

static void models_are_those_one_may_see(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    const qd_backend_ops *ops = r->gate[0]->ops;
    const qd_caller acme = rig_caller("acme"), zeta = rig_caller("zeta");
    char dir[128];
    qd_models *m = NULL, *old = NULL;
    assert_int_equal(ops->models(r->gate[0]->ctx, &acme, &old, NULL), QD_OK);
    assert_int_equal(old->n, 1);
    (void)snprintf(dir, sizeof dir, "%s/made.ft-1", r->output);
    assert_int_equal(mkdir(dir, 0755), 0);
    const qd_model made = {
        .id = "small-ft-1", .base_model = "small", .owner = "acme", .job = "ft-1", .kind = QD_MODEL_QUANTIZED};
    assert_int_equal(qd_model_write(dir, &made, NULL), QD_OK);
    qd_backend_reload(r->gate[0]);
    assert_int_equal(ops->models(r->gate[0]->ctx, &acme, &m, NULL), QD_OK);
    assert_int_equal(m->n, 2);
    assert_string_equal(m->items[1].id, "small-ft-1");
    assert_int_equal(m->items[1].kind, QD_MODEL_QUANTIZED);
    assert_string_equal(m->items[1].job, "ft-1");
    ops->models_drop(r->gate[0]->ctx, m);
    assert_int_equal(ops->models(r->gate[0]->ctx, &zeta, &m, NULL), QD_OK);
    assert_int_equal(m->n, 1);
    assert_string_equal(m->items[0].id, "small");
    ops->models_drop(r->gate[0]->ctx, m);
    assert_string_equal(old->items[0].id, "small"); /* of its moment */
    ops->models_drop(r->gate[0]->ctx, old);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_stored_found_listed_and_deleted),
        cmocka_unit_test(what_is_too_much_is_refused_and_leaves_nothing),
        cmocka_unit_test(files_are_counted_whatever_their_size),
        cmocka_unit_test(a_full_disk_is_full_and_leaves_nothing),
        cmocka_unit_test(what_uploads_leave_behind_is_swept_in_time),
        cmocka_unit_test(a_record_in_doubt_is_away_and_keeps_the_file),
        cmocka_unit_test(a_log_is_read_live_and_after_the_end),
        cmocka_unit_test(models_are_those_one_may_see),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
