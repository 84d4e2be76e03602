"""The fake's sockets and threads: one that accepts, one for each connection."""

import contextlib
import socket
import threading
from collections import deque
from dataclasses import replace
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import quote, unquote

from tests.fakes.source.answer import Answer, File, Request, file_answer, in_manner, text_answer
from tests.fakes.source.line import EndError, Line
from tests.fakes.source.manner import PLAIN, Manner

_DERIVED = "derived"


class Source:
    """The server, from the outside; every method may be called from any thread."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._mutex = threading.Lock()
        self._files: dict[str, File] = {}
        self._scripts: dict[str, deque[Manner]] = {}
        self._changes: dict[str, int] = {}
        self._requests: list[dict[str, Any]] = []
        self._released = threading.Event()
        self._is_closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((host, port), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.origin = f"http://{host}:{self.port}"
        self._acceptor = threading.Thread(target=self._accept, name="fake-source", daemon=True)
        self._acceptor.start()

    def url(self, path: str) -> str:
        """Return the URL of a path, whether there is a file or not."""
        return f"{self.origin}/{quote(path)}"

    def put(
        self,
        path: str,
        content: bytes,
        *,
        etag: str | None = _DERIVED,
        last_modified: str | None = _DERIVED,
    ) -> None:
        """Serve `content` at `path`; None leaves a validator out. An ETag comes with its quotes."""
        file = File.of(content)
        if etag != _DERIVED:
            file = replace(file, etag=etag)
        if last_modified != _DERIVED:
            file = replace(file, last_modified=last_modified)
        with self._mutex:
            self._files[path] = file

    def remove(self, path: str) -> None:
        """Serve 404 at `path`."""
        with self._mutex:
            del self._files[path]

    def script(self, path: str, *manners: Manner) -> None:
        """Answer requests for `path` in these manners, one after the other; none = well again.

        A request takes the first manner that is for it. Whatever was scripted before is forgotten.
        """
        with self._mutex:
            self._scripts[path] = deque(manners)
            self._changes.pop(path, None)

    def release(self) -> None:
        """Let go on what stalls now."""
        with self._mutex:
            self._released.set()
            self._released = threading.Event()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Return what was asked so far, oldest first.

        Each is `{method, path, query, headers, status, sent_bytes}`: header names in small letters,
        `status` None until there is an answer, `sent_bytes` of the body so far.
        """
        with self._mutex:
            return [dict(record) for record in self._requests]

    def close(self) -> None:
        """End every connection and thread."""
        self._is_closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._mutex:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def answer(self, request: Request, manner: Manner) -> Answer:
        """Return the right answer; what is special about a hub overrides this."""
        with self._mutex:
            file = self._files.get(request.path)
            version = 0
            if manner.changes:
                version = self._changes.get(request.path, 0)
                self._changes[request.path] = version + 1
        if request.method not in {"GET", "HEAD"}:
            return text_answer(405, "method\n", {"Allow": "GET, HEAD"})
        if file is None:
            return text_answer(404, "no such file\n")
        file = file.changed(version)
        if manner.corrupt_at is not None:
            content = bytearray(file.content)
            content[manner.corrupt_at] ^= 0xFF
            file = replace(file, content=bytes(content))
        return file_answer(request, file, manner)

    def _manner(self, request: Request) -> Manner:
        with self._mutex:
            script = self._scripts.get(request.path, deque())
            for place, manner in enumerate(script):
                if not manner.is_for(request.method, "range" in request.headers):
                    continue
                if manner.times == 1:
                    del script[place]
                elif manner.times is not None:
                    script[place] = replace(manner, times=manner.times - 1)
                return manner
        return PLAIN

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="fake-source-answer", daemon=True
            )
            with self._mutex:
                self._connections.add(connection)
                self._threads = [old for old in self._threads if old.is_alive()] + [thread]
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while (request := read_request(stream)) and not self._is_closing.is_set():
                    self._exchange(connection, request)
            except (EndError, OSError, ValueError):
                pass
            finally:
                with self._mutex:
                    self._connections.discard(connection)

    def _exchange(self, connection: socket.socket, request: Request) -> None:
        record: dict[str, Any] = {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "headers": dict(request.headers),
            "status": None,
            "sent_bytes": 0,
        }
        with self._mutex:
            self._requests.append(record)
            released = self._released
        manner = self._manner(request)
        line = Line(connection, record, self._mutex, self._is_closing)
        line.wait(threading.Event(), manner.delay_s)
        if manner.stall_before_headers:
            line.wait(released)
        if manner.close_before_answer:
            line.end(manner.drop_by)
        if manner.garbage is not None:
            connection.sendall(manner.garbage)
            raise EndError
        answer = in_manner(self.answer(request, manner), request, manner)
        with self._mutex:
            record["status"] = answer.status
        line.send_head(answer, is_dribbled=manner.dribble_headers)
        if request.method != "HEAD" and answer.status not in {204, 304}:
            line.send_body(answer, manner, released)
        if answer.headers.get("Connection") == "close" or manner.wrong_length:
            raise EndError
        if request.headers.get("connection", "").lower() == "close":
            raise EndError


def read_request(stream: BinaryIO) -> Request | None:
    """Read a request without a body; None = the client closed."""
    line = stream.readline(65536)
    if not line.endswith(b"\r\n"):
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = {}
    while (raw := stream.readline(65536)) not in {b"\r\n", b""}:
        name, _, value = raw.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    path, _, query = target.removeprefix("/").partition("?")
    return Request(method, path, unquote(path), query, headers)
