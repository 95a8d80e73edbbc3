/* templates.c -- `quantctl templates`: which there are, and what one does. */
#include "base/buf.h"
#include "base/mem.h"
#include "catalog/template.h"
#include "cli/args.h"
#include "cli/cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char k_usage[] = "usage: quantctl templates [ID] [--templates DIR] [--json]\n";

/* Chinese where the environment asks for it. */
static const char *say(const qd_text *t)
{
    static const char *const names[] = {"LC_ALL", "LC_MESSAGES", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *v = getenv(names[i]);
        if (v != NULL && v[0] != '\0') return strncmp(v, "zh", 2) == 0 ? t->zh : t->en;
    }
    return t->en;
}

static void text_json(qd_buf *b, const char *key, const qd_text *t)
{
    qd_buf_printf(b, ",\"%s\":{\"zh\":", key);
    qd_buf_json_str(b, t->zh);
    qd_buf_str(b, ",\"en\":");
    qd_buf_json_str(b, t->en);
    qd_buf_str(b, "}");
}

static const char *scope_name(qd_scope s)
{
    return s == QD_SCOPE_LINEARS ? "linears" : s == QD_SCOPE_MLP ? "mlp" : "experts";
}

static void show_json(const qd_template *t, qd_buf *b)
{
    qd_buf_str(b, "{\"id\":");
    qd_buf_json_str(b, t->id);
    text_json(b, "name", &t->name);
    text_json(b, "description", &t->description);
    qd_buf_printf(b, ",\"scheme\":\"%s\",\"activations\":\"%s\",\"scope\":\"%s\",\"hyper_parameters\":[", t->scheme,
                  t->input_scales ? "nvfp4" : "none", scope_name(t->scope));
    for (uint32_t i = 0; i < t->n_params; i++) {
        qd_buf_printf(b, "%s{\"name\":", i == 0 ? "" : ",");
        qd_buf_json_str(b, t->params[i].name);
        text_json(b, "label", &t->params[i].label);
        qd_buf_str(b, ",\"default\":");
        qd_buf_json_str(b, t->params[i].dflt);
        qd_buf_printf(b, ",\"visible\":%s}", t->params[i].visible ? "true" : "false");
    }
    qd_buf_str(b, "]}\n");
}

static void show_text(const qd_template *t, qd_buf *b)
{
    qd_buf_printf(b, "%s: %s\n  %s\n  scheme %s, %s, scope %s\n", t->id, say(&t->name), say(&t->description), t->scheme,
                  t->input_scales ? "weights and activations (W4A4)" : "weights only (W4A16)", scope_name(t->scope));
    for (uint32_t i = 0; i < t->n_params; i++) {
        const qd_param *p = &t->params[i];
        qd_buf_printf(b, "  --set %s=%s  %s", p->name, p->dflt, say(&p->label));
        for (uint32_t k = 0; k < p->n_choices; k++) qd_buf_printf(b, "%s%s", k == 0 ? " (" : "|", p->choices[k]);
        qd_buf_str(b, p->n_choices != 0 ? ")\n" : "\n");
    }
}

int qd_cmd_templates(int argc, char **argv)
{
    const char *dir = NULL;
    bool json = false, help = false;
    qd_arg_list rest;
    qd_err err = {0};
    qd_arena arena = {0};
    qd_buf out = {0};
    const char **ids = NULL;
    uint32_t n = 0;
    char *dirs = NULL;
    const qd_opt opts[] = {{"--templates", NULL, QD_OPT_TEXT, &dir},
                           {"--json", NULL, QD_OPT_FLAG, &json},
                           {"--help", "-h", QD_OPT_FLAG, &help}};
    qd_code rc = qd_args_parse(argc, argv, opts, 3, 0, 1, &rest, &err);
    if (rc != QD_OK) goto out;
    if (help) {
        (void)fputs(k_usage, stdout);
        return 0;
    }
    dirs = qd_template_dirs(dir);
    if (dirs == NULL) {
        rc = qd_fail(&err, QD_E_NO_MEMORY, "out of memory");
        goto out;
    }
    if (rest.n == 1) {
        ids = rest.items;
        n = 1;
    } else {
        QD_TRY(qd_template_list(dirs, &arena, &ids, &n, &err));
    }
    for (uint32_t i = 0; i < n; i++) {
        qd_template t = {0};
        QD_TRY(qd_template_load(dirs, ids[i], &t, &err));
        if (json)
            show_json(&t, &out);
        else if (rest.n == 1)
            show_text(&t, &out);
        else
            qd_buf_printf(&out, "%-32s %s\n", t.id, say(&t.name));
        qd_template_done(&t);
    }
    QD_TRY(qd_buf_check(&out, &err));
    if (out.data != NULL) (void)fputs(out.data, stdout);
out:
    qd_free(dirs);
    qd_buf_done(&out);
    qd_arena_done(&arena);
    return rc == QD_OK ? 0 : qd_cmd_fail(&err, json);
}
