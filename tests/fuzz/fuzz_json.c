/* fuzz_json.c -- any bytes as JSON and as config.json: refused with a sentence, or read. */
#include "base/json.h"
#include "ckpt/config.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static void promise(bool kept)
{
    if (!kept) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    json_t *v = NULL;
    qd_config c = {0};
    qd_err err = {0};
    qd_code json = qd_json_parse(text, size, "input", &v, &err);
    promise(json == QD_OK ? v != NULL : json == QD_E_INPUT && err.msg[0] != '\0');
    json_decref(v);
    memset(&err, 0, sizeof err);
    qd_code config = qd_config_parse(text, size, "input", &c, &err);
    promise(config == QD_OK || (config == QD_E_INPUT && err.msg[0] != '\0' && c.root == NULL));
    promise(json == QD_OK || config != QD_OK); /* what is not JSON is no config either */
    if (config == QD_OK) {
        promise(json_is_object(c.root) && c.fp8_block_rows > 0 && c.fp8_block_cols > 0);
        promise(strlen(c.model_type) + strlen(c.text_model_type) + strlen(c.architecture) + strlen(c.quant_method) <=
                4 * size + 7);
    }
    qd_config_done(&c);
    return 0;
}
