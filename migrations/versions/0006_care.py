"""What an operator needs to look after hal0: who has seen an incident, what was pruned, what the
machine is, how long a scan takes, and how often the fence stopped a write. Incidents are final.

Incidents that are there were seen by nobody yet. What was not counted so far counts as none.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

SCHEMA = [
    "ALTER TABLE incidents ADD COLUMN acked_at TEXT",
    "ALTER TABLE incidents ADD COLUMN acked_by TEXT",
    "CREATE INDEX ix_incidents_job_id ON incidents (job_id)",
    "ALTER TABLE engines ADD COLUMN scan_took_ms INTEGER",
    "ALTER TABLE owners ADD COLUMN fenced_writes INTEGER DEFAULT 0 NOT NULL",
    """
CREATE TABLE prunings (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    actor TEXT NOT NULL,
    deleted JSON NOT NULL
)
""",
    """
CREATE TABLE probes (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    facts JSON NOT NULL
)
""",
    """
CREATE TRIGGER incidents_no_delete BEFORE DELETE ON incidents
BEGIN SELECT RAISE(ABORT, 'incidents: what happened is never deleted'); END
""",
    """
CREATE TRIGGER incidents_no_replace BEFORE INSERT ON incidents
WHEN EXISTS (SELECT 1 FROM incidents WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'incidents: this row exists'); END
""",
    """
CREATE TRIGGER incidents_no_replace_by_update BEFORE UPDATE OF id ON incidents
WHEN NEW.id <> OLD.id
BEGIN SELECT RAISE(ABORT, 'incidents: an id is for ever'); END
""",
]


def upgrade() -> None:
    connection = op.get_bind()
    for statement in SCHEMA:
        connection.exec_driver_sql(statement.strip())
