#!/usr/bin/env python3
"""The long form of tests/e2e/test_daemon_chaos.py: daemon_chaos.py [JOBS [SEED]] [--gangs], 200 jobs without names; with --gangs
that of test_daemon_gang_chaos.py: half of the jobs on several workers, then JOBS / 4 of which one rank is hurt.

QD_QUANTCTL names the built quantctl, beside which quantd lies; QD_NATS_SERVER the server. Ends by itself, after half an hour
at the latest (200 jobs), with a table; the same is in out/bench/daemon_chaos-VERSION.json (daemon_gang_chaos-VERSION.json and
-hits.json). Exit 0: every promise was kept."""
import argparse
import importlib
import os
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
p = argparse.ArgumentParser(usage="daemon_chaos.py [JOBS [SEED]] [--gangs]")
p.add_argument("jobs", nargs="?", type=int, default=200)
p.add_argument("seed", nargs="?", type=int, default=1)
p.add_argument("--gangs", action="store_true")
a = p.parse_args()
os.environ.update(QD_CHAOS_JOBS=str(a.jobs), QD_CHAOS_SEED=str(a.seed), QD_CHAOS_HITS=str(a.jobs // 4))
name = "daemon_gang_chaos" if a.gangs else "daemon_chaos"
import cluster  # noqa: E402

cluster.need()
version = subprocess.run([cluster.NATS, "--version"], capture_output=True, check=True).stdout.decode().split()[-1].lstrip("v")
(ROOT / "out" / "bench").mkdir(parents=True, exist_ok=True)
os.environ["QD_CHAOS_TABLE"] = str(ROOT / "out" / "bench" / f"{name}-{version}.json")
unittest.main(importlib.import_module(f"test_{name}"), argv=[sys.argv[0]], verbosity=2)
