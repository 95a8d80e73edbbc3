/* bailian_create.c -- POST jobs: the checks in the order that docs/api.md gives them, then the job. */
#include "base/utf8.h"
#include "gateway/bailian.h"
#include "gateway/compress.h"
#include "gateway/json_make.h"
#include "gateway/times.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILE_ID_HEX = 32
};

/* A creation under way. */
typedef struct draft {
    qd_bailian *q;
    json_t *body;
    qd_models *models;
    qd_templates *templates;
    qd_arena arena;
    const char *description, *suffix, *name;
    const qd_model *model;
    const qd_template *tmpl;
    const char **settings;
    uint32_t n_settings;
    const char **files;
    size_t n_files;
} draft;

static bool no_memory(draft *d)
{
    return qd_bailian_fail_code(d->q, QD_E_NO_MEMORY);
}

static bool read_body(draft *d)
{
    const qd_http_request *r = d->q->r;
    qd_code rc = qd_json_parse(r->body, r->body_bytes, "body", &d->body, NULL);
    if (rc == QD_E_NO_MEMORY) return no_memory(d);
    if (rc != QD_OK || !json_is_object(d->body)) return qd_bailian_fail(d->q, QD_BAILIAN_BODY, NULL, NULL, NULL);
    return true;
}

/* *ret NULL: absent or null. */
static bool text_of(draft *d, const char *key, const char **ret)
{
    const json_t *v = json_object_get(d->body, key);
    *ret = json_string_value(v);
    if (v == NULL || json_is_null(v) || *ret != NULL) return true;
    return qd_bailian_fail(d->q, QD_BAILIAN_TYPE, key, "String", NULL);
}

static bool needed_text(draft *d, const char *key, const char **ret)
{
    if (!text_of(d, key, ret)) return false;
    if (*ret != NULL && **ret != '\0') return true;
    return qd_bailian_fail(d->q, QD_BAILIAN_MISSING, key, NULL, NULL);
}

static bool is_base_of_some(const qd_models *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->items[i].base_model, name) == 0) return true;
    return false;
}

static bool check_model(draft *d, const char *id)
{
    const qd_backend *b = d->q->env->backend;
    qd_code rc = b->ops->models(b->ctx, d->q->caller, &d->models, NULL);
    if (rc != QD_OK) return qd_bailian_fail_code(d->q, rc);
    const qd_model *m = d->model = qd_models_find(d->models, id);
    qd_bailian_error e = m == NULL ? (is_base_of_some(d->models, id) ? QD_BAILIAN_MODEL_BASE : QD_BAILIAN_MODEL_DATA)
                         : m->kind == QD_MODEL_BASE      ? QD_BAILIAN_MODEL_BASE
                         : m->kind == QD_MODEL_LORA      ? QD_BAILIAN_MODEL_LORA
                         : m->kind == QD_MODEL_QUANTIZED ? QD_BAILIAN_MODEL_QUANTIZED
                         : m->state == QD_MODEL_BROKEN   ? QD_BAILIAN_MODEL_DATA
                         : m->state == QD_MODEL_CREATING ? QD_BAILIAN_MODEL_NOT_READY
                                                         : QD_BAILIAN_ERROR_COUNT;
    return e == QD_BAILIAN_ERROR_COUNT || qd_bailian_fail(d->q, e, id, NULL, NULL);
}

static bool check_template(draft *d, const char *id)
{
    const qd_backend *b = d->q->env->backend;
    qd_code rc = b->ops->templates(b->ctx, &d->templates, NULL);
    if (rc != QD_OK) return qd_bailian_fail_code(d->q, rc);
    d->tmpl = qd_templates_find(d->templates, id);
    if (d->tmpl == NULL) return qd_bailian_fail(d->q, QD_BAILIAN_TEMPLATE_UNKNOWN, id, NULL, NULL);
    if (!qd_template_fits(d->tmpl, d->model->base_model))
        return qd_bailian_fail(d->q, QD_BAILIAN_TEMPLATE_MISFIT, id, d->model->id, NULL);
    if (!qd_caller_may_use(d->q->caller, id)) return qd_bailian_fail(d->q, QD_BAILIAN_TEMPLATE_ACCESS, id, NULL, NULL);
    return true;
}

