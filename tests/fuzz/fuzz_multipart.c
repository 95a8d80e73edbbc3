/* Fuzzes multipart/form-data: the first byte says in what pieces it comes; pieces must make no difference. */
#include "base/buf.h"
#include "fuzz.h"
#include "gateway/multipart.h"

#include <stdlib.h>
#include <string.h>

static bool on_begin(void *ctx, const char *name, const char *filename)
{
    qd_buf_printf(ctx, "<%s|%s:", name, filename != NULL ? filename : "");
    return true;
}

static bool on_data(void *ctx, const char *data, size_t n)
{
    qd_buf_add(ctx, data, n);
    return true;
}

static bool on_end(void *ctx)
{
    qd_buf_str(ctx, ">");
    return true;
}

static bool parse(const char *body, size_t n, size_t step, qd_buf *ret)
{
    static const qd_multipart_ops ops = {on_begin, on_data, on_end};
    qd_multipart m;
    bool ok = qd_multipart_begin(&m, "multipart/form-data; boundary=b", &ops, ret);
    for (size_t i = 0; i < n && ok; i += step) ok = qd_multipart_feed(&m, body + i, n - i < step ? n - i : step);
    return ok && qd_multipart_over(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qd_buf whole = {0}, pieces = {0};
    if (size < 2) return 0;
    const char *body = (const char *)data + 1;
    bool a = parse(body, size - 1, size - 1, &whole), b = parse(body, size - 1, 1 + data[0] % 16, &pieces);
    if (a != b ||
        (a && (whole.len != pieces.len || (whole.len != 0 && memcmp(whole.data, pieces.data, whole.len) != 0))))
        abort();
    qd_buf_done(&whole);
    qd_buf_done(&pieces);
    return 0;
}
