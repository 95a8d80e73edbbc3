/* fleet -- many workers and jobs over few connections, the engine a sleep: fleet URL [--jobs N] [--workers N] ...
 *
 * The real jobs/ and bus_nats, driven as daemon/ drives them (fleet_actors.c); each thread has a bus, which is two
 * connections, and a share of the workers. Needs a nats-server of its own, with an empty data directory. Prints one
 * JSON object; fails when a job is lost. Ends by itself after --limit seconds.
 *
 *   --threads N   with workers (7)          --gateways N  threads that create and sweep (2)
 *   --keepers N   workers that have a view of all records and sweep, as well (1)
 *   --rate R      creations a second (0: as fast as it goes)
 *   --work MS     mean of the sleep         --server PID  whose processor time and memory are told */
#include "tests/bench/fleet.h"
#include "base/clock.h"
#include "base/mem.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    THREADS_MAX = 64,
    TELL_S = 5
};

typedef struct usage {
    double cpu_s, rss_mb;
} usage;

static usage usage_of(long pid)
{
    usage u = {0};
    char path[64], text[1024], state;
    unsigned long ticks[2] = {0}, kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "r");
    const char *after = f != NULL && fgets(text, sizeof text, f) != NULL ? strrchr(text, ')') : NULL;
    if (after != NULL &&
        sscanf(after + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &state, &ticks[0], &ticks[1]) == 3)
        u.cpu_s = (double)(ticks[0] + ticks[1]) / (double)sysconf(_SC_CLK_TCK);
    if (f != NULL) (void)fclose(f);
    (void)snprintf(path, sizeof path, "/proc/%ld/status", pid);
    f = fopen(path, "r");
    while (f != NULL && fgets(text, sizeof text, f) != NULL)
        if (sscanf(text, "VmHWM: %lu", &kib) == 1) u.rss_mb = (double)kib / 1024;
    if (f != NULL) (void)fclose(f);
    return u;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* p50, p99 and the largest of what took from one time to another, in ms. */
static void tell_spans(const fleet *f, const char *name, size_t from, size_t to)
{
    double *ms = qd_calloc(f->n_jobs + 1, sizeof *ms);
    size_t n = 0;
    if (ms == NULL) return;
    for (size_t i = 0; i < f->n_jobs; i++) {
        const uint64_t at[] = {f->jobs[i].asked_ns, f->jobs[i].running_ns, f->jobs[i].ended_ns};
        if (at[from] != 0 && at[to] > at[from]) ms[n++] = (double)(at[to] - at[from]) / 1e6;
    }
    qsort(ms, n, sizeof *ms, by_value);
    if (n != 0)
        printf("\"%s_ms\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f},", name, ms[n / 2], ms[n * 99 / 100], ms[n - 1]);
    qd_free(ms);
}

/* Jobs a second between a tenth and nine tenths of the ends. */
static double steady_rate(const fleet *f)
{
    double *s = qd_calloc(f->n_jobs + 1, sizeof *s), rate = 0;
    size_t n = 0;
    for (size_t i = 0; s != NULL && i < f->n_jobs; i++)
        if (f->jobs[i].ended_ns != 0) s[n++] = (double)f->jobs[i].ended_ns / 1e9;
    if (n > 10) {
        qsort(s, n, sizeof *s, by_value);
        rate = (double)(n * 9 / 10 - n / 10) / (s[n * 9 / 10] - s[n / 10]);
    }
    qd_free(s);
    return rate;
}

static void tell_calls(const fleet_thread *t, size_t n, const char *name, size_t n_jobs)
{
    uint64_t away = 0;
    printf("\"%s\":{", name);
    for (size_t op = 0; op < COUNTED_OPS; op++) {
        uint64_t calls = 0, ns = 0;
        for (size_t i = 0; i < n; i++) calls += t[i].bus.n[op], ns += t[i].bus.ns[op];
        if (calls != 0)
            printf("\"%s\":{\"a_job\":%.2f,\"us\":%.0f},", counted_names[op], (double)calls / (double)n_jobs,
                   (double)ns / (double)calls / 1e3);
    }
    for (size_t i = 0; i < n; i++) away += t[i].bus.away;
    printf("\"away\":%" PRIu64 "},", away);
}

typedef struct tally {
    size_t n, succeeded;
} tally;

static qd_code count_record(void *ctx, const qd_job_record *rec, uint64_t rev, qd_err *err)
{
    tally *t = ctx;
    (void)rev;
    (void)err;
    t->n++;
    t->succeeded += rec->state == QD_JOB_SUCCEEDED;
    return QD_OK;
}

