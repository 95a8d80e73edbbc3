/* format.c -- the formats by name, and JSON helpers their writers share. */
#include "quant/format.h"

#include "quant/format_json.h"

#include "base/buf.h"

#include <string.h>

const qd_format *qd_format_find(const char *name)
{
    static const qd_format *const all[] = {&qd_format_compressed_tensors, &qd_format_modelopt};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (strcmp(all[i]->name, name) == 0) return all[i];
    return NULL;
}

json_t *qd_json_with(json_t *o, const char *key, json_t *v)
{
    if (o != NULL && json_object_set_new(o, key, v) == 0) return o;
    if (o == NULL) json_decref(v); /* otherwise jansson released it */
    json_decref(o);
    return NULL;
}

json_t *qd_json_const(const char *text)
{
    /* Through base/json.h, which notices allocations that jansson overlooks; it takes arrays and objects only. */
    json_t *list = NULL, *v = NULL;
    qd_buf b = {0};
    qd_buf_printf(&b, "[%s]", text);
    if (!b.failed && qd_json_parse(b.data, b.len, "constant", &list, NULL) == QD_OK)
        v = json_incref(json_array_get(list, 0));
    json_decref(list);
    qd_buf_done(&b);
    return v;
}

qd_code qd_json_finish(json_t *v, json_t **ret, qd_err *err)
{
    if (v == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory while writing the quantization config");
    *ret = v;
    return QD_OK;
}
