#include "base/dtype.h"

#include <string.h>

static const struct {
    const char *name;
    unsigned bytes;
} k_types[] = {
#define X(e, name, bits) [e] = {name, (bits) / 8},
    QD_DTYPES(X)
#undef X
};

const char *qd_dtype_name(qd_dtype t)
{
    return (unsigned)t < QD_DTYPE_COUNT ? k_types[t].name : "?";
}

unsigned qd_dtype_bytes(qd_dtype t)
{
    return (unsigned)t < QD_DTYPE_COUNT ? k_types[t].bytes : 0;
}

qd_dtype qd_dtype_from_name(const char *name)
{
    for (int i = 0; i < QD_DTYPE_COUNT; i++)
        if (strcmp(name, k_types[i].name) == 0) return (qd_dtype)i;
    return QD_DTYPE_COUNT;
}
