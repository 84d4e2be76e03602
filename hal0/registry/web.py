"""One request to a source of the network: sent, followed, guarded, and what went wrong named.

Neither who registered the URL nor who redirects it is trusted to name any host (ADR-0009):
`reach.py` judges each by its name, by the addresses that its name has before a connection is made,
and by the one that was connected to before the request is sent, for a name server may change its
mind. A redirect may not leave TLS either. Where a proxy connects in our place, only names and
addresses that are written out can be looked at.

Every wait is bounded by our own clock, and whoever wants to stop waits a fifth of a second. What
may pass is a SourceFault; nothing is tried again here.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx

from hal0 import __version__
from hal0.errors import (
    HostNotAllowed,
    PullError,
    SourceBadAnswer,
    SourceNotFound,
    SourceRefused,
    SourceStalled,
    SourceUnreachable,
)
from hal0.registry.checksum import Interrupted
from hal0.registry.reach import Reach

T = TypeVar("T")
MAX_REDIRECTS: Final = 10
LOOK_EVERY_S: Final = 0.2
MAX_RETRY_AFTER_S: Final = 600.0
MAX_TOLD: Final = 400
"""So many characters of what may come from a server end up in rows."""
GONE: Final = frozenset({404, 410})
REFUSED: Final = frozenset({401, 402, 403, 407, 451})
BUSY: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom to ask: the URL, what people call it in messages, whom it may be or redirect to.

    `authorization` is a header's value that the URL's own origin gets, and no other.
    """

    source: str
    url: str
    stall_s: float
    reach: Reach
    authorization: str | None = None

    def bad(self, how: str, **evidence: Any) -> PullError:
        """Build the error for an answer that is no download of this file."""
        how = how[:MAX_TOLD]
        return SourceBadAnswer(
            f"{self.source} cannot be downloaded: {how}",
            evidence={"source": self.source, "reason": how, **evidence},
        )

    def broke_off(self, how: str, **evidence: Any) -> SourceUnreachable:
        """Build the error for a connection that could not be had, or kept."""
        how = how[:MAX_TOLD]
        return SourceUnreachable(
            f"{self.source} cannot be reached, or broke off: {how}",
            evidence={"source": self.source, "reason": how, **evidence},
        )


class _Impatient(ThreadPoolExecutor):
    """Where names are resolved: one that is not answered holds up no download's end.

    The end of the process waits for it, as long as the resolver's own limit.
    """

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def run(work: "Awaitable[T]", should_stop: Callable[[], bool]) -> T:
    """Run async work in this thread until it ends, or until it should stop: Interrupted."""

    async def watched() -> T:
        asyncio.get_running_loop().set_default_executor(_Impatient())
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK_EVERY_S)
            if not task.done() and should_stop():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                raise Interrupted
        return task.result()

    return asyncio.run(watched())


@contextmanager
def source_errors(asked: Asked) -> Iterator[None]:
    """Map what httpx raises to what it means of the source; the one place where that is done."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as exc:
        raise asked.bad(f"it leads to what is no URL: {exc}") from exc
    except httpx.HTTPError as exc:
        is_odd = isinstance(exc, httpx.RemoteProtocolError) and "redirect URL" in str(exc)
        error = asked.bad if is_odd else asked.broke_off
        raise error(str(exc) or type(exc).__name__) from exc
    except UnicodeError as exc:  # of a host name that IDNA does not know
        raise asked.bad(f"it leads to what is no host: {exc}") from exc


@asynccontextmanager
async def client(asked: Asked) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client without timeouts: `within` bounds every wait."""
    headers = {"Accept-Encoding": "identity", "User-Agent": f"hal0/{__version__}"}
    try:
        made = httpx.AsyncClient(headers=headers, timeout=None)  # noqa: S113
    except (ImportError, OSError, ValueError) as exc:
        raise PullError(
            f"{asked.source} cannot be asked for: the environment of the worker names a proxy or "
            f"certificates that cannot be used ({exc}); see HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, "
            "SSL_CERT_FILE and SSL_CERT_DIR",
            evidence={"source": asked.source, "reason": str(exc)},
        ) from exc
    async with made:
        yield made


