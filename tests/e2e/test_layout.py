#!/usr/bin/env python3
"""The output as loaders need it: one file or shards with an index, headers in order, config.json extended, side files kept."""
import json
import os

import qd
import st

SIDE = {"tokenizer.json": b'{"a": 1}\n', "tokenizer_config.json": b"{}", "chat_template.jinja": b"{{ x }}", "LICENSE": b"text",
        "generation_config.json": b'{"do_sample": true}', "merges.txt": b"a b\n", "vocab.json": b"{}"}
NOT_SIDE = {"pytorch_model.bin": b"x", ".hidden": b"x", "model.gguf": b"x"}


class Layout(qd.Case):
    def setUp(self):
        super().setUp()
        self.tensors = st.llama(layers=3, hidden=128, ffn=256, vocab=256, kv=64)
        self.tensors["model.layers.0.counts"] = st.Tensor("I64", (3,), bytes(range(24)))
        self.model = st.make_dir(self.path("model"), self.tensors, shards=2, side={**SIDE, **NOT_SIDE},
                                 cfg=st.config(num_hidden_layers=3, rope_theta=500000.0, big=9223372036854775807, tiny=1e-05))

    def in_order(self, path):
        """Tensors lie one after the other without gaps, each aligned to its element, to the end of the file."""
        h, meta, start = st.read_header(path)
        at = 0
        for name, t in sorted(h.items(), key=lambda kv: kv[1]["data_offsets"]):
            begin, end = t["data_offsets"]
            self.assertEqual(begin, at, name)
            self.assertEqual((start + begin) % st.WIDTH[t["dtype"]], 0, name)
            at = end
        self.assertEqual(start + at, os.path.getsize(path))
        self.assertEqual(start % 8, 0)
        self.assertEqual(meta.get("format"), "pt")
        return h

    def test_one_file_has_no_index(self):
        self.quantize(self.model, self.path("out"))
        self.assertEqual([f for f in sorted(os.listdir(self.path("out"))) if "safetensors" in f], ["model.safetensors"])
        self.in_order(self.path("out/model.safetensors"))

    def test_shards_have_an_index_and_the_same_tensors(self):
        self.quantize(self.model, self.path("one"))
        self.quantize(self.model, self.path("out"), "--shard-size", "100K")
        with open(self.path("out/model.safetensors.index.json"), encoding="utf-8") as f:
            index = json.load(f)
        files = sorted(set(index["weight_map"].values()))
        self.assertGreater(len(files), 2)
        self.assertEqual(files, [f for f in sorted(os.listdir(self.path("out"))) if f.endswith(".safetensors")])
        size, seen = 0, {}
        for i, f in enumerate(files, 1):
            self.assertEqual(f, f"model-{i:05d}-of-{len(files):05d}.safetensors")
            for name, t in self.in_order(self.path("out/" + f)).items():
                self.assertEqual(index["weight_map"][name], f)
                seen[name] = f
                size += t["data_offsets"][1] - t["data_offsets"][0]
        self.assertEqual(sorted(seen), sorted(index["weight_map"]))
        self.assertEqual(index["metadata"]["total_size"], size)
        one, many = st.read_dir(self.path("one")), st.read_dir(self.path("out"))
        self.assertEqual(sorted(one), sorted(many))
        for name, t in one.items():
            self.assertTrue(many[name] == t, name)

    def test_a_shard_is_no_larger_than_asked_for(self):
        limit = 200_000  # above the largest unit of this model
        self.quantize(self.model, self.path("out"), "--shard-size", limit)
        for f in os.listdir(self.path("out")):
            if f.endswith(".safetensors"):
                self.assertLessEqual(os.path.getsize(self.path("out/" + f)), limit)

    def test_names_dtypes_and_shapes(self):
        self.quantize(self.model, self.path("out"))
        got = st.read_dir(self.path("out"))
        expected = dict(self.tensors)
        for name, t in self.tensors.items():
            if name.endswith("_proj.weight"):
                del expected[name]
                n, k = t.shape
                m = name[:-len("weight")]
                expected[m + "weight_packed"] = st.Tensor("U8", (n, k // 2), None)
                expected[m + "weight_scale"] = st.Tensor("F8_E4M3", (n, k // 16), None)
                expected[m + "weight_global_scale"] = st.Tensor("F32", (1,), None)
        self.assertEqual(sorted(got), sorted(expected))
        for name, t in expected.items():
            self.assertEqual((got[name].dtype, got[name].shape), (t.dtype, t.shape), name)
            if t.data is not None:
                self.assertTrue(got[name].data == t.data, name)

    def test_fused_sets_share_one_global_scale(self):
        self.quantize(self.model, self.path("out"))
        got = st.read_dir(self.path("out"))
        scale = lambda m: got[f"model.layers.1.{m}_proj.weight_global_scale"].data  # noqa: E731
        self.assertEqual(scale("self_attn.q"), scale("self_attn.k"))
        self.assertEqual(scale("self_attn.q"), scale("self_attn.v"))
        self.assertEqual(scale("mlp.gate"), scale("mlp.up"))
        self.assertEqual(len({scale(m) for m in ("self_attn.q", "self_attn.o", "mlp.gate", "mlp.down")}), 4)

    def test_side_files_come_along_and_other_weights_do_not(self):
        self.quantize(self.model, self.path("out"))
        got = qd.tree(self.path("out"))
        for name, data in SIDE.items():
            self.assertEqual(got.get(name), data, name)
        for name in NOT_SIDE:
            self.assertNotIn(name, got)
        self.assertNotIn("journal.jsonl", got)
        self.assertIn("report.json", os.listdir(self.path("out")))

    def test_config_is_the_source_s_with_one_key_more(self):
        self.quantize(self.model, self.path("out"))
        with open(self.path("out/config.json"), encoding="utf-8") as f:
            text = f.read()
        got = json.loads(text)
        qc = got.pop("quantization_config")
        with open(os.path.join(self.model, "config.json"), encoding="utf-8") as f:
            self.assertEqual(got, json.load(f))
        self.assertIn("9223372036854775807", text)
        self.assertEqual((qc["quant_method"], qc["format"], qc["quantization_status"]),
                         ("compressed-tensors", "nvfp4-pack-quantized", "compressed"))
        group = qc["config_groups"]["group_0"]
        self.assertEqual((group["weights"]["strategy"], group["weights"]["group_size"], group["weights"]["num_bits"],
                          group["weights"]["symmetric"], group["weights"]["type"]), ("tensor_group", 16, 4, True, "float"))
        self.assertIsNone(group["input_activations"])
        self.assertIn("lm_head", qc["ignore"])


if __name__ == "__main__":
    qd.main()
