/* selftest_job.c -- small jobs over a model that is made up on the spot. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/pool.h"
#include "calib/shapes.h"
#include "engine/job.h"
#include "engine/selftest.h"
#include "gpu/num.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    SAMPLES = 8,
    LENGTH = 32,
    VOCAB = 96
};

#define ERROR_MAX 0.2 /* relative, of NVFP4 weights: 0.09 to 0.12 is usual */

/* Two layers with every kind of linear that a dense model has, and sizes that are no multiple of a vector. */
static const char k_config[] =
    "{\"model_type\":\"qwen3\",\"architectures\":[\"Qwen3ForCausalLM\"],\"num_hidden_layers\":2,\"hidden_size\":144,"
    "\"intermediate_size\":208,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":32,\"vocab_size\":96,"
    "\"rms_norm_eps\":1e-06,\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\"}\n";

#define TEMPLATE(id, activations, parameters)                                                                 \
    "{\"id\":\"" id "\",\"name\":{\"zh\":\"-\",\"en\":\"-\"},\"description\":{\"zh\":\"-\",\"en\":\"-\"},"    \
    "\"base_models\":[\"*\"],\"scheme\":\"nvfp4\",\"activations\":\"" activations "\",\"scope\":\"linears\"," \
    "\"exclude\":[],\"mtp\":\"copy\",\"hyper_parameters\":[" parameters "]}"
#define SETTING(name, value)                                                                                    \
    "{\"name\":\"" name "\",\"label\":{\"zh\":\"-\",\"en\":\"-\"},\"description\":{\"zh\":\"-\",\"en\":\"-\"}," \
    "\"type\":\"enum\",\"choices\":[\"" value "\"],\"default\":\"" value "\",\"visible\":false}"

static const char k_weights[] = TEMPLATE("selftest-w4a16", "none", SETTING("block_scale", "mse"));
/* What a GPU calibrates; the processor takes more. */
static const char k_rounded[] =
    TEMPLATE("selftest-w4a4-rtn", "nvfp4", SETTING("method", "rtn") "," SETTING("block_scale", "four_over_six"));
static const char k_calibrated[] =
    TEMPLATE("selftest-w4a4", "nvfp4",
             SETTING("method", "gptq") "," SETTING("block_scale", "hessian") "," SETTING("smoothing", "balanced"));

typedef struct small_job {
    const qd_selftest_opts *o;
    const qd_ops *ops;
    const char *dir;
    char *model, *ids;
    qd_template tmpl;
    qd_values values;
    qd_arena arena;
} small_job;

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Bell-shaped, a few large ones among them, norms about 1: as weights are. */
static float weight(uint32_t *state, bool norm)
{
    float x = -2;
    for (int i = 0; i < 4; i++) x += (float)next(state) * 0x1p-24f;
    if (next(state) % 251 == 0) x *= 8;
    return norm ? 1 + 0.1f * x : 0.08f * x;
}

