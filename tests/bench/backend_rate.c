/* backend_rate.c -- the gateway's backend over a nats-server of its own:
 *   backend_rate NATS_SERVER start JOBS             jobs through KV, then a first and a second start of a gateway
 *   backend_rate NATS_SERVER create SECONDS THREADS CALLERS [kill]   creates; kill: the server is killed and started
 * again meanwhile. At the end each job that was answered is looked for on the bus. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "gateway/backend_inside.h"
#include "tests/unit/bus/server.h"
#include "tests/unit/engine/small_model.h"
#include "tests/unit/proto/records.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    THREADS_MAX = 64
};

typedef struct bench {
    test_server server;
    char dir[64], models[96], files[96], output[96], index[96];
    qd_glog log;
    qd_backend_config cfg;
    uint64_t jobs;
    _Atomic uint64_t away, full;
    atomic_bool stop;
} bench;

static void die(const char *what, const qd_err *err)
{
    (void)fprintf(stderr, "backend_rate: %s: %s\n", what, err->msg);
    exit(1);
}

static qd_bus *connect_to(bench *b, const char *name)
{
    qd_err err = {0};
    qd_bus *bus = NULL;
    qd_bus_state s = {0};
    const qd_bus_nats_config cfg = {.urls = b->server.url, .name = name};
    if (qd_bus_nats_open(&cfg, &bus, &err) != QD_OK) die("connect", &err);
    for (int i = 0; i < 1000 && !s.connected; i++) {
        (void)usleep(5000);
        qd_bus_state_get(bus, &s);
    }
    return bus;
}

static void begin(bench *b, const char *program)
{
    qd_err err = {0};
    char model[128], warning[256];
    if (!test_server_init(&b->server, program) || !test_server_start(&b->server))
        die("nats-server does not start", &err);
    (void)snprintf(b->dir, sizeof b->dir, "/tmp/qd-bench-XXXXXX");
    if (mkdtemp(b->dir) == NULL) die("mkdtemp", &err);
    (void)snprintf(b->models, sizeof b->models, "%s/models", b->dir);
    (void)snprintf(b->files, sizeof b->files, "%s/files", b->dir);
    (void)snprintf(b->output, sizeof b->output, "%s/models/out", b->dir);
    (void)snprintf(b->index, sizeof b->index, "%s/index", b->dir);
    (void)snprintf(model, sizeof model, "%s/small", b->models);
    if (mkdir(b->models, 0755) != 0 || mkdir(b->files, 0755) != 0 || mkdir(b->output, 0755) != 0) die("mkdir", &err);
    sm_write(model, -1);
    sm_put(model, "quantd.json", "{\"id\": \"small\"}", 15);
    qd_glog_begin(&b->log, STDERR_FILENO, QD_LOG_WARN, 0);
    b->cfg = (qd_backend_config){.nats = {.urls = b->server.url},
                                 .self = "bench",
                                 .index_path = b->index,
                                 .models_root = b->models,
                                 .files_root = b->files,
                                 .output_root = b->output,
                                 .templates = QD_TEST_SOURCE_DIR "/deploy/templates",
                                 .seal_key_file = "",
                                 .device_class = "cpu",
                                 .calls_waiting_max = 4096,
                                 .log = &b->log};
    qd_bus *bus = connect_to(b, "provision");
    if (qd_bus_nats_provision(bus, NULL, warning, sizeof warning, &err) != QD_OK) die("provision", &err);
    if (warning[0] != '\0') (void)printf("%s\n", warning);
    qd_bus_free(bus);
}

static void end(bench *b)
{
    test_server_done(&b->server);
    qd_glog_done(&b->log);
    (void)!qd_tree_remove(b->dir, NULL);
}

static uint64_t resident_kib(pid_t pid)
{
    char path[64], line[256];
    uint64_t kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "VmRSS: %" SCNu64, &kib) == 1) break;
    if (f != NULL) (void)fclose(f);
    return kib;
}

static int raw_connect(const bench *b)
{
    static const char hello[] = "CONNECT {\"verbose\":false}\r\n";
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)b->server.port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0 || write(fd, hello, sizeof hello - 1) < 0)
        exit(1);
    return fd;
}

static void send_all(int fd, const qd_buf *b)
{
    for (size_t at = 0; at < b->len;) {
        ssize_t n = write(fd, b->data + at, b->len - at);
        if (n <= 0) exit(1);
        at += (size_t)n;
    }
}

/* The server has taken in what was sent. */
static void wait_for_pong(int fd)
{
    char c, text[6] = "";
    if (write(fd, "PING\r\n", 6) != 6) exit(1);
    while (strcmp(text, "PONG\r") != 0) {
        if (read(fd, &c, 1) != 1) exit(1);
        memmove(text, text + 1, 4);
        text[4] = c;
    }
}

