#include "proto/msg.h"

#include "base/mem.h"
#include "proto/subject.h"

#include <string.h>

/* protobuf-c says only "no": out_of_memory tells which no. */
static void *pb_alloc(void *data, size_t bytes)
{
    void *p = qd_malloc(bytes);
    if (p == NULL && data != NULL) *(bool *)data = true;
    return p;
}

static void pb_free(void *data, void *p)
{
    (void)data;
    qd_free(p);
}

typedef struct pb_sink {
    ProtobufCBuffer base;
    qd_buf *to;
} pb_sink;

static void pb_append(ProtobufCBuffer *b, size_t n, const uint8_t *data)
{
    qd_buf_add(((pb_sink *)(void *)b)->to, data, n);
}

static const ProtobufCFieldDescriptor *version_field(const ProtobufCMessageDescriptor *d)
{
    return d->n_fields != 0 && d->fields[0].id == 1 && strcmp(d->fields[0].name, "version") == 0 ? &d->fields[0] : NULL;
}

static uint32_t *version_of(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    return (uint32_t *)(void *)((char *)m + f->offset);
}

qd_code qd_version_check(const char *what, uint32_t found, uint32_t current, qd_err *err)
{
    if (found == current || (found != 0 && found + 1 == current)) return QD_OK;
    return qd_fail(err, QD_E_VERSION, "%s: expected version %u%s, found %u: %s", what, (unsigned)current,
                   current > 1 ? " or the one before" : "", (unsigned)found,
                   found > current ? "a newer quantd wrote it" : "no quantd that this one follows wrote it");
}

/* The version that a message starts with, before anything else of it is understood; 0: not there. */
static uint32_t early_version(const uint8_t *data, size_t bytes)
{
    uint64_t v = 0;
    if (bytes < 2 || data[0] != 0x08) return 0;
    for (size_t i = 1; i < bytes && i <= 5; i++) {
        v |= (uint64_t)(data[i] & 0x7f) << (7 * (i - 1));
        if ((data[i] & 0x80) == 0) return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
    }
    return 0;
}

qd_code qd_msg_decode(const ProtobufCMessageDescriptor *d, const void *data, size_t bytes, ProtobufCMessage **ret,
                      qd_err *err)
{
    bool out_of_memory = false;
    ProtobufCAllocator a = {.alloc = pb_alloc, .free = pb_free, .allocator_data = &out_of_memory};
    if (bytes > QD_MSG_BYTES_MAX)
        return qd_fail(err, QD_E_TOO_LARGE, "%s: %zu bytes, at most %d", d->short_name, bytes, QD_MSG_BYTES_MAX);
    if (version_field(d) != NULL) {
        uint32_t v = early_version(data, bytes);
        qd_code rc = v > QD_WIRE_VERSION ? qd_version_check(d->short_name, v, QD_WIRE_VERSION, err) : QD_OK;
        if (rc != QD_OK) return rc;
    }
    ProtobufCMessage *m = protobuf_c_message_unpack(d, &a, bytes, data);
    if (m == NULL)
        return out_of_memory ? qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", d->short_name)
                             : qd_fail(err, QD_E_INPUT, "%s: %zu bytes that are no such message", d->short_name, bytes);
    qd_code rc = qd_msg_check(m, err);
    if (rc != QD_OK)
        qd_msg_free(m);
    else
        *ret = m;
    return rc;
}

qd_code qd_msg_encode(const ProtobufCMessage *m, qd_buf *ret, qd_err *err)
{
    qd_code rc = qd_msg_check(m, err);
    if (rc != QD_OK) return rc;
    size_t bytes = protobuf_c_message_get_packed_size(m);
    if (bytes > QD_MSG_BYTES_MAX)
        return qd_fail(err, QD_E_TOO_LARGE, "%s: %zu bytes, at most %d", m->descriptor->short_name, bytes,
                       QD_MSG_BYTES_MAX);
    pb_sink sink = {.base = {.append = pb_append}, .to = ret};
    (void)protobuf_c_message_pack_to_buffer(m, &sink.base);
    return qd_buf_check(ret, err);
}

