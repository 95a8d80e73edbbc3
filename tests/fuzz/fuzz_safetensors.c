/* fuzz_safetensors.c -- any bytes as a safetensors file: refused, or read so that what is written again reads the same.
 */
#include "ckpt/safetensors.h"
#include "fuzz.h"
#include "memory.h"

#include <string.h>

static void check_cover(const qd_st_header *h, uint64_t file_bytes)
{
    uint64_t at = h->data_off;
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        const qd_tensor *t = &h->tensors[i];
        uint64_t elems = 1;
        for (uint32_t k = 0; k < t->rank; k++) elems *= t->shape[k];
        promise(t->off == at && t->n_elems == elems && t->bytes == elems * qd_dtype_bytes(t->dtype));
        at += t->bytes;
    }
    promise(at == file_bytes);
}

static void check_round_trip(qd_st_header *h, uint64_t file_bytes)
{
    qd_buf out = {0};
    qd_arena arena = {0};
    qd_st_header again = {0};
    for (uint32_t i = 0; i < h->n_tensors; i++) h->tensors[i].off -= h->data_off;
    promise(qd_st_write_header(h->tensors, h->n_tensors, h->meta, h->n_meta, &out, NULL) == QD_OK);
    promise(out.len % 8 == 0);
    uint64_t data_bytes = file_bytes - h->data_off;
    promise(qd_st_parse_header(out.data + 8, out.len - 8, out.len + data_bytes, "again", &arena, &again, NULL) ==
            QD_OK);
    promise(again.n_tensors == h->n_tensors && again.n_meta == h->n_meta);
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        const qd_tensor *a = &h->tensors[i], *b = &again.tensors[i];
        promise(strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->rank == b->rank && a->bytes == b->bytes);
        promise(memcmp(a->shape, b->shape, sizeof a->shape) == 0 && b->off - again.data_off == a->off);
    }
    qd_arena_done(&arena);
    qd_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memory m = {data, size};
    qd_source src = memory_source(&m);
    qd_arena arena = {0};
    qd_st_header h = {0};
    qd_err err = {0};
    qd_code rc = qd_st_read_header(&src, &arena, &h, &err);
    promise(rc == QD_OK || (rc == QD_E_INPUT && err.code == rc && err.msg[0] != '\0'));
    if (rc == QD_OK) {
        check_cover(&h, size);
        check_round_trip(&h, size);
    }
    qd_arena_done(&arena);
    return 0;
}
