/* tokenize_rate.c -- tokens and bytes a second on one thread: tokenize_rate MODEL_DIR TEXT_FILE [PASSES].
 * Prints one JSON object; tokenize_rate.py sets it beside Hugging Face's tokenizers. */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "ckpt/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    qd_err err = {0};
    qd_tokenizer *t = NULL;
    qd_ids ids = {0};
    char *text = NULL;
    size_t len = 0;
    long passes = argc > 3 ? strtol(argv[3], NULL, 10) : 5;
    double first = 0, best = 1e30;
    qd_json_use_qd_memory();
    if (argc < 3 || passes < 1) {
        (void)fprintf(stderr, "usage: tokenize_rate MODEL_DIR TEXT_FILE [PASSES]\n");
        return 2;
    }
    double start = now_s();
    qd_code rc = qd_tokenizer_load(argv[1], &t, &err);
    double load = now_s() - start;
    if (rc == QD_OK) rc = qd_file_read(argv[2], QD_TOKENIZER_TEXT_BYTES_MAX, &text, &len, &err);
    for (long i = 0; i < passes && rc == QD_OK; i++) {
        ids.n = 0;
        start = now_s();
        rc = qd_tokenizer_encode(t, text, len, false, &ids, &err);
        double took = now_s() - start;
        if (i == 0) first = took;
        if (took < best) best = took;
    }
    if (rc == QD_OK)
        (void)printf("{\"bytes\":%zu,\"tokens\":%zu,\"load_s\":%.4f,\"first_s\":%.4f,\"best_s\":%.4f}\n", len, ids.n,
                     load, first, best);
    else
        (void)fprintf(stderr, "tokenize_rate: %s\n", err.msg);
    qd_free(text);
    qd_ids_done(&ids);
    qd_tokenizer_free(t);
    return qd_code_exit(rc);
}
