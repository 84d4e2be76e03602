"""How a file is downloaded: taken up where it broke off, believed in nothing (ADR-0009).

A download goes on behind its part (`part.py`) with Range and If-Range, so a source whose file is
another by now sends it anew. Length, range and coding of every answer are checked before a byte of
it is kept; where no digest is registered, the header of what came is checked before it gets a name.
Requests, redirects and their errors are in `web.py`. Nothing is tried again here.
"""

import asyncio
import io
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import httpx

from hal0.errors import NotAGguf, Truncated
from hal0.registry import web
from hal0.registry.gguf import read_header
from hal0.registry.part import Beginning, Fetched, Part, Watcher, ensure_room, open_part
from hal0.registry.reach import PUBLIC_ONLY, Reach
from hal0.registry.web import Asked

STALL_BYTES: Final = 16 * 1024
"""A source that sends less within `stall_s` is given up, dribbled bytes or not."""
QUESTION_S: Final = 5.0
"""How long a source may take to say a size, on which nothing depends."""
SETTLED: Final = timedelta(seconds=60)
"""Dates count whole seconds: one that is younger may stand for two contents (RFC 9110 8.8.2.2)."""

_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_STRONG_ETAG: Final = re.compile(r'"[!#-~]*"')


@dataclass(frozen=True, slots=True)
class Download:
    """What to fetch: `url` for the file that messages call `source`.

    Size and digest are what is registered, None where nothing is. `is_gguf` has the header checked
    where no digest is. `authorization` is a header's value for the URL's own origin alone; `reach`
    says which hosts may be asked.
    """

    source: str
    url: str
    target: Path
    size_bytes: int | None = None
    sha256: str | None = None
    is_gguf: bool = False
    reach: Reach = PUBLIC_ONLY
    authorization: str | None = None

    @property
    def key(self) -> str:
        """What names the very bytes: of a source with a query its digest, for it may be a secret.

        Signed anew, it is another source.
        """
        if "?" not in self.url:
            return self.source
        return f"{self.source}#{sha256(self.url.encode()).hexdigest()[:32]}"

    def asked(self, stall_s: float) -> Asked:
        """Return whom to ask."""
        return Asked(self.source, self.url, stall_s, self.reach, self.authorization)


def download(wanted: Download, watcher: Watcher, *, stall_s: float) -> Fetched:
    """Fetch a file to its final place, in place of what may be there.

    Raises SourceFault for what may pass; SourceNotFound, SourceRefused, SourceBadAnswer,
    HostNotAllowed; FetchedMismatch; DiskFull and PullError of the models folder; Interrupted; and
    what the watcher does. The part is kept.
    """
    watcher.on_fetch()
    with open_part(wanted.target, watcher) as part:
        one = _Download(wanted, part, watcher, stall_s)
        web.run(one.run(), watcher.should_stop)
        one.refuse_unfit()
        return part.finish(wanted.sha256)


def size_at_source(wanted: Download, watcher: Watcher, *, stall_s: float) -> int | None:
    """Ask how many bytes a file has, without fetching it; None = the source does not say.

    A refusal says nothing: some give a file to GET alone. Raises SourceFault, SourceBadAnswer,
    HostNotAllowed.
    """
    asked = wanted.asked(min(stall_s, QUESTION_S))

    async def ask() -> int | None:
        async with web.client(asked) as client, web.answer(client, asked, "HEAD", {}) as response:
            return _length(response) if response.is_success else None

    return web.run(ask(), watcher.should_stop)


