#!/usr/bin/env python3
"""W4A4: input scales against llm-compressor's, the same bytes whatever the threads and interruptions, data from files."""
import array
import json
import math
import os
import signal
import struct

import qd
import st
from test_ct_exact import SUFFIXES, reference_name

FIXTURES = qd.fixtures()
W4A4 = "nvfp4-w4a4"
PLAIN = ("--set", "method=rtn", "--set", "smoothing=none", "--set", "gate_samples=0")
CT = (*PLAIN, "--set", "block_scale=minmax", "--set", "scale_arithmetic=ct-exact")
INPUT = ".input_global_scale"
TEXT = "The quick brown fox jumps over the lazy dog; 12 boxes, 345 jugs. Zwölf Boxkämpfer jagen Viktor. 敏捷的狐狸。\n"


def value(t):
    return struct.unpack("<f", t.data)[0]


class Reference(qd.Case):
    def test_ct_exact_input_scales_are_llm_compressors(self):
        n = close = 0
        for name, path in FIXTURES.items():
            ref_path = os.path.join(path, "ct-rtn.safetensors")
            if not os.path.exists(ref_path):
                continue
            with self.subTest(name):
                out = self.path(name)
                self.quantize(path, out, "--calib", os.path.join(path, "ref.safetensors"), *CT, template=W4A4)
                ref = st.read(ref_path)
                ours = {reference_name(k): t for k, t in st.read_dir(out).items() if k.endswith((*SUFFIXES, INPUT))}
                self.assertEqual(sorted(ours), sorted(k for k in ref if k.endswith((*SUFFIXES, INPUT))))
                self.assertEqual([k for k in ours if k.endswith(SUFFIXES) and ours[k] != ref[k]], [])
                for k in (k for k in ours if k.endswith(INPUT)):
                    off = abs(value(ours[k]) / value(ref[k]) - 1)
                    self.assertLessEqual(off, 0.04, k)
                    if ".layers.0." in k and (".q_proj" in k or ".in_proj_qkv" in k):
                        self.assertEqual(off, 0.0, k)
                    n += 1
                    close += off <= 0.02
        self.assertGreater(n, 0, "fixtures are there but none was compared")
        self.assertGreaterEqual(close, 0.95 * n)
        print(f"{close} of {n} within 2 %")


