#!/usr/bin/env python3
"""The vendors' SDKs drive the gateway: only base URL and keys are set.

QD_SDK_VENV names a Python environment with what tests/nightly/sdk.txt lists; QD_SMOLLM2_DIR a checkpoint of SmolLM2, with which
the quick start runs, too."""
import json
import os
import re
import shutil
import sys
import tempfile
import time
import unittest

VENV = os.environ.get("QD_SDK_VENV", "")
try:
    import dashscope  # noqa: F401
    import qianfan  # noqa: F401
except ImportError:
    PYTHON = os.path.join(VENV, "bin", "python")
    if not VENV or not os.access(PYTHON, os.X_OK) or os.environ.get("QD_SDK_AGAIN"):
        print("left out: no Python environment with the SDKs (QD_SDK_VENV)")
        sys.exit(77)
    os.environ["QD_SDK_AGAIN"] = "1"
    os.execv(PYTHON, [PYTHON, "-B", *sys.argv])

import cluster  # noqa: E402
import qd  # noqa: E402
import service  # noqa: E402

S = None  # the service
ROOT = "fine-tunes/compress"
END = ("SUCCEEDED", "FAILED", "CANCELED")


def setUpModule():
    global S
    directory = tempfile.mkdtemp(prefix="e2e-", dir=qd.WORK)
    unittest.addModuleCleanup(shutil.rmtree, directory, ignore_errors=True)
    S = service.Service(directory)
    unittest.addModuleCleanup(S.close)
    os.environ["NO_PROXY"] = "127.0.0.1"
    os.environ["QIANFAN_CONSOLE_API_BASE_URL"] = f"http://127.0.0.1:{S.port}"
    os.environ["QIANFAN_ACCESS_KEY"], os.environ["QIANFAN_SECRET_KEY"] = S.ak, S.sk
    dashscope.base_http_api_url = f"http://127.0.0.1:{S.port}/api/v1"
    dashscope.api_key = S.key


def bailian():
    from dashscope.client.base_api import CancelMixin, CreateMixin, DeleteMixin, GetMixin, ListMixin, LogMixin

    class CompressJobs(CreateMixin, CancelMixin, DeleteMixin, GetMixin, ListMixin, LogMixin):
        SUB_PATH = f"{ROOT}/jobs"

    class CompressTemplates(GetMixin):
        SUB_PATH = f"{ROOT}/templates"
    return CompressJobs, CompressTemplates


class Bailian(unittest.TestCase):
    def setUp(self):
        self.jobs, self.templates = bailian()

    def good(self, r):
        self.assertEqual(r.status_code, 200, r)
        self.assertRegex(r.request_id, r"^[0-9a-f-]{36}$")
        return r.output

    def failed(self, r, status, code):
        self.assertEqual((r.status_code, r.code), (status, code), r)
        self.assertTrue(r.message)

    def create(self, **more):
        return self.good(self.jobs.call({"model": "demo-ft-1", "template_id": "nvfp4-w4a16", **more}))["job_id"]

    def end(self, job, *states):
        out = cluster.wait_for(lambda: next((o for o in [self.good(self.jobs.get(job))] if o["status"] in states), None), states)
        return out

    def test_templates(self):
        out = self.good(self.templates.get("", path=f"{ROOT}/templates", params={"lang": "en-US"}))
        model, = [m for m in out["custom_models"] if m["model"] == "demo-ft-1"]
        names = {t["template_id"]: t["template_name"] for t in model["templates"]}
        self.assertEqual(names["nvfp4-w4a16"], "NVFP4 W4A16, weights only")
        self.assertIn("tiny", out["base_models"])

    def test_a_job_is_cancelled_and_deleted(self):
        job = self.create(job_name="压缩 1.0", job_description="why")
        out = self.good(self.jobs.get(job))
        self.assertEqual((out["job_name"], out["job_description"]), ("压缩 1.0", "why"))
        self.failed(self.jobs.delete(job), 400, "UnsupportedOperation")
        self.failed(self.jobs.call({"model": "demo-ft-1", "template_id": "nvfp4-w4a16", "job_name": "压缩 1.0"}), 400,
                    "InvalidParameter")
        self.assertEqual(self.good(self.jobs.cancel(job)), {"status": "success"})
        self.end(job, "CANCELED")
        self.failed(self.jobs.cancel(job), 400, "UnsupportedOperation")
        self.assertEqual(self.good(self.jobs.delete(job)), {"status": "success"})
        self.failed(self.jobs.get(job), 404, "NotFound")

    def test_errors_are_told_and_not_raised(self):
        self.failed(self.jobs.call({"template_id": "x"}), 400, "InvalidParameter")
        self.failed(self.jobs.get("quant-202604111200-0000"), 404, "NotFound")
        self.failed(self.jobs.get("x", api_key="sk-nobody"), 401, "Unauthorized")

    def test_lists_are_filtered_and_paged(self):
        made = {self.create(job_name=f"list {i}") for i in range(3)}
        found = set()
        for page in (1, 2, 3):
            out = self.good(self.jobs.list(page_no=page, page_size=1, path=f"{ROOT}/jobs?job_name=list&sort_order=asc&quant_spec=w4a16"))
            self.assertEqual((out["total"], out["page_no"], out["page_size"], len(out["jobs"])), (3, page, 1, 1))
            found.add(out["jobs"][0]["job_id"])
        self.assertEqual(found, made)
        self.assertEqual(self.good(self.jobs.list(path=f"{ROOT}/jobs?status=SUCCEEDED&job_name=list"))["total"], 0)
        for job in made:
            self.good(self.jobs.cancel(job))

    def test_files(self):
        data = os.path.join(S.dir, "calib.jsonl")
        with open(data, "w", encoding="utf-8") as f:
            f.write('{"messages":[{"role":"user","content":"你好"},{"role":"assistant","content":"hello"}]}\n')
        r = dashscope.Files.upload(data, purpose="fine-tune")
        self.assertEqual(r.status_code, 200, r)
        up, = r.output["uploaded_files"]
        self.assertRegex(up["file_id"], "^file-[0-9a-f]{32}$")
        self.assertEqual(up["name"], "calib.jsonl")
        got = dashscope.Files.get(up["file_id"]).output
        self.assertEqual((got["size"], got["purpose"], got["user_id"]), (os.path.getsize(data), "fine-tune", "ann"))
        self.assertEqual([f["file_id"] for f in dashscope.Files.list().output["files"]], [up["file_id"]])
        job = self.create(custom_calibration_file_ids=[up["file_id"]])
        self.assertEqual(self.good(self.jobs.get(job))["custom_calibration_file_ids"], [up["file_id"]])
        self.good(self.jobs.cancel(job))
        self.assertEqual(dashscope.Files.delete(up["file_id"]).status_code, 200)
        self.failed(dashscope.Files.get(up["file_id"]), 400, "InvalidParameter")


