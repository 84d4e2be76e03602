"""What a scan remembers: unused since when, engines as they were seen, automatic loads.

Nothing that is there means anything else than before. A slot that is offline although it is to be
loaded gets no automatic load on account of this upgrade: `restore` is NULL.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

SCHEMA = [
    "ALTER TABLE engines ADD COLUMN seen JSON",
    "ALTER TABLE engines ADD COLUMN scanned_boot TEXT",
    "ALTER TABLE engines ADD COLUMN scanned_ms INTEGER",
    "ALTER TABLE engines ADD COLUMN unreachable_boot TEXT",
    "ALTER TABLE engines ADD COLUMN unreachable_ms INTEGER",
    "ALTER TABLE engines ADD COLUMN unreachable_seen_ms INTEGER",
    "ALTER TABLE slots ADD COLUMN load_timeout_s_per_gb FLOAT",
    "ALTER TABLE slots ADD COLUMN restore JSON",
    "ALTER TABLE owners ADD COLUMN beat_s FLOAT",
    "CREATE INDEX ix_jobs_model_id ON jobs (model_id)",
    """
CREATE TABLE breakers (
    slot_id INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    sent_boot TEXT NOT NULL,
    sent_ms INTEGER NOT NULL,
    opens_ms INTEGER NOT NULL,
    opens_at TEXT NOT NULL,
    ready_boot TEXT,
    ready_ms INTEGER,
    CONSTRAINT pk_breakers PRIMARY KEY (slot_id),
    CONSTRAINT fk_breakers_slot_id FOREIGN KEY(slot_id) REFERENCES slots (id)
)
""",
    """
CREATE TABLE idle_windows (
    slot_id INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    seen TEXT NOT NULL,
    since_boot TEXT NOT NULL,
    since_ms INTEGER,
    CONSTRAINT pk_idle_windows PRIMARY KEY (slot_id),
    CONSTRAINT fk_idle_windows_slot_id FOREIGN KEY(slot_id) REFERENCES slots (id)
)
""",
]


def upgrade() -> None:
    connection = op.get_bind()
    for statement in SCHEMA:
        connection.exec_driver_sql(statement.strip())
