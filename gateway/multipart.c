#include "gateway/multipart.h"

#include "gateway/http.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Steps to the value of the next parameter of a header, "; name=value" or "; name="quoted value"", unescaped into ret.
 * False: no further one, or (*s not at the end) a malformed one. */
static bool next_param(const char **s, char name[32], char ret[QD_MULTIPART_NAME_BYTES])
{
    const char *p = *s + strspn(*s, " \t");
    size_t n = 0;
    if (*p != ';') return false;
    p += 1 + strspn(p + 1, " \t");
    n = strcspn(p, "=; \t\"");
    if (n == 0 || n >= 32 || p[n] != '=') return false;
    memcpy(name, p, n);
    name[n] = '\0';
    p += n + 1;
    n = 0;
    if (*p == '"') {
        for (p++; *p != '"'; p++) {
            if (*p == '\\' && (p[1] == '"' || p[1] == '\\')) p++;
            if (*p == '\0' || n + 1 == QD_MULTIPART_NAME_BYTES) return false;
            ret[n++] = *p;
        }
        p++;
    } else {
        for (; *p != '\0' && strchr("; \t\"", *p) == NULL; p++) {
            if (n + 1 == QD_MULTIPART_NAME_BYTES) return false;
            ret[n++] = *p;
        }
    }
    ret[n] = '\0';
    *s = p + strspn(p, " \t");
    return true;
}

static bool is_boundary(const char *s)
{
    static const char ok[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'()+_,-./:=? ";
    size_t n = strlen(s);
    return n >= 1 && n <= 70 && strspn(s, ok) == n && s[n - 1] != ' ';
}

bool qd_multipart_begin(qd_multipart *m, const char *content_type, const qd_multipart_ops *ops, void *ctx)
{
    static const char type[] = "multipart/form-data";
    char name[32], value[QD_MULTIPART_NAME_BYTES];
    memset(m, 0, sizeof *m);
    m->ops = ops;
    m->ctx = ctx;
    m->state = QD_MULTIPART_BROKEN;
    if (content_type == NULL || strncasecmp(content_type, type, sizeof type - 1) != 0) return false;
    const char *s = content_type + sizeof type - 1;
    while (next_param(&s, name, value)) {
        if (strcasecmp(name, "boundary") != 0) continue;
        if (m->delimiter_n != 0 || !is_boundary(value)) return false;
        m->delimiter_n = (size_t)snprintf(m->delimiter, sizeof m->delimiter, "\r\n--%.70s", value);
    }
    if (*s != '\0' || m->delimiter_n == 0) return false;
    m->state = QD_MULTIPART_DATA;
    m->matched = 2; /* as if a line had ended before the first boundary */
    return true;
}

bool qd_multipart_over(const qd_multipart *m)
{
    return m->state == QD_MULTIPART_OVER;
}

/* filename*=UTF-8''... of RFC 5987. */
static bool decode_extended(char value[QD_MULTIPART_NAME_BYTES])
{
    char *text = strchr(value, '\'');
    text = text == NULL ? NULL : strchr(text + 1, '\'');
    if (text == NULL || strncasecmp(value, "UTF-8'", 6) != 0) return false;
    return qd_http_decode(text + 1, strlen(text + 1), value);
}

static bool take_disposition(qd_multipart *m, const char *s)
{
    char param[32], value[QD_MULTIPART_NAME_BYTES];
    char name[QD_MULTIPART_NAME_BYTES] = "", file[QD_MULTIPART_NAME_BYTES] = "";
    bool named = false, filed = false, extended = false;
    static const char kind[] = "form-data";
    s += strspn(s, " \t");
    if (strncasecmp(s, kind, sizeof kind - 1) != 0) return false;
    s += sizeof kind - 1;
    while (next_param(&s, param, value)) {
        if (strcasecmp(param, "name") == 0) {
            if (named) return false;
            named = true;
            (void)strcpy(name, value);
        } else if (strcasecmp(param, "filename") == 0) {
            if (filed) return false;
            filed = true;
            if (!extended) (void)strcpy(file, value);
        } else if (strcasecmp(param, "filename*") == 0) {
            if (extended || !decode_extended(value)) return false;
            extended = true;
            (void)strcpy(file, value);
        }
    }
    if (*s != '\0' || !named) return false;
    m->in_part = true;
    return m->ops->begin(m->ctx, name, filed || extended ? file : NULL);
}

/* The head of a part is there, ended by an empty line. */
static bool take_head(qd_multipart *m)
{
    static const char disposition[] = "content-disposition:";
    const char *found = NULL;
    m->head[m->head_n - 2] = '\0';                      /* the empty line's CR */
    if (strlen(m->head) != m->head_n - 2) return false; /* a NUL */
    for (char *line = m->head, *end = NULL; *line != '\0'; line = end + 2) {
        end = strstr(line, "\r\n");
        if (end == NULL) return false;
        *end = '\0';
        for (const char *c = line; *c != '\0'; c++)
            if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f) return false;
        if (strncasecmp(line, disposition, sizeof disposition - 1) != 0) continue;
        if (found != NULL) return false;
        found = line + sizeof disposition - 1;
    }
    m->head_n = 0;
    m->state = QD_MULTIPART_DATA;
    m->matched = 0;
    return found != NULL && take_disposition(m, found);
}

