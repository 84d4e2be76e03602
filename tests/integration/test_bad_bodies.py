"""Bodies that are badly encoded, huge, slow or never end, to a real API over a socket.

Each is given up within HAL0_REQUEST_TIMEOUT_S, in little memory, and others are served meanwhile.
Heads that are badly encoded are in test_bad_http.py, bodies of any bytes in test_openapi_fuzz.py.
"""

import gzip
import json
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from tests.acceptance.house import House
from tests.lines import LIMIT_S, Line
from tests.rows import contents

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bad_bodies")]
NOBODY = "http://127.0.0.1:9"
TIMEOUT_S = 0.5
MEBIBYTE = 1 << 20
POST = b"POST /api/v1/slots HTTP/1.1\r\nHost: localhost\r\n"
LENGTH = POST + b"Content-Length: 10000000000\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A load is queued, and no worker runs."""
    folder = tmp_path_factory.mktemp("bad-bodies")
    with House(folder, NOBODY, HAL0_REQUEST_TIMEOUT_S=str(TIMEOUT_S)) as house:
        house.start_api()
        house.add_model()
        house.add_slot()
        house.load()
        yield house


@pytest.fixture(autouse=True)
def nothing_changes_and_it_goes_on(house: House) -> Iterator[None]:
    before = contents(house.home / "hal0.db", without="owners")
    yield
    assert house.client.get("/livez").status_code == 200
    assert contents(house.home / "hal0.db", without="owners") == before
    assert "Traceback" not in house.log.read_text()


def memory_of(house: House) -> int:
    """Return the bytes of memory that the API has."""
    return int(psutil.Process(house.processes[0].pid).memory_info().rss)


BAD_TEXT = {
    "no UTF-8": b'{"name": "\xff\xfe"}',
    "overlong UTF-8": b'{"name": "\xc0\xaf"}',
    "half a pair in UTF-8": b'{"name": "\xed\xa0\x80"}',
    "half a pair in JSON": rb'{"name": "\ud800"}',
    "half a pair in a name": rb'{"\udfff": 1}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "UTF-32": '{"name": "a"}'.encode("utf-32"),
    "a mark of UTF-8": '{"name": "a"}'.encode("utf-8-sig"),
    "gzip": gzip.compress(b'{"name": "a"}'),
    "NUL": b"\0",
    "NUL in a text": b'{"name": "a\0"}',
    "NaN": b'{"priority": NaN}',
    "Infinity": b'{"priority": -Infinity}',
    "10,000 digits": b'{"priority": ' + b"9" * 10_000 + b"}",
    "lists in lists": b"[" * 100_000,
    "objects in objects": b'{"options":' * 90_000,
    "a list": b"[]",
    "two objects": b"{}{}",
    "half an object": b'{"name": "a"',
}


@pytest.mark.parametrize("body", BAD_TEXT.values(), ids=BAD_TEXT)
def test_what_is_no_json_is_refused(house: House, body: bytes) -> None:
    refused = house.client.post("/api/v1/slots", content=body)
    assert (refused.status_code, refused.json()["code"]) == (400, "request.not_json")


BAD_VALUES = {
    "a name given twice": b'{"name": "a", "name": "b"}',
    "an option given twice": b'{"name": "a", "options": {"ctx_size": 512, "ctx_size": 512}}',
    "a number beyond all": b'{"name": "a", "priority": 1e999}',
    "10,000 digits behind the point": b'{"name": "a", "priority": 0.' + b"1" * 10_000 + b"}",
    "a coded NUL": rb'{"name": "a\u0000"}',
    "400 objects in objects": b'{"name": "a", "options": ' + b'{"a":' * 400 + b"1" + b"}" * 401,
    "100,000 names": json.dumps(
        {f"{n:x}": 1 for n in range(99_999)}, separators=(",", ":")
    ).encode(),
}


