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
    LONG_MS = 8000, /* far more than anything takes; over at once when it is there */
    ACK_WAIT_MS = 2000,
    CONFORMANCE_QUEUE_MAX = 40 /* the harness gives QUANT_JOBS this limit */
};

/* Each test's *state. */
typedef struct harness {
    void *ctx;
    qd_bus *a, *b; /* two clients of one bus */
    void (*sleep_ms)(void *ctx, uint64_t ms);
} harness;

extern const struct CMUnitTest conformance_kv[], conformance_queue[];
extern const size_t conformance_kv_n, conformance_queue_n;

/* Runs all of them, each with its own setup and teardown of *state; returns how many failed. */
int conformance_run(const char *bus, CMFixtureFunction setup, CMFixtureFunction teardown);

void conformance_ok(qd_code rc, const qd_err *err, const char *what, int line); /* fails the test unless rc is QD_OK */
qd_code conformance_publish(qd_bus *b, const char *subject, const char *text, const char *id, uint64_t expect,
                            qd_bus_puback *ret, qd_err *err);

/* A call with &err among its arguments that succeeds, or fails with a code. */
#define OK(call)                                       \
    do {                                               \
        qd_err err = {0};                              \
        conformance_ok((call), &err, #call, __LINE__); \
    } while (0)
#define FAILS(want, call)                                                                                    \
    do {                                                                                                     \
        qd_err err = {0};                                                                                    \
        qd_code rc = (call);                                                                                 \
        if (rc != (want))                                                                                    \
            fail_msg("line %d: %s: %s, expected %s: %s", __LINE__, #call, qd_code_name(rc), #want, err.msg); \
        assert_int_equal(err.code, want);                                                                    \
        assert_true(err.msg[0] != '\0');                                                                     \
    } while (0)

#endif
