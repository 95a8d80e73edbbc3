/* arch.c -- matches tensor names against an architecture's table and expands tensors into linears. */
#include "ckpt/arch.h"

#include "base/path.h"
#include "ckpt/arch_tables.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    EXPERTS_MAX = 65536,
    SHAPE_TEXT_BYTES = QD_RANK_MAX * 22 + 8
};

typedef struct numbers {
    int32_t v[2]; /* layer, expert */
    unsigned n;
} numbers;

const qd_arch *qd_arch_find(const qd_config *c)
{
    const char *type = c->text_model_type;
    size_t n = strlen(type);
    if (qd_str_ends(type, "_text")) n -= strlen("_text");
    for (uint32_t i = 0; i < qd_arch_n_tables; i++) {
        const qd_arch *a = &qd_arch_tables[i];
        if (strlen(a->model_type) == n && memcmp(a->model_type, type, n) == 0) return a;
    }
    return NULL;
}

const char *qd_arch_name(const qd_arch *a)
{
    return a == NULL ? "generic" : a->model_type;
}

const char *qd_role_name(qd_role r)
{
    static const char *const names[QD_ROLE_COUNT] = {
        [QD_ROLE_OTHER] = "other",
        [QD_ROLE_EMBED] = "embedding",
        [QD_ROLE_HEAD] = "head",
        [QD_ROLE_NORM] = "norm",
        [QD_ROLE_ROUTER] = "router",
        [QD_ROLE_GATE] = "gate",
        [QD_ROLE_SMALL] = "small",
        [QD_ROLE_VISION] = "vision",
        [QD_ROLE_MTP] = "mtp",
        [QD_ROLE_ATTN] = "attention",
        [QD_ROLE_LINEAR_ATTN] = "linear_attention",
        [QD_ROLE_MLP] = "mlp",
        [QD_ROLE_SHARED_EXPERT] = "shared_expert",
        [QD_ROLE_EXPERT] = "expert",
        [QD_ROLE_LINEAR_OTHER] = "linear",
    };
    return (unsigned)r < QD_ROLE_COUNT ? names[r] : "?";
}

const char *qd_arch_number(const char *s, int32_t *ret)
{
    int32_t v = 0;
    size_t n = 0;
    for (; s[n] >= '0' && s[n] <= '9'; n++) {
        if (n == 9) return NULL; /* ten digits may not fit */
        v = v * 10 + (s[n] - '0');
    }
    if (n == 0) return NULL;
    *ret = v;
    return s + n;
}

static bool match(const char *p, const char *s, numbers *nums);

/* p is after '{'. */
static bool match_words(const char *p, const char *s, numbers *nums)
{
    const char *close = strchr(p, '}');
    while (close != NULL && p < close) {
        size_t n = strcspn(p, ",}");
        if (strncmp(p, s, n) == 0) {
            numbers before = *nums;
            if (match(close + 1, s + n, nums)) return true;
            *nums = before;
        }
        p += n + 1;
    }
    return false;
}

/* p is after '*'. */
static bool match_part(const char *p, const char *s, numbers *nums)
{
    for (; *s != '\0' && *s != '.'; s++) {
        numbers before = *nums;
        if (match(p, s + 1, nums)) return true;
        *nums = before;
    }
    return false;
}

/* Recursion is bounded by the pattern, which is ours. */
static bool match(const char *p, const char *s, numbers *nums)
{
    for (;; p++) {
        int32_t v = 0;
        switch (*p) {
        case '\0':
            return *s == '\0';
        case '>':
            return *s != '\0';
        case '*':
            return match_part(p + 1, s, nums);
        case '{':
            return match_words(p + 1, s, nums);
        case '#':
            s = qd_arch_number(s, &v);
            if (s == NULL || nums->n == 2) return false;
            nums->v[nums->n++] = v;
            break;
        default:
            if (*p != *s) return false;
            s++;
        }
    }
}

/* Multimodal wrappers put the text model under "model.language_model." or "language_model.model.". */
static const char *without_prefix(const char *name)
{
    static const char *const prefixes[] = {"model.", "language_model."};
    for (size_t i = 0; i < 4; i++)
        if (qd_str_starts(name, prefixes[i % 2])) name += strlen(prefixes[i % 2]);
    return name;
}

void qd_arch_place(const qd_arch *a, const qd_tensor *t, qd_place *ret)
{
    if (a == NULL) {
        qd_arch_place_generic(t, ret);
        return;
    }
    qd_place p = {.role = QD_ROLE_OTHER, .layer = -1, .expert = -1, .fuse = "", .fuse_ct = false};
    const char *body = without_prefix(t->name);
    for (uint32_t i = 0; i < a->n_rows; i++) {
        const qd_arch_row *row = &a->rows[i];
        numbers nums = {.v = {-1, -1}};
        if (!match(row->pattern, body, &nums)) continue;
        p.role = row->role;
        p.split = row->split;
        p.layer = nums.v[0];
        p.expert = nums.v[1];
        if (row->fuse != NULL) {
            p.fuse = row->fuse;
            p.fuse_ct = !row->fuse_apart_in_ct;
        }
        *ret = p;
        return;
    }
    if (qd_str_ends(body, ".bias")) p.role = QD_ROLE_SMALL;
    p.layer = qd_arch_layer_of(body);
    *ret = p;
}

