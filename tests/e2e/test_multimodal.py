#!/usr/bin/env python3
"""The multimodal wrapper: vision tower and MTP copied byte for byte and ignored, fused experts split on the way out."""
import json
import os
import re

import qd
import st

FIXTURES = qd.fixtures()
NAME = "qwen3_5_moe-vl-mtp"
SUFFIXES = (".weight_packed", ".weight_scale", ".weight_global_scale")


class Multimodal(qd.Case):
    def setUp(self):
        super().setUp()
        if NAME not in FIXTURES:
            self.fail(f"fixtures are there but not {NAME}")
        self.source = {}
        for f in sorted(os.listdir(FIXTURES[NAME])):
            if re.match(r"model.*\.safetensors$", f):
                self.source.update(st.read(os.path.join(FIXTURES[NAME], f)))
        self.model = FIXTURES[NAME]

    def out(self, *more):
        self.quantize(self.model, self.path("out"), *more)
        with open(self.path("out/config.json"), encoding="utf-8") as f:
            return st.read_dir(self.path("out")), json.load(f)

    def test_vision_and_mtp_are_the_source_s_bytes(self):
        got, _ = self.out()
        kept = [k for k in self.source if ".visual." in k or k.startswith("mtp.")]
        self.assertGreater(len(kept), 40)
        for k in kept:
            self.assertTrue(k in got and got[k] == self.source[k], k)
        self.assertFalse([k for k in got if (".visual." in k or k.startswith("mtp.")) and k not in self.source])

    def test_experts_are_split(self):
        got, _ = self.out()
        fused = [k for k in self.source if k.endswith(".experts.gate_up_proj") and not k.startswith("mtp.")]
        self.assertEqual(len(fused), 4)
        for k in fused:
            n_experts, double, hidden = self.source[k].shape
            base = k[:-len("gate_up_proj")]
            self.assertNotIn(k, got)
            for e in range(n_experts):
                scales = []
                for proj, rows, cols in (("gate_proj", double // 2, hidden), ("up_proj", double // 2, hidden), ("down_proj", hidden, double // 2)):
                    m = f"{base}{e}.{proj}"
                    self.assertEqual((got[m + ".weight_packed"].dtype, got[m + ".weight_packed"].shape), ("U8", (rows, cols // 2)))
                    self.assertEqual((got[m + ".weight_scale"].dtype, got[m + ".weight_scale"].shape), ("F8_E4M3", (rows, cols // 16)))
                    self.assertEqual((got[m + ".weight_global_scale"].dtype, got[m + ".weight_global_scale"].shape), ("F32", (1,)))
                    scales.append(got[m + ".weight_global_scale"].data)
                self.assertEqual(scales[0], scales[1], f"{base}{e}: gate and up share their global scale")

    def test_split_experts_hold_the_same_codes_as_experts_that_came_split(self):
        got, _ = self.out()
        apart = {}
        for k, t in self.source.items():
            if k.startswith("mtp.") or not re.search(r"\.experts\.(gate_up|down)_proj$", k):
                apart[k] = t
                continue
            n_experts, rows, cols = t.shape
            base, size = k[:k.rindex(".") + 1], rows * cols * 2
            for e in range(n_experts):
                slab = t.data[e * size:(e + 1) * size]
                if k.endswith("down_proj"):
                    apart[f"{base}{e}.down_proj.weight"] = st.Tensor("BF16", (rows, cols), slab)
                else:
                    apart[f"{base}{e}.gate_proj.weight"] = st.Tensor("BF16", (rows // 2, cols), slab[:size // 2])
                    apart[f"{base}{e}.up_proj.weight"] = st.Tensor("BF16", (rows // 2, cols), slab[size // 2:])
        with open(os.path.join(self.model, "config.json"), encoding="utf-8") as f:
            self.model = st.make_dir(self.path("apart"), apart, json.load(f))
        self.quantize(self.model, self.path("out2"))
        again = st.read_dir(self.path("out2"))
        self.assertEqual(sorted(again), sorted(got))
        for k, t in got.items():
            self.assertTrue(again[k] == t, k)

    def test_what_is_not_quantized_is_ignored_by_name_or_pattern(self):
        got, config = self.out()
        ignore = config["quantization_config"]["ignore"]
        quantized = {k[:-len(".weight_packed")] for k in got if k.endswith(".weight_packed")}
        hit = lambda m: any(re.match(p[3:], m) if p.startswith("re:") else p == m for p in ignore)  # noqa: E731
        self.assertGreater(len(quantized), 50)
        self.assertEqual([m for m in quantized if hit(m)], [])
        for k, t in got.items():
            module = k[:-len(".weight")]
            is_linear = k.endswith(".weight") and len(t.shape) == 2 and not re.search(r"norm|embed|pos_embed|conv", k)
            if is_linear and module not in quantized:
                self.assertTrue(hit(module), f"{module} is not quantized and not ignored")

    def test_linear_attention_shares_its_global_scale_unless_ct_exact(self):
        p = "model.language_model.layers.0.linear_attn."
        for more, same in (((), True), (("--set", "block_scale=minmax", "--set", "scale_arithmetic=ct-exact"), False)):
            with self.subTest(more):
                self.quantize(self.model, self.path(f"o{same}"), *more)
                got = st.read_dir(self.path(f"o{same}"))
                pair = [got[f"{p}in_proj_{x}.weight_global_scale"].data for x in ("qkv", "z")]
                self.assertEqual(pair[0] == pair[1], same)
                warned = [w for w in qd.report(self.path(f"o{same}"))["warnings"] if "in_proj_z" in w]
                self.assertEqual(bool(warned), not same)


if __name__ == "__main__":
    qd.main()
