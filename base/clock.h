/* clock.h -- time as whole units since an epoch; never compared between machines. */
#ifndef QD_BASE_CLOCK_H
#define QD_BASE_CLOCK_H

#include <stdint.h>

uint64_t qd_mono_ns(void); /* monotonic */
uint64_t qd_mono_ms(void); /* the same clock */
uint64_t qd_unix_ms(void); /* UTC */
uint64_t qd_cpu_ns(void);  /* CPU time of this process */

static inline double qd_seconds_since(uint64_t start_ns)
{
    return (double)(qd_mono_ns() - start_ns) * 1e-9;
}

#endif
