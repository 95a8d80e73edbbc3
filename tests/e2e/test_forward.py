#!/usr/bin/env python3
"""quantctl forward: hidden states and logits of every fixture as transformers has them, the same bytes whatever the threads."""
import array
import json
import math
import os
import signal

import qd
import st

F32_BOUND, BF16_BOUND = 2e-4, 2e-2
CLOSE = 1e-3
# Where eager BF16 transformers is itself further than BF16_BOUND from F32 (its own distance, measured with 5.17.0): experts are
# chosen by close calls, and the delta rule adds up what rounding leaves. We must not be further away than it is.
BF16_OWN = {"mixtral": 5.5e-2, "qwen3_moe": 2.2e-2, "qwen3_5": 5.4e-2, "qwen3_5_moe": 1.5e-1, "qwen3_5_moe-vl-mtp": 2.2e-1}


def values(t):
    a = array.array("f")
    a.frombytes(t.data)
    return a


def distance(a, b):
    """|a - b| / |b|"""
    a, b = values(a), values(b)
    if len(a) != len(b):
        raise AssertionError(f"{len(a)} values, expected {len(b)}")
    return math.sqrt(sum((x - y) * (x - y) for x, y in zip(a, b))) / math.sqrt(sum(y * y for y in b))


def ids(path, rows):
    st.write(path, {"input_ids": st.Tensor("I64", (len(rows), len(rows[0])), array.array("q", sum(rows, [])).tobytes())})
    return path


def random_ids(path, seqs, length, vocab=128):
    return ids(path, [[(i * 7919 + s * 31 + i * i) % vocab for i in range(length)] for s in range(seqs)])


