/* test_gguf_bf16.c -- each block type gives the values that ggml's own Python package gives, bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/mem.h"
#include "ckpt/gguf_bf16.h"

#include <string.h>

enum {
    N_VALUES = 512
};

static unsigned digit(char c)
{
    return c >= 'a' ? (unsigned)(c - 'a') + 10 : (unsigned)(c - '0');
}

static uint8_t *bytes(const json_t *hex, size_t *ret_n)
{
    const char *text = json_string_value(hex);
    assert_non_null(text);
    *ret_n = strlen(text) / 2;
    uint8_t *b = qd_malloc(*ret_n);
    assert_non_null(b);
    for (size_t i = 0; i < *ret_n; i++) b[i] = (uint8_t)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
    return b;
}

static const qd_ggml_info *named(const char *name)
{
    for (uint32_t i = 0; i < 64; i++) {
        const qd_ggml_info *info = qd_ggml_find(i);
        if (info != NULL && strcmp(info->name, name) == 0) return info;
    }
    return NULL;
}

static void every_imported_type_is_ggmls_rounded_to_even(void **state)
{
    (void)state;
    json_t *root = NULL, *row;
    qd_err err = {0};
    const char *name;
    unsigned n_types = 0, n_golden = 0;
    assert_int_equal(qd_json_load(QD_TEST_SOURCE_DIR "/tests/golden/gguf_blocks.json", 1 << 20, &root, &err), QD_OK);
    for (uint32_t i = 0; i < 64; i++) n_types += qd_ggml_find(i) != NULL && qd_ggml_find(i)->imported;
    json_object_foreach(root, name, row)
    {
        size_t n = 0, n_want = 0;
        const qd_ggml_info *info = named(name);
        if (info == NULL) {
            fail_msg("%s: no such type", name);
            continue;
        }
        uint8_t *blocks = bytes(json_object_get(row, "blocks"), &n),
                *want = bytes(json_object_get(row, "bf16"), &n_want);
        assert_int_equal(n, N_VALUES / info->block_elems * info->block_bytes);
        assert_int_equal(n_want, N_VALUES * 2);
        uint16_t got[N_VALUES];
        qd_gguf_to_bf16(info, blocks, N_VALUES / info->block_elems, got);
        for (size_t i = 0; i < N_VALUES; i++)
            if (got[i] != (want[2 * i] | want[2 * i + 1] << 8)) fail_msg("%s: value %zu is %04x", name, i, got[i]);
        qd_free(blocks);
        qd_free(want);
        n_golden++;
    }
    assert_int_equal(n_golden, n_types);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_imported_type_is_ggmls_rounded_to_even)};
    qd_json_use_qd_memory();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
