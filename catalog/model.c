#include "catalog/model.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    FILE_BYTES_MAX = 1 << 20,
    NAME_BYTES_MAX = 256,
    OWNER_BYTES_MAX = 64
};

static const char *const k_kinds[] = {"full", "lora", "quantized", "base"};
static const char *const k_states[] = {"ready", "creating", "broken"};

const char *qd_model_kind_name(qd_model_kind k)
{
    return (unsigned)k < 4 ? k_kinds[k] : "unknown";
}

const char *qd_model_state_name(qd_model_state s)
{
    return (unsigned)s < 3 ? k_states[s] : "unknown";
}

static bool find(const char *const *names, unsigned n, const char *name, unsigned *ret)
{
    for (unsigned i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0) {
            *ret = i;
            return true;
        }
    return false;
}

bool qd_model_kind_find(const char *name, qd_model_kind *ret)
{
    unsigned i = 0;
    bool found = find(k_kinds, 4, name, &i);
    if (found) *ret = (qd_model_kind)i;
    return found;
}

bool qd_model_id_ok(const char *id)
{
    size_t n = strlen(id);
    if (n == 0 || n > QD_MODEL_ID_MAX || id[0] == '.' || id[0] == '-') return false;
    return strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_") == n;
}

/* prefix and 12 of [a-z0-9], of a hash: 62 of its bits. */
static void qianfan_id(const char *prefix, const char *of, char ret[QD_QIANFAN_ID_BYTES])
{
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    uint64_t h = qd_hash64(of, strlen(of), 1);
    int at = snprintf(ret, QD_QIANFAN_ID_BYTES, "%s", prefix);
    for (int i = 0; i < 12; i++, h /= 36) ret[at++] = digits[h % 36];
    ret[at] = '\0';
}

/* A text of at most max bytes without control bytes. */
static qd_code text(const json_t *o, const char *key, const char *what, const char *dflt, size_t max, qd_arena *arena,
                    const char **ret, qd_err *err)
{
    const char *v = NULL;
    qd_code rc = qd_json_str_or(o, key, what, dflt, &v, err);
    if (rc != QD_OK) return rc;
    size_t n = strlen(v);
    if (n > max) return qd_fail(err, QD_E_INPUT, "%s: \"%s\": %zu bytes, at most %zu", what, key, n, max);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)v[i] < 0x20 || v[i] == 0x7f)
            return qd_fail(err, QD_E_INPUT, "%s: \"%s\": a control character", what, key);
    *ret = qd_arena_strdup(arena, v);
    return *ret != NULL ? QD_OK : qd_fail(err, QD_E_NO_MEMORY, "out of memory for %s", what);
}

/* An id: text that is one, or, where may_be_empty, nothing. */
static qd_code id_text(const json_t *o, const char *key, const char *what, const char *dflt, qd_arena *arena,
                       const char **ret, qd_err *err)
{
    qd_code rc = text(o, key, what, dflt, QD_MODEL_ID_MAX, arena, ret, err);
    if (rc == QD_OK && !qd_model_id_ok(*ret))
        rc = qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected letters, digits, '.', '-', '_', found \"%.80s\"", what, key,
                     *ret);
    return rc;
}

static qd_code choice(const json_t *o, const char *key, const char *what, const char *const *names, unsigned n,
                      unsigned *ret, qd_err *err)
{
    const char *v = NULL;
    qd_code rc = qd_json_str_or(o, key, what, names[0], &v, err);
    if (rc == QD_OK && !find(names, n, v, ret))
        rc = qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected one of %s, %s, %s%s%s, found \"%.40s\"", what, key,
                     names[0], names[1], names[2], n > 3 ? ", " : "", n > 3 ? names[3] : "", v);
    return rc;
}

