/* checkpoint.c -- opens a model directory: config.json, every shard's header, and the proof that they agree. */
#include "ckpt/checkpoint.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/path.h"
#include "ckpt/parts.h"
#include "ckpt/shapes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES_MAX (UINT64_C(16) << 20)

static qd_code no_memory(const char *dir, qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", dir);
}

static qd_code load_config(qd_ckpt *c, qd_err *err)
{
    char *text = NULL;
    size_t len = 0;
    qd_code rc = QD_OK;
    char *path = qd_path_join(c->dir, "config.json");
    if (path == NULL) return no_memory(c->dir, err);
    QD_TRY(qd_file_read(path, CONFIG_BYTES_MAX, &text, &len, err));
    rc = qd_config_parse(text, len, path, &c->config, err);
out:
    qd_free(text);
    qd_free(path);
    return rc;
}

/* Opens one file, unless it has its source already, and reads its header; its tensors stay in *ret_header until all
 * files are known. */
static qd_code open_file(qd_ckpt *c, qd_ckpt_file *f, qd_st_header *ret_header, qd_err *err)
{
    qd_code rc = QD_OK;
    char *path = qd_path_join(c->dir, f->name);
    if (path == NULL) return no_memory(c->dir, err);
    if (f->src == NULL) QD_TRY(qd_source_open_file(path, &f->src, err));
    QD_TRY(qd_st_read_header(f->src, &c->arena, ret_header, err));
    f->digest = ret_header->digest;
    f->meta = ret_header->meta;
    f->n_meta = ret_header->n_meta;
out:
    qd_free(path);
    return rc;
}

/* made: the source of the only file, which becomes c's; NULL: they are in c's directory. */
static qd_code open_files(qd_ckpt *c, const qd_names *names, bool from_index, qd_source *made, qd_err *err)
{
    qd_code rc = QD_OK;
    uint64_t n = 0;
    uint32_t at = 0;
    qd_st_header *headers = qd_calloc(names->n, sizeof *headers);
    c->files = qd_arena_alloc(&c->arena, names->n, sizeof *c->files);
    if (headers == NULL || c->files == NULL) {
        qd_source_free(made);
        rc = no_memory(c->dir, err);
        goto out;
    }
    c->n_files = names->n;
    c->files[0].src = made;
    for (uint32_t i = 0; i < names->n; i++) {
        c->files[i].name = names->at[i];
        rc = open_file(c, &c->files[i], &headers[i], err);
        if (rc == QD_E_INPUT && from_index && c->files[i].src == NULL && err != NULL && err->sys_errno == ENOENT)
            qd_err_context(err, "missing shard (named in " QD_CKPT_INDEX_NAME ")");
        if (rc != QD_OK) goto out;
        n += headers[i].n_tensors;
    }
    if (n == 0 || n > UINT32_MAX) {
        rc = qd_fail(err, QD_E_INPUT, "%s: expected 1 to %u tensors, found %" PRIu64, c->dir, UINT32_MAX, n);
        goto out;
    }
    c->tensors = qd_arena_alloc(&c->arena, (size_t)n, sizeof *c->tensors);
    if (c->tensors == NULL) {
        rc = no_memory(c->dir, err);
        goto out;
    }
    for (uint32_t i = 0; i < names->n; i++)
        for (uint32_t k = 0; k < headers[i].n_tensors; k++) {
            qd_tensor *t = &c->tensors[at++];
            *t = headers[i].tensors[k];
            t->file = i;
            c->tensor_bytes += t->bytes; /* cannot overflow: each file's part is at most its size */
        }
    c->n_tensors = at;
out:
    qd_free(headers);
    return rc;
}

static int by_name(const void *a, const void *b, void *ctx)
{
    const qd_tensor *tensors = ctx;
    const uint32_t *x = a, *y = b;
    return strcmp(tensors[*x].name, tensors[*y].name);
}

static qd_code sort_names(qd_ckpt *c, qd_err *err)
{
    c->by_name = qd_arena_alloc(&c->arena, c->n_tensors, sizeof *c->by_name);
    if (c->by_name == NULL) return no_memory(c->dir, err);
    for (uint32_t i = 0; i < c->n_tensors; i++) c->by_name[i] = i;
    qsort_r(c->by_name, c->n_tensors, sizeof *c->by_name, by_name, c->tensors);
    for (uint32_t i = 1; i < c->n_tensors; i++) {
        const qd_tensor *x = &c->tensors[c->by_name[i - 1]], *y = &c->tensors[c->by_name[i]];
        if (strcmp(x->name, y->name) == 0)
            return qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\": expected once, found in \"%.100s\" and \"%.100s\"",
                           c->dir, x->name, c->files[x->file].name, c->files[y->file].name);
    }
    return QD_OK;
}

/* Pins the source: a resumed or re-checked job must see the same. */
static uint64_t digest_of(const qd_ckpt *c)
{
    uint64_t d = c->config.digest;
    for (uint32_t i = 0; i < c->n_files; i++) {
        const qd_ckpt_file *f = &c->files[i];
        const uint64_t facts[] = {d, f->src->size_bytes, f->src->mtime_ns, f->digest};
        d = qd_hash64(facts, sizeof facts, 0);
        d = qd_hash64(f->name, strlen(f->name), d);
    }
    return d;
}

static qd_code open_dir(qd_ckpt *c, const char *dir, qd_err *err)
{
    if (!qd_path_is_dir(dir))
        return qd_fail(err, QD_E_INPUT, "%s: expected a model directory, found %s", dir,
                       qd_path_exists(dir) ? "something else" : "nothing");
    c->dir = qd_arena_strdup(&c->arena, dir);
    return c->dir == NULL ? no_memory(dir, err) : load_config(c, err);
}

