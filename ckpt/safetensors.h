/* safetensors.h -- the header of one safetensors file: read with suspicion, written canonically.
 *
 * Layout: u64 little-endian header length, JSON header, data. Header at most 100 MB, padded with spaces; every byte of
 * the data belongs to exactly one tensor. Source: the safetensors format description (huggingface/safetensors README).
 */
#ifndef QD_CKPT_SAFETENSORS_H
#define QD_CKPT_SAFETENSORS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/dtype.h"
#include "base/err.h"
#include "ckpt/source.h"

#include <stdint.h>

enum {
    QD_RANK_MAX = 8
};
#define QD_ST_HEADER_BYTES_MAX 100000000u
#define QD_ST_NAME_BYTES_MAX   1024u

typedef struct qd_tensor {
    const char *name; /* in the owner's arena */
    qd_dtype dtype;
    uint32_t rank; /* 0 = scalar */
    uint32_t file; /* index of the file in the checkpoint (0 for a single header) */
    uint64_t shape[QD_RANK_MAX];
    uint64_t n_elems; /* product of shape, checked */
    uint64_t off;     /* absolute byte offset in the file */
    uint64_t bytes;   /* n_elems * size of dtype, checked against the header */
} qd_tensor;

typedef struct qd_st_meta {
    const char *key, *value;
} qd_st_meta;

typedef struct qd_st_header {
    qd_tensor *tensors; /* in order of off; in the arena given */
    uint32_t n_tensors;
    qd_st_meta *meta; /* "__metadata__", in the arena */
    uint32_t n_meta;
    uint64_t data_off; /* 8 + header length */
    uint64_t digest;   /* of length field and header bytes: pins the source in a plan */
} qd_st_header;

/* Reads and checks the header of s. Everything in *ret lives in arena. Errors name the file, the tensor, expected and
 * found: QD_E_INPUT: too short, header too long, not JSON, duplicate or bad names, unknown dtype, rank > 8, shape
 * overflow, offsets that are reversed, out of range, overlapping, or leave a gap, byte count that is not shape x dtype.
 */
QD_MUST_CHECK qd_code qd_st_read_header(qd_source *s, qd_arena *arena, qd_st_header *ret, qd_err *err);
/* The same from memory: bytes is the JSON text of n bytes, file_bytes the size of the whole file. For readers and
 * fuzzing. */
QD_MUST_CHECK qd_code qd_st_parse_header(const char *json, size_t n, uint64_t file_bytes, const char *what,
                                         qd_arena *arena, qd_st_header *ret, qd_err *err);

/* Appends the length field and header for tensors (off relative to the data section, in order, without gaps) and meta
 * to out, padded so that the data section starts at a multiple of 8. The bytes depend on the arguments only. */
QD_MUST_CHECK qd_code qd_st_write_header(const qd_tensor *tensors, uint32_t n, const qd_st_meta *meta, uint32_t n_meta,
                                         qd_buf *out, qd_err *err);

#endif
