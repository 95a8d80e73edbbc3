/* tokenizer_json.c -- tokenizer.json read: the model's vocabulary and merges, the added tokens. */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "ckpt/tokenizer_parts.h"

#include <string.h>

static qd_code wrong(const char *what, const char *where, const char *expected, const json_t *found, qd_err *err)
{
    return qd_fail(err, QD_E_INPUT, "%s: %s: expected %s, found %s", what, where, expected, qd_json_type(found));
}

static qd_code read_vocab(const json_t *model, const char *what, qd_vocab *v, qd_err *err)
{
    json_t *vocab = json_object_get(model, "vocab"), *id;
    const char *name;
    if (!json_is_object(vocab)) return wrong(what, "model.vocab", "an object", vocab, err);
    if (json_object_size(vocab) > QD_VOCAB_IDS_MAX)
        return qd_fail(err, QD_E_INPUT, "%s: model.vocab: expected at most %d tokens, found %zu", what,
                       QD_VOCAB_IDS_MAX, json_object_size(vocab));
    qd_code rc = qd_vocab_init(v, json_object_size(vocab), err);
    json_object_foreach(vocab, name, id)
    {
        if (rc != QD_OK) break;
        if (!json_is_integer(id) || json_integer_value(id) < 0)
            rc = qd_fail(err, QD_E_INPUT, "%s: model.vocab: \"%.40s\": expected a token id", what, name);
        else
            rc = qd_vocab_add(v, name, strlen(name), (uint64_t)json_integer_value(id), what, err);
    }
    return rc;
}

typedef struct pair {
    const char *left, *right;
    size_t left_len, right_len;
} pair;

/* ["a","b"], or "a b" in older files. */
static bool read_pair(const json_t *m, pair *ret)
{
    if (json_is_array(m)) {
        const json_t *left = json_array_get(m, 0), *right = json_array_get(m, 1);
        if (json_array_size(m) != 2 || !json_is_string(left) || !json_is_string(right)) return false;
        *ret = (pair){json_string_value(left), json_string_value(right), json_string_length(left),
                      json_string_length(right)};
        return true;
    }
    const char *s = json_string_value(m), *space = s != NULL ? strchr(s, ' ') : NULL;
    if (space == NULL || strchr(space + 1, ' ') != NULL) return false;
    *ret = (pair){s, space + 1, (size_t)(space - s), strlen(space + 1)};
    return true;
}

static qd_code read_merges(const json_t *model, const char *what, qd_tokenizer *t, qd_err *err)
{
    const json_t *merges = json_object_get(model, "merges");
    qd_buf joined = {0};
    qd_code rc = QD_OK;
    if (!json_is_array(merges)) return wrong(what, "model.merges", "an array", merges, err);
    if (json_array_size(merges) > 2 * (size_t)QD_VOCAB_IDS_MAX)
        return qd_fail(err, QD_E_INPUT, "%s: model.merges: expected at most %d, found %zu", what, 2 * QD_VOCAB_IDS_MAX,
                       json_array_size(merges));
    QD_TRY(qd_bpe_init(&t->bpe, json_array_size(merges), err));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        pair p;
        if (!read_pair(json_array_get(merges, i), &p)) {
            rc = qd_fail(err, QD_E_INPUT, "%s: model.merges[%zu]: expected two tokens", what, i);
            goto out;
        }
        qd_buf_reset(&joined);
        qd_buf_add(&joined, p.left, p.left_len);
        qd_buf_add(&joined, p.right, p.right_len);
        QD_TRY(qd_buf_check(&joined, err));
        int32_t left = qd_vocab_find(&t->vocab, p.left, p.left_len);
        int32_t right = qd_vocab_find(&t->vocab, p.right, p.right_len);
        int32_t id = qd_vocab_find(&t->vocab, joined.data, joined.len);
        if (left < 0 || right < 0 || id < 0 || p.left_len == 0 || p.right_len == 0) {
            rc = qd_fail(err, QD_E_INPUT, "%s: model.merges[%zu]: \"%.40s\" is not in the vocabulary", what, i,
                         left < 0    ? p.left
                         : right < 0 ? p.right
                                     : joined.data);
            goto out;
        }
        qd_bpe_add_merge(&t->bpe, left, right, (uint32_t)i, id);
    }
out:
    qd_buf_done(&joined);
    return rc;
}

