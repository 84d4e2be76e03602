"""What schemathesis must be told beside the document; it imports this file by its name.

A format that JSON Schema cannot tell has a few values here, and half of all names and ids are made
those of things that there are, else nearly every answer would be "not found".
"""

import json
import os
import re
from pathlib import Path
from typing import Any
from zlib import crc32

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.failures import Failure, ServerError
from schemathesis.openapi.checks import RejectedPositiveData

KNOWN = {
    "slot": ["chat", "code", "empty", "spare"],
    "model": ["tiny", "free-1", "free-2", "free-3"],
    "engine": ["default"],
    "token": ["revoked"],
    "starter": ["smollm2"],
}
JOBS = 12
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
FORMATS = {
    "hal0-source": ["hf://org/repo/model.gguf", "/data/model.gguf", "https://example.org/m.gguf"],
    "hal0-file-name": ["model.gguf"],
    "hal0-http-origin": ["http://127.0.0.1:8000", "https://example.org/"],
    "hal0-path": ["/etc/key"],
    "hal0-filter": ["", "slot:chat", "since:2h until:1h", "actor:local slot:code"],
}
INFERENCE = "POST /v1/"
OF_AN_ENGINE = (502, 503)
"""With what inference is answered where no engine is, and no worker."""
BEYOND_A_SCHEMA = (
    "cursor: ",
    "filter: ",
    "idle_after_s (",
    "options.llamacpp_args: ",
    "a model has one main file or its shards, and at most one mmproj",
    "where a model has several files, each needs its source",
    "the body is no form that can be passed on: ",
)
"""With what a detail begins that refuses what fits the schema: rules about several fields at once,
and texts with a grammar."""

for name, values in FORMATS.items():
    schemathesis.openapi.format(name, st.sampled_from(values))


@schemathesis.hook
def map_path_parameters(
    context: schemathesis.HookContext, path_parameters: dict[str, Any]
) -> dict[str, Any]:
    """Name something that there is, where a good name was made up; the same for the same."""
    return {name: _known(name, value) for name, value in (path_parameters or {}).items()}


def _known(name: str, value: Any) -> Any:
    chosen = crc32(str(value).encode())
    if name in KNOWN and NAME.fullmatch(str(value)) and chosen % 2:
        return KNOWN[name][chosen // 2 % len(KNOWN[name])]
    return value % JOBS if isinstance(value, int) and value > JOBS and chosen % 2 else value


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Name a slot that there is in half of the requests for inference, else all would be 404."""
    label = context.operation.label if context.operation is not None else ""
    if not label.startswith(INFERENCE) or not isinstance(body, dict):
        return body
    name = body.get("model")
    if not isinstance(name, str) or not name:
        return body
    chosen, slots = crc32(name.encode()), KNOWN["slot"]
    return {**body, "model": slots[chosen // 2 % len(slots)]} if chosen % 2 else body


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Failure, case: Any, response: Any
) -> bool:
    """Let pass what no schema could have told of before, and that no engine is there."""
    if isinstance(failure, ServerError) and case.operation.label.startswith(INFERENCE):
        return response.status_code not in OF_AN_ENGINE
    if not isinstance(failure, RejectedPositiveData) or response.status_code != 422:
        return True
    said = response.json()
    is_reused = said["code"] == "request.idempotency_key_reused"
    return not is_reused and not said["detail"].startswith(BEYOND_A_SCHEMA)


@schemathesis.hook
def after_call(context: schemathesis.HookContext, case: Any, response: Any) -> None:
    """Write down what was answered to what: the test looks whether it was good for anything."""
    with Path(os.environ["FUZZ_LOG"]).open("a", encoding="utf-8") as log:
        log.write(json.dumps([case.operation.label, response.status_code]) + "\n")
