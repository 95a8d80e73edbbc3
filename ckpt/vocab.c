#include "ckpt/vocab.h"

#include "base/hash.h"
#include "base/mem.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

static qd_code no_memory(qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a vocabulary");
}

static qd_code rehash(qd_vocab *v, uint32_t n_slots, qd_err *err)
{
    int32_t *slots = qd_malloc((size_t)n_slots * sizeof *slots);
    if (slots == NULL) return no_memory(err);
    memset(slots, 0xff, (size_t)n_slots * sizeof *slots);
    qd_free(v->slots);
    v->slots = slots;
    v->mask = n_slots - 1;
    for (uint32_t id = 0; id < v->n_ids; id++) {
        if (v->tokens[id].s == NULL) continue;
        uint32_t at = (uint32_t)qd_hash64(v->tokens[id].s, v->tokens[id].len, v->seed) & v->mask;
        while (slots[at] >= 0) at = (at + 1) & v->mask;
        slots[at] = (int32_t)id;
    }
    return QD_OK;
}

qd_code qd_vocab_init(qd_vocab *v, size_t n, qd_err *err)
{
    uint32_t n_slots = 1024;
    if (getrandom(&v->seed, sizeof v->seed, GRND_NONBLOCK) != (ssize_t)sizeof v->seed) v->seed = 0;
    while (n_slots < 2 * n && n_slots < 4U * QD_VOCAB_IDS_MAX) n_slots *= 2;
    return rehash(v, n_slots, err);
}

static qd_code make_room(qd_vocab *v, uint32_t id, qd_err *err)
{
    if (id < v->cap_ids) return QD_OK;
    uint32_t cap = v->cap_ids < 1024 ? 1024 : v->cap_ids * 2;
    if (cap <= id) cap = id + 1;
    qd_token *tokens = qd_realloc(v->tokens, (size_t)cap * sizeof *tokens);
    if (tokens == NULL) return no_memory(err);
    memset(tokens + v->cap_ids, 0, (size_t)(cap - v->cap_ids) * sizeof *tokens);
    v->tokens = tokens;
    v->cap_ids = cap;
    return QD_OK;
}

qd_code qd_vocab_add(qd_vocab *v, const char *s, size_t len, uint64_t id, const char *what, qd_err *err)
{
    if (id >= QD_VOCAB_IDS_MAX)
        return qd_fail(err, QD_E_INPUT, "%s: token \"%.40s\": expected an id below %d, found %" PRIu64, what, s,
                       QD_VOCAB_IDS_MAX, id);
    if (qd_vocab_find(v, s, len) >= 0) return qd_fail(err, QD_E_INPUT, "%s: token \"%.40s\" is there twice", what, s);
    qd_code rc = make_room(v, (uint32_t)id, err);
    if (rc == QD_OK && 2 * v->n_tokens >= v->mask) rc = rehash(v, 2 * (v->mask + 1), err);
    if (rc != QD_OK) return rc;
    if (v->tokens[id].s != NULL)
        return qd_fail(err, QD_E_INPUT, "%s: id %" PRIu64 " is \"%.40s\" and \"%.40s\"", what, id, v->tokens[id].s, s);
    char *copy = qd_arena_alloc(&v->names, len + 1, 1);
    if (copy == NULL) return no_memory(err);
    memcpy(copy, s, len);
    v->tokens[id] = (qd_token){copy, (uint32_t)len};
    if (id >= v->n_ids) v->n_ids = (uint32_t)id + 1;
    if (len > v->longest) v->longest = (uint32_t)len;
    v->n_tokens++;
    uint32_t at = (uint32_t)qd_hash64(s, len, v->seed) & v->mask;
    while (v->slots[at] >= 0) at = (at + 1) & v->mask;
    v->slots[at] = (int32_t)id;
    return QD_OK;
}

int32_t qd_vocab_find(const qd_vocab *v, const char *s, size_t len)
{
    uint32_t at = (uint32_t)qd_hash64(s, len, v->seed) & v->mask;
    for (; v->slots[at] >= 0; at = (at + 1) & v->mask) {
        const qd_token *t = &v->tokens[v->slots[at]];
        if (t->len == len && memcmp(t->s, s, len) == 0) return v->slots[at];
    }
    return -1;
}

void qd_vocab_done(qd_vocab *v)
{
    if (v == NULL) return;
    qd_free(v->tokens);
    qd_free(v->slots);
    qd_arena_done(&v->names);
    memset(v, 0, sizeof *v);
}
