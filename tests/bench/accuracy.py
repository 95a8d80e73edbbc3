#!/usr/bin/env python3
"""The table of docs/accuracy.md: KL, top-1 agreement and perplexity of each recipe beside llm-compressor, on SmolLM2.

usage: tests/bench/accuracy.py [--split dev|test] [--work DIR] [--bin DIR] [--no-peers] [--only ROW;..] [PART...]

  text       calibrated on calib.txt: every recipe, also those that lose; judged on eval.txt and on another text
  built-in   calibrated on the set that quantctl has with it
  perturbed  the weights first with uniform noise of one Q4_1 step, as of a model that was on a 4-bit grid

Without names: all three. --split dev takes 16 sequences of the first half of calib.txt and judges on its second half: recipes
are chosen there. The other text is the Debian Policy manual (apt-get download), or --other FILE. ../shared/peers
(QD_PEERS) has llm-compressor's script and eval_kl.py; QD_PEERS_VENV their python. Rows go to out/bench/accuracy-SPLIT.json as
they are done, and what is there is not run again; everything takes hours on two cores."""
import argparse
import glob
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = os.environ.get("QD_PEERS", os.path.join(ROOT, "..", "shared", "peers"))
DATA = os.path.join(PEERS, "..", "data")
LENGTH = 512
# name: template and settings
OURS = {"minmax": ("nvfp4-w4a4", "block_scale=minmax"),
        "four-over-six": ("nvfp4-w4a4", "block_scale=four_over_six"),
        "mse": ("nvfp4-w4a4", "block_scale=mse"),
        "hessian": ("nvfp4-w4a4", "block_scale=hessian"),
        "balanced, mse": ("nvfp4-w4a4", "block_scale=mse", "smoothing=balanced"),
        "fast": ("nvfp4-w4a4-fast",),
        "gptq, not balanced": ("nvfp4-w4a4", "method=gptq", "smoothing=none"),
        "gptq": ("nvfp4-w4a4",),
        "gptq, weights only": ("nvfp4-w4a16", "method=gptq", "smoothing=balanced")}
PEER = {"llm-compressor GPTQ W4A16": "gptq16", "llm-compressor GPTQ W4A4": "gptq4"}
BEST = ("fast", "gptq", "gptq, weights only")
NOISE = """
import glob, os, shutil, sys, torch
from safetensors import safe_open
from safetensors.torch import save_file
source, out = sys.argv[1:3]
shutil.copytree(source, out)
torch.manual_seed(0)
for path in glob.glob(os.path.join(out, "*.safetensors")):
    with safe_open(path, "pt") as f:
        t = {k: f.get_tensor(k) for k in f.keys()}
    for k in t:
        if "proj" not in k or t[k].dim() != 2: continue
        b = t[k].float().reshape(-1, 32)
        step = (b.amax(1, keepdim=True) - b.amin(1, keepdim=True)) / 15
        t[k] = (b + step * (torch.rand_like(b) - .5)).reshape(t[k].shape).to(t[k].dtype)
    save_file(t, path, metadata={"format": "pt"})
"""


def run(argv, log, **env):
    start = time.monotonic()
    with open(log, "w", encoding="utf-8") as f:
        rc = subprocess.run(argv, stdout=f, stderr=subprocess.STDOUT, env={**os.environ, **env}, check=False).returncode
    if rc:
        raise SystemExit(f"accuracy: {' '.join(argv)}: exit status {rc}, see {log}")
    return time.monotonic() - start