static qd_job_record *job(uint64_t i)
{
    char id[40];
    (void)snprintf(id, sizeof id, "ft-%06x%06x", (unsigned)(i * 2654435761u >> 8) & 0xffffff, (unsigned)i);
    qd_job_record *r = record_new(id);
    if (r == NULL || qd_text_set(&r->spec->name, id, NULL) != QD_OK) exit(1);
    r->spec->origin = QUANTD__API_ORIGIN__API_BAILIAN;
    r->state = QD_JOB_SUCCEEDED;
    r->created_ms += i * 1000;
    r->started_ms = r->created_ms + 1;
    r->ended_ms = r->created_ms + 1000;
    return r;
}

/* Puts records into the bucket, without waiting for each. */
static void fill(bench *b)
{
    qd_err err = {0};
    qd_buf rec = {0}, out = {0};
    qd_bus_stream_state state = {0};
    qd_bus *bus = connect_to(b, "fill");
    int fd = raw_connect(b);
    for (uint64_t i = 0; i < b->jobs; i++) {
        qd_job_record *r = job(i);
        qd_buf_reset(&rec);
        if (qd_job_record_encode(r, &rec, &err) != QD_OK) die("record", &err);
        qd_buf_printf(&out, "PUB $KV.jobs.job.%s %zu\r\n", r->id, rec.len);
        qd_buf_add(&out, rec.data, rec.len);
        qd_buf_str(&out, "\r\n");
        qd_msg_free(r);
        if (i % 1000 != 999 && i + 1 != b->jobs) continue;
        send_all(fd, &out);
        wait_for_pong(fd);
        qd_buf_reset(&out);
        for (int t = 0; t < 10000 && state.msgs + 5000 < i; t++)
            if (qd_bus_stream(bus, "KV_jobs", &state, &err) != QD_OK) (void)usleep(1000);
    }
    for (int t = 0; t < 10000 && state.msgs < b->jobs; t++)
        if (qd_bus_stream(bus, "KV_jobs", &state, &err) != QD_OK) (void)usleep(10000);
    (void)close(fd);
    qd_bus_free(bus);
    qd_buf_done(&rec);
    qd_buf_done(&out);
}

static void start_once(bench *b, const char *what)
{
    qd_err err = {0};
    qd_backend *backend = NULL;
    qd_backend_state s = {0};
    uint64_t begin_ns = qd_mono_ns(), cpu_ns = qd_cpu_ns();
    if (qd_backend_open(&b->cfg, &backend, &err) != QD_OK) die("open", &err);
    double opened = qd_seconds_since(begin_ns);
    do {
        (void)usleep(10000);
        qd_backend_state_get(backend, &s);
    } while (!s.synced && qd_seconds_since(begin_ns) < 600);
    (void)printf("%s: answers after %.2f s, synced after %.2f s (%.2f s of CPU), %" PRIu64 " jobs, gateway %" PRIu64
                 " MiB resident, nats-server %" PRIu64 " MiB\n",
                 what, opened, qd_seconds_since(begin_ns), (double)(qd_cpu_ns() - cpu_ns) / 1e9,
                 s.jobs[QD_JOB_SUCCEEDED], resident_kib(getpid()) >> 10, resident_kib(b->server.pid) >> 10);
    (void)fflush(stdout);
    qd_backend_close(backend);
}

static void starts(bench *b)
{
    uint64_t begin_ns = qd_mono_ns();
    fill(b);
    (void)printf("%" PRIu64 " jobs through KV: %.0f s\n", b->jobs, qd_seconds_since(begin_ns));
    (void)fflush(stdout);
    start_once(b, "without an index");
    start_once(b, "with an index");
}

typedef struct maker {
    bench *b;
    qd_backend *backend;
    const qd_new_job *job;
    pthread_t thread;
    char (*ids)[QD_ID_BYTES];
    size_t n, cap;
    double worst_s;
} maker;

static void make_id(uint64_t now_ms, uint64_t random, char ret[QD_ID_BYTES])
{
    (void)now_ms;
    (void)snprintf(ret, QD_ID_BYTES, "ft-%016" PRIx64, random);
}

static void *make(void *arg)
{
    maker *m = arg;
    qd_caller c = {.tenant = "default", .user = "bench"};
    const qd_ask ask = {.caller = &c, .request_id = "r", .from = "127.0.0.1", .program = "bench"};
    while (!atomic_load(&m->b->stop)) {
        qd_job_record *rec = NULL;
        uint64_t begin_ns = qd_mono_ns();
        qd_code rc = m->backend->ops->job_create(m->backend->ctx, &ask, m->job, &rec, NULL);
        if (qd_seconds_since(begin_ns) > m->worst_s) m->worst_s = qd_seconds_since(begin_ns);
        if (rc == QD_E_AWAY) m->b->away++;
        if (rc == QD_E_FULL) m->b->full++;
        if (rc != QD_OK) continue;
        if (m->n == m->cap) {
            m->cap = m->cap == 0 ? 1024 : 2 * m->cap;
            m->ids = qd_realloc(m->ids, m->cap * sizeof *m->ids);
            if (m->ids == NULL) exit(1);
        }
        (void)snprintf(m->ids[m->n++], QD_ID_BYTES, "%s", rec->id);
        qd_msg_free(rec);
    }
    return NULL;
}

