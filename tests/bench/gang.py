"""Speed-up of calibration on two processes of a core each, and bytes moved against the least possible."""
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

PLAIN = ("--set", "method=rtn", "--set", "smoothing=none", "--set", "gate_samples=0", "--set", "block_scale=minmax")
TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "templates")
GPTQ = ("--set", "gate_samples=0")


def least_bytes(config, method):
    """What a rank has to give for a layer: of each distinct input the largest value; for GPTQ also the triangle of its Hessian,
    second moments and largest values of its channels, and its half of the codes and scales, 4.5 bits a weight."""
    hidden, inter = config["hidden_size"], config["intermediate_size"]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or hidden // heads
    inputs = (hidden, heads * head, hidden, inter)
    if method == "plain":
        return 4 * len(inputs)
    weights = hidden * head * (2 * heads + 2 * kv) + 3 * hidden * inter
    return sum(n * (n + 1) // 2 * 4 + n * 20 for n in inputs) + weights * 4.5 / 8 / 2


def calibrate_s(out):
    with open(os.path.join(out, "report.json"), encoding="utf-8") as f:
        return json.load(f)["seconds"]["calibrate"]


def unrelated(b, model, args, cores):
    """The same command twice at once, a core each, which know nothing of each other: calibration of the slower one. What the
    second core adds is the machine's (shared caches, memory, hardware threads), and no gang can have more."""
    outs = [b.path(f"out-apart{c}") for c in cores]
    for out in outs:
        for left in (out, out + ".staging"):
            shutil.rmtree(left, ignore_errors=True)
    start = time.monotonic()
    running = [subprocess.Popen(["taskset", "-c", c, os.path.join(b.bin, "quantctl"), "quantize", model, "--template", "nvfp4-w4a4",
                                 "-o", out, "--templates", TEMPLATES, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for c, out in zip(cores, outs)]
    codes = [p.wait() for p in running]
    if any(codes):
        raise SystemExit(f"bench: two processes side by side: exit status {codes}")
    row = {"seconds": time.monotonic() - start, "calibrate_s": max(map(calibrate_s, outs))}
    for out in outs:
        shutil.rmtree(out)
    return row


def bench_gang(b, model, text):
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    cores = [str(c) for c in sorted(os.sched_getaffinity(0))[:2]]
    if len(cores) < 2:
        sys.exit("bench: gang: needs two processors")
    data = ("--calib", text, "--samples", "64", "--seq-len", "512", "--threads", "1")
    for method, settings, goal in (("plain", PLAIN, 1.8), ("gptq", GPTQ, 1.0)):
        one, two, apart = [], [], []
        for _ in range(b.opts.rounds):
            one.append(b.quantctl(f"{method}: 1 process on a core", model, "warm", *data, *settings, template="nvfp4-w4a4",
                                  prefix=("taskset", "-c", cores[0])))
            two.append(b.quantctl(f"{method}: 2 processes, a core each", model, "warm", *data, *settings, "--ranks", "2", "--pin",
                                  template="nvfp4-w4a4"))
            apart.append(unrelated(b, model, (*data, *settings), cores))
            b.note(f"{method}: 2 unrelated processes", "warm", apart[-1])
        gain = [x["calibrate_s"] / y["calibrate_s"] for x, y in zip(one, two)]
        most = [2 * x["calibrate_s"] / y["calibrate_s"] for x, y in zip(one, apart)]
        b.ratio(f"{method}: calibration, 1 process / 2, of what two unrelated ones get", [g / m for g, m in zip(gain, most)], goal / 2)
        b.ratio(f"{method}: what two unrelated ones get", most, 1.0)
        b.ratio(f"{method}: calibration, 1 process / 2", gain, goal)
        b.ratio(f"{method}: whole commands, 1 process / 2", [x["seconds"] / y["seconds"] for x, y in zip(one, two)], 1.0)
        moved = statistics.median(y["ranks"]["collective_bytes"] / 2 / config["num_hidden_layers"] for y in two)
        least = least_bytes(config, method)
        print(f"\n  {method}: {moved:.0f} bytes a rank and layer in collectives, at least {least:.0f} ({moved / least:.2f} times); "
              f"{statistics.median(y['ranks']['message_bytes'] for y in two) / 1e6:.1f} MB of codes in messages")
        b.result.setdefault("bytes", {})[method] = {"moved": moved, "least": least}
    b.finish()
