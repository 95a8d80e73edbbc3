#include "gateway/openapi.h"

qd_code qd_openapi(json_t **ret, qd_err *err)
{
    json_t *doc = NULL;
    qd_code rc = qd_json_parse((const char *)qd_openapi_json, qd_openapi_json_bytes, "openapi.json", &doc, err);
    if (rc == QD_OK && json_object_set_new(json_object_get(doc, "info"), "version", json_string(QD_VERSION)) != 0)
        rc = qd_fail(err, QD_E_NO_MEMORY, "openapi.json: out of memory");
    if (rc == QD_OK)
        *ret = doc;
    else
        json_decref(doc);
    return rc;
}
