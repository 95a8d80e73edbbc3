/* index_query.c -- one page of a tenant's jobs: a pass over its array, shortened where it can be. */
#include "base/mem.h"
#include "gateway/index_rows.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    PART_MAX = 256 /* bytes of a part that is looked for; nothing that long is anywhere */
};

typedef struct part {
    char text[PART_MAX];
    size_t n;
    uint64_t first; /* its first byte, eight times */
} part;

typedef struct pass {
    const qd_job_query *q;
    bool *fits; /* by facet */
    bool all_fit, text, time;
    part id, name, find;
} pass;

/* False: too long to be found. */
static bool part_of(const char *s, part *ret)
{
    size_t n = s == NULL ? 0 : strlen(s);
    if (n >= PART_MAX) return false;
    for (size_t i = 0; i < n; i++) ret->text[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] | 0x20) : s[i];
    ret->n = n;
    ret->first = (uint8_t)ret->text[0] * UINT64_C(0x0101010101010101);
    return true;
}

static bool facet_fits(const qd_index_facet *f, const qd_job_query *q)
{
    return (q->origin == QUANTD__API_ORIGIN__API_NONE || f->origin == q->origin) &&
           (q->states == 0 || (q->states >> (unsigned)f->state & 1) != 0) &&
           (q->model == NULL || strcmp(f->model, q->model) == 0) &&
           (q->template_id == NULL || strcmp(f->tmpl, q->template_id) == 0) &&
           (q->quant_spec == NULL || strcasecmp(f->spec, q->quant_spec) == 0) &&
           (q->quant_method == NULL || strcasecmp(f->method, q->quant_method) == 0);
}

/* Names are short, so that memmem() would spend its time on getting ready: eight bytes at a time are looked at for the
 * part's first one. Eight more than bytes can be read (index_rows.h). */
static inline bool has(const char *text, size_t bytes, const part *p)
{
    if (p->n == 0) return true;
    if (p->n > bytes) return false;
    size_t last = bytes - p->n; /* the last place where it can begin */
    for (size_t i = 0; i <= last; i += 8) {
        uint64_t word;
        memcpy(&word, text + i, sizeof word);
        word ^= p->first;
        uint64_t hits = (word - UINT64_C(0x0101010101010101)) & ~word & UINT64_C(0x8080808080808080);
        for (; hits != 0; hits &= hits - 1) { /* a byte above a true one may be a false one: compared all the same */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            size_t at = i + (size_t)__builtin_ctzll(hits) / 8;
#else
            size_t at = i + (size_t)(7 - __builtin_ctzll(hits) / 8);
#endif
            if (at <= last && memcmp(text + at, p->text, p->n) == 0) return true;
        }
    }
    return false;
}

static inline bool fits(const pass *p, const qd_index_entry *e)
{
    if (e->dead || !p->fits[e->facet]) return false;
    if (p->time) {
        if (p->q->started_from_ms != 0 && (e->started_ms == 0 || e->started_ms < p->q->started_from_ms)) return false;
        if (p->q->ended_to_ms != 0 && (e->ended_ms == 0 || e->ended_ms > p->q->ended_to_ms)) return false;
    }
    if (!p->text) return true;
    const char *name = e->text + e->id_bytes + 1;
    if (!has(e->text, e->id_bytes, &p->id) || !has(name, e->name_bytes, &p->name)) return false;
    switch (p->q->find_in) {
    case QD_FIND_ID:
        return has(e->text, e->id_bytes, &p->find);
    case QD_FIND_NAME:
        return has(name, e->name_bytes, &p->find);
    default: /* a NUL is between the two, and none in the part */
        return has(e->text, (size_t)e->id_bytes + 1 + e->name_bytes, &p->find);
    }
}

static size_t start_of(const qd_index_rows *r, const qd_index_tenant *t, const char *id)
{
    const qd_index_row *row = qd_rows_find(r, id);
    if (row != NULL && row->gone_ms == 0 && &r->tenants[row->tenant] == t) return qd_rows_place(r, t, row);
    return t->n_jobs;
}

