/* fuzz_model_config.c -- any bytes as config.json of a model to run: refused with a sentence, or sizes within limits.
 */
#include "calib/model_config.h"
#include "calib/shapes.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static void promise(bool kept)
{
    if (!kept) abort();
}

static void check(const qd_model_config *m)
{
    promise(m->n_layers > 0 && m->n_layers <= 4096 && m->hidden > 0 && m->vocab > 0);
    promise(m->n_heads > 0 && m->n_kv_heads > 0 && m->n_heads % m->n_kv_heads == 0 && m->head_dim > 0);
    promise(m->rope.dim >= 2 && m->rope.dim % 2 == 0 && m->rope.dim <= m->head_dim);
    promise(m->top_k <= m->n_experts && (m->n_experts == 0 || m->top_k > 0));
    float f[2048]; /* head_dim is at most 4096 */
    qd_rope_frequencies(&m->rope, f);
    for (uint64_t i = 0; i < m->n_layers; i++) {
        promise(m->layers[i].moe ? m->n_experts > 0 && m->expert_intermediate > 0 : m->intermediate > 0);
        promise(!m->layers[i].sliding || m->window > 0);
        promise(!m->layers[i].linear_attention || (m->k_heads > 0 && m->v_heads % m->k_heads == 0 && m->k_dim > 0));
    }
}

/* Its tensors, where they are not too many to be quick. */
static void check_shapes(const qd_config *c, const qd_model_config *m, qd_arena *arena)
{
    qd_shapes s = {0};
    qd_err err = {0};
    if (m->n_layers * (m->n_experts + 1) > 4096) return;
    qd_code rc = qd_model_shapes(NULL, c, "input", arena, &s, &err);
    promise(rc == QD_OK || ((rc == QD_E_INPUT || rc == QD_E_UNSUPPORTED) && err.msg[0] != '\0'));
    promise(rc != QD_OK || s.n_tensors > 2 * m->n_layers);
    for (uint32_t i = 0; i < s.n_tensors; i++)
        promise(s.tensors[i].name != NULL && s.tensors[i].rank >= 1 && s.tensors[i].rank <= 3 &&
                s.tensors[i].shape[0] > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qd_config c = {0};
    qd_arena arena = {0};
    qd_model_config m;
    qd_err err = {0};
    if (qd_config_parse((const char *)data, size, "input", &c, &err) != QD_OK) return 0;
    qd_code rc = qd_model_config_read(&c, "input", &arena, &m, &err);
    promise(rc == QD_OK || ((rc == QD_E_INPUT || rc == QD_E_UNSUPPORTED) && err.msg[0] != '\0'));
    if (rc == QD_OK) check(&m);
    if (rc == QD_OK) check_shapes(&c, &m, &arena);
    qd_arena_done(&arena);
    qd_config_done(&c);
    return 0;
}
