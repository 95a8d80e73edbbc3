#include "cli/remote.h"

#include "base/clock.h"
#include "base/mem.h"
#include "bus/bus_nats.h"
#include "proto/logline.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CONNECT_MS = 5000,
    CONNECT_POLL_US = 20000,
};

uint32_t qd_remote_opts(qd_remote_args *a, qd_opt *opts)
{
    const qd_opt shared[QD_REMOTE_OPTS] = {
        {"--server", NULL, QD_OPT_TEXT, &a->server}, {"--creds", NULL, QD_OPT_TEXT, &a->creds},
        {"--ca", NULL, QD_OPT_TEXT, &a->ca},         {"--tenant", NULL, QD_OPT_TEXT, &a->tenant},
        {"--user", NULL, QD_OPT_TEXT, &a->user},     {"--json", NULL, QD_OPT_FLAG, &a->json},
        {"--help", "-h", QD_OPT_FLAG, &a->help},
    };
    memcpy(opts, shared, sizeof shared);
    return QD_REMOTE_OPTS;
}

static const char *or_env(const char *given, const char *name, const char *dflt)
{
    const char *env = getenv(name);
    if (given != NULL) return given;
    return env != NULL && env[0] != '\0' ? env : dflt;
}

qd_code qd_remote_open(const qd_remote_args *a, qd_remote *ret, qd_err *err)
{
    qd_remote r = {.tenant = or_env(a->tenant, "QD_TENANT", "default")};
    const char *url = or_env(a->server, "QD_NATS_URL", "nats://127.0.0.1:4222");
    qd_bus_state state = {0};
    qd_code rc = QD_OK;
    (void)snprintf(r.self, sizeof r.self, "quantctl-%ld", (long)getpid());
    r.caller = (qd_jobs_caller){.user = or_env(a->user, "USER", "unknown"), .from = "quantctl"};
    const qd_bus_nats_config cfg = {.urls = url,
                                    .name = r.self,
                                    .creds_file = or_env(a->creds, "QD_NATS_CREDS", NULL),
                                    .ca_file = or_env(a->ca, "QD_NATS_CA", NULL)};
    QD_TRY(qd_id_check(r.tenant, "--tenant", err));
    QD_TRY(qd_bus_nats_open(&cfg, &r.bus, err));
    for (uint64_t end = qd_mono_ms() + CONNECT_MS;;) {
        qd_bus_state_get(r.bus, &state);
        if (state.connected) break;
        if (state.closed) {
            rc = qd_fail(err, QD_E_REFUSED, "%s refuses these credentials: --creds or $QD_NATS_CREDS", url);
            goto out;
        }
        if (qd_mono_ms() > end) {
            rc = qd_fail(err, QD_E_AWAY, "no answer from %s: is nats-server running there? --server or $QD_NATS_URL",
                         url);
            goto out;
        }
        (void)usleep(CONNECT_POLL_US);
    }
    /* On a fresh server nothing is there yet. Whoever may not make streams finds out by what it asks for. */
    char warning[256];
    rc = qd_bus_nats_provision(r.bus, NULL, warning, sizeof warning, err);
    if (rc != QD_OK && rc != QD_E_REFUSED && rc != QD_E_AWAY) goto out;
    const qd_jobs_opts opts = {.self = r.self};
    QD_TRY(qd_jobs_open(r.bus, &opts, &r.jobs, err));
    *ret = r;
    memset(&r, 0, sizeof r);
out:
    qd_remote_close(&r);
    return rc;
}

void qd_remote_close(qd_remote *r)
{
    qd_jobs_close(r->jobs);
    qd_bus_free(r->bus);
    r->jobs = NULL;
    r->bus = NULL;
}

qd_code qd_remote_print(qd_buf *out, qd_err *err)
{
    qd_code rc = qd_buf_check(out, err);
    if (rc == QD_OK && out->len != 0) (void)fwrite(out->data, 1, out->len, stdout);
    (void)fflush(stdout);
    qd_buf_reset(out);
    return rc;
}

void qd_remote_time(uint64_t ms, char *ret, size_t room)
{
    char when[QD_LOG_WHEN_BYTES] = "-";
    if (ms != 0) qd_log_when(ms, when);
    (void)snprintf(ret, room, "%s", when);
}

static void put_text(qd_buf *out, const char *key, const char *value)
{
    if (value == NULL || value[0] == '\0') return;
    qd_buf_printf(out, ",\"%s\":", key);
    qd_buf_json_str(out, value);
}

