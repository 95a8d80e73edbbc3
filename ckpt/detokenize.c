/* detokenize.c -- ids back to text, with tokenizer.json's decoder: a list of tokens goes through its steps. */
#include "base/mem.h"
#include "base/utf8.h"
#include "ckpt/tokenizer_parts.h"

#include <string.h>

typedef struct list { /* token i is text[ends[i-1] .. ends[i]) */
    qd_buf text;
    size_t *ends;
    size_t n;
} list;

static size_t start_of(const list *l, size_t i)
{
    return i == 0 ? 0 : l->ends[i - 1];
}

/* Bytes of a character that s begins, but does not end, before a byte that cannot belong to it; at least 1. */
static size_t broken_len(const char *s, size_t left)
{
    char whole[4];
    size_t n = left < 3 ? left : 3;
    for (; n > 1; n--) {
        memcpy(whole, s, n);
        for (int low = 0x80; low <= 0xb0; low += 0x10) { /* some continuation makes it a character */
            for (size_t i = n; i < 4; i++) whole[i] = (char)low;
            if (qd_utf8_valid(whole, 4) > n) return n;
        }
    }
    return 1;
}

/* Bytes as UTF-8; U+FFFD for each longest piece that belongs to no character (Unicode 15, 3.9, table 3-8). */
static void add_lossy(qd_buf *out, const char *s, size_t len)
{
    for (size_t at = 0, n; at < len; at += n) {
        n = qd_utf8_valid(s + at, len - at);
        if (n != 0) {
            qd_buf_add(out, s + at, n);
            continue;
        }
        n = broken_len(s + at, len - at);
        qd_buf_str(out, "\xef\xbf\xbd");
    }
}

/* The byte that "<0x0A>" stands for, or -1. */
static int fallback_byte(const char *s, size_t len)
{
    static const char digits[] = "0123456789ABCDEF";
    if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>') return -1;
    const char *hi = memchr(digits, s[3], 16), *lo = memchr(digits, s[4], 16);
    return hi != NULL && lo != NULL ? (int)((hi - digits) * 16 + (lo - digits)) : -1;
}

/* A run of bytes that is no UTF-8 as a whole becomes U+FFFD for each of them. */
static void flush_bytes(qd_buf *bytes, qd_buf *out)
{
    bool valid = true;
    for (size_t at = 0, n; at < bytes->len && valid; at += n)
        valid = (n = qd_utf8_valid(bytes->data + at, bytes->len - at)) != 0;
    if (valid)
        qd_buf_add(out, bytes->data, bytes->len);
    else
        for (size_t i = 0; i < bytes->len; i++) qd_buf_str(out, "\xef\xbf\xbd");
    qd_buf_reset(bytes);
}

static void byte_fallback(list *l, qd_buf *out)
{
    qd_buf bytes = {0};
    size_t n = 0;
    for (size_t i = 0, start = 0, end; i < l->n; i++, start = end) {
        const char *s = l->text.data + start;
        end = l->ends[i];
        size_t len = end - start;
        int byte = fallback_byte(s, len);
        if (byte >= 0) {
            char c = (char)byte;
            qd_buf_add(&bytes, &c, 1);
            out->failed = out->failed || bytes.failed;
            if (i + 1 < l->n) continue;
        }
        if (bytes.len != 0) {
            flush_bytes(&bytes, out);
            l->ends[n++] = out->len; /* n <= i: entries that are still to be read lie beyond */
        }
        if (byte < 0) {
            qd_buf_add(out, s, len);
            l->ends[n++] = out->len;
        }
    }
    l->n = n;
    qd_buf_done(&bytes);
}