ProtobufCMessage *qd_msg_new(const ProtobufCMessageDescriptor *d)
{
    ProtobufCMessage *m = qd_malloc(d->sizeof_message);
    if (m == NULL) return NULL;
    protobuf_c_message_init(d, m);
    const ProtobufCFieldDescriptor *v = version_field(d);
    if (v != NULL) *version_of(m, v) = QD_WIRE_VERSION;
    return m;
}

/* NOLINTBEGIN(bugprone-macro-parentheses): name is a type */
#define X(name, type, descriptor)                                                  \
    qd_code name##_decode(const void *data, size_t bytes, name **ret, qd_err *err) \
    {                                                                              \
        ProtobufCMessage *m = NULL;                                                \
        qd_code rc = qd_msg_decode(&descriptor, data, bytes, &m, err);             \
        if (rc == QD_OK) *ret = (name *)(void *)m;                                 \
        return rc;                                                                 \
    }                                                                              \
    qd_code name##_encode(const name *m, qd_buf *ret, qd_err *err)                 \
    {                                                                              \
        return qd_msg_encode(&m->base, ret, err);                                  \
    }                                                                              \
    name *name##_new(void)                                                         \
    {                                                                              \
        return (name *)(void *)qd_msg_new(&descriptor);                            \
    }
QD_MSGS(X)
#undef X
/* NOLINTEND(bugprone-macro-parentheses) */

void qd_msg_free(void *m)
{
    ProtobufCAllocator a = {.alloc = pb_alloc, .free = pb_free};
    if (m != NULL) protobuf_c_message_free_unpacked(m, &a);
}

qd_code qd_text_set(char **field, const char *value, qd_err *err)
{
    char *copy = qd_strdup(value == NULL ? "" : value);
    if (copy == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a text");
    if (*field != protobuf_c_empty_string) qd_free(*field); /* what a new message's texts point to */
    *field = copy;
    return QD_OK;
}

qd_code qd_list_add(void *list_field, size_t *n_field, void *m, qd_err *err)
{
    void **list = NULL;
    memcpy(&list, list_field, sizeof list);
    list = qd_realloc(list, (*n_field + 1) * sizeof *list); /* decoded lists have no spare room */
    if (list == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a list of %zu", *n_field + 1);
    list[(*n_field)++] = m;
    memcpy(list_field, &list, sizeof list);
    return QD_OK;
}

qd_code qd_text_add(char ***list_field, size_t *n_field, const char *value, qd_err *err)
{
    char *copy = qd_strdup(value);
    if (copy == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a text");
    qd_code rc = qd_list_add(list_field, n_field, copy, err);
    if (rc != QD_OK) qd_free(copy);
    return rc;
}

qd_code qd_name_value_add(Quantd__NameValue ***list, size_t *n, const char *name, const char *value, qd_err *err)
{
    qd_name_value *nv = qd_name_value_new();
    qd_code rc = nv == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory for \"%.80s\"", name) : QD_OK;
    if (rc == QD_OK) rc = qd_text_set(&nv->name, name, err);
    if (rc == QD_OK) rc = qd_text_set(&nv->value, value, err);
    if (rc == QD_OK) rc = qd_list_add(list, n, nv, err);
    if (rc != QD_OK) qd_msg_free(nv);
    return rc;
}

const char *qd_name_value_find(Quantd__NameValue *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i]->name, name) == 0) return list[i]->value;
    return NULL;
}

const char *qd_job_state_name(qd_job_state s)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(&quantd__job_state__descriptor, (int)s);
    return v == NULL || s == QUANTD__JOB_STATE__JOB_STATE_NONE ? "unknown" : v->name;
}
