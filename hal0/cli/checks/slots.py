"""Is there a slot that no machine brings back, though it is wanted loaded."""

from collections.abc import Iterator

from hal0.cli.checks.database import reading
from hal0.cli.findings import Finding
from hal0.jobs.ledger.breaker import breakers_of
from hal0.jobs.outlook import hindrance
from hal0.settings import Settings
from hal0.slots.queries import living_slots


def parked(settings: Settings) -> Iterator[Finding]:
    """Look for slots that kept losing their model until machines gave up."""
    with reading(settings) as tx:
        breakers = breakers_of(tx)
        wanted = [slot for slot in living_slots(tx) if slot.restore is not None]
    for slot in wanted:
        breaker = breakers.get(slot.id)
        if breaker is not None and breaker.is_parked:
            detail = f"is {hindrance(breaker, None)}"
            yield Finding(f"slot {slot.name}", "note", detail, f"`hal0 slot load {slot.name}`")
