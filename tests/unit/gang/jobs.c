#include "tests/unit/gang/jobs.h"

#include "engine/job.h"
#include "tests/unit/engine/small_model.h"

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <pthread.h>
#include <unistd.h>

enum {
    LAYERS = 2,
    HIDDEN = 64,
    FF = 96,
    VOCAB = 64,
    SAMPLES = 20,
    LENGTH = 96, /* five a tile */
    EXPERTS = 5,
    EXPERT_SAMPLES = 64, /* 21 a tile */
    SIZES = 4
};
static const uint32_t k_sizes[SIZES] = {2, 3, 4, 6}; /* six: more ranks than tiles of tokens */

typedef struct bench {
    const gang_kind *kind;
    char root[64];
    char *model, *ids, *out, *staging;
    qd_template tmpl;
    qd_arena arena;
    qd_values values, other_values; /* other: of the last rank, where they differ */
    bool differ, resume;
    uint32_t cancel_rank;
    unsigned long cancel_at; /* the rank's count of progress at which it is canceled; 0: never */
    qd_code code[GANG_MAX];
    qd_err err[GANG_MAX];
    qd_job_result result;
    double *rel_error; /* rank 0's, shared with processes; NULL: threads */
    pthread_mutex_t lock;
    qd_comm *at_work[GANG_MAX]; /* communicators of jobs that run */
    bool broken;
} bench;

/* llama, or with experts Mixtral: they differ in the MLP alone. */
static void write_model(const char *dir, bool experts, long poke)
{
    static const char llama[] = "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"],\n",
                      mixtral[] = "{\"model_type\": \"mixtral\", \"architectures\": [\"MixtralForCausalLM\"],\n"
                                  " \"num_local_experts\": 5, \"num_experts_per_tok\": 2, \"sliding_window\": null,\n";
    static const char config[] =
        " \"num_hidden_layers\": 2, \"hidden_size\": 64, \"intermediate_size\": 96, \"num_attention_heads\": 4, "
        "\"num_key_value_heads\": 2,\n"
        " \"head_dim\": 16, \"vocab_size\": 64, \"max_position_embeddings\": 256, \"rms_norm_eps\": 1e-06,\n"
        " \"hidden_act\": \"silu\", \"rope_theta\": 10000.0, \"tie_word_embeddings\": true}";
    static const struct {
        const char *name;
        uint64_t rows, cols;
    } list_of_layer[] = {
        {"input_layernorm", HIDDEN, 0},   {"self_attn.q_proj", HIDDEN, HIDDEN}, {"self_attn.k_proj", 32, HIDDEN},
        {"self_attn.v_proj", 32, HIDDEN}, {"self_attn.o_proj", HIDDEN, HIDDEN}, {"post_attention_layernorm", HIDDEN, 0},
        {"mlp.gate_proj", FF, HIDDEN},    {"mlp.up_proj", FF, HIDDEN},          {"mlp.down_proj", HIDDEN, FF}};
    const size_t n_dense = sizeof list_of_layer / sizeof list_of_layer[0] - (experts ? 3 : 0);
    qd_tensor list[64];
    uint32_t n = 0;
    uint64_t off = 0, seed = 1;
    char name[128];
    qd_buf b = {0};
    if (mkdir(dir, 0755) != 0) abort();
    sm_tensor(list, &n, &off, "model.embed_tokens.weight", VOCAB, HIDDEN);
    for (int l = 0; l < LAYERS; l++) {
        for (size_t k = 0; k < n_dense; k++) {
            (void)snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, list_of_layer[k].name);
            sm_tensor(list, &n, &off, name, list_of_layer[k].rows, list_of_layer[k].cols);
        }
        if (!experts) continue;
        (void)snprintf(name, sizeof name, "model.layers.%d.block_sparse_moe.gate.weight", l);
        sm_tensor(list, &n, &off, name, EXPERTS, HIDDEN);
        for (int e = 0; e < 3 * EXPERTS; e++) {
            (void)snprintf(name, sizeof name, "model.layers.%d.block_sparse_moe.experts.%d.w%d.weight", l, e / 3,
                           e % 3 + 1);
            sm_tensor(list, &n, &off, name, e % 3 == 1 ? HIDDEN : FF, e % 3 == 1 ? FF : HIDDEN);
        }
    }
    sm_tensor(list, &n, &off, "model.norm.weight", HIDDEN, 0);
    if (qd_st_write_header(list, n, NULL, 0, &b, NULL) != QD_OK) abort();
    for (uint32_t t = 0; t < n; t++)
        for (uint64_t i = 0; i < list[t].n_elems; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            float v = (float)(seed >> 40) / 16777216.0f - 0.5f;
            v = list[t].rank == 1 ? 1.0f + v * 0.2f : v * (i % 97 == 0 ? 1.0f : 0.3f);
            uint16_t h = (long)(list[t].off / 2 + i) == poke ? 0x7fc0 : qd_bf16_from_f32(v);
            qd_buf_add(&b, &h, 2);
        }
    sm_put(dir, "model.safetensors", b.data, b.len);
    qd_buf_reset(&b);
    qd_buf_str(&b, experts ? mixtral : llama);
    qd_buf_str(&b, config);
    sm_put(dir, "config.json", b.data, b.len);
    qd_buf_done(&b);
    for (uint32_t i = 0; i < n; i++) free((void *)(uintptr_t)list[i].name);
}

