"""Which engines are found: the registered ones, and those that listen where engines usually do."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hal0.db import Database
from hal0.firstrun.finding import WELL_KNOWN, find_engines
from hal0.hosts import http_origin
from hal0.registry.roster import EngineRow, all_engines
from tests.fakes.router import Router
from tests.fakes.source import Manner, Source

pytestmark = pytest.mark.anyio

LEMONADE = {"status": "ok", "version": "11.7.0", "all_models_loaded": []}
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def registered(db: Database) -> EngineRow:
    with db.read() as tx:
        (row,) = all_engines(tx)
    return replace(row, url=NOBODY)


def serve(source: Source, path: str, answer: object) -> None:
    source.put(path, json.dumps(answer).encode())


async def test_a_lemonade_server_that_nobody_registered_is_found(registered: EngineRow) -> None:
    with Source() as source:
        serve(source, "v1/health", LEMONADE)
        ours, found = await find_engines([registered], [("lemonade", source.origin)])
    assert found == {
        "name": None,
        "kind": "lemonade",
        "url": source.origin,
        "answers": True,
        "version": "11.7.0",
        "problem": None,
    }
    assert (ours["name"], ours["answers"]) == ("default", False)
    assert "no engine accepts connections" in str(ours["problem"])


async def test_a_router_of_llama_cpp_is_found(tmp_path: Path) -> None:
    with Router(tmp_path) as router:
        (found,) = await find_engines([], [("llamacpp", router.url)])
    assert (found["kind"], found["answers"], found["problem"]) == ("llamacpp", True, None)


async def test_a_llama_server_with_a_model_of_its_own_is_told_and_why_it_is_of_no_use() -> None:
    with Source() as source:
        serve(source, "props", {"default_generation_settings": {}, "model_path": "/m.gguf"})
        (found,) = await find_engines([], [("llamacpp", source.origin)])
    assert not found["answers"]
    assert "is no router: start it without a model" in str(found["problem"])


async def test_an_engine_that_wants_a_key_is_told() -> None:
    with Source() as source:
        serve(source, "v1/health", LEMONADE)
        source.script("v1/health", Manner(status=401))
        (found,) = await find_engines([], [("lemonade", source.origin)])
    assert not found["answers"]
    assert "refuses the key" in str(found["problem"])


@pytest.mark.parametrize("answer", [{"status": "ok"}, [], "hello", {"version": 5}, None])
async def test_other_programs_at_those_ports_are_no_engines(answer: object) -> None:
    with Source() as source:
        serve(source, "v1/health", answer)
        known = [("lemonade", source.origin), ("llamacpp", source.origin), ("llamacpp", NOBODY)]
        assert await find_engines([], known) == []


async def test_what_is_registered_is_told_once_whether_it_answers(registered: EngineRow) -> None:
    with Source() as source:
        serve(source, "v1/health", LEMONADE)
        row = replace(registered, url=source.origin.replace("127.0.0.1", "localhost"))
        (found,) = await find_engines([row], [("lemonade", source.origin)])
    assert (found["name"], found["answers"], found["version"]) == ("default", True, "11.7.0")


async def test_those_that_hang_are_waited_for_together_and_not_for_long(
    registered: EngineRow,
) -> None:
    with Source() as source:
        serve(source, "v1/health", LEMONADE)
        source.script("v1/health", Manner(stall_before_headers=True))
        rows = [replace(registered, url=source.origin, name=f"e{n}") for n in range(20)]
        began = time.monotonic()
        found = await find_engines(rows, [])
        took_s = time.monotonic() - began
    assert {one["problem"] for one in found} == {f"{source.origin} did not answer within 1 s"}
    assert took_s < 10  # one after the other it would be 20


async def test_a_key_file_that_cannot_be_read_is_told(registered: EngineRow) -> None:
    (found,) = await find_engines([replace(registered, key_file="/nowhere/key")], [])
    assert "/nowhere/key cannot be read" in str(found["problem"])


def test_only_this_machine_is_asked_by_itself() -> None:
    for _, url in WELL_KNOWN:
        assert http_origin(url).startswith("http://127.0.0.1:")
