#!/usr/bin/env python3
"""--device gpu0 over doubles of the CUDA runtime, cuBLAS and cuSOLVER: the forward pass, calibrated jobs and GPTQ beside the host's, refusals,
each call that fails. The doubles' streams are lazy: what is not waited for is not done."""
import os
import re
import shutil
import signal
import struct

import qd
import st
from test_accuracy import ids_file
from test_calibrate import CT, INPUT, PLAIN, W4A4, value
from test_forward import BF16_BOUND, BF16_OWN, distance, random_ids

DOUBLE = os.environ.get("QD_CUDA_DOUBLE")
if not DOUBLE:
    qd.skip("the doubles of CUDA were not built")
FIXTURES = qd.fixtures()
F32_BOUND = 2e-5  # sums in another order, and the delta rule token by token
INPUT_BOUND = 0.02  # of an input scale, from BF16 values that fall on the other side of a tie
MOE = {n for n in FIXTURES if "moe" in n or n == "mixtral"}


class CudaCase(qd.Case):
    def env(self, **more):
        self.report_path = self.path("report")
        if os.path.exists(self.report_path):
            os.unlink(self.report_path)
        return {"LD_LIBRARY_PATH": DOUBLE, "QD_FAKE_CUDA_LAZY": "1", "QD_FAKE_CUDA_REPORT": self.report_path,
                **{k: str(v) for k, v in more.items()}}

    def device_reports(self):
        """(calls, not released, most device bytes held, bytes to the device, bytes back) of each rank that ended by itself."""
        if not os.path.exists(self.report_path):
            return []
        with open(self.report_path, encoding="ascii") as f:
            found = re.findall(r"^calls (\d+) live (-?\d+) peak (\d+)\nup (\d+) down (\d+)$", f.read(), re.MULTILINE)
        return [tuple(map(int, rank)) for rank in found]

    def device_report(self, ranks=1):
        """The same of the last run's ranks together, which are so many."""
        found = self.device_reports()
        self.assertEqual(len(found), ranks)
        return tuple(map(sum, zip(*found)))

    def keeps_to_its_plan(self, planned, used):
        """Never more than planned, which was taken as one piece, and not much less."""
        self.assertEqual(self.device_report()[2], planned)
        self.assertLessEqual(used, planned)
        self.assertGreater(used, planned / 2)

    def forward(self, model, ids_path, out, *more, rc=0, env=None):
        r = qd.quantctl("forward", model, "--ids", ids_path, "-o", out, *more, env=env)
        if rc is not None:
            self.check(r, rc)
        return r


class Forward(CudaCase):
    def compare(self, dtype, bound_of):
        for name, model in FIXTURES.items():
            with self.subTest(name):
                ids = random_ids(self.path("ids"), 2, 24)
                self.forward(model, ids, self.path("cpu"), "--device", "cpu", "--dtype", dtype)
                r = self.forward(model, ids, self.path("gpu"), "--device", "gpu0", "--dtype", dtype, "--json", env=self.env())
                self.assertRegex(r.event("done")["numerics"], r"^cuda sm_90 cublas-130000 ")
                cpu, gpu = st.read(self.path("cpu")), st.read(self.path("gpu"))
                self.assertEqual(sorted(cpu), sorted(gpu))
                far = {k: distance(gpu[k], t) for k, t in cpu.items() if not k.startswith("router_margin.")}
                self.assertEqual(far["hidden.0"], 0.0)
                self.assertLessEqual(max(far.values()), bound_of(name), far)
                calls, live, peak, *_ = self.device_report()
                self.assertEqual(live, 0)
                done = r.event("done")
                self.keeps_to_its_plan(done["device_bytes_max"], done["device_bytes"])
                print(f"{name} {dtype}: off by {max(far.values()):.2e}, {calls} calls, {peak >> 20} MiB")

    def test_f32_is_the_host_s_within_its_bound(self):
        self.compare("f32", lambda name: F32_BOUND)

    def test_bf16_is_the_host_s_as_far_as_rounding_lets_it(self):
        self.compare("bf16", lambda name: BF16_OWN.get(name, BF16_BOUND))

    def test_the_same_bytes_whatever_the_threads(self):
        model = FIXTURES["qwen3"]
        ids = random_ids(self.path("ids"), 5, 100)
        data = []
        for threads in (1, 2, 4):
            self.forward(model, ids, self.path("gpu"), "--device", "gpu1", "--dtype", "bf16", "--threads", threads,
                         env=self.env())
            with open(self.path("gpu"), "rb") as f:
                data.append(f.read())
        self.assertTrue(data[0] == data[1] == data[2])


