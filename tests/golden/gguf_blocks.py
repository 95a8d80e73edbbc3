#!/usr/bin/env python3
"""Writes gguf_blocks.json: blocks of every ggml type that is imported and the BF16 values they stand for, 512 a type.
usage: gguf_blocks.py > gguf_blocks.json     (needs the PyPI packages gguf and numpy)

Blocks are random bytes; their half-precision scales are made finite. The values are gguf's own dequantization, rounded to
nearest even by gguf's BF16 writer."""
import json

import gguf
import numpy as np

SCALES_AT = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def blocks(name, rng):
    kind = gguf.GGMLQuantizationType[name]
    elems, size = gguf.GGML_QUANT_SIZES[kind]
    n = 512 // elems
    if name == "F32":
        return rng.standard_normal(n).astype("<f4").view(np.uint8).reshape(n, size)
    if name in ("F16", "BF16"):
        values = rng.standard_normal(n).astype("<f4")
        data = values.astype("<f2") if name == "F16" else (values.view("<u4") >> 16).astype("<u2")
        return data.view(np.uint8).reshape(n, size)
    data = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in SCALES_AT[name]:
        data[:, at:at + 2] = (rng.standard_normal(n) * 0.01).astype("<f2").view(np.uint8).reshape(n, 2)
    data[0, SCALES_AT[name][0]:SCALES_AT[name][0] + 2] = [1, 0]  # a subnormal scale
    return data


def main():
    rng, out = np.random.default_rng(20), {}
    for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"):
        b = blocks(name, rng)
        values = gguf.quants.dequantize(b.reshape(1, -1), gguf.GGMLQuantizationType[name]).astype(np.float32)
        bf16 = gguf.quants.quantize(values.reshape(1, -1), gguf.GGMLQuantizationType.BF16)
        out[name] = {"blocks": b.tobytes().hex(), "bf16": bf16.tobytes().hex()}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
