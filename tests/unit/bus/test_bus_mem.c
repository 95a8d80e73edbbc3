/* test_bus_mem.c -- the bus in process keeps every bus's promises. */
#include "tests/unit/bus/conformance.h"

#include "bus/bus_mem.h"
#include "proto/subject.h"

static void sleep_virtual(void *ctx, uint64_t ms)
{
    qd_bus_mem *s = ctx;
    qd_bus_mem_set_now_ms(s, qd_bus_mem_now_ms(s) + ms);
}

static int setup(void **state)
{
    static harness only;
    harness *h = &only;
    qd_bus_mem *s = NULL;
    if (qd_bus_mem_new(1, 1000000, NULL, &s, NULL) != QD_OK) return -1;
    qd_bus_mem_set_msgs_max(s, QD_STREAM_JOBS, CONFORMANCE_QUEUE_MAX);
    h->ctx = s;
    h->sleep_ms = sleep_virtual;
    if (qd_bus_mem_client(s, "a", &h->a, NULL) != QD_OK || qd_bus_mem_client(s, "b", &h->b, NULL) != QD_OK) return -1;
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    harness *h = *state;
    qd_bus_free(h->a);
    qd_bus_free(h->b);
    qd_bus_mem_free(h->ctx);
    return 0;
}

int main(void)
{
    return conformance_run("bus_mem", setup, teardown);
}
