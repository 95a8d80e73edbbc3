/* test_arch_fixtures.c -- on reference checkpoints the tables find the linears that llm-compressor quantized, in its
 * sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/path.h"
#include "ckpt/arch.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct linears {
    qd_linear v[1024];
    unsigned n;
} linears;

static qd_code collect(void *ctx, const qd_linear *l, qd_err *err)
{
    (void)err;
    linears *all = ctx;
    assert_true(all->n < 1024);
    all->v[all->n++] = *l;
    return QD_OK;
}

static void find_linears(const qd_ckpt *c, const qd_arch *a, qd_arena *arena, linears *ret)
{
    qd_err err = {0};
    ret->n = 0;
    for (uint32_t i = 0; i < c->n_tensors; i++)
        if (qd_arch_linears(a, c, i, arena, collect, ret, &err) != QD_OK) fail_msg("%s", err.msg);
}

static const qd_tensor *find_tensor(const qd_st_header *h, const char *name)
{
    for (uint32_t i = 0; i < h->n_tensors; i++)
        if (strcmp(h->tensors[i].name, name) == 0) return &h->tensors[i];
    return NULL;
}

/* Part of a module on the reference's side, where mixtral's experts have other names. */
static const qd_tensor *reference_part(const qd_st_header *h, const char *module, const char *suffix)
{
    static const char *const renamed[][2] = {{".w1", ".gate_proj"}, {".w3", ".up_proj"}, {".w2", ".down_proj"}};
    char name[QD_ST_NAME_BYTES_MAX];
    const char *last = strrchr(module, '.');
    assert_non_null(last);
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(last, renamed[i][0]) != 0) continue;
        (void)snprintf(name, sizeof name, "%.*s%s%s", (int)(last - module), module, renamed[i][1], suffix);
        return find_tensor(h, name);
    }
    (void)snprintf(name, sizeof name, "%s%s", module, suffix);
    return find_tensor(h, name);
}

static float global_of(qd_source *s, const qd_st_header *h, const char *module)
{
    const qd_tensor *t = reference_part(h, module, ".weight_global_scale");
    float v = 0.0f;
    qd_err err = {0};
    assert_non_null(t);
    assert_int_equal(t->bytes, sizeof v);
    if (qd_source_read(s, t->off, &v, sizeof v, &err) != QD_OK) fail_msg("%s", err.msg);
    return v;
}

/* Sets of llm-compressor: equal scales in equal sets. Returns how many pairs tied by us alone have different ones. */
static unsigned check_sets(qd_source *s, const qd_st_header *h, const linears *all)
{
    unsigned n_apart = 0;
    for (unsigned i = 0; i < all->n; i++) {
        for (unsigned k = i + 1; k < all->n; k++) {
            const qd_linear *x = &all->v[i], *y = &all->v[k];
            bool ct = strcmp(x->fuse_key_ct, y->fuse_key_ct) == 0, ours = strcmp(x->fuse_key, y->fuse_key) == 0;
            if (ct && !ours) fail_msg("%s and %s are tied by llm-compressor only", x->name, y->name);
            if (!ours) continue;
            float gx = global_of(s, h, x->name), gy = global_of(s, h, y->name);
            bool equal = memcmp(&gx, &gy, sizeof gx) == 0;
            if (ct && !equal) fail_msg("%s and %s have different global scales", x->name, y->name);
            if (!ct && !equal) n_apart++;
        }
    }
    return n_apart;
}

static unsigned compare(const char *dir, const char *reference, unsigned *n_apart)
{
    static linears all;
    qd_ckpt c = {0};
    qd_arena arena = {0};
    qd_source *s = NULL;
    qd_st_header h = {0};
    qd_err err = {0};
    if (qd_ckpt_open(dir, &c, &err) != QD_OK) fail_msg("%s", err.msg);
    if (qd_source_open_file(reference, &s, &err) != QD_OK) fail_msg("%s", err.msg);
    if (qd_st_read_header(s, &arena, &h, &err) != QD_OK) fail_msg("%s", err.msg);
    const qd_arch *tables[] = {qd_arch_find(&c.config), NULL}; /* the usual names find the same linears here */
    assert_non_null(tables[0]);
    unsigned n_packed = 0;
    for (uint32_t i = 0; i < h.n_tensors; i++) n_packed += qd_str_ends(h.tensors[i].name, ".weight_packed");
    assert_true(n_packed > 0);
    for (size_t k = 0; k < 2; k++) {
        find_linears(&c, tables[k], &arena, &all);
        if (all.n != n_packed) fail_msg("%s: expected %u linears, found %u", dir, n_packed, all.n);
        for (unsigned i = 0; i < all.n; i++) {
            const qd_linear *l = &all.v[i];
            const qd_tensor *t = reference_part(&h, l->name, ".weight_packed");
            if (t == NULL) fail_msg("%s: %s is not quantized by llm-compressor", dir, l->name);
            assert_int_equal(t->shape[0], l->rows);
            assert_int_equal(t->shape[1] * 2, l->cols);
            assert_int_equal(l->first_row, 0);
            for (unsigned j = 0; j < i; j++) assert_string_not_equal(all.v[j].name, l->name);
        }
        *n_apart += check_sets(s, &h, &all);
    }
    qd_source_free(s);
    qd_arena_done(&arena);
    qd_ckpt_done(&c);
    return n_packed;
}

