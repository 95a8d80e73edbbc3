/* tokenizer_steps.c -- tokenizer.json read: normalizer, pre-tokenizer, post-processor, decoder. */
#include "base/json.h"
#include "ckpt/tokenizer_parts.h"

#include <string.h>

enum {
    NESTING_MAX = 8
};

/* GPT-2's words, which ByteLevel cuts with use_regex. */
static const char k_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

typedef struct reader {
    const char *what; /* the file */
    const char *part; /* "normalizer" */
    qd_tokenizer *t;
} reader;

static qd_code not_ours(const reader *r, const char *type, qd_err *err)
{
    return qd_fail(err, QD_E_UNSUPPORTED, "%s: quantd has no %s %.60s; " QD_TOKENIZER_WAY_OUT, r->what, r->part, type);
}

static qd_code too_many(const reader *r, qd_err *err)
{
    return qd_fail(err, QD_E_INPUT, "%s: %s: too many steps, or nested too deep", r->what, r->part);
}

typedef qd_code (*read_fn)(const reader *r, const json_t *o, const char *type, qd_err *err);

/* One component, or each of a Sequence's, whose list is named `list`. */
static qd_code read_each(const reader *r, const json_t *o, const char *list, int depth, read_fn read, qd_err *err)
{
    const char *type;
    json_t *items, *item;
    size_t i;
    if (o == NULL || json_is_null(o)) return QD_OK;
    if (depth > NESTING_MAX) return too_many(r, err);
    if (!json_is_object(o))
        return qd_fail(err, QD_E_INPUT, "%s: %s: expected an object, found %s", r->what, r->part, qd_json_type(o));
    qd_code rc = qd_json_str(o, "type", r->what, &type, err);
    if (rc != QD_OK || strcmp(type, "Sequence") != 0) return rc != QD_OK ? rc : read(r, o, type, err);
    rc = qd_json_arr_or(o, list, r->what, &items, err);
    if (rc != QD_OK) return rc;
    json_array_foreach(items, i, item)
    {
        rc = read_each(r, item, list, depth + 1, read, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

static qd_code read_text(const reader *r, const json_t *o, const char *key, qd_buf *ret, qd_err *err)
{
    const char *s;
    qd_code rc = qd_json_str(o, key, r->what, &s, err);
    if (rc != QD_OK) return rc;
    qd_buf_str(ret, s);
    return qd_buf_check(ret, err);
}

/* "pattern": {"Regex": ..} or {"String": ..}. */
static qd_code read_pattern(const reader *r, const json_t *o, qd_regex **ret, qd_err *err)
{
    const json_t *pattern = json_object_get(o, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *literal = json_object_get(pattern, "String");
    if (!json_is_string(regex) && !json_is_string(literal))
        return qd_fail(err, QD_E_INPUT, "%s: %s: expected a \"pattern\" with \"Regex\" or \"String\"", r->what,
                       r->part);
    const json_t *s = json_is_string(regex) ? regex : literal;
    return qd_regex_new(json_string_value(s), json_string_length(s), s == literal, r->what, ret, err);
}

static qd_code read_normalizer(const reader *r, const json_t *o, const char *type, qd_err *err)
{
    static const struct {
        const char *type;
        qd_normal_kind kind;
    } kinds[] = {{"NFC", QD_NORMAL_NFC},
                 {"NFD", QD_NORMAL_NFD},
                 {"NFKC", QD_NORMAL_NFKC},
                 {"NFKD", QD_NORMAL_NFKD},
                 {"Prepend", QD_NORMAL_PREPEND},
                 {"Replace", QD_NORMAL_REPLACE},
                 {"Lowercase", QD_NORMAL_LOWERCASE}};
    qd_normalizer *n = &r->t->normalizer;
    size_t k = 0;
    while (k < sizeof kinds / sizeof kinds[0] && strcmp(kinds[k].type, type) != 0) k++;
    if (k == sizeof kinds / sizeof kinds[0]) return not_ours(r, type, err);
    if (n->n_steps == QD_NORMALIZER_STEPS_MAX) return too_many(r, err);
    qd_normal_step *s = &n->steps[n->n_steps++];
    s->kind = kinds[k].kind;
    if (s->kind == QD_NORMAL_PREPEND) return read_text(r, o, "prepend", &s->text, err);
    if (s->kind != QD_NORMAL_REPLACE) return QD_OK;
    qd_code rc = read_text(r, o, "content", &s->text, err);
    return rc == QD_OK ? read_pattern(r, o, &s->pattern, err) : rc;
}

/* A new step, NULL with *rc set; after ByteLevel there is none, since its words are bytes. */
static qd_cut_step *new_cut(const reader *r, qd_cut_kind kind, qd_code *rc, qd_err *err)
{
    qd_pretokenizer *p = &r->t->pretokenizer;
    *rc = r->t->bpe.byte_level             ? not_ours(r, "after ByteLevel", err)
          : p->n_steps == QD_CUT_STEPS_MAX ? too_many(r, err)
                                           : QD_OK;
    if (*rc != QD_OK) return NULL;
    qd_cut_step *s = &p->steps[p->n_steps++];
    s->kind = kind;
    return s;
}

static qd_code new_split(const reader *r, const char *pattern, bool literal, qd_cut_behavior behavior, bool invert,
                         qd_err *err)
{
    qd_code rc;
    qd_cut_step *s = new_cut(r, QD_CUT_SPLIT, &rc, err);
    if (s == NULL) return rc;
    s->behavior = behavior;
    s->invert = invert;
    return qd_regex_new(pattern, strlen(pattern), literal, r->what, &s->pattern, err);
}

static qd_code read_behavior(const reader *r, const json_t *o, qd_cut_behavior *ret, qd_err *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *s;
    qd_code rc = qd_json_str_or(o, "behavior", r->what, "Isolated", &s, err);
    if (rc != QD_OK) return rc;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], s) == 0) {
            *ret = (qd_cut_behavior)i;
            return QD_OK;
        }
    return qd_fail(err, QD_E_INPUT, "%s: %s: unknown behavior \"%.40s\"", r->what, r->part, s);
}

static qd_code read_byte_level(const reader *r, const json_t *o, qd_err *err)
{
    bool prefix, regex;
    qd_code rc = QD_OK;
    QD_TRY(qd_json_bool_or(o, "add_prefix_space", r->what, true, &prefix, err));
    QD_TRY(qd_json_bool_or(o, "use_regex", r->what, true, &regex, err));
    if (prefix) {
        qd_cut_step *s = new_cut(r, QD_CUT_PREFIX, &rc, err);
        if (s == NULL) goto out;
        qd_buf_str(&s->text, " ");
        QD_TRY(qd_buf_check(&s->text, err));
    }
    if (regex) QD_TRY(new_split(r, k_gpt2, false, QD_CUT_ISOLATED, false, err));
    if (r->t->bpe.byte_level) rc = not_ours(r, "after ByteLevel", err);
    r->t->bpe.byte_level = true;
out:
    return rc;
}

static qd_code read_scheme(const reader *r, const json_t *o, qd_prepend_scheme *ret, qd_err *err)
{
    const char *scheme;
    bool prefix;
    qd_code rc = QD_OK;
    QD_TRY(qd_json_bool_or(o, "add_prefix_space", r->what, true, &prefix, err)); /* older files have this one */
    QD_TRY(qd_json_str_or(o, "prepend_scheme", r->what, prefix ? "always" : "never", &scheme, err));
    *ret = strcmp(scheme, "always") == 0  ? QD_PREPEND_ALWAYS
           : strcmp(scheme, "first") == 0 ? QD_PREPEND_FIRST
                                          : QD_PREPEND_NEVER;
    if (*ret == QD_PREPEND_NEVER && strcmp(scheme, "never") != 0)
        rc = qd_fail(err, QD_E_INPUT, "%s: %s: unknown prepend_scheme \"%.40s\"", r->what, r->part, scheme);
out:
    return rc;
}

static qd_code read_metaspace(const reader *r, const json_t *o, qd_err *err)
{
    bool split;
    qd_code rc;
    qd_cut_step *s = new_cut(r, QD_CUT_METASPACE, &rc, err);
    if (s == NULL) return rc;
    QD_TRY(read_text(r, o, "replacement", &s->text, err));
    QD_TRY(read_scheme(r, o, &s->scheme, err));
    QD_TRY(qd_json_bool_or(o, "split", r->what, true, &split, err));
    if (split) QD_TRY(new_split(r, s->text.data, true, QD_CUT_WITH_NEXT, false, err));
out:
    return rc;
}

static qd_code read_split(const reader *r, const json_t *o, qd_err *err)
{
    qd_code rc;
    qd_cut_step *s = new_cut(r, QD_CUT_SPLIT, &rc, err);
    if (s == NULL) return rc;
    QD_TRY(read_behavior(r, o, &s->behavior, err));
    QD_TRY(qd_json_bool_or(o, "invert", r->what, false, &s->invert, err));
    QD_TRY(read_pattern(r, o, &s->pattern, err));
out:
    return rc;
}

static qd_code read_pretokenizer(const reader *r, const json_t *o, const char *type, qd_err *err)
{
    if (strcmp(type, "ByteLevel") == 0) return read_byte_level(r, o, err);
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(r, o, err);
    if (strcmp(type, "Split") == 0) return read_split(r, o, err);
    if (strcmp(type, "WhitespaceSplit") == 0) return new_split(r, "\\s+", false, QD_CUT_REMOVED, false, err);
    if (strcmp(type, "Whitespace") == 0)
        return new_split(r, "[\\w\\x{200c}\\x{200d}]+|[^\\w\\x{200c}\\x{200d}\\s]+", false, QD_CUT_REMOVED, true, err);
    if (strcmp(type, "Digits") == 0) {
        bool each;
        qd_code rc = qd_json_bool_or(o, "individual_digits", r->what, false, &each, err);
        return rc != QD_OK ? rc : new_split(r, "\\p{N}", false, each ? QD_CUT_ISOLATED : QD_CUT_CONTIGUOUS, false, err);
    }
    if (strcmp(type, "Punctuation") == 0) {
        qd_cut_behavior behavior;
        qd_code rc = read_behavior(r, o, &behavior, err);
        return rc != QD_OK ? rc : new_split(r, "[\\p{P}$+<=>^`|~]", false, behavior, false, err);
    }
    return not_ours(r, type, err);
}

static qd_code read_template_id(const reader *r, const json_t *specials, const char *name, int32_t *to, uint32_t *n,
                                qd_err *err)
{
    const json_t *ids = json_object_get(json_object_get(specials, name), "ids");
    json_t *id;
    size_t i;
    if (!json_is_array(ids))
        return qd_fail(err, QD_E_INPUT, "%s: %s: \"%.40s\" is not among its special_tokens", r->what, r->part, name);
    json_array_foreach(ids, i, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= QD_VOCAB_IDS_MAX)
            return qd_fail(err, QD_E_INPUT, "%s: %s: \"%.40s\": expected token ids", r->what, r->part, name);
        if (*n == QD_TEMPLATE_IDS_MAX) return too_many(r, err);
        to[(*n)++] = (int32_t)json_integer_value(id);
    }
    return QD_OK;
}

