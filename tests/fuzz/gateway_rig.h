/* gateway_rig.h -- one request to the APIs over the service in memory, and what every answer promises. */
#ifndef QD_TESTS_FUZZ_GATEWAY_RIG_H
#define QD_TESTS_FUZZ_GATEWAY_RIG_H

#include "fuzz.h"
#include "tests/unit/api/fake_backend.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline void promise(bool kept)
{
    if (!kept) abort();
}

/* The same service for every input, which begins as the first one did. */
static inline fake *gateway_begin(void)
{
    static fake f;
    if (f.n_models != 0) {
        fake_again(&f);
        return &f;
    }
    (void)setenv("TZ", "Asia/Shanghai", 1);
    tzset();
    fake_begin(&f, QD_TEST_SOURCE_DIR "/deploy/templates");
    return &f;
}

/* Nothing is lent any more, no record was made that the wire refuses. */
static inline void gateway_end(const fake *f)
{
    promise(f->lent == 0 && f->not_for_the_wire == 0);
}

/* An answer is the caller's fault or a success, JSON, and names the request. */
static inline void check_answer(qd_http_reply *reply)
{
    promise(reply->status >= 200 && reply->status < 500);
    json_t *v = json_loadb(reply->body.data, reply->body.len, JSON_REJECT_DUPLICATES, NULL);
    promise(json_is_object(v));
    promise(json_is_string(json_object_get(v, "request_id")) || json_is_string(json_object_get(v, "requestId")));
    promise((reply->status == 200) != json_is_string(json_object_get(v, "code")));
    for (size_t i = 0; i < reply->n_headers; i++)
        for (const char *c = reply->headers[i].value; *c != '\0'; c++) promise(*c >= 0x20 && *c <= 0x7e);
    json_decref(v);
    qd_http_reply_done(reply);
}

#endif
