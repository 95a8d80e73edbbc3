/* arch_generic.c -- where a tensor belongs by the usual names, for architectures that have no table. */
#include "base/path.h"
#include "ckpt/arch_tables.h"

#include <fnmatch.h>
#include <string.h>

enum {
    PARTS_MAX = 64
};

typedef enum where {
    ANY,    /* any component of the module's name */
    LAST,   /* the last one */
    OUTSIDE /* any, but not inside a layer */
} where;

/* Module names that are not linears to quantize; the first rule that fits decides. */
static const struct {
    const char *glob;
    where at;
    qd_role role;
} rules[] = {
    {"mtp*", ANY, QD_ROLE_MTP},
    {"nextn*", ANY, QD_ROLE_MTP},
    {"*visual*", ANY, QD_ROLE_VISION},
    {"*vision*", ANY, QD_ROLE_VISION},
    {"*image*", ANY, QD_ROLE_VISION},
    {"*audio*", ANY, QD_ROLE_VISION},
    {"multi_modal_projector", ANY, QD_ROLE_VISION},
    {"mm_projector", ANY, QD_ROLE_VISION},
    {"embed_out", LAST, QD_ROLE_HEAD},
    {"*embed*", ANY, QD_ROLE_EMBED},
    {"wte", LAST, QD_ROLE_EMBED},
    {"wpe", LAST, QD_ROLE_EMBED},
    {"*norm*", LAST, QD_ROLE_NORM},
    {"ln", LAST, QD_ROLE_NORM},
    {"ln_*", LAST, QD_ROLE_NORM},
    {"*shared_expert*_gate", LAST, QD_ROLE_GATE},
    {"gate", ANY, QD_ROLE_ROUTER},
    {"*router*", ANY, QD_ROLE_ROUTER},
    {"*conv*", ANY, QD_ROLE_SMALL},
    {"in_proj_a", LAST, QD_ROLE_SMALL},
    {"in_proj_b", LAST, QD_ROLE_SMALL},
    {"in_proj_ba", LAST, QD_ROLE_SMALL},
    {"lm_head", ANY, QD_ROLE_HEAD},
    {"output", OUTSIDE, QD_ROLE_HEAD},
    {"output_layer", OUTSIDE, QD_ROLE_HEAD},
    {"score*", OUTSIDE, QD_ROLE_HEAD},
    {"classifier*", OUTSIDE, QD_ROLE_HEAD},
    {"head", OUTSIDE, QD_ROLE_HEAD},
};

/* Last components that loaders fuse when they have one parent. */
static const struct {
    const char *last, *fuse;
    bool ct; /* llm-compressor ties them too */
} sets[] = {
    {"q_proj", "qkv", true},           {"k_proj", "qkv", true},
    {"v_proj", "qkv", true},           {"gate_proj", "gate_up", true},
    {"up_proj", "gate_up", true},      {"w1", "gate_up", true},
    {"w3", "gate_up", true},           {"q_a_proj", "qkv_a", true},
    {"in_proj_qkv", "in_proj", false}, {"kv_a_proj_with_mqa", "qkv_a", true},
    {"in_proj_z", "in_proj", false},
};

/* The number of the component after one of the words, -1 when there is none. */
static int32_t number_after(const char *name, const char *const *words, size_t n_words)
{
    for (const char *s = name; s != NULL; s = strchr(s, '.'), s = s == NULL ? NULL : s + 1) {
        size_t n = strcspn(s, ".");
        for (size_t i = 0; i < n_words; i++) {
            if (s[n] != '.' || strlen(words[i]) != n || memcmp(s, words[i], n) != 0) continue;
            int32_t v = -1;
            const char *end = qd_arch_number(s + n + 1, &v);
            if (end != NULL && *end == '.') return v;
        }
    }
    return -1;
}

int32_t qd_arch_layer_of(const char *name)
{
    static const char *const words[] = {"layers", "layer", "h", "blocks", "block"};
    return number_after(name, words, sizeof words / sizeof words[0]);
}

static bool rule_fits(const char *glob, where at, char *const *parts, size_t n, bool in_layer)
{
    if (at == OUTSIDE && in_layer) return false;
    for (size_t i = at == LAST ? n - 1 : 0; i < n; i++)
        if (fnmatch(glob, parts[i], 0) == 0) return true;
    return false;
}

/* Cuts s at its dots; 0 when there are more than PARTS_MAX. */
static size_t cut(char *s, char *parts[PARTS_MAX])
{
    size_t n = 0;
    for (char *next; s != NULL; s = next) {
        if (n == PARTS_MAX) return 0;
        next = strchr(s, '.');
        if (next != NULL) *next++ = '\0';
        parts[n++] = s;
    }
    return n;
}

void qd_arch_place_generic(const qd_tensor *t, qd_place *ret)
{
    static const char *const experts[] = {"experts"};
    char module[QD_ST_NAME_BYTES_MAX + 1], *parts[PARTS_MAX];
    bool weight = qd_str_ends(t->name, ".weight");
    size_t len = strlen(t->name) - (weight ? strlen(".weight") : 0);
    *ret = (qd_place){.role = QD_ROLE_OTHER, .fuse = "", .layer = qd_arch_layer_of(t->name)};
    ret->expert = number_after(t->name, experts, 1);
    if (len > QD_ST_NAME_BYTES_MAX) return;
    memcpy(module, t->name, len);
    module[len] = '\0';
    size_t n = cut(module, parts);
    if (n == 0) return;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (!rule_fits(rules[i].glob, rules[i].at, parts, n, ret->layer >= 0)) continue;
        ret->role = rules[i].role;
        return;
    }
    if (strcmp(parts[n - 1], "bias") == 0) ret->role = QD_ROLE_SMALL;
    if (!weight || t->rank != 2) return;
    ret->role = QD_ROLE_LINEAR_OTHER;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (strcmp(parts[n - 1], sets[i].last) != 0) continue;
        ret->fuse = sets[i].fuse;
        ret->fuse_ct = sets[i].ct;
    }
}
