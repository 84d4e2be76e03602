"""The embedded engine answers as lemond does, where it has the same calls.

What it does otherwise, on purpose, is in `DIFFERENT`; what it leaves out of Lemonade's API has no
capture here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine_process import EngineProcess
from tests.integration.lemonade_contract.wire import CAPTURES, shape
from tests.tiny_gguf import write_tiny_gguf

STORIES = {
    "nothing loaded": ["001", "002", "003", "006", "008", "010", "018", "019"],
    "loads that cannot be meant": ["021", "022", "023", "024", "025", "026", "027"],
    "chats that cannot be meant": ["028", "029"],
    "load, again, reload, chat, unload": [
        *("035", "039", "040", "041", "043", "048", "051", "127", "128", "129")
    ],
    "a chat to a model that is not loaded": ["130"],
    "unload without a name": ["load ga", "017", "still loaded", "load ga", "020", "still loaded"],
    "a file that is no GGUF": ["load ga", "pin gb", "217", "218"],
    "a truncated file": ["load ga", "pin gb", "223", "224"],
    "a good magic before nonsense": ["load ga", "pin gb", "229", "230"],
    "a chat to a truncated file": ["load ga", "310", "311", "312"],
    "a reserved argument": ["load ga", "315", "still loaded"],
    "a backend that is not there": ["load ga", "317", "still loaded"],
    "an option of a wrong type": ["319"],
}
WITH_A_KEY = ["501", "502", "503", "504", "509"]

DIFFERENT: dict[str, tuple[int, str, str]] = {
    "017": (400, "Request body is required", "an unload without a name is refused"),
    "020": (400, "Invalid JSON", "an unload without a name is refused"),
    "028": (400, "No model specified", "no model is guessed"),
    "130": (404, "model_not_loaded", "a chat loads nothing"),
    "217": (500, "model_load_error", "the reason is llama.cpp's: nothing is downloaded"),
    "223": (500, "model_load_error", "the reason is llama.cpp's"),
    "229": (500, "model_load_error", "the reason is llama.cpp's"),
    "310": (404, "model_not_loaded", "a chat loads nothing"),
    "312": (404, "model_not_loaded", "a chat loads nothing"),
    "315": (500, "model_load_error", "the parser says it in other words"),
    "319": (400, "invalid_request", "a wrong type is refused, not ignored"),
}
"""Capture -> the embedded engine's status, its error code or the start of its error, and why."""

NEVER_EVICTS = {"224", "230", "311"}
"""Where lemond lists nothing any more, the embedded engine still lists what was loaded."""

NOT_COMPARED = {
    *("pid", "websocket_port", "max_context_window"),
    *("launch_command", "labels", "size", "timings", "id"),
}
"""What only one of them has, and what hangs on the model or the machine."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wire") / "models"
    for seed, name in enumerate(("ga", "gb", "gc", "gemma")):
        write_tiny_gguf(folder / f"{name}.gguf", seed=seed)
    write_tiny_gguf(folder / "garbage.gguf", broken="magic")
    write_tiny_gguf(folder / "truncated.gguf", broken="truncate")
    (folder / "badmagicok.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 64)
    return folder


@pytest.fixture(scope="module")
def engine(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("engine")
    with EngineProcess(models, home=home) as process, process.client() as client:
        yield client


def send(client: httpx.Client, capture: dict[str, Any]) -> httpx.Response:
    """Send a captured request; what was `user.gemma` there is a file of the folder here."""
    asked = capture["request"]
    body = asked.get("json")
    content = asked.get("raw")
    if body is not None:
        content = json.dumps(body).replace("user.gemma", "extra.gemma")
    headers = {"Content-Type": "application/json", **(asked.get("headers") or {})}
    return client.request(asked["method"], _ours(asked["path"]), content=content, headers=headers)


def _ours(text: str) -> str:
    return text.replace("user.gemma", "extra.gemma")


def telling(body: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a client acts upon."""
    told = {key: body.get(key) for key in ("status", "model_name", "recipe", "id", "object")}
    error = body.get("error")
    if isinstance(error, dict):
        told |= {key: error.get(key) for key in ("type", "code", "requested_model", "path")}
    elif error is not None:
        told["error"] = error.partition("Invalid JSON")[0] or "Invalid JSON"
    listed = body.get("all_models_loaded", [])
    told["loaded"] = sorted((m["model_name"], m["is_busy"], m["recipe"]) for m in listed)
    if str(told["id"]).startswith("chatcmpl-"):
        told["id"] = "some chat"
    ours: dict[str, Any] = json.loads(_ours(json.dumps(told)))
    return ours


def compared(value: object) -> object:
    """Leave out what is not compared."""
    if isinstance(value, dict):
        return {key: compared(item) for key, item in value.items() if key not in NOT_COMPARED}
    if isinstance(value, list):
        return [compared(item) for item in value]
    return value


def check(number: str, answer: httpx.Response) -> None:
    """Hold an answer against its capture, or against the table of differences."""
    captured = CAPTURES[number]["response"]
    if number in DIFFERENT:
        status, said, why = DIFFERENT[number]
        assert answer.status_code == status, why
        error = answer.json()["error"]
        assert (error["code"] if isinstance(error, dict) else error).startswith(said), why
        return
    assert answer.status_code == captured["status"], answer.text
    if number in NEVER_EVICTS:
        assert answer.json()["all_models_loaded"]
        return
    expected, found = captured["body"], answer.json()
    assert telling(found) == telling(expected)
    assert shape(compared(found)) == shape(compared(expected))


def step(client: httpx.Client, what: str) -> None:
    verb, _, name = what.partition(" ")
    if verb in {"load", "pin"}:
        body = {"model_name": name} | ({"pinned": True} if verb == "pin" else {})
        assert client.post("/v1/load", json=body).status_code == 200
    elif verb == "still":
        assert client.get("/v1/health").json()["all_models_loaded"]
    else:
        check(what, send(client, CAPTURES[what]))


@pytest.mark.parametrize("story", STORIES)
def test_the_embedded_engine_answers_as_lemond(engine: httpx.Client, story: str) -> None:
    for entry in engine.get("/v1/health").json()["all_models_loaded"]:
        answer = engine.post("/v1/unload", json={"model_name": entry["model_name"]})
        answer.raise_for_status()
    for what in STORIES[story]:
        step(engine, what)


def test_without_the_key_only_live_answers(models: Path, tmp_path: Path) -> None:
    with (
        EngineProcess(models, home=tmp_path, key="k1") as engine,
        httpx.Client(base_url=engine.url, timeout=30) as client,
    ):
        for number in WITH_A_KEY:
            check(number, send(client, CAPTURES[number]))


def test_no_difference_is_claimed_that_is_not_shown() -> None:
    told = {what for story in STORIES.values() for what in story}
    assert set(DIFFERENT) | NEVER_EVICTS <= told
