/* fuzz_message.c -- any bytes as each of the messages: refused with a sentence, or read, written and read again. The
 * first byte says which message. */
#include "base/mem.h"
#include "fuzz.h"
#include "proto/msg.h"
#include "proto/subject.h"

#include <stdlib.h>
#include <string.h>

static void promise(bool kept)
{
    if (!kept) abort();
}

static void subjects(const uint8_t *data, size_t size)
{
    char text[QD_SUBJECT_BYTES], again[QD_SUBJECT_BYTES], a[QD_ID_BYTES], b[QD_ID_BYTES], name[QD_NAME_MAX + 1];
    qd_lane lane;
    qd_key_kind kind;
    if (size >= sizeof text) return;
    memcpy(text, data, size);
    text[size] = '\0';
    if (qd_subject_job_parse(text, &lane, a, NULL) == QD_OK)
        promise(qd_subject_job(&lane, a, again, NULL) == QD_OK && strcmp(text, again) == 0);
    if (qd_subject_event_parse(text, a, b, NULL) == QD_OK)
        promise(qd_subject_event(a, b, again, NULL) == QD_OK && strcmp(text, again) == 0);
    if (qd_key_parse(text, &kind, a, NULL) == QD_OK)
        promise(qd_key(kind, a, again, NULL) == QD_OK && strcmp(text, again) == 0);
    if (qd_key_name_parse(text, a, name, NULL) == QD_OK)
        promise(qd_key_name(a, name, again, NULL) == QD_OK && strcmp(text, again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ProtobufCMessageDescriptor *const all[] = {
#define X(name, type, descriptor) &(descriptor),
        QD_MSGS(X)
#undef X
    };
    if (size == 0) return 0;
    const ProtobufCMessageDescriptor *d = all[data[0] % (sizeof all / sizeof all[0])];
    ProtobufCMessage *m = NULL, *back = NULL;
    qd_buf b = {0}, again = {0};
    qd_err err = {0};
    subjects(data + 1, size - 1);
    qd_code rc = qd_msg_decode(d, data + 1, size - 1, &m, &err);
    if (rc != QD_OK) {
        promise(m == NULL && err.msg[0] != '\0' && rc != QD_E_INTERNAL);
        return 0;
    }
    promise(qd_msg_encode(m, &b, &err) == QD_OK);
    promise(qd_msg_decode(d, b.data, b.len, &back, &err) == QD_OK);
    promise(qd_msg_encode(back, &again, &err) == QD_OK);
    promise(again.len == b.len && (b.len == 0 || memcmp(again.data, b.data, b.len) == 0));
    qd_msg_free(m);
    qd_msg_free(back);
    qd_buf_done(&b);
    qd_buf_done(&again);
    return 0;
}
