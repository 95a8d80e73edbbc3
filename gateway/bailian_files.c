/* bailian_files.c -- the Files API: what became of an upload, list, get, delete. */
#include "gateway/bailian.h"
#include "gateway/json_make.h"
#include "gateway/times.h"

#include <stdlib.h>
#include <string.h>

/* An SDK sends no purpose, another one spells it with '_'. */
bool qd_bailian_takes_purpose(const char *purpose)
{
    static const char *const known[] = {"", "fine-tune", "fine_tune", "file-extract", "batch"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(purpose, known[i]) == 0) return true;
    return false;
}

static const char *purpose_of(const qd_file_meta *f)
{
    return f->purpose[0] == '\0' || strcmp(f->purpose, "fine_tune") == 0 ? "fine-tune" : f->purpose;
}

/* `id` is a number that the family's replies have beside file_id: here 52 bits of it. No reply has an address to
 * fetch a file from. */
static json_t *file_json(const qd_file_meta *f)
{
    char created[QD_TIME_BYTES], digits[14] = "";
    const char *dash = strchr(f->id, '-');
    if (dash != NULL) strncat(digits, dash + 1, 13);
    qd_time_show(f->created_ms, QD_TIME_PLAIN, created);
    return json_pack("{s:I, s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "id",
                     (json_int_t)strtoll(digits, NULL, 16), "file_id", f->id, "name", f->name, "description",
                     f->description, "size", (json_int_t)f->size_bytes, "md5", f->md5, "gmt_create", created, "url", "",
                     "region", "", "user_id", f->user, "api_key_id", "", "purpose", purpose_of(f));
}

void qd_bailian_files(qd_bailian *q)
{
    const qd_backend *b = q->env->backend;
    uint64_t no = 0, size = 0;
    qd_file_page page = {0};
    if (!qd_bailian_query_page(q, &no, &size)) return;
    qd_code rc = b->ops->file_list(b->ctx, q->caller, (no - 1) * size, (uint32_t)size, &page, NULL);
    if (rc != QD_OK) {
        (void)qd_bailian_fail_code(q, rc);
        return;
    }
    json_t *files = json_array();
    for (size_t i = 0; i < page.n; i++) qd_json_push(&files, file_json(page.files[i]));
    qd_bailian_ok(q, "data",
                  json_pack("{s:I, s:I, s:I, s:o}", "total", (json_int_t)page.total, "page_size", (json_int_t)size,
                            "page_no", (json_int_t)no, "files", files));
    qd_file_page_done(&page);
}

static void not_found(qd_bailian *q, qd_code rc)
{
    if (rc == QD_E_NOT_FOUND)
        (void)qd_bailian_fail(q, QD_BAILIAN_FILE_UNKNOWN, NULL, NULL, NULL);
    else
        (void)qd_bailian_fail_code(q, rc);
}

void qd_bailian_file_get(qd_bailian *q)
{
    const qd_backend *b = q->env->backend;
    qd_file_meta *f = NULL;
    qd_code rc = qd_id_ok(q->id) ? b->ops->file_get(b->ctx, q->caller, q->id, &f, NULL) : QD_E_NOT_FOUND;
    if (rc == QD_OK)
        qd_bailian_ok(q, "data", file_json(f));
    else
        not_found(q, rc);
    qd_msg_free(f);
}

void qd_bailian_file_delete(qd_bailian *q)
{
    const qd_backend *b = q->env->backend;
    qd_ask ask = qd_bailian_ask(q);
    qd_code rc = qd_id_ok(q->id) ? b->ops->file_delete(b->ctx, &ask, q->id, NULL) : QD_E_NOT_FOUND;
    if (rc == QD_OK)
        qd_bailian_ok(q, NULL, NULL);
    else
        not_found(q, rc);
}

static json_t *failed_json(const qd_bailian *q, const qd_uploaded *u)
{
    qd_code rc = u->err.code;
    qd_bailian_error e = rc == QD_E_TOO_LARGE ? QD_BAILIAN_PART_LARGE
                         : rc == QD_E_FULL    ? QD_BAILIAN_PART_MANY
                         : rc == QD_E_ROOM    ? QD_BAILIAN_PART_QUOTA
                         : rc == QD_E_INPUT   ? QD_BAILIAN_PART_NAME
                                              : QD_BAILIAN_PART_FAILED;
    const qd_error_row *row = qd_bailian_error_row(e);
    return json_pack("{s:s, s:s, s:s}", "name", u->name, "code", row->code, "message", qd_in(q->lang, row->text));
}

void qd_bailian_files_taken(qd_bailian *q, const qd_uploaded *files, size_t n)
{
    json_t *taken = json_array(), *failed = json_array();
    for (size_t i = 0; i < n; i++) {
        const qd_uploaded *u = &files[i];
        if (u->file != NULL)
            qd_json_push(&taken, json_pack("{s:s, s:s}", "file_id", u->file->id, "name", u->file->name));
        else
            qd_json_push(&failed, failed_json(q, u));
    }
    json_t *data = json_pack("{s:o, s:o}", "uploaded_files", taken, "failed_uploads", failed);
    if (n != 0) {
        qd_bailian_ok(q, "data", data);
        return;
    }
    json_decref(data);
    (void)qd_bailian_fail(q, QD_BAILIAN_FILES_MISSING, "files", NULL, NULL);
}
