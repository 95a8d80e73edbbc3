/* digest.h -- one checksum for a finished output directory: the same bytes have the same digest, on every node.
 *
 * XXH3-128 over, in order: for each part file its name, size and header; for each unit of the plan its checksum as
 * journaled (tiles as verified, scales); for each side file its name, size and bytes. Written into report.json and the
 * job's record; report.json and the job's log are not in it. Tiles are part of the numerics, so digests compare between
 * programs of one QD_NUMERICS_VERSION. */
#ifndef QD_ENGINE_DIGEST_H
#define QD_ENGINE_DIGEST_H

#include "engine/run.h"

/* dir: where the output is now, all of it written. */
QD_MUST_CHECK qd_code qd_output_digest(const qd_run *run, const char *dir, qd_hash128 *ret, qd_err *err);

#endif
