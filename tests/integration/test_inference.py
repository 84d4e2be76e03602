"""Inference through hal0 as its users have it: real processes, the official client of OpenAI."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.acceptance.house import House
from tests.documented import document_of_text
from tests.engine_process import EngineProcess
from tests.fakes.lemond import Lemond

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("inference"),
]

MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def lemond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lemond]:
    folder = tmp_path_factory.mktemp("inference")
    models = folder / "home" / "models"
    models.mkdir(parents=True)
    with Lemond(models, call_log=folder / "calls.ndjson", key="engine-key") as fake:
        yield fake


@pytest.fixture(scope="module")
def house(lemond: Lemond) -> Iterator[House]:
    """A slot that is ready at an engine that wants a key, and two tokens."""
    folder = lemond.models.parents[1]
    (folder / "engine.key").write_text("engine-key\n")
    env = {"HAL0_ENGINE_KEY_FILE": str(folder / "engine.key")}
    with House(folder, lemond.url, **env) as house:
        house.start_api()
        house.start_worker()
        house.add_model()
        house.add_slot()
        house.add_slot("empty", model=None)
        house.load()
        house.wait_until("ready")
        house.wait_settled()
        me = house.post("/api/v1/tokens", {"name": "me", "role": "writer"}, status=201)
        house.client.headers["Authorization"] = f"Bearer {me['token']}"
        app = house.post("/api/v1/tokens", {"name": "app", "role": "client"}, status=201)
        house.env["TOKEN_OF_APP"] = app["token"]
        yield house


@pytest.fixture
def client(house: House) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{house.url}/v1", api_key=house.env["TOKEN_OF_APP"], max_retries=0
    ) as client:
        yield client


def ask(client: openai.OpenAI, model: str = "chat") -> str | None:
    whole = client.chat.completions.create(model=model, messages=MESSAGES)
    return whole.choices[0].message.content


def test_openai_s_client_gets_an_answer(client: openai.OpenAI) -> None:
    assert ask(client) == "word0 word1 word2 word3 "
    assert ask(client, "tiny") == "word0 word1 word2 word3 "


def test_openai_s_client_gets_a_stream(client: openai.OpenAI) -> None:
    pieces = client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
    said = [piece.choices[0].delta.content for piece in pieces]
    assert "".join(filter(None, said)) == "word0 word1 word2 word3 "


def test_what_is_answered_is_as_the_openapi_document_tells(house: House) -> None:
    document = document_of_text(house.client.get("/api/v1/openapi.json").text)
    asked = {"model": "chat", "messages": MESSAGES}
    requests = [
        ("chat/completions", asked, 200),
        ("chat/completions", {**asked, "stream": True}, 200),
        ("chat/completions", {"model": "empty"}, 409),
        ("chat/completions", {}, 422),
        ("embeddings", {"model": "chat", "input": "a"}, 501),  # which is the engine's own word
    ]
    for path, body, status in requests:
        answer = house.client.post(f"/v1/{path}", json=body)
        assert answer.status_code == status
        document.check(answer)


def test_openai_s_asynchronous_client_gets_both(house: House) -> None:
    async def both() -> tuple[str | None, str]:
        async with openai.AsyncOpenAI(
            base_url=f"{house.url}/v1", api_key=house.env["TOKEN_OF_APP"], max_retries=0
        ) as client:
            whole, pieces = await asyncio.gather(
                client.chat.completions.create(model="chat", messages=MESSAGES),
                client.chat.completions.create(model="chat", messages=MESSAGES, stream=True),
            )
            said = [piece.choices[0].delta.content or "" async for piece in pieces]
            return whole.choices[0].message.content, "".join(said)

    assert asyncio.run(both()) == ("word0 word1 word2 word3 ",) * 2


def test_openai_s_client_lists_the_slots_with_their_state(
    client: openai.OpenAI, house: House
) -> None:
    house.wait_until("ready")
    listed = {model.id: model.to_dict() for model in client.models.list()}
    told = {name: (one["state"], one["model"]) for name, one in listed.items()}
    assert (told["chat"], told["empty"]) == (("ready", "tiny"), ("offline", None))
    assert client.models.retrieve("chat").to_dict() == listed["chat"]
    assert client.models.retrieve("tiny").id == "chat"


def test_openai_s_client_understands_what_is_wrong(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no slot is called 'gpt-5'") as caught:
        ask(client, "gpt-5")
    assert (caught.value.code, caught.value.param) == ("model.not_found", "model")
    with pytest.raises(openai.ConflictError):
        ask(client, "empty")
    with pytest.raises(openai.APIStatusError) as refused:
        client.embeddings.create(model="chat", input="x")
    assert refused.value.status_code == 501
    with pytest.raises(openai.AuthenticationError):
        ask(client.with_options(api_key="another"))


def test_a_client_may_ask_and_nothing_else(house: House) -> None:
    asking = {"Authorization": f"Bearer {house.env['TOKEN_OF_APP']}"}
    body = {"model": "chat", "messages": MESSAGES}
    with httpx.Client(base_url=house.url, headers=asking, timeout=30) as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert client.get("/v1/models").status_code == 200
        assert client.get("/api/v1/slots").status_code == 403
        assert client.post("/api/v1/slots/chat/unload").status_code == 403
    strangers = {"Authorization": "Bearer x"}
    for headers in ({}, strangers, asking | {"Origin": "http://evil.example"}):
        refused = httpx.post(f"{house.url}/v1/chat/completions", json=body, headers=headers)
        assert refused.status_code in (401, 403)
        assert refused.json()["error"]["code"] == refused.json()["code"]


def test_another_method_is_told_the_one_that_is_possible(house: House) -> None:
    refused = house.client.get("/v1/chat/completions")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


def test_a_request_has_its_id_in_answer_and_rows(house: House) -> None:
    house.wait_until("ready")
    body = {"model": "chat", "messages": MESSAGES}
    answer = house.client.post(
        "/v1/chat/completions", json=body, headers={"X-Request-ID": "mine-1"}
    )
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "mine-1")
    rows = house.sql("SELECT from_state, to_state FROM transitions WHERE request_id = 'mine-1'")
    assert ("ready", "serving") in rows
    assert house.client.post("/v1/chat/completions", json=body).headers["x-request-id"]


def test_a_request_loads_its_slot_and_is_answered(
    client: openai.OpenAI, house: House, lemond: Lemond
) -> None:
    house.add_model("other", seed=7)
    house.add_slot("spare", model="other")
    before = len(lemond.calls("/v1/load"))
    assert ask(client, "spare") == "word0 word1 word2 word3 "
    assert len(lemond.calls("/v1/load")) == before + 1
    house.wait_until("ready", "spare")


def test_a_model_that_the_engine_has_no_longer_is_noticed_by_the_answer_and_loaded_again(
    tmp_path: Path,
) -> None:
    """The embedded engine, with a real model, which hal0 looks at once a minute."""
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    with (
        EngineProcess(models, home=tmp_path, has_one_cpu=True) as engine,
        House(tmp_path, engine.url, HAL0_ENGINE_KIND="embedded", HAL0_SCAN_S="60") as house,
    ):
        house.start_api()
        house.start_worker()
        house.add_model()
        house.add_slot()
        house.load()
        house.wait_until("ready")
        house.wait_settled()
        with openai.OpenAI(base_url=f"{house.url}/v1", api_key="none", max_retries=0) as client:
            assert ask(client)
            stream = client.chat.completions.create(
                model="chat",
                messages=MESSAGES,
                stream=True,
                max_tokens=8,
            )
            assert [piece.choices[0].finish_reason for piece in stream][-1]
            with engine.client() as direct:
                direct.post("/v1/unload", json={"model_name": "tiny"}).raise_for_status()
            slot = house.slot()
            assert slot["state"] in ("ready", "serving"), "nobody has looked yet"
            assert ask(client), "one look, one wake, and the request is sent again"
            assert len(engine.calls("/v1/load")) == 2
            causes = [row["cause"] for row in house.get("/api/v1/transitions")["items"]]
            lost = causes.index("unloaded_elsewhere")
            assert causes[lost:][:5] == [
                *("unloaded_elsewhere", "checked", "load_sent", "loaded", "request_started"),
            ]
