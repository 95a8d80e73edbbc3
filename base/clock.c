#include "base/clock.h"

#include <time.h>

static uint64_t read_ns(clockid_t id)
{
    struct timespec t = {0, 0};
    (void)clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t qd_mono_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

uint64_t qd_mono_ms(void)
{
    return qd_mono_ns() / 1000000u;
}

uint64_t qd_unix_ms(void)
{
    return read_ns(CLOCK_REALTIME) / 1000000u;
}

uint64_t qd_cpu_ns(void)
{
    return read_ns(CLOCK_PROCESS_CPUTIME_ID);
}
