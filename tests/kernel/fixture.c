/* fixture.c -- buffers, inputs and sizes of the tests of the forward pass's kernels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/kernel/fixture.h"

#include "gpu/cuda/forward.h"
#include "gpu/cuda/forward_args.h"
#include "gpu/num.h"
#include "tests/kernel/inputs.h"
#include "tests/shim/cuda_shim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    PAGE = 4096
};

int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL) return -1;
    f->lane.ops = qd_ops_host("cpu");
    f->seed = 4711;
    *state = f;
    return 0;
}

int teardown(void **state)
{
    fixture *f = *state;
    qd_scratch_done(&f->lane.scratch);
    free(f);
    return 0;
}

void *keep(fixture *f, size_t bytes)
{
    fixture_buffer b = {0};
    assert_true(f->n_buffers < FIXTURE_BUFFERS);
#ifdef __SANITIZE_ADDRESS__
    b.data = malloc(bytes == 0 ? 1 : bytes);
    assert_non_null(b.data);
#else
    const size_t pages = bytes / PAGE + 1;
    b.map_bytes = (pages + 1) * PAGE;
    b.map = mmap(NULL, b.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(b.map != MAP_FAILED);
    assert_int_equal(mprotect((char *)b.map + pages * PAGE, PAGE, PROT_NONE), 0);
    b.data = (char *)b.map + pages * PAGE - bytes;
#endif
    f->buffers[f->n_buffers++] = b;
    return b.data;
}

void drop(fixture *f)
{
    while (f->n_buffers > 0) {
        const fixture_buffer *b = &f->buffers[--f->n_buffers];
        if (b->map != NULL)
            (void)munmap(b->map, b->map_bytes);
        else
            free(b->data);
    }
}

static float ordinary(fixture *f)
{
    const uint32_t r = input_random(&f->seed);
    const float x = ((float)(r >> 8) * 0x1p-23f - 1.0f) * 3.0f;
    switch (r % 16) {
    case 0:
        return ldexpf(x, (int)(input_random(&f->seed) % 60) - 40);
    case 1:
        return qd_bits_f32((qd_f32_bits(x) & 0xffff0000u) | 0x8000u);
    case 2:
        return r % 32 == 2 ? 0.0f : -0.0f;
    case 3:
        if (r % 64 != 3) return x;
        return qd_bits_f32((r % 128 == 3 ? 0x42b17217u : 0x42aeac4fu) + r / 128 % 3 - 1 + (r / 384 % 2 << 31));
    default:
        return x;
    }
}

static float coarse(fixture *f)
{
    const uint32_t r = input_random(&f->seed) >> 8;
    return ldexpf((float)(16 + r % 16), (int)(r / 16 % 6) - 7) * (r / 128 % 2 != 0 ? -1.0f : 1.0f);
}

float value(fixture *f)
{
    static const uint32_t wild[] = {0x7f800000u, 0xff800000u, 0x7f800001u, 0x7fc01234u, 0xffbfffffu, 0x7f7fffffu,
                                    0xff7fffffu, 0x7f7f8000u, 0x7f7f7fffu, 0x00000001u, 0x80000003u, 0x00028000u};
    if (f->kind == KIND_COARSE) return coarse(f);
    const uint32_t r = f->kind == KIND_WILD ? input_random(&f->seed) >> 8 : 1;
    return r % 8 == 0 ? qd_bits_f32(wild[r / 8 % (sizeof wild / sizeof *wild)]) : ordinary(f);
}

float *some(fixture *f, size_t n)
{
    float *p = keep(f, n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = value(f);
    return p;
}

float *copy_of(fixture *f, const float *x, size_t n)
{
    float *p = keep(f, n * sizeof *p);
    memcpy(p, x, n * sizeof *p);
    return p;
}

size_t telling(float *ret)
{
    static const uint32_t bits[] = {
        0x3c1d5a73u, 0x3d4c9c02u, 0x3e4021f7u, 0x3e576403u, 0x3e808d81u, 0x3e8dbf07u, 0x3e9c6a82u, 0x3eb18080u,
        0x3ec65b81u, 0x3eca9007u, 0x3eccaee4u, 0x3ed964fau, 0x3f870482u, 0x3fa93e80u, 0x3fcb07fbu, 0x3fdd7d01u,
        0x3ff35c04u, 0x3ff8818bu, 0x3ffb60b1u, 0x40150317u, 0x40184081u, 0x40517d02u, 0x40619002u, 0x40770035u,
        0x408b5804u, 0x40911997u, 0x40966782u, 0x40d22209u, 0x41141980u, 0x41170e32u, 0x416ec201u, 0x41795701u,
        0x41949f01u, 0x41c9dc8fu, 0x41e1f382u, 0x41fc4d02u, 0x41fc5901u, 0x420a9b07u, 0x421ed984u, 0x4247a800u,
        0x4247a803u, 0x424efd54u, 0x42662601u, 0x426fd434u, 0x4292410au, 0x42a2eecau, 0x42af2c07u, 0x3f8b4adeu,
        0x3fd19f67u, 0x3f860a3cu, 0x3cd1d033u, 0x41635a30u, 0x41ebab88u, 0x4247a531u, 0x420aa8c3u, 0x3e0f03ebu,
        0x3eb70923u, 0x41a344fcu, 0x41438ab3u, 0x3f85049fu, 0x3f877d75u, 0x3fc1b67au, 0x3fc800efu, 0x3f97e91au,
        0x4121e3d8u};
    enum {
        N = sizeof bits / sizeof *bits
    };
    _Static_assert(2 * N <= TELLING_MAX, "more than is promised");
    for (size_t i = 0; i < N; i++) {
        ret[2 * i] = qd_bits_f32(bits[i]);
        ret[2 * i + 1] = -ret[2 * i];
    }
    return 2 * (size_t)N;
}

void same(const float *host, const float *device, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&host[i], &device[i], sizeof *host) != 0 && !(isnan(host[i]) && isnan(device[i])))
            fail_msg("element %zu: host %a, device %a", i, (double)host[i], (double)device[i]);
}

void same_routes(fixture *f, int bf16, const float *logits, size_t rows, uint32_t experts, uint32_t top_k,
                 int normalize, uint32_t *index[2], float *weight[2], float *margin[2])
{
    f->lane.bf16 = bf16 != 0;
    f->lane.ops->route(&f->lane, logits, rows, experts, top_k, normalize != 0, true, index[0], weight[0], margin[0]);
    OK(qd_cuda_route(NULL, bf16, logits, rows, experts, top_k, normalize, index[1], weight[1], margin[1]));
    assert_memory_equal(index[0], index[1], rows * top_k * sizeof(uint32_t));
    same(weight[0], weight[1], rows * top_k);
    same(margin[0], margin[1], rows);
}

/* ---- blocks of another size than the library's ---- */

