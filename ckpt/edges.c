#include "ckpt/edges.h"

#include "base/mem.h"

#include <string.h>

void qd_edges_init(qd_edges *e, uint64_t file_bytes)
{
    *e = (qd_edges){.file_bytes = file_bytes};
    (void)pthread_mutex_init(&e->lock, NULL);
}

void qd_edges_done(qd_edges *e)
{
    while (e->first != NULL) {
        qd_edge_page *page = e->first;
        e->first = page->next;
        qd_free(page);
    }
    (void)pthread_mutex_destroy(&e->lock);
}

/* Where the list points to the page at off, or its end. Few pages wait at a time: two a range under way. */
static qd_edge_page **find(qd_edges *e, uint64_t off)
{
    qd_edge_page **at = &e->first;
    while (*at != NULL && (*at)->off != off) at = &(*at)->next;
    return at;
}

qd_code qd_edges_add(qd_edges *e, uint64_t off, const void *data, size_t n, qd_edge_page **ret_whole, qd_err *err)
{
    const uint64_t page_off = off & ~((uint64_t)QD_IO_ALIGN - 1);
    const size_t from = (size_t)(off - page_off),
                 page_bytes = (size_t)qd_min_u64(QD_IO_ALIGN, e->file_bytes - page_off);
    qd_code rc = QD_OK;
    *ret_whole = NULL;
    (void)pthread_mutex_lock(&e->lock);
    qd_edge_page **at = find(e, page_off), *page = *at;
    if (page == NULL) {
        page = qd_malloc_aligned(QD_IO_ALIGN, sizeof *page);
        if (page == NULL) {
            rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a page of %zu bytes", sizeof *page);
            goto out;
        }
        memset(page, 0, sizeof *page);
        page->off = page_off;
        *at = page;
    }
    memcpy(page->data + from, data, n);
    for (size_t i = from; i < from + n; i++) {
        page->n_have += !page->have[i];
        page->have[i] = true;
    }
    if (page->n_have == page_bytes) {
        *at = page->next;
        *ret_whole = page;
    }
out:
    (void)pthread_mutex_unlock(&e->lock);
    return rc;
}

qd_edge_page *qd_edges_take(qd_edges *e, uint64_t off, uint64_t n)
{
    (void)pthread_mutex_lock(&e->lock);
    qd_edge_page **at = &e->first;
    while (*at != NULL && ((*at)->off + QD_IO_ALIGN <= off || (*at)->off >= off + n)) at = &(*at)->next;
    qd_edge_page *page = *at;
    if (page != NULL) *at = page->next;
    (void)pthread_mutex_unlock(&e->lock);
    return page;
}

size_t qd_edge_piece(const qd_edge_page *page, size_t *at)
{
    size_t from = *at;
    while (from < QD_IO_ALIGN && !page->have[from]) from++;
    size_t end = from;
    while (end < QD_IO_ALIGN && page->have[end]) end++;
    *at = from;
    return end - from;
}
