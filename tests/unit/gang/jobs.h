/* jobs.h -- what whole jobs on a gang promise, whichever the communicator. Each test's state is a bench. */
#ifndef QD_TESTS_GANG_JOBS_H
#define QD_TESTS_GANG_JOBS_H

#include "tests/unit/gpu/comm_gang.h"

#define GANG_JOB_TESTS(X)                                              \
    X(processes_give_the_bytes_of_shared_memory)                       \
    X(weights_alone_are_the_same_for_every_size)                       \
    X(plain_calibration_is_the_same_for_every_size)                    \
    X(every_input_rule_is_the_same_for_every_size)                     \
    X(second_moments_scaling_and_the_gate_are_the_same_for_every_size) \
    X(gptq_is_the_same_for_one_size_and_near_for_others)               \
    X(experts_as_wholes_are_the_same_for_every_size)                   \
    X(experts_by_gptq_are_the_same_for_one_size_and_near_for_others)   \
    X(a_weight_that_is_no_number_is_the_jobs_error)                    \
    X(ranks_with_other_plans_do_not_begin)                             \
    X(a_cancel_of_any_rank_ends_all_and_a_resume_goes_on)

#define X(name) void name(void **state);
GANG_JOB_TESTS(X)
#undef X

int jobs_set_up(void **state, const gang_kind *kind);
int jobs_tear_down(void **state);

#endif