qd_code qd_ckpt_open(const char *dir, qd_ckpt *ret, qd_err *err)
{
    qd_ckpt c = {0};
    qd_index index = {0};
    qd_names files = {0};
    qd_code rc = QD_OK;
    QD_TRY(open_dir(&c, dir, err));
    QD_TRY(qd_index_load(c.dir, &c.arena, &index, &files, err));
    if (index.root == NULL) QD_TRY(qd_find_weights(c.dir, &c.arena, &files, err));
    QD_TRY(open_files(&c, &files, index.root != NULL, NULL, err));
    QD_TRY(sort_names(&c, err));
    QD_TRY(qd_index_match(&index, &c, err));
    QD_TRY(qd_find_side_files(&c, err));
    c.digest = digest_of(&c);
    *ret = c;
    memset(&c, 0, sizeof c); /* ownership moved */
out:
    qd_index_done(&index);
    qd_ckpt_done(&c);
    return rc;
}

/* Sizes and places of tensors of which name, dtype and shape are known. */
static qd_code lay_out(const char *dir, qd_shapes *s, uint64_t *ret_bytes, qd_err *err)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < s->n_tensors; i++) {
        qd_tensor *t = &s->tensors[i];
        bool fits = true;
        t->n_elems = 1;
        for (uint32_t d = 0; d < t->rank && fits; d++) fits = qd_mul_u64(t->n_elems, t->shape[d], &t->n_elems);
        t->off = at;
        if (!fits || !qd_mul_u64(t->n_elems, qd_dtype_bytes(t->dtype), &t->bytes) || t->bytes > INT64_MAX - at)
            return qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\": its shape is larger than any file", dir, t->name);
        at += t->bytes;
    }
    *ret_bytes = at;
    return QD_OK;
}

/* What an index says besides, or otherwise, in words; c's tensors are sorted. */
static qd_code beside_index(qd_ckpt *c, const char **left_out, qd_err *err)
{
    qd_index x = {0};
    qd_names files = {0};
    const char *name;
    json_t *v;
    uint64_t unknown = 0, absent = 0;
    qd_code rc = qd_index_load(c->dir, &c->arena, &x, &files, err);
    if (rc != QD_OK || x.root == NULL) goto out;
    json_object_foreach(x.weight_map, name, v) unknown += qd_ckpt_find(c, name) == NULL;
    for (uint32_t i = 0; i < c->n_tensors; i++) absent += json_object_get(x.weight_map, c->tensors[i].name) == NULL;
    if (unknown + absent == 0) goto out;
    *left_out = qd_arena_printf(
        &c->arena, "%s%s%" PRIu64 " tensors of " QD_CKPT_INDEX_NAME "; %" PRIu64 " planned ones are not in it",
        *left_out != NULL ? *left_out : "", *left_out != NULL ? ", in all " : "", unknown, absent);
    if (*left_out == NULL) rc = no_memory(c->dir, err);
out:
    qd_index_done(&x);
    return rc;
}

qd_code qd_ckpt_open_shapes(const char *dir, qd_shapes_fn make, void *ctx, qd_ckpt *ret, const char **ret_left_out,
                            qd_err *err)
{
    qd_ckpt c = {0};
    qd_shapes shapes = {0};
    qd_names files = {0};
    qd_buf header = {0};
    qd_source *src = NULL;
    uint64_t bytes = 0;
    char *what = NULL;
    qd_code rc = QD_OK;
    QD_TRY(open_dir(&c, dir, err));
    what = qd_path_join(dir, "config.json");
    if (what == NULL) {
        rc = no_memory(dir, err);
        goto out;
    }
    QD_TRY(make(ctx, &c.config, what, &c.arena, &shapes, err));
    QD_TRY(lay_out(dir, &shapes, &bytes, err));
    QD_TRY(qd_st_write_header(shapes.tensors, shapes.n_tensors, NULL, 0, &header, err));
    QD_TRY(qd_names_add(&files, &c.arena, QD_CKPT_SINGLE_NAME, err));
    QD_TRY(qd_source_open_header(what, header.data, header.len, header.len + bytes, &src, err));
    QD_TRY(open_files(&c, &files, false, src, err));
    QD_TRY(sort_names(&c, err));
    QD_TRY(beside_index(&c, &shapes.left_out, err));
    QD_TRY(qd_find_side_files(&c, err));
    c.digest = digest_of(&c);
    *ret_left_out = shapes.left_out;
    *ret = c;
    memset(&c, 0, sizeof c); /* ownership moved */
out:
    qd_free(what);
    qd_buf_done(&header);
    qd_ckpt_done(&c);
    return rc;
}

const qd_tensor *qd_ckpt_find(const qd_ckpt *c, const char *name)
{
    uint32_t lo = 0, hi = c->n_tensors;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const qd_tensor *t = &c->tensors[c->by_name[mid]];
        int order = strcmp(t->name, name);
        if (order == 0) return t;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

qd_code qd_ckpt_check(const qd_ckpt *c, qd_err *err)
{
    for (uint32_t i = 0; i < c->n_files; i++) {
        qd_code rc = qd_source_check(c->files[i].src, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

void qd_ckpt_done(qd_ckpt *c)
{
    if (c == NULL) return;
    for (uint32_t i = 0; i < c->n_files; i++) qd_source_free(c->files[i].src);
    qd_config_done(&c->config);
    qd_arena_done(&c->arena);
    memset(c, 0, sizeof *c);
}
