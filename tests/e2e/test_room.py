#!/usr/bin/env python3
"""Too little disk or memory is refused with the figures; a directory that cannot be written to is a sentence."""
import os
import subprocess

import qd
import st


class Room(qd.Case):
    def setUp(self):
        super().setUp()
        self.model = st.make_dir(self.path("model"), st.llama(hidden=512, ffn=1024, vocab=1024, kv=128))

    def mounted(self, size):
        at = self.path("small")
        os.mkdir(at)
        p = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "qd-e2e", at], capture_output=True, check=False)
        if p.returncode != 0:
            self.skipTest("a small tmpfs needs the right to mount")
        self.addCleanup(subprocess.run, ["umount", "-l", at], check=False)
        return at

    def test_a_full_disk_is_refused_with_the_figures_before_anything_is_written(self):
        at = self.mounted("1m")
        for more in ((), ("--dry-run",)):
            r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", at + "/out", *more)
            self.refused(r, 4, "disk", "bytes", out=at + "/out")
            self.assertEqual(os.listdir(at), [])

    def test_it_works_on_a_file_system_without_direct_reads_and_writes(self):
        at = self.mounted("64m")
        self.quantize(self.model, at + "/out")
        self.quantize(self.model, self.path("out"))
        self.same_tree(at + "/out", self.path("out"))

    def test_a_disk_that_fills_up_later(self):
        for n in (1, 2, 3, 5):
            with self.subTest(n):
                out = self.path(f"out{n}")
                r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", out, env={"QD_FAULT": f"write:{n}:28"})
                self.refused(r, 4, out, out=out)

    def test_too_little_memory_names_the_least(self):
        r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", self.path("out"), "--memory", "1M")
        self.refused(r, 4, "memory", "1000000", out=self.path("out"))

    def test_a_read_only_directory(self):
        at = self.path("ro")
        os.mkdir(at, 0o555)
        if os.geteuid() == 0:  # modes do not bind root: a read-only mount does
            p = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "qd-e2e", at], capture_output=True, check=False)
            if p.returncode != 0:
                self.skipTest("a read-only file system needs the right to mount")
            self.addCleanup(subprocess.run, ["umount", "-l", at], check=False)
        r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", at + "/out")
        self.assertIn(r.rc, (1, 3, 4), str(r))
        self.refused(r, r.rc, at, out=at + "/out")

    def test_an_output_in_no_directory(self):
        r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", self.path("no/such/out"))
        self.assertIn(r.rc, (1, 3), str(r))
        self.refused(r, r.rc, "no/such", out=self.path("no/such/out"))


if __name__ == "__main__":
    qd.main()
