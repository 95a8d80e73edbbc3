/* test_forward.c -- the driver: hooks see and replace what they should, errors and cancels end it, memory may run out
 * anywhere. Numbers are checked against transformers in tests/e2e/test_forward.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/fault.h"
#include "base/path.h"
#include "calib/activations.h"
#include "calib/forward.h"
#include "gpu/num.h"
#include "tests/unit/ckpt/scratch.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>

enum {
    LAYERS = 3,
    HIDDEN = 32,
    VOCAB = 40,
    INTER = 24,
    SHARED = 16,
    N_EXPERTS = 4,
    SEQS = 5,
    LENGTH = 7,
    ROWS = SEQS * LENGTH
};

typedef struct fix {
    scratch *s;
    qd_ckpt c;
    qd_model_index x;
    qd_err err;
    int32_t ids[ROWS];
    uint64_t starts[SEQS + 1];
    qd_tokens tokens;
    /* what the hooks saw */
    pthread_mutex_t lock;
    uint64_t rows_at[QD_SITE_COUNT], expert_rows[N_EXPERTS], n_hidden[LAYERS + 1], n_logits, n_margins, n_layers_seen;
    float hidden[ROWS * HIDDEN], logits[ROWS * VOCAB];
    bool zero_down, stop_at_layer_1;
    qd_cancel cancel;
} fix;

static void add(qd_tensor *list, uint32_t *n, uint64_t *off, const char *name, uint64_t rows, uint64_t cols)
{
    qd_tensor t = {
        .name = strdup(name), .dtype = QD_BF16, .rank = cols == 0 ? 1 : 2, .shape = {rows, cols}, .off = *off};
    t.n_elems = rows * (cols == 0 ? 1 : cols);
    t.bytes = t.n_elems * 2;
    *off += t.bytes;
    list[(*n)++] = t;
}

/* qwen3_5_moe with attention in layer 2 and the delta rule in the others: all kinds of parts. */
static void write_model(scratch *s)
{
    static const char config[] =
        "{\"model_type\":\"qwen3_5_moe_text\",\"hidden_size\":32,\"num_hidden_layers\":3,\"vocab_size\":40,"
        "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":8,\"num_experts\":4,"
        "\"num_experts_per_tok\":2,\"moe_intermediate_size\":24,\"shared_expert_intermediate_size\":16,"
        "\"linear_num_key_heads\":1,\"linear_num_value_heads\":2,\"linear_key_head_dim\":8,\"linear_value_head_dim\":8,"
        "\"layer_types\":[\"linear_attention\",\"linear_attention\",\"full_attention\"],\"tie_word_embeddings\":true}";
    static const struct {
        const char *name;
        uint64_t rows, cols;
        int which; /* 0 every layer, 1 delta, 2 attention */
    } parts[] = {
        {"input_layernorm.weight", HIDDEN, 0, 0},
        {"post_attention_layernorm.weight", HIDDEN, 0, 0},
        {"linear_attn.in_proj_qkv.weight", 32, HIDDEN, 1},
        {"linear_attn.in_proj_z.weight", 16, HIDDEN, 1},
        {"linear_attn.in_proj_a.weight", 2, HIDDEN, 1},
        {"linear_attn.in_proj_b.weight", 2, HIDDEN, 1},
        {"linear_attn.conv1d.weight", 32, 4, 1},
        {"linear_attn.A_log", 2, 0, 1},
        {"linear_attn.dt_bias", 2, 0, 1},
        {"linear_attn.norm.weight", 8, 0, 1},
        {"linear_attn.out_proj.weight", HIDDEN, 16, 1},
        {"self_attn.q_proj.weight", 32, HIDDEN, 2},
        {"self_attn.k_proj.weight", 8, HIDDEN, 2},
        {"self_attn.v_proj.weight", 8, HIDDEN, 2},
        {"self_attn.o_proj.weight", HIDDEN, 16, 2},
        {"self_attn.q_norm.weight", 8, 0, 2},
        {"self_attn.k_norm.weight", 8, 0, 2},
        {"mlp.gate.weight", N_EXPERTS, HIDDEN, 0},
        {"mlp.shared_expert.gate_proj.weight", SHARED, HIDDEN, 0},
        {"mlp.shared_expert.up_proj.weight", SHARED, HIDDEN, 0},
        {"mlp.shared_expert.down_proj.weight", HIDDEN, SHARED, 0},
        {"mlp.shared_expert_gate.weight", 1, HIDDEN, 0},
    };
    static qd_tensor list[256];
    uint32_t n = 0;
    uint64_t off = 0, seed = 3;
    char name[128];
    add(list, &n, &off, "model.embed_tokens.weight", VOCAB, HIDDEN);
    add(list, &n, &off, "model.norm.weight", HIDDEN, 0);
    for (int l = 0; l < LAYERS; l++) {
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            if (parts[i].which != 0 && (parts[i].which == 2) != (l == 2)) continue;
            (void)snprintf(name, sizeof name, "model.layers.%d.%s", l, parts[i].name);
            add(list, &n, &off, name, parts[i].rows, parts[i].cols);
        }
        for (int e = 0; e < N_EXPERTS; e++)
            for (int p = 0; p < 3; p++) {
                static const char *const names[] = {"gate", "up", "down"};
                (void)snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s_proj.weight", l, e, names[p]);
                add(list, &n, &off, name, p == 2 ? HIDDEN : INTER, p == 2 ? INTER : HIDDEN);
            }
    }
    qd_buf b = {0};
    assert_int_equal(qd_st_write_header(list, n, NULL, 0, &b, NULL), QD_OK);
    for (uint64_t i = 0; i < off / 2; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint16_t h = qd_bf16_from_f32(((float)(seed >> 40) / 16777216.0f - 0.5f) * 0.8f);
        qd_buf_add(&b, &h, sizeof h);
    }
    put(s, "model.safetensors", b.data, b.len);
    put_text(s, "config.json", config);
    qd_buf_done(&b);
    for (uint32_t i = 0; i < n; i++) free((void *)(uintptr_t)list[i].name);
}

