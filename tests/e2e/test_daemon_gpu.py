#!/usr/bin/env python3
"""A worker of a GPU, over the doubles of CUDA and cuBLAS: it takes the jobs of its device class, computes on the device and says
so; a device that is not there keeps it from starting."""
import os

import cluster
import qd
from test_calibrate import PLAIN, W4A4

DOUBLE = os.environ.get("QD_CUDA_DOUBLE")
if not DOUBLE:
    qd.skip("the doubles of CUDA were not built")
MODEL = qd.fixtures()["qwen3"]
CALIB = os.path.join(MODEL, "ref.safetensors")
JOB = (*PLAIN, "--set", "block_scale=four_over_six", "--calib", CALIB)
ENV = {"LD_LIBRARY_PATH": DOUBLE}


class Gpu(cluster.Case):
    def worker(self, name, *more):
        w = self.c.worker(name, *more, env=ENV)
        self.c.wait_for(lambda: self.told(name), "the worker")
        return w

    def told(self, name):
        return next((e for e in self.c.ctl("workers", "--json").events() if e["id"] == name), None)

    def test_jobs_go_to_the_worker_of_their_device(self):
        self.worker("c1")
        self.worker("g1", "device=gpu1")
        told = self.told("g1")
        self.assertEqual(told["device"], "cuda")
        self.assertRegex(told["numerics_id"], "^cuda-")
        self.assertRegex(self.told("c1")["numerics_id"], "^cpu-")
        local = self.path("local")
        self.quantize(MODEL, local, *JOB, "--device", "gpu1", env=ENV, template=W4A4)
        job, out = self.c.submit(MODEL, "a", *JOB, "--device-class", "cuda", template=W4A4)
        r = self.succeeded(job, out, local)
        self.assertEqual((r["numerics_id"], r["worker"]), (told["numerics_id"], "g1"))
        # A job of the processor is not for it, and the other way round.
        job, out = self.c.submit(MODEL, "b", *JOB, template=W4A4)
        r = self.c.end(job)
        self.assertEqual((r["state"], r["worker"]), ("SUCCEEDED", "c1"))

    def test_what_the_device_does_not_do_is_told_by_the_job(self):
        self.worker("g1", "device=gpu0")
        job, _ = self.c.submit(MODEL, "a", "--calib", CALIB, "--set", "refine=1", "--device-class", "cuda", template=W4A4)
        r = self.c.end(job)
        self.assertEqual(r["state"], "FAILED", r)

    def test_a_device_that_is_not_there_keeps_it_from_starting(self):
        for i, (device, env, words, code) in enumerate((
                ("gpu8", ENV, "gpu8: found 8 CUDA devices", 3),
                ("gpu0", {"LD_LIBRARY_PATH": "/nowhere"}, "libqd_cuda.so|found 0 CUDA devices", 3),
                ("gpu0", {**ENV, "QD_FAKE_CUDA_FAIL": "3"}, "gpu0: .*: a", 1),
                ("gpux", ENV, "expected cpu, or gpu0", 78))):
            w = self.c.worker(f"g{i}", f"device={device}", env=env)
            self.assertEqual(w.p.wait(qd.HANG_S), code, w.text())
            self.assertRegex(w.text(), words)


if __name__ == "__main__":
    cluster.main()