static void shape_text(const qd_tensor *t, char out[SHAPE_TEXT_BYTES])
{
    size_t at = 0;
    out[at++] = '[';
    for (uint32_t i = 0; i < t->rank && i < QD_RANK_MAX; i++) {
        int n = snprintf(out + at, SHAPE_TEXT_BYTES - at, "%s%" PRIu64, i == 0 ? "" : ", ", t->shape[i]);
        if (n > 0) at += (size_t)n;
    }
    memcpy(out + at, "]", 2);
}

static qd_code wrong_shape(const qd_ckpt *c, const qd_tensor *t, const char *expected, qd_err *err)
{
    char found[SHAPE_TEXT_BYTES];
    shape_text(t, found);
    return qd_fail(err, QD_E_INPUT, "%s: %s: expected %s, found %s", c->files[t->file].name, t->name, expected, found);
}

static qd_code emit_one(qd_linear *l, qd_arena *arena, qd_linear_fn emit, void *ctx, qd_err *err)
{
    l->fuse_key = l->name;
    l->fuse_key_ct = l->name;
    if (l->name != NULL && l->place.fuse[0] != '\0') {
        const char *dot = strrchr(l->name, '.');
        size_t parent = dot == NULL ? 0 : (size_t)(dot - l->name) + 1;
        l->fuse_key = qd_arena_printf(arena, "%.*s%s", (int)parent, l->name, l->place.fuse);
        if (l->place.fuse_ct) l->fuse_key_ct = l->fuse_key;
    }
    if (l->name == NULL || l->fuse_key == NULL)
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory while naming linears");
    return emit(ctx, l, err);
}

/* hidden_size tells [E, 2I, H] from the transposed [E, H, 2I] that other architectures store. */
static qd_code check_split(const qd_ckpt *c, const qd_tensor *t, bool gate_up, qd_err *err)
{
    char expected[96];
    uint64_t hidden = c->config.hidden_size;
    if (hidden == 0)
        (void)snprintf(expected, sizeof expected,
                       gate_up ? "[experts, 2 x rows, columns]" : "[experts, rows, columns]");
    else
        (void)snprintf(expected, sizeof expected,
                       gate_up ? "[experts, 2 x rows, %" PRIu64 "] (hidden_size)"
                               : "[experts, %" PRIu64 " (hidden_size), columns]",
                       hidden);
    if (t->rank != 3 || t->n_elems == 0 || (gate_up && t->shape[1] % 2 != 0) ||
        (hidden != 0 && t->shape[gate_up ? 2 : 1] != hidden))
        return wrong_shape(c, t, expected, err);
    if (t->shape[0] > EXPERTS_MAX) return wrong_shape(c, t, "at most 65536 experts", err);
    return QD_OK;
}

static qd_code split_experts(const qd_ckpt *c, qd_linear l, qd_arena *arena, qd_linear_fn emit, void *ctx, qd_err *err)
{
    static const char *const names[2][2] = {{"down_proj", NULL}, {"gate_proj", "up_proj"}};
    const qd_tensor *t = &c->tensors[l.tensor];
    bool gate_up = l.place.split == QD_SPLIT_GATE_UP;
    qd_code rc = check_split(c, t, gate_up, err);
    if (rc != QD_OK) return rc;
    unsigned n_parts = gate_up ? 2 : 1;
    size_t parent = (size_t)(strrchr(t->name, '.') - t->name); /* the pattern has dots */
    l.rows = t->shape[1] / n_parts;
    l.cols = t->shape[2];
    for (uint64_t e = 0; e < t->shape[0]; e++) {
        l.place.expert = (int32_t)e;
        for (unsigned part = 0; part < n_parts; part++) {
            l.first_row = e * t->shape[1] + part * l.rows;
            l.name = qd_arena_printf(arena, "%.*s.%" PRIu64 ".%s", (int)parent, t->name, e, names[gate_up][part]);
            rc = emit_one(&l, arena, emit, ctx, err);
            if (rc != QD_OK) return rc;
        }
    }
    return QD_OK;
}

qd_code qd_arch_linears(const qd_arch *a, const qd_ckpt *c, uint32_t tensor, qd_arena *arena, qd_linear_fn emit,
                        void *ctx, qd_err *err)
{
    const qd_tensor *t = &c->tensors[tensor];
    qd_linear l = {.tensor = tensor};
    qd_arch_place(a, t, &l.place);
    if (!qd_role_is_linear(l.place.role)) return QD_OK;
    if (l.place.split != QD_SPLIT_NONE) return split_experts(c, l, arena, emit, ctx, err);
    if (t->rank != 2) return wrong_shape(c, t, "a matrix of 2 dimensions", err);
    l.rows = t->shape[0];
    l.cols = t->shape[1];
    l.name = qd_arena_printf(arena, "%.*s", (int)(strlen(t->name) - strlen(".weight")), t->name);
    return emit_one(&l, arena, emit, ctx, err);
}
