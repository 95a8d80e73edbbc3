/* remote_submit.c -- `quantctl submit`: a job for a worker. */
#include "base/file.h"
#include "base/id.h"
#include "base/mem.h"
#include "base/path.h"
#include "catalog/template.h"
#include "ckpt/checkpoint.h"
#include "cli/calibrated.h"
#include "cli/cmd.h"
#include "cli/remote.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PRIORITY_DEFAULT = 5,
    OWN_OPTS = 15,
    RANKS_MAX = 64,
    SETTINGS_MAX = QD_ARG_LIST_MAX + 2
};

static const char k_usage[] =
    "usage: quantctl submit MODEL_DIR --template ID [-o OUT] [options]\n"
    "  MODEL_DIR            a directory that the worker sees under the same path, or a name below $QD_MODELS\n"
    "  --template ID        what to do; `quantctl templates` lists them\n"
    "  -o, --output OUT     the new model directory will be OUT.<job id> (default: $QD_OUTPUT/<model>-<template>.<job "
    "id>)\n"
    "  --set NAME=VALUE     a setting of the template (may be repeated)\n"
    "  --calib FILE         calibration data that the worker sees under the same path (may be repeated)\n"
    "  --samples N          calibration samples (default: the template's)\n"
    "  --seq-len L          tokens of a sample (default: the template's)\n"
    "  --device-class NAME  what is to compute: cpu (default); `quantctl workers` shows them\n"
    "  --numerics ID        the workers that may take it: those of one numerics id, or any (default: any; for a "
    "calibrated\n"
    "                       job the most common id, so that another worker can go on where one stopped)\n"
    "  --format NAME        compressed-tensors (default) or modelopt\n"
    "  --name NAME          a name that no other job of the tenant has\n"
    "  --ranks MIN..MAX     workers it runs on at a time: as many as are free, MIN at least; or N of them (default: "
    "1)\n"
    "  --priority N         0 (first) to 9 (last), default 5\n"
    "  --memory SIZE        memory for tiles (default: the worker's)\n"
    "  --templates DIR      where templates are\n"
    "  --watch              follow the job to its end\n" QD_REMOTE_USAGE;

typedef struct submit_args {
    qd_remote_args remote;
    const char *tmpl, *output, *format, *name, *templates, *device_class, *numerics, *ranks;
    qd_arg_list settings, calib, rest;
    uint64_t priority, memory, samples, seq_len;
    uint32_t ranks_min, ranks_max;
    bool watch;
} submit_args;

/* "N" or "MIN..MAX". */
static qd_code parse_ranks(submit_args *a, qd_err *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long min = strtoul(a->ranks, &end, 10), max = min;
    bool ok = end != a->ranks;
    if (ok && strncmp(end, "..", 2) == 0) {
        const char *from = end + 2;
        max = strtoul(from, &end, 10);
        ok = end != from;
    }
    if (!ok || *end != '\0' || errno != 0 || min < 1 || max < min || max > RANKS_MAX)
        return qd_fail(err, QD_E_USAGE, "--ranks %s: expected N or MIN..MAX, 1 <= MIN <= MAX <= %d", a->ranks,
                       RANKS_MAX);
    a->ranks_min = (uint32_t)min;
    a->ranks_max = (uint32_t)max;
    return QD_OK;
}

static qd_code parse(int argc, char **argv, submit_args *a, qd_err *err)
{
    qd_opt opts[OWN_OPTS + QD_REMOTE_OPTS] = {
        {"--template", NULL, QD_OPT_TEXT, &a->tmpl},       {"--output", "-o", QD_OPT_TEXT, &a->output},
        {"--set", NULL, QD_OPT_LIST, &a->settings},        {"--format", NULL, QD_OPT_TEXT, &a->format},
        {"--name", NULL, QD_OPT_TEXT, &a->name},           {"--priority", NULL, QD_OPT_COUNT, &a->priority},
        {"--templates", NULL, QD_OPT_TEXT, &a->templates}, {"--memory", NULL, QD_OPT_BYTES, &a->memory},
        {"--watch", NULL, QD_OPT_FLAG, &a->watch},         {"--calib", NULL, QD_OPT_LIST, &a->calib},
        {"--samples", NULL, QD_OPT_COUNT, &a->samples},    {"--seq-len", NULL, QD_OPT_COUNT, &a->seq_len},
        {"--numerics", NULL, QD_OPT_TEXT, &a->numerics},   {"--device-class", NULL, QD_OPT_TEXT, &a->device_class},
        {"--ranks", NULL, QD_OPT_TEXT, &a->ranks},
    };
    a->priority = PRIORITY_DEFAULT;
    uint32_t n = OWN_OPTS + qd_remote_opts(&a->remote, opts + OWN_OPTS);
    qd_code rc = qd_args_parse(argc, argv, opts, n, 0, 1, &a->rest, err);
    if (rc != QD_OK || a->remote.help) return rc;
    if (a->rest.n != 1) return qd_fail(err, QD_E_USAGE, "which model? see quantctl submit --help");
    if (a->tmpl == NULL)
        return qd_fail(err, QD_E_USAGE, "which template? --template ID; `quantctl templates` lists them");
    if (a->priority > QD_PRIORITY_MAX)
        return qd_fail(err, QD_E_USAGE, "--priority: expected 0 to %d, found %" PRIu64, QD_PRIORITY_MAX, a->priority);
    if (a->ranks != NULL) {
        rc = parse_ranks(a, err);
        if (rc != QD_OK) return rc;
    }
    if (a->format != NULL && strcmp(a->format, "compressed-tensors") != 0 && strcmp(a->format, "modelopt") != 0)
        return qd_fail(err, QD_E_USAGE, "--format %s: expected compressed-tensors or modelopt", a->format);
    return QD_OK;
}

