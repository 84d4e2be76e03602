"""The first schema: slots, models, engines, chains, jobs, the audit and its triggers.

There are no rows before it. It seeds the table of legal edges and the engine `default`, from
HAL0_ENGINE_URL, HAL0_ENGINE_KIND and HAL0_ENGINE_KEY_FILE as they are when it runs.
"""

from alembic import context, op
from sqlalchemy import text

from hal0.clock import utc_now
from hal0.tables import TIME_FORMAT

revision = "0001"
down_revision = None

EDGES = """
- offline created
error offline cleared
error offline engine_returned
error offline unload_confirmed
error pulling fetch_started
error starting checked
idle error engine_lost
idle offline engine_restarted
idle offline evicted_by_engine
idle offline host_rebooted
idle offline unloaded_elsewhere
idle ready touched
idle ready used_elsewhere
idle serving request_started
idle unloading idle_unload
idle unloading operator_unload
idle unloading replaced
offline pulling fetch_started
offline starting checked
pulling error deadline_passed
pulling error job_failed
pulling error worker_lost
pulling offline cancelled
pulling offline host_rebooted
pulling offline pulled
pulling offline validated
pulling starting checked
ready error engine_lost
ready idle demoted
ready offline engine_restarted
ready offline evicted_by_engine
ready offline host_rebooted
ready offline unloaded_elsewhere
ready serving request_started
ready unloading idle_unload
ready unloading operator_unload
ready unloading replaced
serving error engine_lost
serving idle leases_cleared
serving offline engine_restarted
serving offline evicted_by_engine
serving offline host_rebooted
serving offline unloaded_elsewhere
serving ready leases_cleared
serving ready requests_done
serving unloading forced
starting error deadline_passed
starting error job_failed
starting error worker_lost
starting offline cancelled
starting offline host_rebooted
starting offline pulled
starting offline validated
starting warming load_sent
unloading error deadline_passed
unloading error job_failed
unloading error worker_lost
unloading offline engine_restarted
unloading offline host_rebooted
unloading offline unloaded
warming error deadline_passed
warming error job_failed
warming error worker_lost
warming idle loaded
warming offline engine_restarted
warming offline host_rebooted
warming ready adopted
warming ready loaded
"""

