"""How `pull` brings a model's files to their place in the models folder (ADR-0009).

    plan     what is there, what a source of the network says; of a hub's file, which commit it is
    room     for all that must be fetched, together, before the first byte
    bring    file by file: linked, copied, or downloaded
    note     size and digest that were found, in the commit before the file gets its name

The slot shows `pulling` from when something is to be fetched. A fault of the network puts the job
back, with a pause that grows; it is the only thing of hal0 that a machine tries again. A model
without a source is left to `validate`, which says what is missing.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from hal0 import points
from hal0.errors import (
    DatabaseError,
    FileInTheWay,
    PullError,
    SourceBadAnswer,
    SourceFault,
)
from hal0.jobs.context import Body, Context
from hal0.jobs.ledger.claims import check, finish, keep, try_again, wait_for_place
from hal0.registry import hub
from hal0.registry.catalog import (
    Model,
    RegisteredFile,
    model_by_id,
    note_file,
    source_of_another,
)
from hal0.registry.download import Download, download, size_at_source
from hal0.registry.part import Fetched, Watcher, ensure_room, furthest, regular, tidy
from hal0.registry.place import bytes_to_copy, ensure_no_link, place
from hal0.registry.preload import remember_fetched
from hal0.registry.reach import Reach, hub_host
from hal0.registry.sources import HubFile, Source, SourceKind
from hal0.slots.transitions import move
from hal0.states import Cause, JobKind, Outcome, SlotState

log = logging.getLogger(__name__)

MAX_PAUSE_S: Final = 60.0
GAIN_BYTES: Final = 2**20
"""A try that came further than any before by so much, or a hundredth of the file, is no fault."""


def run(ctx: Context, body: Body) -> None:
    """Bring every file that has a source; skipped when all of them are there."""
    points.reach("pull.begun")
    assert body.held.chain.model_id is not None
    with ctx.db.read() as tx:
        model = model_by_id(tx, body.held.chain.model_id)
    one = _Pull(ctx, body, model)
    try:
        plan = one.plan()
        if any(item.size_bytes or item.wanted for item in plan) and not ctx.take_place(
            body.held.job.id
        ):
            ctx.commit(lambda tx: wait_for_place(tx, body.held))
            return
        brought = one.bring(plan)
    except SourceFault as fault:
        one.show_pulling()
        _try_again(ctx, body, fault, gained=one.has_gained)
    except PullError:
        one.show_pulling()  # a fetch that failed at its first step is one too (A4)
        raise
    else:
        changed = any(how != "there" for how in brought.values())
        ctx.commit(lambda tx: _end(tx, body, {"files": brought}, changed))
    finally:
        ctx.leave_place(body.held.job.id)


def _try_again(ctx: Context, body: Body, fault: SourceFault, *, gained: bool) -> None:
    """Put the job back, or raise the fault when it was met too often without a gain."""
    settings = ctx.settings
    faults = 1 if gained else body.held.job.faults + 1
    if faults >= settings.pull_tries:
        raise type(fault)(
            f"{fault.detail}; given up after {faults} tries without a gain (HAL0_PULL_TRIES): what "
            "is there is kept, and a retry goes on behind it",
            evidence={**fault.evidence, "tries": faults},
        ) from fault
    pause_s = min(settings.pull_pause_s * 2 ** min(faults - 1, 16), MAX_PAUSE_S)
    after_s = max(pause_s, fault.retry_after_s or 0.0)
    log.warning(
        "%s; tried again in %g s", fault.detail, after_s, extra={"job_id": body.held.job.id}
    )
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
        self._done: list[str] = list((body.held.job.result or {}).get("fetched", ()))
        self._rows: dict[Path, RegisteredFile] = {}
        """What this attempt wrote last of a file."""
        self.has_gained = False

    # -- what is to come ------------------------------------------------------------------------

    def plan(self) -> list[_Item]:
        """Say of each file with a source what is to be done. Raises PullError."""
        self._ensure_own_folder()
        plan = [self._planned(file) for file in self._model.files if file.source is not None]
        sizes = {item.file.path: item.size_bytes for item in plan if item.size_bytes}
        if sizes:
            ensure_room(sizes, self._ctx.settings.disk_reserve_bytes)
        return plan

    def _ensure_own_folder(self) -> None:
        """Refuse a link in place of the folder that several files share."""
        if len(self._model.files) > 1:
            ensure_no_link(self._model.main.path.parent)

    def _planned(self, file: RegisteredFile) -> _Item:
        source = Source.parse(str(file.source))
        if source.path is not None:
            return _Item(file, source, bytes_to_copy(Path(source.path), file.path))
        there = regular(file.path)
        if there is None or (self._again and str(file.path) not in self._done):
            return self._asked(file, source)
        tidy(file.path)
        if file.size_bytes is None and file.sha256 is None:
            self._ensure_not_anothers(file, source)
        return _Item(file, source)

    def _ensure_not_anothers(self, file: RegisteredFile, source: Source) -> None:
        """Refuse what a deleted model of this name left; raises FileInTheWay.

        A pull of this model would have noted size and digest before it gave the name. Where no
        other model ever had the name, an operator put the file there.
        """
        with self._ctx.db.read() as tx:
            other = source_of_another(tx, self._model.id, file)
        if other is not None:
            raise FileInTheWay(
                f"{file.path} is there, of another model whose source was {other}: nothing says "
                f"that it is what {source.shown} has. `hal0 slot pull SLOT --again` replaces it; "
                "if it is the right one, register the model anew with its size",
                evidence={"path": str(file.path), "source": source.shown, "was_of": other},
            )

    def _asked(self, file: RegisteredFile, source: Source) -> _Item:
        """Ask a source of the network what it has. Raises PullError."""
        if source.hub is not None:
            file, wanted = self._pinned(file, source.hub)
        else:
            reach = Reach.of(self._ctx.settings, source.kind)
            wanted = self._wanted(file, source.shown, str(source.url), reach)
        size_bytes = wanted.size_bytes
        if size_bytes is None:
            with suppress(SourceFault):  # nothing depends on it, and it may refuse HEAD
                stall_s = self._ctx.settings.pull_stall_s
                size_bytes = size_at_source(wanted, self._watcher(file), stall_s=stall_s)
        return _Item(file, source, size_bytes or 0, wanted)

    def _wanted(self, file: RegisteredFile, source: str, url: str, reach: Reach) -> Download:
        told, is_gguf = file.told, self._model.format == "gguf"
        return Download(source, url, file.path, told.size_bytes, told.sha256, is_gguf, reach)

    def _pinned(self, file: RegisteredFile, at: HubFile) -> tuple[RegisteredFile, Download]:
        """Ask a hub which commit a file is of, and keep that in the model's row."""
        settings, told = self._ctx.settings, file.told
        reach = Reach.of(settings, SourceKind.HUB)
        reach.ensure_host(at.text, hub_host(settings))
        found = hub.resolve(
            at,
            endpoint=settings.hub_endpoint,
            token=hub.token_of(settings),
            should_stop=lambda: self._ctx.should_stop(self._body),
        )
        _ensure_same(file, "size", told.size_bytes, found.size_bytes)
        _ensure_same(file, "sha256", told.sha256, found.sha256)
        pinned = replace(
            told,
            source=at.pinned(found.commit),
            size_bytes=told.size_bytes if found.size_bytes is None else found.size_bytes,
            sha256=told.sha256 or found.sha256,
        )
        if pinned.source != file.source or pinned.sha256 != told.sha256:
            self._ctx.commit(lambda tx: self._note(tx, file, pinned))
            file = pinned
        points.reach("pull.pinned")
        wanted = self._wanted(pinned, str(pinned.source), found.url, reach)
        return file, replace(wanted, authorization=found.authorization)

    def _note(self, tx: Connection, before: RegisteredFile, now: RegisteredFile) -> None:
        check(tx, self._body.held)
        note_file(tx, self._model.id, before, now)

    # -- bring it -------------------------------------------------------------------------------

    def bring(self, plan: Sequence[_Item]) -> dict[str, str]:
        """Bring what is missing; return of each file how: there, linked, copied, downloaded."""
        total, done, brought = sum(item.size_bytes for item in plan), 0, {}
        for item in plan:
            watcher = self._watcher(item.file, done, total)
            how, size_bytes = self._brought(item, watcher)
            brought[str(item.file.path)] = how
            done += size_bytes
        return brought

    def _watcher(self, file: RegisteredFile, before: int = 0, total: int = 0) -> Watcher:
        """Watch a file of which `before` bytes of others were fetched first."""
        settings = self._ctx.settings

        def on_progress(phase: str, done: int, of_file: int) -> None:
            in_all = max(total, before + of_file) if of_file else 0
            self._ctx.progress(self._body, phase, before + done, in_all)

        return Watcher(
            on_fetch=self.show_pulling,
            on_progress=on_progress,
            should_stop=lambda: self._ctx.should_stop(self._body),
            on_name=lambda sha256, size_bytes: self._name(file, sha256, size_bytes),
            reserve_bytes=settings.disk_reserve_bytes,
            wait_s=settings.pull_stall_s,
        )

    def _name(self, file: RegisteredFile, sha256: str | None, size_bytes: int) -> None:
        """Let a file have its name while the claim is ours, and note first what was found of it.

        No fence reaches a rename: who lost the claim would give a newer model an older file. Where
        another file has the name yet, what was noted of that one is forgotten first, and the new
        facts are noted when it is gone: they must never be wrong about what lies there.
        """
        self._ensure_own_folder()
        is_replaced = regular(file.path) is not None
        now = file.told if is_replaced else file.found(size_bytes, sha256 or "")
        if sha256 is not None and now != file:
            self._ctx.commit(lambda tx: self._note(tx, file, now))
            self._rows[file.path] = now
            return
        with self._ctx.db.read() as tx:
            check(tx, self._body.held)

    def _brought(self, item: _Item, watcher: Watcher) -> tuple[str, int]:
        file, wanted = item.file, item.wanted
        if item.source.path is not None:
            placed = place(
                Path(item.source.path),
                file.path,
                watcher,
                allow_copy=self._model.allow_copy,
                sha256=file.told.sha256,
                again=self._again and str(file.path) not in self._done,
            )
            return placed.how, self._fetched(file, placed.fetched)
        if wanted is None:
            return "there", 0
        before = furthest(file.path, wanted.key)
        try:
            fetched = download(wanted, watcher, stall_s=self._ctx.settings.pull_stall_s)
        except SourceFault:
            hundredth = (wanted.size_bytes or item.size_bytes) // 100
            gain = min(GAIN_BYTES, hundredth or GAIN_BYTES)
            self.has_gained |= furthest(file.path, wanted.key) - before >= gain
            raise
        return "downloaded", self._fetched(file, fetched)

    def _fetched(self, file: RegisteredFile, fetched: Fetched | None) -> int:
        """Keep that a file was fetched, and what was hashed on the way (design 7.4)."""
        if fetched is None:
            return 0
        self.has_gained = True
        self._done.append(str(file.path))
        if self._again:
            self._ctx.commit(lambda tx: keep(tx, self._body.held, {"fetched": self._done}))
        known = file.found(fetched.identity.size_bytes, fetched.sha256)
        if known != self._rows.get(file.path, file):
            self._ctx.commit(lambda tx: self._note(tx, file, known))
        with suppress(DatabaseError):  # then it is read once more
            remember_fetched(
                known.to_check,
                fetched.identity,
                format=self._model.format,
                verdicts=self._ctx.verdicts,
            )
        return fetched.identity.size_bytes

    def show_pulling(self) -> None:
        """Move an offline slot to pulling, once."""
        sources = [Source.parse(file.source).shown for file in self._model.files if file.source]

        def write(tx: Connection) -> None:
            slot = check(tx, self._body.held)
            if slot.state in (SlotState.OFFLINE, SlotState.ERROR):
                evidence, act = {"sources": sources}, self._body.held.act
                move(tx, slot, SlotState.PULLING, Cause.FETCH_STARTED, act, evidence)

        self._ctx.commit(write)


def _ensure_same(file: RegisteredFile, what: str, ours: object, theirs: object) -> None:
    if None not in (ours, theirs) and ours != theirs:
        raise SourceBadAnswer(
            f"{file.source} has the {what} {theirs} at its hub, registered is {ours}; register "
            "the model anew with the right one, or another source",
            evidence={"source": file.source, "expected": ours, "found": theirs},
        )


def _end(tx: Connection, body: Body, result: dict[str, object], changed: bool) -> None:
    slot = check(tx, body.held)
    if body.held.chain.goal is JobKind.PULL and slot.state is SlotState.PULLING:
        move(tx, slot, SlotState.OFFLINE, Cause.PULLED, body.held.act)
    finish(tx, body.held, Outcome.DONE if changed else Outcome.SKIPPED, result)
