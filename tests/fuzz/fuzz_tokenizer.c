/* fuzz_tokenizer.c -- any bytes as tokenizer.json: refused with a sentence, or a tokenizer whose ids are its own. */
#include "base/json.h"
#include "ckpt/tokenizer.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static void promise(bool kept)
{
    if (!kept) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "Hello  world<s> \xe2\x96\x81x 12 caf\xc3\xa9 cafe\xcc\x81\n\xe4\xbd\xa0\xe5\xa5\xbd!";
    qd_tokenizer *t = NULL;
    qd_ids ids = {0};
    qd_buf out = {0};
    qd_err err = {0};
    qd_code rc = qd_tokenizer_parse((const char *)data, size, "input", &t, &err);
    promise(rc == QD_OK ? t != NULL : (rc == QD_E_INPUT || rc == QD_E_UNSUPPORTED) && t == NULL && err.msg[0] != '\0');
    if (rc != QD_OK) return 0;
    rc = qd_tokenizer_encode(t, text, sizeof text - 1, false, &ids, &err);
    promise(rc == QD_OK || (rc == QD_E_INPUT && ids.n == 0));
    for (size_t i = 0; i < ids.n; i++) promise(ids.data[i] >= 0 && (uint32_t)ids.data[i] < qd_tokenizer_n_ids(t));
    if (rc == QD_OK) promise(qd_tokenizer_decode(t, ids.data, ids.n, false, &out, &err) == QD_OK);
    qd_ids_done(&ids);
    qd_buf_done(&out);
    qd_tokenizer_free(t);
    return 0;
}
