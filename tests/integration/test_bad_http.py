"""Heads that no client of hal0 sends, to a real API over a socket: badly encoded, odd, or no HTTP.

Never a 500, never a hang: each is refused as a problem where HTTP allows an answer, nothing
changes, and the API goes on to answer others. Huge and slow ones are in test_bad_bodies.py.
"""

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hal0.api.connection import MAX_HEAD_BYTES
from tests.acceptance.house import House
from tests.lines import Heard, Line
from tests.rows import contents

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bad_http")]
NOBODY = "http://127.0.0.1:9"
HOST = b"Host: localhost\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\n" + HOST
SLOTS = b"GET /api/v1/slots"
POST = b"POST /api/v1/slots HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"\r\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("bad-http"), NOBODY) as house:
        house.start_api()
        yield house


@pytest.fixture(autouse=True)
def nothing_changes_and_it_goes_on(house: House) -> Iterator[None]:
    before = contents(house.home / "hal0.db", without="owners")
    yield
    assert house.client.get("/livez").status_code == 200
    assert contents(house.home / "hal0.db", without="owners") == before
    assert "Traceback" not in house.log.read_text()


def asked(house: House, *parts: bytes) -> Heard:
    with Line(house.port) as line:
        line.say(*parts)
        return line.hear()


NO_HTTP = {
    "NUL": b"\0\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a1030360"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3.1": b"GET /livez HTTP/3.1\r\n" + HOST + END,
    "an unknown method": b"BREW /livez HTTP/1.1\r\n" + HOST + END,
    "a method in small letters": b"get /livez HTTP/1.1\r\n" + HOST + END,
    "a method that is no ASCII": b"G\xc3\xa4T /livez HTTP/1.1\r\n" + HOST + END,
    "CONNECT": b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + END,
    "no path": b"GET  HTTP/1.1\r\n" + HOST + END,
    "a path without a slash": b"GET livez HTTP/1.1\r\n" + HOST + END,
    "a query without a path": b"GET ?x=1 HTTP/1.1\r\n" + HOST + END,
    "a URL without a path": b"GET http://localhost HTTP/1.1\r\n" + HOST + END,
    "UTF-8 in a path": b"GET /api/v1/slots/ch\xc3\xa4t HTTP/1.1\r\n" + HOST + END,
    "NUL in a path": b"GET /api/v1/slots/a\0b HTTP/1.1\r\n" + HOST + END,
    "bytes in a query": SLOTS + b"?limit=\xff HTTP/1.1\r\n" + HOST + END,
    "lines that end in LF": b"GET /livez HTTP/1.1\nHost: localhost\n\n",
    "lines that end in CR": b"GET /livez HTTP/1.1\rHost: localhost\r\r",
    "a folded header": LIVEZ + b"X: a\r\n b\r\n\r\n",
    "a space before a colon": LIVEZ + b"X : a\r\n\r\n",
    "a header without a name": LIVEZ + b": a\r\n\r\n",
    "NUL in a header": LIVEZ + b"X: a\0b\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a length below 0": POST + b"Content-Length: -1\r\n\r\n",
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\n{}",
    "a length in hex": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "a length of 40 digits": POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
    "a length and chunks": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding behind chunks": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a chunk of no number": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk below 0": CHUNKED + b"-1\r\n{}\r\n0\r\n\r\n",
    "a chunk of 2**80 bytes": CHUNKED + b"ffffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"2\r\n{}{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_is_refused_as_a_problem(house: House, request_bytes: bytes) -> None:
    with Line(house.port) as line:
        line.say(request_bytes)
        heard = line.hear()
        assert (heard.status, heard.code) == (400, "request.not_http")
        assert heard.headers["Connection"] == "close"
        assert line.is_closed()


ODD = {
    "HTTP/1.0": (b"GET /livez HTTP/1.0\r\n" + HOST + END, 200, ""),
    "HTTP/0.9": (b"GET /livez\r\n\r\n", 403, "auth.bad_host"),
    "no Host": (b"GET /livez HTTP/1.1\r\n\r\n", 403, "auth.bad_host"),
    "two Hosts": (LIVEZ + HOST + END, 403, "auth.bad_host"),
    "a whole URL": (b"GET http://localhost/livez HTTP/1.1\r\n" + HOST + END, 200, ""),
    "a fragment": (b"GET /livez#x HTTP/1.1\r\n" + HOST + END, 200, ""),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + END, 404, "request.not_found"),
    "TRACE": (b"TRACE /livez HTTP/1.1\r\n" + HOST + END, 405, "request.method_not_allowed"),
    "a way out": (b"GET /../../etc/passwd HTTP/1.1\r\n" + HOST + END, 404, "request.not_found"),
    "two slashes": (b"GET //livez HTTP/1.1\r\n" + HOST + END, 404, "request.not_found"),
    "bad percents": (SLOTS + b"/%zz%f HTTP/1.1\r\n" + HOST + END, 404, "slot.not_found"),
    "a coded NUL": (SLOTS + b"/a%00b HTTP/1.1\r\n" + HOST + END, 404, "slot.not_found"),
    "a coded slash": (SLOTS + b"/a%2fb HTTP/1.1\r\n" + HOST + END, 404, "request.not_found"),
    "overlong UTF-8": (SLOTS + b"/%c0%af HTTP/1.1\r\n" + HOST + END, 404, "slot.not_found"),
    "half a pair": (SLOTS + b"/%ed%a0%80 HTTP/1.1\r\n" + HOST + END, 404, "slot.not_found"),
    "a query of bytes": (SLOTS + b"?a=%ff%00 HTTP/1.1\r\n" + HOST + END, 422, "request.invalid"),
    "a query of signs": (SLOTS + b"?;&&=&=x HTTP/1.1\r\n" + HOST + END, 422, "request.invalid"),
    "a body to a GET": (LIVEZ + b"Content-Length: 5\r\n\r\nhello", 200, ""),
    "bytes in a header": (LIVEZ + b"X-Request-ID: \xff\xfe\r\nPrefer: \xff\r\n\r\n", 200, ""),
    "WebSocket": (
        LIVEZ + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        200,
        "",
    ),
    "HTTP/2 by upgrade": (LIVEZ + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 200, ""),
    "an expectation": (
        POST + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\n{}",
        422,
        "request.invalid",
    ),
    "a Host in a trailer": (
        CHUNKED + b"2\r\n{}\r\n0\r\nHost: evil\r\n\r\n",
        422,
        "request.invalid",
    ),
    "chunks that say gzip": (
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n\x1f\x8b\r\n0\r\n\r\n",
        400,
        "request.not_http",
    ),
    "100 kB of a header": (
        LIVEZ + b"X: " + b"a" * 100_000 + END * 2,
        431,
        "request.head_too_large",
    ),
    "10,000 headers": (LIVEZ + b"X: y\r\n" * 10_000 + END, 431, "request.head_too_large"),
    "10,000 parameters": (
        SLOTS
        + b"?"
        + b"&".join(b"p%d=1" % n for n in range(10_000))
        + b" HTTP/1.1\r\n"
        + HOST
        + END,
        431,
        "request.head_too_large",
    ),
    "as long a head as can be": (LIVEZ + b"X: " + b"a" * (MAX_HEAD_BYTES - 100) + END * 2, 200, ""),
}


@pytest.mark.parametrize(("request_bytes", "status", "code"), ODD.values(), ids=ODD)
def test_what_is_odd_is_answered_like_anything_else(
    house: House, request_bytes: bytes, status: int, code: str
) -> None:
    heard = asked(house, request_bytes)
    assert (heard.status, heard.code) == (status, code)


SPOILT = st.tuples(
    st.sampled_from([case for case, *_ in ODD.values()] + [*NO_HTTP.values()]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 9), st.binary(max_size=9)), max_size=3),
)


def test_whatever_is_spoilt_in_a_request_is_no_reason_to_fail(house: House) -> None:
    """Each request is followed by the end of the line, so nothing is waited for."""

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(SPOILT)
    @example((b"", []))
    def send(spoilt: tuple[bytes, list[tuple[int, int, bytes]]]) -> None:
        request, cuts = spoilt
        for place, length, instead in cuts:
            request = request[:place] + instead + request[place + length :]
        with Line(house.port) as line:
            line.say(request)
            line.end()
            assert b" 500 " not in line.rest()

    send()
