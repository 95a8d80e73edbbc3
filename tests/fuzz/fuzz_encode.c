/* fuzz_encode.c -- any bytes as text for a byte-level tokenizer and one with byte fallback: UTF-8 comes back as it was,
 * anything else is refused. */
#include "ckpt/tokenizer.h"
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void promise(bool kept)
{
    if (!kept) abort();
}

/* All characters of the byte-level alphabet, or all bytes as "<0x..>", and a few merges. */
static qd_tokenizer *make(bool byte_level)
{
    qd_buf b = {0};
    qd_err err = {0};
    qd_tokenizer *t = NULL;
    qd_buf_str(&b, "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{");
    for (unsigned i = 0; i < 256; i++) {
        bool itself = (i >= 33 && i <= 126) || (i >= 161 && i != 173);
        unsigned c = itself ? i : i <= 32 ? 256 + i : i == 173 ? 323 : 256 + 33 + i - 127;
        if (byte_level)
            qd_buf_printf(&b, "\"\\u%04x\":%u,", c, i);
        else
            qd_buf_printf(&b, "\"<0x%02X>\":%u,", i, i);
    }
    qd_buf_str(&b,
               byte_level ? "\"ab\":256,\"abab\":257,\"\\u0120a\":258}," : "\"a\":258,\"b\":259,\"\xe2\x96\x81\":260,");
    if (!byte_level)
        qd_buf_str(&b, "\"ab\":256,\"abab\":257,\"\xe2\x96\x81"
                       "a\":261},");
    qd_buf_printf(&b, "\"merges\":[\"a b\",\"ab ab\",\"%s a\"]},", byte_level ? "\\u0120" : "\xe2\x96\x81");
    qd_buf_str(&b, byte_level ? "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                                "\"decoder\":{\"type\":\"ByteLevel\"},"
                              : "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
                                "\"content\":\"\xe2\x96\x81\"},\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
                                "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},");
    qd_buf_str(&b, "\"added_tokens\":[{\"id\":300,\"content\":\"<s>\",\"special\":true}]}");
    promise(!b.failed && qd_tokenizer_parse(b.data, b.len, "t", &t, &err) == QD_OK);
    qd_buf_done(&b);
    return t;
}

static bool is_utf8(const uint8_t *s, size_t len)
{
    for (size_t at = 0, n; at < len; at += n) {
        uint32_t c = s[at], least = 0;
        n = c < 0x80 ? 1 : c >= 0xc0 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf8 ? 4 : 0;
        if (n == 0 || n > len - at) return false;
        least = n == 2 ? 0x80 : n == 3 ? 0x800 : n == 4 ? 0x10000 : 0;
        c = n == 1 ? c : c & (0x7fU >> n);
        for (size_t i = 1; i < n; i++) {
            if ((s[at + i] & 0xc0) != 0x80) return false;
            c = c << 6 | (s[at + i] & 0x3fU);
        }
        if (c < least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return false;
    }
    return true;
}

static void check(qd_tokenizer *t, bool byte_level, const uint8_t *data, size_t size)
{
    qd_ids ids = {0}, again = {0};
    qd_buf out = {0};
    qd_err err = {0};
    qd_code rc = qd_tokenizer_encode(t, (const char *)data, size, false, &ids, &err);
    promise(is_utf8(data, size) ? rc == QD_OK : rc == QD_E_INPUT && ids.n == 0 && err.msg[0] != '\0');
    if (rc == QD_OK) {
        promise(ids.n <= size * (byte_level ? 1 : 3));
        promise(qd_tokenizer_decode(t, ids.data, ids.n, false, &out, &err) == QD_OK);
        if (byte_level) promise(out.len == size && (size == 0 || memcmp(out.data, data, size) == 0));
        promise(qd_tokenizer_encode(t, (const char *)data, size, false, &again, &err) == QD_OK);
        promise(again.n == ids.n && (ids.n == 0 || memcmp(again.data, ids.data, ids.n * sizeof *ids.data) == 0));
    }
    qd_ids_done(&ids);
    qd_ids_done(&again);
    qd_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static qd_tokenizer *tokenizers[2]; /* made once: they cost more than most inputs */
    for (int byte_level = 0; byte_level < 2; byte_level++) {
        if (tokenizers[byte_level] == NULL) tokenizers[byte_level] = make(byte_level);
        check(tokenizers[byte_level], byte_level, data, size);
    }
    return 0;
}
