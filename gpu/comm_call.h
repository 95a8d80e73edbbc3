/* comm_call.h -- what the implementations of gpu/comm.h share: checks, words, reductions. */
#ifndef QD_GPU_COMM_CALL_H
#define QD_GPU_COMM_CALL_H

#include "gpu/comm.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    QD_COMM_CALL_BYTES = 160 /* of the words for a call */
};

size_t qd_comm_item_bytes(uint32_t type); /* 0: no such type */
const char *qd_comm_type_name(uint32_t type);
/* "all_reduce 12 (max of 4096 f32)"; also for a call of another rank, whose fields may be anything. */
const char *qd_comm_call_words(const qd_comm_call *call, char ret[QD_COMM_CALL_BYTES]);
/* Errors: QD_E_INTERNAL when rank's call is not mine; says both. */
QD_MUST_CHECK qd_code qd_comm_call_same(const qd_comm_call *mine, uint32_t rank, const qd_comm_call *its, qd_err *err);
/* Errors: QD_E_USAGE. */
QD_MUST_CHECK qd_code qd_comm_options_check(const qd_comm_options *o, qd_err *err);
/* Counts a tick; QD_E_CANCELED when the token is set. */
QD_MUST_CHECK qd_code qd_comm_tick(const qd_comm_options *o, qd_err *err);
/* Whether a transfer has to wait for an earlier one of the list: same peer, same direction, not finished. */
bool qd_comm_transfer_waits(const qd_comm_transfer *list, const bool *finished, uint32_t i);

/* acc [n] = acc (red) part, element by element: called with parts in the order of ranks it fixes the order of sums.
 * NaN wins a maximum, and of equal ones the first. */
void qd_comm_fold(uint32_t type, uint32_t red, void *acc, const void *part, uint64_t n);

#endif
