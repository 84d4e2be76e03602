"""Bad input to a real API, by REST and by the command line: what is said, and that nothing changes.

One API serves all of the tables here, for no line of them may change anything. How each field of a
body is refused is in tests/unit/api/test_refusals.py.
"""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hal0.cli import main
from tests.acceptance.house import House
from tests.rows import contents

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bad_input")]
NOBODY = "http://127.0.0.1:9"
BAD_NAMES = {
    "newline": "a\nb",
    "dots": "..",
    "unicode": "chät",
    "33 characters": "x" * 33,
    "empty": "",
    "capitals": "Chat",
    "space": " chat",
    "slash": "chat/x",
    "NUL": "a\0b",
}
Cli = Callable[..., tuple[int, str]]


def short(value: object) -> str:
    """Name a line of a table in the name of its test."""
    return str(value)[:40]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Slot chat has model tiny, slot code has none, and no worker runs."""
    with House(tmp_path_factory.mktemp("bad-input"), NOBODY) as house:
        house.start_api()
        house.add_model()
        house.add_model("other", seed=1)
        house.add_slot()
        house.add_slot("code", None)
        house.load()
        yield house


@pytest.fixture(autouse=True)
def nothing_changes(house: House) -> Iterator[None]:
    before = contents(house.home / "hal0.db", without="owners")
    yield
    assert contents(house.home / "hal0.db", without="owners") == before
    assert "Traceback" not in house.log.read_text()


@pytest.fixture
def hal0(house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line; return its exit code and what it wrote to stderr."""
    monkeypatch.setenv("HAL0_HOME", str(house.home))
    monkeypatch.setenv("HAL0_URL", f"http://127.0.0.1:{house.port}")

    def run(*args: str) -> tuple[int, str]:
        code = main(args)
        out, err = capsys.readouterr()
        assert out == ""
        return code, " ".join(err.replace("│", " ").split())

    return run


SLOTS = "/api/v1/slots"
REST: list[tuple[str, Any, str, str]] = [
    (
        "POST v1/slots",
        {"name": "a", "colour": 1},
        "422 request.invalid",
        "colour: is unknown; known",
    ),
    ("PATCH v1/slots/chat", {"model_id": 1}, "422 request.invalid", "model_id: is unknown"),
    ("POST v1/slots/chat/load", {"rehash": 1}, "422 request.invalid", "rehash: takes true or"),
    ("POST v1/slots/chat/load?wait=9", {}, "422 request.invalid", "wait: is unknown; none is"),
    ("POST v1/slots", {"name": "a", "model": "none"}, "404 model.not_found", "'none'; `hal0 model"),
    (
        "POST v1/slots",
        {"name": "a", "engine": "none"},
        "404 engine.not_found",
        "'none'; `hal0 engine",
    ),
    ("PATCH v1/slots/code", {"model": "none"}, "404 model.not_found", "'none'; `hal0 model"),
    ("POST v1/slots/code/load", {"model": "none"}, "404 model.not_found", "'none'; `hal0 model"),
    ("POST v1/slots/none/load", {}, "404 slot.not_found", "'none'; `hal0 slot list` shows"),
    ("POST v1/slots", {"name": "chat"}, "409 slot.exists", "'chat' already; delete it first or"),
    (
        "POST v1/slots",
        {"name": "b", "model": "tiny"},
        "409 slot.model_taken",
        "give slot b another",
    ),
    ("PATCH v1/slots/code", {"model": "tiny"}, "409 slot.model_taken", "give slot code another"),
    (
        "POST v1/slots/code/load",
        {"model": "tiny"},
        "409 slot.model_taken",
        "model tiny belongs to slot chat",
    ),
    ("POST v1/slots/code/load", {}, "409 slot.no_model", "slot code has no model; name one"),
    ("DELETE v1/slots/chat", None, "409 slot.busy", "slot chat has unfinished jobs"),
    (
        "DELETE v1/models/tiny",
        None,
        "409 model.in_use",
        "slot chat holds or wants model tiny; give it",
    ),
    ("GET v1/jobs?limit=-1", None, "422 request.invalid", "limit: takes 1 or more, not '-"),
    ("GET v1/jobs?limit=1&limit=2", None, "422 request.invalid", "limit: is given twice"),
    ("GET v1/jobs?slot=none", None, "404 slot.not_found", "'none'; `hal0 slot list` shows"),
    ("GET v1/jobs/-1", None, "404 request.not_found", "at /api/v1/jobs/-1; the part REST"),
    (f"GET v1/jobs/{'9' * 30}", None, "404 job.not_found", f"no job {'9' * 30}; `hal0 job"),
    (f"GET v1/jobs/{'9' * 5000}", None, "404 request.not_found", "/api/v1/jobs/999"),
    (f"POST v1/jobs/{'9' * 5000}/retry", {}, "404 request.not_found", "/jobs/999"),
    ("POST v1/jobs/0/cancel", {}, "404 job.not_found", "no job 0; `hal0 job list`"),
    (f"GET v1/chains/{'9' * 30}", None, "404 job.not_found", "no chain 999"),
    ("GET v1/transitions?since=2h", None, "422 request.invalid", "since: takes an RFC"),
    ("PUT v1/slots", {}, "405 request.method_not_allowed", "/api/v1/slots; use GET, HEAD, POST"),
    ("GET v2/slots", None, "404 request.not_found", "nothing at /api/v2/slots"),
]


