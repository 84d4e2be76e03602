"""How hal0's wishes are said to Lemonade.

Written against lemond 11.7; the embedded engine speaks the same wire. What this adapter never does:
load without all options, unload without a name (Lemonade then unloads everything), repeat a
request. What the answers mean is in `lemonade_answers`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import quote

import httpx

from hal0.engines.base import EngineHealth, EngineModel, LoadedModel
from hal0.engines.lemonade_answers import int_of, limit_of_models, models_of, object_of, text_of
from hal0.engines.options import wire_body
from hal0.engines.process import is_loopback, listener_name, process_name
from hal0.errors import EngineBadAnswer, EngineTimeout, EngineUnreachable

CONNECT_S: Final = 5.0
PROBE_S: Final = 5.0
HEALTH_S: Final = 30.0
"""Lemonade holds its router lock through an unload of a busy model: 18 s were measured."""
RESOLVE_S: Final = 30.0

UNPOOLED: Final = httpx.Limits(max_keepalive_connections=0)
"""Every call connects anew: only then does "could not connect" mean "was not sent"."""
BODY_SENT: Final = "http11.send_request_body.complete"


class LemonadeEngine:
    """One Lemonade server, or anything that speaks its wire."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a client for the server at `url`, without a path; nothing is sent yet."""
        with _our_errors(url):
            self._url = httpx.URL(url.rstrip("/"))
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(
            transport=transport
            or httpx.AsyncHTTPTransport(verify=_tls(self._url), limits=UNPOOLED),
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            trust_env=False,
        )

    async def is_live(self) -> bool:
        """Tell whether anything but a server error comes back from `/live` within 5 s."""
        try:
            async with self._limit(PROBE_S):
                response = await self._client.get(f"{self._url}/live")
        except (EngineUnreachable, EngineTimeout, EngineBadAnswer):
            return False
        return response.status_code < 500

    async def health(self) -> EngineHealth:
        """Read `/v1/health`; a list that is missing or holds nonsense is unknown, not empty."""
        async with self._limit(HEALTH_S):
            body = object_of(await self._send("GET", "/v1/health"))
        return EngineHealth(
            process=await asyncio.to_thread(self._process, body),
            models=models_of(body),
            max_models=limit_of_models(body),
        )

    async def resolve(self, name: str) -> EngineModel | None:
        """Read `/v1/models/{name}`: the public name, which health lists, and the file."""
        async with self._limit(RESOLVE_S):
            response = await self._send("GET", f"/v1/models/{quote(_checked(name), safe='')}")
        if response.status_code == 404:
            return None
        body = object_of(response)
        public = body.get("id")
        if not isinstance(public, str) or not public:
            raise EngineBadAnswer(f"{self._url} describes model {name!r} without an id")
        files = body.get("checkpoints")
        files = files if isinstance(files, dict) else {}
        main = files.get("main")
        return EngineModel(
            name=public,
            checkpoint=text_of(main) or text_of(body.get("checkpoint")),
            downloaded=body.get("downloaded") is True,
            others=tuple(text_of(path) or "" for role, path in files.items() if role != "main"),
        )

    async def load(
        self, name: str, options: Mapping[str, Any], on_sent: Callable[[], None]
    ) -> None:
        """Send one load with every option and wait for its answer.

        Raises ValueError for a bad name or option before anything is sent. EngineUnreachable
        means: not sent. Whoever calls this owns the clock (ADR-0007); leaving does not stop the
        load in the engine.
        """
        body = wire_body(_checked(name), options)
        with _our_errors(self._url):
            response = await self._send("POST", "/v1/load", body, on_sent)
        object_of(response)

    async def unload(self, name: str, on_sent: Callable[[], None]) -> bool:
        """Unload one model by its public name; False = it was not loaded.

        Raises ValueError, and sends nothing, for a name that Lemonade could take for none. Waits
        for the model's running requests as long as the engine does: the caller owns the clock.
        """
        body = {"model_name": _checked(name)}
        with _our_errors(self._url):
            response = await self._send("POST", "/v1/unload", body, on_sent)
        if response.status_code == 404:
            return False
        object_of(response)
        return True

    async def answers(self, model: LoadedModel) -> bool:
        """Tell whether the model's own server says it is healthy, within 5 s.

        False only when it was asked and did not say so. True is no more than the absence of that
        proof: also when the engine names no address, or one on another machine's loopback.
        """
        if model.backend_url is None:
            return True
        try:
            async with self._limit(PROBE_S):
                backend = httpx.URL(model.backend_url.rstrip("/").removesuffix("/v1"))
                if is_loopback(backend) and not is_loopback(self._url):
                    return True
                response = await self._client.get(f"{backend}/health")
        except (EngineUnreachable, EngineTimeout, EngineBadAnswer):
            return False
        return response.status_code == 200

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()

    def _process(self, body: Mapping[str, Any]) -> str | None:
        if not is_loopback(self._url):
            return None
        pid = int_of(body.get("pid"))
        return listener_name(self._url) if pid is None else process_name(pid)

    @asynccontextmanager
    async def _limit(self, seconds: float) -> AsyncIterator[None]:
        """Give up after `seconds` of wall time: timeouts of httpx start anew with each byte."""
        with _our_errors(self._url):
            async with asyncio.timeout(seconds):
                yield

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        on_sent: Callable[[], None] = lambda: None,
    ) -> httpx.Response:
        """Return the answer, whatever its status; `on_sent` is called before it is read."""
        is_sent = False

        async def trace(event: str, info: object) -> None:
            nonlocal is_sent
            if event == BODY_SENT and not is_sent:
                is_sent = True
                on_sent()

        response = await self._client.request(
            method,
            f"{self._url}{path}",
            json=body,
            headers=self._headers,
            extensions={"trace": trace},
        )
        if not is_sent:  # a transport without sockets has no such event
            on_sent()
        return response


def _tls(url: httpx.URL) -> ssl.SSLContext:
    """Reading the machine's certificates takes longer than a health call; http needs none."""
    if url.scheme == "https":
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextmanager
def _our_errors(url: object) -> Iterator[None]:
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


def _checked(name: str) -> str:
    """Return the name, or raise ValueError: to unload "" means to Lemonade to unload everything."""
    given: object = name  # rows and JSON do not know the annotation
    if not isinstance(given, str) or not given.strip() or not given.isprintable():
        raise ValueError(f"{name!r} names no model")
    return name