static void write_ids(const char *dir, uint64_t n_samples)
{
    qd_tensor t = {.name = "input_ids", .dtype = QD_I64, .rank = 2, .shape = {n_samples, LENGTH}};
    qd_buf b = {0};
    t.n_elems = n_samples * LENGTH;
    t.bytes = t.n_elems * 8;
    if (qd_st_write_header(&t, 1, NULL, 0, &b, NULL) != QD_OK) abort();
    for (int64_t i = 0; i < (int64_t)t.n_elems; i++) {
        int64_t id = (i * 37 + i / 64 * 11 + i * i % 13) % VOCAB;
        qd_buf_add(&b, &id, sizeof id);
    }
    sm_put(dir, "ids.safetensors", b.data, b.len);
    qd_buf_done(&b);
}

int jobs_set_up(void **state, const gang_kind *kind)
{
    bench *b = calloc(1, sizeof *b);
    (void)snprintf(b->root, sizeof b->root, "qd-gang-XXXXXX");
    *state = b;
    b->kind = kind;
    if (pthread_mutex_init(&b->lock, NULL) != 0) return -1;
    if (mkdtemp(b->root) == NULL) return -1;
    b->model = qd_path_join(b->root, "model");
    b->ids = qd_path_join(b->root, "ids.safetensors");
    b->out = qd_path_join(b->root, "out");
    b->staging = qd_path_join(b->root, "out.staging");
    write_model(b->model, false, -1);
    write_ids(b->root, SAMPLES);
    return 0;
}

int jobs_tear_down(void **state)
{
    bench *b = *state;
    qd_code rc = qd_tree_remove(b->root, NULL);
    qd_template_done(&b->tmpl);
    qd_arena_done(&b->arena);
    qd_free(b->model);
    qd_free(b->ids);
    qd_free(b->out);
    qd_free(b->staging);
    (void)pthread_mutex_destroy(&b->lock);
    free(b);
    return rc == QD_OK ? 0 : -1;
}

static void use(bench *b, const char *tmpl, const char *const *settings, uint32_t n)
{
    qd_err e = {0};
    qd_template_done(&b->tmpl);
    memset(&b->tmpl, 0, sizeof b->tmpl);
    if (qd_template_load(QD_TEST_SOURCE_DIR "/deploy/templates", tmpl, &b->tmpl, &e) != QD_OK ||
        qd_values_resolve(&b->tmpl, settings, n, &b->arena, &b->values, &e) != QD_OK)
        fail_msg("%s", e.msg);
}

typedef struct counter {
    bench *b;
    seat *s; /* NULL: one rank */
    unsigned long n;
} counter;

static void on_progress(void *ctx, const qd_job_progress *p)
{
    counter *c = ctx;
    (void)p;
    if (++c->n == c->b->cancel_at && c->s != NULL && c->s->rank == c->b->cancel_rank) qd_cancel_set(&c->s->cancel, 15);
}

static qd_job_opts opts_of(const bench *b)
{
    return (qd_job_opts){.model_dir = b->model,
                         .out_dir = b->out,
                         .tmpl = &b->tmpl,
                         .values = &b->values,
                         .calib_files = (const char *const *)&b->ids,
                         .n_calib_files = 1,
                         .n_threads = 2,
                         .resume = b->resume};
}

/* What supervisors do where the communicator does not tell the others (docs/gang.md): who learns of a failure has all
 * ranks' calls end, its own too, so that none sits out its wait. */
