#!/usr/bin/env python3
"""Fails on an #include of another module that the including module's CMake DEPS do not list: deps.py SOURCE_DIR.

A module is a folder with a qd_module(NAME ... DEPS ...) or an executable with target_link_libraries(... qd::x ...).
The list is whole: a module that is reached only through another one has to be named. Tests are exempt."""
import pathlib
import re
import sys

SHIM = ("gpu/cuda/", "tests")  # the kernels' one door to the launch shim, compiled only by tests
NEVER = {"engine": {"bus", "daemon", "cli", "gateway", "jobs"}}  # the engine does not know what stands above it
INCLUDE = re.compile(r'^\s*#\s*include\s+"([a-z0-9_]+)/[^"]*"', re.M)


def declared(cmake_text):
    """The qd:: names that a module may use."""
    text = re.sub(r"#.*", "", cmake_text)
    deps = set()
    for call in re.findall(r"\b(?:qd_module|target_link_libraries)\s*\(([^)]*)\)", text):
        deps |= set(re.findall(r"\bqd::([a-z0-9_]+)", call))
    return deps


def modules(root):
    found = {}
    for cmake in sorted(root.glob("*/CMakeLists.txt")):
        text = cmake.read_text(encoding="utf-8")
        if cmake.parent.name != "tests" and re.search(r"\b(qd_module|add_executable)\s*\(", text):
            found[cmake.parent.name] = declared(text) - {cmake.parent.name}  # a program beside its own library
    return found


def check(root):
    mods = modules(root)
    problems = []
    for name, deps in mods.items():
        for dep in sorted(deps - set(mods)):
            problems.append(f"{name}/CMakeLists.txt: qd::{dep} is no module")
        for dep in sorted(deps & NEVER.get(name, set())):
            problems.append(f"{name}/CMakeLists.txt: {name} must not depend on {dep}")
        for path in sorted((root / name).rglob("*")):
            if path.suffix not in {".c", ".h", ".cu", ".cuh", ".inc"}:
                continue
            text = path.read_text(encoding="utf-8")
            for m in INCLUDE.finditer(text):
                used = m.group(1)
                if used == name or used in deps:
                    continue
                if used == SHIM[1] and str(path.relative_to(root)).startswith(SHIM[0]):
                    continue
                line = text.count("\n", 0, m.start(1)) + 1
                what = "is not in its DEPS" if used in mods else "is no module"
                problems.append(f'{path.relative_to(root)}:{line}: includes "{used}/...", which {what}')
    problems += cycles(mods)
    return mods, problems


def cycles(mods):
    """One line for each module that reaches itself."""
    out = []
    for start in mods:
        seen, todo = set(), list(mods[start])
        while todo:
            m = todo.pop()
            if m == start:
                out.append(f"{start}/CMakeLists.txt: depends on itself through {', '.join(sorted(seen)) or start}")
                break
            if m not in seen:
                seen.add(m)
                todo += mods.get(m, set())
    return out


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    mods, problems = check(root)
    if not mods:
        problems.append(f"{root}: no modules found")
    for p in problems:
        print(p)
    print(f"deps: {len(mods)} modules, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
