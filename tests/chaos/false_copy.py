"""A copy of the evidence whose rows and lines can be changed, as no process of hal0 could.

The database's triggers would not let it, so the copy has none.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.chaos.evidence import Evidence, Json


class Copy:
    """A copy of the evidence whose rows and lines can be changed."""

    def __init__(self, true: Evidence, folder: Path) -> None:
        paths = (true.database, true.answers, true.calls)
        self.evidence = Evidence(*(folder / path.name for path in paths))
        for path in paths:
            shutil.copy(path, folder / path.name)
        for (name,) in self.sql("SELECT name FROM sqlite_schema WHERE type = 'trigger'"):
            self.sql(f"DROP TRIGGER {name}")

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read or change the rows; a change must change something."""
        with closing(sqlite3.connect(self.evidence.database)) as connection, connection:
            cursor = connection.execute(statement, values)
            assert cursor.rowcount != 0, f"nothing changed: {statement}"
            return cursor.fetchall()

    def one(self, query: str, *values: Any) -> Any:
        """Return the first value that a query finds."""
        return self.sql(query, *values)[0][0]

    def edit_answers(self, edit: Callable[[list[Json]], None]) -> None:
        """Change the client's log."""
        _edit(self.evidence.answers, edit)

    def edit_calls(self, edit: Callable[[list[Json]], None]) -> None:
        """Change the engine's log."""
        _edit(self.evidence.calls, edit)

    @property
    def load(self) -> tuple[int, int]:
        """Job and id of the row of the first load that was sent."""
        row = self.sql(
            "SELECT job_id, id FROM transitions WHERE cause = 'load_sent' ORDER BY id LIMIT 1"
        )[0]
        return int(row[0]), int(row[1])


def _edit(path: Path, edit: Callable[[list[Json]], None]) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    before = json.dumps(lines)
    edit(lines)
    assert json.dumps(lines) != before, "nothing changed"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def forget_rows(lines: list[Json]) -> None:
    """Leave the client's word out, so that only the rows tell."""
    lines[:] = [x for x in lines if x["phase"] == "asked" or x["status"] == 202]