static qd_code write_in(const char *dir, const char *name, const void *data, size_t n, qd_err *err)
{
    char *path = qd_path_join(dir, name);
    if (path == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
    qd_code rc = qd_file_replace(path, data, n, err);
    qd_free(path);
    return rc;
}

static qd_code make_model(const char *dir, qd_err *err)
{
    qd_ckpt c = {0};
    qd_buf file = {0};
    const char *left_out = NULL;
    uint32_t state = 1;
    qd_code rc = write_in(dir, "config.json", k_config, sizeof k_config - 1, err);
    if (rc != QD_OK) return rc;
    QD_TRY(qd_ckpt_open_shapes(dir, qd_model_shapes, NULL, &c, &left_out, err));
    uint64_t data_off = c.tensors[0].off;
    for (uint32_t i = 0; i < c.n_tensors; i++) c.tensors[i].off -= data_off;
    QD_TRY(qd_st_write_header(c.tensors, c.n_tensors, NULL, 0, &file, err));
    for (uint32_t i = 0; i < c.n_tensors; i++)
        for (uint64_t k = 0; k < c.tensors[i].n_elems; k++) {
            uint16_t h = qd_bf16_from_f32(weight(&state, c.tensors[i].rank == 1));
            qd_buf_add(&file, &h, sizeof h);
        }
    QD_TRY(qd_buf_check(&file, err));
    QD_TRY(write_in(dir, "model.safetensors", file.data, file.len, err));
out:
    qd_buf_done(&file);
    qd_ckpt_done(&c);
    return rc;
}

static qd_code make_ids(const char *path, qd_err *err)
{
    const qd_tensor t = {.name = "input_ids",
                         .dtype = QD_I64,
                         .rank = 2,
                         .shape = {SAMPLES, LENGTH},
                         .n_elems = SAMPLES * LENGTH,
                         .bytes = SAMPLES * LENGTH * sizeof(int64_t)};
    qd_buf file = {0};
    uint32_t state = 2;
    qd_code rc = QD_OK;
    QD_TRY(qd_st_write_header(&t, 1, NULL, 0, &file, err));
    for (uint64_t i = 0; i < t.n_elems; i++) {
        int64_t id = next(&state) % VOCAB;
        qd_buf_add(&file, &id, sizeof id);
    }
    QD_TRY(qd_buf_check(&file, err));
    rc = qd_file_replace(path, file.data, file.len, err);
out:
    qd_buf_done(&file);
    return rc;
}

static qd_code run(const small_job *j, const char *name, unsigned n_threads, qd_job_result *ret, qd_err *err)
{
    char *out = qd_path_join(j->dir, name);
    if (out == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
    const qd_job_opts opts = {.model_dir = j->model,
                              .out_dir = out,
                              .tmpl = &j->tmpl,
                              .values = &j->values,
                              .device = j->o->device,
                              .ops = j->ops,
                              .calib_files = (const char *const *)&j->ids,
                              .n_calib_files = j->tmpl.input_scales ? 1 : 0,
                              .n_threads = n_threads};
    qd_code rc = qd_job_run(&opts, NULL, j->o->cancel, ret, err);
    qd_free(out);
    return rc;
}

static qd_code open_job(small_job *j, bool calibrated, qd_err *err)
{
    const char *text = !calibrated ? k_weights : j->ops != NULL ? k_rounded : k_calibrated;
    qd_code rc = QD_OK;
    QD_TRY(qd_template_parse(text, strlen(text), "the self-test's template", &j->tmpl, err));
    QD_TRY(qd_values_resolve(&j->tmpl, NULL, 0, &j->arena, &j->values, err));
    j->model = qd_path_join(j->dir, "model");
    j->ids = qd_path_join(j->dir, "ids.safetensors");
    if (j->model == NULL || j->ids == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
    if (mkdir(j->model, 0700) != 0) return qd_fail_errno(err, QD_E_IO, errno, "%s", j->model);
    QD_TRY(make_model(j->model, err));
    rc = make_ids(j->ids, err);
out:
    return rc;
}

qd_code qd_selftest_job(const qd_selftest_opts *o, const qd_ops *ops, const char *dir, bool calibrated,
                        qd_selftest_check *c, qd_err *err)
{
    small_job j = {.o = o, .ops = ops, .dir = dir};
    qd_job_result one = {0}, many = {0};
    unsigned n_threads = o->n_threads != 0 ? o->n_threads : qd_cpu_count();
    qd_code rc = QD_OK;
    QD_TRY(open_job(&j, calibrated, err));
    QD_TRY(run(&j, "one", 1, &one, err));
    QD_TRY(run(&j, "many", n_threads, &many, err));
    qd_selftest_case(c, one.n_quantized == 2 * 7, "expected 14 quantized linears, found %llu",
                     (unsigned long long)one.n_quantized);
    qd_selftest_case(c, one.rel_error > 0 && one.rel_error < ERROR_MAX, "expected a relative error below %g, found %g",
                     ERROR_MAX, one.rel_error);
    qd_selftest_case(c, strcmp(one.output_digest, many.output_digest) == 0,
                     "expected the same output on 1 and %u threads, found %.32s and %.32s", n_threads,
                     one.output_digest, many.output_digest);
    if (c->n_failed == 0)
        (void)snprintf(c->what, sizeof c->what, "relative error %.4f, output %.32s", one.rel_error, one.output_digest);
out:
    qd_template_done(&j.tmpl);
    qd_arena_done(&j.arena);
    qd_free(j.model);
    qd_free(j.ids);
    return rc;
}
