/* template_parts.h -- what the files behind catalog/template.h share. */
#ifndef QD_CATALOG_TEMPLATE_PARTS_H
#define QD_CATALOG_TEMPLATE_PARTS_H

#include "catalog/template.h"

enum {
    QD_TEMPLATE_WHERE_BYTES = 640
};

/* Refuses keys that are not in known (n_known names). where: "file: hyper_parameters[2]". All of these give QD_E_INPUT
 * or QD_E_NO_MEMORY; qd_template_parse() makes QD_E_CONFIG of the former. */
QD_MUST_CHECK qd_code qd_template_keys(json_t *o, const char *where, const char *const *known, size_t n_known,
                                       qd_err *err);
/* A required string that is not empty, copied into the arena. */
QD_MUST_CHECK qd_code qd_template_str(const json_t *o, const char *key, const char *where, qd_arena *arena,
                                      const char **ret, qd_err *err);
/* {"zh": ..., "en": ...}, both required. */
QD_MUST_CHECK qd_code qd_template_text(const json_t *o, const char *key, const char *where, qd_arena *arena,
                                       qd_text *ret, qd_err *err);
/* An array of different strings that are not empty; an absent one is empty. */
QD_MUST_CHECK qd_code qd_template_strs(const json_t *o, const char *key, const char *where, qd_arena *arena,
                                       const char *const **ret, uint32_t *ret_n, qd_err *err);
/* "hyper_parameters". */
QD_MUST_CHECK qd_code qd_template_params(const json_t *root, const char *what, qd_arena *arena, qd_param **ret,
                                         uint32_t *ret_n, qd_err *err);

/* text as a value of p, in one spelling ("04" becomes "4"), in the arena. QD_E_INPUT says what was expected. */
QD_MUST_CHECK qd_code qd_param_value(const qd_param *p, const char *text, qd_arena *arena, const char **ret,
                                     qd_err *err);

#endif
