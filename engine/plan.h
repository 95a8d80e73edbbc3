/* plan.h -- everything a job will do, from headers and config.json alone: what is quantized, what is copied, every
 * output file and offset, tiles, memory. Nothing is computed or written before a plan stands; its hash pins what a
 * resume may continue. */
#ifndef QD_ENGINE_PLAN_H
#define QD_ENGINE_PLAN_H

#include "base/hash.h"
#include "ckpt/arch.h"
#include "engine/device_memory.h"
#include "engine/method.h"
#include "quant/stats.h"

#define QD_NUMERICS_VERSION 2u
/* Source bytes of a tile. Part of the numerics (sums are added tile by tile), so it depends on nothing. */
#define QD_TILE_BYTES ((uint64_t)4 << 20)
#define QD_NONE       UINT32_MAX
/* Of any job: the code's own data, stacks, allocator slack; measured, rounded up. */
#define QD_FIXED_BYTES ((uint64_t)12 << 20)

typedef enum qd_unit_kind {
    QD_UNIT_COPY,    /* bytes as they are */
    QD_UNIT_WIDEN,   /* block-scaled F8_E4M3 that is not quantized: to BF16 */
    QD_UNIT_QUANTIZE /* a fused set: linears that share one global scale */
} qd_unit_kind;

/* One source range and what becomes of it. A copy is seen as rows of one byte. */
typedef struct qd_item {
    const char *name;      /* module of a linear, tensor of a copy */
    uint32_t tensor;       /* source */
    uint32_t scale_tensor; /* block scales of an F8 source, QD_NONE otherwise */
    qd_dtype dtype;        /* of the source */
    uint64_t src_off;      /* absolute in its file */
    uint64_t first_row, rows, cols;
    uint64_t row_bytes, tile_rows;
    int32_t expert; /* -1: of none */
    char kv;        /* 'k', 'v': the projection whose cache has a scale; 0: none */
    uint32_t unit, first_tile, n_tiles;
    uint32_t out[QD_PART_KIND_COUNT]; /* into outs; a copy uses out[0]; QD_NONE where the format has no such part */
} qd_item;

typedef struct qd_unit {
    qd_unit_kind kind;
    qd_role role;
    int32_t layer; /* -1: before the first or after the last */
    uint32_t first_item, n_items, first_tile, n_tiles;
    uint64_t src_bytes, out_bytes;
} qd_unit;

typedef struct qd_out_part {
    const char *name;
    uint64_t size_bytes;
    qd_buf header; /* length field and JSON */
} qd_out_part;

/* The calibration pass of a plan; all zero for a job without. Bytes are upper bounds. */
typedef struct qd_plan_pass {
    uint64_t n_samples, n_tokens;
    qd_forward_memory memory;
    unsigned n_threads;
    uint64_t observer_bytes; /* statistics of a layer, block amaxes of the threads' tiles, codes of rounded weights */
    uint64_t spill_bytes;    /* activations in a file beside the output; 0: all in memory */
    uint64_t peak_bytes;     /* of its own parts together */
    double flop;             /* of matrix products with weights */
} qd_plan_pass;

typedef struct qd_plan {
    qd_arena arena;
    const qd_ckpt *ckpt;     /* not owned */
    const qd_arch *arch;     /* NULL: generic rules */
    const qd_template *tmpl; /* not owned */
    const qd_format *format;
    qd_method method;
    const qd_ops *ops;      /* of the calibration pass; NULL: this processor */
    qd_nvfp4_recipe recipe; /* of method, as are the next */
    qd_input_rule input_rule;
    qd_hash128 calib_hash; /* of the calibration tokens */
    uint32_t n_local;      /* ranks that share this host's memory, each with the peak below */
    uint32_t n_ranks;      /* where the output's bytes depend on them: sums of floats over ranks; else 1 */
    qd_item *items;
    uint32_t n_items;
    qd_unit *units; /* in the order of work */
    uint32_t n_units;
    uint32_t *tile_item; /* [n_tiles] */
    uint32_t n_tiles;
    qd_tensor *outs; /* off absolute in its part; file = part */
    uint32_t n_outs;
    qd_out_part *parts;
    uint32_t n_parts;
    qd_format_info info;
    const char **warnings;
    uint32_t n_warnings;
    uint32_t n_linears, n_copied, n_layers;
    uint64_t src_bytes, out_bytes, file_bytes, n_weights; /* file_bytes: of all parts with headers */
    qd_hash128 hash;
    /* memory */
    unsigned n_workers, n_compute;
    uint32_t n_slots;
    uint64_t slot_bytes, worker_bytes, peak_bytes; /* peak: of pipeline or calibration, whichever has more */
    uint64_t activation_bytes;                     /* W4A4: of calibration tokens in memory; more goes to a file */
    qd_plan_pass pass;
    uint64_t host_memory_bytes; /* that the job may take */
    qd_device_plan device;      /* memory_bytes 0: of a job on the processor */
} qd_plan;

