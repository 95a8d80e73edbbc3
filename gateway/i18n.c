#include "gateway/i18n.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* -1: neither. */
static int lang_of_tag(const char *tag, size_t n)
{
    if (n < 2 || (n > 2 && tag[2] != '-')) return -1;
    return strncasecmp(tag, "en", 2) == 0 ? QD_EN : strncasecmp(tag, "zh", 2) == 0 ? QD_ZH : -1;
}

/* q of "; q=0.8" in thousandths; 1000 where there is none, 0 where it is not understood. */
static int quality_of(const char *s, size_t n)
{
    const char *semicolon = memchr(s, ';', n);
    if (semicolon == NULL) return 1000;
    const char *p = semicolon + 1, *end = s + n;
    while (p < end && *p == ' ') p++;
    if (end - p < 3 || strncasecmp(p, "q=", 2) != 0) return 0;
    p += 2;
    int v = *p == '1' ? 1000 : 0;
    if (++p < end && *p == '.')
        for (int scale = 100; ++p < end && *p >= '0' && *p <= '9' && scale > 0; scale /= 10) v += (*p - '0') * scale;
    return v > 1000 ? 1000 : v;
}

static qd_lang lang_of_header(const char *s)
{
    int best = 0;
    qd_lang lang = QD_ZH;
    while (*s != '\0') {
        s += strspn(s, " \t,");
        size_t n = strcspn(s, ","), tag = strcspn(s, ",; \t");
        int q = quality_of(s, n), found = lang_of_tag(s, tag);
        if (found >= 0 && q > best) {
            best = q;
            lang = (qd_lang)found;
        }
        s += n;
    }
    return lang;
}

qd_lang qd_lang_of(const qd_http_request *r)
{
    const char *query = qd_http_query(r, "lang"), *header = qd_http_header(r, "Accept-Language");
    if (query != NULL) return strcasecmp(query, "en-US") == 0 ? QD_EN : QD_ZH;
    return header == NULL ? QD_ZH : lang_of_header(header);
}

static void add_value(qd_buf *ret, const char *s)
{
    for (size_t chars = 0; *s != '\0'; chars++) {
        size_t n = qd_utf8_valid(s, 4); /* the NUL ends every sequence */
        if (chars == QD_FILL_ARG_CHARS) {
            qd_buf_str(ret, "...");
            return;
        }
        qd_buf_add(ret, n == 0 ? "\xef\xbf\xbd" : s, n == 0 ? 3 : n);
        s += n == 0 ? 1 : n;
    }
}

void qd_fill(qd_buf *ret, const char *text, const char *const args[QD_FILL_ARGS_MAX])
{
    while (*text != '\0') {
        size_t n = strcspn(text, "{");
        qd_buf_add(ret, text, n);
        text += n;
        if (*text == '\0') break;
        unsigned i = (unsigned)(text[1] - '0');
        if (i < QD_FILL_ARGS_MAX && text[2] == '}') {
            add_value(ret, args[i] == NULL ? "" : args[i]);
            text += 3;
        } else {
            qd_buf_add(ret, text++, 1);
        }
    }
}

size_t qd_chars(const char *s)
{
    size_t n = 0;
    for (; *s != '\0'; s += qd_utf8_len(*s)) n++;
    return n;
}

bool qd_text_ok(const char *s, bool lines)
{
    for (; *s != '\0'; s++)
        if (((unsigned char)*s < 0x20 && !(lines && (*s == '\t' || *s == '\n'))) || *s == 0x7f) return false;
    return true;
}
