#!/usr/bin/env python3
"""Our tokenizer beside Hugging Face's tokenizers, one thread each, alternating, same text:
tokenize_rate.py TOKENIZE_RATE MODEL_DIR TEXT_FILE [ROUNDS]. Needs a Python with `tokenizers`."""
import json
import os
import subprocess
import sys
import time

os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")


def main():
    from tokenizers import Tokenizer, __version__
    program, model, path = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    start = time.perf_counter()
    tok = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
    load = time.perf_counter() - start
    with open(path, encoding="utf-8", newline="") as f:
        text = f.read()
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(json.loads(subprocess.run([program, model, path, "3"], check=True, capture_output=True).stdout))
        start = time.perf_counter()
        n = len(tok.encode(text, add_special_tokens=False).ids)
        theirs.append(time.perf_counter() - start)
    if any(o["tokens"] != n for o in ours):
        sys.exit(f"tokens differ: {ours[0]['tokens']} and {n}")
    size = ours[0]["bytes"]
    rate = {"quantd, first pass": size / min(o["first_s"] for o in ours), "quantd, best pass": size / min(o["best_s"] for o in ours),
            f"tokenizers {__version__}, first pass": size / theirs[0], f"tokenizers {__version__}, best pass": size / min(theirs)}
    for name, r in rate.items():
        print(f"{name:36} {1e-6 * r:8.2f} MB/s")
    print(f"load: {min(o['load_s'] for o in ours):.2f} s and {load:.2f} s; {n} tokens of {size} bytes")


if __name__ == "__main__":
    main()