@pytest.mark.parametrize("body", BAD_VALUES.values(), ids=BAD_VALUES)
def test_what_no_field_takes_is_refused(house: House, body: bytes) -> None:
    refused = house.client.post("/api/v1/slots", content=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")


ENDLESS = {
    "a body of 10 GB": (LENGTH, b" " * MEBIBYTE, 413, "request.too_large"),
    "chunks": (CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n", 413, "request.too_large"),
    "small chunks": (CHUNKED, (b"10\r\n" + b" " * 16 + b"\r\n") * 9999, 413, "request.too_large"),
    "the frame of a chunk": (CHUNKED + b"1;x=", b"x" * MEBIBYTE, 431, "request.head_too_large"),
    "a trailer": (CHUNKED + b"0\r\nX: ", b"x" * MEBIBYTE, 431, "request.head_too_large"),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 9999, 431, "request.head_too_large"),
    "a header": (POST + b"X: ", b"x" * MEBIBYTE, 431, "request.head_too_large"),
    "headers": (POST, b"X: y\r\n" * 9999, 431, "request.head_too_large"),
    "a path": (b"GET /", b"x" * MEBIBYTE, 431, "request.head_too_large"),
    "empty lines": (b"", b"\r\n" * MEBIBYTE, 431, "request.head_too_large"),
    "a method": (b"", b"G" * MEBIBYTE, 400, "request.not_http"),
    "a body that nobody reads": (
        LENGTH.replace(b"POST", b"GET"),
        b" " * MEBIBYTE,
        200,
        "",
    ),
}


@pytest.mark.parametrize(("begin", "piece", "status", "code"), ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends_is_answered_and_then_heard_no_more(
    house: House, begin: bytes, piece: bytes, status: int, code: str
) -> None:
    """It is thrown away for as long as a request may take, so that the answer can be read."""
    before = memory_of(house)
    with Line(house.port) as line:
        line.say(begin)
        poured = line.pour(piece)
        assert poured > MEBIBYTE
        heard = line.hear()
        assert (heard.status, heard.code) == (status, code)
    assert memory_of(house) - before < 48 * MEBIBYTE, f"of {poured} bytes"


CLOSING = b"Connection: close\r\n"
ANSWERED_EARLY = {
    "too large": (LENGTH.replace(b"10000000000\r\n", b"%d\r\n" + CLOSING), 413),
    "HTTP/1.0": (LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"10000000000", b"%d"), 413),
    "no handler": (b"POST /x HTTP/1.1\r\n" + CLOSING + b"Content-Length: %d\r\n\r\n", 403),
}


@pytest.mark.parametrize(("head", "status"), ANSWERED_EARLY.values(), ids=ANSWERED_EARLY)
def test_who_asks_for_the_connection_to_be_closed_can_send_all_and_then_read_the_answer(
    house: House, head: bytes, status: int
) -> None:
    body = b" " * 24 * MEBIBYTE
    for _ in range(3):
        with Line(house.port) as line:
            line.say(head % len(body), body, ASK)
            assert line.hear().status == status
            assert line.is_closed()


GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
SLOW = {
    "a head": (GET + b"X: ", b"x", b"HTTP/1.1 408 "),
    "a head that stops": (GET, b"", b"HTTP/1.1 408 "),
    "a body": (POST + b"Content-Length: 9999\r\n\r\n{", b" ", b"HTTP/1.1 408 "),
    "a body that stops": (CHUNKED + b"1\r\n{\r\n", b"", b"HTTP/1.1 408 "),
    "a body that nobody reads": (GET + b"Content-Length: 9999\r\n\r\n", b" ", b"HTTP/1.1 200 "),
    "a second head": (GET + b"\r\nG", b"", b"HTTP/1.1 200 "),
    "nothing": (b"", b"", b""),
    "empty lines": (b"", b"\r\n", b""),
}
CLIENTS = 200


def test_slow_clients_are_given_up_and_nobody_waits_for_them(house: House) -> None:
    """Each sends a piece now and then, or nothing more; all are heard out within a few seconds."""
    before = memory_of(house)
    heard: dict[int, bytes] = {}
    kinds = [*SLOW.values()] * (CLIENTS // len(SLOW))
    with ExitStack() as stack, selectors.DefaultSelector() as ready:
        lines = [stack.enter_context(Line(house.port)) for _ in kinds]
        for number, line in enumerate(lines):
            line.say(kinds[number][0])
            line.socket.setblocking(False)
            ready.register(line.socket, selectors.EVENT_READ, number)
            heard[number] = b""
        until = time.monotonic() + LIMIT_S
        while ready.get_map() and time.monotonic() < until:
            assert house.client.get("/api/v1/slots").status_code == 200
            for key, _ in ready.select(0.1):
                piece = b""
                with suppress(ConnectionResetError):
                    piece = lines[key.data].socket.recv(65536)
                heard[key.data] += piece
                if not piece:
                    ready.unregister(key.fileobj)
            for key in [*ready.get_map().values()]:
                with suppress(OSError):
                    lines[key.data].socket.send(kinds[key.data][1])
        assert [kinds[key.data] for key in ready.get_map().values()] == []
    for number, (_, _, begin) in enumerate(kinds):
        assert heard[number].startswith(begin), heard[number]
        assert (b"request.too_slow" in heard[number]) == (b" 408 " in heard[number])
    assert memory_of(house) - before < 48 * MEBIBYTE


def test_an_answer_may_take_longer_than_its_request(house: House) -> None:
    """It is waited for, whatever part of a next request stands behind it on the line."""
    load = b"POST /api/v1/slots/chat/load HTTP/1.1\r\nHost: localhost\r\n"
    with Line(house.port) as line:
        line.say(load, b"Prefer: wait=2\r\nContent-Length: 2\r\n\r\n{}", GET)
        heard = line.hear()
        assert (heard.status, json.loads(heard.body)["deduplicated"]) == (202, True)
        assert heard.headers["Preference-Applied"] == "wait=2"
        assert line.hear().code == "request.too_slow"
        assert line.is_closed()


ASK = b"GET /api/v1/meta HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_requests_that_nobody_waits_an_answer_for_are_bounded(house: House) -> None:
    """Each that waits costs memory before anyone knows who asks."""
    before = memory_of(house)
    with ExitStack() as lines:
        for _ in range(4):
            line = lines.enter_context(Line(house.port))
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.pour(ASK * 1000)
        assert memory_of(house) - before < 48 * MEBIBYTE


def test_a_few_requests_at_once_are_answered_in_their_order(house: House) -> None:
    with Line(house.port) as line:
        line.say(ASK * 2, ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert line.rest().count(b"HTTP/1.1 200 OK") == 3


def test_an_answer_that_nobody_reads_is_broken_off(house: House) -> None:
    big = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    (api,) = (one for one in house.processes if one.poll() is None)
    process = psutil.Process(api.pid)
    with Line(house.port) as line:
        line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mine = line.socket.getsockname()[1]

        def is_open() -> bool:
            return any(
                one.status == psutil.CONN_ESTABLISHED and one.raddr.port == mine
                for one in process.net_connections("tcp")
            )

        line.say(big * 8)
        house.wait_for(is_open)
        house.wait_for(lambda: not is_open(), LIMIT_S)


def test_more_connections_than_there_is_room_for_are_broken_off_and_the_rest_served(
    tmp_path: Path,
) -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)
    with House(tmp_path, NOBODY) as house, ExitStack() as lines:
        resource.setrlimit(resource.RLIMIT_NOFILE, (178, soft[1]))
        try:
            api = house.start("-m", "hal0", "api")
            resource.prlimit(api.pid, resource.RLIMIT_NOFILE, (178, 178))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, soft)
        house.wait_for(house.is_up)
        crowd = [lines.enter_context(Line(house.port)) for _ in range(120)]
        house.wait_for(lambda: psutil.Process(api.pid).num_fds() <= 178)
        house.wait_for(lambda: "further ones are broken off" in house.log.read_text())
        assert house.log.read_text().count("broken off") == 1
        assert house.get("/readyz")["ready"] is True
        for line in crowd:
            line.socket.close()
        house.wait_for(house.is_up)
