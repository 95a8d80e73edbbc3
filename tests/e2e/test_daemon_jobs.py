#!/usr/bin/env python3
"""Jobs through nats-server and a worker: submit, watch, logs, cancel, list, get, delete, workers, audit."""
import os
import signal
import socket
import struct
import time

import big
import cluster
import qd
import st

LINE = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - (INFO|WARN|ERROR) - "


class Jobs(cluster.Case):
    def setUp(self):
        super().setUp()
        self.model = st.make_dir(self.path("model"), st.llama(), side={"tokenizer.json": b"{}"})
        self.quantize(self.model, self.path("expected"))

    def slow_job(self):
        """A job that runs for a while: (id, out) when its first units are done."""
        job, out = self.c.submit(big.model(), "slow", "--set", "block_scale=mse")
        self.c.wait_for(lambda: self.c.units(out) > 3 or self.c.state(job) in cluster.END, "the first units")
        return job, out

    def test_a_job_succeeds_with_the_bytes_of_a_local_run(self):
        self.c.worker("w1")
        job, out = self.c.submit(self.model, "a", "--name", "first job")
        r = self.succeeded(job, out, self.path("expected"))
        self.assertTrue(out.endswith("." + job))
        self.assertEqual(r["name"], "first job")
        self.assertEqual(r["quantized_linears"], 14)
        self.assertEqual(r["report"], out + "/report.json")
        self.assertEqual(r["output_digest"], qd.report(self.path("expected"))["output_digest"])  # the same bytes
        self.assertEqual(r["numerics_id"], self.c.ctl("workers", "--json").event("worker")["numerics_id"])
        self.assertEqual(r["attempts"], 1)
        self.assertEqual(self.c.left_over(), [])
        with open(os.path.join(out, "quantd.log"), encoding="utf-8") as f:
            stored = f.read().splitlines()
        self.assertEqual(len(stored), r["log_lines"])
        for line in stored:
            self.assertRegex(line, LINE)
        self.assertTrue(stored[0].endswith(" - INFO - Starting quantization..."), stored)
        self.assertTrue(stored[-2].endswith(" - INFO - Quantization progress: 100%"), stored)
        self.assertTrue(stored[-1].endswith(" - INFO - Quantization succeeded!"), stored)
        told = self.c.ctl("logs", job).out.splitlines()
        self.assertEqual([line[22:] for line in told], [line[22:] for line in stored])
        self.assertEqual(cluster.lines_of(self.c.ctl("logs", "-f", job, "--json")), [line.split(" - ", 2)[2] for line in stored])

    def test_a_log_that_the_stream_forgot_is_read_from_the_output(self):
        self.c.worker("w1")
        job, out = self.c.submit(self.model, "a")
        self.c.end(job)
        told = self.c.ctl("logs", job).out
        with socket.create_connection(("127.0.0.1", self.c.port), 10) as s:
            s.sendall(b"CONNECT {}\r\nSUB in 1\r\nPUB $JS.API.STREAM.PURGE.QUANT_EVENTS in 0\r\n\r\n")
            got = b""
            while b"purged" not in got:
                got += s.recv(4096)
        self.assertEqual([line[22:] for line in self.c.ctl("logs", job).out.splitlines()],
                         [line[22:] for line in told.splitlines()])

    def test_a_calibrated_job_has_the_bytes_of_a_local_run_too(self):
        data = self.ids()
        self.quantize(self.model, self.path("w4a4"), "--calib", data, template="nvfp4-w4a4")
        self.c.worker("w1")
        job, out = self.c.submit(self.model, "a", "--calib", data, template="nvfp4-w4a4")
        self.succeeded(job, out, self.path("w4a4"))
        self.assertIn("data process succeeded, start to quantization", cluster.lines_of(self.c.ctl("logs", job, "--json")))
        gone = self.c.ctl("submit", self.model, "--template", "nvfp4-w4a4", "-o", os.path.join(self.c.out, "b"), "--calib",
                          self.path("nothing"), rc=3)
        self.assertIn("nothing", gone.err)

    def ids(self, rows=40, cols=64):
        ids = [(i * 37 + i // 64 * 11) % 128 for i in range(rows * cols)]
        data = self.path("ids.safetensors")
        st.write(data, {"input_ids": st.Tensor("I64", (rows, cols), struct.pack(f"<{len(ids)}q", *ids))})
        return data

    def test_samples_and_their_length_are_those_of_a_local_run(self):
        data, few = self.ids(), ("--samples", "8", "--seq-len", "32")
        self.quantize(self.model, self.path("few"), "--calib", data, *few, template="nvfp4-w4a4")
        self.quantize(self.model, self.path("all"), "--calib", data, template="nvfp4-w4a4")
        self.assertNotEqual(qd.report(self.path("few"))["output_digest"], qd.report(self.path("all"))["output_digest"])
        self.c.worker("w1")
        job, out = self.c.submit(self.model, "a", "--calib", data, *few, template="nvfp4-w4a4")
        self.succeeded(job, out, self.path("few"))
        self.assertIn("calib_samples", self.c.ctl("submit", self.model, "--template", "nvfp4-w4a4", "--set", "calib_samples=0", rc=3).err)

    def test_a_calibrated_job_is_for_workers_of_one_numerics_id(self):
        data = self.ids()
        said = ("submit", self.model, "--template", "nvfp4-w4a4", "--calib", data, "--json", "-o")
        alone = self.c.ctl(*said, os.path.join(self.c.out, "alone"))
        self.assertIn("to choose a numerics id from", alone.err)
        self.assertEqual(self.c.get(alone.event("submitted")["id"])["lane_numerics_id"], "any")
        other = self.c.ctl(*said, os.path.join(self.c.out, "other"), "--numerics", "cpu-0-other")
        self.assertIn("the job waits for one", other.err)
        self.c.worker("w1")
        self.c.wait_for(lambda: self.c.ctl("workers", "--json").events(), "the heartbeat")
        mine = self.c.ctl("workers", "--json").event("worker")["numerics_id"]
        job, out = self.c.submit(self.model, "a", "--calib", data, template="nvfp4-w4a4")
        r = self.c.end(job)
        self.assertEqual((r["state"], r["device_class"], r["lane_numerics_id"], r["numerics_id"]), ("SUCCEEDED", "cpu", mine, mine))
        free, _ = self.c.submit(self.model, "b")
        self.assertEqual(self.c.end(free)["lane_numerics_id"], "any")
        gpu = self.c.ctl("submit", self.model, "--template", qd.TEMPLATE, "-o", os.path.join(self.c.out, "gpu"), "--device-class", "cuda", "--json")
        self.assertIn("no worker of class cuda", gpu.err)
        self.assertEqual(self.c.end(alone.event("submitted")["id"])["state"], "SUCCEEDED")
        for r in (other, gpu):  # none of them is for this worker
            self.assertEqual(self.c.get(r.event("submitted")["id"])["epoch"], 0)

    def test_watch_follows_to_the_end_and_names_the_result(self):
        self.c.worker("w1", "threads=1")
        r = self.c.ctl("submit", big.model(), "--template", qd.TEMPLATE, "-o", os.path.join(self.c.out, "a"), "--watch")
        self.assertIn("84 linears quantized", r.out)
        self.assertIn("RUNNING on w1", r.err)
        job = r.out.split()[0]
        events = self.c.ctl("watch", job, "--json").events()
        self.assertEqual(events[-1]["state"], "SUCCEEDED")

    def test_interrupted_watch_leaves_the_job_running(self):
        self.c.worker("w1", "threads=1")
        job, out = self.slow_job()
        p = qd.start("watch", job, "--server", self.c.url)
        time.sleep(0.5)
        p.send_signal(signal.SIGINT)
        r = qd.finish(p)
        if r.rc != 0:  # else the job was quicker
            self.assertEqual(r.rc, 130, str(r))
            self.assertIn(f"quantctl cancel {job}", r.err)
        self.assertEqual(self.c.end(job)["state"], "SUCCEEDED")

    def test_bad_input_fails_with_the_engines_sentence(self):
        bad = st.llama()
        bad["model.layers.1.mlp.up_proj.weight"].data = b"\xc0\x7f" * (96 * 64)  # NaN
        model = st.make_dir(self.path("bad"), bad)
        self.c.worker("w1")
        local = qd.quantctl("quantize", model, "--template", qd.TEMPLATE, "-o", self.path("x"))
        self.assertEqual(local.rc, 3)
        sentence = [line for line in local.err.splitlines() if line.startswith("quantctl: ")][-1][len("quantctl: "):]
        job, out = self.c.submit(model, "bad")
        r = self.c.end(job)
        self.assertEqual(r["state"], "FAILED")
        self.assertEqual(r["error"]["message"], sentence)
        self.assertEqual(r["error"]["code"], "bad_input")
        self.assertEqual(r["error"]["worker"], "w1")
        self.assertFalse(os.path.exists(out))
        self.assertIn(f"Quantization failed: {sentence}", self.c.ctl("logs", job).out)
        w = self.c.ctl("watch", job, rc=1)
        self.assertIn(sentence, w.err)
        self.assertIn(job, self.c.ctl("dlq").out)
        self.c.wait_for(lambda: not self.c.left_over() or None, "no trash", 90)

    def test_a_source_that_changed_since_it_was_submitted_is_refused(self):
        job, out = self.c.submit(self.model, "a")
        with open(os.path.join(self.model, "config.json"), "a", encoding="utf-8") as f:
            f.write("\n")
        self.c.worker("w1")
        r = self.c.end(job)
        self.assertEqual((r["state"], r["error"]["code"]), ("FAILED", "source_changed"))

    def test_an_output_outside_the_roots_is_refused(self):
        self.c.worker("w1")
        r = self.c.ctl("submit", self.model, "--template", qd.TEMPLATE, "-o", self.path("elsewhere"), "--json")
        end = self.c.end(r.event("submitted")["id"])
        self.assertEqual(end["state"], "FAILED")
        self.assertIn("writes below", end["error"]["message"])
        self.assertFalse(os.path.exists(r.event("submitted")["output"]))

    def test_a_running_job_is_canceled(self):
        self.c.worker("w1", "threads=1")
        job, out = self.slow_job()
        said = self.c.ctl("cancel", job, "--json", rc=None)
        if said.rc != 0:
            self.skipTest("the job was quicker")
        self.assertEqual(self.c.end(job)["state"], "CANCELED")
        self.assertFalse(os.path.exists(out))
        self.assertEqual(self.c.staging(out), [])
        self.assertIn("Quantization canceled.", self.c.ctl("logs", job).out)
        again, out = self.c.submit(self.model, "next")
        self.succeeded(again, out, self.path("expected"))

    def test_a_queued_job_that_is_canceled_never_runs(self):
        job, out = self.c.submit(self.model, "a")
        self.assertEqual(self.c.ctl("cancel", job, "--json").event("canceled")["state"], "CANCELED")
        w = self.c.worker("w1")
        other, out2 = self.c.submit(self.model, "b")
        self.succeeded(other, out2, self.path("expected"))
        self.assertNotIn(job, w.text())
        self.assertFalse(os.path.exists(out))
        self.assertIn("CANCELED", self.c.ctl("list").out)

    def test_a_name_is_unique_until_the_job_is_deleted(self):
        self.c.worker("w1")
        job, out = self.c.submit(self.model, "a", "--name", "n")
        again = ("submit", self.model, "--template", qd.TEMPLATE, "-o", os.path.join(self.c.out, "b"), "--name", "n")
        r = self.c.ctl(*again, rc=1)
        self.assertIn(job, r.err)
        self.c.end(job)
        self.c.ctl("delete", job)
        self.c.ctl("get", job, rc=1)
        self.assertTrue(os.path.isdir(out))  # what succeeded stays
        self.c.ctl(*again)

    def test_who_did_what_is_on_record(self):
        self.c.worker("w1")
        job, _ = self.c.submit(self.model, "a", "--user", "ann")
        self.c.end(job)
        w = self.c.ctl("workers", "--json").event("worker")
        self.assertEqual((w["id"], w["device"], w["jobs_done"]), ("w1", "cpu", 1))
        a = [e for e in self.c.ctl("audit", "--json").events() if e["action"] == "job.create"]
        self.assertEqual((a[0]["user"], a[0]["subject"], a[0]["outcome"]), ("ann", job, "ok"))

    def test_without_a_server_every_command_says_so(self):
        self.c.kill_server()
        r = self.c.ctl("list", rc=1)
        self.assertIn("no answer from", r.err)


if __name__ == "__main__":
    cluster.main()