static unsigned the_threads;

/* Kernels of QD_CUDA_PIECE elements of a row a block, whatever its threads; others need so many more blocks. */
static int takes_pieces(void (*kernel)(const void *))
{
    static void (*const kernels[])(const void *) = {qd_k_add,    qd_k_bias,        qd_k_silu_mul, qd_k_gate_rows,
                                                    qd_k_gather, qd_k_scatter_add, qd_k_copy,     qd_k_gate,
                                                    qd_k_rope,   qd_k_conv_silu};
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (kernels[i] == kernel) return 1;
    return 0;
}

static int launch(void *stream, void (*kernel)(const void *), const void *params, size_t bytes, dim3 grid, dim3 block)
{
    (void)stream;
    if (!takes_pieces(kernel)) grid.x = (grid.x * block.x + the_threads - 1) / the_threads;
    block.x = the_threads;
    return shim_launch(kernel, params, bytes, grid, block);
}

void each(void **state, each_fn *fn)
{
    static const struct {
        size_t rows, n;
        unsigned threads, kinds;
    } sizes[] = {
        {1, 1, QD_CUDA_THREADS, 1},
        {3, 15, QD_CUDA_THREADS, KIND_COUNT},
        {2, 16, QD_CUDA_THREADS, 1},
        {5, 17, 64, KIND_COUNT},
        {17, 48, 32, KIND_COUNT},
        {2, 1024, QD_CUDA_THREADS, 1},
        {4, 440, QD_CUDA_THREADS, KIND_COUNT},
        {1, 1100, 32, KIND_COUNT},
        {3, 1025, QD_CUDA_THREADS, KIND_COUNT},
        {1, 2600, 96, 1},
    };
    fixture *f = *state;
    unsigned order = 0;
    shim_stream_launch = launch;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (unsigned k = 0; k < 2 * sizes[i].kinds; k++) {
            shim_set_order((shim_order)(order++ % SHIM_ORDER_COUNT), (uint32_t)i);
            f->kind = (fixture_kind)(k / 2);
            f->lane.bf16 = k % 2 != 0;
            the_threads = sizes[i].threads;
            fn(f, f->lane.bf16, sizes[i].rows, sizes[i].n);
            drop(f);
        }
    shim_stream_launch = NULL;
    f->kind = KIND_ORDINARY;
}
