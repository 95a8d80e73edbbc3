/* verify.h -- reads back what was written and compares: a hash a tile, the global scales, the headers, no NaN among the
 * scales. */
#ifndef QD_ENGINE_VERIFY_H
#define QD_ENGINE_VERIFY_H

#include "base/cancel.h"
#include "engine/pipeline.h"

/* Re-reads the units with want[u] (NULL: all) from the part files in dir. With expect (unit hashes, for a resume):
 * ok[u] says whether a unit is there as journaled, and the tile hashes in run become those read. Without: run's tile
 * hashes are what must be found, and the first difference is QD_E_VERIFY naming file and tensor. */
QD_MUST_CHECK qd_code qd_verify_units(qd_run *run, const char *dir, const bool *want, const qd_hash128 *expect,
                                      bool *ok, const qd_job_events *events, qd_cancel *cancel, qd_err *err);
/* Each part has its planned size and header. */
QD_MUST_CHECK qd_code qd_verify_headers(const qd_plan *p, const char *dir, qd_err *err);

#endif
