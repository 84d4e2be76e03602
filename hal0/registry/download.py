"""How a file is downloaded: over HTTP, taken up where it broke off, believed in nothing.

A download goes on behind its part (`part.py`) with Range and If-Range, so a source whose file is
another by now sends it anew. Length, range, coding and redirects of every answer are checked before
a byte of it is kept. What may pass (a broken connection, a server that is busy or sends nothing) is
a SourceFault, for the job to try again; nothing is tried again here.

The operator's URL is trusted to name any host. A redirect is not (ADR-0009): it may not leave the
host for an address that the public network does not have (the metadata service of a cloud, a
router), nor leave TLS. The address that counts is the one that was connected to, looked at before
the request is sent, so a name that resolves otherwise the second time is of no use.

Waits are bounded by our own clock: a source that sends less than `STALL_BYTES` within `stall_s` is
given up, dribbled bytes or not, and whoever wants the download to stop waits a fifth of a second.
"""

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx

from hal0 import __version__
from hal0.errors import (
    PullError,
    SourceBadAnswer,
    SourceNotFound,
    SourceRefused,
    SourceStalled,
    SourceUnreachable,
)
from hal0.registry.checksum import Interrupted
from hal0.registry.part import Beginning, Fetched, Part, Watcher, open_part, regular

T = TypeVar("T")
MAX_REDIRECTS: Final = 10
STALL_BYTES: Final = 16 * 1024
LOOK_EVERY_S: Final = 0.2
MAX_RETRY_AFTER_S: Final = 600.0

_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_GONE: Final = {404, 410}
_REFUSED: Final = {401, 402, 403, 407, 451}
_BUSY: Final = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class Download:
    """What to fetch: `url` for the file that rows call `source`.

    Size and digest are what is registered, None where nothing is. `authorization` is a header's
    value that the URL's own origin gets, and no other. `again` fetches what is there already.
    """

    source: str
    url: str
    target: Path
    size_bytes: int | None = None
    sha256: str | None = None
    authorization: str | None = None
    again: bool = False


def download(wanted: Download, watcher: Watcher, *, stall_s: float) -> Fetched | None:
    """Fetch a file to its final place; None = another brought it while we waited for its part.

    Raises SourceFault for what may pass; SourceNotFound, SourceRefused, SourceBadAnswer;
    FetchedMismatch; DiskFull and PullError of the models folder; Interrupted. The part is kept.
    """
    watcher.on_fetch()
    with open_part(wanted.target, watcher.should_stop) as part:
        if regular(wanted.target) is not None and not wanted.again:
            return None
        one = _Download(wanted, part, watcher, stall_s)
        _run(one.run(), watcher.should_stop)
        return part.finish(wanted.sha256)


def size_at_source(wanted: Download, watcher: Watcher, *, stall_s: float) -> int | None:
    """Ask how many bytes a file has, without fetching it; None = the source does not say.

    A refusal says nothing: some give a file to GET alone. Raises SourceFault, SourceBadAnswer.
    """

    async def ask() -> int | None:
        async with _client() as client, _answer(client, wanted, "HEAD", {}, stall_s) as response:
            return _length(response) if response.is_success else None

    return _run(ask(), watcher.should_stop)


def _run(work: "Awaitable[T]", should_stop: Callable[[], bool]) -> T:
    """Run async work in this thread until it ends, or until it should stop: Interrupted."""

    async def watched() -> T:
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK_EVERY_S)
            if not task.done() and should_stop():
                task.cancel()
                await asyncio.wait({task})
                raise Interrupted
        return task.result()

    return asyncio.run(watched())


