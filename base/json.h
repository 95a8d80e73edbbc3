/* json.h -- JSON from outside: parsed by jansson with limits, read by typed getters whose errors name the key.
 *
 * Numbers, strings and nesting are checked by jansson (depth <= 2048, no NUL in strings, UTF-8 only); duplicate keys
 * are refused. json_t ownership follows jansson: qd_json_parse() gives a new reference, getters give borrowed ones. */
#ifndef QD_BASE_JSON_H
#define QD_BASE_JSON_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* what: names the text in errors ("model/config.json"). Errors: QD_E_INPUT with line and column, QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_json_parse(const char *text, size_t len, const char *what, json_t **ret, qd_err *err);
enum {
    QD_JSON_NUL = 1,          /* strings may hold NUL (json_string_length()), object keys may not */
    QD_JSON_BIG_INTEGERS = 2, /* all integers are read as reals, so that none is too big */
};
/* The same with flags. */
QD_MUST_CHECK qd_code qd_json_parse_with(const char *text, size_t len, const char *what, unsigned flags, json_t **ret,
                                         qd_err *err);
/* Reads and parses a file of at most max_bytes. A missing file is QD_E_INPUT with errno ENOENT in err->sys_errno. */
QD_MUST_CHECK qd_code qd_json_load(const char *path, uint64_t max_bytes, json_t **ret, qd_err *err);

/* Typed getters: required ones fail with QD_E_INPUT "<what>: "<key>": expected <type>, found <type>"; optional ones
 * (_or) take the default when the key is absent or null, and still fail on a wrong type. Integers must be 0..max. */
QD_MUST_CHECK qd_code qd_json_str(const json_t *o, const char *key, const char *what, const char **ret, qd_err *err);
QD_MUST_CHECK qd_code qd_json_str_or(const json_t *o, const char *key, const char *what, const char *dflt,
                                     const char **ret, qd_err *err);
QD_MUST_CHECK qd_code qd_json_u64(const json_t *o, const char *key, const char *what, uint64_t max, uint64_t *ret,
                                  qd_err *err);
QD_MUST_CHECK qd_code qd_json_u64_or(const json_t *o, const char *key, const char *what, uint64_t dflt, uint64_t max,
                                     uint64_t *ret, qd_err *err);
QD_MUST_CHECK qd_code qd_json_bool_or(const json_t *o, const char *key, const char *what, bool dflt, bool *ret,
                                      qd_err *err);
QD_MUST_CHECK qd_code qd_json_num_or(const json_t *o, const char *key, const char *what, double dflt, double *ret,
                                     qd_err *err);
QD_MUST_CHECK qd_code qd_json_obj_or(const json_t *o, const char *key, const char *what, json_t **ret,
                                     qd_err *err); /* *ret NULL when absent */
QD_MUST_CHECK qd_code qd_json_arr_or(const json_t *o, const char *key, const char *what, json_t **ret,
                                     qd_err *err); /* *ret NULL when absent */

const char *qd_json_type(
    const json_t *v); /* "object", "array", "string", "integer", "number", "boolean", "null", "nothing" */

/* Makes jansson allocate through base/mem.h, so that tests can fail its allocations too, and so that qd_json_parse()
 * notices the failures that jansson overlooks. Every program calls it once, before any thread. */
void qd_json_use_qd_memory(void);

#endif
