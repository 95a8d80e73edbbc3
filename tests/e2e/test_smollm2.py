#!/usr/bin/env python3
"""The real model: SmolLM2-135M-Instruct from GGUF to BF16 to NVFP4, and what diff says of it. Without it (smollm2.py) the
script is left out."""
import hashlib
import json
import os

import qd
import smollm2
import st

GGUF = smollm2.gguf()
if GGUF is None:
    qd.skip("no SmolLM2 here: ./setup fetches it, or QD_SMOLLM2_GGUF names the file")
# Of the checkpoint that transformers 5.17 makes of the same file (float32, then torch's rounding to bfloat16).
TENSORS_SHA256 = "5fdcab4789f1a995287ddba5c1bde4d37ad53acdd25c6b6f970c39292ddd6375"


def digest(tensors):
    h = hashlib.sha256()
    for name, t in sorted(tensors.items()):
        h.update(f"{name} {t.dtype} {list(t.shape)}\n".encode())
        h.update(t.data)
    return h.hexdigest()


class SmolLM2(qd.Case):
    def tokenizer(self, src):
        """Beside the one that transformers makes of the same file; left out where the fixtures are not there."""
        base = os.path.join(qd.SHARED, "fixtures", "tokenizer-smollm2")
        if not os.path.isdir(base):
            return
        got, want = ({}, {})
        for directory, to in ((src, got), (base, want)):
            with open(os.path.join(directory, "tokenizer.json"), encoding="utf-8") as f:
                to.update(json.load(f))
        self.assertEqual(got["added_tokens"], want["added_tokens"])
        for key in ("vocab", "merges", "unk_token", "fuse_unk", "ignore_merges"):
            self.assertTrue(got["model"][key] == want["model"][key], key)
        self.assertEqual(got["pre_tokenizer"]["use_regex"], want["pre_tokenizer"]["use_regex"])
        with open(os.path.join(base, "chat_template.jinja"), encoding="utf-8") as f, \
                open(os.path.join(src, "tokenizer_config.json"), encoding="utf-8") as g:
            self.assertEqual(json.load(g)["chat_template"], f.read())

    def test_from_gguf_to_nvfp4(self):
        src, out = self.path("bf16"), self.path("nvfp4")
        self.check(qd.quantctl("import-gguf", GGUF, "-o", src), 0)
        tensors = st.read_dir(src)
        self.assertEqual({t.dtype for t in tensors.values()}, {"BF16"})
        self.assertEqual(tensors["model.layers.29.mlp.down_proj.weight"].shape, (576, 1536))
        self.assertEqual(len(tensors), 272)
        self.assertEqual(digest(tensors), TENSORS_SHA256)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            with open(os.path.join(src, name), encoding="utf-8") as f:
                json.load(f)
        self.tokenizer(src)
        self.quantize(src, out)
        self.assertEqual(len(qd.report(out)["tensors"]), 210)
        r = qd.quantctl("diff", src, out, "--json")
        self.check(r, 0)
        self.assertTrue(r.events(), str(r))
        r = qd.quantctl("inspect", out)
        self.check(r, 0)
        self.assertIn("NVFP4", r.out.upper())
        self.gangs(src, out)

    def gangs(self, src, out):
        """Weights alone, and with plain calibration: the same bytes for every number of ranks."""
        text = self.path("calib.txt")
        with open(text, "w", encoding="utf-8") as f:
            f.write("The quick brown fox jumps over the lazy dog; 12 boxes, 345 jugs.\n" * 400)
        w4a4 = ("--calib", text, "--samples", "8", "--seq-len", "128", "--set", "method=rtn", "--set", "smoothing=none",
                "--set", "gate_samples=0", "--set", "block_scale=minmax")
        self.quantize(src, self.path("w4a4"), *w4a4, template="nvfp4-w4a4")
        for n in (2, 3, 4):
            self.quantize(src, self.path(f"w{n}"), "--ranks", n)
            self.same_tree(out, self.path(f"w{n}"))
            self.quantize(src, self.path(f"a{n}"), "--ranks", n, *w4a4, template="nvfp4-w4a4")
            self.same_tree(self.path("w4a4"), self.path(f"a{n}"))


if __name__ == "__main__":
    qd.main()
