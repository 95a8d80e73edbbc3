/* forward.h -- the forward pass of a model, layer by layer over all tokens: one layer's weights in memory at a time.
 *
 * Tokens are cut into tiles of whole sequences, fixed by the lengths of the sequences alone; threads take tiles. So the
 * bytes of every value depend on the model, the tokens and the processor's instruction set, not on threads, memory or
 * the order in which tiles finish. */
#ifndef QD_CALIB_FORWARD_H
#define QD_CALIB_FORWARD_H

#include "calib/layer_weights.h"

/* Sequences one after the other: sequence i is ids[starts[i]] .. ids[starts[i + 1]]. Every one starts at position 0. */
typedef struct qd_tokens {
    const int32_t *ids;
    const uint64_t *starts; /* [n_seqs + 1], from 0, rising */
    uint64_t n_seqs;
} qd_tokens;

/* Part `part` of n_parts of sequences of one length: whole tiles (see above), so that each is computed as it would be
 * among all; may be empty. Returns how many tiles come before it. */
uint64_t qd_tokens_part(const qd_model_config *m, const qd_tokens *all, uint32_t part, uint32_t n_parts,
                        qd_tokens *ret);

/* Linears that read the same values have one site. */
typedef enum qd_site_kind {
    QD_SITE_ATTN_IN,  /* q, k, v */
    QD_SITE_ATTN_OUT, /* o */
    QD_SITE_DELTA_IN, /* in_proj_qkv, in_proj_z or in_proj_qkvz */
    QD_SITE_DELTA_OUT,
    QD_SITE_MLP_IN, /* gate, up */
    QD_SITE_MLP_DOWN,
    QD_SITE_SHARED_IN,
    QD_SITE_SHARED_DOWN,
    QD_SITE_EXPERT_IN,
    QD_SITE_EXPERT_DOWN,
    QD_SITE_ROUTER, /* all tokens: what experts will read of them. It cannot be replaced */
    QD_SITE_HEAD,
    QD_SITE_COUNT
} qd_site_kind;

typedef struct qd_site {
    qd_site_kind kind;
    uint64_t layer; /* n_layers for the head */
    int64_t expert; /* -1 where there is none */
    uint64_t tile;  /* calls of one tile come in a fixed order, from one thread; tiles are begun in order */
    uint64_t row;   /* of the tile's first token, among all tokens */
    unsigned worker;
    qd_lane *lane;  /* for qd_lane_tick() between pieces of long work, and for scratch */
    const float *x; /* [rows][cols] with ld */
    uint64_t rows, cols, ld;
} qd_site;

/* How far a layer is run: for linears that are quantized one after the other, each on what the ones before it give. */
typedef enum qd_stage {
    QD_STAGE_ALL,
    QD_STAGE_MIXER_IN,  /* up to what q, k, v (the delta rule's projections) read; hidden vectors stay */
    QD_STAGE_MIXER_OUT, /* up to what o (out_proj) reads; hidden vectors stay */
    QD_STAGE_MLP_IN,    /* hidden vectors are those behind the token mixer; up to what gate and up read */
    QD_STAGE_MLP_DOWN,  /* after MLP_IN: up to what down reads; hidden vectors stay */
    QD_STAGE_MLP        /* after MLP_IN: the rest of the layer */
} qd_stage;