static qd_code read_template(const reader *r, const json_t *o, qd_err *err)
{
    json_t *single, *item;
    size_t i;
    bool after = false;
    qd_tokenizer *t = r->t;
    qd_code rc = qd_json_arr_or(o, "single", r->what, &single, err);
    json_array_foreach(single, i, item)
    {
        if (rc != QD_OK) break;
        const json_t *special = json_object_get(item, "SpecialToken");
        if (special == NULL) {
            if (after || json_object_get(item, "Sequence") == NULL)
                return qd_fail(err, QD_E_INPUT, "%s: %s: expected one \"Sequence\"", r->what, r->part);
            after = true;
            continue;
        }
        const char *name;
        rc = qd_json_str(special, "id", r->what, &name, err);
        if (rc == QD_OK)
            rc = read_template_id(r, json_object_get(o, "special_tokens"), name, after ? t->after : t->before,
                                  after ? &t->n_after : &t->n_before, err);
    }
    return rc;
}

static qd_code read_post_processor(const reader *r, const json_t *o, const char *type, qd_err *err)
{
    if (strcmp(type, "ByteLevel") == 0) return QD_OK; /* offsets only */
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(r, o, err);
    size_t n = strnlen(type, sizeof r->t->post_processor - 1);
    memcpy(r->t->post_processor, n != 0 ? type : "?", n != 0 ? n : 1); /* refused where it would be used */
    return QD_OK;
}

