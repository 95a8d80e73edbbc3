#!/usr/bin/env python3
"""The long form of tests/e2e/test_daemon_chaos.py: daemon_chaos.py [JOBS [SEED]], 200 jobs without names.

QD_QUANTCTL names the built quantctl, beside which quantd lies; QD_NATS_SERVER the server. Ends by itself, after half an hour
at the latest (200 jobs), with a table; the same is in out/bench/daemon_chaos-VERSION.json. Exit 0: every promise was kept."""
import os
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
os.environ["QD_CHAOS_JOBS"] = sys.argv[1] if len(sys.argv) > 1 else "200"
os.environ["QD_CHAOS_SEED"] = sys.argv[2] if len(sys.argv) > 2 else "1"
import cluster  # noqa: E402
import test_daemon_chaos  # noqa: E402

cluster.need()
version = subprocess.run([cluster.NATS, "--version"], capture_output=True, check=True).stdout.decode().split()[-1].lstrip("v")
(ROOT / "out" / "bench").mkdir(parents=True, exist_ok=True)
os.environ["QD_CHAOS_TABLE"] = str(ROOT / "out" / "bench" / f"daemon_chaos-{version}.json")
unittest.main(test_daemon_chaos, argv=[sys.argv[0]], verbosity=2)