static void begins(bench *b, seat *s)
{
    (void)pthread_mutex_lock(&b->lock);
    b->at_work[s->rank] = s->comm;
    if (b->broken) qd_comm_abort(s->comm, "the gang is over");
    (void)pthread_mutex_unlock(&b->lock);
}

static void ends(bench *b, const seat *s, qd_code rc)
{
    (void)pthread_mutex_lock(&b->lock);
    if (!b->kind->tells && (rc == QD_E_CANCELED || (rc != QD_OK && s->rank == 0))) {
        b->broken = true;
        for (uint32_t r = 0; r < GANG_MAX; r++)
            if (b->at_work[r] != NULL) qd_comm_abort(b->at_work[r], "the gang is over");
    }
    b->at_work[s->rank] = NULL;
    (void)pthread_mutex_unlock(&b->lock);
}

static bool run_rank(seat *s)
{
    bench *b = s->arg;
    qd_gang gang = {.comm = s->comm};
    qd_job_opts o = opts_of(b);
    qd_job_result result = {0};
    counter c = {b, s, 0};
    qd_job_events events = {.ctx = &c, .progress = on_progress};
    o.gang = &gang;
    if (b->differ && s->rank == s->n_ranks - 1) o.values = &b->other_values;
    o.n_threads = 1 + s->rank % 3;
    begins(b, s);
    b->code[s->rank] = qd_job_run(&o, &events, &s->cancel, &result, &b->err[s->rank]);
    ends(b, s, b->code[s->rank]);
    if (s->rank == 0) b->result = result;
    return true;
}

static void run_gang(bench *b, uint32_t n)
{
    memset(b->err, 0, sizeof b->err);
    b->broken = false;
    assert_true(gang_threads(b->kind, n, PATIENT_MS, run_rank, b));
}

static void all_well(const bench *b, uint32_t n)
{
    for (uint32_t r = 0; r < n; r++)
        if (b->code[r] != QD_OK) fail_msg("rank %u of %u: %s", r, n, b->err[r].msg);
    assert_int_equal(b->result.n_ranks, n);
    assert_true(b->result.device_s > 0);
}

static void clear(const bench *b)
{
    assert_int_equal(qd_tree_remove(b->out, NULL), QD_OK);
    assert_int_equal(qd_tree_remove(b->staging, NULL), QD_OK);
}

static qd_hash128 alone(bench *b)
{
    qd_job_opts o = opts_of(b);
    qd_err e = {0};
    if (qd_job_run(&o, NULL, NULL, &b->result, &e) != QD_OK) fail_msg("%s", e.msg);
    qd_hash128 h = sm_hash_dir(b->out);
    clear(b);
    return h;
}

static qd_hash128 together(bench *b, uint32_t n)
{
    run_gang(b, n);
    all_well(b, n);
    assert_false(qd_path_exists(b->staging));
    qd_hash128 h = sm_hash_dir(b->out);
    clear(b);
    return h;
}

static bool run_process(seat *s)
{
    bench *b = s->arg;
    (void)run_rank(s);
    if (s->rank == 0) *b->rel_error = b->result.rel_error;
    if (b->code[s->rank] == QD_OK) return true;
    (void)fprintf(stderr, "rank %u of %u: %s\n", (unsigned)s->rank, (unsigned)s->n_ranks, b->err[s->rank].msg);
    return false;
}

/* Each rank a process of its own, as quantd's are. */
static qd_hash128 in_processes(bench *b, const gang_kind *kind, uint32_t n)
{
    gang_processes p = gang_start(kind, n, PATIENT_MS, run_process, b);
    assert_true(gang_wait(&p, n));
    qd_hash128 h = sm_hash_dir(b->out);
    clear(b);
    return h;
}

static void same_for_every_size(bench *b)
{
    qd_hash128 one = alone(b);
    double error = b->result.rel_error;
    for (int i = 0; i < SIZES; i++) {
        if (!qd_hash_equal(one, together(b, k_sizes[i]))) fail_msg("other bytes on %u ranks", k_sizes[i]);
        assert_true(b->result.rel_error == error);
    }
}

#define PLAIN "method=rtn", "smoothing=none", "gate_samples=0", "block_scale=minmax"

