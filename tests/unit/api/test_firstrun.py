"""A first run over HTTP: looks at the machine are kept, looks at models change nothing."""

import asyncio
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from hal0.api.app import create_app
from hal0.db import Database
from hal0.settings import Settings
from hal0.tables import models, probes
from tests.fakes.source.hub import Hub
from tests.rows import make_model

pytestmark = pytest.mark.anyio
CONTENT = b"GGUF" + bytes(5000)
TINY = """
[[starter]]
name = "tiny"
about = "tests"
parameters = "1M"
licence = "none"
source = "hf://org/repo/tiny.gguf"
"""


def count(db: Database, table: object) -> int:
    with db.read() as tx:
        return int(tx.execute(select(func.count()).select_from(table)).scalar_one())  # type: ignore[arg-type]


async def test_nobody_has_looked_at_a_new_home(api: httpx.AsyncClient) -> None:
    refused = await api.get("/api/v1/probe")
    assert (refused.status_code, refused.json()["code"]) == (404, "probe.not_found")
    assert "`hal0 setup`" in refused.json()["detail"]


async def test_a_look_at_the_machine_is_kept_and_the_newest_one_is_told(
    api: httpx.AsyncClient, db: Database, settings: Settings
) -> None:
    first = (await api.post("/api/v1/probe")).json()
    second = (await api.post("/api/v1/probe")).json()
    assert second["id"] > first["id"]
    assert (await api.get("/api/v1/probe")).json() == second
    assert count(db, probes) == 2
    assert second["cpu"]["threads"] >= 1
    assert second["memory"]["total_bytes"] > second["memory"]["available_bytes"] > 0
    assert second["disk"]["path"] == str(settings.models)
    assert second["engines"][0]["name"] == "default"


async def test_a_look_that_is_asked_for_twice_with_one_key_is_kept_once(
    api: httpx.AsyncClient, db: Database
) -> None:
    headers = {"Idempotency-Key": "look-1"}
    first = await api.post("/api/v1/probe", headers=headers)
    again = await api.post("/api/v1/probe", headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert count(db, probes) == 1


async def test_no_host_can_be_named_to_be_asked(api: httpx.AsyncClient, db: Database) -> None:
    for body in ({"url": "http://10.0.0.1"}, {"engines": ["http://10.0.0.1"]}):
        assert (await api.post("/api/v1/probe", json=body)).status_code == 422
    assert (await api.post("/api/v1/probe?url=http://10.0.0.1")).status_code == 422
    assert count(db, probes) == 0


async def test_starters_are_told_in_their_order_with_the_default_and_what_is_registered(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db, "qwen2.5-0.5b")
    told = (await api.get("/api/v1/starters")).json()
    assert told["next_cursor"] is None
    names = [one["name"] for one in told["items"]]
    assert names[:2] == ["smollm2-135m", "qwen2.5-0.5b"]
    assert [one["name"] for one in told["items"] if one["registered"]] == ["qwen2.5-0.5b"]
    assert [one["name"] for one in told["items"] if one["default"]] == ["smollm2-135m"]


async def test_a_look_at_the_packaged_model_says_all_that_is_to_be_registered(
    api: httpx.AsyncClient, db: Database
) -> None:
    look = (await api.post("/api/v1/starters/smollm2-135m/look")).json()
    assert count(db, models) == 0
    made = await api.post("/api/v1/models", json=look["model"])
    assert made.status_code == 201
    (file,) = made.json()["files"]
    assert (file["size_bytes"], file["sha256"]) == (98_362_432, look["model"]["sha256"])


async def test_a_look_at_a_hubs_model_pins_its_commit(
    settings: Settings, db: Database, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is missing")
    listed = tmp_path / "starters.toml"
    listed.write_text(TINY)
    with Hub() as hub:
        commit = hub.commit("org/repo", {"tiny.gguf": CONTENT})
        changes = {"hub_endpoint": hub.origin, "starters_file": listed}
        app = create_app(settings.model_copy(update=changes), db)
        async with client_of(app) as api:
            look = (await api.post("/api/v1/starters/tiny/look")).json()
            made = await api.post("/api/v1/models", json=look["model"])
    assert look["commit"] == commit
    assert look["model"]["sha256"] == sha256(CONTENT).hexdigest()
    assert look["fit"]["disk"]["needed_bytes"] == len(CONTENT)
    assert made.json()["files"][0]["source"] == f"hf://org/repo/tiny.gguf@{commit}"


async def test_a_hub_that_cannot_be_reached_is_a_502_and_nothing_is_kept(
    settings: Settings, db: Database, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is missing")
    listed = tmp_path / "starters.toml"
    listed.write_text(TINY)
    changes = {"hub_endpoint": "http://127.0.0.1:9", "starters_file": listed}
    async with client_of(create_app(settings.model_copy(update=changes), db)) as api:
        refused = await api.post("/api/v1/starters/tiny/look")
        (offer,) = (await api.get("/api/v1/starters")).json()["items"]
    assert (refused.status_code, refused.json()["code"]) == (502, "pull.source_unreachable")
    assert offer["name"] == "tiny"


async def test_a_hub_that_says_nothing_holds_up_nobody_but_who_asked_for_it(
    settings: Settings, db: Database, tmp_path: Path
) -> None:
    """However many ask: what all other routes wait in is not theirs."""
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is missing")
    listed = tmp_path / "starters.toml"
    listed.write_text(TINY)
    held: list[asyncio.StreamWriter] = []
    is_asked = asyncio.Event()

    def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        is_asked.set()

    silent = await asyncio.start_server(hold, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    changes = {"hub_endpoint": endpoint, "starters_file": listed}
    async with client_of(create_app(settings.model_copy(update=changes), db)) as api:
        looks = [asyncio.create_task(api.post("/api/v1/starters/tiny/look")) for _ in range(60)]
        async with asyncio.timeout(30):
            await is_asked.wait()
        async with asyncio.timeout(4):
            assert (await api.get("/api/v1/slots")).status_code == 200
        assert not any(look.done() for look in looks), "the hub is silent"
        for look in looks:
            look.cancel()
        silent.close()
        for writer in held:
            writer.close()
        await asyncio.gather(*looks, return_exceptions=True)


async def test_a_bad_list_of_starters_is_said_to_be_one(
    settings: Settings, db: Database, tmp_path: Path
) -> None:
    listed = tmp_path / "starters.toml"
    listed.write_text("[[starter]]\nname = 5\n")
    app = create_app(settings.model_copy(update={"starters_file": listed}), db)
    async with client_of(app) as api:
        for refused in (
            await api.get("/api/v1/starters"),
            await api.post("/api/v1/starters/tiny/look"),
        ):
            assert (refused.status_code, refused.json()["code"]) == (500, "settings.invalid")
            assert f"HAL0_STARTERS_FILE={listed}" in refused.json()["detail"]


@pytest.mark.parametrize("name", ["nothing", "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a" * 5000])
async def test_a_name_that_is_no_starters_is_404(api: httpx.AsyncClient, name: str) -> None:
    refused = await api.post(f"/api/v1/starters/{name}/look")
    assert refused.status_code == 404
    assert "root:" not in refused.text


def client_of(app: object) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:13310", timeout=30)
