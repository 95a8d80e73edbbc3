/* gguf_tokenizer.c -- tokenizer.json and tokenizer_config.json from a GGUF file's vocabulary.
 *
 * Source: the tokenizer.json format of the tokenizers library; the pre-tokenizers are those of the models' own
 * tokenizers, under llama.cpp's names for them. */
#include "ckpt/gguf_parts.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    VOCAB_MAX = 4 << 20
};

/* tokenizer.ggml.token_type */
enum {
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER = 4
};

#define BYTE_LEVEL(regex) \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":" regex "}"
#define SPLIT(regex)                                                                                \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex \
    "\"},\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL("false") "]}"
#define WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}"
#define REST  "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

typedef struct pre_row {
    const char *name; /* tokenizer.ggml.pre */
    const char *pre_tokenizer, *normalizer;
    bool ignore_merges; /* a pre-token that is in the vocabulary is taken whole */
} pre_row;

static const pre_row k_pre[] = {
    {"default", BYTE_LEVEL("true"), "null", false},         {"gpt-2", BYTE_LEVEL("true"), "null", false},
    {"smollm", BYTE_LEVEL("true"), "null", false}, /* as transformers reads it: digits are not split off first */
    {"llama-bpe", SPLIT(WORDS "{1,3}" REST), "null", true}, {"qwen2", SPLIT(WORDS REST), "{\"type\":\"NFC\"}", false},
};

static int by_token(const void *a, const void *b, void *tokens)
{
    const char *const *t = tokens;
    const uint32_t *x = a, *y = b;
    return strcmp(t[*x], t[*y]);
}

int64_t qd_gguf_vocab_find(const qd_gguf_vocab *v, const char *text, size_t n)
{
    uint64_t low = 0, high = v->n;
    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        const char *token = v->tokens[v->sorted[mid]];
        int order = strncmp(text, token, n);
        if (order == 0 && token[n] != '\0') order = -1;
        if (order == 0) return v->sorted[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return QD_GGUF_NO_ID;
}

static qd_code lengths(const qd_gguf *g, const char *key, const qd_gguf_pair *p, uint64_t n, qd_err *err)
{
    if (p == NULL || p->n == n) return QD_OK;
    return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected as many values as tokens (%" PRIu64 "), found %" PRIu64,
                   g->what, key, n, p->n);
}

static qd_code read_vocab(const qd_gguf *g, const qd_gguf_model *m, qd_arena *arena, qd_gguf_vocab *ret, qd_err *err)
{
    qd_code rc = QD_OK;
    const qd_gguf_pair *tokens, *types, *scores;
    qd_gguf_vocab v = {0};
    QD_TRY(qd_gguf_array_or(g, "tokenizer.ggml.tokens", QD_GGUF_STRING, &tokens, err));
    QD_TRY(qd_gguf_array_or(g, "tokenizer.ggml.token_type", QD_GGUF_I32, &types, err));
    QD_TRY(qd_gguf_array_or(g, "tokenizer.ggml.scores", QD_GGUF_F32, &scores, err));
    if (tokens == NULL || tokens->n == 0 || tokens->n > VOCAB_MAX || tokens->n > m->vocab) {
        rc = qd_fail(err, QD_E_INPUT, "%s: \"tokenizer.ggml.tokens\": expected 1 to %" PRIu64 " tokens, found %" PRIu64,
                     g->what, qd_min_u64(m->vocab, VOCAB_MAX), tokens == NULL ? 0 : tokens->n);
        goto out;
    }
    QD_TRY(lengths(g, "tokenizer.ggml.token_type", types, tokens->n, err));
    QD_TRY(lengths(g, "tokenizer.ggml.scores", scores, tokens->n, err));
    v.tokens = tokens->strings;
    v.n = tokens->n;
    v.types = types != NULL ? types->values : NULL;
    v.scores = scores != NULL ? scores->values : NULL;
    uint32_t *sorted = qd_arena_alloc(arena, v.n, sizeof *sorted);
    if (sorted == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for %" PRIu64 " tokens", g->what, v.n);
        goto out;
    }
    for (uint32_t i = 0; i < v.n; i++) {
        sorted[i] = i;
        if (qd_str_is_utf8(v.tokens[i])) continue;
        rc = qd_fail(err, QD_E_INPUT, "%s: \"tokenizer.ggml.tokens\": token %" PRIu32 " is not UTF-8", g->what, i);
        goto out;
    }
    qsort_r(sorted, v.n, sizeof *sorted, by_token, (void *)(uintptr_t)v.tokens);
    for (uint64_t i = 1; i < v.n; i++)
        if (strcmp(v.tokens[sorted[i - 1]], v.tokens[sorted[i]]) == 0) {
            rc = qd_fail(err, QD_E_INPUT, "%s: \"tokenizer.ggml.tokens\": \"%.100s\" is there twice", g->what,
                         v.tokens[sorted[i]]);
            goto out;
        }
    v.sorted = sorted;
    *ret = v;
out:
    return rc;
}

