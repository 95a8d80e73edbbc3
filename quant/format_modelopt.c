/* format_modelopt.c -- the unified Hugging Face checkpoint of NVIDIA ModelOpt. */
#include "quant/format_json.h"

static const qd_format_part parts[] = {
    {QD_PART_CODES, ".weight", QD_U8, 2},
    {QD_PART_SCALES, ".weight_scale", QD_F8_E4M3, 2},
    {QD_PART_GLOBAL, ".weight_scale_2", QD_F32, 0},
    {QD_PART_INPUT_SCALE, ".input_scale", QD_F32, 0},
};

static const char four_bits[] = "{\"dynamic\": false, \"num_bits\": 4, \"type\": \"float\", \"group_size\": 16}";

static float reciprocal(float v)
{
    return 1.0f / v;
}

/* ModelOpt's exporter never stores less than 1: E4M3 has range enough below, and nothing saturates before 448. */
static float kv_value(float amax)
{
    return amax > 448.0f ? amax / 448.0f : 1.0f;
}

static const char *algorithm(const qd_format_info *info)
{
    return info->input_scales ? "NVFP4" : "W4A16_NVFP4";
}

/* Readers recognise the layout by the producer's name; the version says who wrote it. */
static json_t *producer(void)
{
    return qd_json_const("{\"name\": \"modelopt\", \"version\": \"quantd " QD_VERSION "\"}");
}

/* Module names and globs alike: readers match both with fnmatch. */
static json_t *excluded(const qd_format_info *info)
{
    json_t *list = json_array();
    bool ok = list != NULL;
    for (uint32_t i = 0; ok && i < info->n_ignored; i++)
        ok = json_array_append_new(list, json_string(info->ignored[i])) == 0;
    for (uint32_t i = 0; ok && i < info->n_ignored_patterns; i++)
        ok = json_array_append_new(list, json_string(info->ignored_patterns[i])) == 0;
    if (ok) return list;
    json_decref(list);
    return NULL;
}

static qd_code config(const qd_format_info *info, json_t **ret, qd_err *err)
{
    json_t *group = qd_json_const("{\"targets\": [\"Linear\"]}");
    group = qd_json_with(group, "weights", qd_json_const(four_bits));
    if (info->input_scales) group = qd_json_with(group, "input_activations", qd_json_const(four_bits));
    json_t *c = qd_json_with(json_object(), "config_groups", qd_json_with(json_object(), "group_0", group));
    c = qd_json_with(c, "ignore", excluded(info));
    if (info->kv_cache)
        c = qd_json_with(c, "kv_cache_scheme",
                         qd_json_const("{\"dynamic\": false, \"num_bits\": 8, \"type\": \"float\"}"));
    c = qd_json_with(c, "producer", producer());
    c = qd_json_with(c, "quant_algo", json_string(algorithm(info)));
    c = qd_json_with(c, "quant_method", json_string("modelopt"));
    return qd_json_finish(c, ret, err);
}

/* Some readers look here first, and for the key/value cache here only. */
static qd_code extra(const qd_format_info *info, json_t **ret, qd_err *err)
{
    json_t *q = qd_json_const(info->kv_cache ? "{\"kv_cache_quant_algo\": \"FP8\", \"group_size\": 16}"
                                             : "{\"kv_cache_quant_algo\": null, \"group_size\": 16}");
    q = qd_json_with(q, "quant_algo", json_string(algorithm(info)));
    q = qd_json_with(q, "exclude_modules", excluded(info));
    json_t *c = qd_json_with(qd_json_with(json_object(), "producer", producer()), "quantization", q);
    return qd_json_finish(c, ret, err);
}

const qd_format qd_format_modelopt = {
    .name = "modelopt",
    .parts = parts,
    .n_parts = sizeof parts / sizeof parts[0],
    .global_value = reciprocal,
    .global_from_value = reciprocal,
    .kv_of_projection = true,
    .kv_dtype = QD_F32,
    .kv_rank = 0,
    .kv_value = kv_value,
    .config = config,
    .extra_file = "hf_quant_config.json",
    .extra = extra,
};