class Table:
    def __init__(self, opts):
        self.o = opts
        self.python = os.path.join(os.environ.get("QD_PEERS_VENV", ""), "bin", "python")
        if not os.path.exists(self.python):
            raise SystemExit("accuracy: set QD_PEERS_VENV as ../shared/peers/README.md describes it")
        self.work = os.path.abspath(opts.work)
        os.makedirs(self.work, exist_ok=True)
        self.path = os.path.join(ROOT, "out", "bench", f"accuracy-{opts.split}.json")
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.rows = {}
        if os.path.exists(self.path):
            with open(self.path, encoding="utf-8") as f:
                self.rows = json.load(f)
        self.n, self.calib, self.texts = self.split()

    def at(self, name):
        return os.path.join(self.work, name)

    def split(self):
        """(sequences to calibrate on, their text, texts to judge on by name)"""
        calib, judged = os.path.join(DATA, "calib.txt"), os.path.join(DATA, "eval.txt")
        if self.o.split == "test":
            return 64, calib, {"eval": judged, "other": self.o.other or self.manual()}
        with open(calib, encoding="utf-8") as f:
            lines = f.readlines()
        for name, part in (("dev-calib.txt", lines[:len(lines) // 2]), ("dev-eval.txt", lines[len(lines) // 2:])):
            with open(self.at(name), "w", encoding="utf-8") as f:
                f.writelines(part)
        return 16, self.at("dev-calib.txt"), {"eval": self.at("dev-eval.txt")}

    def manual(self):
        text = self.at("policy.txt")
        if not os.path.exists(text):
            subprocess.run(["apt-get", "download", "-qq", "debian-policy"], cwd=self.work, check=True)
            deb = glob.glob(self.at("debian-policy_*.deb"))[0]
            subprocess.run(["dpkg-deb", "-x", deb, self.at("policy")], check=True)
            with gzip.open(self.at("policy/usr/share/doc/debian-policy/policy.txt.gz"), "rt", encoding="utf-8") as f:
                words = re.sub(r"[ \t]+", " ", f.read())
            with open(text, "w", encoding="utf-8") as f:
                f.write(words)
        return text

    def model(self, perturbed):
        source = self.o.model or self.at("smollm2")
        if not os.path.exists(source):
            run([self.python, os.path.join(PEERS, "smollm2.py"), source], self.at("smollm2.log"))
        if not perturbed:
            return source
        noisy = self.at("perturbed")
        if not os.path.exists(noisy):
            run([self.python, "-c", NOISE, source, noisy + ".part"], self.at("perturbed.log"))
            os.rename(noisy + ".part", noisy)
        return noisy

    def judge(self, model, out):
        found = {}
        for name, text in self.texts.items():
            log = self.at("eval.log")
            run([self.python, os.path.join(PEERS, "eval_kl.py"), model, text, out], log, CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1")
            with open(log, encoding="utf-8") as f:
                found[name] = json.loads(re.search(r"quantized \d+ (\{.*\})", f.read())[1])
        return found

    def row(self, part, name, model, make):
        key, out = f"{part}: {name}", self.at("out")
        if key in self.rows or (self.o.only and name not in self.o.only):
            return
        shutil.rmtree(out, ignore_errors=True)
        seconds = make(out)
        self.rows[key] = {"seconds": round(seconds, 1), **self.judge(model, out)}
        with open(self.path, "w", encoding="utf-8") as f:
            json.dump(self.rows, f, indent=1)
        print(f"{key:<44} {seconds:7.1f} s  {json.dumps(self.rows[key])}", flush=True)

    def part(self, part, recipes, perturbed=False, built_in=False):
        model = self.model(perturbed)
        text = [] if built_in else ["--calib", self.calib]

        def ours(template, *settings):
            sets = [a for s in settings for a in ("--set", s)]
            if template == "nvfp4-w4a4" and settings and not any(s.startswith("method") for s in settings):
                sets += ["--set", "method=rtn"]
                sets += [] if any(s.startswith("smoothing") for s in settings) else ["--set", "smoothing=none"]
            return lambda out: run([os.path.join(self.o.bin, "quantctl"), "quantize", model, "--template", template, *sets, *text,
                                    "--templates", os.path.join(ROOT, "deploy", "templates"), "--samples", str(self.n),
                                    "--seq-len", str(LENGTH), "-o", out], self.at("quantctl.log"))

        def peer(mode):
            return lambda out: run([self.python, os.path.join(PEERS, "llmcompressor_oneshot.py"), mode, model, out], self.at("peer.log"),
                                   TEXT=self.calib, NS=str(self.n), SL=str(LENGTH), CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1")

        for name, mode in {} if self.o.no_peers else PEER.items():
            self.row(part if perturbed else "text", name, model, peer(mode))
        for name in recipes:
            self.row(part, name, model, ours(*OURS[name]))

    def show(self):
        """KL, top-1 and perplexity by row, and KL as a part of llm-compressor's GPTQ of that kind and part."""
        for text in self.texts:
            print(f"\n{text:<44} W4A16 KL   top-1     ppl  of GPTQ   W4A4 KL   top-1     ppl  of GPTQ")
            for key, r in self.rows.items():
                part, line = key.split(":")[0], f"{key:<44}"
                for mode, name in (("w4a16", "llm-compressor GPTQ W4A16"), ("w4a4", "llm-compressor GPTQ W4A4")):
                    q, peer = r.get(text, {}).get(mode), self.rows.get(f"{part}: {name}", self.rows.get(f"text: {name}"))
                    share = f"{q['kl'] / peer[text][mode]['kl']:8.3f}" if q and peer and mode in peer.get(text, {}) else " " * 8
                    line += f"{q['kl']:9.5f} {q['top1']:8.4f} {q['ppl']:7.3f} {share} " if q else " " * 36
                print(line)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--split", choices=("dev", "test"), default="test")
    p.add_argument("--work", default=os.path.join(ROOT, "out", "bench", "work"))
    p.add_argument("--bin", default=os.path.join(ROOT, "build", "release", "bin"))
    p.add_argument("--model", help="SmolLM2 in BF16 (made in --work otherwise)")
    p.add_argument("--other", help="the other text")
    p.add_argument("--no-peers", action="store_true")
    p.add_argument("--only", type=lambda s: s.split(";"), help="rows by name, ';' between them")
    p.add_argument("part", nargs="*", metavar="PART", choices=["text", "built-in", "perturbed", []])
    t = Table(p.parse_args())
    for part in t.o.part or ["text", "built-in", "perturbed"]:
        if part == "text":
            t.part(part, OURS)
        elif part == "built-in":
            t.part(part, BEST, built_in=True)
        else:
            t.part(part, BEST, perturbed=True)
    t.show()


if __name__ == "__main__":
    sys.exit(main())
