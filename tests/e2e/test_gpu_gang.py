#!/usr/bin/env python3
"""One job on ranks with a GPU each, whole processes over doubles of CUDA, cuBLAS, cuSOLVER and NCCL: the same bytes for every
number of ranks, and what is refused."""
import os
import shutil
import subprocess

import qd
import st
from test_accuracy import ids_file
from test_calibrate import PLAIN, W4A4
from test_cuda import DOUBLE, CudaCase

if not os.path.exists(os.path.join(DOUBLE, "libqd_nccl.so")):
    qd.skip("the double of NCCL was not built")
FIXTURES = qd.fixtures()
FAST = ("--set", "method=rtn", "--set", "gate_samples=2")
GPTQ = ("--set", "gate_samples=0")
GPTQ_BOUND = 0.02  # of the weights' relative error between numbers of ranks


class GangCase(CudaCase):
    LAYERS = 2

    def setUp(self):
        super().setUp()
        sizes = {"num_hidden_layers": self.LAYERS, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "head_dim": 16}
        self.model = st.make_dir(self.path("model"), st.llama(layers=self.LAYERS, hidden=64, ffn=96, kv=32), cfg=st.config(**sizes))
        self.ids = self.path("ids.safetensors")
        ids_file(self.ids, 8, 16, 128)

    def env(self, **more):
        return super().env(**{"QD_FAKE_CUDA_BYTES": 3 << 30, **more})

    def args(self, out, n, *more, device="gpu0"):
        return ("quantize", self.model, "--template", W4A4, "--calib", self.ids, "-o", out, "--device", device, "--ranks", n,
                "--threads", "1", *more)

    def on(self, n, name, *more, rc=0, env=None):
        """The output of a job on n ranks, of which none holds anything in the end."""
        out = self.path(name)
        self.check(qd.quantctl(*self.args(out, n, *more), env=env or self.env()), rc)
        self.assertEqual(self.device_report(ranks=n)[1], 0, "not released")
        if rc == 0 and n > 1:
            self.assertEqual(qd.report(out)["ranks"]["n"], n)
        return out


class Bytes(GangCase):
    def test_weights_alone_are_the_processor_s_for_every_number_of_ranks(self):
        for name in ("llama", "qwen3_moe"):
            one = self.path(name)
            self.quantize(FIXTURES[name], one)
            for n in (1, 2, 4, 8):
                out = self.path(f"{name}-{n}")
                self.quantize(FIXTURES[name], out, "--device", "gpu0", "--ranks", n, env=self.env())
                self.assertEqual(self.device_report(ranks=n)[1], 0, "not released")
                self.same_tree(one, out)

    def test_rounding_to_nearest_is_that_of_one_gpu(self):
        one = self.on(1, "1", *PLAIN)
        for n in (2, 4, 8):
            self.same_tree(one, self.on(n, str(n), *PLAIN))

    def test_moments_scaling_and_the_gate_are_those_of_one_gpu(self):
        one = self.on(1, "1", *FAST)
        for n in (2, 4):
            self.same_tree(one, self.on(n, str(n), *FAST))

    def test_gptq_is_the_same_for_one_number_and_near_for_others(self):
        one = qd.report(self.on(1, "1", *GPTQ))["relative_error"]
        for n in (2, 4):
            first, again = self.on(n, f"{n}a", *GPTQ), self.on(n, f"{n}b", *GPTQ)
            self.same_tree(first, again)
            self.assertLess(abs(qd.report(first)["relative_error"] / one - 1), GPTQ_BOUND)

    def test_devices_are_a_first_one_or_a_list(self):
        one = self.on(1, "1", *PLAIN)
        for i, (device, n) in enumerate((("gpu5,gpu2", ()), ("gpu5,gpu2", ("--ranks", 2)), ("gpu6", ("--ranks", 2)))):
            out = self.path(f"o{i}")
            self.check(qd.quantctl("quantize", self.model, "--template", W4A4, "--calib", self.ids, "-o", out, "--device", device, *n,
                                   *PLAIN, env=self.env()), 0)
            self.assertEqual(self.device_report(ranks=2)[1], 0)
            self.same_tree(one, out)


class Refusals(GangCase):
    def test_a_rank_without_a_gpu_ends_the_job_in_one_sentence(self):
        out = self.path("out")
        for device, words in (("gpu6", ("gpu8", "8 CUDA devices")), ("gpu", ("expected cpu",)), ("gpu0,gpu1", ("expected 2, as",)),
                              ("gpu0,,gpu1,x", ("expected cpu",)), ("cpu-bf16", ("--ranks",))):
            r = qd.quantctl(*self.args(out, 4, *PLAIN, device=device), env=self.env())
            self.assertNotEqual(r.rc, 0)
            self.refused(r, r.rc, *words, out=out)

    def test_nccl_that_is_not_there_is_named(self):
        """A program without a lib beside it, and libqd_cuda.so alone where the system looks."""
        program, libraries = self.path("quantctl"), self.path("lib")
        shutil.copy(qd.QUANTCTL, program)
        os.mkdir(libraries)
        for name in os.listdir(DOUBLE):
            if name.endswith(".so") and name != "libqd_nccl.so":
                os.symlink(os.path.join(DOUBLE, name), os.path.join(libraries, name))
        args = [program, *map(str, self.args(self.path("out"), 2, *PLAIN)), "--templates", os.path.join(qd.ROOT, "deploy", "templates")]
        p = subprocess.run(args, env=qd.environment({**self.env(), "LD_LIBRARY_PATH": libraries}), capture_output=True, check=False,
                           stdin=subprocess.DEVNULL, timeout=qd.HANG_S)
        r = qd.Result(args, p.returncode, p.stdout.decode(), p.stderr.decode())
        self.refused(r, 3, "gpu0: expected libqd_nccl.so, which could not be loaded", out=self.path("out"))


if __name__ == "__main__":
    qd.main()
