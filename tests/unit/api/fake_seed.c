/* fake_seed.c -- what the service in memory holds when a test begins. */
#include "base/hash.h"
#include "gateway/compress.h"
#include "tests/unit/api/fake_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(bool done)
{
    if (!done) abort();
}

static void set(char **field, const char *value)
{
    must(qd_text_set(field, value, NULL) == QD_OK);
}

static void add_field(qd_job_spec *s, const char *name, const char *value)
{
    must(qd_name_value_add(&s->api_fields, &s->n_api_fields, name, value, NULL) == QD_OK);
}

static void id_of(const char *prefix, const char *text, char ret[QD_QIANFAN_ID_BYTES])
{
    uint64_t h = qd_hash64(text, strlen(text), 0);
    size_t n = strlen(prefix);
    memcpy(ret, prefix, n);
    for (int i = 0; i < 12; i++, h /= 36) ret[n++] = "abcdefghijklmnopqrstuvwxyz0123456789"[h % 36];
    ret[n] = '\0';
}

static void add_model(fake *f, const char *id, const char *base, const char *owner, qd_model_kind kind,
                      qd_model_state state)
{
    must(f->n_models < FAKE_MODELS_MAX);
    qd_model *m = &f->models[f->n_models++];
    m->id = m->name = id;
    m->base_model = m->set = base;
    m->owner = owner;
    m->path = "/models/m";
    m->job = kind == QD_MODEL_QUANTIZED ? FAKE_QIANFAN_JOB "5" : "";
    m->kind = kind;
    m->state = state;
    m->created_ms = FAKE_NOW_MS - 86400000;
    id_of("amv-", id, m->qianfan_id);
    id_of("am-", base, m->qianfan_set_id);
}

/* A template with every type of parameter, for models of base "qwen" only. */
static const char k_types[] =
    "{\"id\": \"types\", \"name\": {\"zh\": \"各种类型\", \"en\": \"All types\"}, \"description\": {\"zh\": \"测试\", "
    "\"en\": \"Test\"}, \"base_models\": [\"qwen*\"], \"scheme\": \"nvfp4\", \"activations\": \"none\", \"scope\": "
    "\"linears\", \"hyper_parameters\": ["
    "{\"name\": \"ratio\", \"label\": {\"zh\": \"比例\", \"en\": \"Ratio\"}, \"description\": {\"zh\": \"比例\", "
    "\"en\": "
    "\"A ratio\"}, \"type\": \"number\", \"min\": 0, \"max\": 1, \"step\": 0.25, \"default\": 0.5},"
    "{\"name\": \"count\", \"label\": {\"zh\": \"数\", \"en\": \"Count\"}, \"description\": {\"zh\": \"数\", \"en\": "
    "\"A count\"}, \"type\": \"int\", \"min\": 64, \"max\": 256, \"step\": 64, \"default\": 128},"
    "{\"name\": \"flag\", \"label\": {\"zh\": \"开关\", \"en\": \"Flag\"}, \"description\": {\"zh\": \"开关\", \"en\": "
    "\"A switch\"}, \"type\": \"bool\", \"default\": true},"
    "{\"name\": \"text\", \"label\": {\"zh\": \"文\", \"en\": \"Text\"}, \"description\": {\"zh\": \"文\", \"en\": "
    "\"A text\"}, \"type\": \"string\", \"default\": \"a\"},"
    "{\"name\": \"hidden\", \"label\": {\"zh\": \"隐\", \"en\": \"Hidden\"}, \"description\": {\"zh\": \"隐\", \"en\": "
    "\"Hidden\"}, \"type\": \"int\", \"min\": 0, \"max\": 9, \"default\": 1, \"visible\": false}]}";

qd_job_record *fake_job_add(fake *f, const char *id, const char *tenant, Quantd__ApiOrigin origin, qd_job_state state,
                            uint64_t created_ms)
{
    bool over = qd_job_state_terminal(state), begun = over || state == QD_JOB_RUNNING || state == QD_JOB_CANCELING;
    must(f->n_jobs < FAKE_JOBS_MAX);
    qd_job_record *r = qd_job_record_new();
    must(r != NULL && (r->spec = qd_job_spec_new()) != NULL && (r->spec->lane = qd_job_lane_new()) != NULL);
    qd_job_spec *s = r->spec;
    char name[64], output[128];
    (void)snprintf(name, sizeof name, "job %s", qd_job_state_name(state));
    (void)snprintf(output, sizeof output, "smollm2-%s", id);
    set(&r->id, id);
    r->state = state;
    r->created_ms = created_ms;
    r->started_ms = begun ? created_ms + 60000 : 0;
    r->ended_ms = over ? created_ms + 660000 : 0;
    r->device_ms = over ? 600000 : 0;
    set(&s->name, name);
    set(&s->description, "a description");
    set(&s->tenant, tenant);
    set(&s->user, tenant);
    s->origin = origin;
    set(&s->model_id, "demo-ft-1");
    set(&s->base_model, "smollm2");
    set(&s->output_model_id, output);
    set(&s->template_id, "nvfp4-w4a16");
    set(&s->template_name_zh, "模板");
    set(&s->template_name_en, "Template");
    set(&s->source_path, "/models/m");
    set(&s->output_path, "/out/m");
    set(&s->lane->device_class, "cpu");
    set(&s->lane->numerics_id, "any");
    must(qd_name_value_add(&s->values, &s->n_values, "block_scale", "mse", NULL) == QD_OK);
    must(qd_name_value_add(&s->values, &s->n_values, "secret", "1", NULL) == QD_OK);
    add_field(s, QD_FIELD_QUANT_SPEC, "w4a16");
    add_field(s, QD_FIELD_QUANT_METHOD, "rtn");
    if (origin == QUANTD__API_ORIGIN__API_BAILIAN) {
        add_field(s, QD_FIELD_SHOWN, "method,block_scale");
    } else {
        add_field(s, QD_FIELD_STRATEGY, "Quantization");
        add_field(s, QD_FIELD_WEIGHT, "nvfp4");
        add_field(s, QD_FIELD_SOURCE_ID, f->models[0].qianfan_id);
        add_field(s, QD_FIELD_SET_ID, f->models[0].qianfan_set_id);
    }
    if (state == QD_JOB_FAILED) {
        must((r->error = qd_job_error_new()) != NULL);
        set(&r->error->code, "bad_input");
        set(&r->error->message, "calibration: no usable sample");
    }
    fake_job *j = &f->jobs[f->n_jobs++];
    memset(j, 0, sizeof *j);
    j->rec = r;
    j->n_lines = begun ? 1205 : 0;
    return r;
}

