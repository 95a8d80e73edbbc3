/* index.c -- model.safetensors.index.json: which shard holds which tensor. */
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "ckpt/parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_BYTES_MAX 100000000u

qd_code qd_names_add(qd_names *l, qd_arena *arena, const char *name, qd_err *err)
{
    if (l->n == l->cap) {
        uint32_t cap = l->cap == 0 ? 16 : l->cap * 2;
        const char **at = qd_arena_alloc(arena, cap, sizeof *at);
        if (at == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %" PRIu32 " file names", cap);
        if (l->n > 0) memcpy(at, l->at, l->n * sizeof *at);
        l->at = at;
        l->cap = cap;
    }
    const char *copy = qd_arena_strdup(arena, name);
    if (copy == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a file name");
    l->at[l->n++] = copy;
    return QD_OK;
}

static int by_strcmp(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

void qd_names_sort(qd_names *l)
{
    if (l->n > 1) qsort(l->at, l->n, sizeof *l->at, by_strcmp);
}

void qd_names_unique(qd_names *l)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->n; i++)
        if (n == 0 || strcmp(l->at[n - 1], l->at[i]) != 0) l->at[n++] = l->at[i];
    l->n = n;
}

static qd_code check_entry(const char *path, const char *tensor, const json_t *v, qd_err *err)
{
    if (!json_is_string(v))
        return qd_fail(err, QD_E_INPUT, "%s: \"weight_map\": \"%.160s\": expected a file name, found %s", path, tensor,
                       qd_json_type(v));
    const char *file = json_string_value(v);
    if (!qd_name_is_plain(file))
        return qd_fail(err, QD_E_INPUT,
                       "%s: tensor \"%.160s\": expected the plain name of a file beside the index, found \"%.160s\"",
                       path, tensor, file);
    if (!qd_str_ends(file, ".safetensors"))
        return qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\": expected a .safetensors file, found \"%.160s\"", path,
                       tensor, file);
    return QD_OK;
}

static qd_code list_files(const qd_index *x, qd_arena *arena, qd_names *files, qd_err *err)
{
    const char *tensor, *last = NULL;
    json_t *v;
    qd_names all = {0};
    json_object_foreach(x->weight_map, tensor, v)
    {
        qd_code rc = check_entry(x->path, tensor, v, err);
        if (rc != QD_OK) return rc;
        const char *file = json_string_value(v);
        if (last != NULL && strcmp(last, file) == 0) continue; /* neighbours share a shard: keeps the list short */
        last = file;
        rc = qd_names_add(&all, arena, file, err);
        if (rc != QD_OK) return rc;
    }
    if (all.n == 0) return qd_fail(err, QD_E_INPUT, "%s: \"weight_map\" is empty", x->path);
    qd_names_sort(&all);
    qd_names_unique(&all);
    *files = all;
    return QD_OK;
}

qd_code qd_index_load(const char *dir, qd_arena *arena, qd_index *ret, qd_names *files, qd_err *err)
{
    qd_index x = {0};
    qd_code rc = QD_OK;
    x.path = qd_path_join(dir, QD_CKPT_INDEX_NAME);
    if (x.path == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", dir);
    if (!qd_path_exists(x.path)) goto out; /* a link that leads nowhere does exist, and fails below */
    QD_TRY(qd_json_load(x.path, INDEX_BYTES_MAX, &x.root, err));
    if (!json_is_object(x.root)) {
        rc = qd_fail(err, QD_E_INPUT, "%s: expected an object, found %s", x.path, qd_json_type(x.root));
        goto out;
    }
    QD_TRY(
        qd_json_obj_or(x.root, "weight_map", x.path, &x.weight_map, err)); /* "metadata" is not used, whatever it is */
    if (x.weight_map == NULL) {
        rc = qd_fail(err, QD_E_INPUT, "%s: \"weight_map\" is missing (expected an object)", x.path);
        goto out;
    }
    QD_TRY(list_files(&x, arena, files, err));
    *ret = x;
    memset(&x, 0, sizeof x); /* ownership moved */
out:
    qd_index_done(&x);
    return rc;
}

qd_code qd_index_match(const qd_index *x, const qd_ckpt *c, qd_err *err)
{
    const char *name;
    json_t *v;
    if (x->root == NULL) return QD_OK;
    json_object_foreach(x->weight_map, name, v)
    {
        const qd_tensor *t = qd_ckpt_find(c, name);
        const char *file = json_string_value(v);
        if (t == NULL)
            return qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\": expected in \"%.100s\", found in no file", x->path,
                           name, file);
        if (strcmp(c->files[t->file].name, file) != 0)
            return qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\": expected in \"%.100s\", found in \"%.100s\"",
                           x->path, name, file, c->files[t->file].name);
    }
    if (json_object_size(x->weight_map) == c->n_tensors) return QD_OK;
    for (uint32_t i = 0; i < c->n_tensors; i++) {
        const qd_tensor *t = &c->tensors[i];
        if (json_object_get(x->weight_map, t->name) == NULL)
            return qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\" is not in " QD_CKPT_INDEX_NAME,
                           c->files[t->file].src->name, t->name);
    }
    return QD_OK;
}

void qd_index_done(qd_index *x)
{
    if (x == NULL) return;
    json_decref(x->root);
    qd_free(x->path);
    memset(x, 0, sizeof *x);
}
