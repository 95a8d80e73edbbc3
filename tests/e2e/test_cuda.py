#!/usr/bin/env python3
"""--device gpu0 over doubles of the CUDA runtime and of cuBLAS: the forward pass and a calibrated job beside the host's, refusals,
each call that fails. The doubles' streams are lazy: what is not waited for is not done."""
import os
import re
import shutil
import struct

import qd
import st
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
        return {"LD_LIBRARY_PATH": DOUBLE, "QD_FAKE_CUDA_LAZY": "1", "QD_FAKE_CUDA_REPORT": self.report_path,
                **{k: str(v) for k, v in more.items()}}

    def device_report(self):
        """(calls, not released, most device bytes held, bytes to the device, bytes back) of the last run."""
        with open(self.report_path, encoding="ascii") as f:
            m = re.fullmatch(r"calls (\d+) live (-?\d+) peak (\d+)\nup (\d+) down (\d+)\n", f.read())
        return tuple(map(int, m.groups()))

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

    def test_what_goes_layer_by_layer_is_refused_before_anything_is_read(self):
        out = self.path("out")
        r = qd.quantctl("quantize", FIXTURES["llama"], "--template", W4A4, "-o", out, "--set", "method=gptq", "--device", "gpu0",
                        "--calib", os.path.join(FIXTURES["llama"], "ref.safetensors"), env=self.env())
        self.refused(r, 3, "cpu", "gpu0", out=out)
        self.assertEqual(self.device_report()[1], 0)


    def test_ranks_on_a_gpu_are_refused(self):
        r = qd.quantctl("quantize", FIXTURES["llama"], "--template", W4A4, "-o", self.path("out"), "--ranks", "2", "--device", "gpu0")
        self.refused(r, 2, "--ranks", "gpu0", out=self.path("out"))


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
