"""Tokens tell who made and who revoked them.

Of tokens that are there it is not known: both columns are NULL, also of one that was revoked.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

SCHEMA = [
    """
ALTER TABLE tokens ADD COLUMN created_by TEXT
""",
    """
ALTER TABLE tokens ADD COLUMN revoked_by TEXT
""",
]


def upgrade() -> None:
    connection = op.get_bind()
    for statement in SCHEMA:
        connection.exec_driver_sql(statement.strip())
