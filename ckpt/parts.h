/* parts.h -- what checkpoint.c, index.c and side_files.c share; private to ckpt. */
#ifndef QD_CKPT_PARTS_H
#define QD_CKPT_PARTS_H

#include "ckpt/checkpoint.h"

#define QD_CKPT_INDEX_NAME  "model.safetensors.index.json"
#define QD_CKPT_SINGLE_NAME "model.safetensors"

/* A list of names in an arena; the arrays that it outgrows stay there until the arena goes. */
typedef struct qd_names {
    const char **at;
    uint32_t n, cap;
} qd_names;

QD_MUST_CHECK qd_code qd_names_add(qd_names *l, qd_arena *arena, const char *name, qd_err *err);
void qd_names_sort(qd_names *l);
void qd_names_unique(qd_names *l); /* of a sorted list */

typedef struct qd_index {
    json_t *root;       /* owned; NULL where there is no index */
    json_t *weight_map; /* borrowed: tensor name -> file name, every value a plain name that ends in .safetensors */
    char *path;         /* owned */
} qd_index;

/* Reads dir's index, if it has one, and adds each of its files to files once. */
QD_MUST_CHECK qd_code qd_index_load(const char *dir, qd_arena *arena, qd_index *ret, qd_names *files, qd_err *err);
/* The checkpoint holds exactly the tensors of the index, each in the file that it names. Expects c->by_name. */
QD_MUST_CHECK qd_code qd_index_match(const qd_index *x, const qd_ckpt *c, qd_err *err);
void qd_index_done(qd_index *x);

/* The safetensors files of dir without an index, into files: the single name, or the only one. */
QD_MUST_CHECK qd_code qd_find_weights(const char *dir, qd_arena *arena, qd_names *files, qd_err *err);
/* Fills c->side and c->skipped from c->dir and c->files. */
QD_MUST_CHECK qd_code qd_find_side_files(qd_ckpt *c, qd_err *err);

#endif
