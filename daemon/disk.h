/* disk.h -- the real qd_jobs_disk: job directories below the output roots.
 *
 * OUT's last part is <name>.<job id>; beside it are <name>.<job id>.staging.<epoch> and trash, a hidden name that
 * nothing else uses. Every change is one rename within the parent directory. What a crash left is looked for in the
 * roots and ROOT_DEPTH levels below. */
#ifndef QD_DAEMON_DISK_H
#define QD_DAEMON_DISK_H

#include "base/pool.h"
#include "jobs/disk.h"

#include <stdatomic.h>

enum {
    QD_DISK_PATH_BYTES = 4096
};

typedef struct qd_disk {
    const char *roots; /* as in output_roots; must outlive it */
    /* Trash is removed by a thread, one directory of it at a time: a model's files take seconds, in which a worker has
     * to renew leases and to see cancels. */
    qd_pool *remover;
    atomic_bool removing, stop;
    char trash[QD_DISK_PATH_BYTES];
} qd_disk;

qd_jobs_disk qd_disk_ops(qd_disk *d); /* ctx is d */
void qd_disk_done(qd_disk *d);        /* the thread finishes the directory it is at */

#endif
