/* gateway_fake.c -- the gateway's server over an API and a bus in memory, for test_gateway_http.py and the fuzzing of
 * its sockets: gateway_fake [key=value]... Prints its ports, then obeys lines on stdin:
 *   state NAME EPOCH          the record of job j1
 *   lines EPOCH FIRST N       a batch of log lines "line <number>"
 *   last EPOCH                a batch that says that it is the last one
 *   progress EPOCH PERMILLE
 *   delete                    the record
 *   fault N                   the N-th allocation from now on fails; 0: none
 *   end                       stops gracefully */
#include "base/fault.h"
#include "base/json.h"
#include "base/mem.h"
#include "bus/bus_mem.h"
#include "gateway/server.h"
#include "proto/subject.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    STEP_MS = 20,
    SLOW_MS = 300,
    FILES_MAX = 3,
    FILE_BYTES_MAX = 100000
};

struct qd_upload {
    char name[QD_NAME_MAX + 1];
    uint64_t bytes, sum;
};

static int g_open; /* uploads that are neither stored nor dropped: only the test's eyes */

/* ---- backend: uploads only */
static qd_code upload_begin(void *ctx, const qd_caller *c, const char *name, qd_upload **ret, qd_err *err)
{
    (void)ctx;
    (void)c;
    if (strcmp(name, "refused") == 0) return qd_fail(err, QD_E_FULL, "no room");
    *ret = qd_calloc(1, sizeof **ret);
    if (*ret == NULL) return qd_fail(err, QD_E_NO_MEMORY, "memory");
    (void)snprintf((*ret)->name, sizeof(*ret)->name, "%s", name);
    (void)__atomic_add_fetch(&g_open, 1, __ATOMIC_SEQ_CST);
    return QD_OK;
}

static qd_code upload_write(void *ctx, qd_upload *u, const void *data, size_t n, qd_err *err)
{
    (void)ctx;
    u->bytes += n;
    for (size_t i = 0; i < n; i++) u->sum = u->sum * 31 + ((const uint8_t *)data)[i];
    if (u->bytes > FILE_BYTES_MAX) return qd_fail(err, QD_E_TOO_LARGE, "larger than %d bytes", FILE_BYTES_MAX);
    return QD_OK;
}

static void upload_drop(void *ctx, qd_upload *u)
{
    (void)ctx;
    (void)__atomic_sub_fetch(&g_open, 1, __ATOMIC_SEQ_CST);
    qd_free(u);
}

static qd_code upload_end(void *ctx, qd_upload *u, const qd_ask *a, const char *purpose, const char *description,
                          qd_file_meta **ret, qd_err *err)
{
    char md5[32];
    qd_code rc = QD_OK;
    qd_file_meta *m = qd_file_meta_new();
    (void)a;
    (void)snprintf(md5, sizeof md5, "%016" PRIx64, u->sum);
    if (m == NULL) rc = qd_fail(err, QD_E_NO_MEMORY, "memory");
    if (rc == QD_OK) rc = qd_text_set(&m->name, u->name, err);
    if (rc == QD_OK) rc = qd_text_set(&m->purpose, purpose, err);
    if (rc == QD_OK) rc = qd_text_set(&m->description, description, err);
    if (rc == QD_OK) rc = qd_text_set(&m->md5, md5, err);
    if (rc != QD_OK) {
        qd_msg_free(m);
        upload_drop(ctx, u);
        return rc;
    }
    m->size_bytes = u->bytes;
    *ret = m;
    upload_drop(ctx, u);
    return QD_OK;
}

/* ---- the API: all below /api/ */
static bool owns(const char *path)
{
    return strncmp(path, "/api/", 5) == 0;
}

static void answer(qd_http_reply *r, int status, const char *what)
{
    qd_http_reply_json(r, status, json_pack("{s:s}", "code", what));
}

static bool admit(const qd_api_env *env, const qd_http_request *r, qd_caller *ret, qd_http_reply *ret_reply)
{
    const char *key = qd_http_header(r, "Authorization");
    (void)env;
    if (key == NULL || strcmp(key, "Bearer good") != 0) {
        answer(ret_reply, 401, "Unauthorized");
        return false;
    }
    (void)snprintf(ret->tenant, sizeof ret->tenant, "acme");
    (void)snprintf(ret->key_id, sizeof ret->key_id, "k1");
    return true;
}

