#!/usr/bin/env python3
"""A worker tells how its GPU fares, and one whose GPU is faulty hands its job back, takes nothing more and says why."""
import os
import re

import big
import cluster
import qd
import service

NVML = os.environ.get("QD_NVML_LIBRARY")  # a double: tests/shim/nvml


class Says:
    """What the double of NVML says: replaced in one step, as it is read at any time."""

    def __init__(self, path):
        self.path = path
        self("")

    def __call__(self, text):
        with open(self.path + ".next", "w", encoding="ascii") as f:
            f.write(text)
        os.rename(self.path + ".next", self.path)


class GpuHealth(cluster.Case):
    def setUp(self):
        super().setUp()
        self.says = Says(self.path("nvml"))

    def gpu_worker(self, name, *settings, library=NVML):
        return self.c.worker(name, "gpu_health=gpu1", f"nvml_library={library}", *settings,
                             env={"QD_FAKE_NVML": self.says.path})

    def told(self, name):
        r = self.c.ctl("workers", "--json")
        return next((e for e in r.events() if e["id"] == name), None)

    def test_heartbeats_tell_how_the_gpu_fares(self):
        self.says("temperature 71\nthrottle 32\ntotal 141000000000\nfree 120000000000\nlinks 18\nxid 31 1\n")
        self.gpu_worker("w1")
        w = self.c.wait_for(lambda: (t := self.told("w1")) and t.get("gpu", {}).get("xid") == 31 and t, "the GPU in the heartbeat")
        self.assertEqual(w["gpu"], {"name": "Fake GPU 1", "uuid": "GPU-00000000-0000-0000-0000-000000000001",
                                    "pci": "00000000:19:00.0", "memory_bytes": 141000000000, "memory_free_bytes": 120000000000,
                                    "xid": 31, "temperature_c": 71, "ecc_uncorrected": 0, "throttle": 32, "nvlinks": 18})
        self.assertEqual((w["state"], w["why"]), ("idle", ""))
        text = self.c.ctl("workers").out
        self.assertIn("Fake GPU 1  00000000:19:00.0  120.0 of 141.0 GB free  71 C  0 uncorrected ECC errors  XID 31  slowed: thermal slowdown",
                      text)

    def test_a_faulty_gpu_gives_its_job_to_another_worker_and_says_why(self):
        w = self.gpu_worker("w1", "threads=1")
        self.c.wait_for(lambda: self.told("w1"), "the worker")
        job, out = self.c.submit(big.model(), "a", "--set", "block_scale=mse")
        self.c.wait_for(lambda: self.told("w1").get("job") == job, "the job to begin")
        self.says("ecc 2\n")
        self.c.wait_for(lambda: self.told("w1")["state"] == "drained", "the worker to drain itself")
        told = self.told("w1")
        self.assertEqual(told["why"],
                         "2 uncorrected ECC errors in the GPU's memory: it takes no more jobs until it is restarted")
        self.assertNotIn("job", told)
        self.assertIsNone(w.p.poll())
        self.assertIn("uncorrected ECC errors", self.c.ctl("workers").out)
        self.c.worker("w2")
        self.assertEqual(self.c.end(job)["state"], "SUCCEEDED")
        self.assertTrue(os.path.exists(os.path.join(out, "report.json")))
        self.assertEqual(self.told("w1")["jobs_done"], 0)
        self.assertEqual(w.term(), 0)

    def test_after_a_restart_it_is_as_faulty_as_before(self):
        self.says("ecc 1\n")
        self.gpu_worker("w1")
        self.c.wait_for(lambda: (t := self.told("w1")) and t["state"] == "drained", "the worker to drain itself")
        self.says("")
        self.gpu_worker("w3")
        self.c.wait_for(lambda: (t := self.told("w3")) and t["state"] == "idle", "a sound one")

    def test_a_fatal_xid_is_a_fault_of_an_idle_worker(self):
        self.gpu_worker("w1")
        self.c.wait_for(lambda: (t := self.told("w1")) and t["state"] == "idle", "the worker")
        self.says("xid 79 5\n")
        self.c.wait_for(lambda: self.told("w1")["state"] == "drained", "the worker to drain itself")
        self.assertIn("XID 79", self.told("w1")["why"])

    def test_without_the_library_it_works_and_says_so(self):
        w = self.gpu_worker("w1", library="/nowhere/libnvidia-ml.so.1")
        t = self.c.wait_for(lambda: self.told("w1"), "the worker")
        self.assertNotIn("gpu", t)
        self.assertIn("the GPU's health is not watched", w.text())

    def test_what_is_no_gpu_is_refused(self):
        for bad in ("gpu", "gpux", "0", "gpu1x", "gpu-1", "gpu5000"):
            w = self.c.worker("w9", f"gpu_health={bad}")
            self.assertEqual(w.p.wait(qd.HANG_S), 78, bad)
            self.assertIn(f'expected gpu0, gpu1 and so on, found "{bad}"', w.text())


class Metrics(qd.Case):
    def test_the_gateway_counts_workers_and_shows_their_gpus(self):
        service.need()
        says = Says(self.path("nvml"))
        says("temperature 66\n")
        s = service.Service(self.dir)
        self.addCleanup(s.close)
        for name, env in (("w1", {"QD_FAKE_NVML": says.path}), ("w2", {})):
            s.cluster.worker(name, *(("gpu_health=gpu0", f"nvml_library={NVML}") if env else ()), env=env)

        def metrics():
            return s.ask("GET", "/metrics").data.decode()
        cluster.wait_for(lambda: 'quant_workers{state="idle"} 2' in metrics(), "two idle workers")
        text = cluster.wait_for(lambda: (t := metrics()) and "quant_gpu_temperature_celsius{" in t and t, "the GPU's temperature")
        self.assertIn('quant_gpu_temperature_celsius{worker="w1",pci="00000000:18:00.0"} 66\n', text)
        self.assertIn('quant_gpu_fault{worker="w1",pci="00000000:18:00.0"} 0\n', text)
        self.assertNotIn('worker="w2"', text)
        says("remap_failed 1\n")
        cluster.wait_for(lambda: 'quant_gpu_fault{worker="w1",pci="00000000:18:00.0"} 1\n' in metrics(), "the fault")
        for line in metrics().splitlines():
            self.assertRegex(line, re.compile(r'^(# (HELP|TYPE) \S+ .+|[a-z_]+(\{[^}]*\})? [0-9.+eE-]+)$'))


if __name__ == "__main__":
    cluster.need()
    if not NVML:
        qd.skip("no double of NVML was built")
    qd.main()