class Job(CudaCase):
    def job(self, name, out, *more, rc=0, env=None):
        model = FIXTURES[name]
        ref = os.path.join(model, "ref.safetensors")
        return self.quantize(model, out, "--calib", ref, *PLAIN, *more, rc=rc, env=env, template=W4A4)

    def test_a_calibrated_job_is_the_host_s_but_for_close_input_scales(self):
        for name in ("qwen3", "qwen3_5_moe"):
            for more in (("--set", "block_scale=four_over_six"), CT):
                with self.subTest(name, more=more):
                    cpu, gpu = self.path("cpu"), self.path("gpu")
                    # Its products are of BF16 values, as here; those of "cpu" may be of values rounded to 8 bits.
                    self.job(name, cpu, "--device", "cpu-bf16", *more)
                    self.job(name, gpu, "--device", "gpu0", *more, env=self.env())
                    self.assertEqual(self.device_report()[1], 0)
                    a, b = st.read_dir(cpu), st.read_dir(gpu)
                    self.assertEqual(sorted(a), sorted(b))
                    # Weights are the host's: they do not depend on calibration.
                    self.assertEqual([k for k in a if not k.endswith(INPUT) and a[k] != b[k]], [])
                    off = {k: abs(value(b[k]) / value(a[k]) - 1) for k in a if k.endswith(INPUT)}
                    self.assertGreater(len(off), 0)
                    bound = 0.2 if name in MOE else INPUT_BOUND  # a token may go to another expert
                    self.assertLessEqual(max(off.values()), bound, max(off, key=off.get))
                    report = qd.report(gpu)
                    self.assertRegex(report["numerics_id"], "^cuda-")
                    self.keeps_to_its_plan(report["device_memory"]["planned_bytes"], report["device_memory"]["peak_bytes"])
                    print(f"{name} {more[-1]}: {report['device_memory']}, input scales off by {max(off.values()):.2e}")
                    shutil.rmtree(cpu)
                    shutil.rmtree(gpu)

    def test_what_linears_read_stays_on_the_device(self):
        down = {}
        for rule in ("minmax", "percentile", "mse"):
            out = self.path(rule)
            self.job("llama", out, "--device", "gpu0", "--set", "block_scale=minmax", "--set", f"input_scale={rule}", env=self.env())
            down[rule] = self.device_report()[4]
        print(f"bytes from the device: {down}")
        self.assertEqual(down["minmax"], down["percentile"])
        self.assertLess(2 * down["minmax"], down["mse"])  # whose squared errors are the host's

    def test_an_activation_that_overflows_is_named(self):
        tensors = st.llama(layers=3)
        big = tensors["model.layers.1.input_layernorm.weight"]
        tensors["model.layers.1.input_layernorm.weight"] = st.Tensor("BF16", big.shape, st.bf16([3e38] * big.shape[0]))
        model = st.make_dir(self.path("big"), tensors, cfg=st.config(num_hidden_layers=3))
        st.write(self.path("ids.safetensors"), {"input_ids": st.Tensor("I64", (1, 8), struct.pack("<8q", *range(8)))})
        r = qd.quantctl("quantize", model, "--template", W4A4, "-o", self.path("out"), "--calib", self.path("ids.safetensors"),
                        *PLAIN, "--set", "block_scale=minmax", "--device", "gpu0", env=self.env())
        self.refused(r, 3, "finite", "layers.1", out=self.path("out"))


