"""Pulls from the network, answers that can be asked for again, and views for auditors.

Rows that are there stay as they are: no job has met a fault or has bytes to fetch, no pull noted
anything of a file, no progress has a rate, no key was used, and attempts do not say who asked for
them: the views take the actor of their chain.
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
ALTER TABLE jobs ADD COLUMN fetches INTEGER DEFAULT 0 NOT NULL
""",
    """
ALTER TABLE model_files ADD COLUMN noted TEXT
""",
    """
ALTER TABLE job_progress ADD COLUMN rate_bytes_s FLOAT
""",
    """
ALTER TABLE job_attempts ADD COLUMN asked_by TEXT
""",
    """
CREATE INDEX ix_job_attempts_failed ON job_attempts (job_id, attempt) WHERE outcome = 'failed'
""",
    """
CREATE INDEX ix_chains_created_at ON chains (created_at)
""",
    """
CREATE VIEW audit_time_in_state AS
WITH spans AS (
  SELECT slot_id, to_state AS state, at,
    lead(at) OVER (PARTITION BY slot_id ORDER BY id) AS left_at
  FROM transitions)
SELECT s.name AS slot, p.state, count(*) AS times,
  round(sum(max(0, julianday(coalesce(p.left_at, s.deleted_at, 'now')) - julianday(p.at))) * 86400,
        3) AS seconds,
  max(p.at) AS last_entered_at, max(p.left_at IS NULL AND s.deleted_at IS NULL) AS is_now,
  s.id AS slot_id, s.deleted_at
FROM spans p JOIN slots s ON s.id = p.slot_id GROUP BY s.id, p.state
""",
    """
CREATE VIEW audit_failed_jobs AS
WITH failures AS (
  SELECT job_id, count(*) AS failures, max(attempt) AS attempt, ended_at, error, asked_by
  FROM job_attempts WHERE outcome = 'failed' GROUP BY job_id)
SELECT f.ended_at AS failed_at, s.name AS slot, j.kind, m.name AS model,
  json_extract(f.error, '$.code') AS code, json_extract(f.error, '$.detail') AS detail,
  f.failures, j.attempt AS attempts, coalesce(f.asked_by, c.actor) AS asked_by, j.state,
  j.id AS job_id, j.chain_id
FROM failures f JOIN jobs j ON j.id = f.job_id JOIN chains c ON c.id = j.chain_id
  JOIN slots s ON s.id = j.slot_id LEFT JOIN models m ON m.id = j.model_id
""",
    """
CREATE VIEW audit_loads AS
WITH spans AS (
  SELECT j.chain_id, j.id AS job_id, j.kind, j.ended_at AS job_ended_at, a.outcome,
    first_value(a.asked_by) OVER tries AS asked_by,
    max(0, julianday(a.ended_at) - julianday(a.started_at)) AS days,
    CASE a.outcome WHEN 'failed' THEN max(0, julianday(coalesce(
      lead(a.started_at) OVER tries, max(j.ended_at) OVER (PARTITION BY j.chain_id)))
      - julianday(a.ended_at)) END AS failed_days
  FROM jobs j LEFT JOIN job_attempts a ON a.job_id = j.id
  WINDOW tries AS (PARTITION BY j.chain_id ORDER BY a.started_at NULLS LAST)),
phases AS (
  SELECT chain_id, max(job_id) FILTER (WHERE kind = 'load') AS load_job_id,
    max(asked_by) AS asked_by, julianday(max(job_ended_at)) AS ended,
    count(*) FILTER (WHERE outcome = 'failed') AS failures,
    count(*) FILTER (WHERE outcome = 'interrupted') AS interruptions,
    total(days) FILTER (WHERE kind = 'pull') * 86400 AS pull_s,
    total(days) FILTER (WHERE kind = 'validate') * 86400 AS validate_s,
    total(days) FILTER (WHERE kind = 'unload') * 86400 AS unload_s,
    total(days) FILTER (WHERE kind = 'load') * 86400 AS load_s,
    total(failed_days) * 86400 AS failed_s, (total(days) + total(failed_days)) * 86400 AS busy_s
  FROM spans GROUP BY chain_id HAVING count(*) = count(job_ended_at)),
loads AS (
  SELECT c.created_at, c.actor, j.slot_id, j.model_id, j.outcome AS load_outcome, j.error, p.*,
    max(busy_s, (ended - julianday(c.created_at)) * 86400) AS total_s
  FROM phases p JOIN jobs j ON j.id = p.load_job_id JOIN chains c ON c.id = p.chain_id)
SELECT l.created_at AS asked_at, s.name AS slot, m.name AS model,
  coalesce(l.asked_by, l.actor) AS asked_by,
  CASE WHEN l.error IS NULL THEN l.load_outcome ELSE 'failed' END AS outcome,
  json_extract(l.error, '$.code') AS code, failures, interruptions, round(pull_s, 3) AS pull_s,
  round(validate_s, 3) AS validate_s, round(unload_s, 3) AS unload_s, round(load_s, 3) AS load_s,
  round(failed_s, 3) AS failed_s, round(total_s - busy_s, 3) AS waited_s,
  round(total_s, 3) AS total_s, l.load_job_id AS job_id, l.chain_id
FROM loads l JOIN slots s ON s.id = l.slot_id LEFT JOIN models m ON m.id = l.model_id
""",
    """
CREATE VIEW audit_last_day AS
WITH day AS (SELECT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day') AS began),
asked AS (
  SELECT c.created_at, c.slot_id, c.model_id, c.caused_by_job_id,
    (SELECT kind FROM jobs WHERE chain_id = c.id ORDER BY step DESC LIMIT 1) AS goal,
    coalesce((SELECT a.asked_by FROM jobs j JOIN job_attempts a ON a.job_id = j.id AND a.attempt = 1
              WHERE j.chain_id = c.id ORDER BY j.step LIMIT 1), c.actor) AS actor
  FROM chains c WHERE c.created_at >= (SELECT began FROM day)),
failed AS (
  SELECT f.ended_at AS failed_at, coalesce(f.asked_by, c.actor) AS asked_by, f.error,
    coalesce(n.started_at, j.started_at) AS retried_at, coalesce(n.asked_by, c.actor) AS retried_by,
    EXISTS (SELECT 1 FROM transitions t WHERE t.job_id = f.job_id AND t.attempt = f.attempt
            AND t.to_state = 'error') AS is_shown,
    j.attempt > f.attempt AS was_retried, s.name AS slot,
    j.kind || coalesce(' of ' || m.name, '') AS what, f.job_id
  FROM job_attempts f JOIN jobs j ON j.id = f.job_id JOIN chains c ON c.id = j.chain_id
    JOIN slots s ON s.id = j.slot_id LEFT JOIN models m ON m.id = j.model_id
    LEFT JOIN job_attempts n ON n.job_id = f.job_id AND n.attempt = f.attempt + 1
  WHERE f.outcome = 'failed')
SELECT a.created_at AS at, a.actor AS asked_by, a.actor AS done_by, s.name AS slot,
  'asked for ' || a.goal || coalesce(' of ' || m.name, '')
    || coalesce(', because of job ' || a.caused_by_job_id, '') AS what,
  NULL AS cause, NULL AS code, NULL AS job_id
FROM asked a JOIN slots s ON s.id = a.slot_id LEFT JOIN models m ON m.id = a.model_id
UNION ALL
SELECT retried_at, retried_by, retried_by, slot, 'retried ' || what, NULL, NULL, job_id
FROM failed WHERE was_retried AND retried_at >= (SELECT began FROM day)
UNION ALL
SELECT failed_at, asked_by, 'worker', slot, 'failed: ' || what, NULL, json_extract(error, '$.code'),
  job_id
FROM failed WHERE NOT is_shown AND failed_at >= (SELECT began FROM day)
UNION ALL
SELECT t.at,
  CASE WHEN t.actor <> 'worker' THEN t.actor
       WHEN t.incident_id IS NULL THEN coalesce(a.asked_by, c.actor) END,
  t.actor, s.name, coalesce(t.from_state || ' → ', 'new → ') || t.to_state, t.cause,
  json_extract(t.evidence, '$.code'), t.job_id
FROM transitions t JOIN slots s ON s.id = t.slot_id LEFT JOIN jobs j ON j.id = t.job_id
  LEFT JOIN chains c ON c.id = j.chain_id
  LEFT JOIN job_attempts a ON a.job_id = t.job_id AND a.attempt = t.attempt
WHERE t.at >= (SELECT began FROM day)
UNION ALL
SELECT deleted_at, NULL, NULL, name, 'deleted', NULL, NULL, NULL
FROM slots WHERE deleted_at >= (SELECT began FROM day)
""",
    """
CREATE VIEW audit_incidents AS
SELECT i.at, e.name AS engine, i.kind, culprit.name AS culprit, m.name AS culprit_model,
  i.job_id AS culprit_job_id, i.detail, moved.name AS moved_slot, t.from_state, t.to_state, t.cause,
  t.at AS moved_at,
  (SELECT b.at FROM transitions b WHERE b.slot_id = t.slot_id AND b.id > t.id
   AND b.to_state IN ('ready', 'idle') ORDER BY b.id LIMIT 1) AS back_at,
  i.id AS incident_id, t.id AS transition_id
FROM incidents i JOIN engines e ON e.id = i.engine_id
  LEFT JOIN slots culprit ON culprit.id = i.slot_id
  LEFT JOIN jobs j ON j.id = i.job_id LEFT JOIN models m ON m.id = j.model_id
  LEFT JOIN transitions t ON t.incident_id = i.id
  LEFT JOIN slots moved ON moved.id = t.slot_id
""",
]


def upgrade() -> None:
    connection = op.get_bind()
    for statement in SCHEMA:
        connection.exec_driver_sql(statement.strip())