SCHEMA = [
    """
CREATE TABLE boots (
    epoch INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    boot_id TEXT NOT NULL,
    first_seen_at TEXT NOT NULL,
    CONSTRAINT uq_boots_boot_id UNIQUE (boot_id)
)
""",
    """
CREATE TABLE edges (
    id INTEGER NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    cause TEXT NOT NULL,
    CONSTRAINT pk_edges PRIMARY KEY (id)
)
""",
    """
CREATE TABLE engines (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    url TEXT NOT NULL,
    key_file TEXT,
    settle_s FLOAT NOT NULL,
    process TEXT,
    healthy_boot_id TEXT,
    last_health_at TEXT,
    last_error JSON,
    created_at TEXT NOT NULL,
    CONSTRAINT uq_engines_name UNIQUE (name)
)
""",
    """
CREATE TABLE models (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    format TEXT NOT NULL,
    allow_copy INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    deleted_at TEXT
)
""",
    """
CREATE TABLE file_verdicts (
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    format TEXT NOT NULL,
    expected_sha256 TEXT NOT NULL,
    sha256 TEXT,
    code TEXT,
    detail TEXT,
    evidence JSON,
    verified_at TEXT NOT NULL,
    CONSTRAINT pk_file_verdicts PRIMARY KEY (device, inode, size_bytes, mtime_ns, ctime_ns, format, expected_sha256)
)
""",
    """
CREATE TABLE job_beats (
    job_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    beat INTEGER NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_job_beats PRIMARY KEY (job_id)
)
""",
    """
CREATE TABLE job_progress (
    job_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    phase TEXT NOT NULL,
    done_bytes INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_job_progress PRIMARY KEY (job_id)
)
""",
    """
CREATE TABLE owners (
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    pid INTEGER NOT NULL,
    pid_start INTEGER NOT NULL,
    started_at TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    ended_at TEXT,
    CONSTRAINT pk_owners PRIMARY KEY (id)
)
""",
    """
CREATE TABLE tokens (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    token_hash TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT,
    revoked_at TEXT,
    last_used_at TEXT,
    CONSTRAINT ck_tokens_role CHECK (role IN ('client', 'reader', 'writer')),
    CONSTRAINT uq_tokens_name UNIQUE (name),
    CONSTRAINT uq_tokens_token_hash UNIQUE (token_hash)
)
""",
    """
CREATE TABLE periodic (
    name TEXT NOT NULL,
    next_boot TEXT NOT NULL,
    next_ms INTEGER NOT NULL,
    CONSTRAINT pk_periodic PRIMARY KEY (name)
)
""",
    """
CREATE TABLE prune_permits (
    id INTEGER NOT NULL,
    actor TEXT NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_prune_permits PRIMARY KEY (id),
    CONSTRAINT ck_prune_permits_one CHECK (id = 1)
)
""",
    """
CREATE TABLE model_files (
    model_id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    role TEXT NOT NULL,
    path TEXT NOT NULL,
    source TEXT,
    size_bytes INTEGER,
    sha256 TEXT,
    CONSTRAINT pk_model_files PRIMARY KEY (model_id, position),
    CONSTRAINT ck_model_files_size CHECK (size_bytes IS NULL OR size_bytes >= 0),
    CONSTRAINT ck_model_files_sha256 CHECK (sha256 IS NULL OR length(sha256) = 64),
    CONSTRAINT fk_model_files_model_id FOREIGN KEY(model_id) REFERENCES models (id)
)
""",
    """
CREATE TABLE slots (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    state TEXT,
    since TEXT,
    cause TEXT,
    last_transition_id INTEGER,
    engine_id INTEGER NOT NULL,
    wanted_model_id INTEGER,
    options JSON NOT NULL,
    desired TEXT NOT NULL,
    pinned INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    idle_after_s FLOAT,
    unload_after_s FLOAT,
    load_timeout_s FLOAT,
    model_id INTEGER,
    held_options JSON,
    generation INTEGER NOT NULL,
    engine_model TEXT,
    engine_model_id INTEGER,
    engine_process TEXT,
    error JSON,
    last_used_at TEXT,
    unload_job_id INTEGER,
    unload_attempt INTEGER,
    unload_process TEXT,
    unload_settle_boot TEXT,
    unload_settle_ms INTEGER,
    version INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    deleted_at TEXT,
    CONSTRAINT ck_slots_state CHECK (state IN ('error', 'idle', 'offline', 'pulling', 'ready', 'serving', 'starting', 'unloading', 'warming')),
    CONSTRAINT ck_slots_desired CHECK (desired IN ('loaded', 'unloaded')),
    CONSTRAINT ck_slots_dispatchable_has_a_model CHECK (model_id IS NOT NULL OR state NOT IN ('idle', 'ready', 'serving')),
    CONSTRAINT ck_slots_name CHECK (length(name) BETWEEN 1 AND 32),
    CONSTRAINT fk_slots_engine_id FOREIGN KEY(engine_id) REFERENCES engines (id),
    CONSTRAINT fk_slots_wanted_model_id FOREIGN KEY(wanted_model_id) REFERENCES models (id),
    CONSTRAINT fk_slots_model_id FOREIGN KEY(model_id) REFERENCES models (id),
    CONSTRAINT fk_slots_engine_model_id FOREIGN KEY(engine_model_id) REFERENCES models (id)
)
""",
    """
CREATE TABLE failed_keys (
    slot_id INTEGER NOT NULL,
    load_key TEXT NOT NULL,
    job_id INTEGER NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_failed_keys PRIMARY KEY (slot_id, load_key),
    CONSTRAINT fk_failed_keys_slot_id FOREIGN KEY(slot_id) REFERENCES slots (id)
)
""",
    """
CREATE TABLE transitions (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    slot_id INTEGER NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    cause TEXT NOT NULL,
    at TEXT NOT NULL,
    actor TEXT NOT NULL,
    job_id INTEGER,
    attempt INTEGER,
    request_id TEXT,
    incident_id INTEGER,
    generation INTEGER NOT NULL,
    evidence JSON,
    CONSTRAINT ck_transitions_cause CHECK (cause IN ('adopted', 'cancelled', 'checked', 'cleared', 'created', 'deadline_passed', 'demoted', 'engine_lost', 'engine_restarted', 'engine_returned', 'evicted_by_engine', 'fetch_started', 'forced', 'host_rebooted', 'idle_unload', 'job_failed', 'leases_cleared', 'load_sent', 'loaded', 'operator_unload', 'pulled', 'replaced', 'request_started', 'requests_done', 'touched', 'unload_confirmed', 'unloaded', 'unloaded_elsewhere', 'used_elsewhere', 'validated', 'worker_lost')),
    CONSTRAINT fk_transitions_slot_id FOREIGN KEY(slot_id) REFERENCES slots (id)
)
""",
    """
CREATE TABLE chains (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    slot_id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    goal TEXT NOT NULL,
    origin TEXT NOT NULL,
    actor TEXT NOT NULL,
    request_id TEXT,
    model_id INTEGER,
    options JSON,
    rehash INTEGER NOT NULL,
    force INTEGER NOT NULL,
    drain_timeout_s FLOAT,
    guard_generation INTEGER,
    guard_last_used_at TEXT,
    caused_by_job_id INTEGER,
    created_at TEXT NOT NULL,
    CONSTRAINT ck_chains_goal CHECK (goal IN ('load', 'pull', 'unload', 'validate')),
    CONSTRAINT ck_chains_origin CHECK (origin IN ('idle', 'operator', 'restore')),
    CONSTRAINT fk_chains_slot_id FOREIGN KEY(slot_id) REFERENCES slots (id),
    CONSTRAINT uq_chains_position UNIQUE (position),
    CONSTRAINT fk_chains_model_id FOREIGN KEY(model_id) REFERENCES models (id)
)
""",
    """
CREATE TABLE leases (
    slot_id INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    owner_id TEXT NOT NULL,
    in_flight INTEGER NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_leases PRIMARY KEY (slot_id, generation, owner_id),
    CONSTRAINT fk_leases_slot_id FOREIGN KEY(slot_id) REFERENCES slots (id)
)
""",
    """
CREATE TABLE incidents (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    engine_id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    slot_id INTEGER,
    job_id INTEGER,
    at TEXT NOT NULL,
    detail TEXT NOT NULL,
    evidence JSON,
    CONSTRAINT fk_incidents_engine_id FOREIGN KEY(engine_id) REFERENCES engines (id),
    CONSTRAINT fk_incidents_slot_id FOREIGN KEY(slot_id) REFERENCES slots (id)
)
""",
    """
CREATE TABLE jobs (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    chain_id INTEGER NOT NULL,
    slot_id INTEGER NOT NULL,
    engine_id INTEGER NOT NULL,
    model_id INTEGER,
    kind TEXT NOT NULL,
    position INTEGER NOT NULL,
    step INTEGER NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    owner_id TEXT,
    sent_attempt INTEGER,
    run_after_boot TEXT,
    run_after_ms INTEGER,
    deferred_boot TEXT,
    deferred_ms INTEGER,
    deadline_boot TEXT,
    deadline_ms INTEGER,
    deadline_at TEXT,
    created_at TEXT NOT NULL,
    started_at TEXT,
    ended_at TEXT,
    result JSON,
    error JSON,
    CONSTRAINT ck_jobs_kind CHECK (kind IN ('load', 'pull', 'unload', 'validate')),
    CONSTRAINT ck_jobs_state CHECK (state IN ('cancelled', 'failed', 'queued', 'running', 'succeeded')),
    CONSTRAINT ck_jobs_running_has_an_owner CHECK ((state = 'running') = (owner_id IS NOT NULL)),
    CONSTRAINT fk_jobs_chain_id FOREIGN KEY(chain_id) REFERENCES chains (id),
    CONSTRAINT fk_jobs_slot_id FOREIGN KEY(slot_id) REFERENCES slots (id),
    CONSTRAINT fk_jobs_engine_id FOREIGN KEY(engine_id) REFERENCES engines (id),
    CONSTRAINT fk_jobs_model_id FOREIGN KEY(model_id) REFERENCES models (id)
)
""",
    """
CREATE TABLE job_attempts (
    job_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    owner_id TEXT NOT NULL,
    started_at TEXT NOT NULL,
    ended_at TEXT NOT NULL,
    outcome TEXT NOT NULL,
    error JSON,
    CONSTRAINT pk_job_attempts PRIMARY KEY (job_id, attempt),
    CONSTRAINT ck_job_attempts_outcome CHECK (outcome IN ('cancelled', 'deferred', 'done', 'failed', 'interrupted', 'skipped', 'superseded')),
    CONSTRAINT fk_job_attempts_job_id FOREIGN KEY(job_id) REFERENCES jobs (id)
)
""",
    """
CREATE TABLE engine_lane (
    engine_id INTEGER NOT NULL,
    slot_id INTEGER NOT NULL,
    job_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    owner_id TEXT NOT NULL,
    process TEXT,
    sent_at TEXT NOT NULL,
    is_answered INTEGER NOT NULL,
    settle_boot TEXT NOT NULL,
    settle_ms INTEGER NOT NULL,
    CONSTRAINT pk_engine_lane PRIMARY KEY (engine_id),
    CONSTRAINT fk_engine_lane_engine_id FOREIGN KEY(engine_id) REFERENCES engines (id),
    CONSTRAINT fk_engine_lane_slot_id FOREIGN KEY(slot_id) REFERENCES slots (id),
    CONSTRAINT fk_engine_lane_job_id FOREIGN KEY(job_id) REFERENCES jobs (id)
)
""",
    """
CREATE UNIQUE INDEX ux_edges ON edges (ifnull(from_state, ''), to_state, cause)
""",
    """
CREATE UNIQUE INDEX ux_models_name ON models (name) WHERE deleted_at IS NULL
""",
    """
CREATE INDEX ix_owners_living ON owners (kind) WHERE ended_at IS NULL
""",
    """
CREATE UNIQUE INDEX ux_slots_name ON slots (name) WHERE deleted_at IS NULL
""",
    """
CREATE INDEX ix_slots_engine_id ON slots (engine_id) WHERE deleted_at IS NULL
""",
    """
CREATE INDEX ix_transitions_at ON transitions (at)
""",
    """
CREATE INDEX ix_transitions_job_id ON transitions (job_id) WHERE job_id IS NOT NULL
""",
    """
CREATE INDEX ix_transitions_slot_id ON transitions (slot_id, id)
""",
    """
CREATE INDEX ix_jobs_chain_id ON jobs (chain_id, step)
""",
    """
CREATE INDEX ix_jobs_queued_slot ON jobs (slot_id, position, step) WHERE state = 'queued'
""",
    """
CREATE INDEX ix_jobs_queued ON jobs (position, step) WHERE state = 'queued'
""",
    """
CREATE UNIQUE INDEX ux_jobs_running_slot ON jobs (slot_id) WHERE state = 'running'
""",
    """
CREATE INDEX ix_jobs_running_owner ON jobs (owner_id) WHERE state = 'running'
""",
    """
CREATE INDEX ix_jobs_running_engine ON jobs (engine_id, kind) WHERE state = 'running'
""",
    """
CREATE INDEX ix_jobs_slot_id ON jobs (slot_id, id)
""",
    """
CREATE UNIQUE INDEX ux_jobs_running_pull ON jobs (model_id) WHERE state = 'running' AND kind = 'pull'
""",
]