/* Every entry may be NULL. Entries with a worker are called by several threads at once. */
typedef struct qd_forward_hooks {
    void *ctx;
    /* The weights of a layer are there and no tile has run: data of linears may be replaced in place (the original
     * dtype), or `data` pointed elsewhere until the next call. Before weight_pack. Once a layer, from the caller's
     * thread. Work that takes long is done by `tasks`. */
    qd_code (*on_weights)(void *ctx, qd_layer *layer, qd_tasks *tasks, qd_err *err);
    /* Values that go into linears. The linears read `replaced` [rows][cols], dense, where *ret_replaced is set. */
    qd_code (*on_input)(void *ctx, const qd_site *site, float *replaced, bool *ret_replaced, qd_err *err);
    /* The same on a device with memory of its own, where site->x and `replaced` are: asked before on_input, for which
     * the values are fetched only where *ret_done stays false. */
    qd_code (*on_input_there)(void *ctx, const qd_site *site, float *replaced, bool *ret_replaced, bool *ret_done,
                              qd_err *err);
    /* Keys (after RoPE) and values of whole sequences as they go into the cache: rows x cols, dense. */
    qd_code (*on_cache)(void *ctx, uint64_t layer, unsigned worker, const float *k, const float *v, uint64_t rows,
                        uint64_t cols, qd_err *err);
    /* Input of layer `index`, or what the final norm gives (index n_layers): rows x hidden, dense. */
    qd_code (*on_hidden)(void *ctx, uint64_t index, uint64_t first_row, uint64_t rows, const float *x, qd_err *err);
    /* Margins of the router's choice, one a token: see gpu/ops.h. */
    qd_code (*on_router)(void *ctx, uint64_t layer, uint64_t first_row, uint64_t rows, const float *margin,
                         qd_err *err);
    /* rows x vocab, dense. The head is not computed where this is NULL. */
    qd_code (*on_logits)(void *ctx, uint64_t first_row, uint64_t rows, const float *x, qd_err *err);
    /* A tile is through the layer, or the stage. From the tile's thread. */
    qd_code (*on_tile_end)(void *ctx, uint64_t tile, unsigned worker, qd_err *err);
    /* A tile failed: who waits for another tile in a hook gives up. From the tile's thread. */
    void (*on_failure)(void *ctx);
    /* At least five times a second, from the caller's thread. n_ticks: pieces of work done so far, a heartbeat. */
    void (*on_progress)(void *ctx, uint64_t layer, uint64_t n_layers, uint64_t tiles_done, uint64_t n_tiles,
                        uint64_t n_ticks);
} qd_forward_hooks;

typedef struct qd_forward_opts {
    const qd_ops *ops;  /* NULL: this processor */
    bool bf16;          /* round as an eager BF16 model does; else F32 */
    bool rope_bf16;     /* frequencies of RoPE rounded to BF16, as in a model that was cast to BF16 as a whole; not so
                           in one that was loaded as BF16 */
    bool all_experts;   /* on_input sees every token at every expert; outputs are those of the routed ones */
    unsigned n_threads; /* 0: one a processor */
    uint64_t memory_bytes; /* for activations: more than that goes to a file in spill_dir; 0: 1 GiB */
    const char *spill_dir; /* NULL: $TMPDIR or /tmp */
    qd_cancel *cancel;     /* may be NULL */
    bool keep_inputs;      /* of qd_stream_run(): what o and down read stays from the stage that ends there to the next,
                              where that is no more than memory_bytes: the mixer and the MLP run once, not twice */
} qd_forward_opts;

typedef struct qd_forward_stats {
    uint64_t flops;               /* of matrix products */
    double load_s, run_s;         /* reading weights; computing */
    uint64_t longest_tick_gap_us; /* between two ticks of all threads together, as the waiting one sees it */
    uint64_t lane_bytes;          /* scratch of the thread that had most */
    uint64_t peak_bytes;          /* anonymous + shared resident memory of the process, as far as it was seen */
    uint64_t device_bytes, device_peak_bytes; /* planned; most in use at once; 0: the device has no memory of its own */
    bool spilled;
} qd_forward_stats;

/* What decides the bytes of a pass besides model and tokens: for plans, and for who may go on with whose work. ops may
 * be NULL. ret has QD_FORWARD_NUMERICS_BYTES. */
enum {
    QD_FORWARD_NUMERICS_BYTES = 128
};
void qd_forward_numerics(const qd_ops *ops, char *ret);

/* Memory that a pass takes, before it runs: an upper bound of each part. */
typedef struct qd_forward_memory {
    uint64_t layer_bytes;  /* the largest layer, in the device's form too, or the head where logits are asked for */
    uint64_t weight_bytes; /* the same as it is loaded, of a layer only */
    uint64_t lane_bytes;   /* scratch of one thread */
    uint64_t activation_bytes;
    uint64_t angle_bytes; /* tables of RoPE */
    /* Of a device with memory of its own: the layer, the angles; and what each lane takes there. */
    uint64_t device_bytes, device_lane_bytes;
} qd_forward_memory;
void qd_forward_measure(const qd_model_index *x, const qd_tokens *t, const qd_forward_opts *opts,
                        const qd_forward_hooks *hooks, qd_forward_memory *ret);

/* Runs it, also without any tokens. Errors: QD_E_INPUT (an id outside the vocabulary: names sequence and place),
 * QD_E_CANCELED, those of qd_layer_load() and of hooks, QD_E_ROOM (no room for the spill file). */
QD_MUST_CHECK qd_code qd_forward_run(const qd_model_index *x, const qd_tokens *t, const qd_forward_opts *opts,
                                     const qd_forward_hooks *hooks, qd_forward_stats *ret, qd_err *err);

#endif
