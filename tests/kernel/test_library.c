/* test_library.c -- libqd_cuda.so, as nvcc built and linked it: it loads, shows its entry points, and they answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/dtype.h"
#include "gpu/cuda/launch.h"

#include <dlfcn.h>
#include <string.h>

typedef int amax_function(int dtype, const void *w, uint64_t n, uint32_t *amax_bits, void *stream);
typedef int encode_function(const qd_nvfp4_tile *t, const qd_cuda_block_sums *sums, void *stream);

static void *symbol(void *library, const char *name)
{
    void *p = dlsym(library, name);
    if (p == NULL) fail_msg("%s", dlerror());
    return p;
}

/* No GPU is needed for what is refused and for what is empty. */
static void the_library_loads_and_answers(void **state)
{
    (void)state;
    _Alignas(16) float w[QD_NVFP4_BLOCK] = {0.0f};
    _Alignas(8) uint8_t codes[8];
    uint8_t scale, flags;
    uint32_t bits = 0;
    float err2, w2;
    void *library = dlopen(QD_TEST_LIBRARY, RTLD_NOW);
    if (library == NULL) fail_msg("%s", dlerror());
    amax_function *amax;
    encode_function *encode;
    void *p = symbol(library, "qd_cuda_amax");
    memcpy(&amax, &p, sizeof p);
    p = symbol(library, "qd_cuda_nvfp4_encode");
    memcpy(&encode, &p, sizeof p);

    assert_int_equal(amax(QD_F64, w, 1, &bits, NULL), QD_CUDA_INVALID);
    assert_int_equal(amax(QD_F32, w, 0, &bits, NULL), 0);
    const qd_cuda_block_sums sums = {&err2, &w2, &flags};
    qd_nvfp4_tile t = {.dtype = QD_F32, .gs = 1.0f, .w = w, .codes = codes, .scales = &scale};
    assert_int_equal(encode(&t, &sums, NULL), 0);
    t.rule = QD_RULE_COUNT;
    assert_int_equal(encode(&t, &sums, NULL), QD_CUDA_INVALID);
    assert_null(dlsym(library, "qd_k_minmax_f32"));
    assert_int_equal(dlclose(library), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_library_loads_and_answers)};
    return cmocka_run_group_tests_name("library", tests, NULL, NULL);
}
