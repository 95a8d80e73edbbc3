/* config.c -- the few keys of config.json that decide how a checkpoint is read. */
#include "ckpt/config.h"

#include "base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    WHAT_BYTES = 512
};
#define LAYERS_MAX    (UINT64_C(1) << 20)
#define WIDTH_MAX     (UINT64_C(1) << 40)
#define FP8_BLOCK_MAX (UINT64_C(1) << 20)

/* A number that multimodal wrappers keep in text_config and plain models in the root. */
static qd_code text_u64(const json_t *root, const json_t *text, const char *text_what, const char *what,
                        const char *key, uint64_t max, uint64_t *ret, qd_err *err)
{
    uint64_t v = 0;
    qd_code rc = qd_json_u64_or(root, key, what, 0, max, &v, err);
    if (rc == QD_OK && text != NULL) rc = qd_json_u64_or(text, key, text_what, v, max, &v, err);
    if (rc == QD_OK) *ret = v;
    return rc;
}

static qd_code read_architecture(const json_t *root, const char *what, qd_config *c, qd_err *err)
{
    json_t *list = NULL;
    qd_code rc = qd_json_arr_or(root, "architectures", what, &list, err);
    if (rc != QD_OK) return rc;
    for (size_t i = 0; list != NULL && i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_string(v))
            return qd_fail(err, QD_E_INPUT, "%s: \"architectures\"[%zu]: expected a string, found %s", what, i,
                           qd_json_type(v));
        if (i == 0) c->architecture = json_string_value(v);
    }
    return QD_OK;
}

static qd_code read_block(const json_t *q, const char *what, qd_config *c, qd_err *err)
{
    json_t *list = NULL;
    uint64_t *const to[2] = {&c->fp8_block_rows, &c->fp8_block_cols};
    qd_code rc = qd_json_arr_or(q, "weight_block_size", what, &list, err);
    if (rc != QD_OK || list == NULL) return rc;
    if (json_array_size(list) != 2)
        return qd_fail(err, QD_E_INPUT, "%s: \"weight_block_size\": expected 2 numbers, found %zu", what,
                       json_array_size(list));
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v))
            return qd_fail(err, QD_E_INPUT, "%s: \"weight_block_size\"[%zu]: expected a whole number, found %s", what,
                           i, qd_json_type(v));
        json_int_t n = json_integer_value(v);
        if (n < 1 || (uint64_t)n > FP8_BLOCK_MAX)
            return qd_fail(err, QD_E_INPUT,
                           "%s: \"weight_block_size\"[%zu]: expected 1 to %" PRIu64 ", found %" JSON_INTEGER_FORMAT,
                           what, i, FP8_BLOCK_MAX, n);
        *to[i] = (uint64_t)n;
    }
    return QD_OK;
}

static qd_code read_quantization(const json_t *root, const char *what, qd_config *c, qd_err *err)
{
    char where[WHAT_BYTES];
    json_t *q = NULL;
    qd_code rc = qd_json_obj_or(root, "quantization_config", what, &q, err);
    if (rc != QD_OK || q == NULL) return rc;
    (void)snprintf(where, sizeof where, "%.480s: quantization_config", what);
    /* A source that says it is quantized but not how must not pass for one that is not. */
    rc = qd_json_str_or(q, "quant_method", where, "unnamed", &c->quant_method, err);
    if (rc == QD_OK && c->quant_method[0] == '\0') c->quant_method = "unnamed";
    if (rc == QD_OK && strcmp(c->quant_method, "fp8") == 0) rc = read_block(q, where, c, err);
    return rc;
}

qd_code qd_config_parse(const char *text, size_t len, const char *what, qd_config *ret, qd_err *err)
{
    qd_config c = {.quant_method = "", .architecture = "", .fp8_block_rows = 128, .fp8_block_cols = 128};
    char text_what[WHAT_BYTES];
    json_t *t = NULL;
    qd_code rc = qd_json_parse(text, len, what, &c.root, err);
    if (rc != QD_OK) return rc;
    if (!json_is_object(c.root)) {
        rc = qd_fail(err, QD_E_INPUT, "%s: expected an object, found %s", what, qd_json_type(c.root));
        goto out;
    }
    (void)snprintf(text_what, sizeof text_what, "%.480s: text_config", what);
    c.digest = qd_hash64(text, len, 0);
    QD_TRY(qd_json_obj_or(c.root, "text_config", what, &t, err));
    QD_TRY(qd_json_str_or(c.root, "model_type", what, "", &c.model_type, err));
    c.text_model_type = c.model_type;
    if (t != NULL) QD_TRY(qd_json_str_or(t, "model_type", text_what, c.model_type, &c.text_model_type, err));
    QD_TRY(read_architecture(c.root, what, &c, err));
    QD_TRY(text_u64(c.root, t, text_what, what, "num_hidden_layers", LAYERS_MAX, &c.n_layers, err));
    QD_TRY(text_u64(c.root, t, text_what, what, "hidden_size", WIDTH_MAX, &c.hidden_size, err));
    QD_TRY(text_u64(c.root, t, text_what, what, "vocab_size", WIDTH_MAX, &c.vocab_size, err));
    if (t != NULL) QD_TRY(qd_json_bool_or(t, "tie_word_embeddings", text_what, false, &c.tied_embeddings, err));
    QD_TRY(qd_json_bool_or(c.root, "tie_word_embeddings", what, c.tied_embeddings, &c.tied_embeddings, err));
    QD_TRY(read_quantization(c.root, what, &c, err));
    *ret = c;
    memset(&c, 0, sizeof c); /* ownership moved */
out:
    qd_config_done(&c);
    return rc;
}

void qd_config_done(qd_config *c)
{
    if (c == NULL) return;
    json_decref(c->root);
    memset(c, 0, sizeof *c);
}