@asynccontextmanager
async def answer(
    to_ask: httpx.AsyncClient, asked: Asked, method: str, headers: Mapping[str, str]
) -> AsyncIterator[httpx.Response]:
    """Send a request, follow its redirects as far as that is allowed, close what comes of it."""
    sent = dict(headers)
    if asked.authorization is not None:
        sent["Authorization"] = asked.authorization
    with source_errors(asked):
        request = to_ask.build_request(method, asked.url, headers=sent)
        for hop in range(MAX_REDIRECTS + 1):
            request.extensions["trace"] = _Guard(asked, request.url, is_redirect=hop > 0).look
            async with within(asked, asked.stall_s):
                response = await to_ask.send(request, stream=True)
            if response.next_request is None:
                break
            await response.aclose()
            request = _allowed(asked, request, response.next_request)
        else:
            raise asked.bad(f"it redirects more than {MAX_REDIRECTS} times")
        try:
            yield response
        finally:
            await response.aclose()


def _allowed(asked: Asked, before: httpx.Request, after: httpx.Request) -> httpx.Request:
    where = f"{after.url.scheme}://{after.url.host}"
    if after.url.scheme not in {"http", "https"}:
        raise asked.bad(f"it redirects to {where}, which is no web server")
    if before.url.scheme == "https" and after.url.scheme == "http":
        raise asked.bad(f"it redirects from https to {where}")
    if not 0 < (after.url.port or 80) < 2**16:
        raise asked.bad(f"it redirects to port {after.url.port} of {where}, which is none")
    return after


class _Guard:
    """Judges where one request goes: its host when it is made, each address that it connects to."""

    def __init__(self, asked: Asked, url: httpx.URL, *, is_redirect: bool) -> None:
        self._source = asked.source
        self._reach = asked.reach
        self._host = url.raw_host.decode("ascii")
        self._leads = "redirects to" if is_redirect else "is at"
        self._is_direct = True
        self._reach.ensure_host(self._source, self._host, leads=self._leads)

    async def look(self, event: str, info: Mapping[str, Any]) -> None:
        """Follow the request as httpcore traces it."""
        if event == "connection.connect_tcp.started":
            self._is_direct = info["host"] == self._host  # else a proxy is asked to connect
            if self._is_direct:
                for address in await _addresses(self._host, info["port"]):
                    self._ensure(address)
        elif event == "connection.connect_tcp.complete" and self._is_direct:
            stream = info["return_value"]
            try:
                self._ensure(stream.get_extra_info("server_addr")[0])
            except HostNotAllowed:
                await stream.aclose()
                raise

    def _ensure(self, address: str) -> None:
        self._reach.ensure_address(self._source, self._host, address, leads=self._leads)


async def _addresses(host: str, port: int) -> set[str]:
    """Return what a name stands for now: an address of ours is not even knocked at."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return set()  # connecting will say so
    return {str(name[0]) for *_, name in found}


@asynccontextmanager
async def within(asked: Asked, left_s: float) -> AsyncIterator[None]:
    """Bound a wait. Raises SourceStalled."""
    try:
        async with asyncio.timeout(max(0.0, left_s)):
            yield
    except TimeoutError as exc:
        raise SourceStalled(
            f"{asked.source} sent nothing, or next to nothing, for {asked.stall_s:g} s",
            evidence={"source": asked.source, "stall_s": asked.stall_s},
        ) from exc


def refuse_status(asked: Asked, response: httpx.Response) -> None:
    """Raise what a status other than a success means."""
    status = response.status_code
    if response.is_success:
        return
    evidence = {"source": asked.source, "http_status": status}
    reason = response.reason_phrase[:MAX_TOLD]
    said = f"{asked.source}: the server answered {status} {reason}".rstrip()
    if status in GONE:
        raise SourceNotFound(
            f"{said}; register the model anew, with a source that is there", evidence=evidence
        )
    if status in REFUSED:
        raise SourceRefused(f"{said}: it does not give the file to us", evidence=evidence)
    if status in BUSY or response.is_server_error:
        after_s = retry_after_s(response.headers)
        raise SourceUnreachable(said, evidence=evidence, retry_after_s=after_s)
    raise SourceBadAnswer(said, evidence=evidence)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long a server wants to be left alone, at most `MAX_RETRY_AFTER_S`."""
    after = headers.get("Retry-After", "")
    if not (after.isascii() and after.isdigit()):
        return None
    return min(float(after[:9]), MAX_RETRY_AFTER_S)
