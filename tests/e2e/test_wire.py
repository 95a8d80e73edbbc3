#!/usr/bin/env python3
"""A client in another language, made from docs/wire.md and the descriptor set alone, meets quantd's own code.

Needs nats-py and protobuf besides the standard library, and a nats-server; left out where one is missing. QD_WIRE_TOOL is
quantd's side (tests/unit/bus/wire_tool.c), QD_PROTO_DESC the descriptor set."""
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TOOL = os.environ.get("QD_WIRE_TOOL", "")
DESC = os.environ.get("QD_PROTO_DESC", "")
SERVER = os.environ.get("QD_NATS_SERVER", "nats-server")
WAIT_S = 20


def skip(word):
    print(f"left out: {word}")
    sys.exit(77)


try:
    import nats
    from nats.js.api import AckPolicy, ConsumerConfig
    from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
except ImportError:
    skip("no nats-py found (pip install nats-py)")
try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError:
    skip("no protobuf found (pip install protobuf)")


def messages():
    """The message classes of the descriptor set, by name."""
    pool, classes = descriptor_pool.DescriptorPool(), {}
    with open(DESC, "rb") as f:
        files = descriptor_pb2.FileDescriptorSet.FromString(f.read())
    for file in files.file:
        pool.Add(file)
    for file in files.file:
        for m in file.message_type:
            classes[m.name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"quantd.{m.name}"))
    return pool, classes


def name_key(tenant, name):
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
    return f"name.{tenant}." + "".join(chr(c) if c in plain else f"={c:02X}" for c in name.encode())


def tool(*args):
    return subprocess.run([TOOL, *args], capture_output=True, text=True, timeout=WAIT_S, check=False)


class Server:
    """A nats-server of the test's own, ended by its pid."""

    def __init__(self):
        self.dir = tempfile.TemporaryDirectory(prefix="quantd-wire-")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        conf = os.path.join(self.dir.name, "conf")
        with open(conf, "wb") as f:
            subprocess.run([os.path.join(ROOT, "deploy", "nats-conf.sh"), os.path.join(self.dir.name, "js"), str(port),
                            "127.0.0.1", SERVER], stdout=f, stderr=subprocess.DEVNULL, check=True)
        self.url = f"nats://127.0.0.1:{port}"
        self.process = subprocess.Popen([SERVER, "-c", conf, "-l", os.path.join(self.dir.name, "log")])
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("nats-server does not start")

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.dir.cleanup()


