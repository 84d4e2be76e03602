"""The audit since an instant: the right rows, found by the index."""

from datetime import UTC, datetime, timedelta

import freezegun
import pytest
from sqlalchemy import Connection, event

from hal0.db import Database
from hal0.slots.audit import AuditFilter, audit_page
from tests.rows import make_slot

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMES = ["first", "second", "third"]


@pytest.fixture
def rows(db: Database) -> None:
    """A transition a minute from NOON on: the creation of a slot."""
    for minute, name in enumerate(NAMES):
        with freezegun.freeze_time(NOON + timedelta(minutes=minute)):
            make_slot(db, name)


def _plans(tx: Connection, wanted: AuditFilter, *, newest_first: bool) -> list[str]:
    """Ask for a page and return each step of the plans of the statements that this took."""
    sent: list[tuple[str, tuple[object, ...]]] = []

    @event.listens_for(tx, "before_cursor_execute")
    def _note(*args: object) -> None:
        sent.append((str(args[2]), tuple(args[3])))  # type: ignore[arg-type]

    audit_page(tx, wanted, limit=2, newest_first=newest_first)
    event.remove(tx, "before_cursor_execute", _note)
    return [
        str(row[3])
        for statement, values in sent
        for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
    ]


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("after_s", "names"),
    [
        (-1, NAMES),
        (0, NAMES),
        (1, NAMES[1:]),
        (60, NAMES[1:]),
        (119, NAMES[2:]),
        (120, NAMES[2:]),
        (121, []),
    ],
)
@pytest.mark.parametrize("newest_first", [False, True])
def test_an_instant_finds_the_rows_at_and_after_it(
    db: Database, after_s: int, names: list[str], newest_first: bool
) -> None:
    wanted = AuditFilter(since=NOON + timedelta(seconds=after_s))
    with db.read() as tx:
        found = [row.slot for row in audit_page(tx, wanted, limit=9, newest_first=newest_first)]
    assert found == (names[::-1] if newest_first else names)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("newest_first", [False, True])
def test_an_instant_is_found_without_a_scan_of_the_audit(db: Database, newest_first: bool) -> None:
    """A million rows lie before it."""
    with db.read() as tx:
        plan = _plans(tx, AuditFilter(since=NOON), newest_first=newest_first)
    of_audit = [step for step in plan if "transitions" in step]
    assert len(of_audit) == 2, plan
    assert all(step.startswith("SEARCH transitions") for step in of_audit), plan
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
