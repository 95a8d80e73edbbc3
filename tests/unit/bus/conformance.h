/* conformance.h -- what every implementation of bus.h promises, as cmocka tests over a harness. */
#ifndef QD_TESTS_UNIT_BUS_CONFORMANCE_H
#define QD_TESTS_UNIT_BUS_CONFORMANCE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/bus.h"

enum {
    CONFORMANCE_QUEUE_MAX = 40 /* the harness gives QUANT_JOBS this limit */
};

/* Each test's *state. */
typedef struct harness {
    void *ctx;
    qd_bus *a, *b; /* two clients of one bus */
    void (*sleep_ms)(void *ctx, uint64_t ms);
} harness;

extern const struct CMUnitTest conformance_tests[];
extern const size_t conformance_n;

/* NULL: rc was QD_OK. */
void conformance_ok(qd_code rc, const qd_err *err, const char *what, int line);

#endif
