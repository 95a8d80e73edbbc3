/* upload.h -- the body of an upload: its files go to the backend as they come in, its fields are kept.
 *
 * Parts named "files" (or "file") with a file name are files; fields "purpose" and "descriptions" (or "description"),
 * the i-th of which belongs to the i-th file; others are passed over. */
#ifndef QD_GATEWAY_UPLOAD_H
#define QD_GATEWAY_UPLOAD_H

#include "gateway/api.h"

typedef struct qd_upload_body qd_upload_body;

/* backend and c must outlive it. NULL with QD_E_INPUT: not multipart. */
QD_MUST_CHECK qd_code qd_upload_body_open(const qd_backend *backend, const qd_caller *c, uint32_t files_max,
                                          const char *content_type, qd_upload_body **ret, qd_err *err);
/* Takes bytes. False: the body is broken. One thread at a time. */
bool qd_upload_body_feed(qd_upload_body *u, const char *data, size_t n);
/* False: the body was broken, or ended early. */
bool qd_upload_body_whole(const qd_upload_body *u);
const char *qd_upload_body_purpose(const qd_upload_body *u); /* as it came; "": none */
/* Waits for the bus: stores what came in; of a whole body only. *ret lives as long as u. */
void qd_upload_body_store(qd_upload_body *u, const qd_ask *ask, const qd_uploaded **ret, size_t *ret_n);
void qd_upload_body_close(qd_upload_body *u); /* drops what was not stored; NULL is a no-op */

#endif
