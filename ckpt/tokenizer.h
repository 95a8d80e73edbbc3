/* tokenizer.h -- text to token ids as tokenizer.json says, equal to Hugging Face's tokenizers; ids to text for logs.
 *
 * Read: BPE (byte-level, and SentencePiece style with byte fallback), normalizers NFC NFD NFKC NFKD Lowercase Prepend
 * Replace Sequence, pre-tokenizers ByteLevel Digits Metaspace Punctuation Sequence Split Whitespace WhitespaceSplit,
 * added tokens, post-processors that are templates. Anything else is QD_E_UNSUPPORTED, named. "truncation" and
 * "padding" are not applied. tokenizer.json and the text come from outside: both are checked and bounded. */
#ifndef QD_CKPT_TOKENIZER_H
#define QD_CKPT_TOKENIZER_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_TOKENIZER_JSON_BYTES_MAX (UINT64_C(64) << 20)
#define QD_TOKENIZER_TEXT_BYTES_MAX (UINT64_C(256) << 20) /* of one text */

typedef struct qd_tokenizer qd_tokenizer; /* holds a cache of words and scratch memory: one thread at a time */

typedef struct qd_ids { /* zero-initialized is empty */
    int32_t *data;      /* [n]; owned */
    size_t n, cap;
} qd_ids;

/* Reads model_dir/tokenizer.json. Errors: QD_E_INPUT (missing, damaged, inconsistent), QD_E_UNSUPPORTED (a component
 * that quantd does not have), QD_E_NO_MEMORY. Release with qd_tokenizer_free(). */
QD_MUST_CHECK qd_code qd_tokenizer_load(const char *model_dir, qd_tokenizer **ret, qd_err *err);
/* The same from memory; what names the text in errors. */
QD_MUST_CHECK qd_code qd_tokenizer_parse(const char *text, size_t len, const char *what, qd_tokenizer **ret,
                                         qd_err *err);
void qd_tokenizer_free(qd_tokenizer *t);

/* Largest id + 1, added tokens included. */
uint32_t qd_tokenizer_n_ids(const qd_tokenizer *t);
/* The id of a token by its spelling in tokenizer.json ("<|im_end|>", "\xc4\xa0the"); -1 when there is none. */
int32_t qd_tokenizer_id(const qd_tokenizer *t, const char *token);

/* Appends the ids of text (UTF-8, may hold NUL) to *ids. add_special: with what the post-processor's template puts
 * around a single text (<s>, <|begin_of_text|>). Added tokens in the text become their ids in any case.
 * Errors: QD_E_INPUT (not UTF-8: says the byte; too long; an expression of tokenizer.json that needs too many steps),
 * QD_E_UNSUPPORTED (add_special with a post-processor that is no template), QD_E_NO_MEMORY; *ids is then unchanged. */
QD_MUST_CHECK qd_code qd_tokenizer_encode(qd_tokenizer *t, const char *text, size_t len, bool add_special, qd_ids *ids,
                                          qd_err *err);
/* Appends the text of ids to *out as tokenizer.json's decoder makes it; special tokens are left out with skip_special.
 * Bytes that are not UTF-8 become U+FFFD. Errors: QD_E_INPUT (an id outside the vocabulary), QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_tokenizer_decode(const qd_tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                                          qd_buf *out, qd_err *err);

QD_MUST_CHECK qd_code qd_ids_add(qd_ids *ids, int32_t id, qd_err *err);
void qd_ids_done(qd_ids *ids); /* NULL-safe; leaves it empty */

#endif
