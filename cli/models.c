/* models.c -- `quantctl models`: directories that the service offers as models, by their quantd.json. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "catalog/model_registry.h"
#include "ckpt/checkpoint.h"
#include "cli/args.h"
#include "cli/cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char k_usage[] =
    "usage: quantctl models [list] | show ID | add DIR | remove ID  [options]\n"
    "  list                 the models below the root\n"
    "  add DIR              writes DIR/quantd.json, so that the directory is a model; DIR lies below the root\n"
    "  remove ID            takes quantd.json away; the model's files stay\n"
    "  --root DIR           default: $QD_MODELS, then /var/lib/quantd/models\n"
    "  --id ID              add: its id (default: the directory's name)\n"
    "  --name TEXT          add: its display name (default: the id)\n"
    "  --base-model ID      add: what it was made from (default: the id)\n"
    "  --kind KIND          add: full (default), lora, quantized or base\n"
    "  --owner TENANT       add: whose it is (default: everybody's)\n"
    "  --json               one JSON object a line on stdout\n";

typedef struct models_args {
    const char *root, *id, *name, *base_model, *kind, *owner;
    bool json, help;
    qd_arg_list rest;
} models_args;

static void show(const qd_model *m, bool json, bool all, qd_buf *out)
{
    const struct {
        const char *key, *value;
    } texts[] = {{"id", m->id},
                 {"name", m->name},
                 {"base_model", m->base_model},
                 {"kind", qd_model_kind_name(m->kind)},
                 {"owner", m->owner},
                 {"state", qd_model_state_name(m->state)},
                 {"job", m->job},
                 {"set", m->set},
                 {"path", m->path},
                 {"qianfan_id", m->qianfan_id},
                 {"qianfan_set_id", m->qianfan_set_id}};
    if (!json && !all) {
        qd_buf_printf(out, "%-40s  %-9s  %-8s  %-12s  %s\n", m->id, qd_model_kind_name(m->kind),
                      qd_model_state_name(m->state), m->owner[0] == '\0' ? "-" : m->owner, m->path);
        return;
    }
    if (json) qd_buf_str(out, "{\"event\":\"model\"");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (json) {
            qd_buf_printf(out, ",\"%s\":", texts[i].key);
            qd_buf_json_str(out, texts[i].value);
        } else if (texts[i].value[0] != '\0') {
            qd_buf_printf(out, "%-15s %s\n", texts[i].key, texts[i].value);
        }
    }
    if (json) qd_buf_printf(out, ",\"created_ms\":%" PRIu64 "}\n", m->created_ms);
}

static qd_code add(const models_args *a, const char *dir, qd_buf *out, qd_err *err)
{
    char path[PATH_MAX], root[PATH_MAX];
    qd_arena arena = {0};
    qd_ckpt ckpt = {0};
    qd_model m = {.name = a->name, .base_model = a->base_model, .owner = a->owner}, written = {0};
    qd_code rc = QD_OK;
    if (realpath(dir, path) == NULL) return qd_fail_errno(err, QD_E_INPUT, errno, "%s", dir);
    if (realpath(a->root, root) == NULL) return qd_fail_errno(err, QD_E_INPUT, errno, "--root %s", a->root);
    size_t n = strlen(root);
    if (strncmp(path, root, n) != 0 || path[n] != '/')
        return qd_fail(err, QD_E_INPUT, "%s: expected a directory below %s (--root), where the service looks", path,
                       root);
    m.id = a->id != NULL ? a->id : qd_path_base(path);
    if (!qd_model_id_ok(m.id))
        return qd_fail(err, QD_E_USAGE, "the id \"%.80s\": expected letters, digits, '.', '-', '_'; --id gives one",
                       m.id);
    if (a->kind != NULL && !qd_model_kind_find(a->kind, &m.kind))
        return qd_fail(err, QD_E_USAGE, "--kind %.40s: expected full, lora, quantized or base", a->kind);
    if (m.name == NULL) m.name = m.id;
    if (m.base_model == NULL) m.base_model = m.id;
    if (!qd_model_id_ok(m.base_model))
        return qd_fail(err, QD_E_USAGE, "--base-model %.80s: expected an id", m.base_model);
    QD_TRY(qd_ckpt_open(path, &ckpt, err)); /* a directory that is no checkpoint would fail in every job */
    QD_TRY(qd_model_write(path, &m, err));
    QD_TRY(qd_model_read(path, &arena, &written, err));
    show(&written, a->json, true, out);
