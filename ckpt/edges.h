/* edges.h -- pages of a file that no single write covers: their pieces wait here until the page is whole, so that it
 * can be written directly as the pages around it are. Private to the sink.
 *
 * A buffered write of a piece would hold the file's lock alone and so wait for every direct write under way. */
#ifndef QD_CKPT_EDGES_H
#define QD_CKPT_EDGES_H

#include "ckpt/source.h" /* QD_IO_ALIGN */

#include <pthread.h>
#include <stdbool.h>

typedef struct qd_edge_page {
    unsigned char data[QD_IO_ALIGN]; /* first: aligned as the page is */
    bool have[QD_IO_ALIGN];
    uint64_t off; /* in the file */
    size_t n_have;
    struct qd_edge_page *next;
} qd_edge_page;

typedef struct qd_edges {
    pthread_mutex_t lock;
    qd_edge_page *first;
    uint64_t file_bytes;
} qd_edges;

void qd_edges_init(qd_edges *e, uint64_t file_bytes);
/* Drops what was not taken. */
void qd_edges_done(qd_edges *e);

/* Adds n bytes at off, all in one page. *ret_whole: the page if that completed it (up to the file's end), else NULL; it
 * is then the caller's, to be freed with qd_free(). Errors: QD_E_NO_MEMORY. Any number of threads. */
QD_MUST_CHECK qd_code qd_edges_add(qd_edges *e, uint64_t off, const void *data, size_t n, qd_edge_page **ret_whole,
                                   qd_err *err);
/* A page that touches [off, off + n), whole or not; NULL when there is none (left). It is the caller's. */
qd_edge_page *qd_edges_take(qd_edges *e, uint64_t off, uint64_t n);

/* The first piece at or after *at: its length, and *at where it begins; 0 when there is none. */
size_t qd_edge_piece(const qd_edge_page *page, size_t *at);

#endif