qd_job_record *fake_job_of(fake *f, const char *id)
{
    for (size_t i = 0; i < f->n_jobs; i++)
        if (strcmp(f->jobs[i].rec->id, id) == 0) return f->jobs[i].rec;
    return NULL;
}

static void add_file(fake *f, const char *id, const char *tenant)
{
    qd_file_meta *m = qd_file_meta_new();
    must(m != NULL && f->n_files < FAKE_FILES_MAX);
    set(&m->id, id);
    set(&m->tenant, tenant);
    set(&m->user, tenant);
    set(&m->name, "calib.jsonl");
    set(&m->description, "");
    set(&m->purpose, "fine-tune");
    set(&m->path, "/files/f");
    set(&m->md5, "0cc175b9c0f1b6a831c399e269772661");
    m->size_bytes = 4096;
    m->created_ms = FAKE_NOW_MS;
    f->files[f->n_files++] = m;
}

static int by_id(const void *a, const void *b)
{
    return strcmp(((const qd_template *)a)->id, ((const qd_template *)b)->id);
}

static void add_templates(fake *f, const char *dir)
{
    const char **ids = NULL;
    uint32_t n = 0;
    must(qd_template_list(dir, &f->arena, &ids, &n, NULL) == QD_OK && n + 1 <= FAKE_TEMPLATES_MAX);
    for (uint32_t i = 0; i < n; i++)
        must(qd_template_load(dir, ids[i], &f->templates[f->n_templates++], NULL) == QD_OK);
    must(qd_template_parse(k_types, sizeof k_types - 1, "types", &f->templates[f->n_templates++], NULL) == QD_OK);
    qsort(f->templates, f->n_templates, sizeof f->templates[0], by_id);
}

static void add_jobs(fake *f)
{
    for (int s = QD_JOB_PENDING; s <= QD_JOB_CANCELED; s++) {
        char id[QD_ID_BYTES];
        uint64_t created_ms = FAKE_NOW_MS - 3600000 + 60000 * (uint64_t)s;
        (void)snprintf(id, sizeof id, FAKE_BAILIAN_JOB "%d", s);
        (void)fake_job_add(f, id, "acme", QUANTD__API_ORIGIN__API_BAILIAN, (qd_job_state)s, created_ms);
        (void)snprintf(id, sizeof id, FAKE_QIANFAN_JOB "%d", s);
        (void)fake_job_add(f, id, "acme", QUANTD__API_ORIGIN__API_QIANFAN, (qd_job_state)s, created_ms);
    }
    (void)fake_job_add(f, FAKE_BAILIAN_JOB_OTHER, "other", QUANTD__API_ORIGIN__API_BAILIAN, QD_JOB_SUCCEEDED,
                       FAKE_NOW_MS);
    (void)fake_job_add(f, FAKE_QIANFAN_JOB_OTHER, "other", QUANTD__API_ORIGIN__API_QIANFAN, QD_JOB_SUCCEEDED,
                       FAKE_NOW_MS);
}

void fake_begin(fake *f, const char *template_dir)
{
    memset(f, 0, sizeof *f);
    f->backend = (qd_backend){&fake_ops, f};
    f->env = (qd_api_env){&f->backend, 1 << 20, 5};
    add_model(f, "demo-ft-1", "smollm2", "acme", QD_MODEL_FULL, QD_MODEL_READY);
    add_model(f, "demo-lora", "smollm2", "acme", QD_MODEL_LORA, QD_MODEL_READY);
    add_model(f, "demo-creating", "smollm2", "acme", QD_MODEL_FULL, QD_MODEL_CREATING);
    add_model(f, "demo-broken", "smollm2", "acme", QD_MODEL_FULL, QD_MODEL_BROKEN);
    add_model(f, "qwen-ft", "qwen3", "acme", QD_MODEL_FULL, QD_MODEL_READY);
    add_model(f, "other-ft", "llama", "other", QD_MODEL_FULL, QD_MODEL_READY);
    add_model(f, "gemma", "gemma", "", QD_MODEL_BASE, QD_MODEL_READY);
    add_model(f, "smollm2-" FAKE_QIANFAN_JOB "5", "smollm2", "acme", QD_MODEL_QUANTIZED, QD_MODEL_READY);
    add_templates(f, template_dir);
    fake_again(f);
}

void fake_again(fake *f)
{
    for (size_t i = 0; i < f->n_jobs; i++) qd_msg_free(f->jobs[i].rec);
    for (size_t i = 0; i < f->n_files; i++) qd_msg_free(f->files[i]);
    f->n_jobs = f->n_files = 0;
    f->random = 0;
    add_jobs(f);
    add_file(f, FAKE_FILE, "acme");
    add_file(f, FAKE_FILE_OTHER, "other");
}