/* One token through Replace, Strip or Metaspace. */
static void change_token(const qd_decode_step *s, bool first, const char *p, size_t len, qd_buf *out)
{
    size_t n = s->text.len;
    if (n == 0) {
        qd_buf_add(out, p, len);
        return;
    }
    if (s->kind == QD_DECODE_STRIP) {
        for (uint32_t i = 0; i < s->start && len >= n && memcmp(p, s->text.data, n) == 0; i++) p += n, len -= n;
        for (uint32_t i = 0; i < s->stop && len >= n && memcmp(p + len - n, s->text.data, n) == 0; i++) len -= n;
        qd_buf_add(out, p, len);
        return;
    }
    const char *content = s->kind == QD_DECODE_METASPACE ? " " : s->content.data;
    size_t content_len = s->kind == QD_DECODE_METASPACE ? 1 : s->content.len;
    for (size_t at = 0; at < len;) {
        const char *found = memmem(p + at, len - at, s->text.data, n);
        size_t end = found != NULL ? (size_t)(found - p) : len;
        qd_buf_add(out, p + at, end - at);
        bool dropped = s->kind == QD_DECODE_METASPACE && first && s->prepended && end == 0;
        if (found != NULL && !dropped) qd_buf_add(out, content, content_len);
        at = end + n;
    }
}

/* All tokens together: the bytes that their characters stand for; a token with another character as it is. */
static void byte_level(const list *l, qd_buf *out)
{
    qd_buf bytes = {0};
    for (size_t i = 0; i < l->n; i++) {
        size_t start = start_of(l, i), before = bytes.len;
        for (size_t at = start, n; at < l->ends[i]; at += n) {
            int byte = qd_byte_of_char(qd_utf8_get(l->text.data + at, &n));
            char c = (char)byte;
            if (byte >= 0) {
                qd_buf_add(&bytes, &c, 1);
                continue;
            }
            bytes.len = before;
            qd_buf_add(&bytes, l->text.data + start, l->ends[i] - start);
            break;
        }
    }
    if (bytes.len != 0) add_lossy(out, bytes.data, bytes.len);
    out->failed = out->failed || bytes.failed;
    qd_buf_done(&bytes);
}

static void do_step(const qd_decode_step *s, list *l)
{
    qd_buf out = {0};
    qd_buf_str(&out, "");
    switch (s->kind) {
    case QD_DECODE_FUSE:
        break;
    case QD_DECODE_BYTE_LEVEL:
        byte_level(l, &out);
        break;
    case QD_DECODE_BYTE_FALLBACK:
        byte_fallback(l, &out);
        break;
    case QD_DECODE_REPLACE:
    case QD_DECODE_STRIP:
    case QD_DECODE_METASPACE:
        for (size_t i = 0, start = 0, end; i < l->n; i++, start = end) {
            end = l->ends[i];
            change_token(s, i == 0, l->text.data + start, end - start, &out);
            l->ends[i] = out.len;
        }
        break;
    }
    if (s->kind == QD_DECODE_FUSE) {
        qd_buf_done(&out);
    } else {
        qd_buf_done(&l->text);
        l->text = out;
    }
    if ((s->kind == QD_DECODE_FUSE || s->kind == QD_DECODE_BYTE_LEVEL) && l->n > 0) {
        l->n = 1;
        l->ends[0] = l->text.len;
    }
}

qd_code qd_tokenizer_decode(const qd_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, qd_buf *out,
                            qd_err *err)
{
    list l = {.ends = qd_calloc(n, sizeof *l.ends)};
    qd_code rc = QD_OK;
    if (l.ends == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %zu tokens", n);
    qd_buf_str(&l.text, "");
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= t->vocab.n_ids || t->vocab.tokens[ids[i]].s == NULL) {
            rc = qd_fail(err, QD_E_INPUT, "token %zu: id %d is not in the vocabulary", i, (int)ids[i]);
            goto out;
        }
        if (skip_special && t->added[ids[i]].special) continue;
        const qd_token *token = &t->added[ids[i]].decoded;
        if (token->s == NULL) token = &t->vocab.tokens[ids[i]];
        if (t->n_decoder == 0 && l.n != 0) qd_buf_str(&l.text, " "); /* without a decoder the tokens are listed */
        qd_buf_add(&l.text, token->s, token->len);
        l.ends[l.n++] = l.text.len;
    }
    for (uint32_t i = 0; i < t->n_decoder && !l.text.failed; i++) do_step(&t->decoder[i], &l);
    QD_TRY(qd_buf_check(&l.text, err));
    qd_buf_add(out, l.text.data, l.text.len);
    rc = qd_buf_check(out, err);
out:
    qd_free(l.ends);
    qd_buf_done(&l.text);
    return rc;
}
