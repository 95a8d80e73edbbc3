/* comm_fold.c -- reductions of two parts, for the vectorizer. */
#include "gpu/comm_call.h"

#define SUM_LOOP(type, acc, part, n)                                   \
    do {                                                               \
        type *a = (acc);                                               \
        const type *p = (part);                                        \
        for (uint64_t i = 0; i < (n); i++) a[i] = (type)(a[i] + p[i]); \
    } while (0)

/* A NaN is not equal to itself: it is taken, and then kept, as nothing is larger. */
#define MAX_LOOP(type, acc, part, n)                                                         \
    do {                                                                                     \
        type *a = (acc);                                                                     \
        const type *p = (part);                                                              \
        for (uint64_t i = 0; i < (n); i++) a[i] = p[i] > a[i] || p[i] != p[i] ? p[i] : a[i]; \
    } while (0)

static void sum(uint32_t type, void *acc, const void *part, uint64_t n)
{
    switch (type) {
    case QD_COMM_F32:
        SUM_LOOP(float, acc, part, n);
        break;
    case QD_COMM_F64:
        SUM_LOOP(double, acc, part, n);
        break;
    case QD_COMM_I64:
        SUM_LOOP(uint64_t, acc, part, n);
        break;
    default:
        SUM_LOOP(uint8_t, acc, part, n);
        break;
    }
}

static void max(uint32_t type, void *acc, const void *part, uint64_t n)
{
    switch (type) {
    case QD_COMM_F32:
        MAX_LOOP(float, acc, part, n);
        break;
    case QD_COMM_F64:
        MAX_LOOP(double, acc, part, n);
        break;
    case QD_COMM_I64:
        MAX_LOOP(int64_t, acc, part, n);
        break;
    default:
        MAX_LOOP(uint8_t, acc, part, n);
        break;
    }
}

void qd_comm_fold(uint32_t type, uint32_t red, void *acc, const void *part, uint64_t n)
{
    if (red == QD_COMM_MAX)
        max(type, acc, part, n);
    else
        sum(type, acc, part, n);
}