static qd_code read_object(const json_t *o, const char *what, qd_arena *arena, qd_model *m, qd_err *err)
{
    const char *id = NULL;
    unsigned kind = 0, state = 0;
    qd_code rc = QD_OK;
    if (!json_is_object(o)) return qd_fail(err, QD_E_INPUT, "%s: expected an object, found %s", what, qd_json_type(o));
    QD_TRY(qd_json_str(o, "id", what, &id, err));
    QD_TRY(id_text(o, "id", what, "", arena, &m->id, err));
    QD_TRY(id_text(o, "base_model", what, m->id, arena, &m->base_model, err));
    QD_TRY(text(o, "name", what, m->id, NAME_BYTES_MAX, arena, &m->name, err));
    QD_TRY(text(o, "owner", what, "", OWNER_BYTES_MAX, arena, &m->owner, err));
    QD_TRY(text(o, "job", what, "", OWNER_BYTES_MAX, arena, &m->job, err));
    QD_TRY(text(o, "set", what, m->base_model, NAME_BYTES_MAX, arena, &m->set, err));
    QD_TRY(choice(o, "kind", what, k_kinds, 4, &kind, err));
    QD_TRY(choice(o, "state", what, k_states, 3, &state, err));
    m->kind = (qd_model_kind)kind;
    m->state = (qd_model_state)state;
    qianfan_id("amv-", m->id, m->qianfan_id);
    qianfan_id("am-", m->set, m->qianfan_set_id);
out:
    return rc;
}

qd_code qd_model_read(const char *dir, qd_arena *arena, qd_model *ret, qd_err *err)
{
    qd_model m = {0};
    json_t *o = NULL;
    struct stat st;
    qd_code rc = QD_OK;
    char *path = qd_path_join(dir, QD_MODEL_FILE);
    if (path == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %s", dir);
    if (stat(path, &st) != 0) {
        rc = errno == ENOENT || errno == ENOTDIR
                 ? qd_fail(err, QD_E_NOT_FOUND, "%s: no model, it has no " QD_MODEL_FILE, dir)
                 : qd_fail_errno(err, QD_E_INPUT, errno, "%s", path);
        goto out;
    }
    m.path = qd_arena_strdup(arena, dir);
    if (m.path == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for %s", dir);
        goto out;
    }
    QD_TRY(qd_json_load(path, FILE_BYTES_MAX, &o, err));
    QD_TRY(read_object(o, path, arena, &m, err));
    m.created_ms = (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000;
    *ret = m;
out:
    json_decref(o);
    qd_free(path);
    return rc;
}

qd_code qd_model_write(const char *dir, const qd_model *m, qd_err *err)
{
    json_t *o = NULL;
    char *dump = NULL, *path = qd_path_join(dir, QD_MODEL_FILE);
    const struct {
        const char *key, *value;
        bool always;
    } texts[] = {{"id", m->id, true},
                 {"name", m->name, true},
                 {"base_model", m->base_model, true},
                 {"kind", qd_model_kind_name(m->kind), true},
                 {"owner", m->owner, true},
                 {"state", qd_model_state_name(m->state), true},
                 {"job", m->job, false},
                 {"set", m->set, false}};
    qd_code rc = QD_OK;
    bool ok = path != NULL;
    if (ok && qd_path_exists(path)) QD_TRY(qd_json_load(path, FILE_BYTES_MAX, &o, err));
    if (o == NULL) o = json_object();
    for (size_t i = 0; ok && i < sizeof texts / sizeof texts[0]; i++) {
        bool empty = texts[i].value == NULL || texts[i].value[0] == '\0';
        if (empty && !texts[i].always)
            (void)json_object_del(o, texts[i].key);
        else
            ok = json_object_set_new(o, texts[i].key, json_string(empty ? "" : texts[i].value)) == 0;
    }
    dump = ok ? json_dumps(o, JSON_INDENT(2)) : NULL;
    if (dump == NULL)
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: " QD_MODEL_FILE " cannot be formed", dir);
    else
        rc = qd_file_replace(path, dump, strlen(dump), err);
out:
    json_decref(o);
    qd_free(dump);
    qd_free(path);
    return rc;
}
