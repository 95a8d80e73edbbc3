#!/usr/bin/env python3
"""One job on several workers of a GPU each, over the doubles of CUDA and NCCL, through a real server: who works with whom, the
bytes of one GPU, a rank that is killed."""
import os
import shutil
import signal
import time

import cluster
import qd
from test_calibrate import PLAIN, W4A4

DOUBLE = os.environ.get("QD_CUDA_DOUBLE")
if not DOUBLE or not os.path.exists(os.path.join(DOUBLE, "libqd_nccl.so")):
    qd.skip("the doubles of CUDA and NCCL were not built")
MODEL = qd.fixtures()["qwen3"]
CALIB = ("--calib", os.path.join(MODEL, "ref.safetensors"))
RTN = (*PLAIN, *CALIB)
GPTQ = ("--set", "gate_samples=0", *CALIB)
ENV = {"LD_LIBRARY_PATH": DOUBLE}


class Gang(cluster.Case):
    def workers(self, n, env=None):
        found = [self.c.worker(f"g{i}", f"device=gpu{i}", "threads=1", "sweep=200ms", env=env or ENV) for i in range(n)]
        self.c.wait_for(lambda: len(self.told()) == n, "the workers")
        return found

    def told(self):
        return {e["id"]: e for e in self.c.ctl("workers", "--json").events()}

    def submit(self, name, ranks, *more):
        return self.c.submit(MODEL, name, "--ranks", ranks, "--device-class", "cuda", *more, template=W4A4)

    def ended(self, job, out, ranks):
        r = self.c.end(job)
        self.assertEqual(r["state"], "SUCCEEDED", f"{r}\n{self.c.logs()}")
        self.assertEqual(qd.report(out)["ranks"]["n"], ranks)
        self.assertEqual(self.c.staging(out), [])
        return r

    def test_ranks_of_gpus_meet_by_nccl_and_give_the_bytes_of_one(self):
        self.workers(3)
        self.c.worker("c0")
        self.c.wait_for(lambda: "c0" in self.told(), "the processor's worker")
        told = self.told()
        self.assertEqual(told["c0"]["collective"], "shm")
        self.assertRegex(told["g0"]["collective"], r"^nccl-\d+\.\d+\.\d+$")
        local = self.path("local")
        self.quantize(MODEL, local, *RTN, "--device", "gpu0", env=ENV, template=W4A4)
        for n in (2, 3):
            job, out = self.submit(f"r{n}", n, *RTN)
            self.ended(job, out, n)
            self.same_output(local, out)
            self.assertRegex(qd.report(out)["numerics_id"], "^cuda-")
        first, again = (self.submit(f"q{i}", 2, *GPTQ) for i in range(2))
        self.ended(*first, 2)
        self.ended(*again, 2)
        self.same_output(first[1], again[1])

    def test_a_rank_that_is_killed_is_replaced(self):
        workers = self.workers(3)
        local, out = self.path("local"), None
        self.quantize(MODEL, local, *RTN, "--device", "gpu0", env=ENV, template=W4A4)
        job, out = self.submit("x", 2, *RTN)
        end = time.monotonic() + qd.HANG_S
        while time.monotonic() < end and not os.path.isdir(out):
            busy = [w for w in workers if w.child is not None]
            member = next((w for w in busy if "rank 1 of 2" in w.text()), None)
            if len(busy) == 2 and member is not None:
                os.kill(member.child, signal.SIGKILL)
                break
            time.sleep(0.002)
        self.ended(job, out, 2)
        self.same_output(local, out)
        print("gang is broken" in self.c.logs())

    def test_a_worker_without_nccl_works_alone(self):
        libraries = self.path("lib")
        os.mkdir(libraries)
        for name in os.listdir(DOUBLE):
            if name.endswith(".so") and name != "libqd_nccl.so":
                os.symlink(os.path.join(DOUBLE, name), os.path.join(libraries, name))
        program = self.path("quantd")  # a copy that has no lib beside it
        shutil.copy(cluster.QUANTD, program)
        self.addCleanup(setattr, cluster, "QUANTD", cluster.QUANTD)
        cluster.QUANTD = program
        w, = self.workers(1, env={"LD_LIBRARY_PATH": libraries})
        self.assertEqual(self.told()["g0"]["collective"], "")
        self.assertIn("takes no part in gangs: gpu0: expected libqd_nccl.so", w.text())
        job, out = self.c.submit(MODEL, "one", *RTN, "--device-class", "cuda", template=W4A4)
        self.assertEqual(self.c.end(job)["state"], "SUCCEEDED")


if __name__ == "__main__":
    cluster.main()
