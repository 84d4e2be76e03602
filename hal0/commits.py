"""Whether anything was committed since the last look, by whichever process, without reading a row.

SQLite's `PRAGMA data_version` changes on a connection when another one, of this process or not, has
committed. So it takes a connection of its own that is kept, and on which nothing is ever written.
"""

import sqlite3
from pathlib import Path

from hal0.sqlite_errors import database_errors


class Commits:
    """One who looks now and then; to be used in one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._line: sqlite3.Connection | None = None
        self._seen: int | None = None

    def any_new(self) -> bool:
        """Tell whether there may be something new; the first time, and after an error, there is.

        Ask before you read, not after: what is committed in between is then told once more. Raises
        DatabaseError.
        """
        try:
            with database_errors(self._path):
                found = int(self._connected().execute("PRAGMA data_version").fetchone()[0])
        except Exception:  # whatever it was: the next look makes a new connection
            self.close()
            raise
        is_new, self._seen = found != self._seen, found
        return is_new

    def _connected(self) -> sqlite3.Connection:
        if self._line is None:
            self._line = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, timeout=5)
            self._line.execute("PRAGMA query_only = ON")
        return self._line

    def close(self) -> None:
        """Give the connection back; the next look makes another."""
        self._seen = None
        if self._line is not None:
            self._line.close()
            self._line = None
