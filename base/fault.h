/* fault.h -- the n-th allocation, read, write or sync fails, so that tests walk every error path.
 *
 * Off unless armed: by qd_fault_arm() in a unit test, or by QD_FAULT=<kind>:<n>[:<errno>] in the environment of a
 * program that calls qd_fault_arm_from_env() (kinds: alloc, read, write, sync, rename). Counts are process-wide and
 * atomic. One kind is no failure: flood makes a job's process log n lines a second beside its work
 * (daemon/child_flood.h).
 */
#ifndef QD_BASE_FAULT_H
#define QD_BASE_FAULT_H

#include <stdbool.h>

typedef enum qd_fault_kind {
    QD_FAULT_ALLOC,
    QD_FAULT_READ,
    QD_FAULT_WRITE,
    QD_FAULT_SYNC,
    QD_FAULT_RENAME,
    QD_FAULT_FLOOD,
    QD_FAULT_KIND_COUNT
} qd_fault_kind;

/* From now on the n-th call (1 = the next) of this kind fails once with the given errno; n == 0 disarms and zeroes the
 * count. */
void qd_fault_arm(qd_fault_kind kind, unsigned long n, int sys_errno);
void qd_fault_arm_from_env(void);
/* The n of this kind; 0: it is not armed. */
unsigned long qd_fault_armed(qd_fault_kind kind);
/* Calls of this kind seen since it was armed. */
unsigned long qd_fault_count(qd_fault_kind kind);
/* At the place that may fail: 0, or the errno to fail with. */
int qd_fault_here(qd_fault_kind kind);

#endif
