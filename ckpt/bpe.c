#include "ckpt/bpe.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

enum {
    CACHE_WORDS = 32 << 10, /* 2 MiB: the words of ordinary text, without outgrowing a core's cache by much */
    CACHED_BYTES = 22,
    CACHED_IDS = 10,
    SHORT_SYMBOLS = 48 /* up to here a scan for the lowest rank beats a heap */
};

typedef struct qd_bpe_word { /* one line of the processor's cache */
    uint8_t len, n_ids;      /* len 0: empty */
    char bytes[CACHED_BYTES];
    int32_t ids[CACHED_IDS];
} qd_bpe_word;
_Static_assert(sizeof(qd_bpe_word) == 64, "a cached word is a cache line");

typedef struct qd_bpe_long { /* a long word: its symbols as a list, its possible merges as a heap */
    int32_t *prev, *next;    /* [cap]; next -2: the symbol is gone */
    size_t cap;
    uint64_t *heap; /* rank << 32 | position of the left symbol */
    size_t n_heap, cap_heap;
} qd_bpe_long;

uint32_t qd_byte_char(uint8_t byte)
{
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173)) return byte;
    if (byte <= 32) return 256U + byte;
    return byte == 173 ? 323 : 256U + 33 + byte - 127;
}

int qd_byte_of_char(uint32_t c)
{
    if (c < 256) return qd_byte_char((uint8_t)c) == c ? (int)c : -1;
    if (c <= 288) return (int)c - 256;
    if (c <= 322) return (int)c - 289 + 127;
    return c == 323 ? 173 : -1;
}

static inline uint32_t slot_of(const qd_bpe *b, int32_t left, int32_t right)
{
    uint64_t h = (((uint64_t)(uint32_t)left << 32 | (uint32_t)right) ^ b->vocab->seed) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(h >> 32) & b->mask;
}

static const qd_bpe_merge *find_merge(const qd_bpe *b, int32_t left, int32_t right)
{
    for (uint32_t at = slot_of(b, left, right); b->slots[at].left >= 0; at = (at + 1) & b->mask)
        if (b->slots[at].left == left && b->slots[at].right == right) return &b->slots[at];
    return NULL;
}

static void find_byte_ids(qd_bpe *b)
{
    for (int i = 0; i < 256; i++) {
        char text[8];
        b->byte_ids[i] = qd_vocab_find(b->vocab, text, qd_utf8_put(qd_byte_char((uint8_t)i), text));
        (void)snprintf(text, sizeof text, "<0x%02X>", (unsigned)i);
        b->fallback[i] = qd_vocab_find(b->vocab, text, 6);
    }
}

qd_code qd_bpe_init(qd_bpe *b, size_t n_merges, qd_err *err)
{
    uint32_t n_slots = 256;
    while (n_slots < 2 * n_merges && n_slots < 1U << 30) n_slots *= 2;
    b->slots = qd_malloc((size_t)n_slots * sizeof *b->slots);
    b->cache = qd_calloc(CACHE_WORDS, sizeof *b->cache);
    b->scratch = qd_calloc(1, sizeof *b->scratch);
    if (b->slots == NULL || b->cache == NULL || b->scratch == NULL)
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for %zu merges", n_merges);
    b->mask = n_slots - 1;
    for (uint32_t i = 0; i < n_slots; i++) b->slots[i].left = -1;
    find_byte_ids(b);
    return QD_OK;
}

void qd_bpe_add_merge(qd_bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    uint32_t at = slot_of(b, left, right);
    while (b->slots[at].left >= 0 && (b->slots[at].left != left || b->slots[at].right != right))
        at = (at + 1) & b->mask;
    b->slots[at] = (qd_bpe_merge){left, right, rank, id};
}

/* Symbols of a character that the vocabulary lacks: its bytes, or the unknown token, held back in *unk so that a run
 * of them can become one. */
static qd_code add_unknown(qd_bpe *b, const char *s, size_t len, int32_t *unk, qd_err *err)
{
    bool all = b->byte_fallback;
    for (size_t i = 0; i < len && all; i++) all = b->fallback[(unsigned char)s[i]] >= 0;
    if (all) {
        for (size_t i = 0; i < len; i++) {
            qd_code rc = qd_ids_add(&b->symbols, b->fallback[(unsigned char)s[i]], err);
            if (rc != QD_OK) return rc;
        }
        return QD_OK;
    }
    if (b->unk == -2)
        return qd_fail(err, QD_E_INPUT,
                       "the text has \"%.*s\", which is not in tokenizer.json's vocabulary, nor is its unk_token",
                       (int)len, s);
    if (b->unk < 0 || (*unk >= 0 && b->fuse_unk)) return QD_OK;
    qd_code rc = *unk >= 0 ? qd_ids_add(&b->symbols, *unk, err) : QD_OK;
    *unk = b->unk;
    return rc;
}

