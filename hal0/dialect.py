"""SQLite's dialect, under which a statement is compiled once for all engines of a process.

SQLAlchemy keeps what it compiled with the engine that asked, and compiles it anew for the next:
hal0 has three over one file, and to compile most statements takes longer than to run them.
"""

from typing import Any, Final

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

NAME: Final = "sqlite+hal0"
COMPILED: Final[LRUCache[Any, Any]] = LRUCache(1000)
"""For `create_engine(execution_options={"compiled_cache": COMPILED})`."""


class SharedDialect(SQLiteDialect_pysqlite):
    """One dialect is like another: the key of what was compiled holds it."""

    supports_statement_cache = True

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))


def register() -> None:
    """Let `create_engine` know the dialect by its name."""
    registry.register("sqlite.hal0", __name__, SharedDialect.__name__)
