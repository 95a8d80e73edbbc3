/* remote_fleet.c -- `quantctl workers`, `drain`, `dlq`, `audit`. */
#include "cli/cmd.h"
#include "cli/remote.h"
#include "gpu/nvml.h"
#include "jobs/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char k_usage[] = "usage: quantctl workers | dlq | audit | drain WORKER [--reason TEXT]\n"
                              "  workers  who lives, what it does; drain  its job goes to another one, then it ends;\n"
                              "  dlq  the jobs that were given up; audit  who asked for what\n" QD_REMOTE_USAGE;

typedef struct fleet {
    qd_remote_args a;
    qd_arg_list rest;
    const char *reason;
    qd_remote r;
    qd_buf out;
} fleet;

static const char *state_name(Quantd__WorkerState s)
{
    static const char *const names[] = {"-", "idle", "busy", "draining", "drained", "paused"};
    return (unsigned)s < sizeof names / sizeof names[0] ? names[s] : "-";
}

static void show_gpu_json(const qd_worker_heartbeat *hb, qd_buf *out)
{
    const qd_gpu_state *g = hb->gpu;
    if (g == NULL) return;
    qd_buf_str(out, ",\"gpu\":{\"name\":");
    qd_buf_json_str(out, hb->device_name);
    qd_buf_printf(
        out,
        ",\"uuid\":\"%s\",\"pci\":\"%s\",\"memory_bytes\":%" PRIu64 ",\"memory_free_bytes\":%" PRIu64 ",\"xid\":%u",
        g->uuid, g->pci, (uint64_t)hb->device_memory_bytes, (uint64_t)hb->device_memory_free_bytes, (unsigned)g->xid);
    if ((g->known & QD_GPU_KNOWS_TEMPERATURE) != 0)
        qd_buf_printf(out, ",\"temperature_c\":%u", (unsigned)g->temperature_c);
    if ((g->known & QD_GPU_KNOWS_ECC) != 0)
        qd_buf_printf(out, ",\"ecc_uncorrected\":%" PRIu64, (uint64_t)g->ecc_uncorrected);
    if ((g->known & QD_GPU_KNOWS_THROTTLE) != 0) qd_buf_printf(out, ",\"throttle\":%" PRIu64, (uint64_t)g->throttle);
    if ((g->known & QD_GPU_KNOWS_NVLINK) != 0) qd_buf_printf(out, ",\"nvlinks\":%u", (unsigned)g->nvlinks);
    qd_buf_str(out, "}");
}

/* A second line, of a worker that has one. */
static void show_gpu(const qd_worker_heartbeat *hb, qd_buf *out)
{
    const qd_gpu_state *g = hb->gpu;
    char throttle[96];
    if (g == NULL) return;
    qd_buf_printf(out, "%26s%s  %s  %.1f of %.1f GB free", "", hb->device_name, g->pci,
                  (double)hb->device_memory_free_bytes * 1e-9, (double)hb->device_memory_bytes * 1e-9);
    if ((g->known & QD_GPU_KNOWS_TEMPERATURE) != 0) qd_buf_printf(out, "  %u C", (unsigned)g->temperature_c);
    if ((g->known & QD_GPU_KNOWS_ECC) != 0)
        qd_buf_printf(out, "  %" PRIu64 " uncorrected ECC errors", (uint64_t)g->ecc_uncorrected);
    if (g->xid != 0) qd_buf_printf(out, "  XID %u", (unsigned)g->xid);
    qd_gpu_throttle_text(g->throttle, throttle, sizeof throttle);
    if (throttle[0] != '\0') qd_buf_printf(out, "  slowed: %s", throttle);
    qd_buf_str(out, "\n");
}

