/* gguf.h -- the metadata and tensor table of one GGUF file, read with suspicion.
 *
 * Layout (little endian): "GGUF", u32 version, u64 tensors, u64 key-value pairs, the pairs, the tensor table, padding
 * to general.alignment, data. Versions 2 and 3 are alike but for byte order. Source: the GGUF specification (ggml,
 * docs).
 */
#ifndef QD_CKPT_GGUF_H
#define QD_CKPT_GGUF_H

#include "base/arena.h"
#include "base/err.h"
#include "ckpt/source.h"

#include <stdbool.h>
#include <stdint.h>

#define QD_GGUF_META_BYTES_MAX                                                            \
    ((uint64_t)256 << 20) /* of memory for pairs and table: vocabularies need about 20 MB \
                           */
#define QD_GGUF_STRING_BYTES_MAX ((uint64_t)16 << 20)
#define QD_GGUF_TENSORS_MAX      1000000u
#define QD_GGUF_PAIRS_MAX        65536u
#define QD_GGUF_KEY_BYTES_MAX    1024u
enum {
    QD_GGUF_RANK_MAX = 4
};

/* X(enum, number in the file, name, elements a block, bytes a block, imported); ggml's types that this version knows */
/* clang-format off */
#define QD_GGML_TYPES(X) \
    X(QD_GGML_F32, 0, "F32", 1, 4, true) \
    X(QD_GGML_F16, 1, "F16", 1, 2, true) \
    X(QD_GGML_Q4_0, 2, "Q4_0", 32, 18, true) \
    X(QD_GGML_Q4_1, 3, "Q4_1", 32, 20, true) \
    X(QD_GGML_Q5_0, 6, "Q5_0", 32, 22, true) \
    X(QD_GGML_Q5_1, 7, "Q5_1", 32, 24, true) \
    X(QD_GGML_Q8_0, 8, "Q8_0", 32, 34, true) \
    X(QD_GGML_Q8_1, 9, "Q8_1", 32, 36, false) \
    X(QD_GGML_Q2_K, 10, "Q2_K", 256, 84, false) \
    X(QD_GGML_Q3_K, 11, "Q3_K", 256, 110, false) \
    X(QD_GGML_Q4_K, 12, "Q4_K", 256, 144, true) \
    X(QD_GGML_Q5_K, 13, "Q5_K", 256, 176, true) \
    X(QD_GGML_Q6_K, 14, "Q6_K", 256, 210, true) \
    X(QD_GGML_I8, 24, "I8", 1, 1, false) \
    X(QD_GGML_I16, 25, "I16", 1, 2, false) \
    X(QD_GGML_I32, 26, "I32", 1, 4, false) \
    X(QD_GGML_I64, 27, "I64", 1, 8, false) \
    X(QD_GGML_F64, 28, "F64", 1, 8, false) \
    X(QD_GGML_BF16, 30, "BF16", 1, 2, true)
/* clang-format on */

typedef enum qd_ggml_type {
#define X(e, number, name, elems, bytes, imported) e = number,
    QD_GGML_TYPES(X)
#undef X
} qd_ggml_type;

typedef struct qd_ggml_info {
    qd_ggml_type type;
    const char *name;
    uint32_t block_elems, block_bytes;
    bool imported; /* qd_gguf_to_bf16() reads it */
} qd_ggml_info;

const qd_ggml_info *qd_ggml_find(uint32_t number); /* NULL when not known */

/* Kinds of metadata values, under the file's numbers. */
typedef enum qd_gguf_kind {
    QD_GGUF_U8,
    QD_GGUF_I8,
    QD_GGUF_U16,
    QD_GGUF_I16,
    QD_GGUF_U32,
    QD_GGUF_I32,
    QD_GGUF_F32,
    QD_GGUF_BOOL,
    QD_GGUF_STRING,
    QD_GGUF_ARRAY,
    QD_GGUF_U64,
    QD_GGUF_I64,
    QD_GGUF_F64,
    QD_GGUF_KIND_COUNT
} qd_gguf_kind;

const char *qd_gguf_kind_name(qd_gguf_kind k);

typedef struct qd_gguf_pair {
    const char *key;
    qd_gguf_kind kind; /* of each of the n values; never QD_GGUF_ARRAY */
    bool is_array;     /* else n == 1 */
    uint64_t n;
    const void *values;         /* n numbers as in the file, for all kinds but QD_GGUF_STRING */
    const char *const *strings; /* QD_GGUF_STRING: n, without NUL bytes inside */
} qd_gguf_pair;

typedef struct qd_gguf_tensor {
    const char *name;
    const qd_ggml_info *info;
    uint32_t rank;                    /* 1..4 */
    uint64_t shape[QD_GGUF_RANK_MAX]; /* slowest dimension first, as in safetensors (the file has it the other way) */
    uint64_t n_elems;
    uint64_t off, bytes; /* absolute; inside the file, aligned, overlapping no other */
} qd_gguf_tensor;

typedef struct qd_gguf {
    const char *what; /* the source's name, for errors */
    uint32_t version;
    uint64_t alignment, data_off;
    qd_gguf_pair *pairs; /* sorted by key */
    uint32_t n_pairs;
    qd_gguf_tensor *tensors; /* in the order of the file's table */
    uint32_t n_tensors;
    qd_arena arena; /* everything above */
} qd_gguf;

/* Reads all but the data of s. *ret zeroed before, qd_gguf_done() after; it refers to s->name. Errors: QD_E_INPUT with
 * file, key or tensor, expected and found: bad magic, version, big-endian, truncated, counts and lengths that overflow,
 * exceed the file or the limits above, nested arrays, keys or tensors given twice, unknown kinds and types, shapes that
 * overflow or that blocks do not divide, offsets that are unaligned, out of range or overlap. */
QD_MUST_CHECK qd_code qd_gguf_read(qd_source *s, qd_gguf *ret, qd_err *err);
void qd_gguf_done(qd_gguf *g);

/* Values. The getters with _or take the default when the key is absent; a value of another kind is QD_E_INPUT. Integers
 * may be of any integer kind, 0..max; floats F32 or F64. */
const qd_gguf_pair *qd_gguf_find(const qd_gguf *g, const char *key);
QD_MUST_CHECK qd_code qd_gguf_str(const qd_gguf *g, const char *key, const char **ret, qd_err *err);
QD_MUST_CHECK qd_code qd_gguf_str_or(const qd_gguf *g, const char *key, const char *dflt, const char **ret,
                                     qd_err *err);
QD_MUST_CHECK qd_code qd_gguf_u64(const qd_gguf *g, const char *key, uint64_t max, uint64_t *ret, qd_err *err);
QD_MUST_CHECK qd_code qd_gguf_u64_or(const qd_gguf *g, const char *key, uint64_t dflt, uint64_t max, uint64_t *ret,
                                     qd_err *err);
QD_MUST_CHECK qd_code qd_gguf_f64(const qd_gguf *g, const char *key, double *ret, qd_err *err);
QD_MUST_CHECK qd_code qd_gguf_f64_or(const qd_gguf *g, const char *key, double dflt, double *ret, qd_err *err);
QD_MUST_CHECK qd_code qd_gguf_bool_or(const qd_gguf *g, const char *key, bool dflt, bool *ret, qd_err *err);
/* *ret NULL when absent; an array whose values are of that kind. */
QD_MUST_CHECK qd_code qd_gguf_array_or(const qd_gguf *g, const char *key, qd_gguf_kind kind, const qd_gguf_pair **ret,
                                       qd_err *err);

#endif