@pytest.mark.parametrize(("request_line", "body", "answer", "words"), REST, ids=short)
def test_rest_names_what_is_wrong_and_what_to_do(
    house: House, request_line: str, body: Any, answer: str, words: str
) -> None:
    method, _, path = request_line.partition(" ")
    refused = house.client.request(method, f"/api/{path}", json=body)
    said = refused.json()
    assert (f"{refused.status_code} {said['code']}", said["status"]) == (answer, int(answer[:3]))
    assert words in said["detail"]
    assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_bad_name_makes_no_slot_and_finds_none(house: House, hal0: Cli, name: str) -> None:
    refused = house.client.post(SLOTS, json={"name": name})
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    to_do = "use 1 to 32 of a-z, 0-9, _ and -, beginning with a-z or 0-9"
    assert refused.json()["detail"] == f"name: {name!r} is no slot name: {to_do}"
    missing = house.client.get(f"{SLOTS}/{quote(name, safe='')}")
    assert missing.status_code == 404
    assert hal0("slot", "create", name) == (
        2,
        f"hal0: {refused.json()['detail']} [request.invalid]",
    )
    code, said = hal0("slot", "delete", name)
    assert (code, repr(name) in said) == (3, True)


CLI: list[tuple[tuple[str, ...], int, str]] = [
    (("slot", "create", "b", "--colour", "red"), 2, "No such option"),
    (("slot", "create", "b", "--ctx-size", "many"), 2, "'many' is not a valid integer"),
    (("slot", "create", "b", "--ctx-size", "1"), 2, "options.ctx_size: takes 256 or more, not 1"),
    (("slot", "create", "b", "--priority", "9999"), 2, "priority: takes 1000 or less, not 9999"),
    (("slot", "create", "b", "--llamacpp-args", "--rpc x"), 2, "'--rpc' is not an argument that"),
    (
        ("slot", "create", "b", "--idle-after", "soon"),
        2,
        "'soon' is no number of seconds, nor 'def",
    ),
    (("slot", "create", "b", "--idle-after", "nan"), 2, "'nan' is no number of seconds"),
    (("slot", "create", "b", "--idle-after", "-1"), 2, "idle_after_s: takes 0 or more, not -1"),
    (("slot", "create", "b", "--model", "none"), 3, "there is no model 'none'; `hal0 model list`"),
    (
        ("slot", "create", "b", "--engine", "none"),
        3,
        "there is no engine 'none'; `hal0 engine list` shows",
    ),
    (("slot", "create", "b", "--model", "tiny"), 5, "model tiny belongs to slot chat of the same"),
    (("slot", "create", "chat"), 5, "there is a slot 'chat' already; delete it first or choose"),
    (("slot", "create", "b\udcff"), 2, "the argument 'b\\udcff' is no UTF-8 text"),
    (("slot", "set", "code", "--model", "tiny"), 5, "give slot code another model or engine"),
    (("slot", "set", "code"), 2, "nothing to change is given; see `hal0 slot set --help`"),
    (("slot", "load", "code", "--model", "tiny"), 5, "give slot code another model or engine"),
    (("slot", "load", "code", "--model", "none"), 3, "there is no model 'none'"),
    (("slot", "load", "code"), 5, "one in the request, or `hal0 slot set code --model NAME`"),
    (("slot", "load", "none", "--wait"), 3, "there is no slot 'none'"),
    (("slot", "delete", "chat"), 5, "slot chat has unfinished jobs (the first is 1); wait, cancel"),
    (("model", "add", "nothing.gguf"), 3, "nothing.gguf is no file"),
    (("model", "add", "."), 3, "is no file"),
    (("model", "show", "none"), 3, "there is no model 'none'; `hal0 model list` shows them"),
    (
        ("model", "delete", "tiny"),
        5,
        "slot chat holds or wants model tiny; give it another one first",
    ),
    (("job", "show", "9" * 30), 3, f"there is no job {'9' * 30}"),
    (("job", "show", "9" * 4000), 3, "there is no"),
    (("job", "show", "last"), 2, "'last' is not a valid integer"),
    (("job", "list", "--limit", "0"), 2, "0 is not in the range x>=1"),
    (("job", "list", "--slot", "none"), 3, "there never was a slot 'none'"),
    (("job", "cancel", "99"), 3, "there is no job 99; `hal0 job list` shows them"),
    (("job", "retry", "1"), 5, "job 1 is in state queued; only a failed job can"),
    (("audit", "--since", "yesterday"), 2, "'yesterday' is no time: give 90m, 2h or 3d"),
    (("audit", "--cause", "boredom"), 2, "cause: takes 'created', 'fetch_started', "),
    (("audit", "--slot", "\udcff"), 2, "the argument '\\udcff' is no UTF-8 text"),
]


