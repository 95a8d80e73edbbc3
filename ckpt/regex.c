#include "ckpt/regex.h"

#include "base/buf.h"
#include "base/mem.h"

#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum {
    PATTERN_BYTES_MAX = 64 << 10,
    NAME_BYTES_MAX = 32,
    STEPS_MAX = 1 << 20,
    STEPS_PER_BYTE = 4, /* of one match; a sane expression takes a step a byte of a long run */
    HEAP_KIB_MAX = 64 << 10,
    JIT_STACK_BYTES = 1 << 20
};

struct qd_regex {
    pcre2_general_context *memory;
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    pcre2_jit_stack *stack;
    bool jit;
    char *what; /* owned copy */
};

static void *alloc(size_t n, void *unused)
{
    (void)unused;
    return qd_malloc(n);
}

static void release(void *p, void *unused)
{
    (void)unused;
    qd_free(p);
}

/* Word characters as Oniguruma has them. */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

static qd_code refuse(const char *what, const char *pattern, size_t n, qd_err *err)
{
    return qd_fail(err, QD_E_UNSUPPORTED,
                   "%s: quantd does not read \"%.*s\" in a regular expression; give --calib token ids in a safetensors "
                   "file",
                   what, (int)n, pattern);
}

/* \p{..} at p: one- and two-letter categories are the same; longer names are scripts, which PCRE2 would take as script
 * extensions. Returns its length, 0 when it is none we know. */
static size_t translate_property(const char *p, size_t left, qd_buf *out)
{
    if (left < 3) return 0;
    if (p[2] != '{') {
        qd_buf_add(out, p, 3);
        return 3;
    }
    size_t name = p[3 < left ? 3 : 2] == '^' ? 4 : 3, end = name;
    while (end < left && end - name < NAME_BYTES_MAX && p[end] != '}') end++;
    if (end >= left || p[end] != '}' || end == name) return 0;
    bool negated = (p[1] == 'P') != (name == 4);
    qd_buf_printf(out, "\\%c{%s%.*s}", negated ? 'P' : 'p', end - name > 2 ? "sc:" : "", (int)(end - name), p + name);
    return end + 1;
}

/* The escape at p ("\s"): appends what PCRE2 calls it, returns its length; 0 when the dialects differ. */
static size_t translate_escape(const char *p, size_t left, bool in_class, qd_buf *out)
{
    if (left < 2) return 0;
    switch (p[1]) {
    case 's': /* PCRE2's own \s has U+180E too */
        qd_buf_str(out, "\\p{White_Space}");
        return 2;
    case 'S':
        qd_buf_str(out, "\\P{White_Space}");
        return 2;
    case 'd':
        qd_buf_str(out, "\\p{Nd}");
        return 2;
    case 'D':
        qd_buf_str(out, "\\P{Nd}");
        return 2;
    case 'w':
        qd_buf_str(out, in_class ? WORD : "[" WORD "]");
        return 2;
    case 'W':
        if (in_class) return 0;
        qd_buf_str(out, "[^" WORD "]");
        return 2;
    case 'v':
        qd_buf_str(out, "\\x0b");
        return 2;
    case 'u':
        if (left < 6) return 0;
        qd_buf_printf(out, "\\x{%.4s}", p + 2);
        return 6;
    case 'p':
    case 'P':
        return translate_property(p, left, out);
    default:
        break;
    }
    bool letter = (p[1] >= 'a' && p[1] <= 'z') || (p[1] >= 'A' && p[1] <= 'Z');
    if (letter && strchr("nrtfaexAz", p[1]) == NULL) return 0;
    if (p[1] == '0' || (p[1] & 0x80) != 0) return 0;
    qd_buf_add(out, p, 2);
    return 2;
}

/* What is not an escape: one character, or a construct that the dialects read differently. */
static size_t translate_plain(const char *p, size_t left, bool *in_class, bool class_start, qd_buf *out)
{
    if (*in_class) {
        if (left >= 2 && (memcmp(p, "&&", 2) == 0 || (p[0] == '[' && p[1] != ':'))) return 0; /* sets of sets */
        if (*p == ']' && !class_start) *in_class = false;
    } else {
        if (left >= 2 && memcmp(p, "(*", 2) == 0) return 0;
        if (left >= 2 && memcmp(p, "}+", 2) == 0) return 0; /* possessive there, a repeat of the repeat here */
        if (left >= 2 && memcmp(p, "{,", 2) == 0) {
            qd_buf_str(out, "{0,");
            return 2;
        }
        *in_class = *p == '[';
    }
    qd_buf_add(out, p, 1);
    return 1;
}

