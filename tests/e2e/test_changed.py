#!/usr/bin/env python3
"""A source file that changes while it is read: exit code 3, no output."""
import os
import shutil
import signal

import big
import qd


class Changed(qd.Case):
    def changed(self, change):
        model, out = self.path("model"), self.path("out")
        shutil.copytree(big.model(), model)
        p = qd.start("quantize", model, "--template", qd.TEMPLATE, "-o", out, *big.QUIET)
        self.assertTrue(qd.freeze_when(p, lambda: qd.lines(big.journal(out)) > 4), "the run ended too early")
        change(os.path.join(model, "model-00002-of-00003.safetensors"))
        p.send_signal(signal.SIGCONT)
        r = qd.finish(p)
        self.refused(r, 3, "model-00002-of-00003.safetensors", out=out)

    def test_one_byte_written(self):
        def poke(path):
            with open(path, "r+b") as f:
                f.seek(-1, os.SEEK_END)
                f.write(b"\x01")
        self.changed(poke)

    def test_truncated(self):
        self.changed(lambda path: os.truncate(path, 1 << 20))

    def test_replaced_by_another_file(self):
        def swap(path):
            shutil.copy2(path, path + ".new")
            os.replace(path + ".new", path)
        self.changed(swap)

    def test_a_resume_over_a_changed_source_starts_anew(self):
        model, out = self.path("model"), self.path("out")
        shutil.copytree(big.model(), model)
        p = qd.start("quantize", model, "--template", qd.TEMPLATE, "-o", out, *big.QUIET)
        self.assertTrue(qd.freeze_when(p, lambda: qd.lines(big.journal(out)) > 4), "the run ended too early")
        p.kill()
        qd.finish(p)
        path = os.path.join(model, "model-00001-of-00003.safetensors")
        with open(path, "r+b") as f:  # one weight of the last tensor, to another finite value
            f.seek(-2, os.SEEK_END)
            f.write(b"\x00\x3c")
        r = self.quantize(model, out, "--resume")
        self.assertIn("another plan", r.err)
        self.quantize(model, self.path("whole"))
        self.same_tree(self.path("whole"), out)


if __name__ == "__main__":
    qd.main()