class _Download:
    """One attempt at one file."""

    def __init__(self, wanted: Download, part: Part, watcher: Watcher, stall_s: float) -> None:
        self._wanted = wanted
        self._asked = wanted.asked(stall_s)
        self._part = part
        self._watcher = watcher
        self._total = wanted.size_bytes

    async def run(self) -> None:
        """Bring the part to its full length."""
        held = self._part.beginning
        async with web.client(self._asked) as client:
            if held is not None and held.source == self._wanted.key and self._fits(held):
                self._part.take_up(held)
                if await self._went_on(client, held):
                    return
            async with web.answer(client, self._asked, "GET", {}) as response:
                await self._take_whole(response)

    def refuse_unfit(self) -> None:
        """Look at the header of a model of which no digest is registered.

        Raises SourceUnreachable when it may only have been cut short, else SourceBadAnswer, and
        keeps the file as `.bad`: a page of a portal must not take the place of a model.
        """
        if self._wanted.sha256 is not None or not self._wanted.is_gguf:
            return
        try:
            with self._part.reading() as fd, io.FileIO(fd, closefd=False) as raw:
                read_header(raw, self._part.size)
        except (NotAGguf, Truncated) as exc:
            if self._total is None and isinstance(exc, Truncated):
                raise self._asked.broke_off(
                    f"it sent {self._part.size} bytes without saying how many there are: "
                    f"{exc.detail}"
                ) from exc
            kept = self._part.set_aside()
            raise self._asked.bad(
                f"what it sent is no whole model: {exc.detail}; it is kept as {kept}",
                kept_as=str(kept),
                size_bytes=self._part.size,
            ) from exc

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
        async with web.answer(client, self._asked, "GET", headers) as response:
            if response.status_code == httpx.codes.OK:
                await self._take_whole(response)
                return True
            if response.status_code == httpx.codes.PARTIAL_CONTENT:
                if self._goes_on(response, held):
                    await self._take(response)
                    return True
            elif response.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                web.refuse_status(self._asked, response)
        return False

    def _goes_on(self, response: httpx.Response, held: Beginning) -> bool:
        """Tell whether the answer is the very rest of the part, and note how long the whole is."""
        found = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != self._part.size or _coding(response):
            return False
        if _etag(response) not in {None, held.validator} and '"' in str(held.validator):
            return False
        total = self._total if found[3] == "*" else int(found[3])
        if total is None or int(found[2]) != total - 1 or self._total not in {None, total}:
            return False
        self._total = total
        ensure_room({self._wanted.target: total}, self._watcher.reserve_bytes)
        return True

    async def _take_whole(self, response: httpx.Response) -> None:
        """Begin anew with an answer that has the whole file."""
        wanted, asked = self._wanted, self._asked
        web.refuse_status(asked, response)
        if response.status_code != httpx.codes.OK:
            raise asked.bad(f"it answered {response.status_code} to a plain request")
        if coding := _coding(response):
            raise asked.bad(f"it sends the file as {coding}, though that was not asked for")
        length = _length(response)
        if length is not None and wanted.size_bytes not in {None, length}:
            raise asked.bad(
                f"it has {length} bytes, registered are {wanted.size_bytes}",
                expected=wanted.size_bytes,
                found=length,
            )
        self._total = wanted.size_bytes if length is None else length
        if self._total is not None:
            ensure_room({wanted.target: self._total}, self._watcher.reserve_bytes)
        self._part.begin(Beginning(wanted.key, _validator(response), self._total))
        self._watcher.on_progress("fetch", 0, self._total or 0)
        await self._take(response)

    async def _take(self, response: httpx.Response) -> None:
        part, total = self._part, self._total
        async for chunk in self._chunks(response):
            if total is not None and part.size + len(chunk) > total:
                part.discard()
                raise self._asked.bad(f"it sends more than the {total} bytes that it has")
            part.append(chunk)
            self._watcher.on_progress("fetch", part.size, total or 0)
        if total is not None and part.size < total:
            raise self._asked.broke_off(
                f"{part.size} of {total} bytes came", expected=total, found=part.size
            )

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Yield the body as it comes; raises SourceStalled when next to nothing does."""
        loop, stall_s = asyncio.get_running_loop(), self._asked.stall_s
        body = aiter(response.aiter_raw())
        until, gained = loop.time() + stall_s, 0
        while True:
            async with web.within(self._asked, until - loop.time()):
                chunk = await anext(body, None)
            if chunk is None:
                return
            before = loop.time()
            yield chunk
            until += loop.time() - before  # a slow disk is not the source's fault
            gained += len(chunk)
            if gained >= STALL_BYTES:
                until, gained = loop.time() + stall_s, 0


def _coding(response: httpx.Response) -> str | None:
    """Return how the body is coded, or that it has several parts; None = it is the file itself."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    kind = str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()
    if kind == "multipart/byteranges":
        return kind
    return None if coding in {"", "identity"} else str(coding)


def _length(response: httpx.Response) -> int | None:
    length = str(response.headers.get("content-length", ""))
    is_number = length.isascii() and length.isdigit() and len(length) <= 18
    return int(length) if is_number and not _coding(response) else None


def _validator(response: httpx.Response) -> str | None:
    """Return what changes whenever the file does: a strong ETag, else a date that is settled."""
    return _etag(response) or _settled_date(response)


def _etag(response: httpx.Response) -> str | None:
    etag = str(response.headers.get("etag", ""))
    return etag if _STRONG_ETAG.fullmatch(etag) else None


def _settled_date(response: httpx.Response) -> str | None:
    changed = str(response.headers.get("last-modified", ""))
    then, now = _instant(changed), _instant(str(response.headers.get("date", "")))
    return changed if then and now and now - then >= SETTLED else None


def _instant(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo is not None and text.isascii() and len(text) < 50 else None
