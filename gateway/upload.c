#include "gateway/upload.h"

#include "base/mem.h"
#include "gateway/multipart.h"
#include "gateway/request.h"

#include <stdio.h>
#include <string.h>

enum {
    REFUSED_MAX = 64,       /* files more than may be, each told of */
    FIELD_BYTES_MAX = 2048, /* of a field that is kept */
    PARTS_SPARE = 64        /* of a body, besides its files and their descriptions */
};

typedef enum part_kind {
    PART_NONE,
    PART_FILE,
    PART_PURPOSE,
    PART_DESCRIPTION
} part_kind;

struct qd_upload_body {
    const qd_backend *backend;
    const qd_caller *caller;
    qd_multipart form;
    bool broken;
    uint32_t files_max;
    size_t n_parts;
    part_kind part;
    qd_uploaded *files; /* [files_max + REFUSED_MAX] */
    qd_upload **open;   /* of each, NULL when there is none */
    size_t n_files;
    qd_buf *descriptions; /* [files_max] */
    size_t n_descriptions;
    qd_buf purpose;
};

static bool begin_file(qd_upload_body *u, const char *name)
{
    if (u->n_files == u->files_max + REFUSED_MAX) return false;
    qd_uploaded *f = &u->files[u->n_files];
    qd_upload **open = &u->open[u->n_files++];
    bool ok = name != NULL && qd_file_name_ok(name);
    if (ok) (void)snprintf(f->name, sizeof f->name, "%s", name);
    u->part = PART_FILE;
    if (!ok)
        (void)qd_fail(&f->err, QD_E_INPUT, "the file's name is missing or one that a file cannot have");
    else if (u->n_files > u->files_max)
        (void)qd_fail(&f->err, QD_E_FULL, "too many files: at most %u at a time", u->files_max);
    else if (u->backend->ops->upload_begin(u->backend->ctx, u->caller, name, open, &f->err) != QD_OK)
        *open = NULL;
    return true;
}

static bool on_begin(void *ctx, const char *name, const char *filename)
{
    qd_upload_body *u = ctx;
    u->part = PART_NONE;
    if (++u->n_parts > 2 * (size_t)u->files_max + PARTS_SPARE) return false;
    if (strcmp(name, "files") == 0 || strcmp(name, "file") == 0) return begin_file(u, filename);
    if (filename != NULL) return true;
    if (strcmp(name, "purpose") == 0) u->part = PART_PURPOSE;
    if ((strcmp(name, "descriptions") == 0 || strcmp(name, "description") == 0) && u->n_descriptions < u->files_max) {
        u->part = PART_DESCRIPTION;
        u->n_descriptions++;
    }
    return true;
}

static bool add_field(qd_buf *b, const char *data, size_t n)
{
    if (b->len + n > FIELD_BYTES_MAX || memchr(data, '\0', n) != NULL) return false;
    qd_buf_add(b, data, n);
    return !b->failed;
}

static bool on_data(void *ctx, const char *data, size_t n)
{
    qd_upload_body *u = ctx;
    if (u->part == PART_PURPOSE) return add_field(&u->purpose, data, n);
    if (u->part == PART_DESCRIPTION) return add_field(&u->descriptions[u->n_descriptions - 1], data, n);
    if (u->part != PART_FILE) return true;
    qd_upload **open = &u->open[u->n_files - 1];
    if (*open == NULL ||
        u->backend->ops->upload_write(u->backend->ctx, *open, data, n, &u->files[u->n_files - 1].err) == QD_OK)
        return true;
    u->backend->ops->upload_drop(u->backend->ctx, *open);
    *open = NULL; /* the rest of it is read and forgotten */
    return true;
}

static bool on_end(void *ctx)
{
    qd_upload_body *u = ctx;
    u->part = PART_NONE;
    return true;
}

qd_code qd_upload_body_open(const qd_backend *backend, const qd_caller *c, uint32_t files_max, const char *content_type,
                            qd_upload_body **ret, qd_err *err)
{
    static const qd_multipart_ops ops = {on_begin, on_data, on_end};
    qd_upload_body *u = qd_calloc(1, sizeof *u);
    qd_code rc = QD_OK;
    if (u != NULL) {
        u->backend = backend;
        u->caller = c;
        u->files_max = files_max;
        u->files = qd_calloc(files_max + REFUSED_MAX, sizeof *u->files);
        u->open = qd_calloc(files_max + REFUSED_MAX, sizeof(qd_upload *));
        u->descriptions = qd_calloc(files_max, sizeof *u->descriptions);
    }
    if (u == NULL || u->files == NULL || u->open == NULL || u->descriptions == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for an upload");
        goto out;
    }
    if (!qd_multipart_begin(&u->form, content_type, &ops, u)) {
        rc = qd_fail(err, QD_E_INPUT, "the body is no multipart/form-data with a boundary");
        goto out;
    }
    *ret = u;
    u = NULL;
out:
    qd_upload_body_close(u);
    return rc;
}

bool qd_upload_body_feed(qd_upload_body *u, const char *data, size_t n)
{
    u->broken = u->broken || !qd_multipart_feed(&u->form, data, n);
    return !u->broken;
}

static const char *text_of(const qd_buf *b)
{
    return b->data != NULL && qd_str_is_utf8(b->data) ? b->data : "";
}

bool qd_upload_body_whole(const qd_upload_body *u)
{
    return !u->broken && qd_multipart_over(&u->form);
}

const char *qd_upload_body_purpose(const qd_upload_body *u)
{
    return u->purpose.data == NULL ? "" : u->purpose.data;
}

void qd_upload_body_store(qd_upload_body *u, const qd_ask *ask, const qd_uploaded **ret, size_t *ret_n)
{
    for (size_t i = 0; i < u->n_files; i++) {
        qd_uploaded *f = &u->files[i];
        const char *description = i < u->n_descriptions ? text_of(&u->descriptions[i]) : "";
        if (u->open[i] == NULL) continue;
        if (u->backend->ops->upload_end(u->backend->ctx, u->open[i], ask, text_of(&u->purpose), description, &f->file,
                                        &f->err) != QD_OK)
            f->file = NULL;
        u->open[i] = NULL;
    }
    *ret = u->files;
    *ret_n = u->n_files;
}

void qd_upload_body_close(qd_upload_body *u)
{
    if (u == NULL) return;
    for (size_t i = 0; i < u->n_files; i++) {
        if (u->open[i] != NULL) u->backend->ops->upload_drop(u->backend->ctx, u->open[i]);
        qd_msg_free(u->files[i].file);
    }
    for (size_t i = 0; u->descriptions != NULL && i < u->n_descriptions; i++) qd_buf_done(&u->descriptions[i]);
    qd_buf_done(&u->purpose);
    qd_free(u->descriptions);
    qd_free(u->open);
    qd_free(u->files);
    qd_free(u);
}
