"""Which loaded models nobody uses: demoted, then unloaded by a job (`slots.idle` has the rules).

A look that changes nothing writes nothing. What an engine says of its last use counts as much as
requests through hal0: somebody may talk to it directly.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.engines.base import LoadedModel
from hal0.jobs.ledger import breaker
from hal0.jobs.ledger.breaker import breakers_of
from hal0.jobs.ledger.intake import machine_unload
from hal0.jobs.ledger.rows import By, unfinished_jobs
from hal0.jobs.periodic import TICK_S
from hal0.jobs.survey import Survey
from hal0.settings import Settings
from hal0.slots.fading import Fading
from hal0.slots.idle import MISSED_SCANS, Limits, Sight, Use, Verdict, Window, look, use, verdict
from hal0.slots.overview import in_flight
from hal0.slots.queries import Slot, slot_by_id
from hal0.slots.times import times_of
from hal0.slots.transitions import Act, move
from hal0.states import Cause, Desired, Origin, SlotState
from hal0.tables import idle_windows, slots

SCAN: Final = Act("scan")
BY_SCAN: Final = By("scan", origin=Origin.IDLE)


@dataclass(frozen=True, slots=True)
class Look:
    """One loaded slot, what was seen of its use, and what follows."""

    slot: Slot
    before: Window | None
    window: Window
    verdict: Verdict
    is_used_past_us: bool
    """Whether somebody used it who did not come through hal0."""

    @property
    def is_news(self) -> bool:
        """Whether anything is to be remembered of it."""
        return self.window is not self.before


def looks(tx: Connection, survey: Survey, settings: Settings) -> list[Look]:
    """Look at every loaded model of an engine once; a slot with work is left to its jobs."""
    reading = survey.reading
    windows = _windows(tx, slots.c.engine_id == reading.engine.id)
    leases = in_flight(tx)
    list_ms = reading.engine.list_ms
    is_gap = list_ms is None or reading.began_ms - list_ms > _gap_ms(settings)
    now_ms = monotonic_ms()
    found = []
    for pair in survey.undisturbed:
        slot, entry = pair.slot, pair.entry
        if not slot.is_dispatchable or entry is None:
            continue
        before = windows.get(slot.id)
        sight = _sight(slot, entry, before, leases.get(slot.id, 0))
        window = look(before, sight, boot_id(), now_ms, is_gap=is_gap)
        follows = verdict(window, use(before, sight), slot.state, limits_of(slot, settings), now_ms)
        found.append(Look(slot, before, window, follows, _is_past_us(before, sight, slot)))
    return found


def use_now(tx: Connection, slot: Slot, entry: LoadedModel) -> Use:
    """Tell whether a slot's model was used since the last scan, or is in use, or may be."""
    before = _windows(tx, slots.c.id == slot.id).get(slot.id)
    return use(before, _sight(slot, entry, before, in_flight(tx).get(slot.id, 0)))


def _gap_ms(settings: Settings) -> int:
    """Return after how long without a scan nobody knows what was used; none comes between ticks."""
    return int(MISSED_SCANS * max(settings.scan_s, TICK_S) * 1000)


def limits_of(slot: Slot, settings: Settings) -> Limits:
    """Return the times that hold for a slot: its own, else the settings'.

    No machine unloads what is pinned, or what nobody wants loaded: somebody loaded that past hal0.
    """
    times = times_of(slot, settings)
    return Limits(
        times.idle_after_s,
        times.unload_after_s,
        may_unload=not slot.pinned and slot.desired is Desired.LOADED,
    )


def fadings(
    tx: Connection, listed: Sequence[Slot], settings: Settings, now: datetime
) -> dict[int, Fading]:
    """Return when these slots are due, by slot id."""
    windows = _windows(tx, slots.c.deleted_at.is_(None))
    return {
        slot.id: Fading.of(slot.state, windows.get(slot.id), limits_of(slot, settings), now)
        for slot in listed
    }


def _windows(tx: Connection, of: ColumnElement[bool]) -> dict[int, Window]:
    """Return the windows of some slots by slot id; `of` says which."""
    found = select(idle_windows).join(slots, slots.c.id == idle_windows.c.slot_id).where(of)
    return {
        row.slot_id: Window(row.generation, row.seen, row.since_boot, row.since_ms)
        for row in tx.execute(found)
    }


def _sight(slot: Slot, entry: LoadedModel, before: Window | None, leases: int) -> Sight:
    last_use = entry.last_use
    if entry.is_asleep and before is not None:
        last_use = _engines_part(before)
    return Sight(
        slot.state,
        slot.generation,
        f"{_used_through_us(slot.last_used_at)} {last_use}",
        is_known=entry.last_use is not None,
        is_busy=entry.busy,
        leases=leases,
    )


def _used_through_us(at: datetime | None) -> str:
    return "" if at is None else at.isoformat()


def _engines_part(window: Window) -> str:
    return window.seen.partition(" ")[2]


def _is_past_us(before: Window | None, sight: Sight, slot: Slot) -> bool:
    """Whether it is, or was since the last look, in use by somebody else."""
    if before is None or before.generation != sight.generation or sight.leases:
        return False
    is_ours = not before.seen.startswith(f"{_used_through_us(slot.last_used_at)} ")
    was_or_is = before.since_ms is None or use(before, sight) is Use.USED
    return was_or_is and not is_ours


def remember(tx: Connection, found: Sequence[Look]) -> None:
    """Write the windows that changed; a use past hal0 is the slot's last use too. Soft."""
    rows = []
    for one in found:
        if not one.is_news:
            continue
        window = one.window
        if one.is_used_past_us:
            now = utc_now()
            tx.execute(update(slots).where(slots.c.id == one.slot.id).values(last_used_at=now))
            window = replace(window, seen=f"{_used_through_us(now)} {_engines_part(window)}")
        rows.append({"slot_id": one.slot.id, **asdict(window)})
    if rows:
        new = upsert(idle_windows)
        values = {name: new.excluded[name] for name in rows[0] if name != "slot_id"}
        tx.execute(new.on_conflict_do_update(index_elements=["slot_id"], set_=values), rows)


def write(tx: Connection, found: Sequence[Look]) -> int:
    """Demote, wake, have unloaded what still stands as it was seen; return how many."""
    return sum(_follow(tx, one) for one in found if one.verdict is not Verdict.NOTHING)


def _follow(tx: Connection, one: Look) -> bool:
    slot = slot_by_id(tx, one.slot.id)
    if slot.last_transition_id != one.slot.last_transition_id or unfinished_jobs(tx, slot.id):
        return False
    if one.verdict is Verdict.WAKE:
        move(tx, slot, SlotState.READY, Cause.USED_ELSEWHERE, SCAN)
        return True
    if slot.last_used_at != one.slot.last_used_at or in_flight(tx).get(slot.id):
        return False
    if one.verdict is Verdict.DEMOTE:
        move(tx, slot, SlotState.IDLE, Cause.DEMOTED, SCAN)
        return True
    return machine_unload(tx, slot, BY_SCAN) is not None


def heal(tx: Connection, survey: Survey) -> None:
    """Forget the automatic loads of slots that have kept their model since for long enough."""
    breakers = breakers_of(tx)
    for pair in survey.untouched if breakers else ():
        past = breakers.get(pair.slot.id)
        if past is not None and past.is_healed and pair.slot.is_dispatchable and pair.is_listed:
            breaker.forget(tx, pair.slot.id)