static bool is_upload(const qd_http_request *r)
{
    return strcmp(r->path, "/api/v1/files") == 0 && strcmp(r->method, "POST") == 0;
}

static bool takes_purpose(const char *purpose)
{
    return strcmp(purpose, "another") != 0;
}

static void serve(const qd_api_env *env, const qd_caller *c, const qd_http_request *r, qd_http_reply *ret)
{
    (void)env;
    if (strstr(r->path, "/slow") != NULL) (void)nanosleep(&(struct timespec){.tv_nsec = SLOW_MS * 1000000}, NULL);
    if (strstr(r->path, "/jobs/none") != NULL) {
        answer(ret, 404, "NotFound");
        return;
    }
    json_t *query = json_array(), *echo = NULL;
    for (size_t i = 0; i < r->n_query; i++)
        (void)json_array_append_new(query, json_pack("[s, s]", r->query[i].name, r->query[i].value));
    echo =
        json_pack("{s:s, s:s, s:o, s:I, s:s%, s:s, s:s, s:i}", "method", r->method, "path", r->path, "query", query,
                  "bytes", (json_int_t)r->body_bytes, "body", r->body, r->body_bytes < 2000 ? r->body_bytes : (size_t)0,
                  "tenant", c->tenant, "request_id", r->request_id, "open", __atomic_load_n(&g_open, __ATOMIC_SEQ_CST));
    qd_http_reply_json(ret, echo != NULL ? 200 : 422, echo != NULL ? echo : json_object());
    qd_http_reply_header(ret, "X-Echo", qd_http_query(r, "header") != NULL ? qd_http_query(r, "header") : "none");
}

static void uploaded(const qd_api_env *env, const qd_caller *c, const qd_http_request *r, const qd_uploaded *files,
                     size_t n, qd_http_reply *ret)
{
    json_t *list = json_array();
    (void)env;
    (void)c;
    (void)r;
    for (size_t i = 0; i < n; i++) {
        const qd_file_meta *m = files[i].file;
        (void)json_array_append_new(
            list, m == NULL
                      ? json_pack("{s:s, s:s}", "name", files[i].name, "error", qd_code_name(files[i].err.code))
                      : json_pack("{s:s, s:s, s:s, s:s, s:I}", "name", m->name, "purpose", m->purpose, "description",
                                  m->description, "sum", m->md5, "bytes", (json_int_t)m->size_bytes));
    }
    qd_http_reply_json(ret, 200, json_pack("{s:o}", "files", list));
}

static void refuse(const qd_http_request *r, qd_refusal why, qd_http_reply *ret)
{
    static const struct {
        int status;
        const char *code;
    } of[] = {[QD_REFUSE_BODY_TOO_LARGE] = {413, "TooLarge"},
              [QD_REFUSE_BUSY] = {429, "Busy"},
              [QD_REFUSE_AWAY] = {503, "Away"},
              [QD_REFUSE_INTERNAL] = {500, "Internal"},
              [QD_REFUSE_MULTIPART] = {400, "Multipart"},
              [QD_REFUSE_PURPOSE] = {400, "Purpose"}};
    (void)r;
    answer(ret, of[why].status, of[why].code);
}

/* ---- the bus */
static void must(qd_code rc, const qd_err *err)
{
    if (rc == QD_OK) return;
    (void)fprintf(stderr, "gateway_fake: %s\n", err->msg);
    exit(1);
}

