#!/usr/bin/env python3
"""Each kind of bad input: one sentence that names what is wrong, exit code 3, no output."""
import json
import os

import qd
import st

NAME = "model.layers.0.mlp.up_proj.weight"


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


class BadInput(qd.Case):
    def setUp(self):
        super().setUp()
        self.model = st.make_dir(self.path("model"), st.llama(layers=1))
        self.file = os.path.join(self.model, "model.safetensors")
        self.out = self.path("out")

    def bad(self, *words):
        for more in ((), ("--dry-run",)):
            r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", self.out, *more)
            self.refused(r, 3, *words, out=self.out)
            self.assertEqual(os.listdir(self.dir), ["model"])

    def header(self, change, data=bytes(64), length=None):
        """A file whose header is two good tensors, changed."""
        h = {"a": entry("F32", [2, 4], 0, 32), "b": entry("F32", [2, 4], 32, 64)}
        h = change(h) or h
        st.raw(self.file, h if isinstance(h, bytes) else json.dumps(h).encode(), data, length)

    # --- the file as a whole

    def test_a_truncated_file(self):
        os.truncate(self.file, os.path.getsize(self.file) - 1)
        self.bad("model.safetensors")

    def test_a_file_of_seven_bytes(self):
        with open(self.file, "wb") as f:
            f.write(b"1234567")
        self.bad("model.safetensors", "7")

    def test_an_empty_file(self):
        with open(self.file, "wb"):
            pass
        self.bad("model.safetensors")

    def test_bytes_after_the_last_tensor(self):
        with open(self.file, "ab") as f:
            f.write(b"x")
        self.bad("model.safetensors")

    def test_a_header_longer_than_the_file(self):
        self.header(lambda h: None, length=1 << 20)
        self.bad("model.safetensors")

    def test_a_header_over_100_mb(self):
        st.raw(self.file, b"{}", length=100_000_001)
        os.truncate(self.file, 100_000_100)
        self.bad("model.safetensors", "100")

    def test_a_header_length_of_all_ones(self):
        st.raw(self.file, b"{}", length=(1 << 64) - 1)
        self.bad("model.safetensors")

    def test_a_header_that_is_not_json(self):
        self.header(lambda h: b'{"a": nonsense}')
        self.bad("model.safetensors")

    def test_a_header_that_is_no_object(self):
        self.header(lambda h: b"[1, 2]")
        self.bad("model.safetensors")

    def test_a_header_nested_without_end(self):
        self.header(lambda h: b'{"a":' + b"[" * 1_000_000)
        self.bad("model.safetensors")

    # --- tensors in it

    def test_overlapping_tensors(self):
        self.header(lambda h: h.update(b=entry("F32", [2, 4], 16, 48)), data=bytes(48))
        self.bad("model.safetensors", "b")

    def test_a_gap_between_tensors(self):
        self.header(lambda h: h.update(b=entry("F32", [2, 4], 40, 72)), data=bytes(72))
        self.bad("model.safetensors")

    def test_offsets_past_the_end(self):
        self.header(lambda h: h.update(b=entry("F32", [2, 400], 32, 3232)))
        self.bad("model.safetensors", "b")

    def test_offsets_the_wrong_way_round(self):
        self.header(lambda h: h.update(b=entry("F32", [2, 4], 64, 32)))
        self.bad("model.safetensors", "b")

    def test_a_negative_offset(self):
        self.header(lambda h: h.update(a=entry("F32", [2, 4], -32, 0)))
        self.bad("model.safetensors", "a")

    def test_a_size_that_is_not_the_shapes(self):
        self.header(lambda h: h.update(b=entry("F32", [2, 5], 32, 64)))
        self.bad("model.safetensors", "b", "40", "32")

    def test_a_name_twice(self):
        one = json.dumps(entry("F32", [2, 4], 0, 32))
        two = json.dumps(entry("F32", [2, 4], 32, 64))
        self.header(lambda h: f'{{"a": {one}, "a": {two}}}'.encode())
        self.bad("model.safetensors", "a")

    def test_a_shape_that_overflows(self):
        self.header(lambda h: h.update(b=entry("F32", [1 << 40, 1 << 40], 32, 64)))
        self.bad("model.safetensors", "b", "overflow")

    def test_a_negative_dimension(self):
        self.header(lambda h: h.update(b=entry("F32", [-2, -4], 32, 64)))
        self.bad("model.safetensors", "b")

    def test_an_unknown_dtype(self):
        self.header(lambda h: h.update(b=entry("F7", [2, 4], 32, 64)))
        self.bad("model.safetensors", "b", "F7")

    def test_a_name_of_control_bytes_does_not_reach_the_terminal(self):
        self.header(lambda h: h.update({"\x1b[31mred": entry("F7", [2, 4], 32, 64)}) or h.pop("b") and None)
        self.bad("model.safetensors")
        r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", self.out)
        self.assertNotIn("\x1b", r.err)

    def test_columns_that_16_does_not_divide(self):
        t = st.llama(layers=1)
        t[NAME] = st.Tensor("BF16", (96, 72), st.bf16([0.01] * (96 * 72)))
        st.write(self.file, t)
        self.bad(NAME[:-7], "16", "72")

    # --- the directory

    def test_no_such_directory(self):
        self.model = self.path("nowhere")
        r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", self.out)
        self.refused(r, 3, "nowhere", out=self.out)

    def test_no_weights(self):
        os.remove(self.file)
        self.refused(qd.quantctl("quantize", self.model, "--template", "nvfp4-w4a16", "-o", self.out), 3, "model", "safetensors", out=self.out)

    def test_no_config(self):
        os.remove(os.path.join(self.model, "config.json"))
        self.bad("config.json")

    def test_wrong_types_in_the_config(self):
        for key, value in (("model_type", 7), ("num_hidden_layers", "two"), ("num_hidden_layers", -1), ("hidden_size", 1.5),
                           ("tie_word_embeddings", "yes"), ("architectures", "Llama"), ("text_config", [])):
            with self.subTest(key):
                st.put_json(os.path.join(self.model, "config.json"), st.config(**{key: value}))
                self.bad("config.json", key)

    def test_a_config_that_is_not_json(self):
        with open(os.path.join(self.model, "config.json"), "w", encoding="ascii") as f:
            f.write('{"model_type": "llama"')
        self.bad("config.json")


