#!/usr/bin/env python3
"""ModelOpt's layout holds the same codes and scales under its own names, the global scale as a multiplier."""
import json
import struct

import qd
import st


class ModelOpt(qd.Case):
    def setUp(self):
        super().setUp()
        tensors = st.llama()
        tensors["model.layers.1.self_attn.o_proj.weight"] = st.Tensor("BF16", (64, 64), bytes(64 * 64 * 2))
        self.model = st.make_dir(self.path("model"), tensors)
        self.quantize(self.model, self.path("ct"))
        self.quantize(self.model, self.path("mo"), "--format", "modelopt")
        self.ct, self.mo = st.read_dir(self.path("ct")), st.read_dir(self.path("mo"))

    def test_codes_and_scales_are_relabelled(self):
        linears = [k[:-len(".weight_packed")] for k in self.ct if k.endswith(".weight_packed")]
        self.assertEqual(len(linears), 14)
        for m in linears:
            self.assertTrue(self.mo[m + ".weight"] == self.ct[m + ".weight_packed"], m)
            self.assertTrue(self.mo[m + ".weight_scale"] == self.ct[m + ".weight_scale"], m)
            scale2, divisor = self.mo[m + ".weight_scale_2"], self.ct[m + ".weight_global_scale"]
            self.assertEqual((scale2.dtype, scale2.shape), ("F32", ()))
            expected = struct.unpack("<f", struct.pack("<f", 1.0 / divisor.floats()[0]))[0]
            self.assertEqual(scale2.floats()[0], expected, m)
        self.assertEqual(len(self.mo), len(self.ct))

    def test_a_tensor_of_zeros_has_finite_scales_and_no_codes(self):
        m = "model.layers.1.self_attn.o_proj"
        self.assertEqual(set(self.mo[m + ".weight"].data), {0})
        self.assertNotIn(0x7F, self.mo[m + ".weight_scale"].data)
        self.assertNotIn(0xFF, self.mo[m + ".weight_scale"].data)
        v = self.mo[m + ".weight_scale_2"].floats()[0]
        self.assertTrue(0.0 < v < 3.4e38, v)

    def test_both_config_files_are_written(self):
        with open(self.path("mo/config.json"), encoding="utf-8") as f:
            qc = json.load(f)["quantization_config"]
        with open(self.path("mo/hf_quant_config.json"), encoding="utf-8") as f:
            q = json.load(f)["quantization"]
        self.assertEqual((qc["quant_method"], qc["quant_algo"], q["quant_algo"]), ("modelopt", "W4A16_NVFP4", "W4A16_NVFP4"))
        self.assertEqual(q["group_size"], 16)
        self.assertIn("lm_head", q["exclude_modules"])
        self.assertEqual(q["exclude_modules"], qc["ignore"])

    def test_an_unknown_format_is_wrong_use(self):
        r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", self.path("x"), "--format", "gguf")
        self.refused(r, 2, "gguf", "modelopt", out=self.path("x"))


if __name__ == "__main__":
    qd.main()
