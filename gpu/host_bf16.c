/* host_bf16.c -- y = x w^T + b with BF16 products in hardware, by oneDNN's matmul on a matrix that is reordered once a
 * layer: on processors where that is faster than F32 products (AMX, or AMD's AVX-512 BF16).
 *
 * Rows of x come in pieces of a few fixed sizes, filled up with zeros, and rows of w in blocks, so that there are few
 * shapes and each call is short. As in host_gemm.c one call is one thread. */
#include "base/mem.h"
#include "gpu/host_ops.h"
#include "gpu/host_vec.h"

#include <inttypes.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <string.h>

extern void omp_set_num_threads(int n); /* libgomp; see host_gemm.c */

enum {
    PIECE_MAX = 512,
    PIECE_MIN = 16,
    N_PIECES = 6, /* 16, 32, .. 512 */
    BLOCK = 512,  /* rows of w in one product: its result stays in the cache */
    ALIGN = 64
};

typedef struct product {
    dnnl_primitive_t prim;
    uint64_t scratch_bytes;
} product;

/* Blocks of one height share format and products. */
typedef struct form {
    uint64_t n; /* rows of w; 0: there is none */
    dnnl_memory_desc_t desc;
    uint64_t bytes; /* of one reordered block */
    product products[N_PIECES];
} form;

typedef struct packed {
    dnnl_engine_t engine;
    form full, last;
    unsigned char *data; /* blocks one after the other */
    uint64_t data_bytes;
    pthread_mutex_t lock; /* of products, which are made when they are first needed */
} packed;

static qd_code check(dnnl_status_t s, const char *what, qd_err *err)
{
    if (s == dnnl_success) return QD_OK;
    if (s == dnnl_out_of_memory) return qd_fail(err, QD_E_NO_MEMORY, "cpu: out of memory in oneDNN (%s)", what);
    return qd_fail(err, QD_E_DEVICE, "cpu: oneDNN failed with status %d (%s)", (int)s, what);
}

/* Product of `rows` rows of x with one block; w_desc is as given, or oneDNN's choice where it is NULL. */
static qd_code describe(dnnl_engine_t engine, uint64_t rows, uint64_t n, uint64_t k, const dnnl_memory_desc_t *w_desc,
                        dnnl_primitive_desc_t *ret, qd_err *err)
{
    dnnl_dims_t dx = {(dnnl_dim_t)rows, (dnnl_dim_t)k}, dw = {(dnnl_dim_t)k, (dnnl_dim_t)n};
    dnnl_dims_t dy = {(dnnl_dim_t)rows, (dnnl_dim_t)n};
    dnnl_memory_desc_t x, w, y;
    dnnl_matmul_desc_t m;
    dnnl_primitive_attr_t attr = NULL;
    qd_code rc = QD_OK;
    QD_TRY(check(dnnl_memory_desc_init_by_tag(&x, 2, dx, dnnl_bf16, dnnl_ab), "x", err));
    QD_TRY(check(dnnl_memory_desc_init_by_tag(&w, 2, dw, dnnl_bf16, dnnl_format_tag_any), "w", err));
    QD_TRY(check(dnnl_memory_desc_init_by_tag(&y, 2, dy, dnnl_f32, dnnl_ab), "y", err));
    QD_TRY(check(dnnl_matmul_desc_init(&m, &x, w_desc != NULL ? w_desc : &w, NULL, &y), "matmul", err));
    QD_TRY(check(dnnl_primitive_attr_create(&attr), "attr", err));
    QD_TRY(check(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "scratchpad", err));
    QD_TRY(check(dnnl_primitive_desc_create(ret, &m, attr, engine, NULL), "matmul", err));
out:
    (void)dnnl_primitive_attr_destroy(attr);
    return rc;
}

static qd_code choose_form(packed *p, form *f, uint64_t n, uint64_t k, qd_err *err)
{
    dnnl_primitive_desc_t pd = NULL;
    qd_code rc = describe(p->engine, PIECE_MAX, n, k, NULL, &pd, err);
    if (rc != QD_OK) return rc;
    f->n = n;
    f->desc = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    f->bytes = (dnnl_memory_desc_get_size(&f->desc) + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
    (void)dnnl_primitive_desc_destroy(pd);
    return QD_OK;
}

static qd_code reorder(packed *p, const form *f, const uint16_t *from, uint64_t k, unsigned char *to, qd_err *err)
{
    dnnl_dims_t dims = {(dnnl_dim_t)k, (dnnl_dim_t)f->n};
    dnnl_memory_desc_t plain;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t prim = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_memory_t a = NULL, b = NULL;
    void *source = NULL;
    qd_code rc = QD_OK;
    memcpy(&source, &from, sizeof source); /* oneDNN knows no const; it only reads this one */
    QD_TRY(check(dnnl_memory_desc_init_by_tag(&plain, 2, dims, dnnl_bf16, dnnl_ba), "w", err));
    QD_TRY(
        check(dnnl_reorder_primitive_desc_create(&pd, &plain, p->engine, &f->desc, p->engine, NULL), "reorder", err));
    QD_TRY(check(dnnl_primitive_create(&prim, pd), "reorder", err));
    QD_TRY(check(dnnl_stream_create(&stream, p->engine, dnnl_stream_default_flags), "stream", err));
    QD_TRY(check(dnnl_memory_create(&a, &plain, p->engine, source), "w", err));
    QD_TRY(check(dnnl_memory_create(&b, &f->desc, p->engine, to), "w", err));
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, a}, {DNNL_ARG_TO, b}};
    QD_TRY(check(dnnl_primitive_execute(prim, stream, 2, args), "reorder", err));
    QD_TRY(check(dnnl_stream_wait(stream), "reorder", err));
