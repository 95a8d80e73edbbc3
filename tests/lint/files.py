#!/usr/bin/env python3
"""Rules for the text of every file: files.py SOURCE_DIR.

Source files of at most 600 lines; no tabs, trailing spaces or missing last newline; no paths of one machine."""
import pathlib
import re
import subprocess
import sys

LINES_MAX = 600
CODE = {".c", ".h", ".cu", ".cc", ".inc", ".py", ".sh", ".cmake"}
TEXT = CODE | {".md", ".txt", ".json", ".yml", ".yaml", ".service", ".conf", ""}
OURS = ("LICENSE",)  # the licence's text is as it is
# Absolute paths into somebody's home or build machine; /proc, /dev, /usr, /tmp and the like are everybody's.
MACHINE = re.compile(r"(?<![\w.$}/-])/(?:work|farm|home/\w+|Users/\w+|root|data|scratch|mnt)/")
NOT_TEXT = ("tests/fuzz/corpus/", "tests/golden/")


def files(root):
    git = subprocess.run(["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                         capture_output=True, check=False)
    if git.returncode == 0:
        return sorted({root / p for p in git.stdout.decode().split("\0") if p})
    skip = {"build", "out", ".git", "__pycache__"}  # a source archive without git
    return sorted(p for p in root.rglob("*") if p.is_file() and not skip & set(p.relative_to(root).parts))


def check_file(name, text, suffix):
    if suffix in CODE and text.count("\n") > LINES_MAX:
        yield f"{name}: {text.count(chr(10))} lines, at most {LINES_MAX}: split it by concept"
    if text and not text.endswith("\n"):
        yield f"{name}: no newline at the end"
    for n, line in enumerate(text.split("\n"), 1):
        if suffix in CODE and "\t" in line:
            yield f"{name}:{n}: a tab"
        if suffix in CODE and line != line.rstrip():
            yield f"{name}:{n}: spaces at the end"
        m = MACHINE.search(line)
        if m and not (suffix == ".py" and "MACHINE = " in line):
            yield f"{name}:{n}: a path of one machine: {m.group(0)}"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    problems, n = [], 0
    for path in files(root):
        name = str(path.relative_to(root))
        if path.suffix not in TEXT or name in OURS or name.startswith(NOT_TEXT) or not path.is_file():
            continue
        n += 1
        problems += check_file(name, path.read_bytes().decode("utf-8", "replace"), path.suffix)
    if n == 0:
        problems.append(f"{root}: no files found")
    for p in problems:
        print(p)
    print(f"files: {n} read, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