static qd_code show_worker(void *ctx, const qd_worker_heartbeat *hb, uint64_t age_ms, qd_err *err)
{
    fleet *f = ctx;
    bool silent = age_ms > 4 * (uint64_t)hb->heartbeat_ms;
    const char *state = silent ? "silent" : state_name(hb->state);
    if (f->a.json) {
        qd_buf_printf(&f->out,
                      "{\"event\":\"worker\",\"id\":\"%s\",\"state\":\"%s\",\"device\":\"%s\",\"numerics_id\":\"%s\","
                      "\"collective\":\"%s\",\"pid\":%" PRIu64 ",\"age_ms\":%" PRIu64 ",\"jobs_done\":%" PRIu64
                      ",\"jobs_failed\":%" PRIu64 ",\"node_failures\":%u,\"host\":",
                      hb->id, state, hb->device_class, hb->numerics_id, hb->collective_version, (uint64_t)hb->pid,
                      age_ms, (uint64_t)hb->jobs_done, (uint64_t)hb->jobs_failed, (unsigned)hb->node_failures);
        qd_buf_json_str(&f->out, hb->host);
        qd_buf_str(&f->out, ",\"topology\":[");
        for (size_t i = 0; i < hb->n_topology; i++) {
            if (i != 0) qd_buf_str(&f->out, ",");
            qd_buf_json_str(&f->out, hb->topology[i]);
        }
        qd_buf_str(&f->out, "]");
        if (hb->job_id[0] != '\0') qd_buf_printf(&f->out, ",\"job\":\"%s\"", hb->job_id);
        show_gpu_json(hb, &f->out);
        qd_buf_str(&f->out, ",\"why\":");
        qd_buf_json_str(&f->out, hb->why);
        qd_buf_str(&f->out, "}\n");
    } else {
        qd_buf_printf(&f->out, "%-24s  %-8s  %-5s  %4" PRIu64 " done  %3" PRIu64 " failed  heard %.1f s ago  %s%s\n",
                      hb->id, state, hb->device_class, (uint64_t)hb->jobs_done, (uint64_t)hb->jobs_failed,
                      (double)age_ms * 1e-3, hb->job_id, hb->why);
        show_gpu(hb, &f->out);
    }
    return qd_remote_print(&f->out, err);
}

static qd_code workers(fleet *f, qd_err *err)
{
    return qd_jobs_workers(f->r.jobs, show_worker, f, err);
}

static qd_code drain(fleet *f, qd_err *err)
{
    const char *worker = f->rest.items[0];
    qd_code rc = qd_jobs_drain(f->r.jobs, worker, f->reason, &f->r.caller, err);
    if (rc != QD_OK) return rc;
    qd_buf_printf(&f->out, f->a.json ? "{\"event\":\"drain\",\"worker\":\"%s\"}\n" : "%s is asked to drain\n", worker);
    return qd_remote_print(&f->out, err);
}

typedef qd_code (*show_fn)(fleet *f, const qd_bus_msg *m, qd_err *err);

/* Everything that a stream holds, oldest first. */
static qd_code each_of_stream(fleet *f, const char *stream, const char *filter, show_fn show, qd_err *err)
{
    const qd_bus_feed_spec spec = {.stream = stream, .filter = filter, .start = QD_FEED_FROM_SEQ, .from_seq = 1};
    qd_bus_feed *feed = NULL;
    qd_bus_feed_event event = QD_FEED_NONE;
    qd_code rc = qd_bus_feed_open(f->r.bus, &spec, &feed, err);
    while (rc == QD_OK && event != QD_FEED_SYNCED) {
        qd_bus_msg m = {0};
        rc = qd_bus_feed_next(f->r.bus, feed, 1000, &event, &m, err);
        if (rc == QD_OK && event == QD_FEED_MSG) rc = show(f, &m, err);
        qd_bus_msg_done(&m);
    }
    qd_bus_feed_close(f->r.bus, feed);
    return rc;
}

static qd_code show_dead(fleet *f, const qd_bus_msg *m, qd_err *err)
{
    qd_dead_job *d = NULL;
    char when[32];
    qd_code rc = qd_dead_job_decode(m->data, m->bytes, &d, err);
    if (rc != QD_OK) return rc == QD_E_NO_MEMORY ? rc : QD_OK;
    const char *message = d->error != NULL ? d->error->message : "";
    qd_remote_time(d->time_ms, when, sizeof when);
    if (f->a.json) {
        qd_buf_printf(&f->out,
                      "{\"event\":\"dead\",\"id\":\"%s\",\"tenant\":\"%s\",\"attempts\":%u,\"time_ms\":%" PRIu64
                      ",\"code\":\"%s\",\"message\":",
                      d->job_id, d->tenant, (unsigned)d->attempts, (uint64_t)d->time_ms,
                      d->error != NULL ? d->error->code : "");
        qd_buf_json_str(&f->out, message);
        qd_buf_str(&f->out, "}\n");
    } else {
        qd_buf_printf(&f->out, "%s  %s  %s\n", d->job_id, when, message);
    }
    qd_msg_free(d);
    return qd_remote_print(&f->out, err);
}

