#!/usr/bin/env python3
"""Layer-by-layer methods: the same bytes whatever happens, outputs never further off than rounding to nearest, the gate."""
import math
import os
import random
import signal
import struct

import qd
import st

FAST = "nvfp4-w4a4-fast"
GPTQ = ("--set", "method=gptq", "--set", "smoothing=balanced")
ALL = {"fast": (FAST, ()), "gptq4": ("nvfp4-w4a4", ("--set", "gate_samples=4")), "gptq16": ("nvfp4-w4a16", GPTQ),
       "corrected": ("nvfp4-w4a4", ("--set", "output_correction=0.25"))}
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
E2M1 += [-v for v in E2M1]
CHANGED = ("input_layernorm.weight", "post_attention_layernorm.weight", "v_proj.bias", "up_proj.bias")


def e4m3(b):
    e, m = b >> 3 & 15, b & 7
    v = (1 + m / 8) * 2.0 ** (e - 7) if e else m * 2.0**-9
    return -v if b & 128 else v


def floats(t):
    if t.dtype == "BF16":
        return [struct.unpack("<f", b"\0\0" + t.data[i:i + 2])[0] for i in range(0, len(t.data), 2)]
    return list(struct.unpack(f"<{len(t.data) // 4}f", t.data))


def decode(tensors, module):
    packed, scale = tensors[module + ".weight_packed"], tensors[module + ".weight_scale"]
    gs = struct.unpack("<f", tensors[module + ".weight_global_scale"].data)[0]
    rows, half = packed.shape
    out = []
    for i, b in enumerate(packed.data):
        s = e4m3(scale.data[i // 8]) / gs
        out += (E2M1[b & 15] * s, E2M1[b >> 4] * s)
    return st.Tensor("F32", (rows, half * 2), struct.pack(f"<{len(out)}f", *out))


def ids_file(path, n, length, vocab, seed=3):
    r = random.Random(seed)
    ids = [r.randrange(vocab) for _ in range(n * length)]
    st.write(path, {"input_ids": st.Tensor("I64", (n, length), struct.pack(f"<{len(ids)}q", *ids))})
    return ids


def log_softmax(x):
    top = max(x)
    z = top + math.log(sum(math.exp(v - top) for v in x))
    return [v - z for v in x]


class Fixtures(qd.Case):
    def test_outputs_are_never_further_off_than_rounded_ones_and_threads_do_not_matter(self):
        n = 0
        for name, model in qd.fixtures().items():
            ref = os.path.join(model, "ref.safetensors")
            if not os.path.exists(ref):
                continue
            for key, (template, more) in ALL.items():
                with self.subTest(f"{name} {key}"):
                    a, b = self.path(f"{name}-{key}-1"), self.path(f"{name}-{key}-3")
                    self.quantize(model, a, "--calib", ref, *more, "--threads", "1", template=template)
                    self.quantize(model, b, "--calib", ref, *more, "--threads", "3", template=template)
                    self.same_tree(a, b)
                    errors = qd.report(a).get("output_error_of_rtn", [])
                    self.assertEqual(bool(errors), key != "fast")
                    self.assertLessEqual(max(errors, default=0), 1.0)
                    self.assertGreater(qd.report(a)["calibration"]["flop"], 0)
                    self.assertGreater(qd.report(a)["calibration"]["run_s"], 0)
                    n += 1
        self.assertGreater(n, 0, "fixtures are there but none was quantized")


    def test_experts_over_several_tiles_give_the_same_bytes_for_any_threads(self):
        ids_file(self.path("ids.safetensors"), 130, 33, 512)  # three tiles
        for name in ("qwen3_5_moe", "mixtral"):
            model = qd.fixtures()[name]
            for i in (1, 3):
                self.quantize(model, self.path(f"{name}-{i}"), "--calib", self.path("ids.safetensors"), *GPTQ,
                              "--set", "gate_samples=4", "--threads", i, template="nvfp4-w4a4")
            self.same_tree(self.path(f"{name}-1"), self.path(f"{name}-3"))


class Own(qd.Case):
    """A small model and ids of its own."""

    def setUp(self):
        super().setUp()
        self.model = st.make_dir(self.path("model"), st.llama(layers=4), cfg=st.config(num_hidden_layers=4))
        self.ids = self.path("ids.safetensors")
        self.values = ids_file(self.ids, 40, 64, 128)

    def args(self, key, out, *more):
        template, settings = ALL[key]
        return ("quantize", self.model, "--template", template, *settings, "--calib", self.ids, "-o", out, *more)

    def test_killed_after_any_line_of_the_journal_it_goes_on_with_the_same_bytes(self):
        for key in ALL:
            whole, stopped = self.path(f"{key}-whole"), 0
            self.check(qd.quantctl(*self.args(key, whole)), 0)
            for n in (1, 3, 6, 10, 14, 20, 26):
                out = self.path(f"{key}-{n}")
                journal = os.path.join(out + ".staging", "journal.jsonl")
                p = qd.start(*self.args(key, out, "--threads", "1"))
                if qd.freeze_when(p, lambda j=journal, n=n: qd.lines(j) > n):
                    p.send_signal(signal.SIGKILL)
                    stopped += 1
                qd.finish(p)
                if os.path.isdir(out):
                    continue
                self.check(qd.quantctl(*self.args(key, out, "--resume")), 0)
                self.same_tree(whole, out)
            self.assertGreater(stopped, 0, f"{key}: no run could be stopped")

    def test_a_signal_stops_it_and_a_resume_gives_the_same_bytes(self):
        whole, out = self.path("whole"), self.path("out")
        self.check(qd.quantctl(*self.args("gptq4", whole)), 0)
        p = qd.start(*self.args("gptq4", out, "--threads", "1"))
        frozen = qd.freeze_when(p, lambda: qd.lines(os.path.join(out + ".staging", "journal.jsonl")) > 4)
        p.send_signal(signal.SIGTERM)
        p.send_signal(signal.SIGCONT)
        r = qd.finish(p)
        if frozen:
            self.check(r, 143)
            self.check(qd.quantctl(*self.args("gptq4", out, "--resume")), 0)
        self.same_tree(whole, out)

    def test_a_write_that_fails_is_resumed(self):
        whole, failed = self.path("whole"), 0
        self.check(qd.quantctl(*self.args("gptq4", whole)), 0)
        for n in (2, 5, 9, 17, 30):
            out = self.path(f"out{n}")
            r = qd.quantctl(*self.args("gptq4", out), env={"QD_FAULT": f"write:{n}:5"})
            if r.rc == 0:
                continue
            self.check(r, 1)
            failed += 1
            self.check(qd.quantctl(*self.args("gptq4", out, "--resume")), 0)
            self.same_tree(whole, out)
        self.assertGreater(failed, 0)

    def test_what_scaling_takes_from_the_norms_it_gives_to_the_weights(self):
        out = self.path("out")
        self.check(qd.quantctl(*self.args("fast", out)), 0)
        source, ours = st.read_dir(self.model), st.read_dir(out)
        changed = [k for k in ours if k in source and ours[k] != source[k]]
        self.assertTrue(changed)
        self.assertEqual([k for k in changed if not k.endswith(CHANGED)], [])

    def forward(self, model, ids):
        out = self.path("logits.safetensors")
        self.check(qd.quantctl("forward", model, "--ids", ids, "-o", out), 0)
        t = st.read(out)["logits"]
        return floats(t), t.shape[-1]

    def test_the_gate_tells_what_the_decoded_model_is_off_on_samples_it_did_not_see(self):
        for key in (("--set", "method=rtn"), GPTQ):
            out = self.path("out-" + key[1].replace("=", "-"))
            self.quantize(self.model, out, *key, "--set", "gate_samples=4", "--calib", self.ids)
            told = qd.report(out)["quality"]
            ours = st.read_dir(out)
            plain = {k: t for k, t in ours.items() if ".weight_" not in k}
            for k in ours:
                if k.endswith(".weight_packed"):
                    module = k[:-len(".weight_packed")]
                    plain[module + ".weight"] = decode(ours, module)
            model = st.make_dir(self.path("decoded-" + key[1]), plain, cfg=st.config(num_hidden_layers=4))
            held, last = self.path("held.safetensors"), self.values[36 * 64:]
            st.write(held, {"input_ids": st.Tensor("I64", (4, 64), struct.pack(f"<{len(last)}q", *last))})
            a, vocab = self.forward(self.model, held)
            b, _ = self.forward(model, held)
            kl, top, nll = 0.0, 0, 0.0
            for r in range(4 * 64):
                p, q = log_softmax(a[r * vocab:(r + 1) * vocab]), log_softmax(b[r * vocab:(r + 1) * vocab])
                kl += sum(math.exp(x) * (x - y) for x, y in zip(p, q)) / 256
                top += p.index(max(p)) == q.index(max(q))
                if r % 64 != 63:
                    nll -= q[last[r + 1]] / (4 * 63)
            self.assertEqual(told["tokens"], 256)
            self.assertLess(abs(told["kl"] / kl - 1), 0.02)
            self.assertLess(abs(told["perplexity"] / math.exp(nll) - 1), 0.002)
            self.assertLess(abs(told["top1"] - top / 256), 0.02)

    def test_a_model_that_is_too_far_off_fails_the_job_with_5(self):
        out = self.path("out")
        r = qd.quantctl(*self.args("gptq16", out, "--max-kl", "1e-9"))
        self.check(r, 5)
        self.assertIn("quality gate: expected a KL divergence of at most 1e-09", r.err)
        self.assertFalse(os.path.exists(out) or os.path.exists(out + ".staging"))
        self.check(qd.quantctl(*self.args("gptq16", out, "--max-kl", "10")), 0)
        self.assertLess(qd.report(out)["quality"]["kl"], 10)
        self.refused(qd.quantctl(*self.args("gptq16", self.path("o2"), "--max-kl", "x")), 2, "--max-kl")

    def test_settings_that_do_not_go_together_are_refused(self):
        for more in (("scale_arithmetic=ct-exact", "block_scale=minmax", "method=gptq"),
                     ("scale_arithmetic=ct-exact", "block_scale=minmax", "smoothing=balanced"),
                     ("input_scale=percentile", "block_scale=hessian")):
            sets = [x for m in more for x in ("--set", m)]
            r = qd.quantctl("quantize", self.model, "--template", "nvfp4-w4a4", *sets, "--calib", self.ids, "-o", self.path("o"))
            self.refused(r, 2, more[0].split("=")[1])

    def test_a_weight_that_is_not_finite_is_named(self):
        t = st.llama(layers=4)
        name = "model.layers.1.mlp.up_proj.weight"
        data = bytearray(t[name].data)
        data[6:8] = struct.pack("<H", 0x7F80)
        t[name] = st.Tensor("BF16", t[name].shape, bytes(data))
        model = st.make_dir(self.path("bad"), t, cfg=st.config(num_hidden_layers=4))
        r = qd.quantctl("quantize", model, "--template", FAST, "--calib", self.ids, "-o", self.path("o"))
        self.refused(r, 3, "layers.1.")


if __name__ == "__main__":
    qd.main()
