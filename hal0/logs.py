"""How a process logs: with the slot, job and request that a record is about.

On stderr it is a line a record. Where stderr is the journal's, records go there by its own
protocol: what they are about, priority and place in the code are fields that can be asked for
(`journalctl HAL0_JOB_ID=7`), and a traceback is one entry.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Final, TypeVar

from hal0.masks import escaped, masked

FIELDS: Final = ("slot", "job_id", "attempt", "request_id")
LINE: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
PRIORITIES: Final = ((50, 2), (40, 3), (30, 4), (20, 6), (0, 7))
"""Level and above to syslog's number: crit, err, warning, info, debug."""

Handler = TypeVar("Handler", bound=logging.Handler)
_subject: ContextVar[Mapping[str, object]] = ContextVar("subject", default={})  # noqa: B039


def about(**fields: object) -> AbstractContextManager[None]:
    """Let every record inside say what it is about, in `FIELDS`; None = nothing is known of it.

    Holds for tasks and threads that carry the context on, as asyncio's do.
    """
    return _About({name: value for name, value in fields.items() if value is not None})


class _About(AbstractContextManager[None]):
    """Not `@contextmanager`: every request enters one, and a generator costs it a microsecond."""

    __slots__ = ("_before", "_known")

    def __init__(self, known: Mapping[str, object]) -> None:
        self._known = known

    def __enter__(self) -> None:
        self._before = _subject.set({**_subject.get(), **self._known})

    def __exit__(self, *_: object) -> None:
        _subject.reset(self._before)


def with_subject(handler: Handler) -> Handler:
    """Return the handler, whose records say what is around them, unless they say it themselves."""

    def add(record: logging.LogRecord) -> bool:
        for name, value in _subject.get().items():
            record.__dict__.setdefault(name, value)
        return True

    handler.addFilter(add)
    return handler


class LineFormatter(logging.Formatter):
    """Time, level, logger, message, then the known extra fields as `key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, tokens masked; a traceback follows on lines of its own, indented."""
        line, *rest = super().format(record).split("\n")
        return masked("\n  ".join([line, *(escaped(more, keep="\t") for more in rest)]))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the record as one line, whatever is in it."""
        extras = "".join(f" {name}={value}" for name, value in _fields_of(record))
        return escaped(super().formatMessage(record) + extras)


class JournalHandler(logging.Handler):
    """Sends each record as an entry of the journal; what cannot be sent goes to stderr."""

    def __init__(self, program: str, path: Path | None = None) -> None:
        from logging_journald import JournaldTransport

        super().__init__()
        self._program = program
        self._transport = JournaldTransport(path, connected=False)  # journald may be restarted

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry."""
        try:
            self._transport.send(self._entry(record).items())
        except OSError:
            sys.stderr.write(f"{LineFormatter(LINE).format(record)}\n")
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)

    def close(self) -> None:
        """Give the socket back."""
        self._transport.socket.close()
        super().close()

    def _entry(self, record: logging.LogRecord) -> dict[str, object]:
        priority = next(number for level, number in PRIORITIES if record.levelno >= level)
        return {
            "MESSAGE": masked(escaped(self.format(record), keep="\n\t")),
            "PRIORITY": priority,
            "SYSLOG_IDENTIFIER": self._program,
            "LOGGER": record.name,
            "THREAD_NAME": record.threadName,
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            "CODE_FUNC": record.funcName,
            **{
                f"HAL0_{name.upper()}": masked(escaped(str(value)))
                for name, value in _fields_of(record)
            },
        }


def set_up(level: str = "INFO", program: str = "hal0") -> None:
    """Send all records of this process at `level` and above to the journal, or else to stderr.

    The journal shows them as those of `program`.
    """
    root = logging.getLogger()
    root.handlers[:] = [with_subject(_handler(program))]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore", "httpx2", "httpcore2", "alembic", "huey"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # What it warns of, anyone who can connect can make it say, as often as they like.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether uvicorn tells what nobody told yet.

    Only `api.front` leaves an answer without its end and without an error: for a stream that is
    open when the server stops, once for each of them.
    """
    return record.msg != "ASGI callable returned without completing response."


def _handler(program: str) -> logging.Handler:
    if _leads_to_journal():
        return JournalHandler(program)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(LINE))
    return handler


def _leads_to_journal() -> bool:
    """Tell whether stderr is the stream that JOURNAL_STREAM names, not one that took its place."""
    from logging_journald import check_journal_stream

    with suppress(OSError, ValueError):
        return bool(check_journal_stream())
    return False


def _fields_of(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    for name in FIELDS:
        if (value := getattr(record, name, None)) is not None:
            yield name, value