static void creates(bench *b, double seconds, int n_threads, uint32_t callers, bool with_kill)
{
    maker makers[THREADS_MAX] = {0};
    qd_err err = {0};
    qd_backend *backend = NULL;
    qd_models *models = NULL;
    qd_templates *templates = NULL;
    qd_backend_state s = {0};
    qd_caller c = {.tenant = "default"};
    uint64_t made = 0, lost = 0;
    double worst = 0;
    b->cfg.callers = callers;
    if (qd_backend_open(&b->cfg, &backend, &err) != QD_OK) die("open", &err);
    for (int i = 0; i < 1000 && !s.synced; i++) {
        (void)usleep(10000);
        qd_backend_state_get(backend, &s);
    }
    if (backend->ops->models(backend->ctx, &c, &models, &err) != QD_OK ||
        backend->ops->templates(backend->ctx, &templates, &err) != QD_OK)
        die("models", &err);
    const qd_new_job job = {.origin = QUANTD__API_ORIGIN__API_BAILIAN,
                            .model = &models->items[0],
                            .tmpl = &templates->items[0],
                            .make_id = make_id};
    uint64_t begin_ns = qd_mono_ns();
    for (int i = 0; i < n_threads; i++) {
        makers[i] = (maker){.b = b, .backend = backend, .job = &job};
        if (pthread_create(&makers[i].thread, NULL, make, &makers[i]) != 0) exit(1);
    }
    if (with_kill) {
        (void)usleep((useconds_t)(seconds / 3 * 1e6));
        test_server_kill(&b->server);
        (void)usleep(500000);
        if (!test_server_start(&b->server)) die("the server does not start again", &err);
    }
    while (qd_seconds_since(begin_ns) < seconds) (void)usleep(10000);
    atomic_store(&b->stop, true);
    for (int i = 0; i < n_threads; i++) {
        (void)pthread_join(makers[i].thread, NULL);
        made += makers[i].n;
        if (makers[i].worst_s > worst) worst = makers[i].worst_s;
    }
    (void)printf("%" PRIu64 " created in %.1f s: %.0f/s; slowest %.2f s; told AWAY %" PRIu64 ", FULL %" PRIu64 "\n",
                 made, qd_seconds_since(begin_ns), (double)made / qd_seconds_since(begin_ns), worst, (uint64_t)b->away,
                 (uint64_t)b->full);
    qd_bus *bus = connect_to(b, "check");
    for (int i = 0; i < n_threads; i++)
        for (size_t k = 0; k < makers[i].n; k++) {
            char key[QD_SUBJECT_BYTES];
            qd_bus_msg m = {0};
            if (qd_key(QD_KEY_JOB, makers[i].ids[k], key, &err) != QD_OK) die("key", &err);
            qd_code rc = QD_E_AWAY;
            for (int t = 0; t < 10 && rc == QD_E_AWAY; t++) rc = qd_bus_kv_get(bus, QD_BUCKET_JOBS, key, &m, &err);
            lost += rc != QD_OK;
            qd_bus_msg_done(&m);
        }
    (void)printf("of these %" PRIu64 " are not on the bus\n", lost);
    qd_bus_free(bus);
    for (int i = 0; i < n_threads; i++) qd_free(makers[i].ids);
    backend->ops->models_drop(backend->ctx, models);
    backend->ops->templates_drop(backend->ctx, templates);
    qd_backend_close(backend);
}

int main(int argc, char **argv)
{
    static bench b;
    if (argc >= 4 && strcmp(argv[2], "start") == 0) {
        begin(&b, argv[1]);
        b.jobs = strtoull(argv[3], NULL, 10);
        starts(&b);
    } else if (argc >= 6 && strcmp(argv[2], "create") == 0) {
        int threads = atoi(argv[4]);
        begin(&b, argv[1]);
        creates(&b, strtod(argv[3], NULL), threads < THREADS_MAX ? threads : THREADS_MAX, (uint32_t)atoi(argv[5]),
                argc > 6 && strcmp(argv[6], "kill") == 0);
    } else {
        (void)fprintf(stderr, "usage: backend_rate NATS_SERVER start JOBS | create SECONDS THREADS CALLERS [kill]\n");
        return 2;
    }
    end(&b);
    return 0;
}
