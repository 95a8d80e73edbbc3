/* quantd.json: what it may say, and the registry of those that are there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "catalog/model_registry.h"
#include "tests/unit/ckpt/scratch.h"

static qd_code read_text(scratch *s, const char *text, qd_arena *arena, qd_model *m, qd_err *err)
{
    put_text(s, "quantd.json", text);
    return qd_model_read(s->dir, arena, m, err);
}

static void only_the_id_is_needed(void **state)
{
    qd_arena arena = {0};
    qd_model m;
    assert_int_equal(read_text(*state, "{\"id\": \"a.b-C_1\", \"other\": [1]}", &arena, &m, NULL), QD_OK);
    assert_string_equal(m.id, "a.b-C_1");
    assert_string_equal(m.name, "a.b-C_1");
    assert_string_equal(m.base_model, "a.b-C_1");
    assert_string_equal(m.owner, "");
    assert_string_equal(m.job, "");
    assert_string_equal(m.set, "a.b-C_1");
    assert_int_equal(m.kind, QD_MODEL_FULL);
    assert_int_equal(m.state, QD_MODEL_READY);
    assert_int_equal(strlen(m.qianfan_id), 16);
    assert_int_equal(strncmp(m.qianfan_id, "amv-", 4), 0);
    assert_int_equal(strlen(m.qianfan_set_id), 15);
    assert_true(m.created_ms > UINT64_C(1500000000000));
    qd_arena_done(&arena);
}

static void wrong_ones_are_refused_with_the_key(void **state)
{
    static const char *const cases[][2] = {
        {"[]", "expected an object"},
        {"{}", "\"id\""},
        {"{\"id\": 1}", "\"id\""},
        {"{\"id\": \"\"}", "\"id\""},
        {"{\"id\": \"../x\"}", "\"id\""},
        {"{\"id\": \"-x\"}", "\"id\""},
        {"{\"id\": \"a b\"}", "\"id\""},
        {"{\"id\": \"a\", \"base_model\": \"a/b\"}", "\"base_model\""},
        {"{\"id\": \"a\", \"kind\": \"big\"}", "\"kind\""},
        {"{\"id\": \"a\", \"state\": \"fine\"}", "\"state\""},
        {"{\"id\": \"a\", \"name\": \"a\\u0007\"}", "\"name\""},
        {"{\"id\": \"a\", \"owner\": 3}", "\"owner\""},
        {"{\"id\": \"a\"", "quantd.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qd_arena arena = {0};
        qd_model m = {0};
        qd_err err = {0};
        assert_int_equal(read_text(*state, cases[i][0], &arena, &m, &err), QD_E_INPUT);
        if (strstr(err.msg, cases[i][1]) == NULL) fail_msg("%s: %s", cases[i][0], err.msg);
        assert_null(m.id);
        qd_arena_done(&arena);
    }
}

static void what_is_written_is_read_and_unknown_keys_stay(void **state)
{
    scratch *s = *state;
    qd_arena arena = {0};
    qd_model m = {.id = "x",
                  .name = "量",
                  .base_model = "y",
                  .owner = "acme",
                  .job = "ft-1",
                  .kind = QD_MODEL_QUANTIZED},
             r = {0};
    char *text = NULL;
    size_t n = 0;
    put_text(s, "quantd.json", "{\"id\": \"old\", \"extra\": {\"a\": 7}, \"set\": \"s\"}");
    assert_int_equal(qd_model_write(s->dir, &m, NULL), QD_OK);
    assert_int_equal(qd_model_read(s->dir, &arena, &r, NULL), QD_OK);
    assert_string_equal(r.id, "x");
    assert_string_equal(r.name, "量");
    assert_string_equal(r.base_model, "y");
    assert_string_equal(r.owner, "acme");
    assert_string_equal(r.job, "ft-1");
    assert_string_equal(r.set, "y");
    assert_int_equal(r.kind, QD_MODEL_QUANTIZED);
    assert_int_equal(qd_file_read(at(s, "quantd.json"), 1000, &text, &n, NULL), QD_OK);
    assert_non_null(strstr(text, "\"extra\""));
    qd_free(text);
    qd_arena_done(&arena);
}

static void make(scratch *s, const char *dir, const char *json)
{
    char name[200];
    assert_int_equal(mkdir(at(s, dir), 0755), 0);
    (void)snprintf(name, sizeof name, "%s/quantd.json", dir);
    if (json != NULL) put_text(s, name, json);
}

static void the_registry_sees_entries_and_their_entries_and_what_changes(void **state)
{
    scratch *s = *state;
    const qd_registry_view *v = NULL, *old = NULL;
    qd_err err = {0};
    make(s, "a", "{\"id\": \"m2\"}");
    make(s, "b", NULL);
    make(s, "b/c", "{\"id\": \"m1\"}");
    make(s, "b/d", NULL);
    make(s, "b/d/e", "{\"id\": \"too-deep\"}");
    make(s, ".hidden", "{\"id\": \"hidden\"}");
    make(s, "x.staging.3", "{\"id\": \"staged\"}");
    make(s, "bad", "{\"id\": 1}");
    qd_registry *r = qd_registry_new(s->dir);
    assert_int_equal(qd_registry_take(r, true, &old, NULL), QD_OK);
    assert_int_equal(old->n, 2);
    assert_string_equal(old->items[0].id, "m1");
    assert_string_equal(old->items[1].id, "m2");
    assert_string_equal(old->items[1].path, at(s, "a"));
    assert_non_null(qd_registry_find(old, "m2"));
    assert_null(qd_registry_find(old, "m3"));
    assert_int_equal(qd_registry_problem(r, &err), 1);
    put_text(s, "bad/quantd.json", "{\"id\": \"mended\"}");
    make(s, "z", "{\"id\": \"m1\"}"); /* an id that is taken: the first path counts */
    put_text(s, "a/quantd.json", "{\"id\": \"m2\", \"name\": \"new name\"}");
    assert_int_equal(qd_registry_take(r, true, &v, NULL), QD_OK);
    assert_int_equal(v->n, 3);
    assert_string_equal(qd_registry_find(v, "m2")->name, "new name");
    assert_string_equal(qd_registry_find(v, "m1")->path, at(s, "b/c"));
    assert_int_equal(qd_registry_problem(r, &err), 1);
    assert_string_equal(qd_registry_find(old, "m2")->name, "m2"); /* of its moment */
    qd_registry_give(r, v);
    assert_int_equal(qd_tree_remove(at(s, "a"), NULL), QD_OK);
    assert_int_equal(qd_registry_take(r, true, &v, NULL), QD_OK);
    assert_null(qd_registry_find(v, "m2"));
    qd_registry_give(r, v);
    qd_registry_give(r, old);
    qd_registry_free(r);
}

#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, scratch_make, scratch_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DIR(only_the_id_is_needed),
        WITH_DIR(wrong_ones_are_refused_with_the_key),
        WITH_DIR(what_is_written_is_read_and_unknown_keys_stay),
        WITH_DIR(the_registry_sees_entries_and_their_entries_and_what_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
