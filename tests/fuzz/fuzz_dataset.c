/* fuzz_dataset.c -- any bytes as a JSONL file, a text and ids: refused with a sentence, or samples of the size said. */
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "calib/dataset.h"
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void promise(bool kept)
{
    if (!kept) abort();
}

static void load(qd_tokenizer *t, const char *dir, const char *name, const uint8_t *data, size_t size, bool pack)
{
    char *path = qd_path_join(dir, name);
    const char *const paths[] = {path};
    qd_dataset_options o = {
        .paths = paths, .n_paths = 1, .n_samples = 3, .len = 5, .pack = pack, .seed = size, .n_ids = 3};
    qd_dataset d = {0};
    qd_err err = {0};
    FILE *f = path != NULL ? fopen(path, "wb") : NULL; /* no sync: thousands a second */
    promise(f != NULL && fwrite(data, 1, size, f) == size && fclose(f) == 0);
    qd_code rc = qd_dataset_load(t, NULL, &o, &d, &err);
    promise(rc == QD_OK || ((rc == QD_E_INPUT || rc == QD_E_UNSUPPORTED) && err.msg[0] != '\0' && d.ids == NULL));
    if (rc == QD_OK) promise(d.n_samples >= 1 && d.n_samples <= 3 && d.len >= 1 && d.len <= 5);
    for (uint32_t i = 0; i < d.n_samples * d.len; i++) promise(d.ids[i] >= 0 && d.ids[i] < 3);
    qd_dataset_done(&d);
    qd_free(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char json[] = "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}";
    char dir[] = "/tmp/qd-fuzz-XXXXXX";
    qd_tokenizer *t = NULL;
    qd_err err = {0};
    promise(mkdtemp(dir) != NULL);
    promise(qd_tokenizer_parse(json, sizeof json - 1, "t", &t, &err) == QD_OK);
    load(t, dir, "x.jsonl", data, size, true);
    load(t, dir, "x.txt", data, size, false);
    load(t, dir, "x.safetensors", data, size, true);
    qd_tokenizer_free(t);
    promise(qd_tree_remove(dir, &err) == QD_OK);
    return 0;
}
