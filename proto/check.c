/* check.c -- a message against its rules, by protobuf-c's descriptors. */
#include "proto/msg.h"
#include "proto/rules.h"
#include "proto/subject.h"

#include <math.h>
#include <string.h>

enum {
    FIELD_NUMBER_MAX = (1 << 29) - 1
};

static qd_code bad(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, qd_err *err, const char *why)
{
    return qd_fail(err, QD_E_INPUT, "%s.%s: %s", m->descriptor->short_name, f->name, why);
}

/* NULL, or what is wrong with n bytes of text. */
static const char *text_fault(const char *s, size_t n, qd_rule_kind kind)
{
    const char *why = kind == QD_RULE_WORD ? "expected printable ASCII without spaces" : "a control byte";
    if (kind == QD_RULE_ID) return qd_id_ok(s) ? NULL : "not an id";
    size_t plain = kind == QD_RULE_WORD ? 0 : qd_str_plain(s, n);
    for (size_t i = plain; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        bool blank = (c == '\t' && kind != QD_RULE_PATH) || (c == '\n' && kind == QD_RULE_TEXT);
        if (kind == QD_RULE_WORD ? c <= ' ' || c > '~' : (c < ' ' && !blank) || c == 0x7f) return why;
    }
    if (kind == QD_RULE_WORD) return NULL;
    if (!qd_str_is_utf8(s + plain)) return "not UTF-8";
    if (kind != QD_RULE_PATH) return NULL;
    if (s[0] != '/') return "expected an absolute path";
    for (const char *at = s; at != NULL && at[1] != '\0'; at = strchr(at + 1, '/')) {
        size_t part = strcspn(at + 1, "/");
        if (part == 0 || (part <= 2 && strncmp(at + 1, "..", part) == 0)) return "a path with an empty part, . or ..";
    }
    return NULL;
}

static qd_code check_text(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const qd_rule *r, const char *s,
                          qd_err *err)
{
    size_t n = s == NULL ? 0 : strlen(s);
    if (n == 0) return r->required ? bad(m, f, err, "empty") : QD_OK;
    if (n > r->max)
        return qd_fail(err, QD_E_INPUT, "%s.%s: %zu bytes, at most %u", m->descriptor->short_name, f->name, n,
                       (unsigned)r->max);
    const char *why = text_fault(s, n, r->kind);
    return why == NULL ? QD_OK : bad(m, f, err, why);
}

static qd_code check_number(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const qd_rule *r,
                            const void *at, qd_err *err)
{
    uint64_t v = 0;
    if (f->type == PROTOBUF_C_TYPE_DOUBLE) {
        double x = 0;
        memcpy(&x, at, sizeof x);
        return isfinite(x) ? QD_OK : bad(m, f, err, "not finite");
    }
    if (f->type == PROTOBUF_C_TYPE_ENUM) {
        int e = 0;
        memcpy(&e, at, sizeof e);
        if (protobuf_c_enum_descriptor_get_value(f->descriptor, e) == NULL) return bad(m, f, err, "no known value");
        v = (uint64_t)e;
    } else if (f->type == PROTOBUF_C_TYPE_UINT32) {
        uint32_t u = 0;
        memcpy(&u, at, sizeof u);
        v = u;
    } else if (f->type == PROTOBUF_C_TYPE_UINT64) {
        memcpy(&v, at, sizeof v);
    } else {
        return QD_OK;
    }
    if (r != NULL && r->required && v == 0) return bad(m, f, err, "not given");
    if (r != NULL && v > r->max)
        return qd_fail(err, QD_E_INPUT, "%s.%s: %llu, at most %u", m->descriptor->short_name, f->name,
                       (unsigned long long)v, (unsigned)r->max);
    return QD_OK;
}

static qd_code check_one(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const qd_rule *r, const void *at,
                         qd_err *err)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *s = NULL;
        memcpy(&s, at, sizeof s);
        return check_text(m, f, r, s, err);
    }
    case PROTOBUF_C_TYPE_BYTES: {
        ProtobufCBinaryData b;
        memcpy(&b, at, sizeof b);
        return b.len <= r->max ? QD_OK : bad(m, f, err, "too many bytes");
    }
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *sub = NULL;
        memcpy(&sub, at, sizeof sub);
        if (sub == NULL) return r != NULL && r->required ? bad(m, f, err, "not there") : QD_OK;
        return qd_msg_check(sub, err);
    }
    default:
        return check_number(m, f, r, at, err);
    }
}

static qd_code check_field(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const qd_rule *r, qd_err *err)
{
    const char *base = (const char *)m;
    if (r == NULL && (f->label == PROTOBUF_C_LABEL_REPEATED || f->type == PROTOBUF_C_TYPE_STRING ||
                      f->type == PROTOBUF_C_TYPE_BYTES))
        return qd_fail(err, QD_E_INTERNAL, "%s.%s has no rule", m->descriptor->short_name, f->name);
    if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        uint32_t which = 0;
        memcpy(&which, base + f->quantifier_offset, sizeof which);
        return which == f->id ? check_one(m, f, r, base + f->offset, err) : QD_OK;
    }
    if (f->label != PROTOBUF_C_LABEL_REPEATED) return check_one(m, f, r, base + f->offset, err);
    size_t n = 0;
    const char *list = NULL;
    memcpy(&n, base + f->quantifier_offset, sizeof n);
    memcpy(&list, base + f->offset, sizeof list);
    uint32_t n_max = r->kind == QD_RULE_LIST ? r->max : r->list_max;
    if (n > n_max)
        return qd_fail(err, QD_E_INPUT, "%s.%s: %zu of them, at most %u", m->descriptor->short_name, f->name, n,
                       (unsigned)n_max);
    qd_code rc = QD_OK;
    for (size_t i = 0; i < n && rc == QD_OK; i++) rc = check_one(m, f, r, list + i * sizeof(void *), err);
    return rc;
}

qd_code qd_msg_check(const ProtobufCMessage *m, qd_err *err)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    const qd_rules *rules = qd_rules_of(d);
    if (rules == NULL) return qd_fail(err, QD_E_INTERNAL, "%s has no rules", d->short_name);
    size_t next = 0;
    qd_code rc = QD_OK;
    for (unsigned i = 0; i < m->n_unknown_fields;
         i++) /* kept and written again: what cannot be read back must not be */
        if (m->unknown_fields[i].tag == 0 || m->unknown_fields[i].tag > FIELD_NUMBER_MAX)
            return qd_fail(err, QD_E_INPUT, "%s: a field of number %u", d->short_name,
                           (unsigned)m->unknown_fields[i].tag);
    for (unsigned i = 0; i < d->n_fields && rc == QD_OK; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        const qd_rule *r = next < rules->n && rules->rules[next].offset == f->offset ? &rules->rules[next++] : NULL;
        if (f->id == 1 && strcmp(f->name, "version") == 0) {
            uint32_t v = 0;
            memcpy(&v, (const char *)m + f->offset, sizeof v);
            rc = qd_version_check(d->short_name, v, QD_WIRE_VERSION, err);
        } else {
            rc = check_field(m, f, r, err);
        }
    }
    return rc == QD_OK && next != rules->n ? qd_fail(err, QD_E_INTERNAL, "%s: rules out of order", d->short_name) : rc;
}