TRIGGERS = [
    """
CREATE TRIGGER transitions_no_replace BEFORE INSERT ON transitions
WHEN EXISTS (SELECT 1 FROM transitions WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'transitions: this row exists and rows are final'); END
""",
    """
CREATE TRIGGER transitions_no_update BEFORE UPDATE ON transitions
BEGIN SELECT RAISE(ABORT, 'transitions: rows are final'); END
""",
    """
CREATE TRIGGER transitions_no_delete BEFORE DELETE ON transitions
WHEN NOT EXISTS (SELECT 1 FROM prune_permits)
BEGIN SELECT RAISE(ABORT, 'transitions: rows are final'); END
""",
    """
CREATE TRIGGER job_attempts_no_replace BEFORE INSERT ON job_attempts
WHEN EXISTS (SELECT 1 FROM job_attempts WHERE job_id = NEW.job_id AND attempt = NEW.attempt)
BEGIN SELECT RAISE(ABORT, 'job_attempts: this row exists and rows are final'); END
""",
    """
CREATE TRIGGER job_attempts_no_update BEFORE UPDATE ON job_attempts
BEGIN SELECT RAISE(ABORT, 'job_attempts: rows are final'); END
""",
    """
CREATE TRIGGER job_attempts_no_delete BEFORE DELETE ON job_attempts
WHEN NOT EXISTS (SELECT 1 FROM prune_permits)
BEGIN SELECT RAISE(ABORT, 'job_attempts: rows are final'); END
""",
    """
CREATE TRIGGER transitions_from_is_the_state BEFORE INSERT ON transitions
WHEN NOT EXISTS (SELECT 1 FROM slots WHERE id = NEW.slot_id AND state IS NEW.from_state)
BEGIN SELECT RAISE(ABORT, 'transitions: the slot is not in this state'); END
""",
    """
CREATE TRIGGER transitions_edge_is_legal BEFORE INSERT ON transitions
WHEN NOT EXISTS (SELECT 1 FROM edges WHERE from_state IS NEW.from_state
                 AND to_state = NEW.to_state AND cause = NEW.cause)
BEGIN SELECT RAISE(ABORT, 'transitions: no such edge'); END
""",
    """
CREATE TRIGGER transitions_move_the_slot AFTER INSERT ON transitions
BEGIN UPDATE slots SET state = NEW.to_state, since = NEW.at, cause = NEW.cause,
  last_transition_id = NEW.id, version = version + 1 WHERE id = NEW.slot_id; END
""",
    """
CREATE TRIGGER slots_begin_without_a_state BEFORE INSERT ON slots
WHEN NEW.state IS NOT NULL OR EXISTS (SELECT 1 FROM slots WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'slots: a state comes from a row of transitions'); END
""",
    """
CREATE TRIGGER slots_no_replace BEFORE INSERT ON slots
WHEN NEW.deleted_at IS NULL
  AND EXISTS (SELECT 1 FROM slots WHERE name = NEW.name AND deleted_at IS NULL)
BEGIN SELECT RAISE(ABORT, 'slots: a living slot has this name'); END
""",
    """
CREATE TRIGGER slots_no_replace_by_update BEFORE UPDATE OF id, name, deleted_at ON slots
WHEN NEW.id <> OLD.id OR (NEW.deleted_at IS NULL AND EXISTS (
  SELECT 1 FROM slots WHERE name = NEW.name AND deleted_at IS NULL AND id <> OLD.id))
BEGIN SELECT RAISE(ABORT, 'slots: an id is for ever, a name for one living slot'); END
""",
    """
CREATE TRIGGER slots_state_follows_the_audit BEFORE UPDATE OF state, last_transition_id ON slots
WHEN NEW.state IS NOT (SELECT to_state FROM transitions WHERE slot_id = NEW.id
                       ORDER BY id DESC LIMIT 1)
  OR NEW.last_transition_id IS NOT (SELECT max(id) FROM transitions WHERE slot_id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'slots: a state comes from a row of transitions'); END
""",
    """
CREATE TRIGGER slots_are_tombstoned BEFORE DELETE ON slots
BEGIN SELECT RAISE(ABORT, 'slots: set deleted_at instead'); END
""",
    """
CREATE TRIGGER jobs_no_replace BEFORE INSERT ON jobs
WHEN NEW.state = 'running' OR EXISTS (SELECT 1 FROM jobs WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'jobs: this row exists, or was never claimed'); END
""",
    """
CREATE TRIGGER jobs_no_replace_by_update BEFORE UPDATE OF id, slot_id, model_id, kind, state ON jobs
WHEN NEW.id <> OLD.id OR (NEW.state = 'running' AND (
  EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND slot_id = NEW.slot_id AND id <> OLD.id)
  OR (NEW.kind = 'pull' AND EXISTS (SELECT 1 FROM jobs WHERE state = 'running'
      AND kind = 'pull' AND model_id = NEW.model_id AND id <> OLD.id))))
BEGIN SELECT RAISE(ABORT, 'jobs: one runs at a time, and an id is for ever'); END
""",
    """
CREATE TRIGGER chains_no_replace BEFORE INSERT ON chains
WHEN EXISTS (SELECT 1 FROM chains WHERE id = NEW.id OR position = NEW.position)
BEGIN SELECT RAISE(ABORT, 'chains: this row or its place exists'); END
""",
    """
CREATE TRIGGER chains_no_replace_by_update BEFORE UPDATE OF id, position ON chains
WHEN EXISTS (SELECT 1 FROM chains WHERE id <> OLD.id AND (id = NEW.id OR position = NEW.position))
BEGIN SELECT RAISE(ABORT, 'chains: this row or its place exists'); END
""",
    """
CREATE TRIGGER chains_no_delete BEFORE DELETE ON chains
WHEN NOT EXISTS (SELECT 1 FROM prune_permits)
BEGIN SELECT RAISE(ABORT, 'chains: only prune may delete'); END
""",
    """
CREATE TRIGGER jobs_no_delete BEFORE DELETE ON jobs
WHEN NOT EXISTS (SELECT 1 FROM prune_permits)
BEGIN SELECT RAISE(ABORT, 'jobs: only prune may delete'); END
""",
    """
CREATE TRIGGER edges_no_insert BEFORE INSERT ON edges
BEGIN SELECT RAISE(ABORT, 'edges: the list is closed'); END
""",
    """
CREATE TRIGGER edges_no_update BEFORE UPDATE ON edges
BEGIN SELECT RAISE(ABORT, 'edges: the list is closed'); END
""",
    """
CREATE TRIGGER edges_no_delete BEFORE DELETE ON edges
BEGIN SELECT RAISE(ABORT, 'edges: the list is closed'); END
""",
]


def upgrade() -> None:
    for statement in SCHEMA:
        op.execute(text(statement.strip()))
    connection = op.get_bind()
    for line in EDGES.split("\n"):
        if line:
            source, to, cause = line.split()
            connection.execute(
                text(
                    "INSERT INTO edges (from_state, to_state, cause) VALUES (:source, :to, :cause)"
                ),
                {"source": None if source == "-" else source, "to": to, "cause": cause},
            )
    settings = context.config.attributes["settings"]
    connection.execute(
        text(
            "INSERT INTO engines (name, kind, url, key_file, settle_s, created_at) "
            "VALUES ('default', :kind, :url, :key_file, :settle_s, :now)"
        ),
        {
            "kind": settings.default_engine_kind,
            "url": settings.default_engine_url,
            "key_file": None if settings.engine_key_file is None else str(settings.engine_key_file),
            "settle_s": settings.default_settle_s,
            "now": utc_now().strftime(TIME_FORMAT),
        },
    )
    for statement in TRIGGERS:  # last: they close the list of edges
        op.execute(text(statement.strip()))
