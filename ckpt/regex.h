/* regex.h -- the regular expressions of tokenizer.json: Oniguruma's dialect, run by PCRE2 with JIT and a step limit. */
#ifndef QD_CKPT_REGEX_H
#define QD_CKPT_REGEX_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct qd_regex qd_regex; /* holds the space of its last match: one thread at a time */

/* literal: the pattern stands for itself. what names it in errors. Errors: QD_E_UNSUPPORTED (an escape that the two
 * dialects read differently), QD_E_INPUT (no expression, or too large), QD_E_NO_MEMORY. Release with qd_regex_free().
 */
QD_MUST_CHECK qd_code qd_regex_new(const char *pattern, size_t len, bool literal, const char *what, qd_regex **ret,
                                   qd_err *err);
void qd_regex_free(qd_regex *r);

/* First match that starts at or after byte `from` of text, which is valid UTF-8. *ret_found false: none, the rest is
 * untouched. Errors: QD_E_INPUT when the expression needs too many steps on this text. */
QD_MUST_CHECK qd_code qd_regex_next(qd_regex *r, const char *text, size_t len, size_t from, bool *ret_found,
                                    size_t *ret_start, size_t *ret_end, qd_err *err);

#endif
