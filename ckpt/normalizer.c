#include "ckpt/normalizer.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum {
    EXPANSION_MAX = 32, /* code points that one decomposes into: 18 at most in Unicode 15 */
    TEXT_BYTES_MAX = 512 << 20
};

typedef struct mark {
    int32_t c;
    uint32_t class_order; /* canonical combining class, and the place among equals: class << 24 | place */
} mark;

typedef struct qd_normal_marks { /* one stretch of text, decomposed */
    int32_t *c;
    size_t n, cap;
    mark *sorted;
    size_t cap_sorted;
} qd_normal_marks;

static int by_class(const void *pa, const void *pb)
{
    const mark *a = pa, *b = pb;
    return a->class_order < b->class_order ? -1 : a->class_order > b->class_order;
}

/* Canonical ordering of each run of combining marks. utf8proc's own takes quadratic time on a hostile run. */
static qd_code order_marks(qd_normal_marks *m, qd_err *err)
{
    for (size_t at = 0, n; at < m->n; at += n == 0 ? 1 : n) {
        bool sorted = true;
        utf8proc_propval_t before = 0;
        for (n = 0; at + n < m->n; n++) {
            utf8proc_propval_t class = utf8proc_get_property(m->c[at + n])->combining_class;
            if (class == 0) break;
            sorted = sorted && before <= class;
            before = class;
        }
        if (sorted) continue;
        if (n >= 1 << 24) return qd_fail(err, QD_E_INPUT, "a run of %zu combining marks", n);
        if (n > m->cap_sorted) {
            mark *more = qd_realloc(m->sorted, n * sizeof *more);
            if (more == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for combining marks");
            m->sorted = more;
            m->cap_sorted = n;
        }
        for (size_t i = 0; i < n; i++)
            m->sorted[i] = (mark){m->c[at + i],
                                  (uint32_t)utf8proc_get_property(m->c[at + i])->combining_class << 24 | (uint32_t)i};
        qsort(m->sorted, n, sizeof *m->sorted, by_class);
        for (size_t i = 0; i < n; i++) m->c[at + i] = m->sorted[i].c;
    }
    return QD_OK;
}

/* In stretches before each U+11A7, which utf8proc up to 2.8 loses behind a Hangul syllable, and which composes with
 * nothing before it. */
static void compose_all(qd_normal_marks *m)
{
    size_t n = 0;
    for (size_t at = 0, end; at < m->n; at = end) {
        for (end = at + 1; end < m->n && m->c[end] != 0x11a7;) end++;
        utf8proc_ssize_t left =
            utf8proc_normalize_utf32(m->c + at, (utf8proc_ssize_t)(end - at), UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        memmove(m->c + n, m->c + at, (size_t)left * sizeof *m->c);
        n += (size_t)left;
    }
    m->n = n;
}

/* text decomposed, ordered and, for the C forms, composed. */
static qd_code unicode_stretch(qd_normal_marks *m, qd_normal_kind form, const char *text, size_t len, qd_buf *out,
                               qd_err *err)
{
    bool compose = form == QD_NORMAL_NFC || form == QD_NORMAL_NFKC;
    unsigned flags = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (form == QD_NORMAL_NFKC || form == QD_NORMAL_NFKD) flags |= UTF8PROC_COMPAT;
    m->n = 0;
    for (size_t at = 0, n; at < len; at += n) {
        if (m->cap - m->n < EXPANSION_MAX) {
            size_t cap = m->cap < 1024 ? 1024 : 2 * m->cap;
            int32_t *more = qd_realloc(m->c, cap * sizeof *more);
            if (more == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a text");
            m->c = more;
            m->cap = cap;
        }
        int boundary = 0;
        utf8proc_ssize_t put = utf8proc_decompose_char((int32_t)qd_utf8_get(text + at, &n), m->c + m->n, EXPANSION_MAX,
                                                       (utf8proc_option_t)flags, &boundary);
        if (put < 0 || put > EXPANSION_MAX) return qd_fail(err, QD_E_INTERNAL, "utf8proc: %s", utf8proc_errmsg(put));
        m->n += (size_t)put;
    }
    qd_code rc = order_marks(m, err);
    if (rc != QD_OK) return rc;
    if (compose) compose_all(m);
    for (size_t i = 0; i < m->n; i++) {
        char c[4];
        qd_buf_add(out, c, qd_utf8_put((uint32_t)m->c[i], c));
    }
    return QD_OK;
}

/* Nothing composes across the front of an ASCII character, so a stretch is one with the others after it. */
static qd_code unicode_form(qd_normalizer *n, qd_normal_kind form, const char *text, size_t len, qd_buf *out,
                            qd_err *err)
{
    qd_code rc = QD_OK;
    if (n->marks == NULL) n->marks = qd_calloc(1, sizeof *n->marks);
    if (n->marks == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a text");
    for (size_t at = 0; at < len && rc == QD_OK;) {
        size_t plain = at, end;
        while (plain < len && (text[plain] & 0x80) == 0) plain++;
        end = plain;
        while (end < len && (text[end] & 0x80) != 0) end++;
        if (end > plain && plain > at) plain--;
        qd_buf_add(out, text + at, plain - at);
        if (end > plain) rc = unicode_stretch(n->marks, form, text + plain, end - plain, out, err);
        at = end;
    }
    return rc;
}

static void lowercase(const char *text, size_t len, qd_buf *out)
{
    for (size_t at = 0, n; at < len; at += n) {
        char c[4];
        uint32_t code = qd_utf8_get(text + at, &n);
        if (code == 0x130) /* the one letter that becomes two */
            qd_buf_str(out, "i\xcc\x87");
        else
            qd_buf_add(out, c, qd_utf8_put((uint32_t)utf8proc_tolower((int32_t)code), c));
    }
}

static qd_code replace(const qd_normal_step *s, const char *text, size_t len, qd_buf *out, qd_err *err)
{
    size_t done = 0;
    for (size_t from = 0; from <= len;) {
        bool found = false;
        size_t start = 0, end = 0;
        qd_code rc = qd_regex_next(s->pattern, text, len, from, &found, &start, &end, err);
        if (rc != QD_OK) return rc;
        if (!found) break;
        qd_buf_add(out, text + done, start - done);
        qd_buf_add(out, s->text.data, s->text.len);
        done = end;
        from = end > start ? end : end < len ? end + qd_utf8_len(text[end]) : len + 1;
        if (out->len > TEXT_BYTES_MAX) return qd_fail(err, QD_E_INPUT, "the normalizer makes the text too long");
    }
    qd_buf_add(out, text + done, len - done);
    return QD_OK;
}

/* True when the step leaves text as it is; a quick look, not a proof of the opposite. */
static bool does_nothing(const qd_normal_step *s, const char *text, size_t len)
{
    if (len == 0) return true;
    if (s->kind == QD_NORMAL_LOWERCASE || s->kind == QD_NORMAL_PREPEND || s->kind == QD_NORMAL_REPLACE) return false;
    /* Below U+0300, which begins with 0xcc in UTF-8, all is in NFC; in all forms ASCII is. */
    unsigned char limit = s->kind == QD_NORMAL_NFC ? 0xcc : 0x80;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] >= limit) return false;
    return true;
}

qd_code qd_normalize(qd_normalizer *n, const char *text, size_t len, const char **ret, size_t *ret_len, qd_err *err)
{
    qd_code rc = QD_OK;
    for (uint32_t i = 0; i < n->n_steps && rc == QD_OK; i++) {
        const qd_normal_step *s = &n->steps[i];
        qd_buf *out = &n->buf[i % 2];
        if (out->data == text) out = &n->buf[(i + 1) % 2];
        if (does_nothing(s, text, len)) continue;
        qd_buf_reset(out);
        if (s->kind == QD_NORMAL_PREPEND) {
            qd_buf_add(out, s->text.data, s->text.len);
            qd_buf_add(out, text, len);
        } else if (s->kind == QD_NORMAL_REPLACE) {
            rc = replace(s, text, len, out, err);
        } else if (s->kind == QD_NORMAL_LOWERCASE) {
            lowercase(text, len, out);
        } else {
            rc = unicode_form(n, s->kind, text, len, out, err);
        }
        if (rc == QD_OK) rc = qd_buf_check(out, err);
        text = out->data;
        len = out->len;
    }
    *ret = text;
    *ret_len = len;
    return rc;
}

void qd_normalizer_done(qd_normalizer *n)
{
    if (n == NULL) return;
    for (uint32_t i = 0; i < n->n_steps; i++) {
        qd_buf_done(&n->steps[i].text);
        qd_regex_free(n->steps[i].pattern);
    }
    for (int i = 0; i < 2; i++) qd_buf_done(&n->buf[i]);
    if (n->marks != NULL) {
        qd_free(n->marks->c);
        qd_free(n->marks->sorted);
    }
    qd_free(n->marks);
    memset(n, 0, sizeof *n);
}
