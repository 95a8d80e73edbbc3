/* json_make.h -- building of replies: a value that could not be made makes the whole NULL, which becomes a 500. */
#ifndef QD_GATEWAY_JSON_MAKE_H
#define QD_GATEWAY_JSON_MAKE_H

#include <jansson.h>

/* Both take v. */
static inline void qd_json_put(json_t **o, const char *key, json_t *v)
{
    if (*o == NULL) {
        json_decref(v);
    } else if (json_object_set_new(*o, key, v) != 0) {
        json_decref(*o);
        *o = NULL;
    }
}

static inline void qd_json_push(json_t **list, json_t *v)
{
    if (*list == NULL) {
        json_decref(v);
    } else if (json_array_append_new(*list, v) != 0) {
        json_decref(*list);
        *list = NULL;
    }
}

#endif
