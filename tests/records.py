"""Every record that is logged, with what it is about, as a handler of hal0 sees it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from hal0 import logs


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def kept_records() -> Iterator[list[logging.LogRecord]]:
    """Keep what is logged in the block, at any level."""
    handler, root = logs.with_subject(_Kept()), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.records
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def subject_of(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields that it carries."""
    return {name: getattr(record, name) for name in logs.FIELDS if hasattr(record, name)}