@pytest.mark.parametrize(("args", "code", "words"), CLI, ids=short)
def test_a_command_names_what_is_wrong_and_what_to_do(
    hal0: Cli, args: tuple[str, ...], code: int, words: str
) -> None:
    ended, said = hal0(*args)
    assert (ended, words in said) == (code, True), said


@pytest.mark.parametrize("mebibytes", [2, 64])
@pytest.mark.parametrize("path", [SLOTS, "/api/v1/nowhere"])
def test_who_sends_a_huge_body_hears_why_it_is_refused(
    house: House, path: str, mebibytes: int
) -> None:
    """Announced and in pieces; the whole of it is taken off the line, and the line stays good."""
    piece = b" " * (1 << 20)
    connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=30)
    for headers in ({"Content-Length": str(mebibytes << 20)}, {"Transfer-Encoding": "chunked"}):
        pieces = (piece for _ in range(mebibytes))
        connection.request(
            "POST", path, pieces, headers, encode_chunked="Transfer-Encoding" in headers
        )
        answer = connection.getresponse()
        said = json.loads(answer.read())
        assert (answer.status, said["status"]) == (413 if path == SLOTS else 404,) * 2
        if path == SLOTS:
            assert said["code"] == "request.too_large"
            assert "larger than 1048576 bytes, which no request needs" in said["detail"]
        connection.request("GET", "/livez")
        assert connection.getresponse().read().startswith(b'{"live":true')
    connection.close()


def test_who_asks_before_sending_a_huge_body_is_refused_at_once(house: House) -> None:
    head = f"POST {SLOTS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n"
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as line:
        line.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "head",
    [
        f"POST {SLOTS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        f"POST {SLOTS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {'9' * 30}\r\n\r\n",
        f"POST {SLOTS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n",
        "GET /livez\r\n\r\n",
        "\0\r\n\r\n",
    ],
)
def test_what_is_no_request_changes_nothing_and_the_next_one_is_served(
    house: House, head: str
) -> None:
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as line:
        line.sendall(head.encode())
    assert house.client.get("/livez").status_code == 200


def test_json_that_is_nested_without_end_is_refused(house: House) -> None:
    for text in (b"[" * 500_000, b'{"options":' * 90_000, b'{"a":[' * 150_000):
        refused = house.client.post(SLOTS, content=text)
        assert (refused.status_code, refused.json()["code"]) == (400, "request.not_json")
        assert "nested too deeply; send one JSON object" in refused.json()["detail"]
    nested = b'{"name": "a", "options": ' + b'{"a":' * 500 + b"1" + b"}" * 501
    refused = house.client.post(SLOTS, content=nested)
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")


def test_a_file_that_may_not_be_read_is_not_registered(
    house: House, hal0: Cli, tmp_path: Path
) -> None:
    """A link to itself, for root may read anything else."""
    loop = tmp_path / "loop.gguf"
    loop.symlink_to(loop)
    code, said = hal0("model", "add", str(loop))
    assert (code, str(loop) in said) == (3, True)
