/* staging.h -- the staging directory: made beside OUT_DIR, held by one process, renamed into place when all is
 * verified. */
#ifndef QD_ENGINE_STAGING_H
#define QD_ENGINE_STAGING_H

#include "base/err.h"

#include <stdbool.h>

typedef struct qd_staging {
    char *out, *dir; /* OUT_DIR without trailing slashes; the staging directory; owned */
    int lock_fd;     /* of the staging directory, flock()ed */
    bool found;      /* it was there before: an earlier run's */
    bool committed;  /* OUT_DIR holds the result */
} qd_staging;

/* Refuses an existing OUT_DIR without force, and a staging directory without resume or force (QD_E_BUSY, with the way
 * on); one that another process holds always. Makes and holds staging_dir, by default OUT_DIR.staging. *ret zeroed
 * before, qd_staging_close() after success. */
QD_MUST_CHECK qd_code qd_staging_open(const char *out_dir, const char *staging_dir, bool resume, bool force,
                                      qd_staging *ret, qd_err *err);
/* Removes what is in it (an earlier run of another plan). */
QD_MUST_CHECK qd_code qd_staging_empty(const qd_staging *s, qd_err *err);
/* Renames it to OUT_DIR; with force an OUT_DIR that is there is swapped out and removed. Durable when it returns QD_OK.
 * An error after the rename leaves the result in OUT_DIR, says so and sets s->committed. */
QD_MUST_CHECK qd_code qd_staging_commit(qd_staging *s, bool force, qd_err *err);
/* Lets go. remove: the directory too (a failure that no resume can mend). */
void qd_staging_close(qd_staging *s, bool remove);
char *qd_staging_path(const qd_staging *s, const char *name); /* NULL when memory is out; qd_free() */

#endif
