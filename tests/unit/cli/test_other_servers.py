"""HAL0_URL leads to something that is not hal0."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.unit.cli.conftest import Run

BODIES = {
    "a page": b"<html>Not Found</html>",
    "JSON without a code": b'{"detail": "Not Found"}',
    "another's code": b'{"error": {"code": 404, "message": "not found"}}',
    "a code that is none": b'{"code": 404}',
}


class Other(BaseHTTPRequestHandler):
    """Answers 404 to all, with the body of its server."""

    def do_GET(self) -> None:
        body: bytes = self.server.body  # type: ignore[attr-defined]
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("HAL0_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_another_server_is_told_to_be_one(
    run: Run, other: ThreadingHTTPServer, body: bytes
) -> None:
    other.body = body  # type: ignore[attr-defined]
    done = run("slot", "list")
    assert done.code == 7
    assert done.err == (
        f"hal0: what answers at http://127.0.0.1:{other.server_port} is not hal0's API (HTTP 404)\n"
    )
