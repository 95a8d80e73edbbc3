#!/usr/bin/env python3
"""FP8 scales of the key-value cache: which layers have them, their names and forms in both formats, their values."""
import json
import os
import re
import struct

import qd
import st

FIXTURES = qd.fixtures()
W4A4 = "nvfp4-w4a4"
CACHE = re.compile(r"\.self_attn\.(?:[kv]_proj\.)?[kv]_scale$")
KV = ("--set", "kv_cache=fp8")
PLAIN = ("--set", "method=rtn", "--set", "smoothing=none", "--set", "gate_samples=0")
CT = (*PLAIN, "--set", "block_scale=minmax", "--set", "scale_arithmetic=ct-exact")


def value(t):
    if t.dtype == "BF16":
        return struct.unpack("<f", b"\0\0" + t.data)[0]
    return struct.unpack("<f", t.data)[0]


def round_bf16(x):
    b = struct.unpack("<I", struct.pack("<f", x))[0]
    return struct.unpack("<f", struct.pack("<I", (b + 0x7fff + (b >> 16 & 1)) & 0xffff0000))[0]


def weights(path):
    """A fixture's checkpoint, without the references beside it."""
    out = {}
    for name in sorted(os.listdir(path)):
        if name.startswith("model") and name.endswith(".safetensors"):
            out.update(st.read(os.path.join(path, name)))
    return out


def with_cache(path):
    """Attention modules of the language model that have keys and values."""
    found = sorted(n[:-len(".k_proj.weight")] for n in weights(path) if n.endswith(".self_attn.k_proj.weight"))
    return [n for n in found if not n.startswith("mtp.") and ".visual." not in n]


class Fixtures(qd.Case):
    def test_each_layer_with_keys_and_values_has_scales_and_no_other(self):
        n = 0
        for name, path in FIXTURES.items():
            ref = os.path.join(path, "ref.safetensors")
            if not os.path.exists(ref):
                continue
            with self.subTest(name):
                for template in (W4A4, "quant-flash-nvfp4-mlp-nomtp"):  # projections quantized, or copied
                    out = self.path(f"{name}-{template}")
                    self.quantize(path, out, "--calib", ref, *KV, template=template)
                    got = {k: t for k, t in st.read_dir(out).items() if CACHE.search(k)}
                    layers = with_cache(path)
                    self.assertEqual(sorted(got), sorted(f"{m}.{c}_scale" for m in layers for c in "kv"))
                    self.assertGreater(len(layers), 0)
                    rows = {r["name"]: r for r in qd.report(out)["kv_cache"]}
                    settings = qd.report(out)["settings"]
                    self.assertEqual(settings["kv_cache"], "fp8")
                    self.assertIn(settings["input_scale"], ("minmax", "percentile", "mse"))
                    self.assertEqual(sorted(rows), sorted(got))
                    for k, t in got.items():
                        self.assertEqual((t.dtype, t.shape), ("BF16", (1,)))
                        self.assertGreater(rows[k]["amax"], 0.0)
                        self.assertEqual(value(t), round_bf16(struct.unpack("<f", struct.pack("<f", rows[k]["scale"]))[0]))
                        self.assertAlmostEqual(rows[k]["scale"] * 448 / rows[k]["amax"], 1.0, places=5)
                    scheme = json.loads(qd.tree(out)["config.json"])["quantization_config"]["kv_cache_scheme"]
                    self.assertEqual({k: scheme[k] for k in ("num_bits", "type", "symmetric", "strategy", "dynamic")},
                                     {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False})
                    n += len(got)
        self.assertGreater(n, 0, "fixtures are there but none was looked at")

    def test_a_model_without_keys_and_values_is_refused(self):
        n = 0
        for name, path in FIXTURES.items():
            with open(os.path.join(path, "config.json"), encoding="utf-8") as f:
                config = json.load(f)
            types = config.get("layer_types") or config.get("text_config", {}).get("layer_types") or []
            if "visual" in str(config.keys()) or not types or types[0] != "linear_attention" or "text_config" in config:
                continue
            first = types.index("full_attention")
            config.update(num_hidden_layers=first, layer_types=types[:first])
            keep = {k: t for k, t in weights(path).items()
                    if not k.startswith("mtp.") and int((re.search(r"layers\.(\d+)\.", k) or [0, "0"])[1]) < first}
            model = st.make_dir(self.path(name), keep, cfg=config)
            r = qd.quantctl("quantize", model, "--template", W4A4, "--calib", os.path.join(path, "ref.safetensors"), "-o",
                            self.path("out"), *KV)
            self.refused(r, 3, "kv_cache fp8", "found none", out=self.path("out"))
            n += 1
        self.assertGreater(n, 0, "no fixture begins with linear attention")