out:
    (void)dnnl_memory_destroy(a);
    (void)dnnl_memory_destroy(b);
    (void)dnnl_stream_destroy(stream);
    (void)dnnl_primitive_destroy(prim);
    (void)dnnl_primitive_desc_destroy(pd);
    return rc;
}

static void packed_free(packed *p)
{
    form *forms[] = {&p->full, &p->last};
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < N_PIECES; j++) (void)dnnl_primitive_destroy(forms[i]->products[j].prim);
    (void)dnnl_engine_destroy(p->engine);
    qd_unmap(p->data, p->data_bytes);
    (void)pthread_mutex_destroy(&p->lock);
    qd_free(p);
}

typedef struct packing {
    const qd_weight *w;
    packed *p;
} packing;

static qd_code pack_block(void *arg, unsigned worker, uint64_t block, qd_err *err)
{
    const packing *c = arg;
    const uint16_t *data = c->w->data;
    packed *p = c->p;
    (void)worker;
    omp_set_num_threads(1);
    return reorder(p, block < c->w->n / BLOCK ? &p->full : &p->last, data + block * BLOCK * c->w->k, c->w->k,
                   p->data + block * p->full.bytes, err);
}

qd_code qd_host_bf16_pack(const qd_ops *ops, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err)
{
    (void)ops;
    if (!bf16 || w->dtype != QD_BF16 || w->n == 0 || w->k == 0) return QD_OK; /* host_linear.c does it */
    const uint64_t n_full = w->n / BLOCK, rest = w->n % BLOCK;
    qd_code rc = QD_OK;
    packed *p = qd_calloc(1, sizeof *p);
    packing c = {w, p};
    if (p == NULL) return qd_fail(err, QD_E_NO_MEMORY, "cpu: out of memory for a matrix");
    (void)pthread_mutex_init(&p->lock, NULL);
    omp_set_num_threads(1);
    QD_TRY(check(dnnl_engine_create(&p->engine, dnnl_cpu, 0), "engine", err));
    if (n_full != 0) QD_TRY(choose_form(p, &p->full, BLOCK, w->k, err));
    if (rest != 0) QD_TRY(choose_form(p, &p->last, rest, w->k, err));
    p->data_bytes = n_full * p->full.bytes + p->last.bytes;
    p->data = qd_map(p->data_bytes);
    if (p->data == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "cpu: %" PRIu64 " bytes for a matrix", p->data_bytes);
        goto out;
    }
    QD_TRY(qd_tasks_run(tasks, n_full + (rest != 0), pack_block, &c, err));
    w->packed = p;
    p = NULL; /* ownership moved */
out:
    if (p != NULL) packed_free(p);
    return rc;
}

void qd_host_bf16_unpack(qd_weight *w)
{
    if (w->packed != NULL) packed_free(w->packed);
    w->packed = NULL;
}

/* The product for pieces of `rows` rows, made on first use. */
static qd_code product_of(packed *p, form *f, uint64_t k, int size, uint64_t rows, product *ret, qd_err *err)
{
    dnnl_primitive_desc_t pd = NULL;
    product *at = &f->products[size];
    qd_code rc = QD_OK;
    (void)pthread_mutex_lock(&p->lock);
    if (at->prim == NULL) {
        QD_TRY(describe(p->engine, rows, f->n, k, &f->desc, &pd, err));
        at->scratch_bytes = dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
        QD_TRY(check(dnnl_primitive_create(&at->prim, pd), "matmul", err));
    }
    *ret = *at;
out:
    (void)pthread_mutex_unlock(&p->lock);
    (void)dnnl_primitive_desc_destroy(pd);
    return rc;
}

static qd_code take_bytes(qd_lane *l, uint64_t bytes, void **ret, qd_err *err)
{
    float *f = NULL;
    qd_code rc = qd_scratch_take(&l->scratch, 1, bytes / sizeof(float) + 1, &f, err);
    *ret = f;
    return rc;
}

