#!/usr/bin/env python3
"""quantctl selftest: a sound machine passes, leaves nothing behind, and says what it looked at; a GPU is asked how it fares."""
import os
import signal
import time
import unittest

import qd

NVML = os.environ.get("QD_NVML_LIBRARY")  # a double: tests/shim/nvml
CUDA = os.environ.get("QD_CUDA_DOUBLE")  # doubles of CUDA and cuBLAS: tests/shim/cuda


class SelfTest(qd.Case):
    def test_a_sound_machine_passes_and_nothing_is_left(self):
        r = qd.quantctl("selftest", "--dir", self.dir, "--threads", "3", "--json", timeout=3 * qd.HANG_S)
        self.assertEqual(r.rc, 0, str(r))
        checks = [e for e in r.events() if e["event"] == "check"]
        self.assertEqual(len(checks), 5)
        for c in checks:
            self.assertTrue(c["ok"] and c["cases"] > 0 and c["failed"] == 0, c)
        done = r.event("done")
        self.assertEqual((done["device"], done["ok"], done["failed_checks"]), ("cpu", True, 0))
        self.assertEqual(os.listdir(self.dir), [])

    def test_it_stops_when_told_and_leaves_nothing(self):
        p = qd.start("selftest", "--dir", self.dir)
        self.wait_line(p)
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(qd.HANG_S), 130)
        self.assertEqual(os.listdir(self.dir), [])

    def wait_line(self, p):
        end = time.monotonic() + qd.HANG_S
        while not os.listdir(self.dir) and p.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        self.assertIsNone(p.poll(), "it ended before it was told to")

    def test_wrong_use(self):
        self.assertEqual(qd.quantctl("selftest", "--threads", "300").rc, 2)
        self.assertEqual(qd.quantctl("selftest", "cpu").rc, 2)
        r = qd.quantctl("selftest", "--dir", self.path("nowhere"))
        self.assertEqual(r.rc, 1, str(r))
        self.assertIn("nowhere", r.err)

    def test_a_gpu_that_is_not_there(self):
        r = qd.quantctl("selftest", "--device", "gpu0", "--nvml", "/nowhere/libnvidia-ml.so.1")
        self.assertEqual(r.rc, 3, str(r))
        self.assertIn("/nowhere/libnvidia-ml.so.1", r.err)

    @unittest.skipUnless(NVML, "no double of NVML was built")
    def test_a_faulty_gpu_fails_before_it_computes(self):
        with open(self.path("nvml"), "w", encoding="ascii") as f:
            f.write("ecc 4\n")
        r = qd.quantctl("selftest", "--device", "gpu0", "--nvml", NVML, env={"QD_FAKE_NVML": self.path("nvml")})
        self.assertEqual(r.rc, 1, str(r))
        self.assertIn("Fake GPU 0: 4 uncorrected ECC errors", r.out)
        self.assertIn("gpu0: checks failed", r.out)

    def on_doubles(self, *more, **env):
        return qd.quantctl("selftest", "--device", "gpu0", "--nvml", NVML, "--dir", self.dir, *more, timeout=3 * qd.HANG_S,
                           env={"LD_LIBRARY_PATH": CUDA, "QD_FAKE_CUDA_LAZY": "1", **env})

    @unittest.skipUnless(NVML and CUDA, "no doubles of NVML and CUDA were built")
    def test_a_sound_gpu_passes(self):
        report = self.path("cuda")
        r = self.on_doubles("--threads", "2", "--json", QD_FAKE_CUDA_REPORT=report)
        self.assertEqual(r.rc, 0, str(r))
        checks = [e for e in r.events() if e["event"] == "check"]
        self.assertEqual([c["name"] for c in checks], [
            "health of the GPU", "small floats, ties and neighbours", "largest magnitude", "NVFP4 encoder, every rule and dtype",
            "operations of a forward pass", "a job, weights only", "a job, rounded with calibration"])
        for c in checks:
            self.assertTrue(c["ok"] and c["cases"] > 0 and c["failed"] == 0, c)
        done = r.event("done")
        self.assertEqual((done["device"], done["ok"], done["failed_checks"]), ("gpu0", True, 0))
        with open(report, encoding="ascii") as f:
            self.assertIn(" live 0 ", f.read())
        self.assertEqual(os.listdir(self.dir), ["cuda"])
        print(*(f"{c['name']}: {c['cases']} cases, {c['seconds']} s" for c in checks), sep="\n")

    @unittest.skipUnless(NVML and CUDA, "no doubles of NVML and CUDA were built")
    def test_a_gpu_whose_calls_fail_is_found(self):
        r = self.on_doubles(QD_FAKE_CUDA_FAIL="200")
        self.assertEqual(r.rc, 1, str(r))
        self.assertRegex(r.out, r"FAIL  largest magnitude .* gpu0: ")
        self.assertIn("gpu0: checks failed", r.out)


if __name__ == "__main__":
    qd.main()