static void the_linears_are_those_that_llm_compressor_quantized(void **state)
{
    (void)state;
    unsigned n_models = 0, n_apart = 0;
    DIR *d = opendir(QD_TEST_SHARED_DIR "/fixtures");
    if (d == NULL) {
        print_message("skipped: no reference data here\n");
        skip();
    }
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        char dir[4096], reference[4200];
        (void)snprintf(dir, sizeof dir, "%s/fixtures/%s", QD_TEST_SHARED_DIR, e->d_name);
        (void)snprintf(reference, sizeof reference, "%s/ct-rtn.safetensors", dir);
        if (e->d_name[0] == '.' || !qd_path_exists(reference)) continue;
        (void)compare(dir, reference, &n_apart);
        n_models++;
    }
    (void)closedir(d);
    assert_true(n_models > 0);
    assert_true(n_apart > 0); /* in_proj_qkv and in_proj_z, at least once */
}

static void a_multimodal_moe_splits_and_its_towers_stay(void **state)
{
    (void)state;
    static linears all;
    static const char dir[] = QD_TEST_SHARED_DIR "/fixtures/qwen3_5_moe-vl-mtp";
    enum {
        LAYERS = 4,
        EXPERTS = 7,
        INTER = 64,
        HIDDEN = 128
    };
    unsigned n[LAYERS][3] = {{0}}, n_vision = 0, n_mtp = 0;
    qd_ckpt c = {0};
    qd_arena arena = {0};
    qd_err err = {0};
    if (!qd_path_is_dir(QD_TEST_SHARED_DIR)) {
        print_message("skipped: no reference data here\n");
        skip();
    }
    if (qd_ckpt_open(dir, &c, &err) != QD_OK) fail_msg("%s", err.msg);
    const qd_arch *a = qd_arch_find(&c.config);
    assert_string_equal(qd_arch_name(a), "qwen3_5_moe");
    find_linears(&c, a, &arena, &all);
    for (unsigned i = 0; i < all.n; i++) {
        const qd_linear *l = &all.v[i];
        if (strstr(l->name, "visual") != NULL || strncmp(l->name, "mtp", 3) == 0) fail_msg("%s is a linear", l->name);
        if (l->place.role != QD_ROLE_EXPERT) continue;
        bool down = qd_str_ends(l->name, ".down_proj"), up = qd_str_ends(l->name, ".up_proj");
        uint64_t e = (uint64_t)l->place.expert;
        assert_in_range(l->place.layer, 0, LAYERS - 1);
        assert_in_range(e, 0, EXPERTS - 1);
        assert_int_equal(l->rows, down ? HIDDEN : INTER);
        assert_int_equal(l->cols, down ? INTER : HIDDEN);
        assert_int_equal(l->first_row, down ? e * HIDDEN : e * 2 * INTER + (up ? INTER : 0));
        n[l->place.layer][down ? 2 : up]++;
    }
    for (int layer = 0; layer < LAYERS; layer++)
        for (int part = 0; part < 3; part++) assert_int_equal(n[layer][part], EXPERTS);
    for (uint32_t i = 0; i < c.n_tensors; i++) {
        qd_place p = {0};
        qd_arch_place(a, &c.tensors[i], &p);
        if (p.role == QD_ROLE_OTHER) fail_msg("%s has no place", c.tensors[i].name);
        n_vision += p.role == QD_ROLE_VISION;
        n_mtp += p.role == QD_ROLE_MTP;
    }
    assert_int_equal(n_vision, 33);
    assert_int_equal(n_mtp, 19);
    qd_arena_done(&arena);
    qd_ckpt_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_linears_are_those_that_llm_compressor_quantized),
        cmocka_unit_test(a_multimodal_moe_splits_and_its_towers_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
