"""How JSON goes to an engine over HTTP, and what comes back; every fault becomes ours here.

A failed connect is the only fault that means "was not sent", so each call connects anew. Errors
come as `{"error": "text"}`, as `{"error": {"message", "code", …}}` and, from a backend, as the
latter with other keys; all three are read. An engine may be any program: of its answers no more
is taken than memory bears, and their texts only as rows, paths and terminals can hold them.
"""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import httpx

from hal0.engines.process import is_loopback
from hal0.errors import (
    EngineBadAnswer,
    EngineRefused,
    EngineTimeout,
    EngineUnauthorized,
    EngineUnreachable,
)

CONNECT_S: Final = 5.0
PROBE_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 8 * 2**20
"""A router's list of a thousand models takes two MiB."""
MAX_MESSAGE: Final = 2000
"""Characters that are kept of what an error says; it may quote a request or a log."""

UNPOOLED: Final = httpx.Limits(max_keepalive_connections=0)
"""Every call connects anew: only then does "could not connect" mean "was not sent"."""
BODY_SENT: Final = "http11.send_request_body.complete"

MAX_TEXT: Final = 4096

_UNTELLABLE: Final = re.compile(r"[\x00\ud800-\udfff]")
"""What neither a path nor UTF-8 has: NUL, and half of a surrogate pair."""


Key = str | Callable[[], str | None] | None
"""What an engine wants to be shown, or who knows it: asked for each call, for it may change."""