static void more(const qd_index_rows *r, const qd_index_entry *e, qd_job_page *ret)
{
    ret->more = true;
    (void)snprintf(ret->next_id, sizeof ret->next_id, "%s", qd_row_id(&r->rows[e->row]));
}

/* A page of the second half of known many matches: the way from the other end is shorter. */
static size_t from_the_end(const pass *p, const qd_index_tenant *t, uint64_t total, uint64_t skip, size_t count,
                           uint32_t *ret_rows, qd_job_page *ret, const qd_index_rows *r)
{
    uint64_t place = total; /* of the match that comes next, and one more */
    size_t n = skip >= total ? 0 : (size_t)qd_min_u64(count, total - skip);
    for (size_t i = t->n_jobs; i-- > 0 && place > skip;) {
        const qd_index_entry *e = &t->jobs[p->q->ascending ? i : t->n_jobs - 1 - i];
        if (!fits(p, e)) continue;
        place--;
        if (place == skip + n) more(r, e, ret);
        if (place >= skip && place < skip + n) ret_rows[place - skip] = e->row;
    }
    return n;
}

qd_code qd_rows_list(const qd_index_rows *r, const qd_index_tenant *t, const qd_job_query *q, uint32_t *ret_rows,
                     size_t *ret_n, qd_job_page *ret, qd_err *err)
{
    pass p = {.q = q, .all_fit = true};
    uint64_t total = 0, found = 0, skip = q->from_id == NULL ? q->skip : 0;
    size_t n = 0, start = 0, count = q->count < QD_PAGE_MAX ? q->count : QD_PAGE_MAX;
    qd_code rc = QD_OK;
    *ret_n = 0;
    p.time = q->started_from_ms != 0 || q->ended_to_ms != 0;
    if (!part_of(q->id_part, &p.id) || !part_of(q->name_part, &p.name) || !part_of(q->find_part, &p.find)) return QD_OK;
    p.text = p.id.n + p.name.n + p.find.n != 0;
    p.fits = qd_calloc(t->n_facets + 1, sizeof *p.fits);
    if (p.fits == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a list of jobs");
    for (size_t i = 0; i < t->n_facets; i++) {
        p.fits[i] = facet_fits(&t->facets[i], q);
        if (p.fits[i]) total += t->facets[i].n;
        p.all_fit = p.all_fit && (p.fits[i] || t->facets[i].n == 0);
    }
    if (q->from_id != NULL) {
        start = start_of(r, t, q->from_id);
        if (start == t->n_jobs || (q->origin != 0 && t->facets[t->jobs[start].facet].origin != q->origin)) {
            rc = qd_fail(err, QD_E_NOT_FOUND, "no job %.64s", q->from_id);
            goto out;
        }
        if (!q->ascending) start = t->n_jobs - 1 - start;
    }
    bool counted = !p.time && !p.text; /* the facets know the total */
    if (counted && q->from_id == NULL && skip > total / 2) {
        n = from_the_end(&p, t, total, skip, count, ret_rows, ret, r);
        if (q->want_total) ret->total = total;
        *ret_n = n;
        goto out;
    }
    size_t i = counted || !q->want_total ? start : 0;
    if (counted && p.all_fit && t->n_dead == 0 && q->from_id == NULL) {
        i = (size_t)qd_min_u64(skip, t->n_jobs);
        skip = 0;
    }
    uint64_t matches = 0;
    for (; i < t->n_jobs && total != 0; i++) {
        const qd_index_entry *e = &t->jobs[q->ascending ? i : t->n_jobs - 1 - i];
        if (!fits(&p, e)) continue;
        matches++;
        if (i < start || found++ < skip) continue;
        if (n < count) {
            ret_rows[n++] = e->row;
        } else {
            if (!ret->more) more(r, e, ret);
            if (counted || !q->want_total) break;
        }
    }
    if (q->want_total) ret->total = counted ? total : matches;
    *ret_n = n;
out:
    qd_free(p.fits);
    return rc;
}
