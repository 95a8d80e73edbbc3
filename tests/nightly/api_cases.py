#!/usr/bin/env python3
"""schemathesis on a running gateway's /openapi.json: no 5xx, no status, type or body outside the description.

    api_cases.py SCHEMATHESIS CASES      CASES: at least so many are asked (10000)

Needs what tests/e2e/service.py needs. Live events are left out: they do not end."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

import qd  # noqa: E402
import service  # noqa: E402

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
OPERATIONS = 15
RUNS_MAX = 5


def ids(s):
    """Values that are there, by the names under which requests carry them."""
    made = [s.ask("POST", "/api/v1/fine-tunes/compress/jobs", {"model": "demo-ft-1", "template_id": "nvfp4-w4a16"}).json
            ["output"]["job_id"] for _ in range(3)]
    return {"model": ["demo-ft-1", "tiny"], "template_id": ["nvfp4-w4a16", "nvfp4-w4a4"], "job_id": made,
            "start_time": ["2026-04-11", "2026-04-11 00:00:00"], "end_time": ["2126-04-11"], "modelSetName": ["tiny"],
            "config": [{"strategy": "Quantization", "weight": "NVFP4"}]}


def main():
    schemathesis, cases = sys.argv[1], int(sys.argv[2])
    service.need()
    directory = tempfile.mkdtemp(prefix="api-", dir=qd.WORK)
    s = service.Service(directory)
    try:
        env = dict(os.environ, AK=s.ak, SK=s.sk, KEY=s.key, IDS=json.dumps(ids(s)), NO_PROXY="127.0.0.1",
                   SCHEMATHESIS_HOOKS="api_hooks", PYTHONPATH=HERE)
        argv = [schemathesis, "run", f"http://127.0.0.1:{s.port}/openapi.json", "--checks", CHECKS, "--phases", "coverage,fuzzing",
                "--exclude-path-regex", "/events$", "--suppress-health-check", "all", "--no-color", "--continue-on-failure"]
        asked = 0
        for _ in range(RUNS_MAX):  # operations without many parameters have fewer cases than are asked of them
            more = max(100, (cases - asked) // OPERATIONS + 1)
            p = subprocess.run([*argv, "-n", str(more)], env=env, cwd=directory, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, check=False)
            print(p.stdout)
            told = re.search(r"(\d+) generated", p.stdout)
            asked += int(told[1]) if told else 0
            print(f"api-cases: {asked} cases", flush=True)
            if p.returncode != 0 or asked >= cases:
                return p.returncode
        return 1
    finally:
        s.close()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