class BadIndex(qd.Case):
    def setUp(self):
        super().setUp()
        self.model = st.make_dir(self.path("model"), st.llama(layers=1), shards=2)
        self.index = os.path.join(self.model, "model.safetensors.index.json")
        self.out = self.path("out")
        with open(self.index, encoding="utf-8") as f:
            self.map = json.load(f)

    def bad(self, *words):
        st.put_json(self.index, self.map)
        r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", self.out)
        self.refused(r, 3, *words, out=self.out)

    def test_a_missing_shard(self):
        os.remove(os.path.join(self.model, "model-00002-of-00002.safetensors"))
        self.bad("model-00002-of-00002.safetensors")

    def test_a_tensor_that_no_file_has(self):
        self.map["weight_map"]["model.layers.9.x.weight"] = "model-00001-of-00002.safetensors"
        self.bad("model.layers.9.x.weight")

    def test_a_tensor_in_another_file_than_it_says(self):
        self.map["weight_map"]["model.norm.weight"] = next(
            f for f in set(self.map["weight_map"].values()) if f != self.map["weight_map"]["model.norm.weight"])
        self.bad("model.norm.weight")

    def test_a_path_outside_the_directory(self):
        st.write(self.path("evil.safetensors"), {"x": st.Tensor("U8", (1,), b"x")})
        for name in ("../evil.safetensors", self.path("evil.safetensors"), "sub/../../evil.safetensors"):
            with self.subTest(name):
                self.map["weight_map"]["x"] = name
                self.bad("index.json", "x")

    def test_a_weight_map_of_the_wrong_type(self):
        self.map["weight_map"] = ["a"]
        self.bad("weight_map")


if __name__ == "__main__":
    qd.main()
