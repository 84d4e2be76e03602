"""How a process logs: one line a record on stderr, with the slot, job and request it is about."""

import logging
import sys
from typing import Final

FIELDS: Final = ("slot", "job_id", "attempt", "request_id")


class LineFormatter(logging.Formatter):
    """Time, level, logger, message, then the known extra fields as `key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows on lines of its own."""
        extras = "".join(
            f" {name}={value}"
            for name in FIELDS
            if (value := getattr(record, name, None)) is not None
        )
        first, *rest = super().format(record).split("\n", 1)
        return "\n".join([first + extras, *rest])


def set_up(level: str = "INFO") -> None:
    """Send all records of this process to stderr at `level` and above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore", "httpx2", "httpcore2", "alembic", "huey"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
