/* tile.h -- what a worker does with one tile: read and measure, encode and write, or copy. */
#ifndef QD_ENGINE_TILE_H
#define QD_ENGINE_TILE_H

#include "engine/journal.h"
#include "engine/sched.h"

#include <semaphore.h>

typedef struct qd_worker {
    qd_run *run;
    sem_t *compute;     /* as many may compute at once as there are compute threads; reads and writes are outside */
    unsigned char *buf; /* plan->worker_bytes, aligned to QD_IO_ALIGN; not owned */
    float *scales;      /* block scales of an F8 tile; owned, grows */
    size_t scales_cap;
} qd_worker;

void qd_worker_done(qd_worker *w);

/* Reads the tile into area; *ret_data points to its weights there (F8 widened to float32); its amax goes to
 * run->tile_amax. Errors: QD_E_INPUT for a NaN or an infinity (file, tensor, row, column), read errors. */
QD_MUST_CHECK qd_code qd_tile_load(qd_worker *w, uint32_t tile, unsigned char *area, void **ret_data, qd_err *err);
/* Encodes data (as loaded) with the unit's global scale and writes codes and scales; sums and hashes go to run. */
QD_MUST_CHECK qd_code qd_tile_encode(qd_worker *w, uint32_t tile, const void *data, qd_err *err);
/* Reads and writes the tile as it is, or widened to BF16. */
QD_MUST_CHECK qd_code qd_tile_copy(qd_worker *w, uint32_t tile, unsigned char *area, qd_err *err);
/* All tiles of a quantized unit are loaded: amax of each linear, global scale of the set. */
void qd_unit_scale(qd_run *r, uint32_t unit);
/* All tiles are written: sums of each linear in order, global scales to disk. */
QD_MUST_CHECK qd_code qd_unit_finish(qd_run *r, uint32_t unit, qd_err *err);
/* Nothing of the unit waits in memory any more: what is journaled survives the process. */
QD_MUST_CHECK qd_code qd_unit_flush(const qd_run *r, uint32_t unit, qd_err *err);
/* qd_unit_finish(), then the unit's journal line. */
QD_MUST_CHECK qd_code qd_unit_close(qd_run *r, qd_journal *journal, uint32_t unit, qd_err *err);
/* dtype of a tile's weights once loaded: F8 has become F32. */
qd_dtype qd_item_loaded_dtype(const qd_item *it);

#endif
