"""The whole schema on one page: tables, the indexes with what each prevents, and the triggers.

What people read of it in plain `sqlite3` are the views of `audit_views.py`.

Audit is kept by triggers, not by foreign keys, which are off in anyone's plain `sqlite3`.
Instants are text, UTC, one form (`UtcTime`); deadlines are (boot id, CLOCK_MONOTONIC ms).
`migrations/` builds this same schema step by step; a test compares the two.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    text,
)

from hal0.states import (
    DISPATCHABLE,
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

REVISION: Final = "0006"
"""The newest revision in `migrations/versions`; a database of another one is refused."""

TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


def as_text(at: datetime) -> str:
    """Return an instant in TIME_FORMAT, of the same width for years before 1000, which `%Y` is not.

    Raises ValueError for one without a time zone.
    """
    if at.tzinfo is None:
        raise ValueError(f"{at!r} has no time zone")
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as text of fixed width that sorts as time does."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Refuse naive times."""
        return None if value is None else as_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """Return an aware datetime."""
        return None if value is None else datetime.fromisoformat(value)


class JsonText(JSON):
    """JSON as text; None is SQL NULL."""

    def __init__(self) -> None:
        super().__init__(none_as_null=True)


def _one_of(column: str, values: type[StrEnum] | frozenset[Any], name: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in sorted(values))
    return CheckConstraint(f"{column} IN ({listed})", name=name)


metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

boots = Table(
    "boots",
    metadata,
    Column("epoch", Integer, primary_key=True),
    Column("boot_id", Text, nullable=False, unique=True),
    Column("first_seen_at", UtcTime, nullable=False),
    comment="one row a boot of the host; the newest is this one",
    sqlite_autoincrement=True,
)

edges = Table(
    "edges",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Index("ux_edges", text("ifnull(from_state, '')"), "to_state", "cause", unique=True),
)

