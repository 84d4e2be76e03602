"""What stands in front of every route stands in front of inference too."""

import re
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from hal0.access.roles import Role
from hal0.access.tokens import create
from hal0.db import Database
from tests.fronts import behind_front

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
PATHS = [CHAT, "/api/v1/slots"]
BODY = {"name": "chat", "model": "nobody"}
HERE = ("Host", "127.0.0.1:13310")


def _token(db: Database, role: Role) -> str:
    with db.write() as tx:
        return create(tx, f"a-{role}", role, "local")[1]


def _bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([("Host", "evil.example")], "auth.bad_host"),
        ([HERE, ("Host", "evil.example")], "auth.bad_host"),
        ([HERE, HERE], "auth.bad_host"),
        ([HERE, ("Origin", "http://evil.example")], "auth.bad_origin"),
        ([HERE, ("Origin", "http://evil.example"), ("Origin", f"http://{HERE[1]}")],
         "auth.bad_origin"),
        ([HERE, ("Origin", f"http://{HERE[1]}"), ("Origin", f"http://{HERE[1]}")],
         "auth.bad_origin"),
        ([HERE, ("Sec-Fetch-Site", "cross-site")], "auth.bad_origin"),
        ([HERE, ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "same-origin")],
         "auth.bad_origin"),
    ],
)  # fmt: skip
async def test_a_wrong_host_or_origin_is_refused_and_so_is_a_right_one_that_comes_twice(
    api: httpx.AsyncClient, path: str, headers: list[tuple[str, str]], code: str
) -> None:
    refused = await api.post(path, json=BODY, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, code)


@pytest.mark.parametrize("path", PATHS)
async def test_who_is_not_known_is_refused_and_so_is_who_says_it_twice(
    api: httpx.AsyncClient, db: Database, path: str
) -> None:
    good = _bearer(_token(db, Role.WRITER))
    for headers in ([], [_bearer("hal0_x")], [("Authorization", "Basic eDp5")], [good, good]):
        refused = await api.post(path, json=BODY, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "auth.unauthorized"), headers
        assert refused.headers["www-authenticate"] == "Bearer"


async def test_a_role_reaches_what_the_table_says(api: httpx.AsyncClient, db: Database) -> None:
    headers = [_bearer(_token(db, Role.CLIENT))]
    assert (await api.get("/v1/models", headers=headers)).status_code == 200
    for refused in (
        await api.get("/api/v1/slots", headers=headers),
        await api.post("/api/v1/slots", json=BODY, headers=headers),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "auth.forbidden")


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("POST", "/v1/nothing", 404, "not_found_error"),
        ("GET", CHAT, 405, "invalid_request_error"),
        ("HEAD", CHAT, 405, None),
    ],
)
async def test_what_is_no_inference_is_a_problem_that_clients_of_openai_read(
    api: httpx.AsyncClient, method: str, path: str, status: int, kind: str | None
) -> None:
    refused = await api.request(method, path)
    assert refused.status_code == status
    assert refused.headers["content-type"] == "application/problem+json"
    if kind is not None:
        assert refused.json()["error"]["type"] == kind


async def _answering(scope: Scope, _receive: Receive, send: Send) -> None:
    """Stand for the dispatcher: say who asked."""
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    told = f"{scope['state']['actor']} {scope['state']['request_id']}".encode()
    for at, more in ((told, True), (b"", False)):
        await send({"type": "http.response.body", "body": at, "more_body": more})


async def _breaking(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("secret")


async def _asked(db: Database, inference: Any, headers: dict[str, str]) -> httpx.Response:
    transport = httpx.ASGITransport(behind_front([], db, inference))
    async with httpx.AsyncClient(transport=transport, base_url="http://h") as client:
        return await client.post(CHAT, headers=headers)


@pytest.mark.parametrize("inference", [_answering, _breaking])
async def test_an_id_is_kept_in_an_answer_and_in_a_problem(db: Database, inference: Any) -> None:
    answer = await _asked(db, inference, {"X-Request-ID": "find-me"})
    assert answer.headers.get_list("x-request-id") == ["find-me"]
    if inference is _answering:
        assert answer.text == "local find-me"
    else:
        assert "secret" not in answer.text


async def test_ids_that_are_made_are_32_digits_and_no_two_are_the_same(db: Database) -> None:
    made = [(await _asked(db, _answering, {})).headers["x-request-id"] for _ in range(50)]
    assert len(set(made)) == 50
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
