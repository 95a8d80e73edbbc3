#include "engine/digest.h"

#include "base/mem.h"
#include "base/path.h"
#include "ckpt/source.h"
#include "engine/outputs.h"

#include <string.h>

enum {
    READ_BYTES = 1 << 18
};

static void add_name(qd_hasher *h, const char *name, uint64_t size_bytes)
{
    qd_hasher_add(h, name, strlen(name) + 1);
    qd_hasher_add(h, &size_bytes, sizeof size_bytes);
}

static qd_code add_file(qd_hasher *h, const char *dir, const char *name, void *area, qd_err *err)
{
    qd_source *src = NULL;
    qd_code rc = QD_OK;
    char *path = qd_path_join(dir, name);
    if (path == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
    QD_TRY(qd_source_open_file(path, &src, err));
    add_name(h, name, src->size_bytes);
    for (uint64_t at = 0; at < src->size_bytes;) {
        size_t n = (size_t)qd_min_u64(READ_BYTES, src->size_bytes - at);
        QD_TRY(qd_source_read(src, at, area, n, err));
        qd_hasher_add(h, area, n);
        at += n;
    }
out:
    qd_source_free(src);
    qd_free(path);
    return rc;
}

typedef struct side {
    qd_hasher *h;
    const char *dir;
    void *area;
} side;

static qd_code add_side(void *ctx, const char *name, qd_err *err)
{
    const side *s = ctx;
    return add_file(s->h, s->dir, name, s->area, err);
}

qd_code qd_output_digest(const qd_run *run, const char *dir, qd_hash128 *ret, qd_err *err)
{
    const qd_plan *p = run->plan;
    qd_code rc = QD_OK;
    side s = {.h = qd_hasher_new(), .dir = dir, .area = qd_malloc(READ_BYTES)};
    if (s.h == NULL || s.area == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a checksum");
        goto out;
    }
    for (uint32_t i = 0; i < p->n_parts; i++) {
        add_name(s.h, p->parts[i].name, p->parts[i].size_bytes);
        qd_hasher_add(s.h, p->parts[i].header.data, p->parts[i].header.len);
    }
    for (uint32_t u = 0; u < p->n_units; u++) {
        qd_hash128 h = {0, 0};
        QD_TRY(qd_run_unit_hash(run, u, &h, err));
        qd_hasher_add(s.h, &h, sizeof h);
    }
    QD_TRY(qd_each_side_output(p, add_side, &s, err));
    *ret = qd_hasher_end(s.h);
out:
    qd_hasher_free(s.h);
    qd_free(s.area);
    return rc;
}