static qd_code dlq(fleet *f, qd_err *err)
{
    return each_of_stream(f, QD_STREAM_DEAD, "quant.dead.*", show_dead, err);
}

static qd_code show_audit(fleet *f, const qd_bus_msg *m, qd_err *err)
{
    qd_audit_entry *a = NULL;
    char when[32];
    qd_code rc = qd_audit_entry_decode(m->data, m->bytes, &a, err);
    if (rc != QD_OK) return rc == QD_E_NO_MEMORY ? rc : QD_OK;
    qd_remote_time(a->time_ms, when, sizeof when);
    if (f->a.json) {
        const struct {
            const char *key, *value;
        } texts[] = {{"tenant", a->tenant},   {"user", a->user},       {"action", a->action},
                     {"subject", a->subject}, {"outcome", a->outcome}, {"from", a->from}};
        qd_buf_printf(&f->out, "{\"event\":\"audit\",\"time_ms\":%" PRIu64, (uint64_t)a->time_ms);
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            qd_buf_printf(&f->out, ",\"%s\":", texts[i].key);
            qd_buf_json_str(&f->out, texts[i].value);
        }
        qd_buf_str(&f->out, "}\n");
    } else {
        qd_buf_printf(&f->out, "%s  %-10s  %-10s  %-14s  %-28s  %s\n", when, a->tenant, a->user, a->action, a->subject,
                      a->outcome);
    }
    qd_msg_free(a);
    return qd_remote_print(&f->out, err);
}

static qd_code audit(fleet *f, qd_err *err)
{
    char subject[QD_SUBJECT_BYTES];
    qd_code rc = QD_OK;
    if (f->a.tenant != NULL) rc = qd_subject_audit(f->a.tenant, subject, err);
    return rc != QD_OK
               ? rc
               : each_of_stream(f, QD_STREAM_AUDIT, f->a.tenant != NULL ? subject : "quant.audit.*", show_audit, err);
}

static int command(int argc, char **argv, uint32_t n_rest, qd_code (*fn)(fleet *f, qd_err *err))
{
    fleet f = {.reason = ""};
    qd_err err = {0};
    qd_opt opts[1 + QD_REMOTE_OPTS] = {{"--reason", NULL, QD_OPT_TEXT, &f.reason}};
    uint32_t n = 1 + qd_remote_opts(&f.a, opts + 1);
    qd_code rc = qd_args_parse(argc, argv, opts, n, 0, n_rest, &f.rest, &err);
    if (rc == QD_OK && f.a.help) return fputs(k_usage, stdout) < 0;
    if (rc != QD_OK) goto out;
    if (f.rest.n != n_rest) {
        rc = qd_fail(&err, QD_E_USAGE, "which worker? quantctl %s WORKER; `quantctl workers` lists them", argv[0]);
        goto out;
    }
    QD_TRY(qd_remote_open(&f.a, &f.r, &err));
    QD_TRY(fn(&f, &err));
out:
    qd_buf_done(&f.out);
    qd_remote_close(&f.r);
    return rc == QD_OK ? 0 : qd_cmd_fail(&err, f.a.json);
}

int qd_cmd_workers(int argc, char **argv)
{
    return command(argc, argv, 0, workers);
}

int qd_cmd_drain(int argc, char **argv)
{
    return command(argc, argv, 1, drain);
}

int qd_cmd_dlq(int argc, char **argv)
{
    return command(argc, argv, 0, dlq);
}

int qd_cmd_audit(int argc, char **argv)
{
    return command(argc, argv, 0, audit);
}
