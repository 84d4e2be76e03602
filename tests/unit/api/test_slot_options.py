"""Options of a slot's loads: which there are is for its engine to say."""

from typing import Any

import httpx
import pytest

from hal0.db import Database
from tests.rows import make_model, options

pytestmark = pytest.mark.anyio

ROUTER = {"name": "router", "kind": "llamacpp", "url": "http://127.0.0.1:8080"}
SLOT = "/api/v1/slots/chat"


@pytest.fixture
async def router(api: httpx.AsyncClient, db: Database) -> None:
    (await api.post("/api/v1/engines", json=ROUTER)).raise_for_status()
    make_model(db, "tiny")


async def make_slot(api: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await api.post("/api/v1/slots", json={"name": "chat", "model": "tiny", **body})


@pytest.mark.usefixtures("router")
async def test_a_slot_of_a_router_has_none(api: httpx.AsyncClient) -> None:
    assert (await make_slot(api, engine="router", options={})).json()["options"] == {}
    assert (await api.post(f"{SLOT}/load", json={"options": {}})).status_code == 202
    assert (await api.get(SLOT)).json()["options"] == {}


@pytest.mark.usefixtures("router")
async def test_one_that_is_given_is_refused_with_where_it_belongs(api: httpx.AsyncClient) -> None:
    given = {"options": {"ctx_size": 4096}}
    refused = [await make_slot(api, engine="router", **given)]
    await make_slot(api, engine="router")
    refused.append(await api.patch(SLOT, json=given))
    refused.append(await api.post(f"{SLOT}/load", json=given))
    for answer in refused:
        assert answer.status_code == 422
        assert answer.json()["evidence"]["fields"][0]["field"] == "options"
        assert "--models-preset" in answer.json()["detail"]
    assert (await api.get(SLOT)).json()["options"] == {}


@pytest.mark.usefixtures("router")
async def test_another_engine_brings_its_own_options(api: httpx.AsyncClient) -> None:
    await make_slot(api, options={"ctx_size": 512})
    for engine, expected in (("router", {}), ("default", options())):
        moved = await api.patch(SLOT, json={"engine": engine})
        assert moved.json()["options"] == expected
    moved = await api.patch(SLOT, json={"engine": "default", "options": {"ctx_size": 1024}})
    assert moved.json()["options"] == options({"ctx_size": 1024})