class Forward(qd.Case):
    def forward(self, model, ids_path, out, *more, rc=0):
        r = qd.quantctl("forward", model, "--ids", ids_path, "-o", out, *more)
        self.check(r, rc)
        return r

    def compare(self, dtype, bound_of):
        n = 0
        for name, model in qd.fixtures().items():
            ref_path = os.path.join(model, "ref.safetensors")
            if not os.path.exists(ref_path):
                continue
            n += 1
            # The references were made by models cast to BF16 as a whole, frequencies of RoPE included.
            r = self.forward(model, ref_path, self.path("out"), "--dtype", dtype, "--rope-bf16", "--json")
            got, ref = st.read(self.path("out")), st.read(ref_path)
            ref.pop("input_ids")
            far = {k: distance(got[k], t) for k, t in ref.items()}
            margins = [m for k, t in got.items() if k.startswith("router_margin.") for m in values(t)]
            done = r.event("done")
            self.assertEqual(done["routed"], len(margins))
            self.assertLessEqual(done["lane_bytes"], done["lane_bytes_max"])
            self.assertEqual(done["close_routings"], sum(m < CLOSE for m in margins))
            print(f"{name} {dtype}: " + " ".join(f"{k}={v:.1e}" for k, v in far.items()) +
                  (f", {done['close_routings']} of {len(margins)} routings by less than {CLOSE}" if margins else ""))
            self.assertEqual(far["hidden.0"], 0)
            self.assertEqual(sorted(k for k in got if not k.startswith("router_margin.")), sorted(ref))
            for k, v in far.items():
                self.assertLessEqual(v, bound_of(name), f"{name}: {k}")
        self.assertGreater(n, 0, "no fixture has a reference")

    def test_f32_is_as_transformers_on_every_fixture(self):
        self.compare("f32", lambda name: F32_BOUND)

    def test_bf16_is_as_near_as_transformers_bf16_on_every_fixture(self):
        self.compare("bf16", lambda name: max(BF16_BOUND, 1.2 * BF16_OWN.get(name, 0)))

    def test_the_same_bytes_for_any_threads_and_memory(self):
        model = st.make_dir(self.path("model"), st.llama())
        rows = random_ids(self.path("ids.safetensors"), 40, 70)
        runs = [("--threads", "1"), ("--threads", "2"), ("--threads", "5", "--memory", "1")]
        for dtype, device in (("f32", "cpu"), ("bf16", "cpu"), ("bf16", "cpu-bf16")):
            outs = []
            for i, more in enumerate(runs):
                r = self.forward(model, rows, self.path(f"{dtype}{i}"), "--dtype", dtype, "--device", device, "--json", *more)
                done = r.event("done")
                self.assertEqual(done["spilled"], "--memory" in more)
                self.assertLessEqual(done["lane_bytes"], done["lane_bytes_max"])
                self.assertIn("onednn", done["numerics"])
                with open(self.path(f"{dtype}{i}"), "rb") as f:
                    outs.append(f.read())
            self.assertTrue(outs[0] == outs[1] == outs[2], f"{dtype} {device}: bytes differ")

    def test_bf16_products_in_hardware_are_those_of_widened_values(self):
        model = qd.fixtures()["llama"]
        outs = []
        for device in ("cpu", "cpu-bf16"):
            self.forward(model, os.path.join(model, "ref.safetensors"), self.path("out"), "--dtype", "bf16", "--device", device)
            outs.append(st.read(self.path("out"))["logits"])
        self.assertLessEqual(distance(*outs), 1e-2)  # the order of sums moves a value by a step of BF16 now and then

    def test_experts_and_states_give_the_same_bytes_for_any_threads(self):
        for name in ("qwen3_5_moe", "mixtral"):
            model = qd.fixtures()[name]
            rows = random_ids(self.path("ids.safetensors"), 130, 33, 576)  # three tiles
            outs = []
            for threads in ("1", "3"):
                self.forward(model, rows, self.path("out"), "--dtype", "bf16", "--threads", threads, "--no-logits")
                with open(self.path("out"), "rb") as f:
                    outs.append(f.read())
            self.assertTrue(outs[0] == outs[1], f"{name}: bytes differ")

    def test_sequences_do_not_see_each_other(self):
        model = st.make_dir(self.path("model"), st.llama())
        rows = [[(i * 5 + s) % 128 for i in range(9)] for s in range(3)]
        self.forward(model, ids(self.path("all.safetensors"), rows), self.path("out"))
        whole = values(st.read(self.path("out"))["logits"])
        n = len(whole) // 3
        for s in range(3):
            self.forward(model, ids(self.path("one.safetensors"), [rows[s]]), self.path("out"))
            one = values(st.read(self.path("out"))["logits"])
            for a, b in zip(whole[s * n:(s + 1) * n], one):
                self.assertAlmostEqual(a, b, delta=1e-5)

    def test_a_signal_stops_it_and_leaves_nothing(self):
        model = st.make_dir(self.path("model"), st.llama(layers=8, hidden=256, ffn=512, kv=128),
                            st.config(hidden_size=256, intermediate_size=512, num_hidden_layers=8, num_attention_heads=8,
                                      num_key_value_heads=4, head_dim=32))
        rows = random_ids(self.path("ids.safetensors"), 16, 512)
        p = qd.start("forward", model, "--ids", rows, "-o", self.path("out"), "--json")
        if not qd.freeze_when(p, lambda: os.path.exists(self.path("out.part"))):
            qd.finish(p)
            self.fail("the run ended before it could be interrupted")
        p.send_signal(signal.SIGTERM)
        p.send_signal(signal.SIGCONT)
        r = qd.finish(p)
        self.check(r, 143)
        self.assertEqual(sorted(os.listdir(self.dir)), ["ids.safetensors", "model"])
        self.assertFalse(any(e.get("event") == "done" for e in r.events()), str(r))


