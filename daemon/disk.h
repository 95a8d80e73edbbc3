/* disk.h -- the real qd_jobs_disk: job directories below the output roots.
 *
 * OUT's last part is <name>.<job id>; beside it are <name>.<job id>.staging.<epoch> and trash, a hidden name that
 * nothing else uses. Every change is one rename within the parent directory. What a crash left is looked for in the
 * roots and ROOT_DEPTH levels below. */
#ifndef QD_DAEMON_DISK_H
#define QD_DAEMON_DISK_H

#include "jobs/disk.h"

typedef struct qd_disk {
    const char *roots; /* as in output_roots; must outlive it */
} qd_disk;

qd_jobs_disk qd_disk_ops(qd_disk *d); /* ctx is d */

#endif