class Own(qd.Case):
    """Keys and values that are the input of the attention itself."""

    def setUp(self):
        super().setUp()
        hidden, tensors = 64, st.llama(kv=64)
        one = st.bf16([float(r == c) for r in range(hidden) for c in range(hidden)])
        for i in range(2):
            for name in "kv":
                tensors[f"model.layers.{i}.self_attn.{name}_proj.weight"] = st.Tensor("BF16", (hidden, hidden), one)
        self.model = st.make_dir(self.path("model"), tensors, cfg=st.config(num_key_value_heads=4))

    def ids(self, n, length):
        path = self.path(f"ids{length}.safetensors")
        ids = [(i * 37 + i // 64 * 11) % 128 for i in range(n * length)]
        st.write(path, {"input_ids": st.Tensor("I64", (n, length), struct.pack(f"<{len(ids)}q", *ids))})
        return path

    def run_on(self, ids, out, *more):
        r = qd.quantctl("quantize", self.model, "--template", W4A4, "--calib", ids, "-o", self.path(out), *KV, *more)
        self.check(r, 0)
        report = qd.report(self.path(out))
        inputs = {t["layer"]: t["input_amax"] for t in report["tensors"] if t["name"].endswith("q_proj")}
        return inputs, {r["name"][len("model.layers.0.self_attn."):] + str(r["layer"]): r["amax"] for r in report["kv_cache"]}

    def test_values_are_those_that_go_into_the_cache_keys_after_rope(self):
        inputs, amax = self.run_on(self.ids(40, 1), "one", *CT)  # position 0 turns nothing
        for layer in (0, 1):
            self.assertEqual(amax[f"v_scale{layer}"], inputs[layer])
            self.assertEqual(amax[f"k_scale{layer}"], inputs[layer])
        inputs, amax = self.run_on(self.ids(40, 64), "many", *CT)
        for layer in (0, 1):
            self.assertEqual(amax[f"v_scale{layer}"], inputs[layer])
            self.assertNotEqual(amax[f"k_scale{layer}"], inputs[layer])
            self.assertLess(amax[f"k_scale{layer}"], inputs[layer] * 1.43)

    def test_the_bytes_do_not_depend_on_threads_or_on_a_stop(self):
        ids = self.ids(40, 64)
        self.run_on(ids, "a", "--threads", "1")
        self.run_on(ids, "b", "--threads", "3")
        self.same_tree(self.path("a"), self.path("b"))
        failed = 0
        for n in range(2, 9):
            args = ("quantize", self.model, "--template", W4A4, "--calib", ids, "-o", self.path(f"c{n}"), *KV)
            r = qd.quantctl(*args, env={"QD_FAULT": f"write:{n}:5"})
            if r.rc == 0:
                continue
            failed += 1
            self.check(qd.quantctl(*args, "--resume"), 0)
            self.same_tree(self.path("a"), self.path(f"c{n}"))
        self.assertGreater(failed, 0)

    def test_modelopt_has_them_at_the_projections_and_not_below_one(self):
        ids = self.ids(4, 64)
        self.run_on(ids, "mo", "--format", "modelopt")
        got = {k: t for k, t in st.read_dir(self.path("mo")).items() if CACHE.search(k)}
        self.assertEqual(sorted(got), sorted(f"model.layers.{i}.self_attn.{c}_proj.{c}_scale" for i in (0, 1) for c in "kv"))
        for t in got.values():
            self.assertEqual((t.dtype, t.shape, value(t)), ("F32", (), 1.0))
        files = qd.tree(self.path("mo"))
        self.assertEqual(json.loads(files["hf_quant_config.json"])["quantization"]["kv_cache_quant_algo"], "FP8")
        self.assertEqual(json.loads(files["config.json"])["quantization_config"]["kv_cache_scheme"],
                         {"dynamic": False, "num_bits": 8, "type": "float"})

    def test_none_is_the_default(self):
        r = qd.quantctl("quantize", self.model, "--template", W4A4, "--calib", self.ids(4, 64), "-o", self.path("out"))
        self.check(r, 0)
        self.assertEqual([k for k in st.read_dir(self.path("out")) if CACHE.search(k)], [])
        self.assertIsNone(json.loads(qd.tree(self.path("out"))["config.json"])["quantization_config"]["kv_cache_scheme"])


if __name__ == "__main__":
    qd.main()