out:
    qd_ckpt_done(&ckpt);
    qd_arena_done(&arena);
    return rc;
}

static qd_code remove_one(const models_args *a, const qd_model *m, qd_buf *out, qd_err *err)
{
    char *path = qd_path_join(m->path, QD_MODEL_FILE);
    qd_code rc = QD_OK;
    if (path == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory");
    if (unlink(path) != 0)
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s", path);
    else
        rc = qd_dir_sync(m->path, err);
    if (rc == QD_OK && a->json)
        qd_buf_printf(out, "{\"event\":\"removed\",\"id\":\"%s\"}\n", m->id);
    else if (rc == QD_OK)
        qd_buf_printf(out, "%s is no model any more; its files stay in %s\n", m->id, m->path);
    qd_free(path);
    return rc;
}

static qd_code run(const models_args *a, qd_buf *out, qd_err *err)
{
    const char *what = a->rest.n == 0 ? "list" : a->rest.items[0], *arg = a->rest.n < 2 ? NULL : a->rest.items[1];
    bool list = strcmp(what, "list") == 0, show_it = strcmp(what, "show") == 0, drop = strcmp(what, "remove") == 0;
    const qd_registry_view *v = NULL;
    qd_registry *r = NULL;
    qd_code rc = QD_OK;
    if (strcmp(what, "add") == 0 && arg != NULL) return add(a, arg, out, err);
    if (list ? arg != NULL : arg == NULL || (!show_it && !drop))
        return qd_fail(err, QD_E_USAGE, "expected list, show ID, add DIR or remove ID; see quantctl models --help");
    r = qd_registry_new(a->root);
    if (r == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory");
    QD_TRY(qd_registry_take(r, true, &v, err));
    if (list) {
        qd_err why = {0};
        for (size_t i = 0; i < v->n; i++) show(&v->items[i], a->json, false, out);
        size_t n = qd_registry_problem(r, &why);
        if (n != 0) (void)fprintf(stderr, "quantctl: %zu left out; the first one: %s\n", n, why.msg);
        goto out;
    }
    const qd_model *m = qd_registry_find(v, arg);
    if (m == NULL)
        rc = qd_fail(err, QD_E_NOT_FOUND, "no model %.100s below %s", arg, a->root);
    else if (drop)
        rc = remove_one(a, m, out, err);
    else
        show(m, a->json, true, out);
out:
    qd_registry_give(r, v);
    qd_registry_free(r);
    return rc;
}

int qd_cmd_models(int argc, char **argv)
{
    const char *env = getenv("QD_MODELS");
    models_args a = {.root = env != NULL && env[0] != '\0' ? env : "/var/lib/quantd/models"};
    qd_err err = {0};
    qd_buf out = {0};
    const qd_opt opts[] = {{"--root", NULL, QD_OPT_TEXT, &a.root}, {"--id", NULL, QD_OPT_TEXT, &a.id},
                           {"--name", NULL, QD_OPT_TEXT, &a.name}, {"--base-model", NULL, QD_OPT_TEXT, &a.base_model},
                           {"--kind", NULL, QD_OPT_TEXT, &a.kind}, {"--owner", NULL, QD_OPT_TEXT, &a.owner},
                           {"--json", NULL, QD_OPT_FLAG, &a.json}, {"--help", "-h", QD_OPT_FLAG, &a.help}};
    qd_code rc = qd_args_parse(argc, argv, opts, sizeof opts / sizeof opts[0], 0, 2, &a.rest, &err);
    if (rc == QD_OK && a.help) return fputs(k_usage, stdout) < 0;
    if (rc == QD_OK) rc = run(&a, &out, &err);
    if (rc == QD_OK) rc = qd_buf_check(&out, &err);
    if (rc == QD_OK && out.data != NULL) (void)fputs(out.data, stdout);
    qd_buf_done(&out);
    return rc == QD_OK ? 0 : qd_cmd_fail(&err, a.json);
}