class Refused(qd.Case):
    def one(self, rc, *words, rows=None, tensors=None, cfg=None, ids_file=None):
        model = st.make_dir(self.path("model"), st.llama() if tensors is None else tensors, cfg)
        if ids_file is None:
            ids_file = ids(self.path("ids.safetensors"), [[1, 2, 3]] if rows is None else rows)
        out = self.path("out")
        self.refused(qd.quantctl("forward", model, "--ids", ids_file, "-o", out), rc, *words, out=out)
        self.assertFalse(os.path.exists(out + ".part"))

    def test_an_id_outside_the_vocabulary(self):
        self.one(3, "ids.safetensors: input_ids[1][0]: id 128 is outside the vocabulary of 128", rows=[[1, 2], [128, 3]])

    def test_a_negative_id(self):
        self.one(3, "input_ids[0][1]", "id -1 is outside", rows=[[1, -1]])

    def test_ids_of_another_dtype(self):
        st.write(self.path("f.safetensors"), {"input_ids": st.Tensor("F32", (1, 1), st.f32([1.0]))})
        self.one(3, "input_ids: expected I64 or I32, found F32", ids_file=self.path("f.safetensors"))

    def test_no_ids(self):
        one = st.Tensor("I64", (1, 1), bytes(8))
        st.write(self.path("f.safetensors"), {"ids": one, "more": one})
        self.one(3, 'expected a tensor "input_ids"', ids_file=self.path("f.safetensors"))

    def test_ids_that_are_no_safetensors(self):
        with open(self.path("f.safetensors"), "wb") as f:
            f.write(b"hello")
        self.one(3, self.path("f.safetensors"), ids_file=self.path("f.safetensors"))

    def test_no_tokens(self):
        st.write(self.path("f.safetensors"), {"input_ids": st.Tensor("I64", (3, 0), b"")})
        self.one(3, "0 elements", ids_file=self.path("f.safetensors"))

    def test_a_missing_tensor(self):
        t = st.llama()
        del t["model.layers.1.mlp.up_proj.weight"]
        self.one(3, 'expected a tensor "model.layers.1.mlp.up_proj.weight", found none', tensors=t)

    def test_a_tensor_of_another_shape(self):
        t = st.llama()
        t["model.layers.0.self_attn.k_proj.weight"] = st.Tensor("BF16", (64, 32), bytes(64 * 32 * 2))
        self.one(3, "k_proj.weight", "expected 32 x 64", "rows of 32", tensors=t)

    def test_an_unknown_architecture(self):
        self.one(3, "config.json", 'no forward pass for model_type "gpt2"', cfg=st.config(model_type="gpt2"))

    def test_an_unknown_activation(self):
        self.one(3, '"hidden_act": expected "silu", found "gelu"', cfg=st.config(hidden_act="gelu"))

    def test_a_kind_of_rope_that_is_not_known(self):
        self.one(3, '"rope_type"', 'found "longrope"', cfg=st.config(rope_scaling={"rope_type": "longrope", "factor": 2}))

    def test_heads_that_do_not_fit(self):
        self.one(3, "num_attention_heads a multiple of num_key_value_heads, found 4 and 3", cfg=st.config(num_key_value_heads=3))

    def test_a_quantized_source(self):
        self.one(3, "not quantized", 'found "awq"', cfg=st.config(quantization_config={"quant_method": "awq"}))

    def test_wrong_use(self):
        for args, word in ((("m",), "--ids"), (("m", "--ids", "x"), "-o"), (("m", "--ids", "x", "-o", "y", "--dtype", "f16"), "f16"),
                           ((), "which model")):
            self.refused(qd.quantctl("forward", *args), 2, word)

    def test_json_says_why(self):
        model = st.make_dir(self.path("model"), st.llama())
        r = qd.quantctl("forward", model, "--ids", ids(self.path("ids.safetensors"), [[999]]), "-o", self.path("out"), "--json")
        self.check(r, 3)
        e = json.loads(r.out)
        self.assertEqual((e["event"], e["code"]), ("error", "bad_input"))


if __name__ == "__main__":
    qd.main()