static bool is_special(const qd_gguf_vocab *v, const qd_gguf_model *m, uint64_t id)
{
    if (v->types != NULL) return v->types[id] == TOKEN_CONTROL || v->types[id] == TOKEN_UNKNOWN;
    return (int64_t)id == m->bos || (int64_t)id == m->eos || (int64_t)id == m->unk;
}

static void add_added_tokens(const qd_gguf_vocab *v, const qd_gguf_model *m, qd_buf *out)
{
    bool first = true;
    qd_buf_str(out, "\"added_tokens\":[");
    for (uint64_t i = 0; i < v->n; i++) {
        bool special = is_special(v, m, i);
        if (!special && (v->types == NULL || v->types[i] != TOKEN_USER)) continue;
        qd_buf_printf(out, "%s{\"id\":%" PRIu64 ",\"content\":", first ? "" : ",", i);
        qd_buf_json_str(out, v->tokens[i]);
        qd_buf_printf(out,
                      ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":%s}",
                      special ? "true" : "false");
        first = false;
    }
    qd_buf_str(out, "]");
}

static void add_token_of(const qd_gguf_vocab *v, int64_t id, qd_buf *out)
{
    if (id != QD_GGUF_NO_ID && (uint64_t)id < v->n)
        qd_buf_json_str(out, v->tokens[id]);
    else
        qd_buf_str(out, "null");
}

static void add_vocab(const qd_gguf_vocab *v, qd_buf *out)
{
    qd_buf_str(out, "\"vocab\":{");
    for (uint64_t i = 0; i < v->n; i++) {
        if (i > 0) qd_buf_str(out, ",");
        qd_buf_json_str(out, v->tokens[i]);
        qd_buf_printf(out, ":%" PRIu64, i);
    }
    qd_buf_str(out, "},\"merges\":[");
}

/* Puts the tokens that the model wants at the ends there. */
static qd_code add_post_processor(const qd_gguf *g, const qd_gguf_vocab *v, const qd_gguf_model *m, bool bos_default,
                                  qd_buf *out, qd_err *err)
{
    qd_code rc = QD_OK;
    bool bos, eos;
    QD_TRY(qd_gguf_bool_or(g, "tokenizer.ggml.add_bos_token", bos_default, &bos, err));
    QD_TRY(qd_gguf_bool_or(g, "tokenizer.ggml.add_eos_token", false, &eos, err));
    const int64_t ids[2] = {bos && m->bos >= 0 && (uint64_t)m->bos < v->n ? m->bos : QD_GGUF_NO_ID,
                            eos && m->eos >= 0 && (uint64_t)m->eos < v->n ? m->eos : QD_GGUF_NO_ID};
    qd_buf_str(out, ",\"post_processor\":{\"type\":\"TemplateProcessing\"");
    for (int pair = 0; pair < 2; pair++) {
        qd_buf_str(out, pair == 0 ? ",\"single\":[" : "],\"pair\":[");
        for (int seq = 0; seq <= pair; seq++) {
            if (seq == 1) qd_buf_str(out, ",");
            for (int k = 0; k < 2; k++) { /* before the sequence, after it */
                if (k == 1) {
                    qd_buf_printf(out, "{\"Sequence\":{\"id\":\"%c\",\"type_id\":%d}}", "AB"[seq], seq);
                    if (ids[1] != QD_GGUF_NO_ID) qd_buf_str(out, ",");
                }
                if (ids[k] == QD_GGUF_NO_ID) continue;
                qd_buf_str(out, "{\"SpecialToken\":{\"id\":");
                add_token_of(v, ids[k], out);
                qd_buf_printf(out, ",\"type_id\":%d}}%s", seq, k == 0 ? "," : "");
            }
        }
    }
    qd_buf_str(out, "],\"special_tokens\":{");
    for (int k = 0, n = 0; k < 2; k++) {
        if (ids[k] == QD_GGUF_NO_ID || (k == 1 && ids[0] == ids[1])) continue;
        if (n++ > 0) qd_buf_str(out, ",");
        add_token_of(v, ids[k], out);
        qd_buf_str(out, ":{\"id\":");
        add_token_of(v, ids[k], out);
        qd_buf_printf(out, ",\"ids\":[%" PRId64 "],\"tokens\":[", ids[k]);
        add_token_of(v, ids[k], out);
        qd_buf_str(out, "]}");
    }
    qd_buf_str(out, "}}");
out:
    return rc;
}

