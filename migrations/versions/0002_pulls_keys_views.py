"""Pulls from the network, answers that can be asked for again, and views for auditors.

Rows that are there stay as they are: no job has met a fault, no progress has a rate, no key was used.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

SCHEMA = [
    """
CREATE TABLE idempotency_keys (
    actor TEXT NOT NULL,
    "key" TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    status INTEGER NOT NULL,
    location TEXT,
    body JSON NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (actor, "key")
)
""",
    """
CREATE INDEX ix_idempotency_keys_at ON idempotency_keys (at)
""",
    """
CREATE INDEX ix_transitions_cause ON transitions (cause, id)
""",
    """
CREATE INDEX ix_transitions_incident_id ON transitions (incident_id) WHERE incident_id IS NOT NULL
""",
    """
CREATE INDEX ix_jobs_failed ON jobs (id) WHERE state = 'failed'
""",
    """
CREATE INDEX ix_jobs_cancelled ON jobs (id) WHERE state = 'cancelled'
""",
    """
ALTER TABLE jobs ADD COLUMN faults INTEGER DEFAULT 0 NOT NULL
""",
    """
ALTER TABLE job_progress ADD COLUMN rate_bytes_s FLOAT
""",
    """
CREATE VIEW audit_time_in_state AS
WITH spans AS (
  SELECT t.slot_id, s.name AS slot, t.to_state AS state, t.at,
    coalesce(lead(t.at) OVER (PARTITION BY t.slot_id ORDER BY t.id), s.deleted_at,
             strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) AS until
  FROM transitions t JOIN slots s ON s.id = t.slot_id)
SELECT slot, slot_id, state, count(*) AS times,
  round(sum(max(0, julianday(until) - julianday(at))) * 86400, 3) AS seconds,
  max(at) AS last_entered_at
FROM spans GROUP BY slot_id, state
""",
    """
CREATE VIEW audit_failed_jobs AS
SELECT j.ended_at, s.name AS slot, j.kind, m.name AS model,
  json_extract(j.error, '$.code') AS code, json_extract(j.error, '$.detail') AS detail, j.attempt AS attempts, c.actor AS asked_by, j.id AS job_id,
  j.chain_id
FROM jobs j JOIN chains c ON c.id = j.chain_id JOIN slots s ON s.id = j.slot_id
  LEFT JOIN models m ON m.id = j.model_id
WHERE j.state = 'failed'
""",
    """
CREATE VIEW audit_loads AS
WITH phases AS (
  SELECT j.chain_id,
    sum(CASE j.kind WHEN 'pull' THEN seconds ELSE 0 END) AS pull_s,
    sum(CASE j.kind WHEN 'validate' THEN seconds ELSE 0 END) AS validate_s,
    sum(CASE j.kind WHEN 'unload' THEN seconds ELSE 0 END) AS unload_s,
    sum(CASE j.kind WHEN 'load' THEN seconds ELSE 0 END) AS load_s
  FROM jobs j JOIN (
    SELECT job_id, sum(max(0, julianday(ended_at) - julianday(started_at))) * 86400 AS seconds
    FROM job_attempts GROUP BY job_id) a ON a.job_id = j.id
  GROUP BY j.chain_id),
loads AS (
  SELECT c.created_at AS asked_at, j.ended_at, s.name AS slot, m.name AS model,
    c.actor AS asked_by, j.state AS ended, json_extract(j.error, '$.code') AS code,
    j.attempt AS attempts,
    (julianday(j.ended_at) - julianday(c.created_at)) * 86400 AS total_s, p.*, j.id AS job_id
  FROM jobs j JOIN chains c ON c.id = j.chain_id JOIN slots s ON s.id = j.slot_id
    JOIN phases p ON p.chain_id = j.chain_id LEFT JOIN models m ON m.id = j.model_id
  WHERE j.kind = 'load' AND j.attempt > 0 AND j.ended_at IS NOT NULL
    AND j.outcome IS NOT 'skipped')
SELECT asked_at, slot, model, asked_by, ended, code, attempts,
  round(pull_s, 3) AS pull_s, round(validate_s, 3) AS validate_s, round(unload_s, 3) AS unload_s,
  round(load_s, 3) AS load_s,
  round(max(0, total_s - pull_s - validate_s - unload_s - load_s), 3) AS waited_s,
  round(total_s, 3) AS total_s, job_id, chain_id
FROM loads
""",
    """
CREATE VIEW audit_last_day AS
SELECT c.created_at AS at, c.actor AS asked_by, c.actor AS done_by, s.name AS slot,
  'asked for ' || c.goal || coalesce(' of ' || m.name, '') AS what, c.origin AS cause,
  NULL AS job_id, c.request_id
FROM chains c JOIN slots s ON s.id = c.slot_id LEFT JOIN models m ON m.id = c.model_id
WHERE c.created_at >= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day')
UNION ALL
SELECT t.at, coalesce(c.actor, t.actor), t.actor, s.name,
  coalesce(t.from_state, '(none)') || ' → ' || t.to_state, t.cause, t.job_id,
  coalesce(t.request_id, c.request_id)
FROM transitions t JOIN slots s ON s.id = t.slot_id LEFT JOIN jobs j ON j.id = t.job_id
  LEFT JOIN chains c ON c.id = j.chain_id
WHERE t.at >= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day')
""",
    """
CREATE VIEW audit_incidents AS
SELECT i.id AS incident_id, i.at, e.name AS engine, i.kind, culprit.name AS culprit,
  i.job_id AS culprit_job_id, i.detail, moved.name AS moved_slot,
  t.from_state || ' → ' || t.to_state AS moved, t.cause, t.at AS moved_at, t.id AS transition_id
FROM incidents i JOIN engines e ON e.id = i.engine_id
  LEFT JOIN slots culprit ON culprit.id = i.slot_id
  LEFT JOIN transitions t ON t.incident_id = i.id
  LEFT JOIN slots moved ON moved.id = t.slot_id
""",
]


def upgrade() -> None:
    connection = op.get_bind()
    for statement in SCHEMA:
        connection.exec_driver_sql(statement.strip())