static void put_number(qd_buf *out, const char *key, uint64_t value)
{
    if (value != 0) qd_buf_printf(out, ",\"%s\":%" PRIu64, key, value);
}

static void put_report(const qd_report_summary *r, qd_buf *out)
{
    if (r == NULL) return;
    put_text(out, "report", r->path);
    put_number(out, "quantized_linears", r->tensors_quantized);
    put_number(out, "copied_tensors", r->tensors_copied);
    put_number(out, "source_bytes", r->source_bytes);
    put_number(out, "output_bytes", r->output_bytes);
    put_text(out, "output_digest", r->output_digest);
    put_text(out, "numerics_id", r->numerics_id);
    qd_buf_printf(out, ",\"relative_error\":%.9g", r->rel_error);
    if (r->quality == NULL) return;
    qd_buf_printf(out,
                  ",\"quality\":{\"tokens\":%" PRIu64
                  ",\"kl\":%.9g,\"top1\":%.9g,\"perplexity\":%.9g,\"source_perplexity\":%.9g",
                  (uint64_t)r->quality->tokens, r->quality->kl, r->quality->top1, r->quality->perplexity,
                  r->quality->source_perplexity);
    if (r->quality->max_kl > 0) qd_buf_printf(out, ",\"max_kl\":%.9g", r->quality->max_kl);
    qd_buf_str(out, "}");
}

static void put_error(const char *key, const qd_job_error *e, qd_buf *out)
{
    qd_buf_printf(out, "%s{\"code\":", key);
    qd_buf_json_str(out, e->code);
    put_text(out, "message", e->message);
    put_text(out, "worker", e->worker);
    put_number(out, "time_ms", e->time_ms);
    qd_buf_str(out, "}");
}

void qd_remote_job_json(const qd_job_record *rec, qd_buf *out)
{
    const qd_job_spec *s = rec->spec;
    qd_buf_printf(out, "{\"event\":\"job\",\"id\":\"%s\",\"state\":\"%s\"", rec->id, qd_job_state_name(rec->state));
    put_text(out, "name", s->name);
    put_text(out, "tenant", s->tenant);
    put_text(out, "user", s->user);
    put_text(out, "model", s->model_id);
    put_text(out, "template", s->template_id);
    put_text(out, "source", s->source_path);
    put_text(out, "output", s->output_path);
    qd_buf_printf(out, ",\"priority\":%u,\"epoch\":%" PRIu64 ",\"attempts\":%u",
                  s->lane == NULL ? 0 : (unsigned)s->lane->priority, (uint64_t)rec->epoch, (unsigned)rec->attempts);
    if (s->lane != NULL) put_text(out, "device_class", s->lane->device_class);
    if (s->lane != NULL) put_text(out, "lane_numerics_id", s->lane->numerics_id);
    put_text(out, "worker", rec->owner);
    if (rec->progress != NULL) {
        const qd_progress *p = rec->progress;
        qd_buf_printf(out, ",\"progress\":{\"permille\":%u,\"layer\":%u,\"layers\":%u", (unsigned)p->permille,
                      (unsigned)p->layer, (unsigned)p->layers);
        put_text(out, "phase", p->phase);
        put_number(out, "eta_ms", p->eta_ms);
        qd_buf_str(out, "}");
    }
    if (rec->error != NULL) put_error(",\"error\":", rec->error, out);
    for (size_t i = 0; i < rec->n_failures; i++) put_error(i == 0 ? ",\"failures\":[" : ",", rec->failures[i], out);
    if (rec->n_failures != 0) qd_buf_str(out, "]");
    put_report(rec->report, out);
    put_number(out, "device_ms", rec->device_ms);
    put_number(out, "log_lines", rec->log_lines);
    put_number(out, "created_ms", rec->created_ms);
    put_number(out, "started_ms", rec->started_ms);
    put_number(out, "cancel_ms", rec->cancel == NULL ? 0 : rec->cancel->time_ms);
    put_number(out, "ended_ms", rec->ended_ms);
    qd_buf_str(out, "}");
}

void qd_remote_job_row(const qd_job_record *rec, qd_buf *out)
{
    char when[32];
    qd_remote_time(rec->created_ms, when, sizeof when);
    qd_buf_printf(out, "%-26s  %-9s  %3u%%  %s  %-12.12s  %s\n", rec->id, qd_job_state_name(rec->state),
                  rec->state == QD_JOB_SUCCEEDED ? 100u
                  : rec->progress == NULL        ? 0u
                                                 : (unsigned)rec->progress->permille / 10,
                  when, rec->spec->tenant, rec->spec->name);
}
