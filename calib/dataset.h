/* dataset.h -- calibration data: files from outside to samples of token ids.
 *
 * A file is, by its name: *.safetensors token ids, taken as they are (tensor "input_ids", or the only one; [B,T] or
 * [T], I32 or I64); *.jsonl or *.json an object a line: {"messages"} through the chat format, with {"chosen"} of
 * preference data behind them, or {"text"} raw; "tools" are used, "rejected" and "loss_weight" are not; anything else
 * one text. A line that is no usable sample is skipped with a warning. Memory is bounded, whatever the files hold. */
#ifndef QD_CALIB_DATASET_H
#define QD_CALIB_DATASET_H

#include "base/cancel.h"
#include "calib/chat.h"
#include "ckpt/tokenizer.h"

enum {
    QD_DATASET_FILES_MAX = 64,
    QD_DATASET_WARNINGS_MAX = 20 /* for each load; then one that counts the rest */
};
#define QD_DATASET_IDS_MAX (UINT64_C(64) << 20) /* n_samples x len */

typedef void (*qd_warn_fn)(void *user, const char *sentence);

typedef struct qd_dataset_options {
    const char *const *paths;
    uint32_t n_paths;
    uint32_t n_samples, len; /* at least 1; of ids from safetensors 0 means all */
    bool pack;      /* true: documents are joined and cut every len tokens. false: every sample begins with a document's
                       beginning, is filled up with the next ones, and the rest of the last one is dropped */
    uint64_t seed;  /* 0: the order of the files. Else documents (of a text: stretches of len tokens) are shuffled */
    uint32_t n_ids; /* of the model: ids must be smaller; 0: not checked */
    bool ids;       /* the one file holds token ids, whatever its name */
    qd_warn_fn warn; /* may be NULL */
    void *warn_user;
    qd_cancel *cancel; /* may be NULL */
} qd_dataset_options;

typedef struct qd_dataset {
    int32_t *ids;               /* [n_samples][len]; owned */
    uint64_t *starts;           /* [n_samples + 1], 0, len, 2 len ...; owned */
    uint32_t n_samples, len;    /* fewer or shorter than asked for where the data is (with a warning); never 0 */
    uint64_t n_used, n_skipped; /* lines of JSONL files */
} qd_dataset;

/* tokenizer (for everything but safetensors) and chat may be NULL where no file needs them. The same files, options and
 * tokenizer give the same ids.
 * Errors: QD_E_INPUT (no usable sample: with the first reasons; no text; ids outside the vocabulary; a missing or
 * damaged file), QD_E_USAGE, QD_E_CANCELED, QD_E_IO, QD_E_NO_MEMORY. Release with qd_dataset_done(). */
QD_MUST_CHECK qd_code qd_dataset_load(qd_tokenizer *tokenizer, const qd_chat *chat, const qd_dataset_options *o,
                                      qd_dataset *ret, qd_err *err);
/* n samples of len tokens, all 0: where only their number matters. Errors: those of qd_dataset_load()'s options,
 * QD_E_NO_MEMORY. Release with qd_dataset_done(). */
QD_MUST_CHECK qd_code qd_dataset_zeros(uint32_t n, uint32_t len, qd_dataset *ret, qd_err *err);
void qd_dataset_done(qd_dataset *d);

/* Path of the built-in set: the installed one, else that of the source tree. Free with qd_free(). NULL: out of memory.
 */
char *qd_dataset_default_path(void);

#endif
