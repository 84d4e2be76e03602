"""How `pull` brings a model's files to their place in the models folder.

    pin      a file of a hub: which commit, which bytes; kept in the model's row
    room     for all that must be fetched, together, before the first byte
    bring    file by file: there already, linked, copied, or downloaded
    note     what was hashed on the way, so that nothing is hashed twice

The slot shows `pulling` only when bytes are fetched. A fault of the network puts the job back, with
a pause that grows; it is the only thing of hal0 that a machine tries again. A model without a
source is left to `validate`, which says what is missing.
"""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from hal0 import points
from hal0.errors import PullError, SourceBadAnswer, SourceFault, SourceRefused
from hal0.jobs.context import Body, Context
from hal0.jobs.ledger.claims import check, finish, try_again
from hal0.registry import hub
from hal0.registry.catalog import Model, RegisteredFile, model_by_id, note_fetched, pin_source
from hal0.registry.download import Download, download, size_at_source
from hal0.registry.part import Fetched, Watcher, ensure_room, furthest, regular
from hal0.registry.place import bytes_to_copy, place
from hal0.registry.preload import remember_fetched
from hal0.registry.sources import HubFile, Source
from hal0.settings import Settings
from hal0.slots.transitions import move
from hal0.states import Cause, JobKind, Outcome, SlotState

MAX_PAUSE_S: Final = 60.0


def run(ctx: Context, body: Body) -> None:
    """Bring every file that has a source; skipped when all of them are there."""
    points.reach("pull.begun")
    assert body.held.chain.model_id is not None
    with ctx.db.read() as tx:
        model = model_by_id(tx, body.held.chain.model_id)
    one = _Pull(ctx, body, model)
    try:
        brought = one.bring_all()
    except SourceFault as fault:
        _try_again(ctx, body, fault, gained=one.has_gained)
        return
    except PullError:
        one.show_pulling()  # a fetch that failed at its first step is one too (A4)
        raise
    changed = any(how != "there" for how in brought.values())
    ctx.commit(lambda tx: _end(tx, body, {"files": brought}, changed))


def _try_again(ctx: Context, body: Body, fault: SourceFault, *, gained: bool) -> None:
    """Put the job back, or raise the fault when it was met too often without a byte gained."""
    settings = ctx.settings
    faults = 1 if gained else body.held.job.faults + 1
    if faults >= settings.pull_tries:
        raise type(fault)(
            f"{fault.detail}; given up after {faults} tries without a byte gained "
            "(HAL0_PULL_TRIES): what is there is kept, and a retry goes on behind it",
            evidence={**fault.evidence, "tries": faults},
        ) from fault
    pause_s = min(settings.pull_pause_s * 2 ** (faults - 1), MAX_PAUSE_S)
    after_s = max(pause_s, fault.retry_after_s or 0.0)
    ctx.commit(lambda tx: try_again(tx, body.held, fault, after_s, faults))


@dataclass(frozen=True, slots=True)
class _Item:
    """One file of the plan: `size_bytes` are to be fetched, as far as anyone knows."""

    file: RegisteredFile
    source: Source
    size_bytes: int = 0
    wanted: Download | None = None


