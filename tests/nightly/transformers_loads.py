#!/usr/bin/env python3
"""transformers_loads.py [MODEL...] -- transformers loads what quantctl writes, and takes the weights for what we say they are.

For every shared fixture and each MODEL (a directory in BF16), in the compressed-tensors format: no key is missing or of a
wrong shape; what is loaded has the files' bytes; the weights that compressed-tensors makes of it for the first forward pass
are those that the code here decodes from the files, rounded to BF16. Routed experts are decoded by transformers' own loader,
which leaves out their global scale (huggingface/transformers#48371): both values pass, and the output says which it was.
QD_QUANTCTL, QD_SHARED_DIR: see tests/e2e/qd.py."""
import os
import re
import shutil
import sys
import tempfile

import numpy as np
import torch
import transformers

import qd
import st

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
MIXTRAL = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
EXPERT_SCALE = re.compile(r".*\.experts\.\d+\.\w+\.weight_global_scale$")
DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "U8": torch.uint8, "F8_E4M3": torch.float8_e4m3fn}


def e4m3(codes):
    """Values of non-negative E4M3 codes: 4 bits of exponent, bias 7, 3 of mantissa."""
    exponent, mantissa = (codes >> 3).astype(np.int32), (codes & 7).astype(np.float32)
    return np.where(exponent == 0, np.ldexp(mantissa, -9), np.ldexp(1 + mantissa / 8, exponent - 7)).astype(np.float32)


def decode(tensors, module, with_global=True):
    """The BF16 weights of a module from the file's bytes: code * (block scale / global scale), in FP32."""
    packed, scale = tensors[module + ".weight_packed"], tensors[module + ".weight_scale"]
    n, half = packed.shape
    b = np.frombuffer(packed.data, np.uint8).reshape(n, half)
    codes = np.stack([b & 15, b >> 4], axis=-1).reshape(n, half // 8, 16)
    s = e4m3(np.frombuffer(scale.data, np.uint8).reshape(n, half // 8))
    if with_global:
        s = s / np.float32(tensors[module + ".weight_global_scale"].floats()[0])
    w = E2M1[codes] * s[..., None]
    return torch.from_numpy(w.reshape(n, half * 2)).to(torch.bfloat16)


def bits(t):
    """A tensor to compare: the same bytes, whatever the dtype."""
    return t.detach().contiguous().flatten().view(torch.uint8)


def from_file(t):
    return torch.frombuffer(bytearray(t.data), dtype=DTYPES[t.dtype]).reshape(t.shape)


def loaded_name(name):
    """transformers 5's name of a tensor of the file."""
    return name.replace(".block_sparse_moe.", ".mlp.")


class Model:
    """One output, loaded."""

    def __init__(self, path):
        self.files = st.read_dir(path)
        config = transformers.AutoConfig.from_pretrained(path)
        kind = getattr(transformers, config.architectures[0])
        self.model, self.info = kind.from_pretrained(path, dtype=torch.bfloat16, output_loading_info=True)
        self.model.eval()
        self.vocab = config.get_text_config().vocab_size

    def wrong_keys(self):
        bad = [k for kind in ("missing_keys", "mismatched_keys") for k in self.info[kind]]
        return bad + [k for k in self.info["unexpected_keys"] if not EXPERT_SCALE.match(k)]

    def compare_as_loaded(self):
        """-> (tensors compared, names that differ)"""
        state, n, bad = self.model.state_dict(), 0, []
        for name, t in self.files.items():
            found = state.get(loaded_name(name))
            if found is None:
                if not re.search(r"(^|\.)mtp\.|\.experts\.", name):  # not a part of the model; merged, see below
                    bad.append(name)
                continue
            n += 1
            if found.dtype != DTYPES[t.dtype] or found.shape != t.shape or not torch.equal(bits(found), bits(from_file(t))):
                bad.append(name)
        return n, bad

    def compare_decoded(self):
        """After a forward pass -> (linears compared, names that differ)"""
        n, bad = 0, []
        with torch.no_grad():
            logits = self.model(input_ids=torch.arange(8).reshape(1, 8) % self.vocab).logits
        if not torch.isfinite(logits).all():
            bad.append("logits")
        weights = dict(self.model.named_parameters())
        for name in self.files:
            module = name.removesuffix(".weight_packed")
            if module == name or ".experts." in name:
                continue
            n += 1
            found = weights.get(loaded_name(module) + ".weight")
            if found is None or not torch.equal(bits(found), bits(decode(self.files, module))):
                bad.append(module)
        return n, bad

    def compare_experts(self):
        """-> (expert matrices compared, names that differ, was the global scale applied)"""
        n, bad, applied = 0, [], set()
        weights = dict(self.model.named_parameters())
        for name in self.files:
            m = re.match(r"(.*\.experts)\.(\d+)\.(\w+)\.weight_packed$", name)
            if m is None or re.search(r"(^|\.)mtp\.", name):
                continue
            n += 1
            module, kind = name.removesuffix(".weight_packed"), MIXTRAL.get(m[3], m[3])
            merged = weights.get(f"{loaded_name(m[1])}.{'down_proj' if kind == 'down_proj' else 'gate_up_proj'}")
            found = None if merged is None else merged[int(m[2])]
            if found is not None and kind != "down_proj":
                half = found.shape[0] // 2
                found = found[:half] if kind == "gate_proj" else found[half:]
            fits = [g for g in (True, False) if found is not None and torch.equal(bits(found), bits(decode(self.files, module, g)))]
            applied.update(fits[:1])
            if not fits:
                bad.append(module)
        if len(applied) > 1:
            bad.append("the global scale was applied to some experts only")
        return n, bad, True in applied


def check(name, source, work):
    """Prints a line; False when something is wrong."""
    out = os.path.join(work, "out")
    r = qd.quantctl("quantize", source, "--template", qd.TEMPLATE, "-o", out)
    if r.rc:
        print(r)
        return False
    m = Model(out)
    shutil.rmtree(out)
    bad = m.wrong_keys()
    as_loaded, more = m.compare_as_loaded()
    bad += more
    linears, more = m.compare_decoded()
    bad += more
    experts, more, applied = m.compare_experts()
    bad += more
    note = "" if not experts else f", {experts} expert matrices {'with' if applied else 'without (its bug)'} their global scale"
    print(f"{name}: {as_loaded} tensors as loaded, {linears} linears decoded{note}: {'WRONG: ' + str(bad[:5]) if bad else 'equal'}", flush=True)
    return not bad and as_loaded > 0 and linears > 0


def main():
    models = {**qd.fixtures(), **{os.path.basename(p.rstrip('/')): p for p in sys.argv[1:]}}
    failed = []
    for name, source in models.items():
        with tempfile.TemporaryDirectory(prefix="transformers-", dir=qd.WORK) as work:
            if not check(name, source, work):
                failed.append(name)
    if failed:
        sys.exit(f"transformers_loads: wrong: {', '.join(failed)}")


if __name__ == "__main__":
    main()