static bool check_name(draft *d)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ._-()[]:/+#@,";
    const char *given = NULL;
    if (!text_of(d, "job_name", &given)) return false;
    if (given == NULL) return true;
    char *name = qd_arena_strdup(&d->arena, given + strspn(given, " "));
    if (name == NULL) return no_memory(d);
    for (size_t n = strlen(name); n > 0 && name[n - 1] == ' ';) name[--n] = '\0';
    size_t len = 0;
    for (const char *s = name; *s != '\0'; s += len) {
        uint32_t c = qd_utf8_get(s, &len);
        if (c < 0x80 ? strchr(allowed, (int)c) == NULL : c < 0xa0) /* 0x80-0x9f: control characters as well */
            return qd_bailian_fail(d->q, QD_BAILIAN_NAME_CHARS, NULL, NULL, NULL);
    }
    if (qd_chars(name) > QD_BAILIAN_NAME_CHARS_MAX)
        return qd_bailian_fail(d->q, QD_BAILIAN_NAME_LONG, NULL, NULL, NULL);
    d->name = *name == '\0' ? NULL : name;
    return true;
}

static bool check_description(draft *d)
{
    if (!text_of(d, "job_description", &d->description)) return false;
    if (d->description == NULL) return true;
    if (!qd_text_ok(d->description, true)) return qd_bailian_fail(d->q, QD_BAILIAN_DESCRIPTION_CHARS, NULL, NULL, NULL);
    return qd_chars(d->description) <= QD_BAILIAN_DESCRIPTION_CHARS_MAX ||
           qd_bailian_fail(d->q, QD_BAILIAN_DESCRIPTION_LONG, NULL, NULL, NULL);
}

static bool check_suffix(draft *d)
{
    if (!text_of(d, "output_model_suffix", &d->suffix)) return false;
    if (d->suffix == NULL) return true;
    if (qd_chars(d->suffix) > QD_BAILIAN_SUFFIX_MAX)
        return qd_bailian_fail(d->q, QD_BAILIAN_SUFFIX_LONG, NULL, NULL, NULL);
    return d->suffix[strspn(d->suffix, "abcdefghijklmnopqrstuvwxyz0123456789")] == '\0' ||
           qd_bailian_fail(d->q, QD_BAILIAN_SUFFIX_CHARS, NULL, NULL, NULL);
}

/* Says what is wrong with a value that the template refused. */
static bool refuse_value(draft *d, const qd_param *p, const char *value)
{
    char *end = NULL, least[32], most[32], step[32];
    qd_buf list = {0};
    switch (p->type) {
    case QD_PARAM_INT:
    case QD_PARAM_NUMBER: {
        double v = strtod(value, &end);
        (void)snprintf(least, sizeof least, "%.15g", p->min);
        (void)snprintf(most, sizeof most, "%.15g", p->max);
        (void)snprintf(step, sizeof step, "%.15g", p->step > 0.0 ? p->step : 1.0);
        if (*value == '\0' || *end != '\0' || isnan(v))
            return qd_bailian_fail(d->q, QD_BAILIAN_SETTING_NUMBER, p->name, NULL, NULL);
        if (v < p->min || v > p->max) return qd_bailian_fail(d->q, QD_BAILIAN_SETTING_RANGE, p->name, least, most);
        return qd_bailian_fail(d->q, QD_BAILIAN_SETTING_STEP, p->name, step, isfinite(p->min) ? least : "0");
    }
    case QD_PARAM_BOOL:
        return qd_bailian_fail(d->q, QD_BAILIAN_SETTING_CHOICE, p->name, "[true,false]", NULL);
    case QD_PARAM_ENUM:
        for (uint32_t i = 0; i < p->n_choices; i++) qd_buf_printf(&list, "%s%s", i == 0 ? "[" : ",", p->choices[i]);
        qd_buf_str(&list, "]");
        (void)(list.failed ? no_memory(d) : qd_bailian_fail(d->q, QD_BAILIAN_SETTING_CHOICE, p->name, list.data, NULL));
        qd_buf_done(&list);
        return false;
    case QD_PARAM_STRING:
        break;
    }
    return qd_bailian_fail(d->q, QD_BAILIAN_SETTING_TEXT, p->name, NULL, NULL);
}

