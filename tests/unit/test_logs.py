"""What a record says of itself: on a line of stderr, and in the fields of the journal."""

import array
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hal0 import logs

log = logging.getLogger("hal0.some.room")


@pytest.fixture(autouse=True)
def root_as_before() -> Iterator[None]:
    root, server = logging.getLogger(), logging.getLogger("uvicorn.error")
    handlers, levels = root.handlers[:], (root.level, server.level)
    yield
    root.handlers[:] = handlers
    for logger, level in zip((root, server), levels, strict=True):
        logger.setLevel(level)


class Journal:
    """journald's socket, and the entries that came there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(10)

    def entry(self) -> dict[str, str]:
        """Return the next entry; of two fields of one name the last."""
        size = array.array("i").itemsize
        data, passed, *_ = self.socket.recvmsg(2**20, socket.CMSG_LEN(size))
        for _, _, descriptor in passed:  # too big for a datagram
            (number,) = array.array("i", descriptor[:size])
            with os.fdopen(number, "rb") as file:
                file.seek(0)
                data = file.read()
        fields = {}
        while data:
            line, _, data = data.partition(b"\n")
            name, is_short, value = line.partition(b"=")
            if not is_short:
                length = int.from_bytes(data[:8], sys.byteorder)
                value, data = data[8 : 8 + length], data[9 + length :]
            fields[name.decode()] = value.decode()
        return fields


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.socket.close()


@pytest.fixture
def to_journal(journal: Journal) -> Iterator[Journal]:
    handler = logs.JournalHandler("hal0-worker", journal.path)
    logging.getLogger().handlers[:] = [logs.with_subject(handler)]
    logging.getLogger().setLevel("DEBUG")
    yield journal
    handler.close()


def test_a_line_ends_with_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("INFO", "hal0-worker")
    with logs.about(slot="chat", job_id=7, attempt=2, request_id=None):
        log.info("load begins")
    log.info("nothing in particular")
    about, plain = capsys.readouterr().err.splitlines()
    assert about.endswith("INFO    hal0.some.room: load begins slot=chat job_id=7 attempt=2")
    assert plain.endswith("INFO    hal0.some.room: nothing in particular")


def test_what_any_stranger_can_make_a_server_say_is_not_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.set_up("DEBUG")
    server = logging.getLogger("uvicorn.error")
    server.warning("Invalid HTTP request received.")
    server.error("ASGI callable returned without completing response.")
    server.error("Exception in ASGI application")
    (told,) = capsys.readouterr().err.splitlines()
    assert told.endswith("Exception in ASGI application")


def test_what_a_call_says_itself_goes_before_what_is_around_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.set_up()
    with logs.about(slot="chat", job_id=7), logs.about(slot="code"):
        log.warning("of another", extra={"job_id": 9})
    assert capsys.readouterr().err.rstrip().endswith("of another slot=code job_id=9")


def test_an_entry_has_its_fields(to_journal: Journal) -> None:
    with logs.about(slot="chat", job_id=7, attempt=2, request_id="abc"):
        log.warning("%s fails", "load")
    entry = to_journal.entry()
    line = entry.pop("CODE_LINE")
    assert int(line) > 0
    assert entry == {
        "MESSAGE": "load fails",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "hal0-worker",
        "LOGGER": "hal0.some.room",
        "THREAD_NAME": "MainThread",
        "CODE_FILE": __file__,
        "CODE_FUNC": "test_an_entry_has_its_fields",
        "HAL0_SLOT": "chat",
        "HAL0_JOB_ID": "7",
        "HAL0_ATTEMPT": "2",
        "HAL0_REQUEST_ID": "abc",
    }


@pytest.mark.parametrize(
    ("level", "priority"), [(10, "7"), (20, "6"), (25, "6"), (30, "4"), (40, "3"), (50, "2")]
)
def test_levels_are_told_as_priorities(to_journal: Journal, level: int, priority: str) -> None:
    log.log(level, "something")
    assert to_journal.entry()["PRIORITY"] == priority


def test_a_traceback_stays_in_one_entry(to_journal: Journal) -> None:
    try:
        raise ValueError("of\nlines")
    except ValueError:
        log.exception("met a bug")
    message = to_journal.entry()["MESSAGE"]
    assert message.startswith("met a bug\nTraceback (most recent call last):\n")
    assert message.endswith("ValueError: of\nlines")


def test_an_entry_too_big_for_a_datagram_arrives_whole(to_journal: Journal) -> None:
    log.info("x" * 2**19)
    assert len(to_journal.entry()["MESSAGE"]) == 2**19


def test_a_token_is_masked_in_an_entry(to_journal: Journal) -> None:
    token = "hal0_" + "A" * 43
    with logs.about(request_id=token):
        log.info("asked with %s", token)
    entry = to_journal.entry()
    assert entry["MESSAGE"] == "asked with hal0_…"
    assert entry["HAL0_REQUEST_ID"] == "hal0_…"


def test_a_journal_that_is_gone_costs_no_record(
    to_journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    to_journal.path.unlink()
    with logs.about(job_id=7):
        log.info("load begins")
    assert capsys.readouterr().err.rstrip().endswith("hal0.some.room: load begins job_id=7")


PROBE = """
import logging, os, sys
from hal0 import logs
if sys.argv[1] == "own":
    stat = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{stat.st_dev}:{stat.st_ino}"
else:
    os.environ["JOURNAL_STREAM"] = sys.argv[1]
logs.set_up()
print(type(logging.getLogger().handlers[0]).__name__)
"""


@pytest.mark.parametrize(
    ("stream", "handler"),
    [("own", "JournalHandler"), ("1:1", "StreamHandler"), ("", "StreamHandler"), ("x", None)],
)
def test_the_journal_is_spoken_to_when_stderr_leads_there(stream: str, handler: str | None) -> None:
    command = [sys.executable, "-c", PROBE, stream]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == (handler or "StreamHandler")