/* Before what runs threads in this process, of which a fork would keep nothing but the locks. */
void processes_give_the_bytes_of_shared_memory(void **state)
{
    static const char *const plain[] = {PLAIN}, *const fast[] = {"gate_samples=0"}, *const gptq[] = {"gate_samples=0"};
    static const struct {
        const char *tmpl;
        const char *const *settings;
        uint32_t n_settings;
        bool one_size; /* the same bytes for one size and one communicator only */
    } list[] = {
        {"nvfp4-w4a16", NULL, 0, false},
        {"nvfp4-w4a4", plain, 4, false},
        {"nvfp4-w4a4-fast", fast, 1, false},
        {"nvfp4-w4a4", gptq, 1, true},
    };
    bench *b = *state;
    const gang_kind other = {.kind = qd_comm_shm(), .tells = true};
    b->rel_error = gang_share();
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        use(b, list[i].tmpl, list[i].settings, list[i].n_settings);
        qd_hash128 one = in_processes(b, &other, 1);
        double error = *b->rel_error;
        for (uint32_t n = 1; n <= 4; n++) {
            qd_hash128 mine = in_processes(b, b->kind, n);
            if (fabs(*b->rel_error / error - 1) >= (list[i].one_size ? 0.02 : 1e-12))
                fail_msg("%s on %u ranks: error %g, on one %g", list[i].tmpl, n, *b->rel_error, error);
            qd_hash128 again = in_processes(b, list[i].one_size ? b->kind : &other, n);
            if (!qd_hash_equal(mine, again)) fail_msg("%s on %u ranks: other bytes", list[i].tmpl, n);
            if (!list[i].one_size && !qd_hash_equal(mine, one)) fail_msg("%s: not those of one rank", list[i].tmpl);
        }
    }
    gang_share_done(b->rel_error);
}

void weights_alone_are_the_same_for_every_size(void **state)
{
    static const char *const minmax[] = {"block_scale=minmax"};
    use(*state, "nvfp4-w4a16", NULL, 0);
    same_for_every_size(*state);
    use(*state, "nvfp4-w4a16", minmax, 1);
    same_for_every_size(*state);
}

void plain_calibration_is_the_same_for_every_size(void **state)
{
    static const char *const plain[] = {PLAIN}, *const cache[] = {PLAIN, "kv_cache=fp8"};
    static const char *const exact[] = {PLAIN, "scale_arithmetic=ct-exact"};
    use(*state, "nvfp4-w4a4", plain, 4);
    same_for_every_size(*state);
    use(*state, "nvfp4-w4a4", cache, 5);
    same_for_every_size(*state);
    use(*state, "nvfp4-w4a4", exact, 5);
    same_for_every_size(*state);
}

void every_input_rule_is_the_same_for_every_size(void **state)
{
    static const char *const percentile[] = {PLAIN, "input_scale=percentile"}, *const mse[] = {PLAIN,
                                                                                               "input_scale=mse"};
    use(*state, "nvfp4-w4a4", percentile, 5);
    same_for_every_size(*state);
    use(*state, "nvfp4-w4a4", mse, 5);
    same_for_every_size(*state);
}

void second_moments_scaling_and_the_gate_are_the_same_for_every_size(void **state)
{
    static const char *const gate[] = {"gate_samples=3"}, *const cache[] = {"gate_samples=0", "kv_cache=fp8"};
    use(*state, "nvfp4-w4a4-fast", gate, 1);
    same_for_every_size(*state);
    use(*state, "nvfp4-w4a4-fast", cache, 2);
    same_for_every_size(*state);
}

void gptq_is_the_same_for_one_size_and_near_for_others(void **state)
{
    static const char *const settings[] = {"gate_samples=2"};
    bench *b = *state;
    use(b, "nvfp4-w4a4", settings, 1);
    (void)alone(b);
    double error = b->result.rel_error;
    for (int i = 0; i < SIZES - 1; i++) {
        qd_hash128 first = together(b, k_sizes[i]);
        assert_true(fabs(b->result.rel_error / error - 1) < 0.02);
        if (!qd_hash_equal(first, together(b, k_sizes[i]))) fail_msg("two runs on %u ranks differ", k_sizes[i]);
    }
}

static void use_experts(bench *b)
{
    qd_free(b->model);
    b->model = qd_path_join(b->root, "experts");
    write_model(b->model, true, -1);
    write_ids(b->root, EXPERT_SAMPLES);
}