class _Download:
    """One attempt at one file."""

    def __init__(self, wanted: Download, part: Part, watcher: Watcher, stall_s: float) -> None:
        self._wanted = wanted
        self._part = part
        self._watcher = watcher
        self._stall_s = stall_s
        self._total = wanted.size_bytes

    async def run(self) -> None:
        """Bring the part to its full length."""
        held = self._part.beginning
        async with _client() as client:
            if held is not None and held.source == self._wanted.source and self._fits(held):
                self._part.take_up(held, self._watcher)
                if await self._went_on(client, held):
                    return
            async with self._answer(client, {}) as response:
                await self._take_whole(response)

    def _fits(self, held: Beginning) -> bool:
        return None in (self._wanted.size_bytes, held.total_bytes) or (
            self._wanted.size_bytes == held.total_bytes
        )

    async def _went_on(self, client: httpx.AsyncClient, held: Beginning) -> bool:
        """Fetch what is missing behind the part; False = the source cannot, or not of this file."""
        part, self._total = self._part, held.total_bytes or self._total
        if self._total is not None and part.size >= self._total:
            return part.size == self._total
        assert held.validator is not None
        headers = {"Range": f"bytes={part.size}-", "If-Range": held.validator}
        async with self._answer(client, headers) as response:
            if response.status_code == httpx.codes.OK:
                await self._take_whole(response)
                return True
            if response.status_code == httpx.codes.PARTIAL_CONTENT and self._goes_on(
                response, held
            ):
                await self._take(response)
                return True
            if response.status_code not in {206, 416}:
                _refuse_status(self._wanted, response)
        return False

    def _goes_on(self, response: httpx.Response, held: Beginning) -> bool:
        """Tell whether the answer is the very rest of the part, and note how long the whole is."""
        found = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != self._part.size or _coding(response):
            return False
        if _validator(response) not in {None, held.validator}:
            return False
        total = None if found[3] == "*" else int(found[3])
        if total is not None and (int(found[2]) != total - 1 or self._total not in {None, total}):
            return False
        self._total = self._total or total
        return True

    async def _take_whole(self, response: httpx.Response) -> None:
        """Begin anew with an answer that has the whole file."""
        wanted = self._wanted
        _refuse_status(wanted, response)
        if response.status_code != httpx.codes.OK:
            raise _bad(wanted, f"it answered {response.status_code} to a plain request")
        if coding := _coding(response):
            raise _bad(wanted, f"it sends the file as {coding}, though that was not asked for")
        length = _length(response)
        if length is not None and wanted.size_bytes not in {None, length}:
            raise _bad(
                wanted,
                f"it has {length} bytes, registered are {wanted.size_bytes}",
                {"expected": wanted.size_bytes, "found": length},
            )
        self._total = wanted.size_bytes if length is None else length
        self._part.begin(Beginning(wanted.source, _validator(response), self._total))
        self._watcher.on_progress("fetch", 0, self._total or 0)
        await self._take(response)

    async def _take(self, response: httpx.Response) -> None:
        part, total = self._part, self._total
        async for chunk in self._chunks(response):
            if total is not None and part.size + len(chunk) > total:
                part.discard()
                raise _bad(self._wanted, f"it sends more than the {total} bytes that it has")
            part.append(chunk)
            self._watcher.on_progress("fetch", part.size, total or 0)
        if total is not None and part.size < total:
            raise SourceUnreachable(
                f"{self._wanted.source} broke off after {part.size} of {total} bytes",
                evidence={"source": self._wanted.source, "expected": total, "found": part.size},
            )

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Yield the body as it comes; raises SourceStalled when next to nothing does."""
        loop = asyncio.get_running_loop()
        body = aiter(response.aiter_raw())
        until, gained = loop.time() + self._stall_s, 0
        while True:
            async with _within(self._wanted, until - loop.time(), self._stall_s):
                chunk = await anext(body, None)
            if chunk is None:
                return
            before = loop.time()
            yield chunk
            until += loop.time() - before  # a slow disk is not the source's fault
            gained += len(chunk)
            if gained >= STALL_BYTES:
                until, gained = loop.time() + self._stall_s, 0

    @asynccontextmanager
    async def _answer(
        self, client: httpx.AsyncClient, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        async with _answer(client, self._wanted, "GET", headers, self._stall_s) as response:
            yield response


def _client() -> httpx.AsyncClient:
    headers = {"Accept-Encoding": "identity", "User-Agent": f"hal0/{__version__}"}
    return httpx.AsyncClient(headers=headers, timeout=None)  # noqa: S113 - `_within` bounds all


@asynccontextmanager
async def _answer(
    client: httpx.AsyncClient,
    wanted: Download,
    method: str,
    headers: Mapping[str, str],
    stall_s: float,
) -> AsyncIterator[httpx.Response]:
    """Send a request, follow its redirects as far as that is allowed, close what comes of it."""
    sent = dict(headers)
    if wanted.authorization is not None:
        sent["Authorization"] = wanted.authorization
    with _source_errors(wanted):
        request = client.build_request(method, wanted.url, headers=sent)
        named = request.url.host
        for _ in range(MAX_REDIRECTS + 1):
            request.extensions["trace"] = _guard(wanted, request.url.host, named)
            async with _within(wanted, stall_s, stall_s):
                response = await client.send(request, stream=True)
            if response.next_request is None:
                break
            await response.aclose()
            request = _allowed(wanted, request, response.next_request)
        else:
            raise _bad(wanted, f"it redirects more than {MAX_REDIRECTS} times")
        try:
            yield response
        finally:
            await response.aclose()


def _allowed(wanted: Download, before: httpx.Request, after: httpx.Request) -> httpx.Request:
    where = f"{after.url.scheme}://{after.url.host}"
    if after.url.scheme not in {"http", "https"}:
        raise _bad(wanted, f"it redirects to {where}, which is no web server")
    if before.url.scheme == "https" and after.url.scheme == "http":
        raise _bad(wanted, f"it redirects from https to {where}")
    return after


def _guard(wanted: Download, host: str, named: str) -> Callable[[str, Any], Awaitable[None]]:
    """Return a hook of httpcore that refuses the address that a redirect led to."""
    is_trusted = host == named
    is_proxied = bool(getproxies()) and not proxy_bypass(host)

    async def look(event: str, info: Mapping[str, Any]) -> None:
        if is_trusted or event != "connection.connect_tcp.complete":
            return
        stream = info["return_value"]
        address = host if is_proxied else stream.get_extra_info("server_addr")[0]
        if not _is_public(address):
            await stream.aclose()
            raise _bad(wanted, f"it redirects to {host}, whose address {address} is private")

    return look


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return True  # a name, and a proxy that resolves it
    return (getattr(found, "ipv4_mapped", None) or found).is_global


@asynccontextmanager
async def _within(wanted: Download, left_s: float, stall_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(max(0.0, left_s)):
            yield
    except TimeoutError as exc:
        raise SourceStalled(
            f"{wanted.source} sent nothing, or next to nothing, for {stall_s:g} s",
            evidence={"source": wanted.source, "stall_s": stall_s},
        ) from exc


@contextmanager
def _source_errors(wanted: Download) -> Iterator[None]:
    """Map what httpx raises to what it means of the source; the one place where that is done."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as exc:
        raise _bad(wanted, f"it leads to what is no URL: {exc}") from exc
    except httpx.HTTPError as exc:
        why = str(exc) or type(exc).__name__
        raise SourceUnreachable(
            f"{wanted.source} cannot be reached, or broke off: {why}",
            evidence={"source": wanted.source, "reason": why},
        ) from exc


