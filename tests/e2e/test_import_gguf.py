#!/usr/bin/env python3
"""import-gguf: every block type and architecture exactly, and a directory that is whole or not there."""
import json
import os
import re
import shutil
import signal
import struct

import gg
import qd
import st

with open(os.path.join(qd.ROOT, "tests", "golden", "gguf_blocks.json"), encoding="ascii") as golden_file:
    GOLDEN = {k: (bytes.fromhex(v["blocks"]), bytes.fromhex(v["bf16"])) for k, v in json.load(golden_file).items()}
HIDDEN = 256  # a row of K blocks; 512 golden values are two rows
FIXTURES = {"llama": "llama", "llama3-rope": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
            "qwen3_moe": "qwen3moe"}
FROM_HF = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
           "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
           "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
           "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
           "block_sparse_moe.gate": "ffn_gate_inp", "gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps",
           "down_proj": "ffn_down_exps", "w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps"}


def golden(dtype, *shape):
    """A tensor of golden blocks, and what it is in BF16."""
    blocks, bf16 = GOLDEN[dtype]
    n = shape[0] if len(shape) == 1 else shape[0] * shape[1]
    assert n % 512 == 0 or len(shape) == 1
    if len(shape) == 1:
        return gg.Tensor(dtype, shape, blocks[:n * len(blocks) // 512]), bf16[:n * 2]
    return gg.Tensor(dtype, shape, blocks * (n // 512)), bf16 * (n // 512)


def interleave(data, heads, back=False):
    """llama.cpp's order of the rows of each head: first and second half take turns; back: again as it was."""
    rows = heads * 2 * (len(data) // (heads * 2 * HIDDEN * 2))
    n, width = rows // heads, len(data) // rows
    out = [b""] * rows
    for h in range(heads):
        for i in range(n):
            mixed, plain = h * n + i, h * n + i % 2 * (n // 2) + i // 2
            a, b = (plain, mixed) if back else (mixed, plain)
            out[a] = data[b * width:(b + 1) * width]
    return b"".join(out)


def every_type():
    """A llama of one layer in which each type occurs: GGUF tensors and the BF16 bytes expected."""
    t, want = {}, {}
    for src, to, dtype, shape in (
            ("token_embd", "model.embed_tokens", "Q8_0", (128, HIDDEN)), ("output_norm", "model.norm", "F16", (HIDDEN,)),
            ("output", "lm_head", "BF16", (128, HIDDEN)), ("blk.0.attn_norm", "model.layers.0.input_layernorm", "F32", (HIDDEN,)),
            ("blk.0.attn_q", "model.layers.0.self_attn.q_proj", "Q4_0", (HIDDEN, HIDDEN)),
            ("blk.0.attn_k", "model.layers.0.self_attn.k_proj", "Q4_1", (128, HIDDEN)),
            ("blk.0.attn_v", "model.layers.0.self_attn.v_proj", "Q5_0", (128, HIDDEN)),
            ("blk.0.attn_output", "model.layers.0.self_attn.o_proj", "Q5_1", (HIDDEN, HIDDEN)),
            ("blk.0.ffn_norm", "model.layers.0.post_attention_layernorm", "F32", (HIDDEN,)),
            ("blk.0.ffn_gate", "model.layers.0.mlp.gate_proj", "Q4_K", (HIDDEN, HIDDEN)),
            ("blk.0.ffn_up", "model.layers.0.mlp.up_proj", "Q5_K", (HIDDEN, HIDDEN)),
            ("blk.0.ffn_down", "model.layers.0.mlp.down_proj", "Q6_K", (HIDDEN, HIDDEN))):
        t[src + ".weight"], data = golden(dtype, *shape)
        if "q_proj" in to or "k_proj" in to:
            data = interleave(data, 4 if "q_proj" in to else 2, back=True)
        want[to + ".weight"] = st.Tensor("BF16", shape, data)
    return t, want


class Import(qd.Case):
    def setUp(self):
        super().setUp()
        self.gguf, self.out = self.path("in.gguf"), self.path("out")

    def put(self, data):
        with open(self.gguf, "wb") as f:
            f.write(data)

    def imported(self, *more):
        r = qd.quantctl("import-gguf", self.gguf, "-o", self.out, *more)
        self.check(r, 0)
        return r

    def config(self, name="config.json"):
        with open(os.path.join(self.out, name), encoding="utf-8") as f:
            return json.load(f)


class Good(Import):
    def test_every_type_bit_for_bit(self):
        tensors, want = every_type()
        self.put(gg.file(gg.config(), tensors))
        r = self.imported("--json")
        self.assertEqual(st.read_dir(self.out), want)
        done = r.event("done")
        self.assertEqual((done["tensors"], done["files"], done["tokenizer"]), (12, 1, True))
        c = self.config()
        self.assertEqual((c["model_type"], c["rms_norm_eps"], c["head_dim"], c["vocab_size"], c["tie_word_embeddings"]),
                         ("llama", 1e-05, 64, 128, False))
        self.assertEqual((c["rope_parameters"], c["dtype"], c["eos_token_id"], c["pad_token_id"]),
                         ({"rope_type": "default", "rope_theta": 10000.0}, "bfloat16", 2, None))
        self.quantize(self.out, self.path("nvfp4"))

    def test_shards_and_their_index(self):
        tensors, want = every_type()
        self.put(gg.file(gg.config(), tensors))
        self.imported("--shard-size", "200K")
        files = [n for n in os.listdir(self.out) if n.endswith(".safetensors")]
        self.assertGreater(len(files), 2)
        index = self.config("model.safetensors.index.json")
        self.assertEqual(sorted(set(index["weight_map"].values())), sorted(files))
        self.assertEqual(st.read_dir(self.out), want)
        self.quantize(self.out, self.path("nvfp4"))

    def test_another_alignment_and_version_2(self):
        tensors, want = every_type()
        self.put(gg.file(gg.config(**{"general.alignment": 1024}), tensors, align=1024, version=2))
        self.imported()
        self.assertEqual(st.read_dir(self.out), want)

    def test_a_tied_embedding(self):
        tensors, want = every_type()
        del tensors["output.weight"], want["lm_head.weight"]
        self.put(gg.file(gg.config(), tensors))
        self.imported()
        self.assertEqual(st.read_dir(self.out), want)
        self.assertIs(self.config()["tie_word_embeddings"], True)

    def test_an_existing_directory_needs_force(self):
        self.put(gg.file(gg.config(), every_type()[0]))
        os.mkdir(self.out)
        with open(os.path.join(self.out, "mine"), "w", encoding="ascii"):
            pass
        self.refused(qd.quantctl("import-gguf", self.gguf, "-o", self.out), 6, self.out, "--force")
        self.assertEqual(os.listdir(self.out), ["mine"])
        self.imported("--force")
        self.assertNotIn("mine", os.listdir(self.out))
        self.assertEqual(sorted(os.listdir(self.dir)), ["in.gguf", "out"])

    def test_what_a_killed_run_left_is_replaced(self):
        tensors, want = every_type()
        self.put(gg.file(gg.config(), tensors))
        os.mkdir(self.out + ".import")
        with open(os.path.join(self.out + ".import", "model.safetensors"), "w", encoding="ascii") as f:
            f.write("x" * 99)
        r = qd.quantctl("import-gguf", self.gguf, "-o", self.out + "/")
        self.check(r, 0)
        self.assertEqual(st.read_dir(self.out), want)
        self.assertEqual(sorted(os.listdir(self.dir)), ["in.gguf", "out"])

    def test_wrong_use(self):
        self.put(b"GGUF")
        for args in ((), (self.gguf,), ("-o", self.out), (self.gguf, self.gguf, "-o", self.out)):
            self.refused(qd.quantctl("import-gguf", *args), 2, out=self.out)

    def test_ctrl_c_leaves_nothing(self):
        tensors = every_type()[0]
        rows = 1 << 18
        tensors["token_embd.weight"] = gg.Tensor("F32", (rows, HIDDEN), b"")
        for t in tensors.values():
            t.offset = 0 if not t.data else rows * HIDDEN * 4
        at = rows * HIDDEN * 4
        for t in tensors.values():
            if t.data:
                t.offset, at = at, at + len(t.data) + -len(t.data) % 32
        head = gg.head(gg.config(), tensors)
        with open(self.gguf, "wb") as f:  # with a hole for the embedding
            f.write(head)
            f.truncate(len(head) + -len(head) % 32 + at)
        p = qd.start("import-gguf", self.gguf, "-o", self.out)
        if not qd.freeze_when(p, lambda: os.path.exists(os.path.join(self.out + ".import", "tokenizer_config.json"))):
            qd.finish(p)
            self.fail("the run ended before it could be interrupted")
        p.send_signal(signal.SIGINT)
        p.send_signal(signal.SIGCONT)
        r = qd.finish(p)
        self.check(r, 130)
        self.assertIn("canceled", r.err)
        self.assertEqual(os.listdir(self.dir), ["in.gguf"])


class Faults(Import):
    def test_any_failing_call_leaves_nothing(self):
        tensors, want = every_type()
        self.put(gg.file(gg.config(), tensors))
        for kind, rc in (("alloc", 4), ("read", 1), ("write", 4), ("sync", 1), ("rename", 1)):
            n, failed = 1, 0
            while True:
                r = qd.quantctl("import-gguf", self.gguf, "-o", self.out, env={"QD_FAULT": f"{kind}:{n}"})
                if r.rc == 0:
                    break
                self.refused(r, rc)
                if kind == "sync" and os.path.exists(self.out):  # the last one: of the directory that OUT_DIR is in
                    self.assertEqual(st.read_dir(self.out), want)
                    shutil.rmtree(self.out)
                self.assertEqual(os.listdir(self.dir), ["in.gguf"], f"{kind}:{n}\n{r}")
                failed += 1
                n += 1 + n // 16  # of many alike, some
                self.assertLess(failed, 1000)
            self.assertGreater(failed, 0, kind)
            self.assertEqual(st.read_dir(self.out), want)
            shutil.rmtree(self.out)


class Tokenizer(Import):
    def tokenizer(self, **more):
        self.put(gg.file(gg.config(**more), every_type()[0]))
        r = self.imported()
        return (self.config("tokenizer.json"), self.config("tokenizer_config.json"), r)

    def test_byte_level(self):
        t, c, _ = self.tokenizer()
        self.assertEqual(t["model"]["merges"], [["a", "b"]])
        self.assertEqual(t["model"]["vocab"]["ab"], 98)
        self.assertEqual([(a["id"], a["special"]) for a in t["added_tokens"]], [(0, True), (1, True), (2, True)])
        self.assertEqual(t["pre_tokenizer"]["type"], "ByteLevel")
        self.assertEqual(t["post_processor"]["special_tokens"], {})
        self.assertEqual((c["bos_token"], c["eos_token"], c["pad_token"], c["chat_template"]),
                         ("<|im_start|>", "<|im_end|>", None, "{{ messages }}\n\"x\""))
        self.assertEqual(self.config("generation_config.json")["eos_token_id"], 2)

    def test_one_that_begins_with_bos(self):
        t, c, _ = self.tokenizer(**{"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": True})
        self.assertEqual(t["post_processor"]["single"][0], {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}})
        self.assertEqual(t["post_processor"]["special_tokens"]["<|im_start|>"]["ids"], [1])
        self.assertIn("\\p{N}{1,3}|", t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"])
        self.assertIs(t["model"]["ignore_merges"], True)
        self.assertIs(c["add_bos_token"], True)

    def test_sentencepiece(self):
        tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "a", "b", "c", "ab", "bc", "abc", gg.SPACE]
        t, _, _ = self.tokenizer(**{
            "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [2, 3, 3, 6] + [1] * 7,
            "tokenizer.ggml.scores": [0.0, 0.0, 0.0, 0.0, -10.0, -11.0, -12.0, -3.0, -2.0, -1.0, -13.0]})
        self.assertEqual(t["model"]["merges"], [["a", "bc"], ["ab", "c"], ["b", "c"], ["a", "b"]])
        self.assertEqual((t["model"]["byte_fallback"], t["model"]["unk_token"]), (True, "<unk>"))
        self.assertEqual(t["normalizer"]["normalizers"][0], {"type": "Prepend", "prepend": gg.SPACE})
        self.assertEqual(t["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>")

    def test_one_that_is_not_known_is_left_out_with_a_warning(self):
        for change in ({"tokenizer.ggml.pre": "tekken"}, {"tokenizer.ggml.model": "bert"}, {"tokenizer.ggml.merges": ["ab"]},
                       {"tokenizer.ggml.merges": ["a c"]},
                       {"tokenizer.ggml.tokens": ["a", "a"], "tokenizer.ggml.token_type": [1, 1]}):
            with self.subTest(change):
                self.put(gg.file(gg.config(**change), every_type()[0]))
                r = self.imported("--force")
                self.assertIn("warning: no tokenizer is written: ", r.err)
                self.assertNotIn("tokenizer.json", os.listdir(self.out))
                self.assertIn("model.safetensors", os.listdir(self.out))


class Architectures(Import):
    """The shared fixtures, written as GGUF in BF16, come back as they were."""

    def as_gguf(self, tensors, cfg, arch):
        out, experts = {}, {}
        for name, t in tensors.items():
            stem, suffix = name.rsplit(".", 1)
            t = gg.Tensor("BF16", t.shape, t.data)
            if not stem.startswith("model.layers."):
                out[{"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}[stem] + "." + suffix] = t
                continue
            _, _, layer, rest = stem.split(".", 3)
            if ".experts." in rest:
                experts.setdefault((layer, FROM_HF[rest.rsplit(".", 1)[1]]), {})[int(rest.split(".")[-2])] = t
                continue
            if arch == "llama" and rest in ("self_attn.q_proj", "self_attn.k_proj"):
                heads = cfg["num_attention_heads" if "q_proj" in rest else "num_key_value_heads"]
                n, width = t.shape[0] // heads, t.shape[1] * 2
                t.data = b"".join(t.data[(h * n + i % 2 * (n // 2) + i // 2) * width:][:width]
                                  for h in range(heads) for i in range(n))
            out[f"blk.{layer}.{FROM_HF[rest]}.{suffix}"] = t
        for (layer, what), parts in experts.items():
            shape = (len(parts), *parts[0].shape)
            out[f"blk.{layer}.{what}.weight"] = gg.Tensor("BF16", shape, b"".join(parts[e].data for e in range(len(parts))))
        return out

    def pairs(self, cfg, arch):
        rope = cfg["rope_parameters"]
        more = {f"{arch}.rope.freq_base": rope["rope_theta"]}
        for key, name in (("head_dim", "attention.key_length"), ("num_local_experts", "expert_count"), ("num_experts", "expert_count"),
                          ("num_experts_per_tok", "expert_used_count"), ("moe_intermediate_size", "expert_feed_forward_length")):
            if key in cfg:
                more[f"{arch}.{name}"] = cfg[key]
        return gg.config(arch, cfg["num_hidden_layers"], cfg["hidden_size"], cfg["intermediate_size"], cfg["num_attention_heads"],
                         cfg["num_key_value_heads"], cfg["vocab_size"], **more)

    def one(self, path, arch):
        tensors = st.read(os.path.join(path, "model.safetensors"))
        with open(os.path.join(path, "config.json"), encoding="utf-8") as f:
            cfg = json.load(f)
        if cfg.get("mlp_only_layers"):  # GGUF has no layers of another kind: the first one is left out
            tensors = {re.sub(r"layers\.(\d)", lambda m: f"layers.{int(m[1]) - 1}", k): t for k, t in tensors.items()
                       if ".layers.0." not in k}
            cfg.update(mlp_only_layers=[], num_hidden_layers=cfg["num_hidden_layers"] - 1)
        gguf, rope = self.as_gguf(tensors, cfg, arch), cfg["rope_parameters"]
        if rope["rope_type"] == "llama3":
            gguf["rope_freqs.weight"] = gg.Tensor("F32", (cfg["head_dim"] // 2,), llama3_factors(rope, cfg["head_dim"]))
        self.put(gg.file(self.pairs(cfg, arch), gguf))
        self.imported("--force")
        self.assertEqual(st.read_dir(self.out), tensors)
        got = self.config()
        other = ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings", "rms_norm_eps")  # of gg.config()
        self.assertEqual({k: v for k, v in got.items() if k in cfg and k not in other},
                         {k: v for k, v in cfg.items() if k in got and k not in other})
        self.assertEqual((got["architectures"], got["model_type"]), (cfg["architectures"], cfg["model_type"]))

    def test_shared_fixtures(self):
        base = os.path.join(qd.SHARED, "fixtures")
        if not os.path.isdir(base):
            self.skipTest(f"no reference data at {base}")
        for name, arch in FIXTURES.items():
            with self.subTest(name):
                self.one(os.path.join(base, name), arch)


def llama3_factors(rope, head_dim):
    """As llama.cpp's converter stores them."""
    out = []
    for i in range(0, head_dim, 2):
        wave = 2 * 3.141592653589793 * rope["rope_theta"] ** (i / head_dim)
        low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
        high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
        smooth = (low / wave - 1) / (rope["high_freq_factor"] - rope["low_freq_factor"]) * rope["low_freq_factor"]
        out.append(1.0 if wave < high else rope["factor"] if wave > low else 1 / ((1 - smooth) / rope["factor"] + smooth))
    return struct.pack(f"<{len(out)}f", *out)


class Bad(Import):
    def bad(self, data, *words):
        self.put(data)
        self.refused(qd.quantctl("import-gguf", self.gguf, "-o", self.out), 3, "in.gguf", *words, out=self.out)

    def changed(self, pairs=None, tensors=None, drop=(), **more):
        p, t = gg.config(), every_type()[0]
        p.update(pairs or {})
        t.update(tensors or {})
        for name in drop:
            p.pop(name, None)
            t.pop(name, None)
        return gg.file(p, t, **more)

    def test_the_file_as_a_whole(self):
        good = self.changed()
        self.bad(b"", "truncated")
        self.bad(b"GGML" + good[4:], "GGUF")
        self.bad(b"GGUF\0\0\0\3" + good[8:], "big-endian")
        self.bad(self.changed(version=1), "version", "1")
        self.bad(self.changed(version=4), "version", "4")
        self.bad(good[:-64], "truncated")
        self.bad(good[:2000], "truncated")
        self.bad(self.changed(n_pairs=1 << 60), "key-value pairs")
        self.bad(self.changed(n_tensors=1 << 60), "tensors")

    def test_metadata(self):
        arch = "general.architecture"
        self.bad(self.changed({arch: "gemma3"}), "gemma3", "llama, qwen2")
        self.bad(self.changed({arch: 3}), arch, "a string", "u32")
        self.bad(self.changed(drop=[arch]), arch, "missing")
        self.bad(self.changed({"llama.block_count": "one"}), "llama.block_count", "integer", "string")
        self.bad(self.changed({"llama.block_count": 0}), "llama.block_count")
        self.bad(self.changed({"llama.block_count": gg.Typed(gg.I32, -1)}), "llama.block_count", "-1")
        self.bad(self.changed({"general.alignment": 33}), "general.alignment", "33")
        self.bad(self.changed({"x": gg.Typed(gg.ARRAY, struct.pack("<IQ", gg.ARRAY, 1))}), '"x"', "array")
        self.bad(self.changed({"x": gg.Typed(13, b"")}), '"x"', "13")
        self.bad(self.changed({"x": gg.Typed(gg.ARRAY, struct.pack("<IQ", gg.U64, 1 << 61))}), "x", "truncated")
        self.bad(gg.file(list(gg.config().items()) + [("llama.block_count", 1)], every_type()[0]), "llama.block_count", "twice")
        self.bad(self.changed({"split.count": gg.Typed(gg.U16, 3)}), "one file", "3")
        self.bad(self.changed({"llama.rope.scaling.type": "longrope"}), "longrope")
        self.bad(self.changed({"tokenizer.ggml.eos_token_id": 128}), "eos_token_id", "127", "128")

    def test_tensors(self):
        name = "blk.0.attn_v.weight"
        good = every_type()[0][name]

        def tensor(shape=good.shape, **more):
            return self.changed(tensors={name: gg.Tensor("Q5_0", shape, good.data, **more)})

        self.bad(tensor(number=99), name, "99")
        self.bad(tensor(number=10), name, "Q2_K")
        self.bad(tensor(offset=8), name, "8")
        self.bad(tensor(offset=0), "overlaps")
        self.bad(tensor(offset=1 << 40), name, "truncated")
        self.bad(tensor(shape=(1 << 40, 1 << 40)), name, "overflows")
        self.bad(tensor(shape=(HIDDEN, 100)), name, "32", "100")
        self.bad(tensor(shape=(0, 32)), name, "0")
        self.bad(tensor(shape=(1, 1, 1, 1, 32)), name, "5")
        self.bad(self.changed(drop=[name]), name, "missing")
        self.bad(self.changed(drop=["output_norm.weight"]), "output_norm.weight", "missing")
        self.bad(self.changed(tensors={"blk.1.attn_v.weight": good}), "blk.1.attn_v.weight", "block_count")
        self.bad(self.changed(tensors={"blk.0.attn_q_norm.weight": good}), "attn_q_norm", "llama")
        self.bad(self.changed(tensors={"blk.0.attn_q.bias": good}), "attn_q.bias", "llama")
        tensors = every_type()[0]
        self.bad(gg.file(gg.config(), list(tensors.items()) + [(name, good)]), name, "twice")

    def test_a_control_byte_does_not_reach_the_terminal(self):
        self.put(self.changed(tensors={"\x1b[31mred": gg.Tensor("F32", (1,), bytes(4))}))
        r = qd.quantctl("import-gguf", self.gguf, "-o", self.out)
        self.refused(r, 3, out=self.out)
        self.assertNotIn("\x1b", r.err)

    def test_no_such_file(self):
        self.refused(qd.quantctl("import-gguf", self.path("nowhere"), "-o", self.out), 3, "nowhere", out=self.out)


if __name__ == "__main__":
    qd.main()
