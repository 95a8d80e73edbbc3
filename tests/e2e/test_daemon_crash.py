#!/usr/bin/env python3
"""Whatever dies, the job ends, with the bytes of an undisturbed run, and nothing is left behind."""
import os
import re
import signal
import struct
import time

import big
import cluster
import qd
import st

SETTINGS = ("--set", "block_scale=mse")


def expected():
    return big.whole(*SETTINGS)


class Crash(cluster.Case):
    def setUp(self):
        super().setUp()
        expected()
        self.a = self.c.worker("wa", "threads=1", "memory=64MiB")

    def at_units(self, out, job, n):
        """Waits until n units are journaled; False when the job was quicker."""
        end = time.monotonic() + qd.HANG_S
        while time.monotonic() < end:
            if self.c.units(out) > n or (n == 0 and self.c.staging(out)):
                return True
            if os.path.isdir(out) or self.c.state(job) in cluster.END:
                return False
            time.sleep(0.002)
        raise AssertionError(f"job {job} does not start\n{self.c.logs()}")

    def one_job(self, n, disturb):
        """A job that is disturbed when n units are done. True when it was hit."""
        job, out = self.c.submit(big.model(), f"n{n}", *SETTINGS)
        hit = self.at_units(out, job, n)
        if hit:
            disturb(job, out)
        r = self.succeeded(job, out, expected())
        self.assertEqual(self.c.staging(out), [])
        return hit, r

    def resumed(self, job):
        """(units found done, of how many) as the last taker said."""
        m = re.findall(r"resuming: (\d+) of (\d+) units", self.c.ctl("logs", job).out)
        return (int(m[-1][0]), int(m[-1][1])) if m else None

    def test_a_killed_child_costs_an_attempt_elsewhere(self):
        self.c.worker("wb", "threads=1")
        hits = 0
        for n in (0, 10, 40):
            def disturb(job, out):
                for w in self.c.workers:
                    if w.child is not None:
                        os.kill(w.child, signal.SIGKILL)
            with self.subTest(n):
                hit, r = self.one_job(n, disturb)
                hits += hit
        self.assertGreater(hits, 1)
        self.assertRegex(self.c.logs(), "killed .signal 9.")

    def test_a_killed_worker_is_replaced_after_its_lease(self):
        for n in (0, 10, 40):
            with self.subTest(n):
                a = self.c.workers[-1]
                job, out = self.c.submit(big.model(), f"n{n}", *SETTINGS)
                if not self.at_units(out, job, n):
                    continue
                child = a.child
                a.kill()
                self.c.wait_for(lambda: child is None or not os.path.exists(f"/proc/{child}") or zombie(child), "the child's end", 5)
                done = self.c.units(out)
                self.c.worker(f"w{n}", "threads=1", "memory=64MiB")
                r = self.succeeded(job, out, expected())
                self.assertEqual(r["epoch"], 2)
                self.assertEqual(self.c.staging(out), [])
                if n > 0:  # no finished unit is done again
                    self.assertGreaterEqual(self.resumed(job)[0], min(n, done - 1))

    def test_a_stopped_worker_loses_the_job_and_harms_nothing(self):
        def disturb(job, out):
            self.a.signal(signal.SIGSTOP)
            self.c.worker("wb", "threads=1", "memory=64MiB")
        hit, r = self.one_job(10, disturb)
        self.a.signal(signal.SIGCONT)
        if not hit:
            self.skipTest("the job was quicker")
        self.assertEqual(r["epoch"], 2)
        self.c.wait_for(lambda: "another worker" in self.a.text() or "no longer ours" in self.a.text(), "the fence")
        job, out = self.c.submit(big.model(), "after", *SETTINGS)
        self.succeeded(job, out, expected())

    def test_a_drained_worker_hands_its_job_back(self):
        def disturb(job, out):
            self.assertEqual(self.a.term(), 0)
            self.assertEqual(self.c.state(job), "QUEUING")
            self.c.worker("wb", "threads=1", "memory=64MiB")
        hit, r = self.one_job(10, disturb)
        if not hit:
            self.skipTest("the job was quicker")
        self.assertEqual((r["attempts"], r["epoch"]), (1, 2))
        self.assertGreater(self.resumed(r["id"])[0], 9)

    def test_a_drain_waits_no_longer_than_it_may(self):
        self.a.term()
        a = self.c.worker("patient", "threads=1", "memory=64MiB", "drain=100ms")
        job, out = self.c.submit(big.model(), "d", *SETTINGS)
        if not self.at_units(out, job, 5) or a.child is None:
            self.skipTest("the job was quicker")
        os.kill(a.child, signal.SIGSTOP)  # it will never finish what it has begun
        self.assertEqual(a.term(), 0)
        self.assertIn("the drain's time is over", a.text())
        r = self.c.get(job)
        self.assertEqual((r["state"], r["attempts"], r["epoch"]), ("QUEUING", 0, 1))
        self.c.worker("wb", "threads=1")
        self.succeeded(job, out, expected())

    def test_a_drain_does_not_wait_for_a_calibration(self):
        self.a.term()
        a = self.c.worker("calibrates", "threads=1", "drain=60s")
        plain = [x for s in ("method=rtn", "block_scale=mse", "smoothing=none", "gate_samples=0") for x in ("--set", s)]
        job, out = self.c.submit(big.model(), "c", "--calib", self.ids(200, 256), *plain, template="nvfp4-w4a4")
        self.c.wait_for(lambda: self.c.get(job).get("progress", {}).get("phase") == "calibrate", "calibration")
        self.assertEqual(a.term(), 0)
        self.assertNotIn("the drain's time is over", a.text())
        r = self.c.get(job)
        self.assertEqual((r["state"], r["attempts"], r["epoch"]), ("QUEUING", 0, 1))

    def test_a_drain_finishes_the_layer_that_is_in_work(self):
        self.a.term()
        cfg = st.config(hidden_size=512, intermediate_size=2048, num_hidden_layers=6, vocab_size=1024, num_attention_heads=8,
                        num_key_value_heads=2, head_dim=64)
        model = st.make_dir(self.path("model"), st.llama(6, 512, 2048, 1024, 128), cfg, side={"tokenizer.json": b"{}"})
        whole, args = self.path("whole"), ("--calib", self.ids(4, 64), "--samples", "3", "--set", "block_scale=hessian", "--set", "gate_samples=1")
        r = qd.quantctl("quantize", model, "--template", qd.TEMPLATE, "-o", whole, *args)
        self.assertEqual(r.rc, 0, str(r))
        a = self.c.worker("layerwise", "threads=1", "drain=60s")
        job, out = self.c.submit(model, "l", *args)

        def layers():
            """(layers that are whole in the journal, whether units of another one follow)"""
            path = os.path.join(self.c.staging(out)[-1], "journal.jsonl") if self.c.staging(out) else ""
            if not os.path.exists(path):
                return 0, False
            with open(path, encoding="utf-8") as f:
                lines = f.read().splitlines()
            return sum('"inputs"' in x for x in lines), bool(lines) and '"unit"' in lines[-1]
        self.c.wait_for(lambda: layers()[0] > 0 and layers()[1], "a layer in work")
        before, _ = layers()
        self.assertEqual(a.term(), 0)
        after, more = layers()
        self.assertGreater(after, before)
        self.assertFalse(more)
        self.assertNotIn("the drain's time is over", a.text())
        r = self.c.get(job)
        self.assertEqual((r["state"], r["attempts"], r["epoch"]), ("QUEUING", 0, 1))
        self.c.worker("goes-on", "threads=1")
        r, report = self.succeeded(job, out, whole), qd.report(out)
        self.assertEqual(r["quality"], report["quality"])  # the gate's figures are in the record
        self.assertGreater(r["quality"]["tokens"], 0)
        self.assertEqual((report["settings"]["input_scale"], report["settings"]["kv_cache"]), ("none", "none"))

    def ids(self, rows, cols):
        values = [(i * 37 + i // cols * 11) % 1024 for i in range(rows * cols)]
        path = self.path("ids.safetensors")
        st.write(path, {"input_ids": st.Tensor("I64", (rows, cols), struct.pack(f"<{len(values)}q", *values))})
        return path

    def test_an_operator_drains_a_worker(self):
        self.c.ctl("workers")
        self.c.wait_for(lambda: "wa" in self.c.ctl("workers").out, "the heartbeat")
        self.c.ctl("drain", "wa", "--reason", "maintenance")
        self.assertEqual(self.a.p.wait(qd.HANG_S), 0)
        self.assertNotIn("wa", self.c.ctl("workers").out)

    def test_the_server_is_killed_and_comes_back(self):
        def disturb(job, out):
            self.c.kill_server()
            time.sleep(1.0)
            self.c.start_server()
        self.assertTrue(self.one_job(5, disturb)[0])

    def test_the_server_is_away_when_the_job_ends(self):
        def disturb(job, out):
            self.c.kill_server()
            time.sleep(8.0)
            self.assertFalse(os.path.exists(out))  # nobody may say that it may
            self.c.start_server()
        self.assertTrue(self.one_job(5, disturb)[0])

    def test_a_cancel_whose_worker_died_is_carried_out(self):
        job, out = self.c.submit(big.model(), "c", *SETTINGS)
        self.assertTrue(self.at_units(out, job, 5))
        self.a.signal(signal.SIGSTOP)
        r = self.c.ctl("cancel", job, "--json", rc=None)
        self.a.signal(signal.SIGCONT)
        self.a.kill()
        if r.rc != 0:
            self.skipTest("the job was quicker")
        self.c.worker("wb")
        self.assertEqual(self.c.end(job)["state"], "CANCELED")
        self.assertFalse(os.path.exists(out))
        self.assertEqual(self.c.staging(out), [])


def zombie(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


if __name__ == "__main__":
    cluster.main()
