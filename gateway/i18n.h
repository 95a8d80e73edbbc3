/* i18n.h -- the language of a reply, and texts in both with places for values. */
#ifndef QD_GATEWAY_I18N_H
#define QD_GATEWAY_I18N_H

#include "catalog/template.h"
#include "gateway/http.h"

typedef enum qd_lang {
    QD_ZH,
    QD_EN
} qd_lang;

/* Query lang (an unsupported one is zh-CN) beats Accept-Language (the supported tag of the highest q, the first of
 * equals; "en", "zh" and whatever begins with them and '-') beats zh-CN. Case is ignored. */
qd_lang qd_lang_of(const qd_http_request *r);

static inline const char *qd_in(qd_lang lang, qd_text t)
{
    return lang == QD_EN ? t.en : t.zh;
}

/* A row of an API's table of errors: what is answered, in text with places for values. */
typedef struct qd_error_row {
    int status;
    const char *code;
    qd_text text;
} qd_error_row;

enum {
    QD_FILL_ARGS_MAX = 3,
    QD_FILL_ARG_CHARS = 128 /* of a value that are shown, in code points; more end in "..." */
};

/* Appends text with {0}, {1}, {2} replaced by args (NULL: "") and bytes that are not UTF-8 by U+FFFD. */
void qd_fill(qd_buf *ret, const char *text, const char *const args[QD_FILL_ARGS_MAX]);

/* Code points of valid UTF-8. */
size_t qd_chars(const char *s);
/* No control characters of ASCII; lines: but tabs and newlines. */
bool qd_text_ok(const char *s, bool lines);

#endif
