"""Safetensors and small model directories, with the standard library alone: what the end-to-end tests write and read."""
import array
import json
import math
import os
import random
import struct

WIDTH = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4,
         "F32": 4, "F64": 8, "I64": 8, "U64": 8}


class Tensor:
    """dtype, shape and bytes (or how to read them)."""

    def __init__(self, dtype, shape, data):
        self.dtype, self.shape, self.data = dtype, tuple(shape), data

    def __eq__(self, other):
        return (self.dtype, self.shape, self.data) == (other.dtype, other.shape, other.data)

    def __repr__(self):
        return f"Tensor({self.dtype}, {list(self.shape)}, {len(self.data)} bytes)"

    def floats(self):
        """Values of an F32 tensor."""
        return list(struct.unpack(f"<{len(self.data) // 4}f", self.data))


def header(tensors, metadata=None):
    """Header bytes for tensors in the order given, one after the other."""
    h, at = {}, 0
    if metadata:
        h["__metadata__"] = metadata
    for name, t in tensors.items():
        h[name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [at, at + len(t.data)]}
        at += len(t.data)
    return json.dumps(h, separators=(",", ":")).encode()


def raw(path, header_bytes, data=b"", length=None):
    """A file with any header, true or not; length: what its first eight bytes say."""
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(header_bytes) if length is None else length))
        f.write(header_bytes)
        f.write(data)


def write(path, tensors, metadata=None):
    h = header(tensors, metadata)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h)
        for t in tensors.values():
            f.write(t.data)


def read_header(path):
    """(tensors as in the file with "data_offsets", metadata, where the data begins)"""
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        h = json.loads(f.read(n))
    meta = h.pop("__metadata__", {})
    return h, meta, 8 + n


def read(path):
    h, _, start = read_header(path)
    out = {}
    with open(path, "rb") as f:
        for name, t in h.items():
            a, b = t["data_offsets"]
            f.seek(start + a)
            out[name] = Tensor(t["dtype"], t["shape"], f.read(b - a))
    return out


def read_dir(path):
    """All tensors of all safetensors files of a directory; a name in two files is an error."""
    out = {}
    for name in sorted(os.listdir(path)):
        if name.endswith(".safetensors"):
            for k, t in read(os.path.join(path, name)).items():
                if k in out:
                    raise ValueError(f"{path}: {k} is in two files")
                out[k] = t
    return out


def bf16(values):
    """Floats cut to BF16 (not rounded: any BF16 value will do)."""
    f = array.array("f", values).tobytes()
    out = bytearray(len(f) // 2)
    out[0::2] = f[2::4]
    out[1::2] = f[3::4]
    return bytes(out)


def f32(values):
    return struct.pack(f"<{len(values)}f", *values)


def random_tensor(dtype, shape, rng, sigma=0.02):
    """A normal one; large ones repeat a pool with a random start, which is enough to tell rows apart."""
    n = math.prod(shape)
    pool_n = min(n, 65521)  # prime: no two rows of a usual width are alike
    values = [rng.gauss(0.0, sigma) for _ in range(pool_n)]
    if dtype == "BF16":
        pool = bf16(values)
    elif dtype == "F16":
        pool = struct.pack(f"<{pool_n}e", *values)
    elif dtype == "F32":
        pool = f32(values)
    else:
        raise ValueError(dtype)
    times = n // pool_n + 1
    return Tensor(dtype, shape, (pool * times)[:n * WIDTH[dtype]])


def llama(layers=2, hidden=64, ffn=96, vocab=128, kv=32, dtype="BF16", seed=1):
    """Tensors of a llama of any size."""
    rng = random.Random(seed)
    t = {"model.embed_tokens.weight": random_tensor(dtype, (vocab, hidden), rng)}
    ones = Tensor(dtype, (hidden,), bf16([1.0] * hidden) if dtype == "BF16" else random_tensor(dtype, (hidden,), rng, 1.0).data)
    for i in range(layers):
        p = f"model.layers.{i}."
        for name, shape in (("self_attn.q_proj", (hidden, hidden)), ("self_attn.k_proj", (kv, hidden)),
                            ("self_attn.v_proj", (kv, hidden)), ("self_attn.o_proj", (hidden, hidden)),
                            ("mlp.gate_proj", (ffn, hidden)), ("mlp.up_proj", (ffn, hidden)), ("mlp.down_proj", (hidden, ffn))):
            t[f"{p}{name}.weight"] = random_tensor(dtype, shape, rng)
        t[p + "input_layernorm.weight"] = ones
        t[p + "post_attention_layernorm.weight"] = ones
    t["model.norm.weight"] = ones
    t["lm_head.weight"] = random_tensor(dtype, (vocab, hidden), rng)
    return t


def config(**more):
    c = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128,
         "max_position_embeddings": 256, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": False,
         "torch_dtype": "bfloat16"}
    c.update(more)
    return c


def put_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)


def make_dir(path, tensors, cfg=None, shards=1, side=None):
    """A model directory; with shards > 1 an index too. side: {name: bytes} of further files."""
    os.makedirs(path)
    put_json(os.path.join(path, "config.json"), config() if cfg is None else cfg)
    for name, data in (side or {}).items():
        with open(os.path.join(path, name), "wb") as f:
            f.write(data)
    if shards == 1:
        write(os.path.join(path, "model.safetensors"), tensors, {"format": "pt"})
        return path
    names, files = list(tensors), {}
    for s in range(shards):
        file = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
        part = {n: tensors[n] for n in names[s::shards]}
        write(os.path.join(path, file), part, {"format": "pt"})
        files.update(dict.fromkeys(part, file))
    put_json(os.path.join(path, "model.safetensors.index.json"),
             {"metadata": {"total_size": sum(len(t.data) for t in tensors.values())}, "weight_map": files})
    return path
