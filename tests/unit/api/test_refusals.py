"""In which words bodies and queries are refused: of the field, what it takes, what was given."""

import json
from typing import Any

import httpx
import pytest

from hal0.db import Database
from hal0.refusals import MAX_TOLD
from tests.rows import contents, make_model, make_slot

pytestmark = pytest.mark.anyio
SLOT = (
    "engine, model, options, pinned, priority, idle_after_s, unload_after_s, load_timeout_s, "
    "load_timeout_s_per_gb, wake, max_in_flight, max_waiting"
)
OPTIONS = "ctx_size, llamacpp_backend, llamacpp_args"
BODIES: list[tuple[str, Any, str]] = [
    ("slots", {}, "name: must be given"),
    ("slots", {"name": "a", "colour": 1}, f"colour: is unknown; known are {SLOT}, name"),
    ("slots", {"name": None}, "name: takes a text, not null"),
    ("slots", {"name": 5}, "name: takes a text, not 5"),
    ("slots", {"name": ["a"]}, "name: takes a text, not a list"),
    ("slots", {"name": "a", "priority": "1"}, "priority: takes a whole number, not '1'"),
    ("slots", {"name": "a", "priority": 1.5}, "priority: takes a whole number, not 1.5"),
    ("slots", {"name": "a", "priority": True}, "priority: takes a whole number, not true"),
    ("slots", {"name": "a", "priority": 1001}, "priority: takes 1000 or less, not 1001"),
    ("slots", {"name": "a", "priority": -1001}, "priority: takes -1000 or more, not -1001"),
    ("slots", {"name": "a", "pinned": 1}, "pinned: takes true or false, not 1"),
    ("slots", {"name": "a", "pinned": "yes"}, "pinned: takes true or false, not 'yes'"),
    ("slots", {"name": "a", "idle_after_s": "1"}, "idle_after_s: takes a number, not '1'"),
    ("slots", {"name": "a", "idle_after_s": -0.5}, "idle_after_s: takes 0 or more, not -0.5"),
    ("slots", {"name": "a", "idle_after_s": 1e9}, "idle_after_s: takes 31622400 or less"),
    ("slots", {"name": "a", "load_timeout_s": 0}, "load_timeout_s: takes more than 0, not 0"),
    ("slots", {"name": "a", "options": 5}, "options: takes an object, not 5"),
    (
        "slots",
        {"name": "a", "options": {"gpu": 1}},
        f"options.gpu: is unknown; known are {OPTIONS}",
    ),
    ("slots", {"name": "a", "options": {"ctx_size": 1}}, "options.ctx_size: takes 256 or more"),
    (
        "slots",
        {"name": "a", "options": {"llamacpp_backend": "x"}},
        "options.llamacpp_backend: takes 'auto', 'cpu', 'vulkan', 'rocm', 'cuda', 'metal' or ",
    ),
    (
        "slots",
        {"name": "a", "options": {"llamacpp_args": "--rpc x"}},
        "options.llamacpp_args: '--rpc' is not an argument that hal0 passes on; --threads, ",
    ),
    ("slots/chat/load", {"options": {"gpu": 1}}, f"options.gpu: is unknown; known are {OPTIONS}"),
    ("jobs/1/cancel", {"why": "x"}, "why: is unknown; none is taken"),
    ("jobs/retry", {"dry_run": "yes"}, "dry_run: takes true or false, not 'yes'"),
    ("jobs/retry", {"filter": {"kind": "push"}}, "filter.kind: takes 'pull', 'validate', "),
    ("jobs/retry", {"filter": {"code": "x" * 101}}, "filter.code: takes 100 characters at most"),
    ("jobs/retry", {"filter": {"age": 1}}, "filter.age: is unknown; known are text, slot, state, "),
    ("models", {"name": "m", "files": {}}, "files: takes a list, not an object"),
    ("models", {"name": "m", "files": [5]}, "files.0: takes an object, not 5"),
    ("models", {"name": "m", "files": [{}] * 1001}, "files: takes 1000 entries at most, not 1001"),
    (
        "models",
        {"name": "m", "files": [{}, {"y": 1}]},
        "files.1.y: is unknown; known are role, source, name, size_bytes, sha256",
    ),
    (
        "models",
        {"name": "m", "source": "/a", "sha256": "ab"},
        "sha256: takes 64 hex digits",
    ),
    ("models", {"name": "m"}, "give either files or source"),
    (
        "engines",
        {"name": "e", "kind": "lemonade", "url": "http://h:99999"},
        "url: is no URL: invalid port number",
    ),
]
QUERIES = [
    ("jobs?limit=0", "limit: takes 1 or more, not '0'"),
    ("jobs?limit=-1", "limit: takes 1 or more, not '-1'"),
    ("jobs?limit=1001", "limit: takes 1000 or less, not '1001'"),
    ("jobs?limit=" + "9" * 40, "limit: takes 1000 or less, not '999"),
    ("jobs?limit=" + "9" * 5000, "limit: takes a whole number of fewer digits"),
    ("jobs?limit=ten", "limit: takes a whole number, not 'ten'"),
    ("jobs?limit=", "limit: takes a whole number, not ''"),
    ("jobs?limit=1&limit=2", "limit: is given twice"),
    ("jobs?color=1", "color: is unknown; known are limit, cursor, filter, slot, state, kind"),
    ("jobs?state=done", "state: takes 'queued', 'running', 'succeeded', 'failed' or 'cancelled'"),
    ("jobs?cursor=" + "A" * 501, "cursor: takes 500 characters at most"),
    (
        "transitions?since=-5",
        "since: takes an RFC 3339 time such as 2026-01-31T12:00:00Z, or an id",
    ),
]


