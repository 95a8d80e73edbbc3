/* dataset_parts.h -- a data set while it is read; private to calib/dataset*.c. */
#ifndef QD_CALIB_DATASET_PARTS_H
#define QD_CALIB_DATASET_PARTS_H

#include "calib/dataset.h"

enum {
    QD_DATASET_REASONS_MAX = 3,
    QD_DATASET_POOL_IDS_MAX = 16 << 20 /* 64 MiB: what there is to choose from */
};

typedef struct qd_reading {
    const qd_dataset_options *o;
    qd_tokenizer *tokenizer;
    const qd_chat *chat;
    qd_ids ids;   /* of all documents */
    size_t *ends; /* of each document in ids; owned */
    size_t n_docs, cap_docs;
    uint64_t filled; /* ids of the samples so far, were they taken in this order */
    bool full;       /* no more is needed, or fits */
    uint64_t n_used, n_skipped;
    qd_buf reasons; /* the first of what was skipped */
    bool said_plain;
    qd_buf text; /* of the line at hand */
} qd_reading;

void qd_reading_warn(const qd_reading *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What was appended to r->ids since `start` is a document, cut every `piece` ids (0: not cut). Errors: QD_E_INPUT (an
 * id outside the vocabulary), QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_reading_add(qd_reading *r, size_t start, size_t piece, qd_err *err);

QD_MUST_CHECK qd_code qd_dataset_read_text(qd_reading *r, const char *path, qd_err *err);
QD_MUST_CHECK qd_code qd_dataset_read_lines(qd_reading *r, const char *path, qd_err *err);
QD_MUST_CHECK qd_code qd_dataset_read_ids(const qd_dataset_options *o, const char *path, qd_dataset *ret, qd_err *err);

#endif
