"""GGUF files, true and not, with the standard library alone: what the tests of import-gguf and the fuzz corpus write."""
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMAT = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24),
         "Q8_0": (8, 32, 34), "Q2_K": (10, 256, 84), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210),
         "BF16": (30, 1, 2)}  # number, elements and bytes a block
SPACE = "\u2581"


class Typed:
    """A value of a kind that Python's own does not say; bytes are taken as they are."""

    def __init__(self, kind, value):
        self.kind, self.value = kind, value


class Tensor:
    """shape as in safetensors; offset and number: lies."""

    def __init__(self, dtype, shape, data, offset=None, number=None):
        self.dtype, self.shape, self.data, self.offset, self.number = dtype, tuple(shape), data, offset, number


def string(s):
    b = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(b)) + b


def kind_of(v):
    if isinstance(v, Typed):
        return v.kind
    return {bool: BOOL, int: U32, float: F32, str: STRING, bytes: STRING, list: ARRAY}[type(v)]


def payload(v):
    kind = kind_of(v)
    v = v.value if isinstance(v, Typed) else v
    if kind == STRING:
        return string(v)
    if isinstance(v, bytes):
        return v
    if kind == ARRAY:
        item = I32 if v and isinstance(v[0], int) and not isinstance(v[0], bool) else kind_of(v[0]) if v else STRING
        return struct.pack("<IQ", item, len(v)) + b"".join(payload(Typed(item, x)) for x in v)
    return struct.pack("<" + FORMAT[kind], v)


def head(pairs, tensors, version=3, magic=b"GGUF", n_tensors=None, n_pairs=None, align=32):
    """pairs and tensors: dictionaries, or lists of (name, value) where a name is to be there twice."""
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    tensors = list(tensors.items()) if isinstance(tensors, dict) else tensors
    out = magic + struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors,
                              len(pairs) if n_pairs is None else n_pairs)
    for k, v in pairs:
        out += string(k) + struct.pack("<I", kind_of(v)) + payload(v)
    at = 0
    for name, t in tensors:
        out += string(name) + struct.pack("<I", len(t.shape)) + struct.pack(f"<{len(t.shape)}Q", *reversed(t.shape))
        out += struct.pack("<IQ", TYPES[t.dtype][0] if t.number is None else t.number, at if t.offset is None else t.offset)
        at += len(t.data) + -len(t.data) % align
    return out


def file(pairs, tensors, align=32, **more):
    out = head(pairs, tensors, align=align, **more)
    out += bytes(-len(out) % align)
    for _, t in (tensors.items() if isinstance(tensors, dict) else tensors):
        out += t.data + bytes(-len(t.data) % align)
    return out


def vocabulary(n):
    """A byte-level one of n tokens: special ones, letters, and one merge."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [chr(c) for c in range(0x21, 0x7f)] + ["\u0120", "ab"]
    tokens += [f"[PAD{i}]" for i in range(n - len(tokens))]
    types = [3, 3, 3] + [1] * (len(tokens) - 3)
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": ["a b"], "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.chat_template": "{{ messages }}\n\"x\""}


def config(arch="llama", layers=1, hidden=256, ffn=256, heads=4, kv=2, vocab=128, **more):
    c = {"general.architecture": arch, f"{arch}.block_count": layers, f"{arch}.context_length": 512,
         f"{arch}.embedding_length": hidden, f"{arch}.feed_forward_length": ffn, f"{arch}.attention.head_count": heads,
         f"{arch}.attention.head_count_kv": kv, f"{arch}.rope.freq_base": 10000.0,
         f"{arch}.attention.layer_norm_rms_epsilon": Typed(F64, 1e-5)}
    c.update(vocabulary(vocab))
    c.update(more)
    return c