/* A value as text, whatever its JSON type; NULL: neither text nor number nor boolean. *ret_failed: out of memory. */
static const char *value_text(draft *d, const json_t *v, bool *ret_failed)
{
    char *s = NULL;
    if (json_is_string(v)) return json_string_value(v);
    if (json_is_boolean(v)) return json_is_true(v) ? "true" : "false";
    if (!json_is_number(v)) return NULL;
    s = json_is_integer(v) ? qd_arena_printf(&d->arena, "%" JSON_INTEGER_FORMAT, json_integer_value(v))
                           : qd_arena_printf(&d->arena, "%.15g", json_real_value(v));
    *ret_failed = s == NULL;
    return s;
}

static bool check_setting(draft *d, const char *name, const json_t *value)
{
    const qd_param *p = NULL;
    qd_values values = {0};
    bool failed = false;
    for (uint32_t i = 0; i < d->tmpl->n_params && p == NULL; i++)
        if (d->tmpl->params[i].visible && strcmp(d->tmpl->params[i].name, name) == 0) p = &d->tmpl->params[i];
    if (p == NULL) return qd_bailian_fail(d->q, QD_BAILIAN_SETTING_UNKNOWN, name, NULL, NULL);
    const char *text = value_text(d, value, &failed);
    if (failed) return no_memory(d);
    if (text == NULL) return qd_bailian_fail(d->q, QD_BAILIAN_TYPE, name, "String, Number or Boolean", NULL);
    const char *setting = d->settings[d->n_settings++] = qd_arena_printf(&d->arena, "%s=%s", name, text);
    if (setting == NULL) return no_memory(d);
    qd_code rc = qd_values_resolve(d->tmpl, &setting, 1, &d->arena, &values, NULL);
    if (rc == QD_OK && !qd_text_ok(text, true)) rc = QD_E_INPUT; /* a text may be anything to a template */
    return rc == QD_OK || (rc == QD_E_NO_MEMORY ? no_memory(d) : refuse_value(d, p, text));
}

static bool check_settings(draft *d)
{
    json_t *o = json_object_get(d->body, "hyper_parameters"), *v = NULL;
    const char *name = NULL;
    if (o == NULL || json_is_null(o)) return true;
    if (!json_is_object(o)) return qd_bailian_fail(d->q, QD_BAILIAN_TYPE, "hyper_parameters", "Object", NULL);
    d->settings = qd_arena_alloc(&d->arena, json_object_size(o), sizeof *d->settings);
    if (d->settings == NULL) return no_memory(d);
    json_object_foreach(o, name, v) if (!check_setting(d, name, v)) return false;
    return true;
}

static bool file_id_ok(const char *id)
{
    return strncmp(id, "file-", 5) == 0 && strlen(id) == 5 + FILE_ID_HEX &&
           strspn(id + 5, "0123456789abcdef") == FILE_ID_HEX;
}

static bool check_calibration(draft *d)
{
    const qd_backend *b = d->q->env->backend;
    const json_t *list = json_object_get(d->body, "custom_calibration_file_ids");
    char most[16];
    if (list == NULL || json_is_null(list)) return true;
    if (!json_is_array(list))
        return qd_bailian_fail(d->q, QD_BAILIAN_TYPE, "custom_calibration_file_ids", "Array<String>", NULL);
    size_t n = json_array_size(list);
    (void)snprintf(most, sizeof most, "%u", d->q->env->calibration_files_max);
    if (n > d->q->env->calibration_files_max)
        return qd_bailian_fail(d->q, QD_BAILIAN_CALIBRATION_MANY, most, NULL, NULL);
    d->files = qd_arena_alloc(&d->arena, n, sizeof *d->files);
    if (d->files == NULL) return no_memory(d);
    for (size_t i = 0; i < n; i++) {
        qd_file_meta *found = NULL;
        const char *id = json_string_value(json_array_get(list, i));
        if (id == NULL)
            return qd_bailian_fail(d->q, QD_BAILIAN_TYPE, "custom_calibration_file_ids", "Array<String>", NULL);
        if (!file_id_ok(id)) return qd_bailian_fail(d->q, QD_BAILIAN_CALIBRATION_ID, id, NULL, NULL);
        qd_code rc = b->ops->file_get(b->ctx, d->q->caller, id, &found, NULL);
        qd_msg_free(found);
        if (rc == QD_E_NOT_FOUND) return qd_bailian_fail(d->q, QD_BAILIAN_CALIBRATION_UNKNOWN, id, NULL, NULL);
        if (rc != QD_OK) return qd_bailian_fail_code(d->q, rc);
        d->files[d->n_files++] = id;
    }
    return true;
}