static qd_code not_ours(const char *what, const char *where, const char *found, qd_err *err)
{
    return qd_fail(err, QD_E_UNSUPPORTED, "%s: %s: quantd does not read %.60s; " QD_TOKENIZER_WAY_OUT, what, where,
                   found);
}

static qd_code read_model_flags(const json_t *model, const char *what, qd_tokenizer *t, qd_err *err)
{
    const char *prefix, *suffix, *unk;
    double dropout;
    qd_code rc = QD_OK;
    QD_TRY(qd_json_str_or(model, "continuing_subword_prefix", what, "", &prefix, err));
    QD_TRY(qd_json_str_or(model, "end_of_word_suffix", what, "", &suffix, err));
    QD_TRY(qd_json_num_or(model, "dropout", what, 0, &dropout, err));
    QD_TRY(qd_json_str_or(model, "unk_token", what, NULL, &unk, err));
    QD_TRY(qd_json_bool_or(model, "fuse_unk", what, false, &t->bpe.fuse_unk, err));
    QD_TRY(qd_json_bool_or(model, "byte_fallback", what, false, &t->bpe.byte_fallback, err));
    QD_TRY(qd_json_bool_or(model, "ignore_merges", what, false, &t->bpe.ignore_merges, err));
    if (prefix[0] != '\0') rc = not_ours(what, "model.continuing_subword_prefix", prefix, err);
    if (rc == QD_OK && suffix[0] != '\0') rc = not_ours(what, "model.end_of_word_suffix", suffix, err);
    if (rc == QD_OK && dropout != 0) rc = not_ours(what, "model", "dropout", err);
    t->bpe.unk = unk != NULL ? qd_vocab_find(&t->vocab, unk, strlen(unk)) : -1;
    if (unk != NULL && t->bpe.unk < 0) t->bpe.unk = -2;
out:
    return rc;
}

static qd_code read_model(const json_t *root, const char *what, qd_tokenizer *t, qd_err *err)
{
    const json_t *model = json_object_get(root, "model");
    const char *type;
    qd_code rc = QD_OK;
    if (!json_is_object(model)) return wrong(what, "model", "an object", model, err);
    bool merges = json_object_get(model, "merges") != NULL; /* older files do not name the type */
    QD_TRY(qd_json_str_or(model, "type", what, merges ? "BPE" : "of no type", &type, err));
    if (strcmp(type, "BPE") != 0) return not_ours(what, "model", type, err);
    QD_TRY(read_vocab(model, what, &t->vocab, err));
    t->bpe.vocab = &t->vocab;
    QD_TRY(read_model_flags(model, what, t, err));
    QD_TRY(read_merges(model, what, t, err));
out:
    return rc;
}

