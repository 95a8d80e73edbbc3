/* replay.c -- runs a fuzz target over every file of a directory, so that a corpus is a test where there is no
 * libFuzzer. */
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define INPUT_BYTES_MAX (UINT64_C(64) << 20)

/* The input in a block of exactly its size, so that a read past its end is seen. */
static qd_code run_one(const char *path, qd_err *err)
{
    char *text = NULL;
    size_t len = 0;
    qd_code rc = qd_file_read(path, INPUT_BYTES_MAX, &text, &len, err);
    if (rc != QD_OK) return rc;
    uint8_t *exact = qd_malloc(len);
    if (exact == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", path);
    } else {
        memcpy(exact, text, len);
        (void)LLVMFuzzerTestOneInput(exact, len);
    }
    qd_free(exact);
    qd_free(text);
    return rc;
}

int main(int argc, char **argv)
{
    qd_err err = {0};
    qd_code rc = QD_OK;
    unsigned n = 0;
    DIR *d = argc == 2 ? opendir(argv[1]) : NULL;
    if (d == NULL) {
        (void)fprintf(stderr, "usage: %s DIRECTORY (an existing one)\n", argv[0]);
        return 2;
    }
    for (const struct dirent *e; rc == QD_OK && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        char *path = qd_path_join(argv[1], e->d_name);
        rc = path == NULL ? qd_fail(&err, QD_E_NO_MEMORY, "out of memory") : run_one(path, &err);
        qd_free(path);
        n++;
    }
    (void)closedir(d);
    if (rc != QD_OK) (void)fprintf(stderr, "%s\n", err.msg);
    if (rc == QD_OK && n == 0) (void)fprintf(stderr, "%s: no inputs\n", argv[1]);
    (void)printf("%u inputs\n", n);
    return rc == QD_OK && n > 0 ? 0 : 1;
}