/* What the records say in the end. */
static qd_code count_all(qd_bus *b, tally *ret, qd_bus_stream_state *ret_queue, qd_err *err)
{
    qd_jobs *j = NULL;
    const qd_jobs_opts opts = {.self = "counts"};
    qd_code rc = qd_jobs_open(b, &opts, &j, err);
    if (rc == QD_OK) rc = qd_jobs_each(j, count_record, ret, NULL, err);
    if (rc == QD_OK) rc = qd_bus_stream(b, QD_STREAM_JOBS, ret_queue, err);
    qd_jobs_close(j);
    return rc;
}

static bool option(fleet *f, long *server, const char *name, const char *value)
{
    struct {
        const char *name;
        size_t *n;
        uint64_t *u;
    } all[] = {{"--jobs", &f->n_jobs, NULL},       {"--workers", &f->n_workers, NULL},
               {"--threads", &f->n_threads, NULL}, {"--gateways", &f->n_gateways, NULL},
               {"--keepers", &f->n_keepers, NULL}, {"--work", NULL, &f->work_ms},
               {"--lease", NULL, &f->lease_ms},    {"--heartbeat", NULL, &f->heartbeat_ms},
               {"--limit", NULL, &f->limit_s}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(name, all[i].name) != 0) continue;
        uint64_t v = strtoull(value, NULL, 10);
        if (all[i].n != NULL)
            *all[i].n = v;
        else
            *all[i].u = v;
        return true;
    }
    if (strcmp(name, "--rate") == 0) f->rate = strtod(value, NULL);
    if (strcmp(name, "--server") == 0) *server = strtol(value, NULL, 10);
    return strcmp(name, "--rate") == 0 || strcmp(name, "--server") == 0;
}

static qd_code open_bus(const fleet *f, const char *name, qd_bus **ret, qd_err *err)
{
    const qd_bus_nats_config c = {.urls = f->url, .name = name, .call_timeout_ms = 10000};
    qd_bus_state s = {0};
    qd_code rc = qd_bus_nats_open(&c, ret, err);
    for (int i = 0; rc == QD_OK && !s.connected && i < 500; i++) {
        (void)usleep(10000);
        qd_bus_state_get(*ret, &s);
    }
    if (rc == QD_OK && !s.connected) rc = qd_fail(err, QD_E_AWAY, "%s: no nats-server", f->url);
    return rc;
}

/* Until all are done or the time is over. */
static bool watch(fleet *f, uint64_t began)
{
    uint64_t told = began;
    for (;;) {
        uint64_t now = qd_mono_ns();
        size_t done = atomic_load(&f->n_done);
        if (done >= f->n_jobs || atomic_load(&f->stop)) return done >= f->n_jobs;
        if (now - began > f->limit_s * UINT64_C(1000000000)) return false;
        if (now - told > TELL_S * UINT64_C(1000000000)) {
            told = now;
            fprintf(stderr, "fleet: %.0f s: %zu created, %zu taken, %zu done\n", (double)(now - began) / 1e9,
                    atomic_load(&f->n_created), atomic_load(&f->n_taken), done);
        }
        (void)usleep(2000);
    }
}