static int setup(void **state)
{
    fix *f = calloc(1, sizeof *f);
    void *s = NULL;
    if (f == NULL || scratch_make(&s) != 0) return 1;
    f->s = s;
    write_model(f->s);
    assert_int_equal(qd_ckpt_open(f->s->dir, &f->c, &f->err), QD_OK);
    if (qd_model_index_open(&f->c, &f->x, &f->err) != QD_OK) fail_msg("%s", f->err.msg);
    for (int32_t i = 0; i < ROWS; i++) f->ids[i] = (i * 17 + i * i) % VOCAB;
    for (uint64_t i = 0; i <= SEQS; i++) f->starts[i] = i * LENGTH;
    f->tokens = (qd_tokens){f->ids, f->starts, SEQS};
    (void)pthread_mutex_init(&f->lock, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fix *f = *state;
    void *s = f->s;
    qd_model_index_done(&f->x);
    qd_ckpt_done(&f->c);
    (void)pthread_mutex_destroy(&f->lock);
    free(f);
    return scratch_remove(&s);
}

static qd_code on_weights(void *ctx, qd_layer *layer, qd_tasks *tasks, qd_err *err)
{
    fix *f = ctx;
    f->n_layers_seen++;
    if (f->stop_at_layer_1 && layer->number == 1) qd_cancel_set(&f->cancel, 15);
    return qd_tasks_tick(tasks, err);
}

static qd_code on_input(void *ctx, const qd_site *site, float *replaced, bool *ret_replaced, qd_err *err)
{
    fix *f = ctx;
    qd_code rc = qd_lane_tick(site->lane, err);
    if (rc != QD_OK) return rc;
    (void)pthread_mutex_lock(&f->lock);
    f->rows_at[site->kind] += site->rows;
    if (site->kind == QD_SITE_EXPERT_IN) f->expert_rows[site->expert] += site->rows;
    (void)pthread_mutex_unlock(&f->lock);
    bool down = site->kind == QD_SITE_EXPERT_DOWN || site->kind == QD_SITE_SHARED_DOWN ||
                site->kind == QD_SITE_ATTN_OUT || site->kind == QD_SITE_DELTA_OUT;
    if (!f->zero_down || !down) return QD_OK;
    for (uint64_t i = 0; i < site->rows * site->cols; i++) replaced[i] = 0;
    *ret_replaced = true;
    return QD_OK;
}

static qd_code on_hidden(void *ctx, uint64_t index, uint64_t first, uint64_t rows, const float *x, qd_err *err)
{
    fix *f = ctx;
    (void)err;
    (void)pthread_mutex_lock(&f->lock);
    f->n_hidden[index] += rows;
    (void)pthread_mutex_unlock(&f->lock);
    if (index == LAYERS - 1) memcpy(f->hidden + first * HIDDEN, x, rows * HIDDEN * sizeof *x);
    return QD_OK;
}

static qd_code on_logits(void *ctx, uint64_t first, uint64_t rows, const float *x, qd_err *err)
{
    fix *f = ctx;
    (void)err;
    (void)pthread_mutex_lock(&f->lock);
    f->n_logits += rows;
    (void)pthread_mutex_unlock(&f->lock);
    memcpy(f->logits + first * VOCAB, x, rows * VOCAB * sizeof *x);
    return QD_OK;
}

static qd_code on_router(void *ctx, uint64_t layer, uint64_t first, uint64_t rows, const float *margin, qd_err *err)
{
    fix *f = ctx;
    (void)layer;
    (void)first;
    (void)err;
    (void)pthread_mutex_lock(&f->lock);
    for (uint64_t i = 0; i < rows; i++) f->n_margins += margin[i] >= 0 && margin[i] <= 1;
    (void)pthread_mutex_unlock(&f->lock);
    return QD_OK;
}

static qd_forward_hooks all_hooks(fix *f)
{
    return (qd_forward_hooks){.ctx = f,
                              .on_weights = on_weights,
                              .on_input = on_input,
                              .on_hidden = on_hidden,
                              .on_logits = on_logits,
                              .on_router = on_router};
}

static void run_ok(fix *f, qd_forward_opts opts, const qd_forward_hooks *hooks)
{
    qd_forward_stats stats = {0};
    if (qd_forward_run(&f->x, &f->tokens, &opts, hooks, &stats, &f->err) != QD_OK) fail_msg("%s", f->err.msg);
    assert_true(stats.flops > 0);
    qd_forward_memory memory = {0};
    qd_forward_measure(&f->x, &f->tokens, &opts, hooks, &memory);
    assert_true(stats.lane_bytes > 0 && stats.lane_bytes <= memory.lane_bytes);
    assert_int_equal(memory.activation_bytes, ROWS * HIDDEN * (opts.bf16 ? 2 : 4));
    for (uint64_t i = 0; i < LAYERS; i++) {
        qd_layer layer = {0};
        assert_int_equal(qd_layer_load(&f->x, i, qd_ops_host("cpu"), opts.bf16, NULL, &layer, &f->err), QD_OK);
        assert_true(layer.memory_bytes <= memory.layer_bytes);
        qd_layer_done(&layer);
    }
}

static void hooks_see_every_row_of_every_linear(void **state)
{
    fix *f = *state;
    qd_forward_hooks hooks = all_hooks(f);
    run_ok(f, (qd_forward_opts){.n_threads = 2}, &hooks);
    assert_int_equal(f->n_layers_seen, LAYERS);
    for (int i = 0; i <= LAYERS; i++) assert_int_equal(f->n_hidden[i], ROWS);
    assert_int_equal(f->n_logits, ROWS);
    assert_int_equal(f->n_margins, LAYERS * ROWS);
    assert_int_equal(f->rows_at[QD_SITE_ATTN_IN], ROWS);
    assert_int_equal(f->rows_at[QD_SITE_ATTN_OUT], ROWS);
    assert_int_equal(f->rows_at[QD_SITE_DELTA_IN], 2 * ROWS);
    assert_int_equal(f->rows_at[QD_SITE_DELTA_OUT], 2 * ROWS);
    assert_int_equal(f->rows_at[QD_SITE_SHARED_IN], LAYERS * ROWS);
    assert_int_equal(f->rows_at[QD_SITE_SHARED_DOWN], LAYERS * ROWS);
    assert_int_equal(f->rows_at[QD_SITE_EXPERT_IN], LAYERS * ROWS * 2); /* two of them a token */
    assert_int_equal(f->rows_at[QD_SITE_EXPERT_DOWN], LAYERS * ROWS * 2);
    assert_int_equal(f->rows_at[QD_SITE_MLP_IN], 0);
    assert_int_equal(f->rows_at[QD_SITE_HEAD], ROWS);
}

static void with_all_experts_each_sees_every_token_and_the_output_is_the_same(void **state)
{
    fix *f = *state;
    qd_forward_hooks hooks = all_hooks(f);
    static float routed[ROWS * VOCAB];
    run_ok(f, (qd_forward_opts){.n_threads = 1}, &hooks);
    memcpy(routed, f->logits, sizeof routed);
    memset(f->expert_rows, 0, sizeof f->expert_rows);
    run_ok(f, (qd_forward_opts){.n_threads = 1, .all_experts = true}, &hooks);
    for (int e = 0; e < N_EXPERTS; e++) assert_int_equal(f->expert_rows[e], LAYERS * ROWS);
    for (int i = 0; i < ROWS * VOCAB; i++) assert_true(fabsf(routed[i] - f->logits[i]) <= 1e-5f);
}

static void a_replaced_input_is_what_the_linears_read(void **state)
{
    fix *f = *state;
    qd_forward_hooks hooks = all_hooks(f);
    f->zero_down = true; /* every branch adds nothing: the input of the last layer is the embedding */
    run_ok(f, (qd_forward_opts){.n_threads = 2}, &hooks);
    const qd_tensor *t = qd_ckpt_find(&f->c, "model.embed_tokens.weight");
    uint16_t row[HIDDEN];
    for (uint64_t i = 0; i < ROWS; i++) {
        assert_int_equal(
            qd_source_read(f->c.files[0].src, t->off + (uint64_t)f->ids[i] * sizeof row, row, sizeof row, NULL), QD_OK);
        for (int j = 0; j < HIDDEN; j++) assert_true(f->hidden[i * HIDDEN + (uint64_t)j] == qd_bf16_to_f32(row[j]));
    }
}

static void a_cancel_between_layers_ends_it(void **state)
{
    fix *f = *state;
    qd_forward_hooks hooks = all_hooks(f);
    qd_forward_opts opts = {.n_threads = 2, .cancel = &f->cancel};
    qd_forward_stats stats = {0};
    f->stop_at_layer_1 = true;
    assert_int_equal(qd_forward_run(&f->x, &f->tokens, &opts, &hooks, &stats, &f->err), QD_E_CANCELED);
    assert_int_equal(f->n_layers_seen, 2);
    assert_int_equal(f->n_hidden[2], 0);
    assert_int_equal(stats.flops, 0); /* untouched */
}

static void a_cancel_while_weights_are_read_ends_it(void **state)
{
    fix *f = *state;
    qd_layer layer = {0};
    qd_tasks tasks = {.n_threads = 1, .cancel = &f->cancel};
    assert_int_equal(qd_layer_load(&f->x, 0, qd_ops_host("cpu"), true, &tasks, &layer, &f->err), QD_OK);
    assert_true(tasks.n_ticks > 10);
    qd_layer_done(&layer);
    qd_cancel_set(&f->cancel, 2);
    assert_int_equal(qd_layer_load(&f->x, 0, qd_ops_host("cpu"), true, &tasks, &layer, &f->err), QD_E_CANCELED);
    assert_null(layer.memory);
}

static void the_numerics_id_names_what_products_depend_on(void **state)
{
    char a[QD_FORWARD_NUMERICS_BYTES], b[QD_FORWARD_NUMERICS_BYTES];
    (void)state;
    qd_forward_numerics(qd_ops_host("cpu"), a);
    qd_forward_numerics(qd_ops_host("cpu-bf16"), b);
    assert_string_not_equal(a, b);
    assert_non_null(strstr(a, "onednn-"));
    qd_forward_numerics(NULL, b);
    assert_non_null(strstr(b, "tiles-"));
}

static void tokens_that_cannot_be_are_refused(void **state)
{
    fix *f = *state;
    qd_forward_hooks hooks = {0};
    qd_forward_opts opts = {0};
    qd_forward_stats stats = {0};
    f->ids[LENGTH + 2] = VOCAB;
    assert_int_equal(qd_forward_run(&f->x, &f->tokens, &opts, &hooks, &stats, &f->err), QD_E_INPUT);
    assert_string_equal(f->err.msg, "sequence 1, token 2: expected an id below 40, found 40");
    f->ids[LENGTH + 2] = 0;
    f->starts[2] = f->starts[1];
    assert_int_equal(qd_forward_run(&f->x, &f->tokens, &opts, &hooks, &stats, &f->err), QD_E_INPUT);
    assert_string_equal(f->err.msg, "sequence 1 is empty");
    f->tokens.n_seqs = 0; /* the part of a rank for which there is none */
    assert_int_equal(qd_forward_run(&f->x, &f->tokens, &opts, &hooks, &stats, &f->err), QD_OK);
}

static void parts_of_tokens_are_whole_tiles_and_nothing_is_left_out(void **state)
{
    enum {
        N = 23,
        LEN = 100 /* five a tile */
    };
    const qd_model_config m = {0};
    static int32_t ids[N * LEN];
    uint64_t starts[N + 1];
    (void)state;
    for (uint64_t i = 0; i <= N; i++) starts[i] = i * LEN;
    const qd_tokens all = {.ids = ids, .starts = starts, .n_seqs = N};
    for (uint32_t n_parts = 1; n_parts <= 7; n_parts++) {
        uint64_t seqs = 0;
        for (uint32_t p = 0; p < n_parts; p++) {
            qd_tokens part;
            uint64_t first = qd_tokens_part(&m, &all, p, n_parts, &part);
            assert_true(part.ids == ids + seqs * LEN); /* behind the part before */
            assert_int_equal(seqs, first * 5 < N ? first * 5 : N);
            assert_ptr_equal(part.starts, starts);
            seqs += part.n_seqs;
        }
        assert_int_equal(seqs, N);
    }
    qd_tokens none = {.ids = ids, .starts = starts};
    assert_int_equal(qd_tokens_part(&m, &none, 1, 3, &none), 0);
    assert_int_equal(none.n_seqs, 0);
}

static void memory_may_run_out_at_any_allocation(void **state)
{
    fix *f = *state;
    qd_forward_hooks hooks = all_hooks(f);
    qd_forward_stats stats = {0};
    qd_forward_opts opts = {.n_threads = 1, .bf16 = true, .ops = qd_ops_host("cpu-bf16")};
    unsigned long n = 1;
    for (qd_code rc = QD_E_NO_MEMORY; rc != QD_OK; n += n < 60 ? 1 : 7) {
        qd_model_index x = {0};
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        rc = qd_model_index_open(&f->c, &x, &f->err);
        if (rc == QD_OK) rc = qd_forward_run(&x, &f->tokens, &opts, &hooks, &stats, &f->err);
        bool reached = qd_fault_count(QD_FAULT_ALLOC) >= n;
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        qd_model_index_done(&x);
        assert_int_equal(rc, reached ? QD_E_NO_MEMORY : QD_OK);
        assert_true(n < 100000);
    }
    assert_true(n > 60);
}

static void activations_beyond_the_limit_lie_in_a_file(void **state)
{
    fix *f = *state;
    qd_activations a = {0}, b = {0};
    assert_int_equal(qd_activations_open(QD_BF16, 100, 7, 1400, f->s->dir, &a, &f->err), QD_OK);
    assert_false(a.spilled);
    assert_int_equal(qd_activations_open(QD_BF16, 100, 7, 1399, f->s->dir, &b, &f->err), QD_OK);
    assert_true(b.spilled);
    memset(b.data, 1, b.bytes);
    assert_ptr_equal(qd_activations_row(&b, 3), b.data + 42);
    qd_activations_done(&a);
    qd_activations_done(&b);
    qd_activations_done(&b);
    assert_int_equal(qd_activations_open(QD_F32, 10, 10, 0, "/nowhere", &a, &f->err), QD_E_IO);
    assert_non_null(strstr(f->err.msg, "/nowhere"));
    assert_int_equal(qd_activations_open(QD_F32, UINT64_MAX, 10, 0, NULL, &a, &f->err), QD_E_ROOM);
    assert_int_not_equal(qd_activations_open(QD_F32, UINT64_C(1) << 58, 4, 0, f->s->dir, &a, &f->err), QD_OK);
    assert_null(a.data);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(hooks_see_every_row_of_every_linear),
        T(with_all_experts_each_sees_every_token_and_the_output_is_the_same),
        T(a_replaced_input_is_what_the_linears_read),
        T(a_cancel_between_layers_ends_it),
        T(a_cancel_while_weights_are_read_ends_it),
        T(the_numerics_id_names_what_products_depend_on),
        T(tokens_that_cannot_be_are_refused),
        T(parts_of_tokens_are_whole_tiles_and_nothing_is_left_out),
        T(memory_may_run_out_at_any_allocation),
        T(activations_beyond_the_limit_lie_in_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
