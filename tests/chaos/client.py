"""A client that writes down what it asks before it asks, and what it is told once it is told."""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from hal0.clock import utc_now
from tests.chaos.evidence import Answer

TIMEOUT_S = 30.0


class AnswersLog:
    """The file in which clients keep their word; its lines are those of `evidence.py`."""

    def __init__(self, path: Path, client: str) -> None:
        """Open it for appending: each line is one write, so clients may share it."""
        self._client = client
        self._numbers = itertools.count(1)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

    def hooks(self) -> dict[str, list[Callable[..., Any]]]:
        """Return what makes an `httpx.Client` keep this log."""
        return {"request": [self._asked], "response": [self._answered]}

    def _asked(self, request: httpx.Request) -> None:
        request.extensions["n"] = n = next(self._numbers)
        path = request.url.raw_path.decode()
        self._note(n, "asked", method=request.method, path=path, body=_json(request.read()))

    def _answered(self, response: httpx.Response) -> None:
        body = _json(response.read())
        n = response.request.extensions["n"]
        self._note(n, "answered", status=response.status_code, body=body)

    def _note(self, n: int, phase: str, **fields: Any) -> None:
        at = utc_now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = {"client": self._client, "n": n, "at": at, "phase": phase, **fields}
        os.write(self._fd, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


class LoggingClient:
    """One client of the API; use it from one thread. `url()` says where the API is now."""

    def __init__(self, name: str, url: Callable[[], str], log: Path) -> None:
        self._url = url
        self._log = AnswersLog(log, name)
        self._http = httpx.Client(timeout=TIMEOUT_S, event_hooks=self._log.hooks())

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request; an answer without a status when none came."""
        try:
            response = self._http.request(
                method, self._url() + path, json=body, headers=headers or {}
            )
        except httpx.TransportError:
            return Answer(method, path, body)
        return Answer(method, path, body, response.status_code, _json(response.content))

    def close(self) -> None:
        """Close the connection and the log."""
        self._http.close()
        self._log.close()