/* y [rows][f->n] = x [rows][k] block^T, dense. */
static qd_code multiply(qd_lane *l, packed *p, form *f, unsigned char *block, uint64_t k, int size, uint64_t rows,
                        void *x, float *y, dnnl_stream_t stream, qd_err *err)
{
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    dnnl_dims_t dx = {(dnnl_dim_t)rows, (dnnl_dim_t)k}, dy = {(dnnl_dim_t)rows, (dnnl_dim_t)f->n};
    dnnl_dims_t ds = {0};
    dnnl_memory_desc_t x_desc, y_desc, s_desc;
    dnnl_memory_t mem[4] = {NULL};
    product m = {0};
    void *scratch = NULL;
    qd_code rc = QD_OK;
    QD_TRY(product_of(p, f, k, size, rows, &m, err));
    QD_TRY(take_bytes(l, m.scratch_bytes, &scratch, err));
    ds[0] = (dnnl_dim_t)m.scratch_bytes;
    QD_TRY(check(dnnl_memory_desc_init_by_tag(&x_desc, 2, dx, dnnl_bf16, dnnl_ab), "x", err));
    QD_TRY(check(dnnl_memory_desc_init_by_tag(&y_desc, 2, dy, dnnl_f32, dnnl_ab), "y", err));
    QD_TRY(check(dnnl_memory_desc_init_by_tag(&s_desc, 1, ds, dnnl_u8, dnnl_a), "scratchpad", err));
    QD_TRY(check(dnnl_memory_create(&mem[0], &x_desc, p->engine, x), "x", err));
    QD_TRY(check(dnnl_memory_create(&mem[1], &f->desc, p->engine, block), "w", err));
    QD_TRY(check(dnnl_memory_create(&mem[2], &y_desc, p->engine, y), "y", err));
    QD_TRY(check(dnnl_memory_create(&mem[3], &s_desc, p->engine, scratch), "scratchpad", err));
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, mem[0]}, {DNNL_ARG_WEIGHTS, mem[1]}, {DNNL_ARG_DST, mem[2]}, {DNNL_ARG_SCRATCHPAD, mem[3]}};
    QD_TRY(check(dnnl_primitive_execute(m.prim, stream, 4, args), "matmul", err));
    QD_TRY(check(dnnl_stream_wait(stream), "matmul", err));
out:
    for (int i = 0; i < 4; i++) (void)dnnl_memory_destroy(mem[i]);
    qd_scratch_back(&l->scratch, mark);
    return rc;
}

QD_VEC static void finish_row(const float *from, const float *bias, uint64_t n, float *to, bool bf16)
{
    if (bias != NULL)
        for (uint64_t i = 0; i < n; i++) to[i] = bf16 ? qd_round_bf16(from[i] + bias[i]) : from[i] + bias[i];
    else
        for (uint64_t i = 0; i < n; i++) to[i] = bf16 ? qd_round_bf16(from[i]) : from[i];
}

/* At most PIECE_MAX rows. */
static qd_code piece(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y, uint64_t ldy,
                     dnnl_stream_t stream, qd_err *err)
{
    packed *p = w->packed;
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    uint64_t rows = PIECE_MIN;
    int size = 0;
    void *narrow = NULL;
    float *out = NULL;
    unsigned char *block = p->data;
    qd_code rc = QD_OK;
    for (; rows < m; rows *= 2) size++;
    l->flops += 2 * m * w->n * w->k; /* zeros that fill up do not count */
    QD_TRY(take_bytes(l, rows * w->k * sizeof(uint16_t), &narrow, err));
    QD_TRY(qd_scratch_take(&l->scratch, rows, qd_min_u64(BLOCK, w->n), &out, err));
    for (uint64_t r = 0; r < m; r++) qd_host_store(QD_BF16, x + r * ldx, w->k, (uint16_t *)narrow + r * w->k);
    memset((uint16_t *)narrow + m * w->k, 0, (rows - m) * w->k * sizeof(uint16_t));
    for (uint64_t n0 = 0; n0 < w->n; n0 += BLOCK) {
        form *f = w->n - n0 >= BLOCK ? &p->full : &p->last;
        QD_TRY(multiply(l, p, f, block, w->k, size, rows, narrow, out, stream, err));
        for (uint64_t r = 0; r < m; r++)
            finish_row(out + r * f->n, w->bias != NULL ? w->bias + n0 : NULL, f->n, y + r * ldy + n0, l->bf16);
        block += f->bytes;
        QD_TRY(qd_lane_tick(l, err));
    }
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}

qd_code qd_host_bf16_linear(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y,
                            uint64_t ldy, qd_err *err)
{
    dnnl_stream_t stream = NULL;
    const packed *p = w->packed;
    qd_code rc = QD_OK;
    if (p == NULL) return qd_host_linear(l, x, m, ldx, w, y, ldy, err);
    omp_set_num_threads(1);
    QD_TRY(check(dnnl_stream_create(&stream, p->engine, dnnl_stream_default_flags), "stream", err));
    for (uint64_t r = 0; r < m; r += PIECE_MAX)
        QD_TRY(piece(l, x + r * ldx, qd_min_u64(PIECE_MAX, m - r), ldx, w, y + r * ldy, ldy, stream, err));
out:
    (void)dnnl_stream_destroy(stream);
    return rc;
}