class Qianfan(unittest.TestCase):
    def setUp(self):
        from qianfan import resources
        self.call, self.v2 = resources.console.utils.call_action, resources.Model.V2

    def do(self, action, **body):
        return self.call("/v2/model", action, body).body["result"]

    def source(self):
        """(version id, set id) of demo-ft-1, as a client finds them."""
        for s in self.do("DescribeCustomModelSets")["modelSetList"]:
            if "demo-ft-1" in s["modelNames"]:
                return s["modelIds"][s["modelNames"].index("demo-ft-1")], s["modelSetId"]
        raise AssertionError("no set with demo-ft-1")

    def create(self, weight="NVFP4"):
        model, owner = self.source()
        return self.v2.create_model_comp_task("demo", model, {"strategy": "Quantization", "weight": weight}, owner, "note")["result"]

    def refused(self, code, fn, *args, **more):
        with self.assertRaises(qianfan.errors.RequestError) as e:
            fn(*args, **more)
        self.assertIn(code, str(e.exception))

    def test_models(self):
        model, owner = self.source()
        m = self.do("DescribeModel", modelId=model)
        self.assertEqual((m["modelSetId"], m["isSupportModelComp"], m["status"]), (owner, True, "Ready"))
        self.assertEqual(self.do("DescribeModelSet", modelSetId=owner)["modelSetName"], "tiny")

    def test_a_task_is_stopped_and_deleted(self):
        task = self.create("nvfp4")
        self.assertRegex(task, "^amva-[a-z0-9]{12}$")
        t = self.do("DescribeModelCompTask", modelCompTaskId=task)
        self.assertEqual((t["name"], t["description"], t["config"]["weight"]), ("demo", "note", "nvfp4"))
        self.refused("OperationNotAllowed", self.v2.delete_model_comp_task, task)
        self.v2.cancel_model_comp_task(task)
        cluster.wait_for(lambda: self.do("DescribeModelCompTask", modelCompTaskId=task)["status"] == "stopped", "the stop")
        self.v2.delete_model_comp_task(task)
        self.refused("NoSuchModelCompTask", self.do, "DescribeModelCompTask", modelCompTaskId=task)

    def test_lists(self):
        made = [self.create() for _ in range(3)]
        seen, marker = [], None
        for _ in range(20):
            r = self.v2.describe_model_comp_tasks(marker=marker, max_keys=2, page_reverse=True).body["result"]
            seen += [t["id"] for t in r["modelCompTaskList"]]
            if not r["pageInfo"]["isTruncated"]:
                break
            marker = r["pageInfo"]["nextMarker"]
        self.assertEqual([t for t in seen if t in made], made[::-1])
        for task in made:
            self.v2.cancel_model_comp_task(task)

    def test_schemes_without_an_engine_are_refused(self):
        self.refused("OperationNotAllowed", self.create, "INT8-PTQ")
        self.refused("InappropriateJSON", self.create, "FP3")