/* Plans opts over an open checkpoint, which must outlive it. *ret zeroed before, qd_plan_done() after.
 * Errors: QD_E_INPUT (shapes, K % 16, names that collide), QD_E_UNSUPPORTED (already quantized, input scales needed,
 * dtype), QD_E_USAGE (settings), QD_E_ROOM (memory below the least possible), QD_E_NO_MEMORY. */
/* tokens: of calibration, whose hash is part of the plan's; NULL for a job without. */
struct qd_job_tokens;
QD_MUST_CHECK qd_code qd_plan_make(const qd_job_opts *opts, const qd_ckpt *ckpt, const struct qd_job_tokens *tokens,
                                   qd_plan *ret, qd_err *err);
void qd_plan_done(qd_plan *p);

/* engine/select.c, units.c: units and items from tensors. */
QD_MUST_CHECK qd_code qd_plan_select(qd_plan *p, qd_err *err);
/* engine/kv_cache.c: marks the projections whose keys and values get an FP8 scale. Errors: those of
 * qd_model_index_open(); QD_E_UNSUPPORTED where the model has none. */
QD_MUST_CHECK qd_code qd_plan_kv_cache(qd_plan *p, qd_err *err);
/* engine/layout.c: output tensors, parts, offsets, headers, hash. */
QD_MUST_CHECK qd_code qd_plan_layout(qd_plan *p, uint64_t shard_bytes, qd_err *err);
/* engine/memory.c: workers, slots and the peak from a budget. */
QD_MUST_CHECK qd_code qd_plan_memory(qd_plan *p, unsigned n_threads, uint64_t memory_bytes, qd_err *err);
/* engine/room.c: QD_E_ROOM with the figures when disk or memory does not suffice. held_bytes: already reserved by a
 * staging directory. out_dir NULL: the disk is not asked. */
QD_MUST_CHECK qd_code qd_plan_check_room(const qd_plan *p, const char *out_dir, uint64_t held_bytes, qd_err *err);
uint64_t qd_memory_available_bytes(void); /* of this machine; UINT64_MAX / 1024 * 1024 where it does not tell */
/* engine/plan_show.c, device_show.c */
void qd_plan_text(const qd_plan *p, const char *out_dir, qd_buf *out);
QD_MUST_CHECK qd_code qd_plan_json(const qd_plan *p, const char *out_dir, qd_buf *out, qd_err *err);
void qd_device_plan_text(const qd_plan *p, qd_buf *out); /* nothing for a job on the processor */
void qd_device_plan_json(const qd_plan *p, qd_buf *out);

QD_MUST_CHECK qd_code qd_plan_warn(qd_plan *p, qd_err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Tile t of the plan: rows [row, row + n) of its item. */
typedef struct qd_tile {
    const qd_item *item;
    uint64_t row, n_rows;
} qd_tile;
qd_tile qd_plan_tile(const qd_plan *p, uint32_t t);

/* The bytes a tile leaves in part kind k of its item (k = 0 for copies): offset in the part file and length. */
typedef struct qd_extent {
    uint32_t part;
    uint64_t off, bytes;
} qd_extent;
qd_extent qd_plan_extent(const qd_plan *p, const qd_tile *t, qd_part_kind k);

#endif