/* The model's absolute directory. */
static qd_code find_model(const char *given, char ret[PATH_MAX], qd_err *err)
{
    const char *root = getenv("QD_MODELS");
    char below[PATH_MAX];
    if (realpath(given, ret) != NULL) return QD_OK;
    if (root == NULL || root[0] == '\0' || strchr(given, '/') != NULL)
        return qd_fail_errno(err, QD_E_INPUT, errno, "%s", given);
    (void)snprintf(below, sizeof below, "%.2000s/%.1000s", root, given);
    if (realpath(below, ret) == NULL) return qd_fail_errno(err, QD_E_INPUT, errno, "%s", below);
    return QD_OK;
}

/* "<absolute OUT>.<id>": its directory must be there, it itself not. */
static qd_code make_output(const submit_args *a, const char *model, const char *tmpl, const char *id, qd_buf *ret,
                           qd_err *err)
{
    char parent[PATH_MAX], dir[PATH_MAX];
    const char *root = getenv("QD_OUTPUT");
    if (a->output == NULL) {
        qd_buf_printf(ret, "%s/%.100s-%.100s.%s", root != NULL && root[0] == '/' ? root : "/var/lib/quantd/output",
                      qd_path_base(model), tmpl, id);
        return qd_buf_check(ret, err);
    }
    (void)snprintf(dir, sizeof dir, "%s", a->output);
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') dir[--n] = '\0';
    char *slash = strrchr(dir, '/');
    const char *name = slash == NULL ? dir : slash + 1;
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return qd_fail(err, QD_E_USAGE, "-o %s: expected the name of a new directory", a->output);
    qd_buf_printf(ret, "%s.%s", name, id);
    if (slash != NULL) *slash = '\0';
    if (realpath(slash == NULL ? "." : slash == dir ? "/" : dir, parent) == NULL)
        return qd_fail_errno(err, QD_E_INPUT, errno, "-o %s", a->output);
    qd_buf whole = {0};
    qd_buf_printf(&whole, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, ret->failed ? "" : ret->data);
    qd_buf_done(ret);
    *ret = whole;
    return qd_buf_check(ret, err);
}

static qd_code pin_source(const char *model, qd_source_pin **ret, qd_err *err)
{
    qd_ckpt ckpt = {0};
    char digest[24];
    qd_code rc = qd_ckpt_open(model, &ckpt, err);
    if (rc != QD_OK) return rc;
    qd_source_pin *pin = *ret = qd_source_pin_new();
    (void)snprintf(digest, sizeof digest, "%016" PRIx64, ckpt.digest);
    if (pin == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a job");
    } else {
        pin->files = ckpt.n_files;
        pin->size_bytes = ckpt.tensor_bytes;
        rc = qd_text_set(&pin->digest, digest, err);
    }
    qd_ckpt_done(&ckpt);
    return rc;
}

/* All effective values, so that a template that changes later does not change the job. *ret_calibrated: it runs a
 * forward pass, whose bytes depend on the numerics id. */
static qd_code add_values(const submit_args *a, const qd_template *tmpl, qd_job_spec *spec, bool *ret_calibrated,
                          qd_err *err)
{
    qd_arena arena = {0};
    qd_values values;
    const char *settings[SETTINGS_MAX];
    char samples[64], seq_len[64];
    uint32_t n = a->settings.n;
    qd_code rc = QD_OK;
    memcpy(settings, a->settings.items, n * sizeof *settings);
    (void)snprintf(samples, sizeof samples, "calib_samples=%" PRIu64, a->samples);
    (void)snprintf(seq_len, sizeof seq_len, "calib_seq_len=%" PRIu64, a->seq_len);
    if (a->samples != 0) settings[n++] = samples;
    if (a->seq_len != 0) settings[n++] = seq_len;
    spec->calib_samples = a->samples;
    spec->calib_seq_len = a->seq_len;
    QD_TRY(qd_values_resolve(tmpl, settings, n, &arena, &values, err));
    QD_TRY(qd_cmd_calibrated(tmpl, &values, ret_calibrated, err));
    for (uint32_t i = 0; i < tmpl->n_params; i++)
        QD_TRY(qd_name_value_add(&spec->values, &spec->n_values, tmpl->params[i].name, values.value[i], err));
out:
    qd_arena_done(&arena);
    return rc;
}