static void make_id(uint64_t now_ms, uint64_t random, char ret[QD_ID_BYTES])
{
    char minutes[QD_TIME_BYTES];
    qd_time_show(now_ms, QD_TIME_MINUTES, minutes);
    (void)snprintf(ret, QD_ID_BYTES, "quant-%.12s-%04x", minutes, (unsigned)(random & 0xffff));
}

static const char *shown_names(draft *d)
{
    char *s = qd_arena_strdup(&d->arena, "");
    for (uint32_t i = 0; i < d->tmpl->n_params && s != NULL; i++)
        if (d->tmpl->params[i].visible)
            s = qd_arena_printf(&d->arena, "%s%s%s", s, *s == '\0' ? "" : ",", d->tmpl->params[i].name);
    return s;
}

static void create(draft *d, const char *repeat_key)
{
    qd_bailian *q = d->q;
    const qd_backend *b = q->env->backend;
    qd_ask ask = qd_bailian_ask(q);
    qd_job_record *rec = NULL;
    const char *shown = shown_names(d);
    if (shown == NULL) {
        (void)no_memory(d);
        return;
    }
    const char *const fields[] = {
        QD_FIELD_QUANT_SPEC,   qd_template_spec(d->tmpl),
        QD_FIELD_QUANT_METHOD, qd_template_method(d->tmpl),
        QD_FIELD_SHOWN,        shown,
    };
    qd_new_job n = {
        .origin = QUANTD__API_ORIGIN__API_BAILIAN,
        .name = d->name,
        .unique_name = d->name != NULL,
        .description = d->description,
        .model = d->model,
        .tmpl = d->tmpl,
        .settings = d->settings,
        .n_settings = d->n_settings,
        .files = d->files,
        .n_files = d->n_files,
        .output_suffix = d->suffix,
        .api_fields = fields,
        .n_api_fields = sizeof fields / sizeof fields[0] / 2,
        .idempotency_key = repeat_key,
        .make_id = make_id,
    };
    qd_code rc = b->ops->job_create(b->ctx, &ask, &n, &rec, NULL);
    if (rc == QD_E_CONFLICT)
        (void)qd_bailian_fail(q, QD_BAILIAN_NAME_USED, d->name, NULL, NULL);
    else if (rc == QD_E_REFUSED)
        (void)qd_bailian_fail(q, QD_BAILIAN_REPEAT_OTHER, NULL, NULL, NULL);
    else if (rc != QD_OK)
        (void)qd_bailian_fail_code(q, rc);
    else
        qd_bailian_ok(q, "output", qd_bailian_job(q, rec, QD_BAILIAN_CREATED));
    qd_msg_free(rec);
}

void qd_bailian_create(qd_bailian *q)
{
    const qd_backend *b = q->env->backend;
    draft d = {.q = q};
    const char *model = NULL, *template_id = NULL, *repeat_key = qd_http_header(q->r, "Idempotency-Key");
    bool good = read_body(&d) && needed_text(&d, "model", &model) && needed_text(&d, "template_id", &template_id) &&
                check_model(&d, model) && check_template(&d, template_id) && check_name(&d) && check_description(&d) &&
                check_suffix(&d) && check_settings(&d) && check_calibration(&d);
    if (good && repeat_key != NULL && !qd_repeat_key_ok(repeat_key))
        good = qd_bailian_fail(q, QD_BAILIAN_REPEAT_KEY, NULL, NULL, NULL);
    if (good) create(&d, repeat_key);
    if (d.models != NULL) b->ops->models_drop(b->ctx, d.models);
    if (d.templates != NULL) b->ops->templates_drop(b->ctx, d.templates);
    json_decref(d.body);
    qd_arena_done(&d.arena);
}