engines = Table(
    "engines",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("key_file", Text),
    Column("settle_s", Float, nullable=False),
    Column("process", Text),
    Column("healthy_boot_id", Text),
    Column("last_health_at", UtcTime),
    Column("last_error", JsonText),
    Column("created_at", UtcTime, nullable=False),
    Column("seen", JsonText),  # what its last good health said of itself: `roster.Seen`
    # the last scan that got a list, and the first one in a row that found nobody there
    Column("scanned_boot", Text),
    Column("scanned_ms", Integer),
    Column("unreachable_boot", Text),
    Column("unreachable_ms", Integer),
    Column("unreachable_seen_ms", Integer),  # the last one
    Column("scan_took_ms", Integer),  # the last scan that got a list
    sqlite_autoincrement=True,
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("allow_copy", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    # A model's name is its file's name in the models folder: one living model, one file.
    Index("ux_models_name", "name", unique=True, sqlite_where=text("deleted_at IS NULL")),
    sqlite_autoincrement=True,
)

model_files = Table(
    "model_files",
    metadata,
    Column("model_id", ForeignKey("models.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("role", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("source", Text),
    Column("size_bytes", Integer),
    Column("sha256", Text),
    Column("noted", Text),  # which of the two a pull found, and nobody said: 'size', 'sha256'
    PrimaryKeyConstraint("model_id", "position"),
    CheckConstraint("size_bytes IS NULL OR size_bytes >= 0", name="size"),
    CheckConstraint("sha256 IS NULL OR length(sha256) = 64", name="sha256"),
)

file_verdicts = Table(
    "file_verdicts",
    metadata,
    Column("device", Integer, nullable=False),
    Column("inode", Integer, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("mtime_ns", Integer, nullable=False),
    Column("ctime_ns", Integer, nullable=False),
    Column("format", Text, nullable=False),
    Column("expected_sha256", Text, nullable=False),  # '' = nothing was expected
    Column("sha256", Text),
    Column("code", Text),  # NULL = fit to load
    Column("detail", Text),
    Column("evidence", JsonText),
    Column("verified_at", UtcTime, nullable=False),
    PrimaryKeyConstraint(
        "device", "inode", "size_bytes", "mtime_ns", "ctime_ns", "format", "expected_sha256"
    ),
)

slots = Table(
    "slots",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("state", Text),  # NULL only inside the transaction that creates the slot
    Column("since", UtcTime),
    Column("cause", Text),
    Column("last_transition_id", Integer),
    Column("engine_id", ForeignKey("engines.id"), nullable=False),
    # what is wanted
    Column("wanted_model_id", ForeignKey("models.id")),
    Column("options", JsonText, nullable=False),
    Column("desired", Text, nullable=False),
    Column("pinned", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("idle_after_s", Float),
    Column("unload_after_s", Float),
    Column("load_timeout_s", Float),
    # what is held, and what the engine was told
    Column("model_id", ForeignKey("models.id")),
    Column("held_options", JsonText),
    Column("generation", Integer, nullable=False),
    Column("engine_model", Text),
    Column("engine_model_id", ForeignKey("models.id")),  # what that name stands for
    Column("engine_process", Text),
    Column("error", JsonText),
    Column("last_used_at", UtcTime),
    # an unload of this slot that the engine has not settled
    Column("unload_job_id", Integer),
    Column("unload_attempt", Integer),
    Column("unload_process", Text),
    Column("unload_settle_boot", Text),
    Column("unload_settle_ms", Integer),
    Column("version", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    Column("load_timeout_s_per_gb", Float),
    Column("restore", JsonText),  # what a machine is to load again, and why: `restore.Restore`
    Column("wake", Text, nullable=False, server_default=Wake.AUTO),
    Column("max_in_flight", Integer),
    Column("max_waiting", Integer),
    Column("desired_by", Text, nullable=False, server_default=DesiredBy.NOBODY),
    # A name means one slot among the living; audit rows of a deleted one keep its id.
    Index("ux_slots_name", "name", unique=True, sqlite_where=text("deleted_at IS NULL")),
    Index("ix_slots_engine_id", "engine_id", sqlite_where=text("deleted_at IS NULL")),
    _one_of("state", SlotState, "state"),
    _one_of("wake", Wake, "wake"),
    _one_of("desired_by", DesiredBy, "desired_by"),
    _one_of("desired", Desired, "desired"),
    CheckConstraint(
        "model_id IS NOT NULL OR state NOT IN ("
        + ", ".join(f"'{state}'" for state in sorted(DISPATCHABLE))
        + ")",
        name="dispatchable_has_a_model",
    ),
    CheckConstraint("length(name) BETWEEN 1 AND 32", name="name"),
    sqlite_autoincrement=True,
)

failed_keys = Table(
    "failed_keys",
    metadata,
    Column("slot_id", ForeignKey("slots.id"), nullable=False),
    Column("load_key", Text, nullable=False),
    Column("job_id", Integer, nullable=False),
    Column("at", UtcTime, nullable=False),
    PrimaryKeyConstraint("slot_id", "load_key"),
    comment="loads that were sent and failed: no machine sends them again",
)

breakers = Table(
    "breakers",
    metadata,
    Column("slot_id", ForeignKey("slots.id"), primary_key=True),
    Column("sent", Integer, nullable=False),
    Column("sent_boot", Text, nullable=False),
    Column("sent_ms", Integer, nullable=False),
    Column("opens_ms", Integer, nullable=False),  # on `sent_boot`
    Column("opens_at", UtcTime, nullable=False),
    Column("ready_boot", Text),
    Column("ready_ms", Integer),  # on `ready_boot`; NULL = not ready since that load was sent
    comment="automatic loads of a slot in a row, counted when they are sent",
)

idle_windows = Table(
    "idle_windows",
    metadata,
    Column("slot_id", ForeignKey("slots.id"), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("seen", Text, nullable=False),  # what changes with each use; compared, never read
    Column("since_boot", Text, nullable=False),
    Column("since_ms", Integer),  # NULL = in use at the last look
    comment="since when a loaded model is unused, as the scans saw it",
)

speeds = Table(
    "speeds",
    metadata,
    Column("slot_id", ForeignKey("slots.id"), primary_key=True),
    Column("requests", Integer, nullable=False),  # of how many these are the medians
    Column("first_byte_ms", Float, nullable=False),
    Column("tokens_per_s", Float),  # NULL = the engine tells none
    Column("at", UtcTime, nullable=False),
    comment="how fast a slot answered the last requests; nothing of what was asked or said",
)

transitions = Table(
    "transitions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("slot_id", ForeignKey("slots.id"), nullable=False),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("job_id", Integer),
    Column("attempt", Integer),
    Column("request_id", Text),
    Column("incident_id", Integer),
    Column("generation", Integer, nullable=False),
    Column("evidence", JsonText),
    Index("ix_transitions_slot_id", "slot_id", "id"),
    Index("ix_transitions_at", "at"),
    Index("ix_transitions_job_id", "job_id", sqlite_where=text("job_id IS NOT NULL")),
    # A rare cause, or one incident, among millions of rows: without these, each is a scan.
    Index("ix_transitions_cause", "cause", "id"),
    Index(
        "ix_transitions_incident_id", "incident_id", sqlite_where=text("incident_id IS NOT NULL")
    ),
    _one_of("cause", Cause, "cause"),
    sqlite_autoincrement=True,
)

chains = Table(
    "chains",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("slot_id", ForeignKey("slots.id"), nullable=False),
    Column("position", Integer, nullable=False, unique=True),
    Column("goal", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text),
    Column("model_id", ForeignKey("models.id")),
    Column("options", JsonText),
    Column("rehash", Integer, nullable=False),
    Column("force", Integer, nullable=False),
    Column("drain_timeout_s", Float),
    Column("guard_generation", Integer),
    Column("guard_last_used_at", UtcTime),
    Column("caused_by_job_id", Integer),
    Column("created_at", UtcTime, nullable=False),
    # What was asked for today, among years.
    Index("ix_chains_created_at", "created_at"),
    _one_of("goal", JobKind, "goal"),
    _one_of("origin", Origin, "origin"),
    sqlite_autoincrement=True,
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("chain_id", ForeignKey("chains.id"), nullable=False),
    Column("slot_id", ForeignKey("slots.id"), nullable=False),
    Column("engine_id", ForeignKey("engines.id"), nullable=False),
    Column("model_id", ForeignKey("models.id")),
    Column("kind", Text, nullable=False),
    Column("position", Integer, nullable=False),  # its chain's
    Column("step", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text),
    Column("attempt", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("owner_id", Text),
    Column("sent_attempt", Integer),  # the attempt that marked its request as sent
    Column("run_after_boot", Text),
    Column("run_after_ms", Integer),
    Column("deferred_boot", Text),  # since when it waits for an engine
    Column("deferred_ms", Integer),
    Column("deadline_boot", Text),
    Column("deadline_ms", Integer),
    Column("deadline_at", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("result", JsonText),
    Column("error", JsonText),
    Column("faults", Integer, nullable=False, server_default=text("0")),  # of a pull's source
    Column("fetches", Integer, nullable=False, server_default=text("0")),  # 1: a pull with bytes
    # The promise "one at a time": two owners cannot run jobs of one slot, whatever the code does.
    Index("ux_jobs_running_slot", "slot_id", unique=True, sqlite_where=text("state = 'running'")),
    # Two downloads of one model would write one file.
    Index(
        "ux_jobs_running_pull",
        "model_id",
        unique=True,
        sqlite_where=text("state = 'running' AND kind = 'pull'"),
    ),
    # The claim looks at what is queued, never at history.
    Index("ix_jobs_queued", "position", "step", sqlite_where=text("state = 'queued'")),
    Index(
        "ix_jobs_queued_slot", "slot_id", "position", "step", sqlite_where=text("state = 'queued'")
    ),
    Index("ix_jobs_running_engine", "engine_id", "kind", sqlite_where=text("state = 'running'")),
    Index("ix_jobs_running_owner", "owner_id", sqlite_where=text("state = 'running'")),
    # What an operator looks for is rare among what went well.
    Index("ix_jobs_failed", "id", sqlite_where=text("state = 'failed'")),
    Index("ix_jobs_cancelled", "id", sqlite_where=text("state = 'cancelled'")),
    Index("ix_jobs_slot_id", "slot_id", "id"),
    Index("ix_jobs_chain_id", "chain_id", "step"),
    # What the newest pull or validation said of a model, for a page of models.
    Index("ix_jobs_model_id", "model_id"),
    _one_of("kind", JobKind, "kind"),
    _one_of("state", JobState, "state"),
    CheckConstraint("(state = 'running') = (owner_id IS NOT NULL)", name="running_has_an_owner"),
    sqlite_autoincrement=True,
)

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("owner_id", Text, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("error", JsonText),
    Column("asked_by", Text),  # its chain's actor then: a retry puts another name on the chain
    PrimaryKeyConstraint("job_id", "attempt"),
    # What ever failed, also when a retry mended it.
    Index("ix_job_attempts_failed", "job_id", "attempt", sqlite_where=text("outcome = 'failed'")),
    _one_of("outcome", Outcome, "outcome"),
)

job_beats = Table(
    "job_beats",
    metadata,
    Column("job_id", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("beat", Integer, nullable=False),
    Column("at", UtcTime, nullable=False),
)

job_progress = Table(
    "job_progress",
    metadata,
    Column("job_id", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("phase", Text, nullable=False),
    Column("done_bytes", Integer, nullable=False),
    Column("total_bytes", Integer, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("rate_bytes_s", Float),  # NULL until there is something to measure
)

owners = Table(
    "owners",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_start", Integer, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("beat_s", Float),  # seconds between two of its beats; NULL = not known
    Column("fenced_writes", Integer, nullable=False, server_default=text("0")),
    Index("ix_owners_living", "kind", sqlite_where=text("ended_at IS NULL")),
)

engine_lane = Table(
    "engine_lane",
    metadata,
    # One load at a time: who cannot insert this row sends nothing.
    Column("engine_id", ForeignKey("engines.id"), primary_key=True),
    Column("slot_id", ForeignKey("slots.id"), nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("owner_id", Text, nullable=False),
    Column("process", Text),
    Column("sent_at", UtcTime, nullable=False),
    Column("is_answered", Integer, nullable=False),  # 1: the engine owes nothing, read its list
    Column("settle_boot", Text, nullable=False),
    Column("settle_ms", Integer, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("slot_id", ForeignKey("slots.id"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("owner_id", Text, nullable=False),
    Column("in_flight", Integer, nullable=False),
    Column("at", UtcTime, nullable=False),
    PrimaryKeyConstraint("slot_id", "generation", "owner_id"),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("engine_id", ForeignKey("engines.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("slot_id", ForeignKey("slots.id")),
    Column("job_id", Integer),
    Column("at", UtcTime, nullable=False),
    Column("detail", Text, nullable=False),
    Column("evidence", JsonText),
    Column("acked_at", UtcTime),
    Column("acked_by", Text),
    # What a job did besides its work.
    Index("ix_incidents_job_id", "job_id"),
    sqlite_autoincrement=True,
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("revoked_at", UtcTime),
    Column("last_used_at", UtcTime),
    Column("created_by", Text),  # NULL: made before this was kept
    Column("revoked_by", Text),
    CheckConstraint("role IN ('client', 'reader', 'writer')", name="role"),
    sqlite_autoincrement=True,
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("actor", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("request_hash", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("location", Text),
    Column("body", JsonText, nullable=False),
    Column("at", UtcTime, nullable=False),
    PrimaryKeyConstraint("actor", "key"),
    Index("ix_idempotency_keys_at", "at"),
    comment="what a request with an Idempotency-Key was answered, for a day",
)

periodic = Table(
    "periodic",
    metadata,
    Column("name", Text, primary_key=True),
    Column("next_boot", Text, nullable=False),
    Column("next_ms", Integer, nullable=False),
)

prune_permits = Table(
    "prune_permits",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    CheckConstraint("id = 1", name="one"),
    comment="while its row is there (in one transaction only) audit rows may be deleted",
)

prunings = Table(
    "prunings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("deleted", JsonText, nullable=False),
    sqlite_autoincrement=True,
    comment="what was deleted for good: how many rows of each table, when and by whom",
)

probes = Table(
    "probes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("facts", JsonText, nullable=False),
    sqlite_autoincrement=True,
    comment="what was found of this machine; the newest row counts",
)


def _frozen(table: str, key: str) -> dict[str, str]:
    """Triggers that make the rows of an audit table final."""
    return {
        f"{table}_no_replace": f"""
CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}
WHEN EXISTS (SELECT 1 FROM {table} WHERE {key})
BEGIN SELECT RAISE(ABORT, '{table}: this row exists and rows are final'); END""",
        f"{table}_no_update": f"""
CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table}
BEGIN SELECT RAISE(ABORT, '{table}: rows are final'); END""",
        f"{table}_no_delete": f"""
CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table}
WHEN NOT EXISTS (SELECT 1 FROM prune_permits)
BEGIN SELECT RAISE(ABORT, '{table}: rows are final'); END""",
    }


TRIGGERS: Final = {
    **_frozen("transitions", "id = NEW.id"),
    **_frozen("job_attempts", "job_id = NEW.job_id AND attempt = NEW.attempt"),
    "transitions_from_is_the_state": """
CREATE TRIGGER transitions_from_is_the_state BEFORE INSERT ON transitions
WHEN NOT EXISTS (SELECT 1 FROM slots WHERE id = NEW.slot_id AND state IS NEW.from_state)
BEGIN SELECT RAISE(ABORT, 'transitions: the slot is not in this state'); END""",
    "transitions_edge_is_legal": """
CREATE TRIGGER transitions_edge_is_legal BEFORE INSERT ON transitions
WHEN NOT EXISTS (SELECT 1 FROM edges WHERE from_state IS NEW.from_state
                 AND to_state = NEW.to_state AND cause = NEW.cause)
BEGIN SELECT RAISE(ABORT, 'transitions: no such edge'); END""",
    "transitions_move_the_slot": """
CREATE TRIGGER transitions_move_the_slot AFTER INSERT ON transitions
BEGIN UPDATE slots SET state = NEW.to_state, since = NEW.at, cause = NEW.cause,
  last_transition_id = NEW.id, version = version + 1 WHERE id = NEW.slot_id; END""",
    "slots_begin_without_a_state": """
CREATE TRIGGER slots_begin_without_a_state BEFORE INSERT ON slots
WHEN NEW.state IS NOT NULL OR EXISTS (SELECT 1 FROM slots WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'slots: a state comes from a row of transitions'); END""",
    "slots_no_replace": """
CREATE TRIGGER slots_no_replace BEFORE INSERT ON slots
WHEN NEW.deleted_at IS NULL
  AND EXISTS (SELECT 1 FROM slots WHERE name = NEW.name AND deleted_at IS NULL)
BEGIN SELECT RAISE(ABORT, 'slots: a living slot has this name'); END""",
    "slots_no_replace_by_update": """
CREATE TRIGGER slots_no_replace_by_update BEFORE UPDATE OF id, name, deleted_at ON slots
WHEN NEW.id <> OLD.id OR (NEW.deleted_at IS NULL AND EXISTS (
  SELECT 1 FROM slots WHERE name = NEW.name AND deleted_at IS NULL AND id <> OLD.id))
BEGIN SELECT RAISE(ABORT, 'slots: an id is for ever, a name for one living slot'); END""",
    "slots_state_follows_the_audit": """
CREATE TRIGGER slots_state_follows_the_audit BEFORE UPDATE OF state, last_transition_id ON slots
WHEN NEW.state IS NOT (SELECT to_state FROM transitions WHERE slot_id = NEW.id
                       ORDER BY id DESC LIMIT 1)
  OR NEW.last_transition_id IS NOT (SELECT max(id) FROM transitions WHERE slot_id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'slots: a state comes from a row of transitions'); END""",
    "slots_are_tombstoned": """
CREATE TRIGGER slots_are_tombstoned BEFORE DELETE ON slots
BEGIN SELECT RAISE(ABORT, 'slots: set deleted_at instead'); END""",
    "jobs_no_replace": """
CREATE TRIGGER jobs_no_replace BEFORE INSERT ON jobs
WHEN NEW.state = 'running' OR EXISTS (SELECT 1 FROM jobs WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'jobs: this row exists, or was never claimed'); END""",
    "jobs_no_replace_by_update": """
CREATE TRIGGER jobs_no_replace_by_update BEFORE UPDATE OF id, slot_id, model_id, kind, state ON jobs
WHEN NEW.id <> OLD.id OR (NEW.state = 'running' AND (
  EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND slot_id = NEW.slot_id AND id <> OLD.id)
  OR (NEW.kind = 'pull' AND EXISTS (SELECT 1 FROM jobs WHERE state = 'running'
      AND kind = 'pull' AND model_id = NEW.model_id AND id <> OLD.id))))
BEGIN SELECT RAISE(ABORT, 'jobs: one runs at a time, and an id is for ever'); END""",
    "chains_no_replace": """
CREATE TRIGGER chains_no_replace BEFORE INSERT ON chains
WHEN EXISTS (SELECT 1 FROM chains WHERE id = NEW.id OR position = NEW.position)
BEGIN SELECT RAISE(ABORT, 'chains: this row or its place exists'); END""",
    "chains_no_replace_by_update": """
CREATE TRIGGER chains_no_replace_by_update BEFORE UPDATE OF id, position ON chains
WHEN EXISTS (SELECT 1 FROM chains WHERE id <> OLD.id AND (id = NEW.id OR position = NEW.position))
BEGIN SELECT RAISE(ABORT, 'chains: this row or its place exists'); END""",
    "chains_no_delete": """
CREATE TRIGGER chains_no_delete BEFORE DELETE ON chains
WHEN NOT EXISTS (SELECT 1 FROM prune_permits)
BEGIN SELECT RAISE(ABORT, 'chains: only prune may delete'); END""",
    "jobs_no_delete": """
CREATE TRIGGER jobs_no_delete BEFORE DELETE ON jobs
WHEN NOT EXISTS (SELECT 1 FROM prune_permits)
BEGIN SELECT RAISE(ABORT, 'jobs: only prune may delete'); END""",
    "incidents_no_delete": """
CREATE TRIGGER incidents_no_delete BEFORE DELETE ON incidents
BEGIN SELECT RAISE(ABORT, 'incidents: what happened is never deleted'); END""",
    "incidents_no_replace": """
CREATE TRIGGER incidents_no_replace BEFORE INSERT ON incidents
WHEN EXISTS (SELECT 1 FROM incidents WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'incidents: this row exists'); END""",
    "incidents_no_replace_by_update": """
CREATE TRIGGER incidents_no_replace_by_update BEFORE UPDATE OF id ON incidents
WHEN NEW.id <> OLD.id
BEGIN SELECT RAISE(ABORT, 'incidents: an id is for ever'); END""",
    "edges_no_insert": """
CREATE TRIGGER edges_no_insert BEFORE INSERT ON edges
BEGIN SELECT RAISE(ABORT, 'edges: the list is closed'); END""",
    "edges_no_update": """
CREATE TRIGGER edges_no_update BEFORE UPDATE ON edges
BEGIN SELECT RAISE(ABORT, 'edges: the list is closed'); END""",
    "edges_no_delete": """
CREATE TRIGGER edges_no_delete BEFORE DELETE ON edges
BEGIN SELECT RAISE(ABORT, 'edges: the list is closed'); END""",
}
"""Name to DDL; SQLite runs all BEFORE triggers before the row is written, in no set order."""
