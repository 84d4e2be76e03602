"""Whether SERVING was true: the rows held against what clients asked and what the engine got.

    unserved     every request reached the engine while its slot served, on a lease, and as long as
                 it lasted there the slot served; but for a model that was taken away by force
    idle         every time of serving was for somebody: it began on behalf of a request, and was
                 over a moment after the last one
    unloaded     every request reached the engine between the answer to a load of its model and the
                 next unload of it; and it was for what its client had asked for
    outcome      every client got an answer that it may get, and was cut off only by force
    torn         what a client got whole is byte for byte what the engine sent, which got it once

All of it by the one clock of one machine. The recorder notes an end before hal0 can know of it, and
rows are written before a request is sent and after it is over, so for whole answers nothing is
allowed for. That hal0 has left a request the recorder hears later: `HEARD` is allowed for that, and
as much for a client that leaves while the row of its request is written. Nothing of hal0 is
imported.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

from tests.soak.evidence import END, Asked, Evidence, Forwarded, Period, Violation

HEARD: Final = timedelta(seconds=2)
CUT: Final = timedelta(seconds=2)
"""How long after a model was taken away its requests may go on: a second, and what a look takes."""
ENDS_WITHIN: Final = timedelta(seconds=10)
"""How much longer than it lingers a slot may serve for nobody, on a machine that is busy."""
NOT_NOW: Final = {
    (503, "slot.loading"): True,
    (503, "slot.draining"): True,
    (429, "slot.full"): True,
    (503, "slot.unloaded"): False,
}
"""How hal0 may refuse, and whether it then says when to come again."""


def check(evidence: Evidence, linger: timedelta) -> list[Violation]:
    """Return everything that does not hold; slots linger for so long after a request."""
    look = Checker(evidence, linger)
    rules = {
        "unserved": look.unserved,
        "idle": look.idle,
        "unloaded": look.unloaded,
        "outcome": look.outcomes,
        "torn": look.torn,
    }
    return [Violation(rule, what) for rule, find in rules.items() for what in find()]


class Checker:
    """The rules, each a search for what contradicts it."""

    def __init__(self, evidence: Evidence, linger: timedelta) -> None:
        self._evidence = evidence
        self._linger = linger
        self._asked = {asked.id: asked for asked in evidence.asked}
        self._forwards: dict[str, list[Forwarded]] = defaultdict(list)
        for forward in evidence.forwarded:
            self._forwards[forward.id].append(forward)
        self._periods: dict[str, list[Period]] = defaultdict(list)
        for period in evidence.periods:
            self._periods[period.slot].append(period)

    # -- serving ----------------------------------------------------------------------------------

    def unserved(self) -> Iterator[str]:
        """Yield requests at the engine for which no slot served all the while."""
        for forward in self._evidence.forwarded:
            if len(forward.held) != 1:
                yield f"{forward.id}: {len(forward.held)} slots held {forward.model}"
                continue
            seat = forward.held[0]
            is_late = forward.is_gone or (seat.state, seat.cause) == ("unloading", "forced")
            if not is_late and (seat.state, seat.leases > 0) != ("serving", True):
                yield f"{forward.id}: slot {seat.slot} was {seat.state}, {seat.leases} leases"
            elif self._period_of(forward) is None:
                until = forward.ended_at.time()
                yield f"{forward.id}: slot {seat.slot} did not serve until {until}"

    def _period_of(self, forward: Forwarded) -> Period | None:
        """Return the time of serving in which a request ran, the last if it may have been two."""
        seat = forward.held[0]
        for period in reversed(self._periods[seat.slot]):
            late = HEARD if forward.is_gone else timedelta()
            if period.was_forced:
                late = max(late, CUT)
            is_same = seat.state != "serving" or seat.generation == period.generation
            is_begun = period.began_at <= forward.began_at
            if is_same and is_begun and forward.ended_at <= _later(period.ended_at, late):
                return period
        return None

    def idle(self) -> Iterator[str]:
        """Yield times of serving that were for nobody, or that did not end."""
        ran = self._ran
        for period in self._evidence.periods:
            where = f"slot {period.slot} from {period.began_at.time()}"
            asker = self._asked.get(period.began_by or "")
            if asker is None:
                yield f"{where}: began on behalf of {period.began_by}, which nobody asked"
                continue
            late = HEARD if asker.how == "left" else timedelta()
            if not asker.sent_at <= period.began_at <= asker.ended_at + late:
                yield f"{where}: began on behalf of {asker.id}, which ran at another time"
            mine = ran[period]
            if not mine and asker.how != "left" and asker.status == 200:
                yield f"{where}: served, and no request of it reached the engine"
            if period.cause == "requests_done" and period.ended_by not in self._asked:
                yield f"{where}: ended on behalf of {period.ended_by}, which nobody asked"
            last = max([asker.ended_at, *(self._over(forward) for forward in mine)])
            if period.ended_at > last + self._linger + ENDS_WITHIN:
                yield f"{where}: served until {period.ended_at}, its last request until {last}"

    @cached_property
    def _ran(self) -> dict[Period, list[Forwarded]]:
        ran: dict[Period, list[Forwarded]] = defaultdict(list)
        for forward in self._evidence.forwarded:
            period = self._period_of(forward) if len(forward.held) == 1 else None
            if period is not None:
                ran[period].append(forward)
        return ran

    def _over(self, forward: Forwarded) -> datetime:
        """Return when a request was over at both of its ends."""
        asked = self._asked.get(forward.id)
        return forward.ended_at if asked is None else max(asked.ended_at, forward.ended_at)

    # -- the engine -------------------------------------------------------------------------------

    def unloaded(self) -> Iterator[str]:
        """Yield requests for a model that the engine did not have, or that nobody had asked for."""
        for forward in self._evidence.forwarded:
            late = HEARD if forward.is_gone else timedelta()
            if not any(
                stay.model == forward.model
                and stay.began_at <= forward.began_at <= _later(stay.ended_at, late)
                for stay in self._evidence.stays
            ):
                yield f"{forward.id}: the engine did not have {forward.model}"
            asked = self._asked.get(forward.id)
            if asked is None:
                yield f"{forward.id} reached the engine, and nobody had asked it"
            elif asked.name not in {forward.model, *(seat.slot for seat in forward.held)}:
                yield f"{forward.id} was for {asked.name}, and {forward.model} got it"

    # -- the clients ------------------------------------------------------------------------------

    def outcomes(self) -> Iterator[str]:
        """Yield answers that no client may get."""
        for asked in self._evidence.asked:
            if not self._is_fair(asked):
                told = (asked.how, asked.status, asked.code, asked.detail, asked.retry_after)
                yield f"{asked.id} for {asked.name} at {asked.sent_at.time()}: {told}"

    def _is_fair(self, asked: Asked) -> bool:
        if asked.how == "left" or (asked.how, asked.status) == ("whole", 200):
            return True
        if asked.how in ("error_event", "cut"):
            return self._was_forced(asked)
        if (asked.status, asked.code) == (404, "model.not_found"):
            return asked.name not in self._evidence.slots
        comes_again = NOT_NOW.get((asked.status or 0, asked.code or ""))
        return asked.how == "whole" and comes_again is (asked.retry_after is not None)

    def _was_forced(self, asked: Asked) -> bool:
        """Whether the model that a request ran on was taken away under it."""
        for forward in self._forwards[asked.id]:
            period = self._period_of(forward)
            if period is not None and period.was_forced:
                return asked.sent_at - CUT <= period.ended_at <= asked.ended_at
        return False

    def torn(self) -> Iterator[str]:
        """Yield requests that were not forwarded once, and answers that came otherwise."""
        for asked in self._evidence.asked:
            sent = self._forwards[asked.id]
            is_answered = (asked.how, asked.status) == ("whole", 200)
            if len(sent) > 1 or (is_answered and not sent):
                yield f"{asked.id} reached the engine {len(sent)} times"
            elif is_answered and (sent[0].how, sent[0].sha256) != ("whole", asked.sha256):
                yield f"{asked.id}: its answer is not what the engine sent ({sent[0].how})"
            elif asked.status not in (200, None) and sent and not self._was_forced(asked):
                yield f"{asked.id} was answered by the engine and refused: {asked.detail}"
        for forward in self._evidence.forwarded:
            if forward.how in ("broken", "unfinished") or forward.status not in (200, None):
                yield f"{forward.id}: the engine's answer was {forward.how}, {forward.status}"


def _later(at: datetime, by: timedelta) -> datetime:
    return at if at == END else at + by