static qd_code add_calibration(const submit_args *a, qd_job_spec *spec, qd_err *err)
{
    for (uint32_t i = 0; i < a->calib.n; i++) {
        char path[PATH_MAX];
        if (realpath(a->calib.items[i], path) == NULL)
            return qd_fail_errno(err, QD_E_INPUT, errno, "%s", a->calib.items[i]);
        qd_code rc = qd_text_add(&spec->calibration_files, &spec->n_calibration_files, path, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

static qd_code make_spec(const submit_args *a, qd_remote *r, const char *id, qd_job_spec **ret, qd_err *err)
{
    char model[PATH_MAX];
    bool calibrated = false;
    qd_template tmpl = {0};
    qd_buf output = {0}, name = {0};
    qd_code rc = QD_OK;
    qd_job_spec *s = *ret = qd_job_spec_new();
    char *dirs = qd_template_dirs(a->templates);
    if (s == NULL || dirs == NULL || (s->lane = qd_job_lane_new()) == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a job");
        goto out;
    }
    QD_TRY(find_model(a->rest.items[0], model, err));
    QD_TRY(qd_template_load(dirs, a->tmpl, &tmpl, err));
    QD_TRY(make_output(a, model, tmpl.id, id, &output, err));
    QD_TRY(pin_source(model, &s->source, err));
    QD_TRY(add_values(a, &tmpl, s, &calibrated, err));
    QD_TRY(add_calibration(a, s, err));
    if (a->name != NULL)
        qd_buf_str(&name, a->name);
    else
        qd_buf_printf(&name, "%.80s-%.80s", qd_path_base(model), tmpl.id);
    QD_TRY(qd_buf_check(&name, err));
    QD_TRY(qd_remote_lane(r, a->device_class, a->numerics, calibrated, s->lane, err));
    s->origin = QUANTD__API_ORIGIN__API_CLI;
    s->lane->priority = (uint32_t)a->priority;
    s->memory_bytes = a->memory;
    s->ranks_min = a->ranks_min;
    s->ranks_max = a->ranks_max;
    const struct {
        char **field;
        const char *value;
    } texts[] = {{&s->name, name.data},
                 {&s->tenant, r->tenant},
                 {&s->user, r->caller.user},
                 {&s->model_id, qd_path_base(model)},
                 {&s->template_id, tmpl.id},
                 {&s->template_name_zh, tmpl.name.zh},
                 {&s->template_name_en, tmpl.name.en},
                 {&s->source_path, model},
                 {&s->output_path, output.data},
                 {&s->format, a->format}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        QD_TRY(qd_text_set(texts[i].field, texts[i].value, err));
out:
    qd_template_done(&tmpl);
    qd_buf_done(&output);
    qd_buf_done(&name);
    qd_free(dirs);
    return rc;
}

static void tell(const submit_args *a, const char *id, const qd_job_spec *s)
{
    qd_buf out = {0};
    if (a->remote.json) {
        qd_buf_printf(&out, "{\"event\":\"submitted\",\"id\":\"%s\",\"output\":", id);
        qd_buf_json_str(&out, s->output_path);
        qd_buf_str(&out, "}\n");
    } else {
        qd_buf_printf(&out, "%s\n", id);
        (void)fprintf(stderr, "quantctl: job %s: %s will be %s\n  quantctl watch %s\n", id, s->model_id, s->output_path,
                      id);
    }
    if (!out.failed) (void)fputs(out.data, stdout);
    (void)fflush(stdout);
    qd_buf_done(&out);
}

int qd_cmd_submit(int argc, char **argv)
{
    submit_args a = {0};
    qd_remote r = {0};
    qd_err err = {0};
    qd_job_spec *spec = NULL;
    char id[QD_NEW_ID_BYTES];
    int code = 0;
    qd_code rc = parse(argc, argv, &a, &err);
    if (rc != QD_OK) goto out;
    if (a.remote.help) {
        (void)fputs(k_usage, stdout);
        return 0;
    }
    QD_TRY(qd_id_new(id, &err));
    QD_TRY(qd_remote_open(&a.remote, &r, &err));
    QD_TRY(make_spec(&a, &r, id, &spec, &err));
    for (int tries = 0; tries < 3; tries++) { /* the same id is the same job */
        rc = qd_jobs_create(r.jobs, id, spec, a.name != NULL, &r.caller, &err);
        if (rc != QD_E_AWAY) break;
    }
    if (rc != QD_OK) goto out;
    tell(&a, id, spec);
    if (a.watch) code = qd_remote_watch(&r, id, a.remote.json);
out:
    qd_msg_free(spec);
    qd_remote_close(&r);
    return rc == QD_OK ? code : qd_cmd_fail(&err, a.remote.json);
}
