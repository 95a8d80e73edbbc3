/* bpe.h -- byte-pair encoding of one word: the merge of the lowest rank first, of equal ranks the leftmost.
 *
 * Source: Sennrich et al. 2016; what tokenizer.json's "BPE" adds (byte fallback, unknown characters, ignore_merges) as
 * documented by Hugging Face's tokenizers. */
#ifndef QD_CKPT_BPE_H
#define QD_CKPT_BPE_H

#include "ckpt/tokenizer.h"
#include "ckpt/vocab.h"

enum {
    QD_BPE_SYMBOLS_MAX = 4 << 20 /* of one word: bounds the memory of a text that nothing cuts */
};

typedef struct qd_bpe_merge {
    int32_t left, right; /* left -1: an empty slot */
    uint32_t rank;
    int32_t id; /* what the two become */
} qd_bpe_merge;

typedef struct qd_bpe {
    const qd_vocab *vocab; /* not owned */
    qd_bpe_merge *slots;   /* open addressing; owned */
    uint32_t mask;
    bool byte_level; /* words are bytes, spelled in the vocabulary with the 256 characters of qd_byte_char() */
    bool fuse_unk, ignore_merges;
    bool byte_fallback;
    int32_t unk;           /* -1: unknown characters vanish; -2: they are an error */
    int32_t byte_ids[256]; /* byte_level: the id of the byte's character, -1 when there is none */
    int32_t fallback[256]; /* "<0x0A>"; -1 when there is none */
    struct qd_bpe_word *cache;
    struct qd_bpe_long *scratch;
    qd_ids symbols; /* of the word at hand */
    qd_buf spelled; /* the same as the vocabulary spells it */
} qd_bpe;

/* Room for n merges; the flags and vocab are set before. */
QD_MUST_CHECK qd_code qd_bpe_init(qd_bpe *b, size_t n_merges, qd_err *err);
/* left and right become id; a pair that is there already gets the new rank. */
void qd_bpe_add_merge(qd_bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id);
/* Appends the ids of one word; on failure *ids may hold a part of them. */
QD_MUST_CHECK qd_code qd_bpe_encode(qd_bpe *b, const char *word, size_t len, qd_ids *ids, qd_err *err);
void qd_bpe_done(qd_bpe *b);

/* Byte-level alphabet: the code point that stands for a byte (33..126, 161..172, 174..255 for themselves, the others
 * from 256 on in order), and back (-1: not of the alphabet). */
uint32_t qd_byte_char(uint8_t byte);
int qd_byte_of_char(uint32_t code_point);

#endif
