"""Runs the built quantctl as a user does; what the end-to-end tests share.

The environment says where things are: QD_QUANTCTL (the program), QD_SHARED_DIR (reference data; tests that need it end with 77
where it is absent), QD_E2E_DIR (a directory to work in, on a real disk)."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
QUANTCTL = os.environ.get("QD_QUANTCTL", os.path.join(ROOT, "build", "release", "bin", "quantctl"))
SHARED = os.environ.get("QD_SHARED_DIR", os.path.join(ROOT, "..", "shared"))
WORK = os.environ.get("QD_E2E_DIR") or None
TEMPLATE = "nvfp4-w4a16"
HANG_S = int(os.environ.get("QD_HANG_S", "120"))  # guards against a hang; no test asserts a time
PROGRESS = re.compile(r"(calibrate|import|quantize|sync|verify) +[0-9.]+ %")
WARNING = "quantctl: warning: "
CRASHES = ("Sanitizer", "runtime error:", "Assertion", "core dumped")


_begun = []  # not empty once main() runs tests


def skip(word):
    """Before main(): the whole script is left out; ctest shows it as skipped. In a test: that one is."""
    if _begun:
        raise unittest.SkipTest(word)
    print(f"left out: {word}")
    sys.exit(77)


def fixtures():
    """Directories of the shared fixtures; skip() where they are absent, fails where there are none."""
    base = os.path.join(SHARED, "fixtures")
    if not os.path.isdir(base):
        skip(f"no reference data at {base}")
    found = {n: os.path.join(base, n) for n in sorted(os.listdir(base))
             if os.path.exists(os.path.join(base, n, "config.json"))}
    if not found:
        sys.exit(f"{base} is there but holds no fixtures")
    return found


class Result:
    def __init__(self, args, rc, out, err):
        self.args, self.rc, self.out, self.err = args, rc, out, err

    def __str__(self):
        return f"quantctl {' '.join(self.args)}\nexit {self.rc}\nstdout: {self.out[-1500:]}\nstderr: {self.err[-1500:]}"

    def events(self):
        return [json.loads(line) for line in self.out.splitlines() if line.strip()]

    def event(self, kind):
        for e in reversed(self.events()):
            if e.get("event") == kind:
                return e
        raise AssertionError(f'no "{kind}" event\n{self}')


def environment(extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith("QD_FAULT")}
    env.update(LC_ALL="C", **(extra or {}))
    return env


def quantctl(*args, env=None, cwd=None, timeout=HANG_S, user=None):
    args = [str(a) for a in args]
    p = subprocess.run([QUANTCTL, *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False,
                       env=environment(env), cwd=cwd, user=user)
    return Result(args, p.returncode, p.stdout.decode("utf-8", "replace"), p.stderr.decode("utf-8", "replace"))


def start(*args, env=None):
    """The same in the background; what it prints goes to files, so that it never waits for us."""
    out, err = tempfile.TemporaryFile(dir=WORK), tempfile.TemporaryFile(dir=WORK)
    args = [str(a) for a in args]
    p = subprocess.Popen([QUANTCTL, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment(env))
    p.qd = (args, out, err)
    return p


def finish(p):
    """Waits for a started one."""
    try:
        p.wait(HANG_S)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
        raise
    args, out, err = p.qd
    text = []
    for f in (out, err):
        f.seek(0)
        text.append(f.read().decode("utf-8", "replace"))
        f.close()
    return Result(args, p.returncode, *text)


def freeze_when(p, condition):
    """Stops the process (SIGSTOP) as soon as condition() holds; False when it ended before."""
    end = time.monotonic() + HANG_S
    while p.poll() is None and time.monotonic() < end:
        if condition():
            p.send_signal(signal.SIGSTOP)
            with open(f"/proc/{p.pid}/stat", encoding="ascii") as f:
                if p.poll() is None and f.read().rsplit(")", 1)[1].split()[0] != "Z":
                    return True
        time.sleep(0.0005)
    return False


def lines(path):
    try:
        with open(path, "rb") as f:
            return f.read().count(b"\n")
    except FileNotFoundError:
        return 0


def tree(path, leave_out=("report.json",)):
    """{file name: bytes} of a directory, without what holds times."""
    out = {}
    for name in sorted(os.listdir(path)):
        if name not in leave_out:
            with open(os.path.join(path, name), "rb") as f:
                out[name] = f.read()
    return out


def report(out_dir):
    with open(os.path.join(out_dir, "report.json"), encoding="utf-8") as f:
        return json.load(f)


class Case(unittest.TestCase):
    """A directory of its own for each test: self.dir; self.path("x") is inside it."""

    maxDiff = 2000

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="e2e-", dir=WORK)
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def quantize(self, model, out, *more, rc=0, env=None, template=TEMPLATE):
        r = quantctl("quantize", model, "--template", template, "-o", out, *more, env=env)
        self.check(r, rc)
        return r

    def check(self, r, rc):
        self.assertEqual(r.rc, rc, str(r))
        for word in CRASHES:
            self.assertNotIn(word, r.err, str(r))

    def refused(self, r, rc, *words, out=None):
        """Exit code rc, one sentence on stderr that holds the words, and no output or staging directory."""
        self.check(r, rc)
        said = [line for line in r.err.splitlines() if line.strip() and not PROGRESS.match(line) and not line.startswith(WARNING)]
        self.assertEqual(len(said), 1, f"expected one sentence\n{r}")
        self.assertRegex(said[0], "^quantctl: .")
        for word in words:
            self.assertIn(word, said[0], str(r))
        if out is not None:
            self.assertFalse(os.path.lexists(out), f"{out} is there\n{r}")
            self.assertFalse(os.path.lexists(out + ".staging"), f"{out}.staging is there\n{r}")

    def same_tree(self, a, b):
        ta, tb = tree(a), tree(b)
        self.assertEqual(sorted(ta), sorted(tb))
        self.assertGreater(len(ta), 1)
        for name, data in ta.items():
            self.assertTrue(data == tb[name], f"{name} differs between {a} and {b}")


def main():
    if not os.access(QUANTCTL, os.X_OK):
        sys.exit(f"{QUANTCTL}: no quantctl there; build it first")
    _begun.append(True)
    r = unittest.main(verbosity=2, exit=False).result
    if r.wasSuccessful() and r.testsRun <= len(r.skipped):
        print("left out: every test was skipped")
        sys.exit(77)
    sys.exit(not r.wasSuccessful())
