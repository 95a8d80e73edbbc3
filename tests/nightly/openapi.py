#!/usr/bin/env python3
"""gateway/openapi.json is valid OpenAPI 3.1, and every reply that the unit tests of the APIs get satisfies it.

    openapi.py OPENAPI.json REPLIES      REPLIES: what the tests wrote to $QD_REPLIES_OUT

Needs openapi-spec-validator and jsonschema (tests/nightly/sdk.txt)."""
import collections
import json
import re
import sys

import jsonschema
import openapi_spec_validator

JSON = "application/json; charset=utf-8"
RESULTS = {  # which of the results of /v2/model an action gives
    "CreateModelCompTask": "string", "DescribeModelCompTask": "Task", "DescribeModelCompTasks": "TaskList", "DescribeModel": "Model",
    "DescribeModelSet": "ModelSet", "DescribeCustomModelSets": "ModelSetList"}


def resolve(doc, v):
    while "$ref" in v:
        at = doc
        for part in v["$ref"].lstrip("#/").split("/"):
            at = at[part]
        v = at
    return v


def find(doc, method, path):
    """The operation of a request, None where there is none."""
    path = path.rstrip("/")
    for pattern, item in doc["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path) and method.lower() in item:
            return item[method.lower()]
    return None


def schema_of(doc, op, status):
    response = op["responses"].get(str(status)) or op["responses"]["default"]
    return resolve(doc, response)["content"][JSON]["schema"]


def main():
    doc = json.load(open(sys.argv[1], encoding="utf-8"))
    openapi_spec_validator.validate(doc)
    seen, problems, validators = collections.Counter(), [], {}
    for line in open(sys.argv[2], encoding="utf-8"):
        method, path, action, status, body = line.rstrip("\n").split("\t", 4)
        op = find(doc, method, path)
        if op is None:
            continue  # a request to no endpoint
        key = (op["operationId"], action if status == "200" else "", status)
        if key not in validators:
            root = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": doc["components"],
                    **schema_of(doc, op, int(status))}
            if status == "200" and action in RESULTS:
                name = RESULTS[action]
                root["properties"] = dict(root["properties"])
                root["properties"]["result"] = {"type": "string"} if name == "string" else {"$ref": f"#/components/schemas/{name}"}
                root["required"] = ["requestId", "result"]
            validators[key] = jsonschema.Draft202012Validator(root)
        seen[key] += 1
        for e in validators[key].iter_errors(json.loads(body)):
            problems.append(f"{method} {path} {action} {status}: {e.json_path}: {e.message[:300]}")
    for p in problems[:20]:
        print(p)
    described = {op["operationId"] for item in doc["paths"].values() for m, op in item.items() if m in ("get", "post", "delete")}
    good = {k[0] for k in seen if k[2] == "200"}
    missing = described - good - {"followJob", "uploadFiles", "livez", "readyz", "metrics", "openapi"}  # the server's
    missing |= {a for a in RESULTS if not any(k[1] == a and k[2] == "200" for k in seen)}
    if missing:
        problems.append("no reply of " + ", ".join(sorted(missing)))
        print(problems[-1])
    print(f"openapi: {sum(seen.values())} replies of {len(seen)} kinds, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