class Wire(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.pool, cls.classes = messages()
        for _ in range(100):  # JetStream may take a moment longer than the port
            made = tool("provision", cls.server.url)
            if made.returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(made.stderr)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    async def asyncSetUp(self):
        self.nc = await nats.connect(self.server.url)
        self.js = self.nc.jetstream()
        self.jobs = await self.js.key_value("jobs")

    async def asyncTearDown(self):
        await self.nc.close()

    def state(self, name):
        return self.pool.FindEnumTypeByName("quantd.JobState").values_by_name[name].number

    def record(self, job_id, name):
        r = self.classes["JobRecord"](version=1, id=job_id, state=self.state("PENDING"), created_ms=1775880155000)
        s = r.spec
        s.version, s.name, s.tenant, s.model_id, s.template_id = 1, name, "default", "smollm2", "nvfp4-w4a16"
        s.source_path, s.output_path = "/models/smollm2", f"/models/out/smollm2-{job_id}"
        s.lane.priority, s.lane.device_class, s.lane.numerics_id = 5, "cpu", "any"
        s.values.add(name="method", value="rtn")
        return r

    async def submit(self, job_id, name, extra=b""):
        await self.jobs.create(name_key("default", name), job_id.encode())
        await self.jobs.create(f"job.{job_id}", self.record(job_id, name).SerializeToString() + extra)

    async def test_a_job_is_submitted_followed_taken_and_canceled(self):
        job_id, name = "quant-202604111202-1a2b", "a.b 量化 (1)"
        later = b"\xa2\x38\x05later"  # field 900, of a program yet to come
        watcher = await self.jobs.watch(f"job.{job_id}")
        await self.submit(job_id, name, later)
        with self.assertRaises(KeyWrongLastSequenceError):
            await self.jobs.create(name_key("default", name), b"another")
        shown = tool("show", self.server.url, job_id)
        self.assertEqual(shown.stdout.split("\n")[:3], [f"job.{job_id}", name_key("default", name), "PENDING"], shown.stderr)

        queued = tool("queue", self.server.url, job_id)
        self.assertEqual(queued.returncode, 0, queued.stderr)
        again = tool("queue", self.server.url, job_id)  # one message a subject
        self.assertEqual((again.returncode, again.stderr.split(":")[0]), (1, "conflict"))
        states = []
        while "QUEUING" not in states:
            entry = await watcher.updates(timeout=WAIT_S)
            if entry is None or not entry.value:
                continue
            r = self.classes["JobRecord"].FromString(entry.value)
            states.append(self.pool.FindEnumTypeByName("quantd.JobState").values_by_number[r.state].name)
        self.assertEqual(states, ["PENDING", "QUEUING"])
        self.assertIn(b"later", entry.value)
        self.assertEqual(r.spec.name, name)

        # As a worker: bind, pull, take by compare-and-set.
        await self.js.add_consumer("QUANT_JOBS", ConsumerConfig(
            durable_name="cpu=any=5", filter_subject="quant.job.cpu.any.5.*", ack_policy=AckPolicy.EXPLICIT, ack_wait=30,
            max_deliver=-1))
        sub = await self.js.pull_subscribe_bind("cpu=any=5", "QUANT_JOBS")
        msg, = await sub.fetch(1, timeout=WAIT_S)
        self.assertEqual((msg.subject, msg.data.decode()), (f"quant.job.cpu.any.5.{job_id}", job_id))
        self.assertEqual(msg.metadata.sequence.stream, r.queue_seq)
        entry = await self.jobs.get(f"job.{job_id}")
        r = self.classes["JobRecord"].FromString(entry.value)
        r.state, r.owner, r.epoch, r.attempts = self.state("RUNNING"), "w-py", r.epoch + 1, 1
        await self.jobs.update(f"job.{job_id}", r.SerializeToString(), entry.revision)
        with self.assertRaises(KeyWrongLastSequenceError):
            await self.jobs.update(f"job.{job_id}", b"stale", entry.revision)
        await msg.ack_sync()
        self.assertEqual(tool("show", self.server.url, job_id).stdout.split("\n")[2:5], ["RUNNING", "w-py", "1"])

        # Its log, by quantd's code.
        self.assertEqual(tool("log", self.server.url, job_id).returncode, 0)
        events = await self.js.subscribe(f"quant.event.{job_id}.*", ordered_consumer=True)
        msg = await events.next_msg(timeout=WAIT_S)
        batch = self.classes["EventBatch"].FromString(msg.data)
        self.assertEqual((msg.headers["Quant-Epoch"], msg.headers["Quant-Line"], msg.headers["Quant-Lines"]), ("1", "1", "2"))
        self.assertEqual([line.text for line in batch.lines], ["Starting quantization...", "Quantization progress: 37%"])
        self.assertEqual((batch.worker, batch.epoch), ("w-c", 1))

        # Cancel, delete, and the name is free again.
        entry = await self.jobs.get(f"job.{job_id}")
        r = self.classes["JobRecord"].FromString(entry.value)
        r.state = self.state("CANCELING")
        r.cancel.version, r.cancel.job_id, r.cancel.by = 1, job_id, "test"
        await self.jobs.update(f"job.{job_id}", r.SerializeToString(), entry.revision)
        self.assertEqual(tool("show", self.server.url, job_id).stdout.split("\n")[2], "CANCELING")
        await self.jobs.delete(f"job.{job_id}")
        await self.jobs.delete(name_key("default", name))
        gone = tool("show", self.server.url, job_id)
        self.assertEqual((gone.returncode, gone.stderr.split(":")[0]), (1, "not_found"))
        with self.assertRaises(KeyNotFoundError):
            await self.jobs.get(f"job.{job_id}")
        await self.submit(job_id, name)

    async def test_what_cannot_be_a_record_is_refused_with_its_reason(self):
        newer = self.record("j-new", "new")
        newer.version = 2
        bad_path = self.record("j-path", "path")
        bad_path.spec.output_path = "/models/../etc"
        no_lane = self.record("j-lane", "lane")
        no_lane.spec.ClearField("lane")
        for job_id, data, reason in (
                ("j-new", newer.SerializeToString(), "JobRecord: expected version 1, found 2: a newer quantd wrote it"),
                ("j-path", bad_path.SerializeToString(), "JobSpec.output_path: a path with an empty part, . or .."),
                ("j-lane", no_lane.SerializeToString(), "JobSpec.lane: not there"),
                ("j-text", b"not protobuf at all", "JobRecord: 19 bytes that are no such message"),
                ("j-empty", b"", "JobRecord: expected version 1, found 0")):
            await self.jobs.put(f"job.{job_id}", data)
            shown = tool("show", self.server.url, job_id)
            self.assertEqual(shown.returncode, 1)
            self.assertIn(reason, shown.stderr)


if __name__ == "__main__":
    if not TOOL or not os.path.exists(TOOL) or not os.path.exists(DESC):
        skip("bus_nats was not built")
    if subprocess.run(["sh", "-c", f"command -v '{SERVER}'"], stdout=subprocess.DEVNULL, check=False).returncode != 0:
        skip(f"no {SERVER} found")
    unittest.main(verbosity=2)
