"""Two engines of one hal0 at once: the embedded one, and a real router of llama.cpp."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.house import House
from tests.engine_process import EngineProcess
from tests.llama_server import LlamaServer, NoServer
from tests.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.slow

KEY = "k1"


@dataclass
class Both:
    """One hal0, its first engine and its second."""

    house: House
    embedded: EngineProcess
    router: LlamaServer

    def add_slots(self) -> None:
        """`first` on the embedded engine, `second` on the router, each with a model of its own."""
        for seed, (slot, engine) in enumerate((("first", "default"), ("second", "router"))):
            self.house.add_model(f"of-{slot}", seed=seed)
            self.house.add_slot(slot, f"of-{slot}", engine=engine)

    def engine_of(self, slot: str) -> EngineProcess | LlamaServer:
        """Where the model of this slot is."""
        return self.embedded if slot == "first" else self.router


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    key_file = tmp_path / "engine.key"
    key_file.write_text(f"{KEY}\n")
    try:
        with (
            LlamaServer(models, home=tmp_path, key=KEY) as router,
            EngineProcess(models, home=tmp_path) as embedded,
            House(tmp_path, embedded.url) as house,
        ):
            house.start_api()
            house.start_worker()
            second = {"name": "router", "kind": "llamacpp", "url": router.url}
            house.post("/api/v1/engines", second | {"key_file": str(key_file)}, status=201)
            yield Both(house, embedded, router)
    except NoServer as why:
        pytest.skip(str(why))


def chat(engine: EngineProcess | LlamaServer, model: str) -> str:
    """Ask the engine, past hal0."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    answer = httpx.post(
        f"{engine.url}/v1/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=30,
    )
    return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])


def listed_by(router: LlamaServer) -> dict[str, Any]:
    data = httpx.get(f"{router.url}/models").raise_for_status().json()["data"]
    return {model["id"]: model["status"] for model in data}


def test_two_engines_serve_the_slots_of_one_hal0_at_once(both: Both) -> None:
    both.add_slots()
    for slot in ("first", "second"):
        both.house.load(slot)
    for slot in ("first", "second"):
        shown = both.house.wait_until("ready", slot)
        assert shown["model"] == f"of-{slot}"
        assert chat(both.engine_of(slot), f"of-{slot}")
    assert both.house.slot("second")["options"] == {}
    assert list(both.embedded.loaded()) == ["of-first"]
    assert listed_by(both.router)["of-second"]["value"] == "loaded"

    both.house.post("/api/v1/slots/second/unload")
    both.house.wait_until("offline", "second")
    assert listed_by(both.router)["of-second"]["value"] == "unloaded"
    assert both.house.slot("first")["state"] == "ready"
    both.house.wait_settled()
    both.house.check_audit()


def test_a_corrupt_file_reaches_neither_and_costs_no_other_model(both: Both) -> None:
    both.add_slots()
    for slot in ("first", "second"):
        both.house.load(slot)
        both.house.wait_until("ready", slot)
    bad = write_tiny_gguf(both.house.sources / "bad.gguf", broken="truncate")
    digest = hashlib.sha256(bad.read_bytes()).hexdigest()
    for number, engine in enumerate(("default", "router")):
        facts = {"name": f"bad{number}", "source": str(bad), "sha256": digest}
        both.house.post("/api/v1/models", facts, status=201)
        both.house.add_slot(f"victim{number}", f"bad{number}", engine=engine)
        both.house.load(f"victim{number}")
        slot = both.house.wait_until("error", f"victim{number}")
        assert slot["error"]["code"] == "preload.truncated"
    sent = [call["body"]["model_name"] for call in both.embedded.calls("/v1/load")]
    assert sent == ["of-first"]
    assert "bad1" not in both.router.log.read_text()
    for slot in ("first", "second"):
        assert both.house.slot(slot)["state"] == "ready"
        assert chat(both.engine_of(slot), f"of-{slot}")