class Layerwise(CudaCase):
    """What goes layer by layer: GPTQ, scaling, the gate."""
    MEMORY = 3 << 30  # lanes of four streams, each with its bounds

    def setUp(self):
        super().setUp()
        sizes = {"num_hidden_layers": 2, "hidden_size": 80, "intermediate_size": 144, "num_attention_heads": 4, "head_dim": 20}
        self.model = st.make_dir(self.path("model"), st.llama(layers=2, hidden=80, ffn=144, kv=40), cfg=st.config(**sizes))
        self.ids = self.path("ids.safetensors")
        ids_file(self.ids, 12, 16, 128)

    def env(self, **more):
        return super().env(**{"QD_FAKE_CUDA_BYTES": self.MEMORY, **more})

    def args(self, out, *more, device="gpu0", template=W4A4):
        return ("quantize", self.model, "--template", template, "--set", "gate_samples=2", "--calib", self.ids, "-o", out,
                "--device", device, *more)

    def on_gpu(self, out, *more, rc=0, env=None):
        r = qd.quantctl(*self.args(out, *more), env=env or self.env())
        if rc is not None:
            self.check(r, rc)
            self.assertEqual(self.device_report()[1], 0, "not released")
        return r

    def beside_the_host(self, model, calib, *more, template=W4A4, same=0.97):
        """A job on the host with BF16 products and on the doubles: how many bytes of codes are the same, in all and in the
        first linears of the first layer, whose inputs are the same bits but for sums."""
        cpu, gpu = self.path("cpu"), self.path("gpu")
        for out, device, env in ((cpu, "cpu-bf16", None), (gpu, "gpu0", self.env())):
            self.check(qd.quantctl("quantize", model, "--template", template, "--set", "gate_samples=2", "--calib", calib, "-o", out,
                                   "--device", device, *more, env=env), 0)
        calls, live, peak, _, _ = self.device_report()
        self.assertEqual(live, 0)
        a, b, n, equal, first = st.read_dir(cpu), st.read_dir(gpu), 0, 0, []
        self.assertEqual(sorted(a), sorted(b))
        for k in a:
            if not k.endswith(".weight_packed"):
                continue
            here = sum(x == y for x, y in zip(a[k].data, b[k].data))
            n, equal = n + len(a[k].data), equal + here
            if ".layers.0." in k and "q_proj" in k:
                first.append(here / len(a[k].data))
        one, two = qd.report(cpu), qd.report(gpu)
        self.assertEqual(peak, two["device_memory"]["planned_bytes"])
        self.assertLessEqual(two["device_memory"]["peak_bytes"], peak)
        ours, theirs = two.get("output_error_of_rtn", []), one.get("output_error_of_rtn", [])
        self.assertEqual(len(ours), len(theirs))
        off = max((abs(x / y - 1) for x, y in zip(ours, theirs)), default=0)
        kl = two["quality"]["kl"] / one["quality"]["kl"] - 1
        print(f"{os.path.basename(model)}: {equal / n:.4f} of codes the same, first linear {min(first, default=1):.4f}, "
              f"error of layers off by {off:.4f}, KL by {kl:+.4f}; {calls} calls, {two['device_memory']}")
        self.assertLessEqual(max(ours, default=0), 1.0)
        self.assertGreaterEqual(equal / n, same)
        self.assertGreaterEqual(min(first, default=1), 0.99)
        self.assertLessEqual(off, 0.02)
        self.assertLessEqual(abs(kl), 0.05)
        self.assertRegex(two["numerics_id"], "^cuda-")

    def test_gptq_is_the_host_s_but_for_sums(self):
        self.beside_the_host(self.model, self.ids)

    def test_the_same_bytes_whatever_the_threads(self):
        for n in (1, 3):
            self.on_gpu(self.path(str(n)), "--threads", n)
        self.same_tree(self.path("1"), self.path("3"))

    def test_stopped_anywhere_it_goes_on_with_the_same_bytes(self):
        whole, failed = self.path("whole"), 0
        self.on_gpu(whole)
        for n in (3, 9):
            out = self.path(f"out{n}")
            if self.on_gpu(out, rc=None, env=self.env(QD_FAULT=f"write:{n}:5")).rc != 0:
                self.assertEqual(self.device_report()[1], 0, "not released")
                failed += 1
                self.on_gpu(out, "--resume")
            self.same_tree(whole, out)
        self.assertGreater(failed, 0)
        out = self.path("canceled")
        p = qd.start(*self.args(out, "--threads", "1"), env=self.env())
        frozen = qd.freeze_when(p, lambda: qd.lines(os.path.join(out + ".staging", "journal.jsonl")) > 3)
        p.send_signal(signal.SIGTERM)
        p.send_signal(signal.SIGCONT)
        r = qd.finish(p)
        self.assertEqual(self.device_report()[1], 0, "not released")
        if frozen:
            self.check(r, 143)
            self.on_gpu(out, "--resume")
        self.same_tree(whole, out)

    def test_each_call_that_fails_ends_in_one_sentence_and_leaks_nothing(self):
        self.on_gpu(self.path("whole"), "--threads", 1)
        n_calls, failed, out = self.device_report()[0], 0, self.path("out")
        at = sorted({*range(1, 4), *range(6, n_calls, max(1, n_calls // 8))})
        for n in at:
            r = self.on_gpu(out, "--threads", 1, rc=None, env=self.env(QD_FAKE_CUDA_FAIL=n))
            self.assertEqual(self.device_report()[1], 0, f"call {n}: not released\n{r}")
            if r.rc == 0:
                self.same_tree(self.path("whole"), out)
            else:
                failed += 1
                self.assertIn("gpu0", r.err)
                self.assertIn(r.rc, (1, 3, 4))
            for left in (out, out + ".staging"):
                shutil.rmtree(left, ignore_errors=True)
        self.assertGreaterEqual(failed, 0.9 * len(at))
        print(f"{failed} of {len(at)} failed calls told, of {n_calls}")

    def test_what_a_device_does_not_do_is_refused_before_anything_is_read(self):
        out = self.path("out")
        for what in ("refine=1", "output_correction=0.25"):
            self.refused(self.on_gpu(out, "--set", what, rc=None), 3, what.split("=")[0], "cpu", "gpu0", out=out)
        self.assertEqual(self.device_report()[1], 0)

    def test_too_little_memory_is_told_with_both_figures(self):
        out = self.path("out")
        r = self.on_gpu(out, rc=None, env=self.env(QD_FAKE_CUDA_BYTES=300 << 20))
        self.check(r, 4)
        self.assertRegex(r.err, r"gpu0: expected \d+ bytes of device memory and \d+ to spare, found \d+ of \d+ free")


class Failures(CudaCase):
    def test_each_call_that_fails_ends_in_one_sentence_and_leaks_nothing(self):
        model, out = FIXTURES["qwen3_5_moe"], self.path("out")
        ids = random_ids(self.path("ids"), 1, 9)
        self.forward(model, ids, out, "--device", "gpu0", env=self.env())
        n_calls, failed = self.device_report()[0], 0
        os.unlink(out)
        at = sorted({*range(1, 24), *range(24, n_calls, max(1, n_calls // 16)), n_calls - 8})
        for n in at:
            r = self.forward(model, ids, out, "--device", "gpu0", rc=None, env=self.env(QD_FAKE_CUDA_FAIL=n))
            self.assertEqual(self.device_report()[1], 0, f"call {n}: not released\n{r}")
            if r.rc == 0:
                os.unlink(out)
                continue
            failed += 1
            self.refused(r, r.rc, "gpu0", out=out)
            self.assertIn(r.rc, (1, 3, 4))
        self.assertGreaterEqual(failed, 0.9 * len(at))
        print(f"{failed} of {len(at)} failed calls told, of {n_calls}")

    def test_too_little_memory_and_devices_that_are_not_there(self):
        model = FIXTURES["llama"]
        ids = random_ids(self.path("ids"), 1, 20)
        out = self.path("out")
        for device, words, env in (("gpu0", ("device memory", "free"), self.env(QD_FAKE_CUDA_BYTES=280 << 20)),
                                   ("gpu8", ("gpu8", "8 CUDA devices"), self.env()),
                                   ("gpu", ("expected cpu",), self.env()),
                                   ("gpu0x", ("expected cpu",), self.env()),
                                   ("tpu0", ("expected cpu",), self.env())):
            r = qd.quantctl("forward", model, "--ids", ids, "-o", out, "--device", device, env=env)
            self.assertNotEqual(r.rc, 0)
            self.refused(r, r.rc, *words, out=out)


if __name__ == "__main__":
    qd.main()
