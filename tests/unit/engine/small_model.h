/* small_model.h -- a tiny llama directory for tests, and the bytes of a directory in one hash. */
#ifndef QD_TESTS_ENGINE_SMALL_MODEL_H
#define QD_TESTS_ENGINE_SMALL_MODEL_H

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/path.h"
#include "ckpt/safetensors.h"
#include "gpu/num.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    SM_LAYERS = 2,
    SM_HIDDEN = 64,
    SM_FF = 96,
    SM_VOCAB = 50
};

static inline void sm_put(const char *dir, const char *name, const void *data, size_t n)
{
    char *path = qd_path_join(dir, name);
    if (path == NULL || qd_file_replace(path, data, n, NULL) != QD_OK) abort();
    qd_free(path);
}

static inline void sm_tensor(qd_tensor *list, uint32_t *n, uint64_t *off, const char *name, uint64_t rows,
                             uint64_t cols)
{
    qd_tensor t = {
        .name = strdup(name), .dtype = QD_BF16, .rank = cols == 0 ? 1 : 2, .shape = {rows, cols}, .off = *off};
    t.n_elems = rows * (cols == 0 ? 1 : cols);
    t.bytes = t.n_elems * 2;
    *off += t.bytes;
    list[(*n)++] = t;
}

/* Writes the model into dir, which it makes. poke >= 0: the weight at that index of the data becomes a NaN. */
static inline void sm_write(const char *dir, long poke)
{
    static const char config[] =
        "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"num_hidden_layers\": 2,\n"
        " \"rms_norm_eps\": 1e-06, \"tie_word_embeddings\": true}";
    static const char *const linears[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                          "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                          "mlp.down_proj"};
    qd_tensor list[64];
    uint32_t n = 0;
    uint64_t off = 0, seed = 1;
    char name[128];
    if (mkdir(dir, 0755) != 0) abort();
    sm_tensor(list, &n, &off, "model.embed_tokens.weight", SM_VOCAB, SM_HIDDEN);
    for (int l = 0; l < SM_LAYERS; l++)
        for (int k = 0; k < 7; k++) {
            (void)snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, linears[k]);
            sm_tensor(list, &n, &off, name,
                      k == 4 || k == 5   ? SM_FF
                      : k == 1 || k == 2 ? 32
                                         : SM_HIDDEN,
                      k == 6 ? SM_FF : SM_HIDDEN);
        }
    sm_tensor(list, &n, &off, "model.norm.weight", SM_HIDDEN, 0);
    qd_buf b = {0};
    if (qd_st_write_header(list, n, NULL, 0, &b, NULL) != QD_OK) abort();
    for (uint64_t i = 0; i < off / 2; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        float v = ((float)(seed >> 40) / 16777216.0f - 0.5f) * (i % 97 == 0 ? 0.5f : 0.05f);
        uint16_t h = (long)i == poke ? 0x7fc0 : qd_bf16_from_f32(v);
        qd_buf_add(&b, &h, 2);
    }
    sm_put(dir, "model.safetensors", b.data, b.len);
    sm_put(dir, "config.json", config, sizeof config - 1);
    sm_put(dir, "tokenizer.json", "{}", 2);
    qd_buf_done(&b);
    for (uint32_t i = 0; i < n; i++) free((void *)(uintptr_t)list[i].name);
}

static inline int sm_by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names and bytes of all files but report.json, which holds times. */
static inline qd_hash128 sm_hash_dir(const char *dir)
{
    char *names[64];
    size_t n = 0;
    DIR *d = opendir(dir);
    if (d == NULL) abort();
    for (struct dirent *e; (e = readdir(d)) != NULL && n < 64;)
        if (e->d_name[0] != '.' && strcmp(e->d_name, "report.json") != 0) names[n++] = strdup(e->d_name);
    (void)closedir(d);
    qsort(names, n, sizeof *names, sm_by_name);
    qd_hasher *h = qd_hasher_new();
    for (size_t i = 0; i < n; i++) {
        char *path = qd_path_join(dir, names[i]), *text = NULL;
        size_t len = 0;
        if (qd_file_read(path, 1 << 28, &text, &len, NULL) != QD_OK) abort();
        qd_hasher_add(h, names[i], strlen(names[i]) + 1);
        qd_hasher_add(h, text, len);
        qd_free(text);
        qd_free(path);
        free(names[i]);
    }
    qd_hash128 r = qd_hasher_end(h);
    qd_hasher_free(h);
    return r;
}

#endif