/* The word's first symbols: a character or a byte each. */
static qd_code first_symbols(qd_bpe *b, const char *word, size_t len, qd_err *err)
{
    qd_code rc = QD_OK;
    int32_t unk = -1;
    b->symbols.n = 0;
    for (size_t at = 0, n; at < len && rc == QD_OK; at += n) {
        n = b->byte_level ? 1 : qd_utf8_len(word[at]);
        int32_t id = b->byte_level ? b->byte_ids[(unsigned char)word[at]] : qd_vocab_find(b->vocab, word + at, n);
        if (id >= 0) {
            if (unk >= 0) rc = qd_ids_add(&b->symbols, unk, err);
            unk = -1;
            if (rc == QD_OK) rc = qd_ids_add(&b->symbols, id, err);
        } else if (b->byte_level) {
            char c[4];
            size_t len_c = qd_utf8_put(qd_byte_char((uint8_t)word[at]), c);
            rc = add_unknown(b, c, len_c, &unk, err);
        } else {
            rc = add_unknown(b, word + at, n, &unk, err);
        }
        if (b->symbols.n > QD_BPE_SYMBOLS_MAX)
            rc = qd_fail(err, QD_E_INPUT,
                         "a stretch of text that the tokenizer does not cut has more than %d characters",
                         QD_BPE_SYMBOLS_MAX);
    }
    if (rc == QD_OK && unk >= 0) rc = qd_ids_add(&b->symbols, unk, err);
    return rc;
}

static size_t merge_short(const qd_bpe *b, int32_t *ids, size_t n)
{
    uint32_t rank[SHORT_SYMBOLS];
    int32_t into[SHORT_SYMBOLS];
    for (size_t i = 0; i + 1 < n; i++) {
        const qd_bpe_merge *m = find_merge(b, ids[i], ids[i + 1]);
        rank[i] = m != NULL ? m->rank : UINT32_MAX;
        into[i] = m != NULL ? m->id : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        ids[best] = into[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            rank[i - 1] = rank[i]; /* that of best is set below */
            into[i - 1] = into[i];
        }
        for (size_t i = best == 0 ? 0 : best - 1; i <= best && i + 1 < n; i++) {
            const qd_bpe_merge *m = find_merge(b, ids[i], ids[i + 1]);
            rank[i] = m != NULL ? m->rank : UINT32_MAX;
            into[i] = m != NULL ? m->id : -1;
        }
    }
    return n;
}

