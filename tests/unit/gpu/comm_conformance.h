/* comm_conformance.h -- what every communicator of gpu/comm.h promises. Each test's state is a gang_kind. */
#ifndef QD_TESTS_COMM_CONFORMANCE_H
#define QD_TESTS_COMM_CONFORMANCE_H

#define COMM_TESTS(X)                                     \
    X(every_call_of_every_type_and_size)                  \
    X(buffers_larger_than_a_chunk)                        \
    X(processes_get_the_same)                             \
    X(float_sums_are_the_same_bytes_on_every_rank)        \
    X(messages_reach_their_peers_in_order)                \
    X(everybody_to_everybody_at_once_does_not_lock_up)    \
    X(a_random_list_of_calls_is_what_it_should_be)        \
    X(bad_arguments_break_nothing)                        \
    X(no_invite_is_refused)                               \
    X(ranks_that_call_different_things_are_told)          \
    X(a_message_that_is_not_the_expected_one_is_told)     \
    X(a_cancel_ends_the_wait)                             \
    X(an_abort_of_any_rank_ends_the_calls)                \
    X(an_abort_ends_an_exchange)                          \
    X(a_rank_that_is_late_is_named_or_said_to_be_missing) \
    X(a_rank_that_is_itself_kept_waiting_is_not_blamed)   \
    X(a_rank_that_never_opens_is_waited_for_in_vain)      \
    X(a_rank_that_computes_and_looks_is_not_late)         \
    X(a_look_sees_that_the_gang_is_broken)                \
    X(a_broken_gang_stays_broken)                         \
    X(waiting_ticks)                                      \
    X(a_killed_rank_ends_the_others_calls)                \
    X(a_rank_killed_anywhere_ends_the_others_calls)       \
    X(a_stopped_rank_ends_the_others_calls)               \
    X(nothing_is_left_behind)

#define X(name) void name(void **state);
COMM_TESTS(X)
#undef X

#endif
