"""How a command asks the API: plain `http.client`, and problems as exit codes.

No httpx here: its import alone costs more CPU than `hal0 slot list` should.
"""

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit

from hal0.cli.exits import Exit, Failure, exit_for
from hal0.errors import SettingsError
from hal0.masks import escaped
from hal0.where import whereabouts

TOKEN: Final = re.compile(rb"[!-~]*")
"""What can stand in a header; anything else would be shown by whoever refuses to send it."""

NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
CONNECT_S: Final = 10.0
READ_S: Final = 20.0
SILENT_S: Final = 45.0
"""Three times as long as a stream of events is ever silent."""
TIMEOUT_S: Final = 90.0
"""Longer than the API ever takes, to read and to change; one that says nothing is a failure too."""

Json = dict[str, Any]


class ApiDown(Failure):
    """Nothing that speaks hal0's API answers."""

    def __init__(self, text: str) -> None:
        super().__init__(text, Exit.DOWN)


class Refused(Failure):
    """The API answered with a problem."""

    def __init__(self, status: int, problem: Mapping[str, Any], *more: str) -> None:
        code, evidence = problem.get("code"), problem.get("evidence") or {}
        super().__init__(
            escaped(
                (problem.get("detail") or f"the API answered {status}")
                + (f" [{code}]" if code else "")
            ),
            exit_for(status),
            [escaped(f"  {name}: {value}") for name, value in evidence.items() if name != "fields"]
            + [f"  {line}" for line in more],
        )
        self.problem = dict(problem)


@dataclass(frozen=True, slots=True)
class Api:
    """The API at one address."""

    url: str
    token: str | None = None
    token_file: Path | None = None
    patience_s: float | None = None
    """How long any answer may take; None = as long as the API ever takes."""

    @classmethod
    def from_settings(cls) -> Self:
        """Read where it is, and the token; raises SettingsError."""
        where = whereabouts()
        file = where.token_file
        return cls(where.url, None if file is None else _token_in(file), file)

    def get(self, path: str, **query: object) -> Json:
        """Return the answer to a GET."""
        given = {name: str(value) for name, value in query.items() if value is not None}
        return self.ask("GET", f"{path}?{urlencode(given)}" if given else path)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """Return the answer to a POST."""
        return self.ask("POST", path, body or {})

    def items(self, path: str, limit: int | None = None, **query: object) -> Iterator[Json]:
        """Yield the items of a list, page after page, `limit` of them at most."""
        cursor, left = None, limit
        while left is None or left > 0:
            size = 1000 if left is None else min(left, 1000)
            page = self.get(path, limit=size, cursor=cursor, **query)
            yield from page["items"]
            cursor = page["next_cursor"]
            left = None if left is None else left - len(page["items"])
            if cursor is None:
                return

    def lines(self, path: str, headers: Mapping[str, str], **query: str) -> Iterator[str]:
        """Yield the lines of an answer that goes on, until it ends. Raises Refused, ApiDown."""
        path = f"{path}?{urlencode(query)}" if query else path
        connection, prefix = self._connection()
        try:
            connection.connect()
            connection.sock.settimeout(SILENT_S)
            connection.request("GET", prefix + path, None, {**self._headers(), **headers})
            response = connection.getresponse()
            if response.status != 200:
                self._read(response.status, response.read())
            for line in response:
                yield line.decode(errors="replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException) as exc:
            raise self._away(exc) from exc
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """Return the JSON of a success, `{}` for none. Raises Refused, ApiDown."""
        return self._read(*self._send(method, path, body))

    def _read(self, status: int, content: bytes) -> Json:
        try:
            answer = json.loads(content) if content else {}
        except ValueError:
            answer = None
        has_code = isinstance(answer, dict) and isinstance(answer.get("code"), str)
        if not isinstance(answer, dict) or (status >= 400 and not has_code):
            raise ApiDown(f"what answers at {self.url} is not hal0's API (HTTP {status})")
        if status == 401:
            raise Refused(status, answer, self._about_token())
        if status >= 400:
            raise Refused(status, answer)
        return answer

    def _about_token(self) -> str:
        """Say what this command sent, which the API tells nobody apart."""
        if self.token_file is None:
            return "HAL0_TOKEN_FILE is not set, so no token was sent"
        if self.token is None:
            return f"HAL0_TOKEN_FILE={self.token_file} is empty, so no token was sent"
        return (
            f"the token in HAL0_TOKEN_FILE={self.token_file} was revoked, has ended, or is of "
            "another home"
        )

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, bytes]:
        connection, prefix = self._connection()
        headers = {"Accept": "application/json", **self._headers()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        limit_s = self.patience_s or (READ_S if method == "GET" else TIMEOUT_S)
        try:
            content = None if body is None else json.dumps(body)
            connection.connect()
            connection.sock.settimeout(limit_s)
            connection.request(method, prefix + path, content, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except TimeoutError as exc:
            raise ApiDown(f"the API at {self.url} did not answer in {limit_s:g} s") from exc
        except (OSError, http.client.HTTPException) as exc:
            raise self._away(exc) from exc
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _away(self, exc: Exception) -> ApiDown:
        return ApiDown(f"the API at {self.url} cannot be reached ({exc}); `hal0 up` starts it")

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        """Return a connection that is not open yet, and what comes before every path."""
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        try:
            parts = urlsplit(self.url)
            kind, host = kinds[parts.scheme], parts.hostname or ""
            if not host:
                raise ValueError("it names no host")
            return kind(host, parts.port, timeout=self.patience_s or CONNECT_S), parts.path.rstrip(
                "/"
            )
        except (KeyError, ValueError, http.client.InvalidURL) as exc:
            raise SettingsError(
                f"the API cannot be at {self.url}, which is not http(s)://host:port; see HAL0_URL "
                "and HAL0_BIND"
            ) from exc


def _token_in(path: Path) -> str | None:
    """Return the token in a file, None for an empty one. What else is in it is never shown."""
    try:
        text = path.read_bytes().strip()
    except OSError as exc:
        raise SettingsError(f"HAL0_TOKEN_FILE={path} cannot be read: {exc.strerror}") from exc
    if not TOKEN.fullmatch(text):
        raise SettingsError(f"HAL0_TOKEN_FILE={path} holds no token: put one into it, and no more")
    return text.decode() or None


def path_of(*parts: object) -> str:
    """Return `/api/v1/<parts>`. Raises Failure for what cannot be a name: it leads elsewhere."""
    for part in parts:
        if not NAME.fullmatch(str(part)):
            raise Failure(
                f"nothing is called {str(part)!r}: names have a-z, 0-9, '.', _ and - alone",
                Exit.NOT_FOUND,
            )
    return "/api/v1/" + "/".join(map(str, parts))
