/* fuzz_nats.c -- any bytes as what a nats-server sends: base64, times, reply subjects, headers, replies. */
#include "base/mem.h"
#include "bus/nats_parse.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static void promise(bool kept)
{
    if (!kept) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = qd_malloc(size + 1);
    uint8_t *bytes = qd_malloc(size / 4 * 3 + 3);
    if (text == NULL || bytes == NULL) goto out;
    memcpy(text, data, size);
    text[size] = '\0';
    size_t n = 0;
    uint64_t ms = 0;
    qd_ack_subject ack = {0};
    qd_bus_header headers[QD_BUS_HEADERS_MAX];
    json_t *o = NULL;
    qd_err err = {0};
    if (qd_base64_decode(text, size, bytes, &n)) promise(n <= size / 4 * 3);
    if (qd_rfc3339_ms(text, &ms)) promise(size >= 20);
    if (qd_ack_subject_parse(text, &ack)) promise(ack.delivered > 0 && ack.stream_seq > 0);
    qd_code rc = qd_api_reply("input", text, size, &o, &err);
    promise((rc == QD_OK) == (o != NULL) && (rc == QD_OK || err.msg[0] != '\0'));
    json_decref(o);
    if (qd_headers_parse(text, size, headers, &n)) {
        promise(n <= QD_BUS_HEADERS_MAX);
        for (size_t i = 0; i < n; i++) promise(strlen(headers[i].name) + strlen(headers[i].value) < size);
        (void)qd_headers_deleted(headers, n);
    }
out:
    qd_free(text);
    qd_free(bytes);
    return 0;
}
