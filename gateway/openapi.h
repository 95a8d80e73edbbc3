/* openapi.h -- the description of every endpoint (OpenAPI 3.1), from gateway/openapi.json.
 *
 * Threads  no shared state. */
#ifndef QD_GATEWAY_OPENAPI_H
#define QD_GATEWAY_OPENAPI_H

#include "base/json.h"

extern const unsigned char qd_openapi_json[];
extern const size_t qd_openapi_json_bytes;

/* A new reference; info.version is this program's. Errors: QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_openapi(json_t **ret, qd_err *err);

#endif
