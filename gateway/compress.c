#include "gateway/compress.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

enum {
    REPEAT_KEY_MAX = 128
};

static int by_model_id(const void *key, const void *m)
{
    return strcmp(key, ((const qd_model *)m)->id);
}

const qd_model *qd_models_find(const qd_models *m, const char *id)
{
    return m->n == 0 ? NULL : bsearch(id, m->items, m->n, sizeof *m->items, by_model_id);
}

const qd_model *qd_models_find_qianfan(const qd_models *m, const char *qianfan_id)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->items[i].qianfan_id, qianfan_id) == 0) return &m->items[i];
    return NULL;
}

static int by_template_id(const void *key, const void *t)
{
    return strcmp(key, ((const qd_template *)t)->id);
}

const qd_template *qd_templates_find(const qd_templates *t, const char *id)
{
    return t->n == 0 ? NULL : bsearch(id, t->items, t->n, sizeof *t->items, by_template_id);
}

bool qd_template_fits(const qd_template *t, const char *base_model)
{
    for (uint32_t i = 0; i < t->n_base_models; i++)
        if (fnmatch(t->base_models[i], base_model, 0) == 0) return true;
    return false;
}

const char *qd_template_spec(const qd_template *t)
{
    return t->input_scales ? "w4a4" : "w4a16";
}

const char *qd_template_method(const qd_template *t)
{
    for (uint32_t i = 0; i < t->n_params; i++)
        if (strcmp(t->params[i].name, "method") == 0) return t->params[i].dflt;
    return "rtn";
}

bool qd_repeat_key_ok(const char *key)
{
    size_t n = strlen(key);
    for (const char *s = key; *s != '\0'; s++)
        if (*s < 0x21 || *s > 0x7e) return false;
    return n >= 1 && n <= REPEAT_KEY_MAX;
}

bool qd_caller_may_use(const qd_caller *c, const char *template_id)
{
    size_t n = strlen(template_id);
    if (c->templates[0] == '\0') return true;
    for (const char *s = c->templates; (s = strchr(s, '\n')) != NULL; s++)
        if (strncmp(s + 1, template_id, n) == 0 && s[1 + n] == '\n') return true;
    return false;
}