/* Three ranks have five experts in two rounds, six have one each but the last; tiles are three. */
void experts_as_wholes_are_the_same_for_every_size(void **state)
{
    static const char *const plain[] = {PLAIN}, *const fast[] = {"gate_samples=0"};
    use_experts(*state);
    use(*state, "nvfp4-w4a16", NULL, 0);
    same_for_every_size(*state);
    use(*state, "nvfp4-w4a4", plain, 4);
    same_for_every_size(*state);
    use(*state, "nvfp4-w4a4-fast", fast, 1);
    same_for_every_size(*state);
}

void experts_by_gptq_are_the_same_for_one_size_and_near_for_others(void **state)
{
    use_experts(*state);
    gptq_is_the_same_for_one_size_and_near_for_others(state);
}

void a_weight_that_is_no_number_is_the_jobs_error(void **state)
{
    static const char *const templates[] = {"nvfp4-w4a16", "nvfp4-w4a4-fast"};
    static const uint64_t places[] = {VOCAB * HIDDEN + HIDDEN + 5, VOCAB * HIDDEN + 3 * HIDDEN * HIDDEN + 9};
    bench *b = *state;
    qd_free(b->model);
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 2; i++) {
            char name[32];
            (void)snprintf(name, sizeof name, "bad%d%d", t, i);
            b->model = qd_path_join(b->root, name);
            write_model(b->model, false, (long)places[i]);
            use(b, templates[t], NULL, 0);
            run_gang(b, 3);
            assert_int_equal(b->code[0], QD_E_INPUT);
            assert_non_null(strstr(b->err[0].msg, "expected a finite weight, found NaN"));
            for (uint32_t r = 1; r < 3; r++) assert_true(b->code[r] == QD_E_INPUT || b->code[r] == QD_E_GANG);
            assert_false(qd_path_exists(b->out));
            assert_false(qd_path_exists(b->staging));
            if (t + i < 2) qd_free(b->model);
        }
}

void ranks_with_other_plans_do_not_begin(void **state)
{
    static const char *const other[] = {"block_scale=minmax"};
    bench *b = *state;
    qd_err e = {0};
    use(b, "nvfp4-w4a16", NULL, 0);
    assert_int_equal(qd_values_resolve(&b->tmpl, other, 1, &b->arena, &b->other_values, &e), QD_OK);
    b->differ = true;
    run_gang(b, 3);
    for (uint32_t r = 0; r < 3; r++) {
        assert_int_equal(b->code[r], QD_E_CHANGED);
        assert_non_null(strstr(b->err[r].msg, "rank 2 has another plan than rank 0"));
    }
    assert_false(qd_path_exists(b->staging));
}

static void cancel_everywhere(bench *b, bool same_bytes_alone)
{
    qd_hash128 whole = together(b, 3);
    uint32_t n_canceled = 0;
    for (uint32_t rank = 0; rank < 3; rank++)
        for (unsigned long at = 1; at <= 5; at += 2) {
            b->cancel_rank = rank;
            b->cancel_at = at;
            b->resume = false;
            run_gang(b, 3);
            b->cancel_at = 0;
            if (b->code[0] == QD_OK) { /* it was done before */
                assert_true(qd_hash_equal(whole, sm_hash_dir(b->out)));
                clear(b);
                continue;
            }
            n_canceled++;
            for (uint32_t r = 0; r < 3; r++) {
                bool own = r == rank && b->code[r] == QD_E_CANCELED;
                if (!own && b->code[r] != QD_E_GANG && b->code[r] != QD_OK)
                    fail_msg("rank %u, canceled rank %u at %lu: %s", r, rank, at, b->err[r].msg);
            }
            assert_false(qd_path_exists(b->out));
            b->resume = true;
            qd_hash128 found = same_bytes_alone && at == 3 ? alone(b) : together(b, 3);
            b->resume = false;
            assert_true(qd_hash_equal(whole, found));
        }
    assert_true(n_canceled > 0);
}

void a_cancel_of_any_rank_ends_all_and_a_resume_goes_on(void **state)
{
    static const char *const plain[] = {PLAIN}, *const quick[] = {"gate_samples=0", "smoothing=none"};
    use(*state, "nvfp4-w4a4", plain, 4);
    cancel_everywhere(*state, true);
    use(*state, "nvfp4-w4a4", quick, 2);
    cancel_everywhere(*state, false);
    use_experts(*state);
    cancel_everywhere(*state, false);
}
