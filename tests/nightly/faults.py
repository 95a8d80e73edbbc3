#!/usr/bin/env python3
"""Each allocation, read, write, sync and rename of a whole small job fails once, until the job succeeds.

Every time: the exit code of the kind, one sentence on stderr, no output directory (unless the sentence says that it is in
place), nothing for a sanitizer to say, leaks included. What is left for --resume ends with the bytes of a whole run.
QD_QUANTCTL: the program, built with preset asan."""
import collections
import concurrent.futures
import os
import shutil
import sys
import tempfile

import qd
import st

KINDS = {"alloc": 4, "read": 1, "write": 4, "sync": 1, "rename": 1}  # with the default errno of each
MOST = 20000  # guards against a job that never succeeds
PAST_THE_LAST = 100  # so many jobs in a row succeed: the last place is behind us (some failures do no harm, so one is not enough)
SANITIZERS = {"ASAN_OPTIONS": "detect_leaks=1:exitcode=99", "UBSAN_OPTIONS": "exitcode=98"}


def wrong_with(r, rc, out):
    """What is wrong with a run that failed, or None."""
    said = [line for line in r.err.splitlines()
            if line.strip() and not qd.PROGRESS.match(line) and not line.startswith(qd.WARNING)]
    if r.rc != rc:
        return f"exit {r.rc}, expected {rc}"
    if any(word in r.err for word in qd.CRASHES):
        return "a sanitizer or an assertion spoke"
    if len(said) != 1 or not said[0].startswith("quantctl: "):
        return f"{len(said)} sentences, expected one"
    if os.path.lexists(out) and "is in place" not in said[0]:
        return "an output directory is there"
    return None


class Bench:
    def __init__(self, work):
        self.work = work
        self.model = st.make_dir(os.path.join(work, "model"), st.llama(layers=1), cfg=st.config(num_hidden_layers=1),
                                 shards=2, side={"tokenizer.json": b"{}"})
        whole = os.path.join(work, "whole")
        r = self.quantize(whole)
        if r.rc:
            sys.exit(f"faults: the job fails without a fault\n{r}")
        self.whole = qd.tree(whole)

    def quantize(self, out, *more, fault=None):
        env = dict(SANITIZERS, **({"QD_FAULT": fault} if fault else {}))
        return qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", out, *more, env=env)

    def judge(self, kind, n):
        """(did the job fail, was it resumed, what is wrong or None)"""
        out = os.path.join(self.work, f"{kind}{n}")
        r = self.quantize(out, fault=f"{kind}:{n}")
        failed, resumed, wrong = r.rc != 0, False, None
        if failed:
            wrong = wrong_with(r, KINDS[kind], out)
        if wrong is None and os.path.exists(out + ".staging"):
            resumed = True
            r = self.quantize(out, "--resume")
            wrong = None if r.rc == 0 else "--resume fails"
        if wrong is None and os.path.exists(out) and qd.tree(out) != self.whole:
            wrong = "the output differs from a whole run's"
        for path in (out, out + ".staging"):
            shutil.rmtree(path, ignore_errors=True)
        return failed, resumed, f"{kind}:{n}: {wrong}\n{r}" if wrong else None


def main():
    with tempfile.TemporaryDirectory(prefix="faults-", dir=qd.WORK) as work:
        bench, bad = Bench(work), []
        jobs = os.cpu_count() or 1
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for kind in KINDS:
                count = collections.Counter()
                n, in_a_row = 1, 0
                while in_a_row < PAST_THE_LAST and n < MOST:
                    for failed, resumed, wrong in pool.map(lambda k: bench.judge(kind, k), range(n, n + 4 * jobs)):
                        in_a_row = 0 if failed else in_a_row + 1
                        count["failed"] += failed
                        count["resumed"] += resumed
                        if wrong:
                            bad.append(wrong)
                            print(wrong, flush=True)
                    n += 4 * jobs
                print(f"{kind}: {count['failed']} places failed, {count['resumed']} jobs resumed", flush=True)
                if count["failed"] == 0 or n >= MOST:
                    bad.append(f"{kind}: no fault was met, or no end of them")
    if bad:
        sys.exit(f"faults: {len(bad)} of these are wrong")


if __name__ == "__main__":
    main()
