/* format_ct.c -- compressed-tensors "nvfp4-pack-quantized", as compressed-tensors 0.19 writes it. */
#include "base/buf.h"
#include "quant/format_json.h"

#include <string.h>

static const qd_format_part parts[] = {
    {QD_PART_CODES, ".weight_packed", QD_U8, 2},
    {QD_PART_SCALES, ".weight_scale", QD_F8_E4M3, 2},
    {QD_PART_GLOBAL, ".weight_global_scale", QD_F32, 1},
    {QD_PART_INPUT_SCALE, ".input_global_scale", QD_F32, 1},
};

/* Readers refuse unknown keys inside the two groups, so these are the keys of a real dump and no others. The observer
 * of the weights is null: it names a class of the tool that calibrated, and our scales come from none of its. The
 * observer of the inputs has a meaning for readers that would calibrate again, and ours does the same as that one. */
static const char weights_group[] =
    "{\"actorder\": null, \"block_structure\": null, \"dynamic\": false, \"group_size\": 16, \"num_bits\": 4,"
    " \"observer\": null, \"observer_kwargs\": {}, \"scale_dtype\": \"torch.float8_e4m3fn\","
    " \"strategy\": \"tensor_group\", \"symmetric\": true, \"type\": \"float\", \"zp_dtype\": null}";
static const char inputs_group[] =
    "{\"actorder\": null, \"block_structure\": null, \"dynamic\": \"local\", \"group_size\": 16, \"num_bits\": 4,"
    " \"observer\": \"static_minmax\", \"observer_kwargs\": {}, \"scale_dtype\": \"torch.float8_e4m3fn\","
    " \"strategy\": \"tensor_group\", \"symmetric\": true, \"type\": \"float\", \"zp_dtype\": null}";

/* Keys of a scheme as compressed-tensors 0.19 dumps it. Keys are observed after RoPE, as they go into the cache. */
static const char kv_scheme[] =
    "{\"actorder\": null, \"block_structure\": null, \"dynamic\": false, \"group_size\": null, \"num_bits\": 8,"
    " \"observer\": \"static_minmax\", \"observer_kwargs\": {}, \"scale_dtype\": null, \"strategy\": \"tensor\","
    " \"symmetric\": true, \"type\": \"float\", \"zp_dtype\": null}";

static float same(float v)
{
    return v;
}

static float kv_value(float amax)
{
    return amax > 0.0f ? amax / 448.0f : 1.0f;
}

/* "re:" and the glob as a regular expression. Readers use re.match, which binds the beginning only, hence the '$'. */
static json_t *regex(const char *glob)
{
    qd_buf b = {0};
    qd_buf_str(&b, "re:");
    for (const char *s = glob; *s != '\0'; s++) {
        if (*s == '*')
            qd_buf_str(&b, ".*");
        else if (*s == '?')
            qd_buf_str(&b, ".");
        else if (strchr(".^$+()[]{}|\\", *s) != NULL)
            qd_buf_printf(&b, "\\%c", *s);
        else
            qd_buf_add(&b, s, 1);
    }
    qd_buf_str(&b, "$");
    json_t *v = b.failed ? NULL : json_string(b.data);
    qd_buf_done(&b);
    return v;
}

static json_t *ignore(const qd_format_info *info)
{
    json_t *list = json_array();
    bool ok = list != NULL;
    for (uint32_t i = 0; ok && i < info->n_ignored; i++)
        ok = json_array_append_new(list, json_string(info->ignored[i])) == 0;
    for (uint32_t i = 0; ok && i < info->n_ignored_patterns; i++)
        ok = json_array_append_new(list, regex(info->ignored_patterns[i])) == 0;
    if (ok) return list;
    json_decref(list);
    return NULL;
}

static qd_code config(const qd_format_info *info, json_t **ret, qd_err *err)
{
    json_t *group = qd_json_const("{\"format\": \"nvfp4-pack-quantized\"}");
    group = qd_json_with(group, "input_activations", info->input_scales ? qd_json_const(inputs_group) : json_null());
    group = qd_json_with(group, "output_activations", json_null());
    group = qd_json_with(group, "targets", qd_json_const("[\"Linear\"]"));
    group = qd_json_with(group, "weights", qd_json_const(weights_group));
    json_t *c = qd_json_with(json_object(), "config_groups", qd_json_with(json_object(), "group_0", group));
    c = qd_json_with(c, "format", json_string("nvfp4-pack-quantized"));
    c = qd_json_with(c, "global_compression_ratio", json_null());
    c = qd_json_with(c, "ignore", ignore(info));
    c = qd_json_with(c, "kv_cache_scheme", info->kv_cache ? qd_json_const(kv_scheme) : json_null());
    c = qd_json_with(c, "quant_method", json_string("compressed-tensors"));
    c = qd_json_with(c, "quantization_status", json_string("compressed"));
    c = qd_json_with(c, "sparsity_config", json_object());
    c = qd_json_with(c, "transform_config", json_object());
    c = qd_json_with(c, "version", json_string("0.19.0"));
    return qd_json_finish(c, ret, err);
}

/* Never asked for: there is no extra file. */
static qd_code no_extra(const qd_format_info *info, json_t **ret, qd_err *err)
{
    (void)info;
    (void)ret;
    return qd_fail(err, QD_E_INTERNAL, "compressed-tensors has no file beside config.json");
}

const qd_format qd_format_compressed_tensors = {
    .name = "compressed-tensors",
    .parts = parts,
    .n_parts = sizeof parts / sizeof parts[0],
    .global_value = same,
    .global_from_value = same,
    .kv_of_projection = false,
    .kv_dtype = QD_BF16,
    .kv_rank = 1,
    .kv_value = kv_value,
    .config = config,
    .extra_file = NULL,
    .extra = no_extra,
};
