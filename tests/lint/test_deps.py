#!/usr/bin/env python3
"""deps.py sees what it is there to see."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import deps  # noqa: E402


class Deps(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.dir.name)
        self.module("base", "", "")
        self.module("ckpt", "qd::base", '#include "base/err.h"\n#include "ckpt/x.h"\n#include "local.h"\n')

    def tearDown(self):
        self.dir.cleanup()

    def module(self, name, dep_list, code):
        (self.root / name).mkdir(exist_ok=True)
        (self.root / name / "CMakeLists.txt").write_text(f"qd_module({name} SOURCES ${{S}} DEPS {dep_list}) # qd::ghost\n")
        (self.root / name / "x.c").write_text(code)

    def problems(self):
        return "\n".join(deps.check(self.root)[1])

    def test_a_listed_module_may_be_included(self):
        self.assertEqual(self.problems(), "")

    def test_an_unlisted_module_is_seen_with_its_line(self):
        self.module("quant", "qd::base", '#include "base/err.h"\n# include "ckpt/x.h"\n')
        self.assertIn('quant/x.c:2: includes "ckpt/..."', self.problems())

    def test_a_module_reached_through_another_has_to_be_listed(self):
        self.module("quant", "qd::ckpt", '#include "base/err.h"\n')
        self.assertIn("quant/x.c:1", self.problems())

    def test_a_cycle_is_seen(self):
        self.module("base", "qd::ckpt", "")
        self.assertIn("depends on itself", self.problems())

    def test_the_engine_knows_no_command_line(self):
        self.module("cli", "qd::base", "")
        self.module("engine", "qd::cli", '#include "cli/x.h"\n')
        self.assertIn("must not depend on cli", self.problems())


if __name__ == "__main__":
    unittest.main()