class ToTheEnd(unittest.TestCase):
    """With a worker; the others need none."""

    def setUp(self):
        self.jobs, _ = bailian()
        S.cluster.worker(f"w{len(S.cluster.workers)}", f"source_roots={S.models}:{S.files}")
        self.addCleanup(lambda: S.cluster.workers[-1].term())

    def run_job(self, **body):
        r = self.jobs.call(body)
        self.assertEqual(r.status_code, 200, r)
        job = r.output["job_id"]
        for _ in range(qd.HANG_S * 10):
            r = self.jobs.get(job)
            if r.output["status"] in END:
                break
            time.sleep(0.2)
        self.assertEqual(r.output["status"], "SUCCEEDED", f"{r}\n{S.cluster.logs()}")
        return r.output

    def test_a_job_succeeds(self):
        out = self.run_job(model="demo-ft-1", template_id="nvfp4-w4a16", output_model_suffix="e2e",
                           hyper_parameters={"block_scale": "minmax"})
        self.assertEqual(out["quantized_output"], f"tiny-e2e-{out['job_id']}")
        self.assertEqual(out["hyper_parameters"]["block_scale"], "minmax")
        self.assertIsNone(out["error"])
        self.assertTrue(out["create_time"] <= out["start_time"] <= out["end_time"])
        logs = self.jobs.logs(out["job_id"], offset=0, line=1000).output
        self.assertEqual(logs["total"], len(logs["logs"]))
        texts = [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - INFO - (.*)", line)[1] for line in logs["logs"]]
        self.assertEqual((texts[0], texts[-1]), ("Starting quantization...", "Quantization succeeded!"))
        self.assertEqual(self.jobs.logs(out["job_id"]).output["logs"], logs["logs"][1:])  # the SDK's offset is 1
        cluster.wait_for(lambda: self.jobs.call({"model": out["quantized_output"], "template_id": "nvfp4-w4a16"}).code ==
                         "InvalidParameter", "the produced model, which cannot be quantized again")

    def test_a_task_succeeds_and_names_its_version(self):
        q = Qianfan("test_models")
        q.setUp()
        task = q.create()
        t = cluster.wait_for(lambda: next((t for t in [q.do("DescribeModelCompTask", modelCompTaskId=task)]
                                           if t["status"] in ("succeeded", "failed") and ("modelId" in t or t["failedReason"])), None),
                             "the task's end")
        self.assertEqual(t["status"], "succeeded", t)
        m = q.do("DescribeModel", modelId=t["modelId"])
        self.assertEqual((m["isSupportModelComp"], m["sourceInfo"]), (False, {"sourceType": "Acceleration", "modelCompTaskId": task}))

    def test_the_quick_start_on_smollm2(self):
        source = os.environ.get("QD_SMOLLM2_DIR")
        if not source:
            self.skipTest("no QD_SMOLLM2_DIR")
        shutil.copytree(source, os.path.join(S.models, "smollm2-ft"))
        S.add_model("smollm2-ft", base="smollm2")
        _, templates = bailian()
        cluster.wait_for(lambda: any(m["model"] == "smollm2-ft" for m in templates.get(
            "", path=f"{ROOT}/templates").output["custom_models"]), "the new model")
        data = os.path.join(S.dir, "talk.jsonl")
        with open(data, "w", encoding="utf-8") as f:
            for i in range(64):
                f.write(json.dumps({"messages": [{"role": "user", "content": f"What is {i} plus {i}?"},
                                                 {"role": "assistant", "content": f"{i} plus {i} is {2 * i}. " * 20}]}) + "\n")
        up, = dashscope.Files.upload(data, purpose="fine-tune").output["uploaded_files"]
        out = self.run_job(model="smollm2-ft", template_id="nvfp4-w4a4", custom_calibration_file_ids=[up["file_id"]],
                           hyper_parameters={"calib_samples": 8, "calib_seq_len": 128})
        lines = self.jobs.logs(out["job_id"], offset=0, line=1000).output["logs"]
        self.assertTrue(any("data process succeeded, start to quantization" in line for line in lines), lines)
        made, = [d for d in os.listdir(S.cluster.out) if d.endswith(out["job_id"])]
        with open(os.path.join(S.cluster.out, made, "config.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f)["quantization_config"]["quant_method"], "compressed-tensors")


if __name__ == "__main__":
    service.need()
    qd.main()
