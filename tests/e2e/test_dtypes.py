#!/usr/bin/env python3
"""F16, F32 and block-scaled F8_E4M3 sources; an architecture that has no table; a model that is quantized already."""
import json
import os
import random

import qd
import st


class Dtypes(qd.Case):
    def test_f16_and_f32(self):
        for dtype in ("F16", "F32"):
            with self.subTest(dtype):
                self.quantize(st.make_dir(self.path(dtype), st.llama(dtype=dtype)), self.path("o" + dtype))
                rep = qd.report(self.path("o" + dtype))
                self.assertEqual({t["dtype"] for t in rep["tensors"]}, {dtype})
                self.assertLess(rep["relative_error"], 0.12)

    def test_a_bf16_source_and_the_same_values_in_f32_give_the_same_codes(self):
        t = st.llama()
        wide = {}
        for k, v in t.items():
            b = bytearray(len(v.data) * 2)
            b[2::4], b[3::4] = v.data[0::2], v.data[1::2]
            wide[k] = st.Tensor("F32", v.shape, bytes(b))
        self.quantize(st.make_dir(self.path("a"), t), self.path("oa"))
        self.quantize(st.make_dir(self.path("b"), wide), self.path("ob"))
        a, b = st.read_dir(self.path("oa")), st.read_dir(self.path("ob"))
        n = 0
        for k in a:
            if k.endswith((".weight_packed", ".weight_scale", ".weight_global_scale")):
                self.assertTrue(a[k] == b[k], k)
                n += 1
        self.assertEqual(n, 42)

    def test_fp8_with_block_scales(self):
        rng, t = random.Random(3), st.llama(hidden=256, ffn=384, kv=128)
        fp8, plain = {}, {}
        for k, v in t.items():
            if not k.endswith("_proj.weight"):
                fp8[k] = plain[k] = v
                continue
            n, c = v.shape
            codes = bytes(rng.choice((0x20, 0x28, 0x30, 0x38, 0x39, 0xB0, 0xB8, 0x00)) for _ in range(n * c))
            rows, cols = -(-n // 128), -(-c // 128)
            scales = [rng.choice((0.25, 0.5, 1.0, 2.0)) for _ in range(rows * cols)]
            fp8[k] = st.Tensor("F8_E4M3", (n, c), codes)
            fp8[k + "_scale_inv"] = st.Tensor("F32", (rows, cols), st.f32(scales))
            value = lambda b: (-1.0 if b & 0x80 else 1.0) * (0.0 if b & 0x7F == 0 else (1 + (b & 7) / 8) * 2.0 ** ((b >> 3 & 15) - 7))  # noqa: E731
            table = {b: value(b) for b in set(codes)}
            plain[k] = st.Tensor("F32", (n, c), st.f32([table[codes[r * c + i]] * scales[r // 128 * cols + i // 128]
                                                        for r in range(n) for i in range(c)]))
        cfg = st.config(hidden_size=256, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
        self.quantize(st.make_dir(self.path("f8"), fp8, cfg), self.path("o8"))
        self.quantize(st.make_dir(self.path("f32"), plain, st.config(hidden_size=256)), self.path("o32"))
        a, b = st.read_dir(self.path("o8")), st.read_dir(self.path("o32"))
        self.assertEqual(sorted(a), sorted(b))
        for k in a:
            self.assertTrue(a[k] == b[k], k)
        with open(self.path("o8/config.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f)["quantization_config"]["quant_method"], "compressed-tensors")

    def test_an_unknown_architecture_is_quantized_with_a_warning(self):
        model = st.make_dir(self.path("m"), st.llama(), st.config(model_type="novel", architectures=["NovelForCausalLM"]))
        r = self.quantize(model, self.path("out"))
        self.assertIn("warning", r.err)
        self.assertIn("novel", r.err.lower())
        self.quantize(st.make_dir(self.path("known"), st.llama()), self.path("out2"))
        a, b = st.read_dir(self.path("out")), st.read_dir(self.path("out2"))
        self.assertEqual(sorted(a), sorted(b))
        for k in a:
            self.assertTrue(a[k] == b[k], k)
        self.assertTrue(qd.report(self.path("out"))["warnings"])

    def test_a_quantized_model_is_refused(self):
        self.quantize(st.make_dir(self.path("m"), st.llama()), self.path("out"))
        r = qd.quantctl("quantize", self.path("out"), "--template", qd.TEMPLATE, "-o", self.path("again"))
        self.refused(r, 3, "already quantized", out=self.path("again"))
        self.assertEqual(sorted(os.listdir(self.dir)), ["m", "out"])


if __name__ == "__main__":
    qd.main()
