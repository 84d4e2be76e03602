"""What a request for inference needs to know of a slot: whether it wakes it, and its limits.

A slot wakes as `auto` says unless it is told otherwise, which asks who wanted it unloaded. What is
wanted of a slot that is there was wanted by an operator, unless its rows tell that it was unloaded
by a machine, or in its engine's own app, or that nothing was ever asked of it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

SCHEMA = [
    "ALTER TABLE slots ADD COLUMN wake TEXT DEFAULT 'auto' NOT NULL",
    "ALTER TABLE slots ADD COLUMN max_in_flight INTEGER",
    "ALTER TABLE slots ADD COLUMN max_waiting INTEGER",
    "ALTER TABLE slots ADD COLUMN desired_by TEXT DEFAULT 'nobody' NOT NULL",
    """
UPDATE slots SET desired_by = CASE
  WHEN desired = 'loaded' THEN 'operator'
  WHEN cause = 'unloaded_elsewhere' THEN 'elsewhere'
  WHEN 'idle' = (
    SELECT origin FROM chains WHERE slot_id = slots.id AND goal IN ('load', 'unload')
    ORDER BY position DESC LIMIT 1
  ) AND 'idle_unload' = (
    SELECT t.cause FROM transitions t WHERE t.slot_id = slots.id AND t.to_state = 'unloading'
    ORDER BY t.id DESC LIMIT 1
  ) THEN 'idle'
  WHEN EXISTS (
    SELECT 1 FROM chains WHERE slot_id = slots.id AND goal IN ('load', 'unload')
  ) THEN 'operator'
  ELSE 'nobody' END
""",
    """
CREATE TABLE speeds (
    slot_id INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    first_byte_ms FLOAT NOT NULL,
    tokens_per_s FLOAT,
    at TEXT NOT NULL,
    CONSTRAINT pk_speeds PRIMARY KEY (slot_id),
    CONSTRAINT fk_speeds_slot_id FOREIGN KEY(slot_id) REFERENCES slots (id)
)
""",
]

WAKE = "CONSTRAINT ck_slots_wake CHECK (wake IN ('always', 'auto', 'never'))"
BY = (
    "CONSTRAINT ck_slots_desired_by "
    "CHECK (desired_by IN ('elsewhere', 'idle', 'nobody', 'operator', 'wake'))"
)
DESIRED = "CONSTRAINT ck_slots_desired"
CHECKS = {
    "chains": ("'idle', 'operator', 'restore')", "'idle', 'operator', 'restore', 'wake')"),
    "slots": (DESIRED, f"{WAKE}, {BY}, {DESIRED}"),
}
"""What stands in a table's definition, and what is to stand there. It changes no stored row, so the
definition alone is rewritten, as SQLite's manual describes it for constraints: to build the table
anew would take its triggers and views along."""


def upgrade() -> None:
    connection = op.get_bind()
    for statement in SCHEMA:
        connection.exec_driver_sql(statement.strip())
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    for table, (before, after) in CHECKS.items():
        changed = connection.exec_driver_sql(
            "UPDATE sqlite_schema SET sql = replace(sql, ?, ?) "
            "WHERE type = 'table' AND name = ? AND instr(sql, ?) > 0",
            (before, after, table, before),
        )
        assert changed.rowcount == 1, f"the definition of {table} is not as 0004 left it"
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")
