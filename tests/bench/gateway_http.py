#!/usr/bin/env python3
"""Requests a second and live clients of one quant-gateway on loopback; asserts nothing.

usage: tests/bench/gateway_http.py [--bin DIR] [--seconds S] [--connections N] [--clients N]

Starts nats-server, a gateway and, for the live clients' job, a worker, as the end-to-end tests do. Load comes from http_load on
the same processors. Memory is the gateway's VmHWM."""
import argparse
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
JOBS = "/api/v1/fine-tunes/compress/jobs"


def memory(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return {k: int(v.split()[0]) for k, v in (line.split(":", 1) for line in f) if k in ("VmHWM", "VmRSS", "RssAnon")}


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default=os.path.join(ROOT, "build", "release", "bin"))
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--connections", type=int, default=32)
    p.add_argument("--clients", type=int, default=1000)
    a = p.parse_args()
    os.environ.setdefault("QD_QUANTCTL", os.path.join(a.bin, "quantctl"))
    import service
    service.need()
    load = os.path.join(a.bin, "http_load")
    with tempfile.TemporaryDirectory(prefix="bench-") as d:
        s = service.Service(d, f"connections_per_address={a.clients + a.connections}")
        try:
            def get(name, path):
                cpu = cpu_s(s.gateway.pid)
                r = subprocess.run([load, "get", str(s.port), path, s.key, str(a.connections), str(a.seconds)], check=True,
                                   capture_output=True, text=True)
                each_us = (cpu_s(s.gateway.pid) - cpu) / json.loads(r.stdout)["requests"] * 1e6
                print(f"{name:8} {r.stdout.strip()} gateway's CPU {each_us:.1f} us a request, {memory(s.gateway.pid)}", flush=True)
            job = s.ask("POST", JOBS, {"model": "demo-ft-1", "template_id": "nvfp4-w4a16"}).json["output"]["job_id"]
            get("livez", "/livez")
            get("job", f"{JOBS}/{job}")
            get("list", f"{JOBS}?page_size=10")
            before = memory(s.gateway.pid)
            w = subprocess.Popen([load, "events", str(s.port), f"{JOBS}/{job}/events", s.key, str(a.clients)], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
            w.stderr.readline()
            opened = memory(s.gateway.pid)
            s.cluster.worker("w1")
            out, _ = w.communicate()
            r = json.loads(out)
            print(f"live     {r} before {before} open {opened} after {memory(s.gateway.pid)}")
        finally:
            s.close()


if __name__ == "__main__":
    main()
