/* fuzz_gguf.c -- any bytes as a GGUF file: refused, or read so that every tensor lies in the file, and what it becomes
 * is JSON. */
#include "base/json.h"
#include "ckpt/gguf_bf16.h"
#include "ckpt/gguf_model.h"
#include "fuzz.h"
#include "memory.h"

static void check_tensors(const qd_gguf *g, const uint8_t *data, size_t size)
{
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const qd_gguf_tensor *t = &g->tensors[i];
        promise(t->off >= g->data_off && (t->off - g->data_off) % g->alignment == 0);
        promise(t->bytes > 0 && t->off <= size && t->bytes <= size - t->off);
        promise(t->bytes == t->n_elems / t->info->block_elems * t->info->block_bytes);
        if (!t->info->imported) continue;
        uint16_t values[256];
        qd_gguf_to_bf16(t->info, data + t->off, 1, values);
    }
}

static void check_outs(const qd_gguf *g, const qd_gguf_model *m)
{
    for (uint32_t i = 0; i < m->n_outs; i++) {
        const qd_gguf_out *o = &m->outs[i];
        const qd_gguf_tensor *t = &g->tensors[o->src];
        uint64_t elems = 1;
        for (uint32_t k = 0; k < o->tensor.rank; k++) elems *= o->tensor.shape[k];
        promise(elems == o->tensor.n_elems && o->tensor.bytes == elems * 2);
        promise(o->first_elem <= t->n_elems && elems <= t->n_elems - o->first_elem);
        promise(o->first_elem % t->info->block_elems == 0 && elems % t->info->block_elems == 0);
        promise(o->n_heads == 0 || o->tensor.shape[0] % (o->n_heads * 2) == 0);
    }
}

static void check_json(const qd_buf *b)
{
    json_t *root = NULL;
    promise(!b->failed && qd_json_parse(b->data, b->len, "out", &root, NULL) == QD_OK);
    json_decref(root);
}

static void check_model(const qd_gguf *g, const qd_gguf_model *m)
{
    qd_buf b = {0};
    qd_err err = {0};
    check_outs(g, m);
    qd_gguf_config_json(m, &b);
    check_json(&b);
    qd_buf_reset(&b);
    qd_gguf_generation_json(m, &b);
    check_json(&b);
    qd_buf_reset(&b);
    qd_code rc = qd_gguf_tokenizer_json(g, m, &b, &err);
    promise(rc == QD_OK || rc == QD_E_INPUT || rc == QD_E_UNSUPPORTED);
    if (rc == QD_OK) check_json(&b);
    qd_buf_reset(&b);
    if (rc == QD_OK && qd_gguf_tokenizer_config_json(g, m, &b, &err) == QD_OK) check_json(&b);
    qd_buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memory m = {data, size};
    qd_source src = memory_source(&m);
    qd_gguf g = {0};
    qd_gguf_model model = {0};
    qd_err err = {0};
    qd_code rc = qd_gguf_read(&src, &g, &err);
    promise(rc == QD_OK || (rc == QD_E_INPUT && err.code == rc && err.msg[0] != '\0'));
    if (rc == QD_OK) {
        check_tensors(&g, data, size);
        rc = qd_gguf_model_read(&g, &src, &model, &err);
        promise(rc == QD_OK || ((rc == QD_E_INPUT || rc == QD_E_UNSUPPORTED) && err.msg[0] != '\0'));
        if (rc == QD_OK) check_model(&g, &model);
    }
    qd_gguf_model_done(&model);
    qd_gguf_done(&g);
    return 0;
}
