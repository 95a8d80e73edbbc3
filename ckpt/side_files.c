/* side_files.c -- what else lies in a model directory: tokenizer, chat template, generation config and the like. */
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "ckpt/parts.h"
#include "ckpt/shapes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define SIDE_BYTES_MAX (UINT64_C(1) << 30)
enum {
    SIDE_FILES_MAX = 1000,
    DIR_ENTRIES_MAX = 100000
};

typedef struct lists {
    qd_names weights, side, skipped;
} lists;

/* Written anew for the output, or true of the source only. */
static bool is_ours(const char *name)
{
    static const char *const names[] = {"config.json",          "report.json",       "hf_quant_config.json",
                                        "quantize_config.json", "quant_config.json", "quantization_config.json",
                                        "quantd.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return qd_str_ends(name, ".index.json");
}

static bool is_other_weights(const char *name)
{
    static const char *const ends[] = {".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (qd_str_ends(name, ends[i])) return true;
    return false;
}

static qd_code sort_in(int dir_fd, const char *dir, const char *name, qd_arena *arena, lists *l, qd_err *err)
{
    struct stat st;
    bool weights = qd_str_ends(name, ".safetensors");
    if (name[0] == '.' || (!weights && (is_ours(name) || is_other_weights(name)))) return QD_OK;
    if (!qd_name_is_plain(name)) return qd_names_add(&l->skipped, arena, name, err);
    if (fstatat(dir_fd, name, &st, 0) != 0)
        return qd_fail_errno(err, errno == ENOENT || errno == ELOOP ? QD_E_INPUT : QD_E_IO, errno, "%s/%s", dir, name);
    if (!S_ISREG(st.st_mode)) return QD_OK;
    if (weights) return qd_names_add(&l->weights, arena, name, err);
    if ((uint64_t)st.st_size > SIDE_BYTES_MAX)
        return qd_fail(err, QD_E_INPUT, "%s/%s: expected a side file of at most %" PRIu64 " bytes, found %" PRIu64, dir,
                       name, SIDE_BYTES_MAX, (uint64_t)st.st_size);
    if (l->side.n == SIDE_FILES_MAX)
        return qd_fail(err, QD_E_INPUT, "%s: expected at most %d files beside the weights, found more", dir,
                       SIDE_FILES_MAX);
    return qd_names_add(&l->side, arena, name, err);
}

static qd_code list_dir(const char *dir, qd_arena *arena, lists *ret, qd_err *err)
{
    lists l = {0};
    qd_code rc = QD_OK;
    DIR *d = opendir(dir);
    if (d == NULL) return qd_fail_errno(err, QD_E_IO, errno, "%s", dir);
    for (int n = 0;; n++) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (e == NULL && errno != 0) {
            rc = qd_fail_errno(err, QD_E_IO, errno, "%s", dir);
            goto out;
        }
        if (e == NULL) break;
        if (n == DIR_ENTRIES_MAX) {
            rc = qd_fail(err, QD_E_INPUT, "%s: expected at most %d files, found more", dir, DIR_ENTRIES_MAX);
            goto out;
        }
        QD_TRY(sort_in(dirfd(d), dir, e->d_name, arena, &l, err));
    }
    qd_names_sort(&l.weights);
    qd_names_sort(&l.side);
    *ret = l;
out:
    (void)closedir(d);
    return rc;
}

qd_code qd_find_weights(const char *dir, qd_arena *arena, qd_names *files, qd_err *err)
{
    lists l = {0};
    qd_names one = {0};
    qd_code rc = list_dir(dir, arena, &l, err);
    if (rc != QD_OK) return rc;
    if (l.weights.n == 0) return qd_fail(err, QD_E_INPUT, "%s: expected safetensors files, found none", dir);
    const char *name = l.weights.at[0];
    for (uint32_t i = 0; i < l.weights.n; i++)
        if (strcmp(l.weights.at[i], QD_CKPT_SINGLE_NAME) == 0) name = QD_CKPT_SINGLE_NAME;
    if (l.weights.n > 1 && strcmp(name, QD_CKPT_SINGLE_NAME) != 0)
        return qd_fail(err, QD_E_INPUT,
                       "%s: expected " QD_CKPT_INDEX_NAME " or " QD_CKPT_SINGLE_NAME ", found %" PRIu32
                       " safetensors files without either",
                       dir, l.weights.n);
    rc = qd_names_add(&one, arena, name, err);
    if (rc == QD_OK) *files = one;
    return rc;
}

bool qd_ckpt_lacks_weights(const char *dir)
{
    qd_arena arena = {0};
    lists l = {0};
    qd_err err = {0};
    char *config = qd_path_join(dir, "config.json");
    bool lacks =
        config != NULL && qd_path_exists(config) && list_dir(dir, &arena, &l, &err) == QD_OK && l.weights.n == 0;
    qd_arena_done(&arena);
    qd_free(config);
    return lacks;
}

static bool is_part(const qd_ckpt *c, const char *name)
{
    for (uint32_t i = 0; i < c->n_files; i++)
        if (strcmp(c->files[i].name, name) == 0) return true;
    return false;
}

qd_code qd_find_side_files(qd_ckpt *c, qd_err *err)
{
    lists l = {0};
    qd_code rc = list_dir(c->dir, &c->arena, &l, err);
    if (rc != QD_OK) return rc;
    for (uint32_t i = 0; i < l.weights.n && rc == QD_OK; i++)
        if (!is_part(c, l.weights.at[i])) rc = qd_names_add(&l.skipped, &c->arena, l.weights.at[i], err);
    if (rc != QD_OK) return rc;
    qd_names_sort(&l.skipped);
    c->side = l.side.at;
    c->n_side = l.side.n;
    c->skipped = l.skipped.at;
    c->n_skipped = l.skipped.n;
    return QD_OK;
}
