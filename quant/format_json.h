/* format_json.h -- JSON building blocks of the format writers. Each takes what it is given, also when it fails. */
#ifndef QD_QUANT_FORMAT_JSON_H
#define QD_QUANT_FORMAT_JSON_H

#include "quant/format.h"

/* New references, NULL when memory is out; helpers pass NULL on, so one check at the end is enough. */
/* Takes o and v; gives o back. */
json_t *qd_json_with(json_t *o, const char *key, json_t *v);
/* The text of a JSON value that is part of the program. */
json_t *qd_json_const(const char *text);
/* QD_OK with *ret = v, or QD_E_NO_MEMORY when v is NULL. */
QD_MUST_CHECK qd_code qd_json_finish(json_t *v, json_t **ret, qd_err *err);

#endif