class _Pull:
    """One attempt at all files of a model; `has_gained` = further than any attempt before it."""

    def __init__(self, ctx: Context, body: Body, model: Model) -> None:
        self._ctx = ctx
        self._body = body
        self._model = model
        self._again = body.held.chain.goal is JobKind.PULL and body.held.chain.force
        self.has_gained = False

    def bring_all(self) -> dict[str, str]:
        """Return for each file with a source how it came: there, linked, copied, downloaded."""
        plan = [self._planned(file) for file in self._model.files if file.source is not None]
        ensure_room({item.file.path: item.size_bytes for item in plan if item.size_bytes})
        total = sum(item.size_bytes for item in plan)
        brought, done = {}, 0
        for item in plan:
            brought[str(item.file.path)] = self._bring(item, self._watcher(done, total))
            done += item.size_bytes
        return brought

    # -- what is to come ------------------------------------------------------------------------

    def _planned(self, file: RegisteredFile) -> _Item:
        source = Source.parse(str(file.source))
        if source.path is not None:
            return _Item(file, source, bytes_to_copy(Path(source.path), file.path))
        there = None if self._again else regular(file.path)
        if there is None:
            self.show_pulling()
            return self._asked(file, source)
        if file.size_bytes is None and file.sha256 is None:
            # Nobody can tell whether it is this source's, and not a deleted model's of this name.
            with contextlib.suppress(PullError):
                asked = self._asked(file, source)
                if asked.size_bytes not in {0, there.st_size} and asked.wanted is not None:
                    return replace(asked, wanted=replace(asked.wanted, again=True))
        return _Item(file, source)

    def _asked(self, file: RegisteredFile, source: Source) -> _Item:
        """Ask a source of the network what it has. Raises PullError."""
        if source.hub is not None:
            file, wanted = self._pinned(file, source.hub)
        else:
            wanted = self._wanted(file, source.shown, str(source.url))
        size_bytes = file.size_bytes
        if size_bytes is None:
            watcher, stall_s = self._watcher(), self._ctx.settings.pull_stall_s
            size_bytes = size_at_source(wanted, watcher, stall_s=stall_s)
        return _Item(file, source, size_bytes or 0, wanted)

    def _wanted(self, file: RegisteredFile, source: str, url: str) -> Download:
        return Download(source, url, file.path, file.size_bytes, file.sha256, again=self._again)

    def _pinned(self, file: RegisteredFile, at: HubFile) -> tuple[RegisteredFile, Download]:
        """Ask a hub which commit a file is of, and keep that in the model's row."""
        settings = self._ctx.settings
        found = hub.resolve(
            at,
            endpoint=settings.hub_endpoint,
            token=_token(settings),
            should_stop=lambda: self._ctx.should_stop(self._body),
        )
        _ensure_same(file, "size", file.size_bytes, found.size_bytes)
        _ensure_same(file, "sha256", file.sha256, found.sha256)
        pinned = replace(
            file,
            source=at.pinned(found.commit),
            size_bytes=file.size_bytes if found.size_bytes is None else found.size_bytes,
            sha256=file.sha256 or found.sha256,
        )
        if pinned != file:
            self._ctx.commit(lambda tx: pin_source(tx, self._model.id, file, pinned))
        points.reach("pull.pinned")
        wanted = self._wanted(pinned, str(pinned.source), found.url)
        return pinned, replace(wanted, authorization=found.authorization)

    def _watcher(self, before: int = 0, total: int = 0) -> Watcher:
        """Watch a file of which `before` bytes of others were to be fetched first."""

        def on_progress(phase: str, done: int, of_file: int) -> None:
            in_all = max(total, before + of_file) if of_file else 0
            self._ctx.progress(self._body, phase, before + done, in_all)

        return Watcher(
            on_fetch=self.show_pulling,
            on_progress=on_progress,
            should_stop=lambda: self._ctx.should_stop(self._body),
        )

    # -- bring it -------------------------------------------------------------------------------

    def _bring(self, item: _Item, watcher: Watcher) -> str:
        file = item.file
        if item.source.path is not None:
            placed = place(
                Path(item.source.path),
                file.path,
                watcher,
                allow_copy=self._model.allow_copy,
                sha256=file.sha256,
            )
            if placed.fetched is not None and file.sha256 is not None:
                self._remember(file, placed.fetched)
            return placed.how
        if item.wanted is None:
            return "there"
        before = furthest(file.path, item.wanted.source)
        try:
            fetched = download(item.wanted, watcher, stall_s=self._ctx.settings.pull_stall_s)
        except SourceFault:
            self.has_gained |= furthest(file.path, item.wanted.source) > before
            raise
        self.has_gained = True
        if fetched is None:
            return "there"
        known = replace(file, size_bytes=fetched.identity.size_bytes, sha256=fetched.sha256)
        if known != file:
            self._ctx.commit(lambda tx: note_fetched(tx, self._model.id, known))
        self._remember(known, fetched)
        return "downloaded"

    def _remember(self, file: RegisteredFile, fetched: Fetched) -> None:
        """Keep what was hashed on the way (design 7.4)."""
        remember_fetched(
            file.to_check,
            fetched.identity,
            format=self._model.format,
            verdicts=self._ctx.verdicts,
        )

    def show_pulling(self) -> None:
        """Move an offline slot to pulling, once."""
        evidence = {
            "sources": [
                Source.parse(file.source).shown for file in self._model.files if file.source
            ]
        }

        def write(tx: Connection) -> None:
            slot = check(tx, self._body.held)
            if slot.state in (SlotState.OFFLINE, SlotState.ERROR):
                act = self._body.held.act
                move(tx, slot, SlotState.PULLING, Cause.FETCH_STARTED, act, evidence)

        self._ctx.commit(write)


def _token(settings: Settings) -> str | None:
    path = settings.hub_token_file
    try:
        return None if path is None else path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as exc:
        raise SourceRefused(
            f"HAL0_HUB_TOKEN_FILE={path} cannot be read: {exc}", evidence={"path": str(path)}
        ) from exc


def _ensure_same(file: RegisteredFile, what: str, ours: object, theirs: object) -> None:
    if None not in (ours, theirs) and ours != theirs:
        raise SourceBadAnswer(
            f"{file.source} has the {what} {theirs} at its hub, registered is {ours}; correct the "
            "source, or register the model anew",
            evidence={"source": file.source, "expected": ours, "found": theirs},
        )


def _end(tx: Connection, body: Body, result: dict[str, object], changed: bool) -> None:
    slot = check(tx, body.held)
    if body.held.chain.goal is JobKind.PULL and slot.state is SlotState.PULLING:
        move(tx, slot, SlotState.OFFLINE, Cause.PULLED, body.held.act)
    finish(tx, body.held, Outcome.DONE if changed else Outcome.SKIPPED, result)
