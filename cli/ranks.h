/* ranks.h -- `quantctl quantize --ranks N`: N - 1 further processes of this program on this host, a gang. They get the
 * same arguments, and what makes them members in an environment variable. They meet in shared memory; those of GPUs go
 * on over NCCL, the shared memory beside it. */
#ifndef QD_CLI_RANKS_H
#define QD_CLI_RANKS_H

#include "base/cancel.h"
#include "engine/gang.h"

#include <sys/types.h>

enum {
    QD_RANKS_WAIT_S = 60, /* by default */
    QD_RANKS_DEVICE_BYTES = 32
};

typedef struct qd_ranks {
    qd_gang gang;
    qd_comm *beside;               /* of GPUs: qd_comm_options.beside */
    pid_t pids[QD_COMM_RANKS_MAX]; /* of members; 0: none, or waited for */
} qd_ranks;

/* How many devices are named: "gpu0,gpu2". */
uint32_t qd_ranks_listed(const char *devices);
/* The device of a rank: of a list its own, of one GPU that one and those after it. What is no name of a device gives
 * none. */
void qd_ranks_device(const char *devices, uint32_t rank, char ret[QD_RANKS_DEVICE_BYTES]);

/* Whether this process was started as a member. */
bool qd_ranks_is_member(void);
/* Starts the members and meets them; in a member, meets the others. argv [argc]: the command's arguments from its name
 * on. wait_s: for a rank of which nothing is heard. pin: each rank to processors of its own, those of one node where it
 * can. cancel outlives r. *ret zeroed before, qd_ranks_close() after, also on failure. Errors: QD_E_USAGE (n), QD_E_IO,
 * those of gpu/comm.h. */
QD_MUST_CHECK qd_code qd_ranks_open(uint32_t n, uint32_t wait_s, bool pin, int argc, char **argv, qd_cancel *cancel,
                                    qd_ranks *ret, qd_err *err);
/* All ranks, when each has opened its device: the gang goes on over the communicator that the device has. device: this
 * rank's, a name of gpu/device.h. Errors: those of qd_comm_find() and of gpu/comm.h, of any rank. */
QD_MUST_CHECK qd_code qd_ranks_go_on(qd_ranks *r, const char *device, qd_err *err);
/* Leaves the gang and waits for the members to end; who does not is killed. */
void qd_ranks_close(qd_ranks *r);
/* Threads of a rank where nothing was said: its share of the processors. */
unsigned qd_ranks_threads(uint32_t n, bool pin);

#endif