/* "left right" to ["left","right"]. */
static qd_code add_merges(const qd_gguf *g, const qd_gguf_vocab *v, qd_buf *out, qd_err *err)
{
    qd_code rc = QD_OK;
    const qd_gguf_pair *p;
    qd_buf left = {0};
    QD_TRY(qd_gguf_array_or(g, "tokenizer.ggml.merges", QD_GGUF_STRING, &p, err));
    if (p == NULL) {
        rc = qd_fail(err, QD_E_INPUT, "%s: \"tokenizer.ggml.merges\" is missing", g->what);
        goto out;
    }
    for (uint64_t i = 0; i < p->n; i++) {
        const char *space = strchr(p->strings[i], ' ');
        if (space == NULL || space == p->strings[i] || space[1] == '\0' || strchr(space + 1, ' ') != NULL) {
            rc = qd_fail(err, QD_E_INPUT,
                         "%s: \"tokenizer.ggml.merges\": expected two tokens with a space between, found \"%.100s\"",
                         g->what, p->strings[i]);
            goto out;
        }
        qd_buf_reset(&left);
        qd_buf_add(&left, p->strings[i], (size_t)(space - p->strings[i]));
        QD_TRY(qd_buf_check(&left, err));
        qd_buf_str(out, i > 0 ? ",[" : "[");
        qd_buf_json_str(out, left.data);
        qd_buf_str(out, ",");
        qd_buf_json_str(out, space + 1);
        qd_buf_str(out, "]");
        const bool parts =
            qd_gguf_vocab_find(v, left.data, left.len) >= 0 && qd_gguf_vocab_find(v, space + 1, strlen(space + 1)) >= 0;
        qd_buf_str(&left, space + 1);
        QD_TRY(qd_buf_check(&left, err));
        if (parts && qd_gguf_vocab_find(v, left.data, left.len) >= 0) continue;
        rc = qd_fail(err, QD_E_INPUT, "%s: \"tokenizer.ggml.merges\": \"%.100s\": its tokens are not all there",
                     g->what, p->strings[i]);
        goto out;
    }
out:
    qd_buf_done(&left);
    return rc;
}