def _refuse_status(wanted: Download, response: httpx.Response) -> None:
    """Raise what a status other than a success means."""
    status = response.status_code
    if response.is_success:
        return
    evidence = {"source": wanted.source, "http_status": status}
    said = f"{wanted.source}: the server answered {status} {response.reason_phrase}".rstrip()
    if status in _GONE:
        raise SourceNotFound(f"{said}; correct the source", evidence=evidence)
    if status in _REFUSED:
        raise SourceRefused(f"{said}: it does not give the file to us", evidence=evidence)
    if status in _BUSY or response.is_server_error:
        after = response.headers.get("retry-after", "")
        retry_after_s = (
            min(float(after), MAX_RETRY_AFTER_S) if after.isascii() and after.isdigit() else None
        )
        raise SourceUnreachable(said, evidence=evidence, retry_after_s=retry_after_s)
    raise SourceBadAnswer(said, evidence=evidence)


def _bad(wanted: Download, how: str, evidence: Mapping[str, Any] | None = None) -> PullError:
    return SourceBadAnswer(
        f"{wanted.source} cannot be downloaded: {how}",
        evidence={"source": wanted.source, "reason": how, **(evidence or {})},
    )


def _coding(response: httpx.Response) -> str | None:
    """Return how the body is coded, or that it has several parts; None = it is the file itself."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    kind = str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()
    if kind == "multipart/byteranges":
        return kind
    return None if coding in {"", "identity"} else str(coding)


def _length(response: httpx.Response) -> int | None:
    length = str(response.headers.get("content-length", ""))
    return int(length) if length.isascii() and length.isdigit() and not _coding(response) else None


def _validator(response: httpx.Response) -> str | None:
    """Return what changes with the file: a strong ETag, else the date of its last change."""
    etag = str(response.headers.get("etag", ""))
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("last-modified") or None