class Wire:
    """A client of one server, for one event loop."""

    def __init__(
        self,
        url: str,
        key: Key = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare for the server at `url`, without a path; nothing is sent yet."""
        with our_errors(url):
            self.url = httpx.URL(url.rstrip("/"))
        self._key = key
        self._client = httpx.AsyncClient(
            transport=transport or httpx.AsyncHTTPTransport(verify=_tls(self.url), limits=UNPOOLED),
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()

    @asynccontextmanager
    async def limit(self, seconds: float) -> AsyncIterator[None]:
        """Give up after `seconds` of wall time: timeouts of httpx start anew with each byte."""
        with our_errors(self.url):
            async with asyncio.timeout(seconds):
                yield

    async def probe(self, url: str) -> int | None:
        """Return the status that `url` answers to a GET without the key; None = not in 5 s."""
        try:
            async with self.limit(PROBE_S):
                response = await self._read(self._client.build_request("GET", url))
        except (EngineUnreachable, EngineTimeout, EngineBadAnswer):
            return None
        return response.status_code

    async def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        on_sent: Callable[[], None] = lambda: None,
    ) -> httpx.Response:
        """Return the answer, whatever its status; `on_sent` is called before it is read."""
        is_sent = False
        headers = await self._headers()

        async def trace(event: str, info: object) -> None:
            nonlocal is_sent
            if event == BODY_SENT and not is_sent:
                is_sent = True
                on_sent()

        with our_errors(self.url):
            request = self._client.build_request(
                method,
                f"{self.url}{path}",
                json=body,
                headers=headers,
                extensions={"trace": trace},
            )
            response = await self._read(request)
        if not is_sent:  # a transport without sockets has no such event
            on_sent()
        return response

    async def _headers(self) -> dict[str, str]:
        """Return the key's header; a disk that hangs holds no other call up."""
        key = await asyncio.to_thread(self._key) if callable(self._key) else self._key
        return {"Authorization": f"Bearer {key}"} if key else {}

    async def _read(self, request: httpx.Request) -> httpx.Response:
        """Return status and whole body; raises EngineBadAnswer for one that is too long."""
        content = bytearray()
        response = await self._client.send(request, stream=True)
        try:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise EngineBadAnswer(
                        f"{request.url} answered more than {MAX_ANSWER_BYTES} bytes"
                    )
        finally:
            await response.aclose()
        return httpx.Response(response.status_code, content=bytes(content), request=request)


def _tls(url: httpx.URL) -> ssl.SSLContext:
    """Reading the machine's certificates takes longer than a health call; http needs none."""
    if url.scheme == "https":
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextmanager
def our_errors(url: object) -> Iterator[None]:
    """Map what httpx and a deadline raise; a failed connect is the only one that sent nothing."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
        is_refused = _was_refused(exc) and is_loopback(httpx.URL(str(url)))
        raise EngineUnreachable(
            f"no engine accepts connections at {url}: {str(exc) or type(exc).__name__}",
            evidence={"url": str(url), "nobody_listens": is_refused},
        ) from exc
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        raise EngineUnreachable(f"{url} is not the address of an engine: {exc}") from exc
    except (httpx.TimeoutException, TimeoutError) as exc:
        raise EngineTimeout(f"the engine at {url} did not answer in time") from exc
    except (OverflowError, UnicodeError, ExceptionGroup) as exc:
        raise EngineUnreachable(f"{url} is not the address of an engine: {exc}") from exc
    except (httpx.TransportError, httpx.DecodingError) as exc:
        what = str(exc) or type(exc).__name__
        raise EngineBadAnswer(f"the connection to the engine at {url} broke: {what}") from exc


def _was_refused(exc: BaseException | None) -> bool:
    """Tell a refused connection from all else that keeps one from being made."""
    while exc is not None:
        if isinstance(exc, BaseExceptionGroup):
            return all(_was_refused(one) for one in exc.exceptions)
        if isinstance(exc, ConnectionRefusedError):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def object_of(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a good answer.

    Raises EngineUnauthorized for a 401, EngineRefused for any other error, EngineBadAnswer for
    what is no JSON object.
    """
    _raise_for_refusal(response)
    body = json_of(response)
    if not isinstance(body, dict):
        raise EngineBadAnswer(f"{response.url} answered JSON that is no object")
    if "error" in body:
        message, code = error_of(response)
        raise EngineRefused(f"the engine answered: {message}", evidence={"engine_code": code})
    return body


def _raise_for_refusal(response: httpx.Response) -> None:
    if response.is_success:
        return
    message, code = error_of(response)
    evidence = {"http_status": response.status_code, "engine_code": code, "message": message}
    if response.status_code == 401:
        raise EngineUnauthorized(
            f"the engine refuses the key: {message}; `hal0 doctor` says what is wrong with it",
            evidence=evidence,
        )
    raise EngineRefused(
        f"the engine answered {response.status_code}: {message}; the engine's log has more",
        evidence=evidence,
    )


def error_of(response: httpx.Response) -> tuple[str, str | None]:
    """Return message and code of any of the three error shapes, or else the start of the text."""
    try:
        error = json_of(response)["error"]
    except (EngineBadAnswer, TypeError, KeyError):
        return tellable(response.text[:300]) or response.reason_phrase, None
    if isinstance(error, dict):
        message, code = error.get("message") or error, error.get("code")
        return str(message)[:MAX_MESSAGE], None if code is None else str(code)[:MAX_MESSAGE]
    return str(error)[:MAX_MESSAGE], None


def json_of(response: httpx.Response) -> Any:
    """Return what the body says, its texts tellable, NaN and Infinity as None.

    Raises EngineBadAnswer for what is no JSON.
    """
    try:
        return _tellable_all(json.loads(response.content, parse_constant=lambda _: None))
    except (ValueError, RecursionError) as exc:
        start = tellable(response.text[:100])
        raise EngineBadAnswer(f"{response.url} answered no JSON: {start!r}") from exc


def tellable(text: str) -> str:
    """Return the text with a sign in place of what no row, path or terminal takes."""
    return _UNTELLABLE.sub("\ufffd", text)


def _tellable_all(value: object) -> object:
    if isinstance(value, str):
        return tellable(value)
    if isinstance(value, list):
        return [_tellable_all(one) for one in value]
    if isinstance(value, dict):
        return {tellable(name): _tellable_all(one) for name, one in value.items()}
    return value


def int_of(value: object) -> int | None:
    """Return a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text_of(value: object) -> str | None:
    """Return a text that is not empty, and no longer than any path may be, else None."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT else None