static void put_record(qd_bus *bus, const char *state, uint64_t epoch)
{
    qd_job_record *r = qd_job_record_new();
    qd_buf b = {0};
    qd_err err = {0};
    if (r == NULL || (r->spec = qd_job_spec_new()) == NULL || (r->spec->lane = qd_job_lane_new()) == NULL ||
        (r->spec->source = qd_source_pin_new()) == NULL)
        abort();
    r->state = QD_JOB_PENDING;
    while (strcmp(qd_job_state_name(r->state), state) != 0 && r->state < QD_JOB_CANCELED) r->state++;
    r->epoch = epoch;
    r->updated_ms = r->created_ms = 1770000000000;
    if (qd_job_state_terminal(r->state)) r->ended_ms = r->updated_ms;
    const struct {
        char **field;
        const char *text;
    } texts[] = {{&r->id, "j1"},
                 {&r->spec->tenant, "acme"},
                 {&r->spec->name, "j1"},
                 {&r->spec->model_id, "m"},
                 {&r->spec->base_model, "m"},
                 {&r->spec->output_model_id, "m-j1"},
                 {&r->spec->template_id, "nvfp4-w4a16"},
                 {&r->spec->source_path, "/models/m"},
                 {&r->spec->output_path, "/out/m-j1"},
                 {&r->spec->format, "compressed-tensors"},
                 {&r->spec->source->digest, "0123456789abcdef"},
                 {&r->spec->lane->device_class, "cpu"},
                 {&r->spec->lane->numerics_id, "any"}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        must(qd_text_set(texts[i].field, texts[i].text, &err), &err);
    if (r->state == QD_JOB_RUNNING) must(qd_text_set(&r->owner, "w1", &err), &err);
    must(qd_job_record_encode(r, &b, &err), &err);
    must(qd_bus_kv_put(bus, QD_BUCKET_JOBS, "job.j1", b.data, b.len, QD_REV_ANY, NULL, &err), &err);
    qd_buf_done(&b);
    qd_msg_free(r);
}

static void put_batch(qd_bus *bus, uint64_t epoch, uint64_t first, uint64_t n, bool last, uint32_t permille)
{
    qd_event_batch *e = qd_event_batch_new();
    qd_buf b = {0};
    qd_err err = {0};
    qd_bus_puback ack;
    char text[64], subject[QD_SUBJECT_BYTES];
    if (e == NULL) abort();
    must(qd_text_set(&e->job_id, "j1", &err), &err);
    must(qd_text_set(&e->worker, "w1", &err), &err);
    e->epoch = epoch;
    e->first_line = first;
    e->last = last;
    for (uint64_t i = 0; i < n; i++) {
        qd_log_line *line = qd_log_line_new();
        (void)snprintf(text, sizeof text, i % 10 == 9 ? "##MARK_%s##" : "line %s%" PRIu64, i % 10 == 9 ? "X" : "",
                       first + i);
        if (line == NULL) abort();
        line->level = QUANTD__LOG_LEVEL__LOG_INFO;
        line->time_ms = 1770000000000;
        must(qd_text_set(&line->text, text, &err), &err);
        must(qd_list_add(&e->lines, &e->n_lines, line, &err), &err);
    }
    if (permille > 0) {
        e->progress = qd_progress_new();
        if (e->progress == NULL) abort();
        must(qd_text_set(&e->progress->phase, "quantize", &err), &err);
        e->progress->permille = permille;
    }
    must(qd_event_batch_encode(e, &b, &err), &err);
    must(qd_subject_event("j1", "w1", subject, &err), &err);
    const qd_bus_pub p = {.subject = subject, .data = b.data, .bytes = b.len, .expect_subject_seq = QD_REV_ANY};
    must(qd_bus_publish(bus, &p, &ack, &err), &err);
    qd_buf_done(&b);
    qd_msg_free(e);
}

/* False: end. */
static bool obey(qd_bus *bus, char *line)
{
    char name[32] = "";
    unsigned long a = 0, b = 0, c = 0;
    qd_err err = {0};
    if (sscanf(line, "state %31s %lu", name, &a) == 2)
        put_record(bus, name, a);
    else if (sscanf(line, "lines %lu %lu %lu", &a, &b, &c) == 3)
        put_batch(bus, a, b, c, false, 0);
    else if (sscanf(line, "last %lu", &a) == 1)
        put_batch(bus, a, 1, 0, true, 0);
    else if (sscanf(line, "progress %lu %lu", &a, &b) == 2)
        put_batch(bus, a, 1, 0, false, (uint32_t)b);
    else if (sscanf(line, "fault %lu", &a) == 1)
        qd_fault_arm(QD_FAULT_ALLOC, a, ENOMEM);
    else if (strncmp(line, "delete", 6) == 0)
        must(qd_bus_kv_delete(bus, QD_BUCKET_JOBS, "job.j1", QD_REV_ANY, &err), &err);
    else
        return false;
    (void)printf("ok\n");
    (void)fflush(stdout);
    return true;
}

static bool is_ready(void *ctx, char *why, size_t room)
{
    (void)ctx;
    (void)snprintf(why, room, "the index is not there yet");
    return getenv("QD_FAKE_NOT_READY") == NULL;
}

static void set(qd_server_config *c, qd_live_config *live, const char *key, const char *value)
{
    uint64_t n = strtoull(value, NULL, 10);
    if (strcmp(key, "listen") == 0) c->listen = value;
    if (strcmp(key, "listen_tls") == 0) c->listen_tls = value;
    if (strcmp(key, "cert") == 0) c->tls_cert = value;
    if (strcmp(key, "key") == 0) c->tls_key = value;
    if (strcmp(key, "header_ms") == 0) c->header_ms = n;
    if (strcmp(key, "body_ms") == 0) c->body_ms = n;
    if (strcmp(key, "reply_ms") == 0) c->reply_ms = n;
    if (strcmp(key, "body_bytes_max") == 0) c->env.body_bytes_max = n;
    if (strcmp(key, "upload_body_max") == 0) c->upload_body_max = n;
    if (strcmp(key, "per_address") == 0) c->connections_per_address_max = (uint32_t)n;
    if (strcmp(key, "write_threads") == 0) c->write_threads = (unsigned)n;
    if (strcmp(key, "writes_waiting") == 0) c->writes_waiting_max = (uint32_t)n;
    if (strcmp(key, "live_max") == 0) c->live_max = (uint32_t)n;
    if (strcmp(key, "job_bytes") == 0) live->job_bytes = n;
    if (strcmp(key, "ping_ms") == 0) live->ping_ms = n;
    if (strcmp(key, "access_log") == 0) c->access_log = n != 0;
}

int main(int argc, char **argv)
{
    static const qd_api fake = {"fake", owns, admit, is_upload, takes_purpose, serve, uploaded, refuse};
    static const qd_api *const apis[] = {&fake};
    const qd_backend_ops ops = {.upload_begin = upload_begin,
                                .upload_write = upload_write,
                                .upload_end = upload_end,
                                .upload_drop = upload_drop};
    qd_backend backend = {&ops, NULL};
    qd_server_config c = {.apis = apis,
                          .n_apis = 1,
                          .env = {.backend = &backend, .body_bytes_max = 10000},
                          .upload_files_max = FILES_MAX,
                          .ops = {.ready = is_ready},
                          .listen = "127.0.0.1:0",
                          .access_log = true};
    qd_live_config live_config = {.watches_max = 2000};
    qd_bus_mem *store = NULL;
    qd_bus *bus = NULL, *ours = NULL;
    qd_server *server = NULL;
    qd_glog log;
    qd_err err = {0};
    char line[256];
    size_t n = 0;
    qd_json_use_qd_memory();
    for (int i = 1; i < argc; i++) {
        char *eq = strchr(argv[i], '=');
        if (eq == NULL) return 2;
        *eq = '\0';
        set(&c, &live_config, argv[i], eq + 1);
    }
    (void)setenv("TZ", "UTC", 1);
    tzset();
    qd_glog_begin(&log, STDERR_FILENO, QD_LOG_DEBUG, 0);
    must(qd_bus_mem_new(1, 1770000000000, NULL, &store, &err), &err);
    must(qd_bus_mem_client(store, "live", &bus, &err), &err);
    must(qd_bus_mem_client(store, "test", &ours, &err), &err);
    live_config.bus = bus;
    live_config.log = c.log = &log;
    must(qd_live_open(&live_config, &c.live, &err), &err);
    must(qd_server_open(&c, &server, &err), &err);
    (void)printf("ports %u %u\n", (unsigned)qd_server_port(server, 0), (unsigned)qd_server_port(server, 1));
    (void)fflush(stdout);
    (void)fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    for (bool more = true; more;) { /* until "end" or the end of stdin */
        char ch = 0;
        ssize_t got = 0;
        qd_live_step(c.live, STEP_MS);
        while (more && (got = read(STDIN_FILENO, &ch, 1)) == 1) {
            if (ch != '\n' && n < sizeof line - 1) line[n++] = ch;
            if (ch != '\n') continue;
            line[n] = '\0';
            n = 0;
            more = obey(ours, line);
        }
        more = more && (got > 0 || (got < 0 && errno == EAGAIN));
    }
    qd_server_close(server, 5000);
    qd_live_close(c.live);
    qd_bus_free(ours);
    qd_bus_free(bus);
    qd_bus_mem_free(store);
    qd_glog_done(&log);
    (void)printf("open uploads %d\n", g_open);
    return g_open != 0;
}
