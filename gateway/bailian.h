/* bailian.h -- what the files behind qd_api_bailian() share: one request, its errors, its handlers.
 *
 * docs/api.md has the API; the handlers translate and hold nothing. */
#ifndef QD_GATEWAY_BAILIAN_H
#define QD_GATEWAY_BAILIAN_H

#include "gateway/api.h"
#include "gateway/i18n.h"

enum {
    QD_BAILIAN_PAGE_SIZE = 10,
    QD_BAILIAN_PAGE_SIZE_MAX = 100,
    QD_BAILIAN_NAME_CHARS_MAX = 50,
    QD_BAILIAN_DESCRIPTION_CHARS_MAX = 200,
    QD_BAILIAN_SUFFIX_MAX = 8,
    QD_BAILIAN_LOG_LINES = 100,
    QD_BAILIAN_SEGMENT_BYTES = 256
};

/* One request that was admitted. */
typedef struct qd_bailian {
    const qd_api_env *env;
    const qd_caller *caller;
    const qd_http_request *r;
    qd_http_reply *reply;
    qd_lang lang;
    char id[QD_BAILIAN_SEGMENT_BYTES]; /* the path's, decoded; "" where the path has none */
} qd_bailian;

/* bailian_error.c: every error this API answers. The arguments of each row's text are beside it. */
typedef enum qd_bailian_error {
    QD_BAILIAN_UNAUTHORIZED,
    QD_BAILIAN_DISABLED,
    QD_BAILIAN_READ_ONLY,
    QD_BAILIAN_RATE, /* seconds */
    QD_BAILIAN_PATH,
    QD_BAILIAN_METHOD, /* method */
    QD_BAILIAN_BODY,
    QD_BAILIAN_MISSING, /* parameter */
    QD_BAILIAN_TYPE,    /* parameter, what it must be */
    QD_BAILIAN_MODEL_BASE,
    QD_BAILIAN_MODEL_LORA,
    QD_BAILIAN_MODEL_QUANTIZED,
    QD_BAILIAN_MODEL_DATA,
    QD_BAILIAN_MODEL_NOT_READY,
    QD_BAILIAN_TEMPLATE_UNKNOWN,
    QD_BAILIAN_TEMPLATE_MISFIT, /* template, model */
    QD_BAILIAN_TEMPLATE_ACCESS,
    QD_BAILIAN_NAME_CHARS,
    QD_BAILIAN_NAME_LONG,
    QD_BAILIAN_NAME_USED,
    QD_BAILIAN_DESCRIPTION_LONG,
    QD_BAILIAN_DESCRIPTION_CHARS,
    QD_BAILIAN_SUFFIX_LONG,
    QD_BAILIAN_SUFFIX_CHARS,
    QD_BAILIAN_SETTING_UNKNOWN,
    QD_BAILIAN_SETTING_CHOICE, /* setting, choices */
    QD_BAILIAN_SETTING_RANGE,  /* setting, least, most */
    QD_BAILIAN_SETTING_STEP,   /* setting, step, least */
    QD_BAILIAN_SETTING_NUMBER,
    QD_BAILIAN_SETTING_TEXT,
    QD_BAILIAN_CALIBRATION_MANY, /* how many at most */
    QD_BAILIAN_CALIBRATION_ID,
    QD_BAILIAN_CALIBRATION_UNKNOWN,
    QD_BAILIAN_REPEAT_KEY,
    QD_BAILIAN_REPEAT_OTHER,
    QD_BAILIAN_REFUSED,
    QD_BAILIAN_QUOTA,
    QD_BAILIAN_JOB_UNKNOWN,
    QD_BAILIAN_STATE_CANCEL,
    QD_BAILIAN_STATE_DELETE,
    QD_BAILIAN_NUMBER, /* parameter, least, most */
    QD_BAILIAN_CHOICE, /* parameter, choices */
    QD_BAILIAN_TIME,   /* parameter */
    QD_BAILIAN_FILE_UNKNOWN,
    QD_BAILIAN_FILES_MISSING,
    QD_BAILIAN_MULTIPART,
    QD_BAILIAN_PURPOSE,
    QD_BAILIAN_TOO_LARGE,
    QD_BAILIAN_BUSY,
    QD_BAILIAN_AWAY,
    QD_BAILIAN_INTERNAL,
    QD_BAILIAN_PART_LARGE, /* these four: of one file of an upload, inside a 200 */
    QD_BAILIAN_PART_MANY,
    QD_BAILIAN_PART_QUOTA,
    QD_BAILIAN_PART_NAME,
    QD_BAILIAN_PART_FAILED,
    QD_BAILIAN_ERROR_COUNT
} qd_bailian_error;

const qd_error_row *qd_bailian_error_row(qd_bailian_error e);
/* The reply of an error; r gives request id and language. Arguments of the text may be NULL. */
void qd_bailian_refuse(const qd_http_request *r, qd_http_reply *ret, qd_bailian_error e, const char *a0, const char *a1,
                       const char *a2);
/* The same for a request under way; false, so that a check can end with it. */
bool qd_bailian_fail(qd_bailian *q, qd_bailian_error e, const char *a0, const char *a1, const char *a2);
/* For what the backend says and the handler has no row of its own for. */
bool qd_bailian_fail_code(qd_bailian *q, qd_code code);
/* 200 {"request_id", member: value}; takes value (NULL: out of memory). member NULL: the id alone. */
void qd_bailian_ok(qd_bailian *q, const char *member, json_t *value);

static inline qd_ask qd_bailian_ask(const qd_bailian *q)
{
    return (qd_ask){q->caller, q->r->request_id, q->r->from, "bailian"};
}

/* Query parameters; an empty one counts as not given. False: the reply is set. */
const char *qd_bailian_query(const qd_bailian *q, const char *name);
bool qd_bailian_query_number(qd_bailian *q, const char *name, uint64_t dflt, uint64_t min, uint64_t max, uint64_t *ret);
bool qd_bailian_query_page(qd_bailian *q, uint64_t *ret_no, uint64_t *ret_size);

/* Handlers: each sets the reply. */
void qd_bailian_templates(qd_bailian *q);
void qd_bailian_create(qd_bailian *q);
void qd_bailian_list(qd_bailian *q);
void qd_bailian_get(qd_bailian *q);
void qd_bailian_logs(qd_bailian *q);
void qd_bailian_cancel(qd_bailian *q);
void qd_bailian_delete(qd_bailian *q);
void qd_bailian_files(qd_bailian *q);
void qd_bailian_file_get(qd_bailian *q);
void qd_bailian_file_delete(qd_bailian *q);
bool qd_bailian_takes_purpose(const char *purpose);
void qd_bailian_files_taken(qd_bailian *q, const qd_uploaded *files, size_t n);

/* bailian_job.c: a job as a reply has it; NULL: out of memory. */
typedef enum qd_bailian_view {
    QD_BAILIAN_CREATED,
    QD_BAILIAN_LISTED,
    QD_BAILIAN_WHOLE
} qd_bailian_view;
json_t *qd_bailian_job(const qd_bailian *q, const qd_job_record *rec, qd_bailian_view view);

#endif