static qd_code read_decoder(const reader *r, const json_t *o, const char *type, qd_err *err)
{
    qd_tokenizer *t = r->t;
    uint64_t start = 0, stop = 0;
    qd_prepend_scheme scheme;
    qd_code rc = QD_OK;
    if (t->n_decoder == QD_DECODE_STEPS_MAX) return too_many(r, err);
    qd_decode_step *s = &t->decoder[t->n_decoder++];
    if (strcmp(type, "ByteLevel") == 0) {
        s->kind = QD_DECODE_BYTE_LEVEL;
    } else if (strcmp(type, "ByteFallback") == 0) {
        s->kind = QD_DECODE_BYTE_FALLBACK;
    } else if (strcmp(type, "Fuse") == 0) {
        s->kind = QD_DECODE_FUSE;
    } else if (strcmp(type, "Replace") == 0) {
        const char *from;
        s->kind = QD_DECODE_REPLACE;
        if (json_object_get(json_object_get(o, "pattern"), "Regex") != NULL)
            return not_ours(r, "Replace by Regex", err);
        QD_TRY(qd_json_str(json_object_get(o, "pattern"), "String", r->what, &from, err));
        qd_buf_str(&s->text, from);
        QD_TRY(qd_buf_check(&s->text, err));
        QD_TRY(read_text(r, o, "content", &s->content, err));
    } else if (strcmp(type, "Strip") == 0) {
        s->kind = QD_DECODE_STRIP;
        QD_TRY(read_text(r, o, "content", &s->text, err));
        QD_TRY(qd_json_u64_or(o, "start", r->what, 0, UINT32_MAX, &start, err));
        QD_TRY(qd_json_u64_or(o, "stop", r->what, 0, UINT32_MAX, &stop, err));
        s->start = (uint32_t)start;
        s->stop = (uint32_t)stop;
    } else if (strcmp(type, "Metaspace") == 0) {
        s->kind = QD_DECODE_METASPACE;
        QD_TRY(read_text(r, o, "replacement", &s->text, err));
        QD_TRY(read_scheme(r, o, &scheme, err));
        s->prepended = scheme != QD_PREPEND_NEVER;
    } else {
        rc = not_ours(r, type, err);
    }
out:
    return rc;
}

qd_code qd_tokenizer_read_steps(const json_t *root, const char *what, qd_tokenizer *t, qd_err *err)
{
    static const struct {
        const char *part, *list;
        read_fn read;
    } parts[] = {{"normalizer", "normalizers", read_normalizer},
                 {"pre_tokenizer", "pretokenizers", read_pretokenizer},
                 {"post_processor", "processors", read_post_processor},
                 {"decoder", "decoders", read_decoder}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        reader r = {what, parts[i].part, t};
        qd_code rc = read_each(&r, json_object_get(root, parts[i].part), parts[i].list, 0, parts[i].read, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}