static qd_code translate(const char *pattern, size_t len, const char *what, qd_buf *out, qd_err *err)
{
    bool in_class = false, class_start = false;
    for (size_t at = 0; at < len;) {
        bool was_in_class = in_class;
        size_t n = pattern[at] == '\\' ? translate_escape(pattern + at, len - at, in_class, out)
                                       : translate_plain(pattern + at, len - at, &in_class, class_start, out);
        if (n == 0) return refuse(what, pattern + at, len - at < 8 ? len - at : 8, err);
        class_start = in_class && (!was_in_class || (class_start && pattern[at] == '^'));
        at += n;
    }
    return qd_buf_check(out, err);
}

static qd_code compile(qd_regex *r, const char *pattern, size_t len, bool literal, const char *what, qd_err *err)
{
    qd_code rc = QD_OK;
    int problem = 0;
    PCRE2_SIZE where = 0;
    qd_buf text = {0};
    pcre2_compile_context *how = pcre2_compile_context_create(r->memory);
    if (how == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", what);
        goto out;
    }
    (void)pcre2_set_newline(how, PCRE2_NEWLINE_LF);
    if (literal)
        qd_buf_add(&text, pattern, len);
    else
        QD_TRY(translate(pattern, len, what, &text, err));
    QD_TRY(qd_buf_check(&text, err));
    uint32_t flags =
        literal ? PCRE2_LITERAL | PCRE2_UTF : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    r->code = pcre2_compile((PCRE2_SPTR)text.data, text.len, flags, &problem, &where, how);
    if (r->code == NULL) {
        PCRE2_UCHAR said[128] = "";
        (void)pcre2_get_error_message(problem, said, sizeof said);
        rc = problem == PCRE2_ERROR_HEAP_FAILED
                 ? qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", what)
                 : qd_fail(err, QD_E_INPUT, "%s: no regular expression that quantd can read, at byte %zu: %s", what,
                           (size_t)where, (const char *)said);
    }
out:
    pcre2_compile_context_free(how);
    qd_buf_done(&text);
    return rc;
}

qd_code qd_regex_new(const char *pattern, size_t len, bool literal, const char *what, qd_regex **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_regex *r = NULL;
    if (len == 0 || len > PATTERN_BYTES_MAX)
        return qd_fail(err, QD_E_INPUT, "%s: expected an expression of 1 to %d bytes, found %zu", what,
                       PATTERN_BYTES_MAX, len);
    r = qd_calloc(1, sizeof *r);
    if (r == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", what);
    r->what = qd_strdup(what);
    r->memory = pcre2_general_context_create(alloc, release, NULL);
    if (r->memory == NULL || r->what == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", what);
        goto out;
    }
    QD_TRY(compile(r, pattern, len, literal, what, err));
    r->match = pcre2_match_data_create(1, r->memory);
    r->limits = pcre2_match_context_create(r->memory);
    r->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_BYTES, r->memory);
    if (r->match == NULL || r->limits == NULL || r->stack == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", what);
        goto out;
    }
    (void)pcre2_set_heap_limit(r->limits, HEAP_KIB_MAX);
    pcre2_jit_stack_assign(r->limits, NULL, r->stack);
    r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0; /* without it the interpreter does the same */
    *ret = r;
    r = NULL;
out:
    qd_regex_free(r);
    return rc;
}

void qd_regex_free(qd_regex *r)
{
    if (r == NULL) return;
    pcre2_jit_stack_free(r->stack);
    pcre2_match_context_free(r->limits);
    pcre2_match_data_free(r->match);
    pcre2_code_free(r->code);
    pcre2_general_context_free(r->memory);
    qd_free(r->what);
    qd_free(r);
}

qd_code qd_regex_next(qd_regex *r, const char *text, size_t len, size_t from, bool *ret_found, size_t *ret_start,
                      size_t *ret_end, qd_err *err)
{
    PCRE2_SPTR s = (PCRE2_SPTR)text;
    uint64_t steps = STEPS_MAX + STEPS_PER_BYTE * (uint64_t)len;
    (void)pcre2_set_match_limit(r->limits, (uint32_t)qd_min_u64(steps, UINT32_MAX));
    int n = r->jit ? pcre2_jit_match(r->code, s, len, from, PCRE2_NO_UTF_CHECK, r->match, r->limits)
                   : pcre2_match(r->code, s, len, from, PCRE2_NO_UTF_CHECK, r->match, r->limits);
    if (n == PCRE2_ERROR_NOMATCH) {
        *ret_found = false;
        return QD_OK;
    }
    if (n == PCRE2_ERROR_NOMEMORY) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", r->what);
    if (n < 0)
        return qd_fail(err, QD_E_INPUT,
                       "%s: the regular expression needs too many steps or too much memory at byte %zu of a piece of "
                       "%zu bytes",
                       r->what, from, len);
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(r->match);
    *ret_found = true;
    *ret_start = at[0];
    *ret_end = at[1];
    return QD_OK;
}