/* A token that follows the normalizer is looked for as the normalizer leaves it. */
static qd_code add_to_search(qd_tokenizer *t, const char *s, bool normalized, qd_added_token token, qd_err *err)
{
    size_t len = strlen(s);
    if (!normalized) return qd_added_tokens_add(&t->raw, s, len, token, err);
    qd_code rc = qd_normalize(&t->normalizer, s, len, &s, &len, err);
    if (rc != QD_OK) return rc;
    char *copy = qd_arena_alloc(&t->vocab.names, len + 1, 1);
    if (copy == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for added tokens");
    memcpy(copy, s, len);
    t->added[token.id].decoded = (qd_token){copy, (uint32_t)len};
    return qd_added_tokens_add(&t->normalized, s, len, token, err);
}

static qd_code read_added_token(const json_t *a, const char *what, qd_tokenizer *t, qd_err *err)
{
    const char *s;
    uint64_t id;
    bool special, normalized;
    qd_added_token token = {0};
    qd_code rc = QD_OK;
    QD_TRY(qd_json_str(a, "content", what, &s, err));
    QD_TRY(qd_json_u64(a, "id", what, QD_VOCAB_IDS_MAX - 1, &id, err));
    QD_TRY(qd_json_bool_or(a, "special", what, false, &special, err));
    QD_TRY(qd_json_bool_or(a, "normalized", what, !special, &normalized, err));
    QD_TRY(qd_json_bool_or(a, "single_word", what, false, &token.single_word, err));
    QD_TRY(qd_json_bool_or(a, "lstrip", what, false, &token.lstrip, err));
    QD_TRY(qd_json_bool_or(a, "rstrip", what, false, &token.rstrip, err));
    if (s[0] == '\0') goto out;
    token.id = qd_vocab_find(&t->vocab, s, strlen(s)); /* the model's own id goes before the one given here */
    if (token.id < 0) {
        QD_TRY(qd_vocab_add(&t->vocab, s, strlen(s), id, what, err));
        token.id = (int32_t)id;
    }
    QD_TRY(add_to_search(t, s, normalized, token, err));
    if (special) t->added[token.id].special = true;
out:
    return rc;
}

static qd_code read_added(const json_t *root, const char *what, qd_tokenizer *t, qd_err *err)
{
    json_t *added, *a;
    size_t i;
    uint64_t n_ids = t->vocab.n_ids;
    qd_code rc = qd_json_arr_or(root, "added_tokens", what, &added, err);
    if (rc != QD_OK) return rc;
    json_array_foreach(added, i, a)
    {
        json_int_t id = json_integer_value(json_object_get(a, "id"));
        if (id >= 0 && id < QD_VOCAB_IDS_MAX) n_ids = qd_max_u64(n_ids, (uint64_t)id + 1);
    }
    t->added = qd_calloc((size_t)n_ids, sizeof *t->added);
    if (t->added == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", what);
    json_array_foreach(added, i, a)
    {
        rc = json_is_object(a) ? read_added_token(a, what, t, err) : wrong(what, "added_tokens", "objects", a, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

/* Where no token has a space mark after anything else, no merge crosses the front of a run of them: the text can be cut
 * there, which lets short words be remembered, as a text that is one single word cannot. */
static qd_code cut_at_space_marks(const char *what, qd_tokenizer *t, qd_err *err)
{
    static const char mark[] = "\xe2\x96\x81", words[] = "\xe2\x96\x81*[^\xe2\x96\x81]+|\xe2\x96\x81+";
    if (t->pretokenizer.n_steps != 0 || t->bpe.ignore_merges || qd_vocab_find(&t->vocab, mark, 3) < 0) return QD_OK;
    for (uint32_t id = 0; id < t->vocab.n_ids; id++) {
        const char *s = t->vocab.tokens[id].s;
        while (s != NULL && strncmp(s, mark, 3) == 0) s += 3;
        if (s != NULL && strstr(s, mark) != NULL) return QD_OK;
    }
    t->pretokenizer.steps[0] = (qd_cut_step){.kind = QD_CUT_SPLIT, .behavior = QD_CUT_ISOLATED};
    t->pretokenizer.n_steps = 1;
    return qd_regex_new(words, sizeof words - 1, false, what, &t->pretokenizer.steps[0].pattern, err);
}

qd_code qd_tokenizer_parse(const char *text, size_t len, const char *what, qd_tokenizer **ret, qd_err *err)
{
    json_t *root = NULL;
    qd_code rc = QD_OK;
    qd_tokenizer *t = NULL;
    if (len > QD_TOKENIZER_JSON_BYTES_MAX)
        return qd_fail(err, QD_E_INPUT, "%s: expected at most %d MiB", what, (int)(QD_TOKENIZER_JSON_BYTES_MAX >> 20));
    t = qd_calloc(1, sizeof *t);
    if (t == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", what);
    QD_TRY(qd_json_parse(text, len, what, &root, err));
    if (!json_is_object(root)) {
        rc = wrong(what, "the file", "an object", root, err);
        goto out;
    }
    QD_TRY(qd_tokenizer_read_steps(root, what, t, err)); /* first: they say whether the words are bytes */
    QD_TRY(read_model(root, what, t, err));
    QD_TRY(cut_at_space_marks(what, t, err));
    QD_TRY(read_added(root, what, t, err));
    *ret = t;
    t = NULL;
out:
    json_decref(root);
    qd_tokenizer_free(t);
    return rc;
}

qd_code qd_tokenizer_load(const char *model_dir, qd_tokenizer **ret, qd_err *err)
{
    char *path = qd_path_join(model_dir, "tokenizer.json"), *text = NULL;
    size_t len = 0;
    qd_code rc = QD_OK;
    if (path == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", model_dir);
    QD_TRY(qd_file_read(path, QD_TOKENIZER_JSON_BYTES_MAX, &text, &len, err));
    QD_TRY(qd_tokenizer_parse(text, len, path, ret, err));
out:
    qd_free(text);
    qd_free(path);
    return rc;
}
