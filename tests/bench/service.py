"""Benches of the service: a fleet, cancels and takeovers, log lines. Each starts a nats-server and what else it needs on
127.0.0.1 in a directory of its own, and stops it. tests/bench/run calls them."""
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
E2E = os.path.join(os.path.dirname(HERE), "e2e")


def last_json(argv, env=None):
    """What a program printed last; its other words go to stderr as they come."""
    r = subprocess.run(argv, stdout=subprocess.PIPE, env={**os.environ, **(env or {})}, check=False)
    text = r.stdout.decode(errors="replace").strip()
    if r.returncode != 0 or not text:
        raise SystemExit(f"bench: {' '.join(argv)}: exit status {r.returncode}\n{text[-2000:]}")
    return json.loads(text.splitlines()[-1])


def script(b, name, *args):
    server = [] if b.opts.nats_server is None else ["--server", b.opts.nats_server]
    return last_json([sys.executable, "-B", os.path.join(HERE, name), *args, *server],
                     {"QD_QUANTCTL": os.path.join(b.bin, "quantctl"), "QD_E2E_DIR": b.work})


def say(b, what, value, unit, goal=None):
    verdict = "" if goal is None else f"   goal {goal:g} {unit}: {'reached' if value <= goal else 'NOT reached'}"
    b.result.setdefault("rows", []).append({"what": what, "value": value, "unit": unit, "goal": goal})
    print(f"  {what:<66} {value:10.4g} {unit}{verdict}", flush=True)


def saturated(r, cores):
    """What had no more to give, in one sentence."""
    used = r["server_cores"] + r["fleet_cores"]
    if used >= 0.8 * cores:
        return f"the processors: nats-server {r['server_cores']:.2f}, the fleet {r['fleet_cores']:.2f} of {cores} cores"
    if r["worker_threads_busy"] >= 0.9:
        return f"the bench's own connections: its worker threads waited for answers {r['worker_threads_busy']:.0%} of the time"
    if r["gateway_threads_busy"] >= 0.9:
        return f"admission: the gateways' threads were busy {r['gateway_threads_busy']:.0%} of the time"
    return f"nothing ({used:.2f} of {cores} cores): the jobs' own length bounds the rate"


def one_fleet(b, **options):
    sys.path.insert(0, E2E)
    os.environ["QD_QUANTCTL"] = os.path.join(b.bin, "quantctl")
    import cluster  # noqa: E402  (reads the environment)
    cluster.NATS = b.opts.nats_server or cluster.NATS
    with tempfile.TemporaryDirectory(prefix="fleet-", dir=b.work) as d:
        c = cluster.Cluster(d)
        try:
            c.start_server()
            argv = [os.path.join(b.bin, "fleet"), c.url, "--server", str(c.server.pid)]
            for name, value in options.items():
                argv += [f"--{name}", str(value)]
            return last_json(argv)
        finally:
            c.close()


def tell_fleet(b, name, r):
    b.result.setdefault("fleet", {})[name] = r
    print(f"\n{name}: {r['workers']} workers, {r['jobs']} jobs, {r['connections']} connections, {r['seconds']:.0f} s")
    say(b, "jobs a second", r["steady_jobs_per_s"], "jobs/s")
    say(b, "creations a second", r["creates_per_s"], "jobs/s")
    for q in ("p50", "p99"):
        say(b, f"submit to RUNNING, {q}", r["submit_to_running_ms"][q], "ms")
    say(b, "processor time of nats-server, a job", r["server_cpu_us_a_job"], "us")
    say(b, "processor time of workers and gateways, a job", r["fleet_cpu_us_a_job"], "us")
    say(b, "memory of nats-server", r["server_mb"], "MB")
    say(b, "memory of workers and gateways", r["fleet_mb"], "MB")
    for who in ("gateway_calls", "worker_calls"):
        calls = {k: v for k, v in r[who].items() if k != "away"}
        print(f"  {who.replace('_', ' ')} a job: " + ", ".join(f"{k} {v['a_job']:.2f} ({v['us']:.0f} us)" for k, v in calls.items()))
    print(f"  saturated first: {saturated(r, b.result['machine']['cores'])}", flush=True)


def bench_fleet(b):
    """All jobs at once, then half as many a second as it could do."""
    o = b.opts
    flood = one_fleet(b, jobs=o.jobs, workers=o.workers, work=o.work_ms, limit=o.limit)
    tell_fleet(b, "all at once", flood)
    rate = flood["steady_jobs_per_s"] / 2
    paced = one_fleet(b, jobs=max(100, int(min(o.jobs / 10, rate * 60))), workers=o.workers, work=o.work_ms, limit=o.limit, rate=f"{rate:.2f}")
    tell_fleet(b, f"at {rate:.0f} creations a second", paced)
    b.finish()


def bench_logs(b):
    r = script(b, "log_flood.py", "--pairs", str(b.opts.pairs))
    b.result["logs"] = r
    say(b, "log lines a second", r["lines_a_second"], "lines/s")
    say(b, "slower, wall time (median of pairs)", 100 * (r["loud_over_quiet"]["seconds"]["median"] - 1), "%", 2)
    say(b, "slower, processor time of the threads that compute", 100 * (r["loud_over_quiet"]["compute_cpu_s"]["median"] - 1), "%", 2)
    for who, us in r["us_a_line"].items():
        say(b, f"processor time a line, {who.removesuffix('_cpu_s')}", us, "us")
    say(b, "lines lost or told twice", r["lost"] + r["double"], "lines", 0)
    say(b, "memory of the worker, at most", r["worker_peak_mb"], "MB")
    b.finish()


def bench_cancel(b):
    r = script(b, "daemon_times.py", "--cancels", str(b.opts.cancels), "--takeovers", str(b.opts.takeovers))
    b.result["times"] = r
    for kind in ("data_free", "calibrated"):
        for what, goal, words in (("seen", 100, "the job's process knows"), ("canceled", 1000, "CANCELED"), ("asked", None, "its process has ended")):
            if r.get(kind, {}).get(what, {}).get("n"):
                say(b, f"{kind.replace('_', '-')}: cancel -> {words}, p99 of {r[kind][what]['n']}", r[kind][what]["p99"], "ms", goal)
    if r.get("takeover", {}).get("n"):
        say(b, f"takeover after kill -9, beyond the lease, largest of {r['takeover']['n']}", r["takeover"]["max"], "ms", 1000)
        say(b, f"units done again, of {r['units_done_before']}", r["units_done_again"], "units", 0)
    b.finish()
