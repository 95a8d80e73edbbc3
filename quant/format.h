/* format.h -- how a quantized linear is named and typed on disk, and what config.json says of it. One file a format. */
#ifndef QD_QUANT_FORMAT_H
#define QD_QUANT_FORMAT_H

#include "base/dtype.h"
#include "base/err.h"
#include "base/json.h"

#include <stdint.h>

typedef enum qd_part_kind {
    QD_PART_CODES,
    QD_PART_SCALES,
    QD_PART_GLOBAL,
    QD_PART_INPUT_SCALE,
    QD_PART_KV_SCALE, /* of the layer's k_proj or v_proj, quantized or not: FP8 key-value cache */
    QD_PART_KIND_COUNT
} qd_part_kind;

typedef struct qd_format_part {
    qd_part_kind kind;
    const char *suffix; /* ".weight_packed" */
    qd_dtype dtype;
    uint32_t rank; /* 2: shape by kind ([N, K/2] or [N, K/16]); 1: [1]; 0: scalar */
} qd_format_part;

typedef struct qd_format_info {
    const char *const *quantized; /* module names of quantized linears, in plan order */
    uint32_t n_quantized;
    const char *const *ignored; /* module names of linears left as they are (router, gates, head, MTP, vision, out of
                                   scope), checkpoint names */
    uint32_t n_ignored;
    const char *const *ignored_patterns; /* globs of module names ("*linear_attn.in_proj_a*"), covering fused and split
                                            spellings; each format writes them its own way (fnmatch as they are, or as
                                            regular expressions); may be empty */
    uint32_t n_ignored_patterns;
    bool input_scales; /* W4A4 */
    bool kv_cache;     /* FP8 scales of keys and values */
} qd_format_info;

typedef struct qd_format {
    const char *name; /* "compressed-tensors" */
    const qd_format_part *parts;
    uint32_t n_parts;
    /* The float32 stored for a global scale gs (the divisor): gs itself, or 1 / gs. */
    float (*global_value)(float gs);
    float (*global_from_value)(float stored);
    /* FP8 key-value cache: its scales are called k_scale and v_scale, of the attention or of its projections. */
    bool kv_of_projection;
    qd_dtype kv_dtype; /* BF16 or F32 */
    uint32_t kv_rank;  /* 1: [1]; 0: scalar */
    /* The scale stored for the largest magnitude of keys or values: what one step of E4M3 is worth. */
    float (*kv_value)(float amax);
    /* New reference: config.json's quantization_config. */
    qd_code (*config)(const qd_format_info *info, json_t **ret, qd_err *err);
    /* A further file beside config.json: its name, or NULL; and its content (new reference). */
    const char *extra_file;
    qd_code (*extra)(const qd_format_info *info, json_t **ret, qd_err *err);
} qd_format;

extern const qd_format qd_format_compressed_tensors, qd_format_modelopt;
/* By name, NULL when there is none. */
const qd_format *qd_format_find(const char *name);

#endif