static qd_code byte_level(const qd_gguf *g, const qd_gguf_model *m, const qd_gguf_vocab *v, qd_buf *out, qd_err *err)
{
    qd_code rc = QD_OK;
    const char *name;
    const pre_row *row = NULL;
    QD_TRY(qd_gguf_str_or(g, "tokenizer.ggml.pre", "default", &name, err));
    for (size_t i = 0; i < sizeof k_pre / sizeof k_pre[0]; i++)
        if (strcmp(k_pre[i].name, name) == 0) row = &k_pre[i];
    if (row == NULL) {
        rc =
            qd_fail(err, QD_E_UNSUPPORTED,
                    "%s: \"tokenizer.ggml.pre\": expected default, gpt-2, smollm, llama-bpe or qwen2, found \"%.100s\"",
                    g->what, name);
        goto out;
    }
    qd_buf_printf(out, ",\"normalizer\":%s,\"pre_tokenizer\":%s", row->normalizer, row->pre_tokenizer);
    QD_TRY(add_post_processor(g, v, m, strcmp(name, "llama-bpe") == 0, out, err));
    qd_buf_str(out, ",\"decoder\":" BYTE_LEVEL("true"));
    qd_buf_str(out, ",\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":");
    add_token_of(v, m->unk, out);
    qd_buf_printf(out,
                  ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":%s,"
                  "\"byte_fallback\":false,\"ignore_merges\":%s,",
                  m->unk != QD_GGUF_NO_ID ? "true" : "false", row->ignore_merges ? "true" : "false");
    add_vocab(v, out);
    QD_TRY(add_merges(g, v, out, err));
    qd_buf_str(out, "]}");
out:
    return rc;
}

#define META_SPACE "\\u2581" /* what SentencePiece has in a space's place */

static qd_code sentence_piece(const qd_gguf *g, const qd_gguf_model *m, const qd_gguf_vocab *v, qd_buf *out,
                              qd_err *err)
{
    qd_code rc = QD_OK;
    bool prefix;
    if (v->scores == NULL)
        return qd_fail(err, QD_E_INPUT, "%s: \"tokenizer.ggml.scores\" is missing (expected one a token)", g->what);
    QD_TRY(qd_gguf_bool_or(g, "tokenizer.ggml.add_space_prefix", true, &prefix, err));
    qd_buf_printf(out,
                  ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[%s{\"type\":\"Replace\",\"pattern\":"
                  "{\"String\":\" \"},\"content\":\"" META_SPACE "\"}]},\"pre_tokenizer\":null",
                  prefix ? "{\"type\":\"Prepend\",\"prepend\":\"" META_SPACE "\"}," : "");
    QD_TRY(add_post_processor(g, v, m, true, out, err));
    qd_buf_printf(out,
                  ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
                  "\"" META_SPACE "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}%s]}",
                  prefix ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}" : "");
    qd_buf_str(out, ",\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":");
    add_token_of(v, m->unk, out);
    qd_buf_str(out, ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":true,"
                    "\"byte_fallback\":true,\"ignore_merges\":false,");
    add_vocab(v, out);
    QD_TRY(qd_gguf_spm_merges(v, g->what, out, err));
    qd_buf_str(out, "]}");
out:
    return rc;
}

qd_code qd_gguf_tokenizer_json(const qd_gguf *g, const qd_gguf_model *m, qd_buf *out, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_arena arena = {0};
    qd_gguf_vocab v;
    const char *kind;
    QD_TRY(qd_gguf_str(g, "tokenizer.ggml.model", &kind, err));
    if (strcmp(kind, "gpt2") != 0 && strcmp(kind, "llama") != 0) {
        rc = qd_fail(err, QD_E_UNSUPPORTED, "%s: \"tokenizer.ggml.model\": expected gpt2 or llama, found \"%.100s\"",
                     g->what, kind);
        goto out;
    }
    QD_TRY(read_vocab(g, m, &arena, &v, err));
    qd_buf_str(out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,");
    add_added_tokens(&v, m, out);
    QD_TRY(strcmp(kind, "gpt2") == 0 ? byte_level(g, m, &v, out, err) : sentence_piece(g, m, &v, out, err));
    qd_buf_str(out, "}\n");
    QD_TRY(qd_buf_check(out, err));
out:
    qd_arena_done(&arena);
    return rc;
}

qd_code qd_gguf_tokenizer_config_json(const qd_gguf *g, const qd_gguf_model *m, qd_buf *out, qd_err *err)
{
    qd_code rc = QD_OK;
    const qd_gguf_pair *tokens;
    const char *kind, *chat;
    bool bos, prefix;
    QD_TRY(qd_gguf_str(g, "tokenizer.ggml.model", &kind, err));
    const bool spm = strcmp(kind, "llama") == 0;
    QD_TRY(qd_gguf_array_or(g, "tokenizer.ggml.tokens", QD_GGUF_STRING, &tokens, err));
    QD_TRY(qd_gguf_bool_or(g, "tokenizer.ggml.add_bos_token", spm, &bos, err));
    QD_TRY(qd_gguf_bool_or(g, "tokenizer.ggml.add_space_prefix", spm, &prefix, err));
    QD_TRY(qd_gguf_str_or(g, "tokenizer.chat_template", NULL, &chat, err));
    const qd_gguf_vocab v = {.tokens = tokens != NULL ? tokens->strings : NULL, .n = tokens != NULL ? tokens->n : 0};
    const struct {
        const char *key;
        int64_t id;
    } named[] = {{"bos_token", m->bos}, {"eos_token", m->eos}, {"pad_token", m->pad}, {"unk_token", m->unk}};
    qd_buf_printf(out, "{\n  \"add_bos_token\": %s,\n  \"add_prefix_space\": %s", bos ? "true" : "false",
                  prefix ? "true" : "false");
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        qd_buf_printf(out, ",\n  \"%s\": ", named[i].key);
        add_token_of(&v, named[i].id, out);
    }
    if (chat != NULL) {
        qd_buf_str(out, ",\n  \"chat_template\": ");
        qd_buf_json_str(out, chat);
    }
    qd_buf_printf(out,
                  ",\n  \"clean_up_tokenization_spaces\": false,\n  \"model_max_length\": %" PRIu64
                  ",\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n",
                  m->context);
    QD_TRY(qd_buf_check(out, err));
out:
    return rc;
}
