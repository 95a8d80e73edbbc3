#!/usr/bin/env python3
"""quantd as a service: notifications, watchdog, reload, drain, settings that are refused."""
import json
import os
import signal
import socket
import subprocess
import threading
import time

import big
import cluster
import qd


class Service(cluster.Case):
    def setUp(self):
        super().setUp()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(lambda: (self.socket.shutdown(socket.SHUT_RDWR), self.socket.close()))
        self.socket.bind(self.path("notify"))
        self.told = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        """As the manager does: what is not read would hold up who tells it."""
        try:
            while True:
                self.told.append(self.socket.recv(4096).decode())
        except OSError:
            pass

    def worker(self, *settings, **env):
        return self.c.worker("w1", *settings, env={"NOTIFY_SOCKET": self.path("notify"), **env})

    def heard(self, word):
        """Waits for a notification that holds the word."""
        try:
            return self.c.wait_for(lambda: next((t for t in self.told if word in t), None), word)
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.told}\n{self.c.logs()}") from None

    def forget(self):
        self.told.clear()

    def test_it_tells_the_manager_what_it_does(self):
        w = self.worker("threads=1", WATCHDOG_USEC="600000")
        self.heard("READY=1")
        self.heard("STATUS=idle")
        self.heard("WATCHDOG=1")
        job, _ = self.c.submit(big.model(), "a", "--set", "block_scale=mse")
        status = self.heard(f"STATUS=job {job}")
        self.assertIn(job, status)
        w.signal(signal.SIGHUP)
        self.assertRegex(self.heard("RELOADING=1"), r"MONOTONIC_USEC=\d+")
        self.forget()
        w.signal(signal.SIGTERM)
        self.heard("STOPPING=1")
        self.assertEqual(w.p.wait(qd.HANG_S), 0)

    def test_a_child_that_is_not_heard_starves_the_watchdog_or_dies(self):
        w = self.worker("threads=1", "silent=1s", WATCHDOG_USEC="300000")
        job, out = self.c.submit(big.model(), "a", "--set", "block_scale=mse")
        child = self.c.wait_for(lambda: w.child, "the child")
        os.kill(child, signal.SIGSTOP)
        self.c.wait_for(lambda: "fell silent" in w.text(), "the verdict")
        self.assertFalse(os.path.exists(f"/proc/{child}"))
        self.assertEqual(self.c.end(job)["state"], "SUCCEEDED")  # node_retry: the same worker may try again

    def test_ready_does_not_wait_for_the_bus(self):
        self.c.kill_server()
        w = self.worker()
        self.heard("READY=1")
        time.sleep(0.5)
        self.c.start_server()
        self.c.wait_for(lambda: "w1" in self.c.ctl("workers").out, "the worker")
        self.c.kill_server()
        self.assertEqual(w.term(), 0)

    def test_a_reload_takes_what_may_change(self):
        conf = self.path("quantd.conf")

        def write(text):
            with open(conf, "w", encoding="utf-8") as f:
                f.write(f"nats_url = {self.c.url}\nworker = w9\noutput_roots = {self.c.out}\n" + text)
        write("log_level = debug\n")
        log = open(self.path("log"), "w+b")
        self.addCleanup(log.close)
        p = subprocess.Popen([cluster.QUANTD, "--config", conf], stderr=log, env=qd.environment({"NOTIFY_SOCKET": self.path("notify")}))
        self.addCleanup(lambda: (p.kill(), p.wait()))
        self.heard("READY=1")

        def says(word):
            with open(self.path("log"), encoding="utf-8") as f:
                return word in f.read()
        write("threads = 3\nlease = 4s\n")
        p.send_signal(signal.SIGHUP)
        self.c.wait_for(lambda: says("settings reloaded; these need a restart: lease"), "the reload")
        write("threads = many\n")
        p.send_signal(signal.SIGHUP)
        self.c.wait_for(lambda: says(f"{conf}:4: threads: expected a whole number, 0 to 256, found"), "the refusal")
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(qd.HANG_S), 0)

    def refused(self, *settings, words, rc=78):
        args = [x for s in settings for x in ("--set", s)]
        r = subprocess.run([cluster.QUANTD, *args], capture_output=True, check=False, timeout=qd.HANG_S)
        self.assertEqual(r.returncode, rc, r)
        for w in words:
            self.assertIn(w, r.stderr.decode())

    def test_a_device_that_is_not_there_ends_the_start(self):
        """Not with 78: its driver may come up later."""
        self.refused("device=gpu63", words=["gpu63", "code=unsupported"], rc=3)

    def test_settings_that_cannot_be_are_refused_with_78(self):
        self.refused("device=tpu0", words=["device", "tpu0"])
        self.refused("worker=a.b", words=["worker"])
        self.refused("topology=rack3//sw1", words=["topology", "rack3//sw1"])
        self.refused("pin=numa", words=["pin", "a GPU's worker only"])
        self.refused("api_time_zone=Mars/Olympus", words=["Mars/Olympus", "zoneinfo"])
        self.refused("nats_url=nats://u:secret@h:4222", words=["nats_url", "nats_credentials"])
        self.refused("output_roots=out", words=["output_roots", "absolute"])
        self.refused("leases=1s", words=["unknown key", "leases"])
        secret = self.path("seed")
        with open(secret, "w", encoding="ascii") as f:
            f.write("x")
        os.chmod(secret, 0o644)
        self.refused(f"nats_credentials={secret}", words=[secret, "0644"])

    def test_streams_that_cannot_be_made_stop_the_start(self):
        w = self.c.worker("w1", "nats_replicas=3")  # of one server
        self.assertEqual(w.p.wait(qd.HANG_S), 78)
        self.assertRegex(w.text(), "cannot be made: .*replicas")

    def test_a_stream_that_is_not_as_it_should_be_stops_the_start(self):
        config = json.dumps({"name": "QUANT_JOBS", "subjects": ["quant.job.>"], "retention": "limits", "storage": "memory"})
        with socket.create_connection(("127.0.0.1", self.c.port), 10) as s:
            s.sendall(b"CONNECT {}\r\nSUB in 1\r\nPUB $JS.API.STREAM.CREATE.QUANT_JOBS in %d\r\n%s\r\n" % (len(config), config.encode()))
            got = b""
            while b"QUANT_JOBS" not in got:
                got += s.recv(4096)
        w = self.worker()
        self.assertEqual(w.p.wait(qd.HANG_S), 78)
        self.assertIn("QUANT_JOBS", w.text())


if __name__ == "__main__":
    cluster.main()