@pytest.fixture
def furnished(db: Database) -> Database:
    make_model(db)
    make_slot(db, "chat", "tiny")
    return db


@pytest.mark.parametrize(
    ("path", "body", "words"), BODIES, ids=lambda value: json.dumps(value)[:60]
)
async def test_a_bad_field_is_told_as_an_operator_would(
    api: httpx.AsyncClient, furnished: Database, path: str, body: Any, words: str
) -> None:
    before = contents(furnished.path)
    refused = await api.post(f"/api/v1/{path}", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    assert refused.json()["detail"].startswith(words), refused.json()["detail"]
    assert "Input should" not in refused.text
    assert contents(furnished.path) == before


@pytest.mark.parametrize(("query", "words"), QUERIES, ids=lambda value: value[:40])
async def test_a_bad_parameter_is_told_as_an_operator_would(
    api: httpx.AsyncClient, db: Database, query: str, words: str
) -> None:
    refused = await api.get(f"/api/v1/{query}")
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    assert refused.json()["detail"].startswith(words), refused.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "slots?name=x"),
        ("POST", "slots/chat/load?model=other"),
        ("PATCH", "slots/chat?pinned=true"),
        ("DELETE", "models/tiny?force=true"),
        ("DELETE", "slots/chat?cascade=true"),
    ],
)
async def test_a_parameter_that_would_be_passed_over_is_refused(
    api: httpx.AsyncClient, furnished: Database, method: str, path: str
) -> None:
    before = contents(furnished.path)
    refused = await api.request(method, f"/api/v1/{path}")
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    name = path.partition("?")[2].partition("=")[0]
    assert refused.json()["detail"].startswith(f"{name}: is unknown; ")
    assert contents(furnished.path) == before


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"name": "a", "name": "b"}', ["name"]),
        ('{"name": "a", "options": {"ctx_size": 512, "ctx_size": 1024}}', ["ctx_size"]),
        ('{"x": 1, "y": 2, "y": 3, "x": 4}', ["x", "y"]),
    ],
)
async def test_of_a_field_that_is_given_twice_neither_value_is_taken(
    api: httpx.AsyncClient, db: Database, text: str, names: list[str]
) -> None:
    refused = await api.post("/api/v1/slots", content=text)
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    assert refused.json()["detail"] == "; ".join(f"{name}: is given twice" for name in names)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "the body is not JSON: Expecting property name"),
        (b"name=chat", "the body is not JSON: Expecting value"),
        (b"\xef\xbb\xbf{}", "the body is not JSON: Unexpected UTF-8 BOM"),
        (b"{} \xff", "the body is not JSON: byte 3 is no UTF-8; send one JSON object in UTF-8"),
        (b"[" * 100_000, "the body is not JSON: it is nested too deeply; send one JSON object"),
        (b'{"a":' * 100_000, "the body is not JSON: it is nested too deeply"),
        (b'{"priority": ' + b"9" * 5000 + b"}", "the body is not JSON: a number has 5000 digits"),
        (b'{"priority": NaN}', "the body is not JSON: NaN is no JSON value"),
        (b'{"name": "\\ud800"}', "the body is not JSON: it has half a surrogate pair"),
        (b"[]", 'the body is a JSON list; send an object, as in {"name": "x"}'),
        (b'"chat"', "the body is a JSON text; send an object"),
        (b"7", "the body is a JSON number; send an object"),
        (b"null", "the body is a JSON null; send an object"),
    ],
    ids=lambda value: str(value[:20]),
)
async def test_what_is_no_json_object_is_told_in_words(
    api: httpx.AsyncClient, db: Database, text: bytes, words: str
) -> None:
    refused = await api.post("/api/v1/slots", content=text)
    assert (refused.status_code, refused.json()["code"]) == (400, "request.not_json")
    assert refused.json()["detail"].startswith(words), refused.json()["detail"]


async def test_a_refusal_stays_short_whatever_was_sent(
    api: httpx.AsyncClient, db: Database
) -> None:
    many = {f"field-{number}": 1 for number in range(1000)}
    refused = (await api.post("/api/v1/slots", json=many)).json()
    assert len(refused["evidence"]["fields"]) == MAX_TOLD
    assert refused["detail"].endswith(f"; and {1001 - MAX_TOLD} more")
    for body in ({"n" * 500_000: 1}, {"name": 1, "pinned": "x" * 500_000}, {"name": "x" * 500_000}):
        refused = (await api.post("/api/v1/slots", json=body)).json()
        assert len(refused["detail"]) < 600
    assert refused["detail"].endswith("use 1 to 32 of a-z, 0-9, _ and -, beginning with a-z or 0-9")


@pytest.mark.parametrize("path", ["jobs/{}", "chains/{}", "jobs/{}/retry", "jobs/{}/cancel"])
async def test_an_id_of_any_length_is_not_found(
    api: httpx.AsyncClient, db: Database, path: str
) -> None:
    for digits, code in [(19, "job.not_found"), (30, "job.not_found"), (5000, "request.not_found")]:
        url = f"/api/v1/{path.format('9' * digits)}"
        missing = await api.request("POST" if path.count("/") > 1 else "GET", url)
        assert (missing.status_code, missing.json()["code"]) == (404, code)
        assert len(missing.json()["detail"]) < 400
