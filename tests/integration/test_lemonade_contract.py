"""The wire that was captured from lemond 11.7, replayed against the fake and the embedded engine.

`tests/fixtures/lemonade_wire` holds the exchanges, numbered in the order in which they were made.
A story sends them again in order; each answer must have the captured status, shape (keys and
types) and telling values. What the embedded engine does otherwise, on purpose, is in `DIFFERENT`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from tests.engine_process import EngineProcess
from tests.fakes.lemond import Lemond
from tests.tiny_gguf import write_tiny_gguf

WIRE = Path(__file__).parents[1] / "fixtures" / "lemonade_wire"
CAPTURES = {path.name[:3]: json.loads(path.read_text()) for path in sorted(WIRE.glob("*.json"))}

Kind = Literal["fake", "embedded"]

STORIES = {
    "nothing loaded": ["001", "002", "003", "006", "008", "010", "018", "019"],
    "loads that cannot be meant": ["021", "022", "023", "024", "025", "026", "027"],
    "chats that cannot be meant": ["028", "029"],
    "load, again, reload, chat, unload": [
        *("035", "039", "040", "041", "043", "048", "051", "127", "128", "129")
    ],
    "a chat to a model that is not loaded": ["130"],
    "unload without a name": ["load ga", "017", "health none", "load ga", "020", "health none"],
    "a file that is no GGUF": ["load ga", "pin gb", "217", "218"],
    "a truncated file": ["load ga", "pin gb", "223", "224"],
    "a good magic before nonsense": ["load ga", "pin gb", "229", "230"],
    "a chat to a truncated file": ["load ga", "310", "311", "312"],
    "a reserved argument": ["load ga", "315", "health none"],
    "a backend that is not there": ["load ga", "317", "health none"],
    "an option of a wrong type": ["319"],
    "room for one": [
        "max 1",
        "load ga",
        "load gb",
        "407",
        "408",
        "409",
        "410",
        "411",
        "412",
        "413",
    ],
}

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

NEVER_EVICTS = {"224", "230", "311", "health none"}
"""Where lemond lists nothing any more, the embedded engine still lists what was loaded."""

EMBEDDED_ALONE = {"pid"}
LEMOND_ALONE = {"websocket_port", "max_context_window"}
"""Fields of health and of models; the latter are absent from some of lemond's own entries too."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wire") / "models"
    for seed, name in enumerate(("ga", "gb", "gc", "gemma")):
        write_tiny_gguf(folder / f"{name}.gguf", seed=seed)
    write_tiny_gguf(folder / "garbage.gguf", broken="magic")
    write_tiny_gguf(folder / "truncated.gguf", broken="truncate")
    (folder / "badmagicok.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 64)
    return folder


@pytest.fixture(scope="module", params=["fake", "embedded"])
def server(
    request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Kind, httpx.Client]]:
    if request.param == "fake":
        with Lemond(models) as lemond, httpx.Client(base_url=lemond.url, timeout=60) as client:
            yield "fake", client
    else:
        home = tmp_path_factory.mktemp("engine")
        with EngineProcess(models, home=home) as engine, engine.client() as client:
            yield "embedded", client


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


def shape(value: object) -> object:
    """Return keys and types; a list is as its longest item."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [shape(max(value, key=lambda item: len(str(item))))] if value else []
    return "number" if type(value) in (int, float) else type(value).__name__


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


def without_own_fields(kind: Kind, value: object) -> object:
    """Leave out what only one of them has, and what hangs on the model or the machine."""
    dropped = {"launch_command", "labels", "size", "timings", "id"}
    dropped |= LEMOND_ALONE | EMBEDDED_ALONE if kind == "embedded" else set()
    if isinstance(value, dict):
        return {k: without_own_fields(kind, v) for k, v in value.items() if k not in dropped}
    if isinstance(value, list):
        return [without_own_fields(kind, item) for item in value]
    return value


def check(kind: Kind, number: str, answer: httpx.Response) -> None:
    """Hold an answer against its capture, or against the table of differences."""
    captured = CAPTURES[number]["response"]
    if kind == "embedded" and number in DIFFERENT:
        status, said, why = DIFFERENT[number]
        assert answer.status_code == status, why
        error = answer.json()["error"]
        assert (error["code"] if isinstance(error, dict) else error).startswith(said), why
        return
    assert answer.status_code == captured["status"], answer.text
    if kind == "embedded" and number in NEVER_EVICTS:
        assert answer.json()["all_models_loaded"]
        return
    expected, found = captured["body"], answer.json()
    assert telling(found) == telling(expected)
    assert shape(without_own_fields(kind, found)) == shape(without_own_fields(kind, expected))


def step(kind: Kind, client: httpx.Client, what: str) -> None:
    verb, _, name = what.partition(" ")
    if verb in {"load", "pin"}:
        body = {"model_name": name} | ({"pinned": True} if verb == "pin" else {})
        assert client.post("/v1/load", json=body).status_code == 200
    elif verb == "max":
        client.post("/internal/set", json={"max_loaded_models": int(name)}).raise_for_status()
    elif verb == "health":
        listed = client.get("/v1/health").json()["all_models_loaded"]
        assert bool(listed) == (kind == "embedded" and what in NEVER_EVICTS)
    else:
        check(kind, what, send(client, CAPTURES[what]))


def start_afresh(kind: Kind, client: httpx.Client) -> None:
    if kind == "fake":
        client.post("/internal/set", json={"max_loaded_models": -1}).raise_for_status()
    for entry in client.get("/v1/health").json()["all_models_loaded"]:
        answer = client.post("/v1/unload", json={"model_name": entry["model_name"]})
        answer.raise_for_status()


@pytest.mark.parametrize("story", STORIES)
def test_answers_are_those_of_lemond(server: tuple[Kind, httpx.Client], story: str) -> None:
    kind, client = server
    if kind == "embedded" and story == "room for one":
        pytest.skip("the embedded engine has no limit of loaded models and no /internal")
    start_afresh(kind, client)
    for what in STORIES[story]:
        step(kind, client, what)


@pytest.mark.parametrize("kind", ["fake", "embedded"])
def test_without_the_key_only_live_answers(kind: Kind, models: Path, tmp_path: Path) -> None:
    running = (
        Lemond(models, key="k1")
        if kind == "fake"
        else EngineProcess(models, home=tmp_path, key="k1")
    )
    with running, httpx.Client(base_url=running.url, timeout=30) as client:
        for number in ("501", "502", "503", "504", "509"):
            check(kind, number, send(client, CAPTURES[number]))


def test_every_capture_is_replayed() -> None:
    told = {what for story in STORIES.values() for what in story if what.isdigit()}
    assert told | {"501", "502", "503", "504", "509"} == set(CAPTURES)
    assert set(DIFFERENT) <= told
