/* arch_tables.c -- the architectures that are known, row by row. A new one is a table of shared row groups and its own
 * rows. */
#include "ckpt/arch_tables.h"

/* clang-format off */
#define LINEAR(path, role, fuse_) {path ".weight", role, fuse_, QD_SPLIT_NONE, false}

#define MODEL                                                                                                    \
    {"{visual,vision_tower,vision_model,multi_modal_projector}.>", QD_ROLE_VISION, NULL, QD_SPLIT_NONE, false},  \
    {"mtp.>", QD_ROLE_MTP, NULL, QD_SPLIT_NONE, false},                                                          \
    {"embed_tokens.weight", QD_ROLE_EMBED, NULL, QD_SPLIT_NONE, false},                                          \
    {"lm_head.weight", QD_ROLE_HEAD, NULL, QD_SPLIT_NONE, false},                                                \
    {"norm.weight", QD_ROLE_NORM, NULL, QD_SPLIT_NONE, false},                                                   \
    {"layers.#.*norm.weight", QD_ROLE_NORM, NULL, QD_SPLIT_NONE, false}

#define ATTENTION                                                                                                \
    LINEAR("layers.#.self_attn.{q,k,v}_proj", QD_ROLE_ATTN, "qkv"),                                              \
    LINEAR("layers.#.self_attn.o_proj", QD_ROLE_ATTN, NULL),                                                     \
    {"layers.#.self_attn.{q,k}_norm.weight", QD_ROLE_NORM, NULL, QD_SPLIT_NONE, false}

#define DENSE_MLP                                                                                                \
    LINEAR("layers.#.mlp.{gate,up}_proj", QD_ROLE_MLP, "gate_up"),                                               \
    LINEAR("layers.#.mlp.down_proj", QD_ROLE_MLP, NULL)

/* One tensor an expert and matrix, or all experts of a layer in two 3-D tensors without ".weight". */
#define EXPERTS                                                                                                  \
    LINEAR("layers.#.mlp.experts.#.{gate,up}_proj", QD_ROLE_EXPERT, "gate_up"),                                  \
    LINEAR("layers.#.mlp.experts.#.down_proj", QD_ROLE_EXPERT, NULL),                                            \
    {"layers.#.mlp.experts.gate_up_proj", QD_ROLE_EXPERT, "gate_up", QD_SPLIT_GATE_UP, false},                   \
    {"layers.#.mlp.experts.down_proj", QD_ROLE_EXPERT, NULL, QD_SPLIT_DOWN, false},                              \
    {"layers.#.mlp.gate.weight", QD_ROLE_ROUTER, NULL, QD_SPLIT_NONE, false}

#define SHARED_EXPERT                                                                                            \
    LINEAR("layers.#.mlp.shared_expert.{gate,up}_proj", QD_ROLE_SHARED_EXPERT, "gate_up"),                       \
    LINEAR("layers.#.mlp.shared_expert.down_proj", QD_ROLE_SHARED_EXPERT, NULL),                                 \
    {"layers.#.mlp.shared_expert_gate.weight", QD_ROLE_GATE, NULL, QD_SPLIT_NONE, false}

#define LINEAR_ATTENTION                                                                                         \
    LINEAR("layers.#.linear_attn.out_proj", QD_ROLE_LINEAR_ATTN, NULL),                                          \
    {"layers.#.linear_attn.norm.weight", QD_ROLE_NORM, NULL, QD_SPLIT_NONE, false},                              \
    {"layers.#.linear_attn.{A_log,dt_bias,conv1d.weight}", QD_ROLE_SMALL, NULL, QD_SPLIT_NONE, false},           \
    {"layers.#.linear_attn.in_proj_{a,b,ba}.weight", QD_ROLE_SMALL, NULL, QD_SPLIT_NONE, false}

/* Loaders put these two into one matrix; llm-compressor gives each its own global scale. */
#define LINEAR_ATTENTION_APART                                                                                   \
    {"layers.#.linear_attn.in_proj_{qkv,z}.weight", QD_ROLE_LINEAR_ATTN, "in_proj", QD_SPLIT_NONE, true}

static const qd_arch_row dense[] = {MODEL, ATTENTION, DENSE_MLP};

static const qd_arch_row mixtral[] = {
    MODEL, ATTENTION,
    LINEAR("layers.#.block_sparse_moe.experts.#.{w1,w3}", QD_ROLE_EXPERT, "gate_up"),
    LINEAR("layers.#.block_sparse_moe.experts.#.w2", QD_ROLE_EXPERT, NULL),
    {"layers.#.block_sparse_moe.gate.weight", QD_ROLE_ROUTER, NULL, QD_SPLIT_NONE, false},
};

static const qd_arch_row qwen3_moe[] = {MODEL, ATTENTION, DENSE_MLP, EXPERTS};

static const qd_arch_row qwen3_next[] = {
    MODEL, ATTENTION, DENSE_MLP, EXPERTS, SHARED_EXPERT, LINEAR_ATTENTION,
    LINEAR("layers.#.linear_attn.in_proj_qkvz", QD_ROLE_LINEAR_ATTN, NULL),
};

static const qd_arch_row qwen3_5[] = {MODEL, ATTENTION, DENSE_MLP, LINEAR_ATTENTION, LINEAR_ATTENTION_APART};

static const qd_arch_row qwen3_5_moe[] = {
    MODEL, ATTENTION, DENSE_MLP, EXPERTS, SHARED_EXPERT, LINEAR_ATTENTION, LINEAR_ATTENTION_APART,
};

#define TABLE(name, rows) {name, rows, sizeof (rows) / sizeof (rows)[0]}
const qd_arch qd_arch_tables[] = {
    TABLE("llama", dense),
    TABLE("mistral", dense),
    TABLE("mixtral", mixtral),
    TABLE("qwen2", dense),
    TABLE("qwen3", dense),
    TABLE("qwen3_moe", qwen3_moe),
    TABLE("qwen3_next", qwen3_next),
    TABLE("qwen3_5", qwen3_5),
    TABLE("qwen3_5_moe", qwen3_5_moe),
};
/* clang-format on */

const uint32_t qd_arch_n_tables = sizeof qd_arch_tables / sizeof qd_arch_tables[0];
