/* arch_tables.h -- what a table of an architecture looks like; shared by the matching engine and the tables only. */
#ifndef QD_CKPT_ARCH_TABLES_H
#define QD_CKPT_ARCH_TABLES_H

#include "ckpt/arch.h"

/* One row. The pattern covers the whole name after the text model's prefix ("model.", "language_model.", or both in
 * either order):
 *   #      a decimal number; the first is the layer, the second the expert
 *   *      one or more characters up to the next '.'
 *   {a,b}  one of these words
 *   >      everything that is left, at least one character; only at the end
 * The first row that matches decides. */
typedef struct qd_arch_row {
    const char *pattern;
    qd_role role;
    const char *fuse; /* NULL: no set */
    qd_split split;
    bool fuse_apart_in_ct; /* llm-compressor does not tie this set */
} qd_arch_row;

struct qd_arch {
    const char *model_type; /* of the text model, without "_text" */
    const qd_arch_row *rows;
    uint32_t n_rows;
};

extern const qd_arch qd_arch_tables[];
extern const uint32_t qd_arch_n_tables;

/* The rules for an architecture without a table (arch_generic.c). */
void qd_arch_place_generic(const qd_tensor *t, qd_place *ret);
/* Number after a component that usually holds the layers ("layers", "h", "blocks", ...), -1 when there is none. */
int32_t qd_arch_layer_of(const char *name);
/* Reads the decimal number at s into *ret and returns the first byte after it; NULL when there is none or it is too
 * large. */
const char *qd_arch_number(const char *s, int32_t *ret);

#endif
