#include "ckpt/added_tokens.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <string.h>

enum {
    NODES_MAX = 16 << 20
};

static qd_code no_memory(qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory for added tokens");
}

static qd_code new_node(qd_added_tokens *a, uint8_t byte, uint32_t *ret, qd_err *err)
{
    if (a->n_nodes == NODES_MAX) return qd_fail(err, QD_E_INPUT, "the added tokens are too long");
    if (a->n_nodes == a->cap_nodes) {
        uint32_t cap = a->cap_nodes < 256 ? 256 : 2 * a->cap_nodes;
        qd_added_node *nodes = qd_realloc(a->nodes, cap * sizeof *nodes);
        if (nodes == NULL) return no_memory(err);
        a->nodes = nodes;
        a->cap_nodes = cap;
    }
    a->nodes[a->n_nodes] = (qd_added_node){.byte = byte, .token = -1};
    *ret = a->n_nodes++;
    return QD_OK;
}

static uint32_t child_of(const qd_added_tokens *a, uint32_t node, uint8_t byte)
{
    if (node == 0) return a->first[byte];
    uint32_t c = a->nodes[node].child;
    while (c != 0 && a->nodes[c].byte != byte) c = a->nodes[c].sibling;
    return c;
}

static qd_code add_token(qd_added_tokens *a, qd_added_token token, qd_err *err)
{
    if (a->n_tokens == a->cap_tokens) {
        uint32_t cap = a->cap_tokens < 64 ? 64 : 2 * a->cap_tokens;
        qd_added_token *tokens = qd_realloc(a->tokens, cap * sizeof *tokens);
        if (tokens == NULL) return no_memory(err);
        a->tokens = tokens;
        a->cap_tokens = cap;
    }
    a->tokens[a->n_tokens++] = token;
    return QD_OK;
}

/* Word characters as Rust's regex crate has them, which tests the neighbours there. */
#define WORD "[\\w\\x{200c}\\x{200d}]"

qd_code qd_added_tokens_add(qd_added_tokens *a, const char *s, size_t len, qd_added_token token, qd_err *err)
{
    uint32_t node = 0;
    qd_code rc = QD_OK;
    if (len == 0) return QD_OK;
    if (a->n_nodes == 0) rc = new_node(a, 0, &node, err);
    if (rc == QD_OK && token.single_word && a->word == NULL) {
        static const char after[] = "\\A" WORD;
        rc = qd_regex_new(after, sizeof after - 1, false, "added tokens", &a->word, err);
    }
    for (size_t i = 0; i < len && rc == QD_OK; i++) {
        uint8_t byte = (uint8_t)s[i];
        uint32_t next = child_of(a, node, byte);
        if (next == 0) {
            rc = new_node(a, byte, &next, err);
            if (rc != QD_OK) break;
            if (node == 0) {
                a->first[byte] = next;
            } else {
                a->nodes[next].sibling = a->nodes[node].child;
                a->nodes[node].child = next;
            }
        }
        node = next;
    }
    if (rc == QD_OK) rc = add_token(a, token, err);
    if (rc == QD_OK) a->nodes[node].token = (int32_t)a->n_tokens - 1;
    return rc;
}

static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static size_t char_before(const char *text, size_t at)
{
    do at--;
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80);
    return at;
}

static size_t strip_left(const char *text, size_t at, size_t least)
{
    while (at > least) {
        size_t n, before = char_before(text, at);
        if (!is_space(qd_utf8_get(text + before, &n))) break;
        at = before;
    }
    return at < least ? least : at;
}

static size_t strip_right(const char *text, size_t len, size_t at)
{
    for (size_t n; at < len && is_space(qd_utf8_get(text + at, &n));) at += n;
    return at;
}

static qd_code is_word(const qd_added_tokens *a, const char *text, size_t at, bool *ret, qd_err *err)
{
    size_t start, end;
    return qd_regex_next(a->word, text + at, qd_utf8_len(text[at]), 0, ret, &start, &end, err);
}

static qd_code touches_word(const qd_added_tokens *a, const char *text, size_t len, size_t start, size_t end, bool *ret,
                            qd_err *err)
{
    qd_code rc = QD_OK;
    *ret = false;
    if (start > 0) rc = is_word(a, text, char_before(text, start), ret, err);
    if (rc == QD_OK && !*ret && end < len) rc = is_word(a, text, end, ret, err);
    return rc;
}

/* The longest token at text[at..]; -1 when there is none. */
static int32_t longest(const qd_added_tokens *a, const char *text, size_t len, size_t at, size_t *ret_end)
{
    int32_t found = -1;
    for (uint32_t node = 0; at < len;) {
        node = child_of(a, node, (uint8_t)text[at++]);
        if (node == 0) break;
        if (a->nodes[node].token < 0) continue;
        found = a->nodes[node].token;
        *ret_end = at;
    }
    return found;
}

qd_code qd_added_tokens_split(const qd_added_tokens *a, const char *text, size_t len, qd_added_fn part, void *user,
                              qd_err *err)
{
    size_t done = 0;
    qd_code rc = QD_OK;
    if (a->n_tokens == 0) return part(user, -1, text, len, err);
    for (size_t at = 0, end = 0; at < len;) {
        if (a->first[(uint8_t)text[at]] == 0) {
            at++;
            continue;
        }
        int32_t found = longest(a, text, len, at, &end);
        if (found < 0) {
            at++;
            continue;
        }
        const qd_added_token *t = &a->tokens[found];
        size_t start = at, stop = end;
        bool touches = false;
        at = end;
        if (t->single_word) {
            rc = touches_word(a, text, len, start, end, &touches, err);
            if (rc != QD_OK) return rc;
            if (touches) continue;
        }
        if (start < done) continue; /* the white space of the token before has swallowed its beginning */
        if (t->lstrip) start = strip_left(text, start, done);
        if (t->rstrip) stop = strip_right(text, len, stop);
        if (start > done) rc = part(user, -1, text + done, start - done, err);
        if (rc == QD_OK) rc = part(user, t->id, text + start, stop - start, err);
        if (rc != QD_OK) return rc;
        done = stop;
    }
    return done < len ? part(user, -1, text + done, len - done, err) : QD_OK;
}

void qd_added_tokens_done(qd_added_tokens *a)
{
    if (a == NULL) return;
    qd_free(a->tokens);
    qd_free(a->nodes);
    qd_regex_free(a->word);
    memset(a, 0, sizeof *a);
}
