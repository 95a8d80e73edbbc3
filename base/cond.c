#include "base/cond.h"

#include "base/clock.h"

#include <errno.h>
#include <time.h>

void qd_cond_init(pthread_cond_t *c)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(c, &attr);
    (void)pthread_condattr_destroy(&attr);
}

bool qd_cond_wait_until(pthread_cond_t *c, pthread_mutex_t *lock, uint64_t at_ns)
{
    const struct timespec at = {.tv_sec = (time_t)(at_ns / 1000000000), .tv_nsec = (long)(at_ns % 1000000000)};
    return pthread_cond_timedwait(c, lock, &at) != ETIMEDOUT;
}

bool qd_cond_wait_for(pthread_cond_t *c, pthread_mutex_t *lock, uint64_t wait_ns)
{
    return qd_cond_wait_until(c, lock, qd_mono_ns() + wait_ns);
}
