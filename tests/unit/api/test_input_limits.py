"""What a request may be made of at all: type, coding, size and number of its parts."""

import base64
import json
import time
from typing import Any

import httpx
import pytest

from hal0.refusals import MAX_TOLD

pytestmark = pytest.mark.anyio
SLOTS = "/api/v1/slots"
BODY = b'{"name": "chat"}'


def cursor(listed: str, key: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps([listed, key]).encode()).decode()


def told(refused: httpx.Response) -> tuple[int, str]:
    return refused.status_code, refused.json()["code"]


@pytest.mark.parametrize("listed", ["slots", "models", "engines", "tokens"])
@pytest.mark.parametrize("key", ["\ud800", "ä", 1, None, ["a"]])
async def test_a_cursor_that_no_list_gave_is_refused(
    api: httpx.AsyncClient, listed: str, key: Any
) -> None:
    """SQLite takes no half of a surrogate pair, and no name holds one."""
    refused = await api.get(f"/api/v1/{listed}", params={"cursor": cursor(listed, key)})
    assert told(refused) == (422, "request.invalid")


@pytest.mark.parametrize("limit", ["1_0", " 5", "5 ", "+5", "٣", "0x5", "5.0", "", "-1", "0"])
async def test_a_limit_is_a_number_in_digits(api: httpx.AsyncClient, limit: str) -> None:
    refused = await api.get(SLOTS, params={"limit": limit})
    assert told(refused) == (422, "request.invalid")
    assert [field["field"] for field in refused.json()["evidence"]["fields"]] == ["limit"]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Content-Type": "text/plain"}, "sent as text/plain; send JSON as application/json"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "x-www-form-urlencoded; send"),
        ({"Content-Type": "application/jsonx"}, "sent as application/jsonx"),
        ({"Content-Type": "application/json, text/plain"}, "sent as application/json, text/plain"),
        ({"Content-Type": "application/json; charset=latin1"}, "sent in latin1; JSON is sent in"),
        ({"Content-Type": 'application/json; a=b; charset="utf-16"'}, "sent in utf-16"),
        ({"Content-Encoding": "gzip"}, "sent as gzip; send it as it is, not compressed"),
        ({"Content-Encoding": "identity, br"}, "sent as identity, br"),
    ],
)
async def test_a_body_that_says_to_be_something_else_is_refused(
    api: httpx.AsyncClient, headers: dict[str, str], words: str
) -> None:
    refused = await api.post(SLOTS, content=BODY, headers=headers)
    assert told(refused) == (415, "request.media_type")
    assert words in refused.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "application/json"},
        {"Content-Type": 'Application/JSON ; Charset="UTF-8"'},
        {"Content-Encoding": "identity"},
    ],
)
async def test_json_is_taken_under_each_of_its_names(
    api: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await api.post(SLOTS, content=BODY, headers=headers)).status_code == 201


@pytest.mark.parametrize("body", [b"", b" \r\n\t"])
async def test_no_body_is_an_empty_object_whatever_it_is_sent_as(
    api: httpx.AsyncClient, body: bytes
) -> None:
    await api.post(SLOTS, json={"name": "chat"})
    headers = {} if body else {"Content-Type": "application/x-www-form-urlencoded"}
    done = await api.post(f"{SLOTS}/chat/unload", content=body, headers=headers)
    assert done.json()["already"]


@pytest.mark.parametrize("body", ["\N{NO-BREAK SPACE}", "\f", "\N{ZERO WIDTH NO-BREAK SPACE}{}"])
async def test_a_space_that_json_does_not_know_is_no_empty_body(
    api: httpx.AsyncClient, body: str
) -> None:
    assert told(await api.post(SLOTS, content=body.encode())) == (400, "request.not_json")


@pytest.mark.parametrize("number", ["7", "7.0", "0.7e1"])
async def test_a_whole_number_may_be_written_with_a_point(
    api: httpx.AsyncClient, number: str
) -> None:
    made = await api.post(SLOTS, content=f'{{"name": "chat", "priority": {number}}}')
    assert (made.status_code, repr(made.json()["priority"])) == (201, "7")


async def test_a_line_of_arguments_without_end_is_refused_before_it_is_read(
    api: httpx.AsyncClient,
) -> None:
    options = {"llamacpp_args": "\\ " * 300_000}
    refused = await api.post(SLOTS, json={"name": "chat", "options": options})
    assert told(refused) == (422, "request.invalid")
    assert "is longer than 2000 characters" in refused.json()["detail"]


async def test_of_a_hundred_thousand_bad_fields_the_first_are_told(
    api: httpx.AsyncClient,
) -> None:
    body = {f"{number:x}": 1 for number in range(99_999)}
    refused = await api.post(SLOTS, content=json.dumps(body, separators=(",", ":")))
    assert told(refused) == (422, "request.invalid")
    assert len(refused.json()["evidence"]["fields"]) == MAX_TOLD
    assert refused.json()["detail"].endswith(f"and {100_000 - MAX_TOLD} more")


async def test_many_parameters_are_counted_once(api: httpx.AsyncClient) -> None:
    began_s = time.process_time()
    refused = await api.get("/api/v1/jobs?" + "a&" * 32_000)
    assert told(refused) == (422, "request.invalid")
    assert refused.json()["detail"] == "a: is given twice"
    assert time.process_time() - began_s < 4  # each with each took 13 s
