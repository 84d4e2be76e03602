"""Who listens to events, and the one reader of this process that tells them all.

    listen   a listener asks for a start: a snapshot, and the id up to which it holds
    tell     from there on it gets what each look found, the same bytes as all others
    behind   who does not take what it is told is told no more, and asks for a new start

All who have started stand between the same two looks, so nobody needs a look, a query or a copy of
its own. The reader rests while nobody listens. Belongs to one event loop.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from hal0.api.keyring import Keyring
from hal0.api.news import Look, News, Page, page_between
from hal0.db import Database
from hal0.errors import DatabaseError, TooManyStreams
from hal0.settings import Settings

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25
PING_S: Final = 15.0
"""So long a stream is silent at most."""
BETWEEN_S: Final = 0.05
"""So long a look comes after another, also when somebody waits for a start."""
MOST_LISTENERS: Final = 1000
MOST_UNTAKEN: Final = 64
"""What so many looks found is kept for who is slow: the same bytes for all of them."""
READERS: Final = 4
"""So many who come back read old rows at once."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a listener begins: a snapshot that holds up to a transition of an epoch."""

    epoch: int
    last_id: int
    snapshot: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """What one look found, up to a transition."""

    last_id: int
    data: bytes


class Listener:
    """One who is told; `actor` is by whose right."""

    def __init__(self, feed: "Feed", actor: str) -> None:
        self.actor = actor
        self.is_ended = False
        self._feed = feed
        self._has_started = False
        self._untaken: deque[Start | Batch] = deque()
        self._is_news = asyncio.Event()

    def start(self, start: Start) -> None:
        """Take the place at which the next look begins."""
        self._has_started = True
        self._add(start)

    def tell(self, batch: Batch) -> None:
        """Take what a look found, unless that is too much already."""
        if not self._has_started:
            return
        if len(self._untaken) >= MOST_UNTAKEN:
            self.lose_track()
        else:
            self._add(batch)

    def lose_track(self) -> None:
        """Forget what was not taken: a new start is needed."""
        self._has_started = False
        self._untaken.clear()
        self._is_news.set()

    def end(self) -> None:
        """Say that nothing more comes."""
        self.is_ended = True
        self._is_news.set()

    async def next(self, timeout_s: float) -> Start | Batch | None:
        """Return where to begin, or what happened since; None = nothing in time, or it ended."""
        if not self._has_started:
            self._feed.join(self)
        try:
            async with asyncio.timeout(timeout_s):
                while not self._untaken and not self.is_ended:
                    self._is_news.clear()
                    await self._is_news.wait()
                    if not self._has_started:
                        self._feed.join(self)
        except TimeoutError:
            return None
        return None if self.is_ended else self._untaken.popleft()

    def _add(self, told: Start | Batch) -> None:
        self._untaken.append(told)
        self._is_news.set()


class Feed:
    """Looks while somebody listens, and tells all who do."""

    def __init__(self, settings: Settings, db: Database, keyring: Keyring) -> None:
        self.look_s, self.ping_s = LOOK_S, PING_S
        self._db = db
        self._keyring = keyring
        self._news = News(settings, db)
        # Of its own: those of the loop may all wait for who holds the database.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="events")
        self._listeners: dict[Listener, None] = {}
        self._joining: dict[Listener, None] = {}
        self._is_asked = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._is_blind = False
        self._is_over = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @contextmanager
    def listen(self, actor: str) -> Iterator[Listener]:
        """Listen for as long as the block runs. Raises TooManyStreams."""
        if len(self._listeners) >= MOST_LISTENERS:
            raise TooManyStreams(
                f"{MOST_LISTENERS} listen to the events of this API already; end one that is not "
                "needed, or come again later",
                retry_after_s=5,
                evidence={"listeners": MOST_LISTENERS},
            )
        listener = Listener(self, actor)
        if self._is_over:
            listener.end()
        self._listeners[listener] = None
        try:
            yield listener
        finally:
            del self._listeners[listener]
            self._joining.pop(listener, None)
            self._is_asked.set()

    def join(self, listener: Listener) -> None:
        """Give a listener a start at the next look."""
        self._joining[listener] = None
        self._is_asked.set()
        if (self._looking is None or self._looking.done()) and not self._is_over:
            self._looking = asyncio.get_running_loop().create_task(self._look_on(), name="feed")

    async def page(self, epoch: int, behind: int, until: int) -> Page:
        """Read rows of the audit that a listener has not. Raises DatabaseError."""

        def read() -> Page:
            with self._db.read() as tx:
                return page_between(tx, epoch, behind, until)

        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    def end(self) -> None:
        """End every stream, now and from now on: the server stops."""
        self._is_over = True
        for listener in self._listeners:
            listener.end()
        self._is_asked.set()

    async def close(self) -> None:
        """End, and give back threads and connection."""
        self.end()
        if self._looking is not None:
            await self._looking
        self._thread.shutdown(wait=False)
        self._readers.shutdown(wait=False)

    async def _look_on(self) -> None:
        while self._is_heard():
            while self._is_heard():
                await self._look_once()
                await self._pause()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._news.close)

    def _is_heard(self) -> bool:
        return bool(self._listeners) and not self._is_over

    async def _look_once(self) -> None:
        try:
            await self._end_refused()
            look = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._look, bool(self._joining)
            )
        except DatabaseError as error:
            if not self._is_blind:  # once, not four times a second for a night
                log.warning("events are not seen: %s", error.detail)
            self._is_blind = True
        except Exception:  # a feed that ends would leave every page as it was
            log.exception("the feed goes on")
        else:
            self._is_blind = False
            self._spread(look)

    def _look(self, is_asked: bool) -> Look:
        return self._news.look(with_snapshot=is_asked)

    def _spread(self, look: Look) -> None:
        """Tell those who have started, then start those who asked before the look."""
        batch = Batch(look.last_id, look.news)
        for listener in self._listeners:
            if look.is_anew:
                listener.lose_track()
            elif look.news:
                listener.tell(batch)
        if look.snapshot is not None:
            start = Start(look.epoch, look.last_id, look.snapshot)
            joining, self._joining = self._joining, {}
            for listener in joining:
                listener.start(start)

    async def _end_refused(self) -> None:
        """End the streams of those whom their token, or the lack of any, lets in no more."""
        known = await self._keyring.tokens()
        for actor in {listener.actor for listener in self._listeners}:
            if not known.admits(actor):
                for listener in self._listeners:
                    if listener.actor == actor:
                        listener.end()

    async def _pause(self) -> None:
        """Rest until the next look is due, or somebody waits for a start."""
        await asyncio.sleep(min(BETWEEN_S, self.look_s))
        if not self._joining:
            self._is_asked.clear()
            try:
                async with asyncio.timeout(max(0, self.look_s - BETWEEN_S)):
                    await self._is_asked.wait()
            except TimeoutError:
                pass
