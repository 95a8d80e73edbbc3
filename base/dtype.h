/* dtype.h -- element types of tensors, under safetensors' names. */
#ifndef QD_BASE_DTYPE_H
#define QD_BASE_DTYPE_H

#include <stdint.h>

/* X(enum, safetensors name, bits) */
/* clang-format off */
#define QD_DTYPES(X) \
    X(QD_BOOL, "BOOL", 8) \
    X(QD_U8, "U8", 8) \
    X(QD_I8, "I8", 8) \
    X(QD_I16, "I16", 16) \
    X(QD_U16, "U16", 16) \
    X(QD_F16, "F16", 16) \
    X(QD_BF16, "BF16", 16) \
    X(QD_I32, "I32", 32) \
    X(QD_U32, "U32", 32) \
    X(QD_F32, "F32", 32) \
    X(QD_F64, "F64", 64) \
    X(QD_I64, "I64", 64) \
    X(QD_U64, "U64", 64) \
    X(QD_C64, "C64", 64) \
    X(QD_F8_E4M3, "F8_E4M3", 8) \
    X(QD_F8_E5M2, "F8_E5M2", 8) \
    X(QD_F8_E8M0, "F8_E8M0", 8)
/* clang-format on */

typedef enum qd_dtype {
#define X(e, name, bits) e,
    QD_DTYPES(X)
#undef X
    QD_DTYPE_COUNT /* also: "not known" */
} qd_dtype;

const char *qd_dtype_name(qd_dtype t); /* "?" when not known */
unsigned qd_dtype_bytes(qd_dtype t);   /* 0 when not known */
qd_dtype qd_dtype_from_name(const char *name);

#endif
