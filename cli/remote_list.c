/* remote_list.c -- `quantctl list`, `get`, `cancel`, `delete`. */
#include "cli/cmd.h"
#include "cli/remote.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char k_list_usage[] = "usage: quantctl list [--state STATE] [--all-tenants]\n" QD_REMOTE_USAGE;
static const char k_one_usage[] = "usage: quantctl get|cancel|delete JOB_ID [--reason TEXT]\n" QD_REMOTE_USAGE;

typedef struct list {
    const char *state, *tenant; /* NULL: all */
    bool json;
    qd_buf out;
} list;

static qd_code add_job(void *ctx, const qd_job_record *rec, uint64_t rev, qd_err *err)
{
    list *l = ctx;
    (void)rev;
    if (l->tenant != NULL && strcmp(rec->spec->tenant, l->tenant) != 0) return QD_OK;
    if (l->state != NULL && strcasecmp(qd_job_state_name(rec->state), l->state) != 0) return QD_OK;
    if (l->json) {
        qd_remote_job_json(rec, &l->out);
        qd_buf_str(&l->out, "\n");
    } else {
        qd_remote_job_row(rec, &l->out);
    }
    return qd_remote_print(&l->out, err);
}

int qd_cmd_list(int argc, char **argv)
{
    qd_remote_args a = {0};
    list l = {0};
    bool all = false;
    qd_arg_list rest;
    qd_remote r = {0};
    qd_err err = {0};
    size_t unread = 0;
    qd_opt opts[2 + QD_REMOTE_OPTS] = {{"--state", NULL, QD_OPT_TEXT, &l.state},
                                       {"--all-tenants", NULL, QD_OPT_FLAG, &all}};
    uint32_t n = 2 + qd_remote_opts(&a, opts + 2);
    qd_code rc = qd_args_parse(argc, argv, opts, n, 0, 0, &rest, &err);
    if (rc == QD_OK && a.help) return fputs(k_list_usage, stdout) < 0;
    if (rc != QD_OK) goto out;
    QD_TRY(qd_remote_open(&a, &r, &err));
    l.json = a.json;
    l.tenant = all ? NULL : r.tenant;
    QD_TRY(qd_jobs_each(r.jobs, add_job, &l, &unread, &err));
    if (unread != 0) (void)fprintf(stderr, "quantctl: %zu records of another version are left out\n", unread);
out:
    qd_buf_done(&l.out);
    qd_remote_close(&r);
    return rc == QD_OK ? 0 : qd_cmd_fail(&err, a.json);
}

static void show_times(const qd_job_record *rec, qd_buf *out)
{
    const struct {
        const char *what;
        uint64_t ms;
    } times[] = {{"created", rec->created_ms}, {"started", rec->started_ms}, {"ended", rec->ended_ms}};
    char when[32];
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        qd_remote_time(times[i].ms, when, sizeof when);
        qd_buf_printf(out, "  %-9s %s\n", times[i].what, when);
    }
}

static void show_job(const qd_job_record *rec, qd_buf *out)
{
    const qd_job_spec *s = rec->spec;
    qd_buf_printf(
        out, "%s  %s\n  name      %s\n  tenant    %s\n  model     %s\n  source    %s\n  template  %s\n  output    %s\n",
        rec->id, qd_job_state_name(rec->state), s->name, s->tenant, s->model_id, s->source_path, s->template_id,
        s->output_path);
    for (size_t i = 0; i < s->n_values; i++)
        qd_buf_printf(out, "  set       %s=%s\n", s->values[i]->name, s->values[i]->value);
    if (rec->owner[0] != '\0')
        qd_buf_printf(out, "  worker    %s (epoch %llu)\n", rec->owner, (unsigned long long)rec->epoch);
    if (rec->progress != NULL && !qd_job_state_terminal(rec->state))
        qd_buf_printf(out, "  progress  %u%% %s layer %u/%u\n", (unsigned)rec->progress->permille / 10,
                      rec->progress->phase, (unsigned)rec->progress->layer, (unsigned)rec->progress->layers);
    show_times(rec, out);
    for (size_t i = 0; i < rec->n_failures; i++)
        qd_buf_printf(out, "  failed    on %s: %s\n", rec->failures[i]->worker, rec->failures[i]->message);
    if (rec->error != NULL) qd_buf_printf(out, "  error     %s: %s\n", rec->error->code, rec->error->message);
    if (rec->report != NULL)
        qd_buf_printf(out, "  report    %s\n  result    %u linears quantized, %u tensors copied, relative error %.4f\n",
                      rec->report->path, (unsigned)rec->report->tensors_quantized,
                      (unsigned)rec->report->tensors_copied, rec->report->rel_error);
    const qd_quality *q = rec->report == NULL ? NULL : rec->report->quality;
    if (q != NULL)
        qd_buf_printf(
            out, "  quality   KL %.5f, same top token %.4f, perplexity %.3f (source %.3f) on %llu held-back tokens\n",
            q->kl, q->top1, q->perplexity, q->source_perplexity, (unsigned long long)q->tokens);
}

