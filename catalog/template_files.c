/* template_files.c -- templates in directories: by id, by path, and all of them. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "catalog/template.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILE_BYTES_MAX = 1 << 20,
    TEMPLATES_MAX = 4096
};
static const char suffix[] = ".json";

typedef struct names {
    const char **v; /* strings in the arena; the array is owned */
    uint32_t n, cap;
} names;

static qd_code no_memory(qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory while looking for templates");
}

static int by_text(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

static qd_code add_name(names *all, const char *file, qd_arena *arena, qd_err *err)
{
    if (all->n == TEMPLATES_MAX)
        return qd_fail(err, QD_E_CONFIG, "expected at most %d templates, found more", TEMPLATES_MAX);
    if (all->n == all->cap) {
        uint32_t cap = all->cap == 0 ? 32 : all->cap * 2;
        const char **more = qd_realloc(all->v, cap * sizeof *more);
        if (more == NULL) return no_memory(err);
        all->v = more;
        all->cap = cap;
    }
    all->v[all->n] = qd_arena_printf(arena, "%.*s", (int)(strlen(file) - strlen(suffix)), file);
    if (all->v[all->n] == NULL) return no_memory(err);
    all->n++;
    return QD_OK;
}

/* Of one directory; one that is not there has no templates. */
static qd_code add_names(names *all, const char *dir, qd_arena *arena, qd_err *err)
{
    qd_code rc = QD_OK;
    DIR *d = opendir(dir);
    if (d == NULL && errno == ENOENT) return QD_OK;
    if (d == NULL) return qd_fail_errno(err, QD_E_IO, errno, "%s: cannot be listed", dir);
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (e == NULL && errno != 0) rc = qd_fail_errno(err, QD_E_IO, errno, "%s: cannot be listed", dir);
        if (e == NULL || rc != QD_OK) break;
        if (e->d_name[0] != '.' && qd_str_ends(e->d_name, suffix)) rc = add_name(all, e->d_name, arena, err);
    }
    (void)closedir(d);
    return rc;
}

/* The next part of *dirs, copied into the arena; NULL after the last. */
static qd_code next_dir(const char **dirs, qd_arena *arena, const char **ret, qd_err *err)
{
    *dirs += strspn(*dirs, ":");
    size_t n = strcspn(*dirs, ":");
    *ret = NULL;
    if (n == 0) return QD_OK;
    *ret = qd_arena_printf(arena, "%.*s", (int)n, *dirs);
    *dirs += n;
    return *ret == NULL ? no_memory(err) : QD_OK;
}

/* The names of all files, sorted, each once. */
static qd_code find_names(const char *dirs, qd_arena *arena, names *ret, qd_err *err)
{
    names all = {0};
    qd_code rc = QD_OK;
    for (;;) {
        const char *dir = NULL;
        QD_TRY(next_dir(&dirs, arena, &dir, err));
        if (dir == NULL) break;
        QD_TRY(add_names(&all, dir, arena, err));
    }
    if (all.n != 0) qsort(all.v, all.n, sizeof *all.v, by_text);
    uint32_t n = 0;
    for (uint32_t i = 0; i < all.n; i++)
        if (n == 0 || strcmp(all.v[n - 1], all.v[i]) != 0) all.v[n++] = all.v[i];
    all.n = n;
    *ret = all;
    all = (names){0}; /* ownership moved */
out:
    qd_free(all.v);
    return rc;
}

static qd_code load_file(const char *path, const char *expected_id, qd_template *ret, qd_err *err)
{
    char *text = NULL;
    size_t len = 0;
    qd_template t = {0};
    qd_code rc = QD_OK;
    QD_TRY(qd_file_read(path, FILE_BYTES_MAX, &text, &len, err));
    QD_TRY(qd_template_parse(text, len, path, &t, err));
    if (expected_id != NULL && strcmp(t.id, expected_id) != 0) {
        rc = qd_fail(err, QD_E_CONFIG, "%s: \"id\": expected \"%s\" as the file is named, found \"%s\"", path,
                     expected_id, t.id);
        goto out;
    }
    *ret = t;
    memset(&t, 0, sizeof t); /* ownership moved */
out:
    qd_free(text);
    qd_template_done(&t);
    return rc;
}

static qd_code unknown_id(const char *dirs, const char *id, qd_arena *arena, qd_err *err)
{
    names all = {0};
    qd_buf known = {0};
    qd_code rc = QD_OK;
    QD_TRY(find_names(dirs, arena, &all, err));
    for (uint32_t i = 0; i < all.n; i++) qd_buf_printf(&known, "%s%s", i == 0 ? "known: " : ", ", all.v[i]);
    if (all.n == 0) qd_buf_printf(&known, "none found in %s", dirs);
    QD_TRY(qd_buf_check(&known, err));
    rc = qd_fail(err, QD_E_INPUT, "unknown template \"%.80s\" (%s)", id, known.data);
out:
    qd_free(all.v);
    qd_buf_done(&known);
    return rc;
}

/* Finds id.json in dirs; *ret_path NULL when there is none. */
static qd_code find_file(const char *dirs, const char *id, qd_arena *arena, const char **ret_path, qd_err *err)
{
    *ret_path = NULL;
    for (;;) {
        const char *dir = NULL;
        qd_code rc = next_dir(&dirs, arena, &dir, err);
        if (rc != QD_OK || dir == NULL) return rc;
        const char *path = qd_arena_printf(arena, "%s/%s%s", dir, id, suffix);
        if (path == NULL) return no_memory(err);
        if (qd_path_exists(path)) {
            *ret_path = path;
            return QD_OK;
        }
    }
}

qd_code qd_template_load(const char *dirs, const char *id, qd_template *ret, qd_err *err)
{
    qd_arena arena = {0};
    const char *path = NULL;
    qd_code rc = QD_OK;
    if (strchr(id, '/') != NULL || qd_str_ends(id, suffix)) return load_file(id, NULL, ret, err);
    if (qd_name_is_plain(id)) QD_TRY(find_file(dirs, id, &arena, &path, err));
    rc = path == NULL ? unknown_id(dirs, id, &arena, err) : load_file(path, id, ret, err);
out:
    qd_arena_done(&arena);
    return rc;
}

qd_code qd_template_list(const char *dirs, qd_arena *arena, const char ***ret_ids, uint32_t *ret_n, qd_err *err)
{
    names all = {0};
    uint32_t n = 0;
    qd_code rc = QD_OK;
    QD_TRY(find_names(dirs, arena, &all, err));
    const char **ids = qd_arena_alloc(arena, all.n, sizeof *ids);
    if (ids == NULL) {
        rc = no_memory(err);
        goto out;
    }
    for (uint32_t i = 0; i < all.n; i++) {
        qd_template t = {0};
        const char *path = NULL;
        QD_TRY(find_file(dirs, all.v[i], arena, &path, err));
        if (path == NULL) continue; /* gone since it was listed */
        QD_TRY(load_file(path, all.v[i], &t, err));
        qd_template_done(&t);
        ids[n++] = all.v[i];
    }
    *ret_ids = ids;
    *ret_n = n;
out:
    qd_free(all.v);
    return rc;
}
