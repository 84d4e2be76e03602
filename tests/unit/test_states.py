"""Design, part 2: nine states, their edges, and that the database knows the same words."""

import re
import sqlite3
from enum import StrEnum
from pathlib import Path

import pytest

from hal0 import states
from hal0.states import (
    DISPATCHABLE,
    EDGES,
    FINISHED,
    TRANSIENT,
    Cause,
    Desired,
    DesiredBy,
    JobKind,
    JobState,
    Origin,
    Outcome,
    SlotState,
    Wake,
)

DESIGN = """
|offline: created
offline|pulling: fetch_started
error|pulling: fetch_started
offline|starting: checked
pulling|starting: checked
error|starting: checked
starting|warming: load_sent
warming|ready: loaded, adopted
warming|idle: loaded
pulling|error: job_failed, worker_lost, deadline_passed
starting|error: job_failed, worker_lost, deadline_passed
warming|error: job_failed, worker_lost, deadline_passed
unloading|error: job_failed, worker_lost, deadline_passed
pulling|offline: cancelled, pulled, validated, host_rebooted
starting|offline: cancelled, pulled, validated, host_rebooted
warming|offline: engine_restarted, host_rebooted
ready|serving: request_started
idle|serving: request_started
serving|ready: requests_done, leases_cleared
serving|idle: leases_cleared
ready|idle: demoted
idle|ready: used_elsewhere, touched
ready|unloading: operator_unload, idle_unload, replaced
idle|unloading: operator_unload, idle_unload, replaced
serving|unloading: forced
unloading|offline: unloaded, engine_restarted, host_rebooted
ready|offline: evicted_by_engine, unloaded_elsewhere, engine_restarted, host_rebooted
serving|offline: evicted_by_engine, unloaded_elsewhere, engine_restarted, host_rebooted
idle|offline: evicted_by_engine, unloaded_elsewhere, engine_restarted, host_rebooted
ready|error: engine_lost
serving|error: engine_lost
idle|error: engine_lost
error|offline: cleared, engine_returned, unload_confirmed
"""
"""The table of part 2, one line a pair of states: written down a second time on purpose."""


def _designed() -> set[tuple[str | None, str, str]]:
    found = set()
    for line in DESIGN.strip().splitlines():
        ends, causes = line.split(": ")
        source, to = ends.split("|")
        found |= {(source or None, to, cause) for cause in causes.split(", ")}
    return found


def test_the_edges_are_those_of_the_design() -> None:
    assert {(edge.source, edge.to, edge.cause) for edge in EDGES} == _designed()


def test_there_are_nine_states_and_each_is_entered_and_left() -> None:
    assert len(SlotState) == 9
    assert {edge.to for edge in EDGES} == set(SlotState)
    assert {edge.source for edge in EDGES} == {None, *SlotState}


def test_no_edge_stays_where_it_is_and_every_cause_is_used() -> None:
    assert not [edge for edge in EDGES if edge.source == edge.to]
    assert {edge.cause for edge in EDGES} == set(Cause)


def test_every_transient_state_can_be_recovered_and_survives_no_reboot() -> None:
    for state in TRANSIENT:
        assert states.Edge(state, SlotState.ERROR, Cause.WORKER_LOST) in EDGES
    for state in set(SlotState) - {SlotState.OFFLINE, SlotState.ERROR}:
        assert states.Edge(state, SlotState.OFFLINE, Cause.HOST_REBOOTED) in EDGES


def test_a_slot_becomes_dispatchable_only_out_of_warming() -> None:
    entries = {e.source for e in EDGES if e.to in DISPATCHABLE and e.source not in DISPATCHABLE}
    assert entries == {SlotState.WARMING}


def test_the_state_sets_share_nothing() -> None:
    assert frozenset({"ready", "serving", "idle"}) == DISPATCHABLE
    assert frozenset({"pulling", "starting", "warming", "unloading"}) == TRANSIENT
    assert frozenset({"succeeded", "failed", "cancelled"}) == FINISHED


@pytest.mark.parametrize("state", [*SlotState, *JobState])
def test_a_paragraph_says_who_enters_and_leaves_each_state(state: StrEnum) -> None:
    assert re.search(rf"^{state}  +\S.*\.", str(states.__doc__), re.MULTILINE)


def test_the_steps_of_a_load_are_pull_validate_unload_load() -> None:
    assert [kind.value for kind in JobKind] == ["pull", "validate", "unload", "load"]
    assert [kind.step for kind in JobKind] == [0, 1, 2, 3]


CHECKED = {
    ("slots", "state"): SlotState,
    ("slots", "desired"): Desired,
    ("slots", "desired_by"): DesiredBy,
    ("slots", "wake"): Wake,
    ("transitions", "cause"): Cause,
    ("chains", "goal"): JobKind,
    ("chains", "origin"): Origin,
    ("jobs", "kind"): JobKind,
    ("jobs", "state"): JobState,
    ("job_attempts", "outcome"): Outcome,
}


@pytest.mark.parametrize(("table", "column"), CHECKED)
def test_the_database_accepts_exactly_the_values_of_the_enum(
    migrated_file: Path, table: str, column: str
) -> None:
    connection = sqlite3.connect(migrated_file)
    sql = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
    connection.close()
    found = re.search(rf"CHECK \({column} IN \(([^)]*)\)\)", sql)
    assert found is not None, f"{table}.{column} is not checked"
    assert set(re.findall(r"'([a-z_]+)'", found[1])) == set(CHECKED[table, column])


def test_the_states_of_the_audit_need_no_check_for_their_edge_is_looked_up(
    migrated_file: Path,
) -> None:
    connection = sqlite3.connect(migrated_file)
    rows = set(connection.execute("SELECT from_state, to_state, cause FROM edges"))
    connection.close()
    assert rows == _designed()