typedef qd_code (*one_fn)(qd_remote *r, const char *id, const char *reason, bool json, qd_buf *out, qd_err *err);

static qd_code get_one(qd_remote *r, const char *id, const char *reason, bool json, qd_buf *out, qd_err *err)
{
    qd_job_record *rec = NULL;
    (void)reason;
    qd_code rc = qd_jobs_get(r->jobs, id, &rec, NULL, err);
    if (rc != QD_OK) return rc;
    if (json) {
        qd_remote_job_json(rec, out);
        qd_buf_str(out, "\n");
    } else {
        show_job(rec, out);
    }
    qd_msg_free(rec);
    return QD_OK;
}

static qd_code cancel_one(qd_remote *r, const char *id, const char *reason, bool json, qd_buf *out, qd_err *err)
{
    qd_job_state state = QD_JOB_CANCELING;
    qd_code rc = qd_jobs_cancel(r->jobs, id, reason, &r->caller, &state, err);
    if (rc == QD_E_AWAY) rc = qd_jobs_cancel(r->jobs, id, reason, &r->caller, &state, err);
    if (rc != QD_OK) return rc;
    if (json)
        qd_buf_printf(out, "{\"event\":\"canceled\",\"id\":\"%s\",\"state\":\"%s\"}\n", id, qd_job_state_name(state));
    else
        qd_buf_printf(out, "%s %s\n", id, qd_job_state_name(state));
    return QD_OK;
}

static qd_code delete_one(qd_remote *r, const char *id, const char *reason, bool json, qd_buf *out, qd_err *err)
{
    (void)reason;
    qd_code rc = qd_jobs_delete(r->jobs, id, &r->caller, err);
    if (rc == QD_E_AWAY) rc = qd_jobs_delete(r->jobs, id, &r->caller, err);
    if (rc != QD_OK) return rc;
    qd_buf_printf(out, json ? "{\"event\":\"deleted\",\"id\":\"%s\"}\n" : "%s deleted\n", id);
    return QD_OK;
}

static int on_one(int argc, char **argv, one_fn fn)
{
    qd_remote_args a = {0};
    qd_arg_list rest = {0};
    qd_remote r = {0};
    qd_err err = {0};
    qd_buf out = {0};
    const char *reason = "";
    qd_opt opts[1 + QD_REMOTE_OPTS] = {{"--reason", NULL, QD_OPT_TEXT, &reason}};
    uint32_t n = 1 + qd_remote_opts(&a, opts + 1);
    qd_code rc = qd_args_parse(argc, argv, opts, n, 0, 1, &rest, &err);
    if (rc == QD_OK && a.help) return fputs(k_one_usage, stdout) < 0;
    if (rc != QD_OK) goto out;
    if (rest.n != 1) {
        rc = qd_fail(&err, QD_E_USAGE, "which job? quantctl %s JOB_ID", argv[0]);
        goto out;
    }
    QD_TRY(qd_id_check(rest.items[0], "job id", &err));
    QD_TRY(qd_remote_open(&a, &r, &err));
    QD_TRY(fn(&r, rest.items[0], reason, a.json, &out, &err));
    QD_TRY(qd_remote_print(&out, &err));
out:
    qd_buf_done(&out);
    qd_remote_close(&r);
    return rc == QD_OK ? 0 : qd_cmd_fail(&err, a.json);
}

int qd_cmd_get(int argc, char **argv)
{
    return on_one(argc, argv, get_one);
}

int qd_cmd_cancel(int argc, char **argv)
{
    return on_one(argc, argv, cancel_one);
}

int qd_cmd_delete(int argc, char **argv)
{
    return on_one(argc, argv, delete_one);
}