int main(int argc, char **argv)
{
    fleet f = {.n_jobs = 1000,
               .n_workers = 100,
               .n_threads = 7,
               .n_gateways = 2,
               .n_keepers = 1,
               .work_ms = 1000,
               .lease_ms = 15000,
               .heartbeat_ms = 5000,
               .limit_s = 540};
    static fleet_thread threads[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    qd_bus *first = NULL;
    qd_err err = {0};
    qd_code rc = QD_OK;
    char warning[512];
    long server = 0;
    bool good = argc >= 2 && argc % 2 == 0;
    f.url = argc >= 2 ? argv[1] : "";
    for (int i = 2; i + 1 < argc && good; i += 2) good = option(&f, &server, argv[i], argv[i + 1]);
    size_t n = f.n_gateways + f.n_threads, started = 0;
    if (!good || n > THREADS_MAX || f.n_gateways == 0 || f.n_threads == 0 || f.n_workers == 0 || f.n_jobs == 0) {
        fprintf(stderr,
                "usage: fleet URL [--jobs N] [--workers N] [--threads N] [--gateways N] [--keepers N] [--rate R]\n"
                "             [--work MS] [--lease MS] [--heartbeat MS] [--limit S] [--server PID]\n");
        return 2;
    }
    fleet_disk(&f);
    f.jobs = qd_calloc(f.n_jobs + 1, sizeof *f.jobs);
    if (f.jobs == NULL) return 1;
    QD_TRY(open_bus(&f, "fleet", &first, &err));
    QD_TRY(qd_bus_nats_provision(first, NULL, warning, sizeof warning, &err));
    for (size_t i = 0; i < n; i++) {
        qd_bus *b = NULL;
        bool gateway = i < f.n_gateways;
        QD_TRY(open_bus(&f, "fleet", &b, &err));
        counted_begin(&threads[i].bus, b);
        threads[i].f = &f;
        threads[i].share = gateway ? i : i - f.n_gateways;
        threads[i].of = gateway ? f.n_gateways : f.n_threads;
    }
    usage server_before = usage_of(server), before = usage_of(getpid());
    uint64_t began = qd_mono_ns();
    for (; started < n; started++) { /* workers first, so that they are there when the jobs come */
        size_t at = n - 1 - started;
        if (pthread_create(&ids[started], NULL, at < f.n_gateways ? fleet_gateway : fleet_workers, &threads[at]) != 0)
            break;
    }
    bool all = watch(&f, began);
    double wall_s = (double)(qd_mono_ns() - began) / 1e9;
    usage server_after = usage_of(server), after = usage_of(getpid());
    atomic_store(&f.stop, true);
    for (size_t i = 0; i < started; i++) (void)pthread_join(ids[i], NULL);
    for (size_t i = 0; i < n; i++)
        if (threads[i].rc != QD_OK) fprintf(stderr, "fleet: %s\n", threads[i].err.msg);
    tally records = {0};
    qd_bus_stream_state queue = {0};
    QD_TRY(count_all(first, &records, &queue, &err));
    uint64_t last_asked = 0, first_asked = UINT64_MAX;
    for (size_t i = 0; i < f.n_jobs; i++) {
        if (f.jobs[i].asked_ns > last_asked) last_asked = f.jobs[i].asked_ns;
        if (f.jobs[i].asked_ns != 0 && f.jobs[i].asked_ns < first_asked) first_asked = f.jobs[i].asked_ns;
    }
    double busy[2] = {0};
    for (size_t i = 0; i < n; i++) busy[i >= f.n_gateways] += 1 - (double)threads[i].idle_ns / 1e9 / wall_s;
    printf("{\"jobs\":%zu,\"workers\":%zu,\"connections\":%zu,\"seconds\":%.2f,\"jobs_per_s\":%.1f,\"steady_jobs_per_"
           "s\":%.1f,"
           "\"creates_per_s\":%.1f,",
           f.n_jobs, f.n_workers, 2 * n + 2, wall_s, (double)atomic_load(&f.n_done) / wall_s, steady_rate(&f),
           (double)atomic_load(&f.n_created) / ((double)(last_asked - first_asked) / 1e9));
    tell_spans(&f, "submit_to_running", 0, 1);
    tell_spans(&f, "running_to_ended", 1, 2);
    tell_calls(threads, f.n_gateways, "gateway_calls", f.n_jobs);
    tell_calls(threads + f.n_gateways, f.n_threads, "worker_calls", f.n_jobs);
    printf("\"gateway_threads_busy\":%.2f,\"worker_threads_busy\":%.2f,", busy[0] / (double)f.n_gateways,
           busy[1] / (double)f.n_threads);
    printf("\"server_cores\":%.2f,\"fleet_cores\":%.2f,\"server_cpu_us_a_job\":%.0f,\"fleet_cpu_us_a_job\":%.0f,"
           "\"server_mb\":%.0f,\"fleet_mb\":%.0f,",
           (server_after.cpu_s - server_before.cpu_s) / wall_s, (after.cpu_s - before.cpu_s) / wall_s,
           (server_after.cpu_s - server_before.cpu_s) * 1e6 / (double)f.n_jobs,
           (after.cpu_s - before.cpu_s) * 1e6 / (double)f.n_jobs, server_after.rss_mb, after.rss_mb);
    printf("\"refused\":%zu,\"taken_again\":%zu,\"records\":%zu,\"succeeded\":%zu,\"queue_left\":%" PRIu64 "}\n",
           atomic_load(&f.n_refused), atomic_load(&f.n_again), records.n, records.succeeded, queue.msgs);
    if (!all || records.succeeded != f.n_jobs)
        rc = qd_fail(&err, QD_E_INTERNAL, "%zu of %zu jobs SUCCEEDED", records.succeeded, f.n_jobs);
out:
    for (size_t i = 0; i < n; i++)
        if (threads[i].bus.real != NULL) qd_bus_free(&threads[i].bus.bus);
    qd_bus_free(first);
    qd_free(f.jobs);
    if (rc != QD_OK) fprintf(stderr, "fleet: %s\n", err.msg);
    return rc == QD_OK ? 0 : 1;
}