class Own(qd.Case):
    """A small model and ids of its own."""

    def setUp(self):
        super().setUp()
        self.model = st.make_dir(self.path("model"), st.llama(layers=5), cfg=st.config(num_hidden_layers=5))
        ids = [(i * 37 + i // 64 * 11) % 128 for i in range(40 * 64)]
        self.ids = self.path("ids.safetensors")
        st.write(self.ids, {"input_ids": st.Tensor("I64", (40, 64), struct.pack(f"<{len(ids)}q", *ids))})

    def args(self, out, *more):
        return ("quantize", self.model, "--template", W4A4, *PLAIN, "--set", "block_scale=mse",
                "--calib", self.ids, "-o", out, *more)

    def test_the_bytes_do_not_depend_on_threads_or_memory(self):
        self.check(qd.quantctl(*self.args(self.path("a"), "--threads", "1")), 0)
        for i, more in enumerate((("--threads", "3"), ("--threads", "2", "--memory", "64M"))):
            self.check(qd.quantctl(*self.args(self.path(f"b{i}"), *more)), 0)
            self.same_tree(self.path("a"), self.path(f"b{i}"))
            report = qd.report(self.path(f"b{i}"))
            if "QD_TSAN" not in os.environ:
                self.assertLessEqual(report["peak_memory_bytes"], report["planned_memory_bytes"])
        rows = qd.report(self.path("a"))["tensors"]
        self.assertEqual(len(rows), 35)
        for r in rows:
            self.assertGreater(r["input_amax"], 0.0, r["name"])
        config = json.loads(qd.tree(self.path("a"))["config.json"])["quantization_config"]
        self.assertEqual(config["config_groups"]["group_0"]["input_activations"]["dynamic"], "local")

    def test_the_dry_run_is_the_run(self):
        r = qd.quantctl(*self.args(self.path("out"), "--threads", "2", "--dry-run", "--json"))
        self.check(r, 0)
        self.assertFalse(os.path.lexists(self.path("out")))
        self.check(qd.quantctl(*self.args(self.path("out"), "--threads", "2")), 0)
        plan, report = r.event("plan"), qd.report(self.path("out"))
        self.assertEqual(plan["plan"], report["plan"])
        self.assertEqual(plan["peak_bytes"], report["planned_memory_bytes"])
        self.assertEqual((plan["calibration"]["samples"], plan["calibration"]["tokens"]), (40, 40 * 64))
        self.assertGreaterEqual(report["calibration"]["flop"], plan["calibration"]["flop"])
        self.assertFalse(report["calibration"]["spilled"])
        st.write(self.ids, {"input_ids": st.Tensor("I64", (1, 64), struct.pack("<64q", *range(64)))})
        other = qd.quantctl(*self.args(self.path("out2"), "--threads", "2", "--dry-run", "--json"))
        self.assertNotEqual(other.event("plan")["plan"], plan["plan"], "the tokens are part of the plan")

    def dry_run_of_long(self, n_seqs, length, *more):
        ids = array.array("i", (i % 128 for i in range(n_seqs * length)))
        st.write(self.ids, {"input_ids": st.Tensor("I32", (n_seqs, length), ids.tobytes())})
        return qd.quantctl(*self.args(self.path("out"), "--dry-run", "--json", *more))

    def test_activations_beyond_the_memory_are_planned_on_disk(self):
        r = self.dry_run_of_long(2000, 128, "--memory", "16M")
        self.check(r, 0)
        pass_ = r.event("plan")["calibration"]
        self.assertEqual(pass_["activation_bytes"], 2000 * 128 * 64 * 2)
        self.assertEqual(pass_["spill_bytes"], pass_["activation_bytes"])
        self.assertEqual(self.dry_run_of_long(2000, 128).event("plan")["calibration"]["spill_bytes"], 0)

    def test_a_pass_that_does_not_fit_is_refused_with_the_figures(self):
        r = self.dry_run_of_long(1, 12 << 20)
        with open("/proc/meminfo", encoding="ascii") as f:
            have = int(next(x for x in f if x.startswith("MemAvailable")).split()[1]) * 1024
        if r.rc == 0:  # a machine with very much memory
            self.assertLess(r.event("plan")["peak_bytes"], have * 1.1)
            return
        self.refused(r, 4, "not enough memory", "for a layer", "for each of 1 threads", out=self.path("out"))

    def test_killed_after_any_layer_it_goes_on_with_the_same_bytes(self):
        self.check(qd.quantctl(*self.args(self.path("whole"))), 0)
        stopped = 0
        for layers in range(1, 6):
            out = self.path(f"out{layers}")
            journal = os.path.join(out + ".staging", "journal.jsonl")
            p = qd.start(*self.args(out, "--threads", "1"))
            if qd.freeze_when(p, lambda j=journal, n=layers: qd.lines(j) > n):
                p.send_signal(signal.SIGKILL)
                stopped += 1
            qd.finish(p)
            if os.path.isdir(out):
                continue
            r = qd.quantctl(*self.args(out, "--resume"))
            self.check(r, 0)
            self.same_tree(self.path("whole"), out)
        self.assertGreater(stopped, 0, "no run could be stopped")

    def test_a_write_that_fails_in_calibration_is_resumed(self):
        self.check(qd.quantctl(*self.args(self.path("whole"))), 0)
        failed = 0
        for n in range(2, 9):
            out = self.path(f"out{n}")
            r = qd.quantctl(*self.args(out), env={"QD_FAULT": f"write:{n}:5"})
            if r.rc == 0:
                continue
            self.check(r, 1)
            failed += 1
            self.check(qd.quantctl(*self.args(out, "--resume")), 0)
            self.same_tree(self.path("whole"), out)
        self.assertGreater(failed, 0)

    def test_modelopt_holds_the_reciprocal(self):
        self.check(qd.quantctl(*self.args(self.path("ct"))), 0)
        self.check(qd.quantctl(*self.args(self.path("mo"), "--format", "modelopt")), 0)
        ct, mo = st.read_dir(self.path("ct")), st.read_dir(self.path("mo"))
        n = 0
        for k, t in mo.items():
            if k.endswith(".input_scale"):
                self.assertEqual(t.shape, ())
                self.assertAlmostEqual(value(t) * value(ct[k[:-len(".input_scale")] + INPUT]), 1.0, places=5)
                n += 1
        self.assertEqual(n, 35)

    def test_a_percentile_is_at_most_the_largest(self):
        self.check(qd.quantctl(*self.args(self.path("a"))), 0)
        self.check(qd.quantctl(*self.args(self.path("b"), "--set", "input_scale=percentile")), 0)
        a, b = ({r["name"]: r["input_amax"] for r in qd.report(self.path(d))["tensors"]} for d in "ab")
        self.assertTrue(all(b[k] <= a[k] for k in a))
        self.assertNotEqual(a, b)

    def test_mse_takes_a_step_of_its_grid_whatever_the_threads(self):
        self.check(qd.quantctl(*self.args(self.path("a"))), 0)
        for d, threads in (("b", "1"), ("c", "3")):
            self.check(qd.quantctl(*self.args(self.path(d), "--set", "input_scale=mse", "--threads", threads)), 0)
        self.same_tree(self.path("b"), self.path("c"))
        a, b = ({r["name"]: r["input_amax"] for r in qd.report(self.path(d))["tensors"]} for d in "ab")
        for name, amax in b.items():
            steps = 4 * math.log2(amax)
            self.assertAlmostEqual(steps, round(steps), places=4)
        first = [n for n in a if ".layers.0." in n and "q_proj" in n][0]  # before it the two streams are the same
        self.assertTrue(0.24 * a[first] < b[first] < 1.2 * a[first])
        r = qd.quantctl(*self.args(self.path("d"), "--set", "input_scale=mse", *CT))
        self.refused(r, 2, "mse", "ct-exact", out=self.path("d"))

    def test_ids_outside_the_vocabulary_are_refused(self):
        st.write(self.ids, {"input_ids": st.Tensor("I64", (1, 4), struct.pack("<4q", 1, 2, 128, 3))})
        r = qd.quantctl(*self.args(self.path("out")))
        self.refused(r, 3, "128", "ids.safetensors", out=self.path("out"))

    def test_an_activation_that_overflows_is_named(self):
        tensors = st.llama(layers=5)
        big = tensors["model.layers.2.input_layernorm.weight"]
        tensors["model.layers.2.input_layernorm.weight"] = st.Tensor("BF16", big.shape, st.bf16([3e38] * big.shape[0]))
        self.model = st.make_dir(self.path("big"), tensors, cfg=st.config(num_hidden_layers=5))
        r = qd.quantctl(*self.args(self.path("out")))
        self.refused(r, 3, "finite", "layers.2", out=self.path("out"))


class Texts(qd.Case):
    """Text and JSONL through a real tokenizer."""

    def setUp(self):
        super().setUp()
        tokenizer = os.path.join(qd.SHARED, "fixtures", "tokenizer-smollm2")
        side = {}
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            with open(os.path.join(tokenizer, name), "rb") as f:
                side[name] = f.read()
        self.model = st.make_dir(self.path("model"), st.llama(vocab=49152), cfg=st.config(vocab_size=49152), side=side)

    def put(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def run_on(self, *calib, out="out", more=()):
        args = [a for c in calib for a in ("--calib", c)]
        return qd.quantctl("quantize", self.model, "--template", W4A4, "-o", self.path(out), "--samples", "4",
                           "--seq-len", "64", *args, *more)

    def test_text_and_chats(self):
        chat = {"messages": [{"role": "user", "content": TEXT}, {"role": "assistant", "content": [{"text": TEXT}]}]}
        self.check(self.run_on(self.put("a.txt", TEXT * 40), out="text"), 0)
        r = self.run_on(self.put("a.jsonl", (json.dumps(chat) + "\nnot JSON\n") * 12), out="chat")
        self.check(r, 0)
        self.assertIn("warning", r.err)

    def test_the_built_in_set(self):
        self.check(self.run_on(), 0)

    def test_bad_data_says_why(self):
        for name, text, word in (("empty.txt", "", "no usable sample"), ("x.jsonl", '{"role": 1}\n', "no usable sample"),
                                 ("deep.jsonl", '{"messages":' + "[" * 5000 + "\n", "no usable sample"),
                                 ("nul.txt", "a\0b", "byte 1 is 0")):
            with self.subTest(name):
                self.refused(self.run_on(self.put(name, text)), 3, word, out=self.path("out"))
        self.refused(self.run_on(self.path("missing.txt")), 3, "missing.txt", out=self.path("out"))


if __name__ == "__main__":
    qd.main()
