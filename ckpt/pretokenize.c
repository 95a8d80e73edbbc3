#include "ckpt/pretokenize.h"

#include "base/utf8.h"

#include <string.h>

typedef struct run {
    qd_pretokenizer *p;
    qd_word_fn word;
    void *user;
} run;

static qd_code do_step(const run *r, uint32_t step, const char *text, size_t len, bool at_start, qd_err *err);

typedef struct span {
    size_t start, end;
    bool match;
} span;

typedef struct cutter { /* one SPLIT at work: the span that later ones may still join */
    const run *r;
    uint32_t step;
    const char *text;
    bool at_start, pending, last_match;
    span held;
} cutter;

static qd_code give(const cutter *c, span s, qd_err *err)
{
    if (s.start == s.end) return QD_OK;
    return do_step(c->r, c->step + 1, c->text + s.start, s.end - s.start, c->at_start && s.start == 0, err);
}

static qd_code release(cutter *c, qd_err *err)
{
    bool pending = c->pending;
    c->pending = false;
    return pending ? give(c, c->held, err) : QD_OK;
}

static qd_code take(cutter *c, qd_cut_behavior behavior, span s, qd_err *err)
{
    bool last = c->last_match, join = false;
    c->last_match = s.match;
    switch (behavior) {
    case QD_CUT_REMOVED:
        return s.match ? QD_OK : give(c, s, err);
    case QD_CUT_ISOLATED:
        return give(c, s, err);
    case QD_CUT_WITH_PREVIOUS:
        join = s.match && !last;
        break;
    case QD_CUT_WITH_NEXT:
        join = !s.match && last;
        break;
    case QD_CUT_CONTIGUOUS:
        join = s.match == last;
        break;
    }
    if (join && c->pending) {
        c->held.end = s.end;
        return QD_OK;
    }
    qd_code rc = release(c, err);
    c->held = s;
    c->pending = true;
    return rc;
}

static qd_code split(const run *r, uint32_t step, const char *text, size_t len, bool at_start, qd_err *err)
{
    const qd_cut_step *s = &r->p->steps[step];
    cutter c = {.r = r, .step = step, .text = text, .at_start = at_start};
    size_t done = 0;
    qd_code rc = QD_OK;
    for (size_t from = 0; from < len && rc == QD_OK;) {
        bool found = false;
        size_t start = len, end = len;
        rc = qd_regex_next(s->pattern, text, len, from, &found, &start, &end, err);
        if (rc != QD_OK || !found) break;
        if (start > done) rc = take(&c, s->behavior, (span){done, start, s->invert}, err);
        if (rc == QD_OK) rc = take(&c, s->behavior, (span){start, end, !s->invert}, err);
        done = end;
        from = end > start ? end : end < len ? end + qd_utf8_len(text[end]) : len;
    }
    if (rc == QD_OK && done < len) rc = take(&c, s->behavior, (span){done, len, s->invert}, err);
    return rc == QD_OK ? release(&c, err) : rc;
}

static bool starts_with(const char *text, size_t len, const qd_buf *b)
{
    return len >= b->len && memcmp(text, b->data, b->len) == 0;
}

static qd_code prefix(const run *r, uint32_t step, const char *text, size_t len, bool at_start, qd_err *err)
{
    qd_cut_step *s = &r->p->steps[step];
    if (starts_with(text, len, &s->text)) return do_step(r, step + 1, text, len, at_start, err);
    qd_buf_reset(&s->piece);
    qd_buf_add(&s->piece, s->text.data, s->text.len);
    qd_buf_add(&s->piece, text, len);
    qd_code rc = qd_buf_check(&s->piece, err);
    return rc == QD_OK ? do_step(r, step + 1, s->piece.data, s->piece.len, at_start, err) : rc;
}

static qd_code metaspace(const run *r, uint32_t step, const char *text, size_t len, bool at_start, qd_err *err)
{
    qd_cut_step *s = &r->p->steps[step];
    bool front = s->scheme == QD_PREPEND_ALWAYS || (s->scheme == QD_PREPEND_FIRST && at_start);
    qd_buf_reset(&s->piece);
    if (front && text[0] != ' ' && !starts_with(text, len, &s->text)) qd_buf_add(&s->piece, s->text.data, s->text.len);
    for (size_t at = 0; at < len;) {
        const char *space = memchr(text + at, ' ', len - at);
        size_t end = space != NULL ? (size_t)(space - text) : len;
        qd_buf_add(&s->piece, text + at, end - at);
        if (space != NULL) qd_buf_add(&s->piece, s->text.data, s->text.len);
        at = end + 1;
    }
    qd_code rc = qd_buf_check(&s->piece, err);
    return rc == QD_OK ? do_step(r, step + 1, s->piece.data, s->piece.len, at_start, err) : rc;
}

static qd_code do_step(const run *r, uint32_t step, const char *text, size_t len, bool at_start, qd_err *err)
{
    if (step == r->p->n_steps) return r->word(r->user, text, len, err);
    switch (r->p->steps[step].kind) {
    case QD_CUT_SPLIT:
        return split(r, step, text, len, at_start, err);
    case QD_CUT_PREFIX:
        return prefix(r, step, text, len, at_start, err);
    case QD_CUT_METASPACE:
        return metaspace(r, step, text, len, at_start, err);
    }
    return qd_fail(err, QD_E_INTERNAL, "no such step");
}

qd_code qd_pretokenize(qd_pretokenizer *p, const char *text, size_t len, bool at_start, qd_word_fn word, void *user,
                       qd_err *err)
{
    run r = {p, word, user};
    return len == 0 ? QD_OK : do_step(&r, 0, text, len, at_start, err);
}

void qd_pretokenizer_done(qd_pretokenizer *p)
{
    if (p == NULL) return;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        qd_regex_free(p->steps[i].pattern);
        qd_buf_done(&p->steps[i].text);
        qd_buf_done(&p->steps[i].piece);
    }
    memset(p, 0, sizeof *p);
}