static bool take_head_byte(qd_multipart *m, char c)
{
    if (m->head_n == sizeof m->head) return false;
    m->head[m->head_n++] = c;
    size_t n = m->head_n;
    bool ends = c == '\n' && n >= 2 && m->head[n - 2] == '\r' &&
                (n == 2 || (n >= 4 && m->head[n - 4] == '\r' && m->head[n - 3] == '\n'));
    return !ends || take_head(m);
}

static bool take_boundary_byte(qd_multipart *m, char c)
{
    m->head[m->head_n++] = c;
    if (m->head_n < 2) return c == '\r' || c == '-';
    m->head_n = 0;
    m->state = m->head[0] == '-' ? QD_MULTIPART_OVER : QD_MULTIPART_HEAD;
    return m->head[0] == '-' ? c == '-' : c == '\n';
}

static bool give(qd_multipart *m, const char *data, size_t n)
{
    return n == 0 || (m->in_part && m->ops->data(m->ctx, data, n)); /* no part: text before the first boundary */
}

/* Consumes content up to and including a boundary; *i is where it stands. */
static bool take_data(qd_multipart *m, const char *data, size_t n, size_t *i)
{
    size_t from = *i;
    while (*i < n) {
        if (data[*i] == m->delimiter[m->matched]) {
            if (m->matched == 0 && !give(m, data + from, *i - from)) return false;
            m->matched++;
            (*i)++;
            if (m->matched < m->delimiter_n) continue;
            m->matched = 0;
            m->state = QD_MULTIPART_BOUNDARY;
            bool ok = !m->in_part || m->ops->end(m->ctx);
            m->in_part = false;
            return ok;
        }
        if (m->matched == 0) {
            const char *cr = memchr(data + *i, '\r', n - *i);
            *i = cr != NULL ? (size_t)(cr - data) : n;
            continue;
        }
        if (!give(m, m->delimiter, m->matched)) return false;
        m->matched = 0; /* a CR is at its beginning only: no shorter match is left */
        from = *i;
    }
    return m->matched > 0 || give(m, data + from, *i - from);
}

bool qd_multipart_feed(qd_multipart *m, const char *data, size_t n)
{
    bool ok = m->state != QD_MULTIPART_BROKEN;
    for (size_t i = 0; i < n && ok;) {
        switch (m->state) {
        case QD_MULTIPART_DATA:
            ok = take_data(m, data, n, &i);
            break;
        case QD_MULTIPART_BOUNDARY:
            ok = take_boundary_byte(m, data[i++]);
            break;
        case QD_MULTIPART_HEAD:
            ok = take_head_byte(m, data[i++]);
            break;
        case QD_MULTIPART_OVER: /* what follows the last boundary is nobody's */
            return true;
        case QD_MULTIPART_BROKEN:
            return false;
        }
    }
    if (!ok) m->state = QD_MULTIPART_BROKEN;
    return ok;
}