static qd_code reserve(qd_bpe_long *l, size_t n, qd_err *err)
{
    if (n > l->cap) {
        int32_t *prev = qd_realloc(l->prev, n * sizeof *prev);
        if (prev != NULL) l->prev = prev;
        int32_t *next = qd_realloc(l->next, n * sizeof *next);
        if (next != NULL) l->next = next;
        if (prev == NULL || next == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a word");
        l->cap = n;
    }
    l->n_heap = 0;
    if (3 * n <= l->cap_heap) return QD_OK;
    uint64_t *heap = qd_realloc(l->heap, 3 * n * sizeof *heap); /* n - 1 pairs at first, two more a merge */
    if (heap == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a word");
    l->heap = heap;
    l->cap_heap = 3 * n;
    return QD_OK;
}

static void push(const qd_bpe *b, qd_bpe_long *l, const int32_t *ids, int32_t at)
{
    if (at < 0 || l->next[at] < 0) return;
    const qd_bpe_merge *m = find_merge(b, ids[at], ids[l->next[at]]);
    if (m == NULL) return;
    uint64_t key = (uint64_t)m->rank << 32 | (uint32_t)at;
    size_t i = l->n_heap++;
    for (; i > 0 && l->heap[(i - 1) / 2] > key; i = (i - 1) / 2) l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = key;
}

static uint64_t pop(qd_bpe_long *l)
{
    uint64_t top = l->heap[0], last = l->heap[--l->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < l->n_heap; i = child) {
        if (child + 1 < l->n_heap && l->heap[child + 1] < l->heap[child]) child++;
        if (l->heap[child] >= last) break;
        l->heap[i] = l->heap[child];
    }
    l->heap[i] = last;
    return top;
}

static qd_code merge_long(const qd_bpe *b, int32_t *ids, size_t *n, qd_err *err)
{
    qd_bpe_long *l = b->scratch;
    qd_code rc = reserve(l, *n, err);
    if (rc != QD_OK) return rc;
    for (size_t i = 0; i < *n; i++) {
        l->prev[i] = (int32_t)i - 1;
        l->next[i] = i + 1 < *n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < *n; i++) push(b, l, ids, (int32_t)i);
    while (l->n_heap > 0) {
        uint64_t key = pop(l);
        int32_t at = (int32_t)(uint32_t)key, right = l->next[at];
        if (right < 0) continue; /* gone, or the last one by now */
        const qd_bpe_merge *m = find_merge(b, ids[at], ids[right]);
        if (m == NULL || m->rank != key >> 32) continue; /* one of the two has changed since */
        ids[at] = m->id;
        l->next[at] = l->next[right];
        if (l->next[right] >= 0) l->prev[l->next[right]] = at;
        l->next[right] = -2;
        push(b, l, ids, l->prev[at]);
        push(b, l, ids, at);
    }
    size_t out = 0;
    for (int32_t i = 0; i >= 0; i = l->next[i]) ids[out++] = ids[i];
    *n = out;
    return QD_OK;
}

/* ignore_merges: a word that is a token as it stands is that token. *ret -1 when it is none. */
static qd_code whole_word(qd_bpe *b, const char *word, size_t len, int32_t *ret, qd_err *err)
{
    *ret = -1;
    if (len > b->vocab->longest) return QD_OK;
    if (!b->byte_level) {
        *ret = qd_vocab_find(b->vocab, word, len);
        return QD_OK;
    }
    qd_buf_reset(&b->spelled);
    for (size_t i = 0; i < len; i++) {
        char c[4];
        qd_buf_add(&b->spelled, c, qd_utf8_put(qd_byte_char((uint8_t)word[i]), c));
    }
    qd_code rc = qd_buf_check(&b->spelled, err);
    if (rc == QD_OK) *ret = qd_vocab_find(b->vocab, b->spelled.data, b->spelled.len);
    return rc;
}

static qd_code add_all(qd_ids *ids, const int32_t *more, size_t n, qd_err *err)
{
    qd_code rc = QD_OK;
    for (size_t i = 0; i < n && rc == QD_OK; i++) rc = qd_ids_add(ids, more[i], err);
    return rc;
}

qd_code qd_bpe_encode(qd_bpe *b, const char *word, size_t len, qd_ids *ids, qd_err *err)
{
    if (len == 0) return QD_OK;
    qd_bpe_word *cached = NULL;
    if (len <= CACHED_BYTES) {
        cached = &b->cache[qd_hash64(word, len, b->vocab->seed) % CACHE_WORDS];
        if (cached->len == len && memcmp(cached->bytes, word, len) == 0)
            return add_all(ids, cached->ids, cached->n_ids, err);
    }
    int32_t whole = -1;
    size_t n = 1;
    qd_code rc = b->ignore_merges ? whole_word(b, word, len, &whole, err) : QD_OK;
    if (rc != QD_OK) return rc;
    if (whole >= 0) {
        b->symbols.n = 0;
        rc = qd_ids_add(&b->symbols, whole, err);
    } else {
        rc = first_symbols(b, word, len, err);
        n = b->symbols.n;
        if (rc == QD_OK && n > SHORT_SYMBOLS)
            rc = merge_long(b, b->symbols.data, &n, err);
        else if (rc == QD_OK)
            n = merge_short(b, b->symbols.data, n);
    }
    if (rc == QD_OK) rc = add_all(ids, b->symbols.data, n, err);
    if (rc == QD_OK && cached != NULL && n <= CACHED_IDS) {
        cached->len = (uint8_t)len;
        cached->n_ids = (uint8_t)n;
        memcpy(cached->bytes, word, len);
        if (n != 0) memcpy(cached->ids, b->symbols.data, n * sizeof *cached->ids);
    }
    return rc;
}

void qd_bpe_done(qd_bpe *b)
{
    if (b == NULL) return;
    if (b->scratch != NULL) {
        qd_free(b->scratch->prev);
        qd_free(b->scratch->next);
        qd_free(b->scratch->heap);
    }
    qd_free(b->scratch);
    qd_free(b->cache);
    qd_free(b->slots);
    qd_ids_done(&b->symbols);
    qd_buf_done(&b->spelled);
    memset(b, 0, sizeof *b);
}
