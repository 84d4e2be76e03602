"""Commands on a terminal: colours only where they are wanted, and `hal0 top` as it is watched."""

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from hal0.db import Database
from hal0.settings import Settings
from tests.ledger import make_slots
from tests.mishaps import load_all
from tests.rows import ask_load
from tests.unit.cli.conftest import serving
from tests.unit.cli.terminal import on_a_terminal

COLOUR = re.compile(rb"\x1b\[[\d;]*\b(?:3[0-8]|4[0-8]|9\d)[\d;]*m")

HOME = b"\x1b[H"
"""How each picture begins."""

LEFT = b"\x1b[?1049l"
"""How a terminal is told to show again what stood on it before."""


def written(command: Sequence[str], **env: str) -> bytes:
    with on_a_terminal(command, env) as terminal:
        while terminal.read():
            pass
        return terminal.written


@pytest.fixture
def chat(db: Database, api_url: str) -> Database:
    make_slots(db, "chat")
    load_all(db, "chat")
    return db


def test_a_terminal_has_colours_unless_somebody_wants_none(
    chat: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = tmp_path / "hal0.toml"
    file.write_text('[models.chat]\nsource = "https://x/chat.gguf"\n')
    apply = ["apply", str(file), "--dry-run"]
    for command in (["slot", "list"], apply):
        assert COLOUR.search(written(command)), command
    for command, env in [
        (["slot", "list"], {"NO_COLOR": "1"}),
        (apply, {"NO_COLOR": "1"}),
        (["--no-color", "slot", "list"], {}),
        (["slot", "list", "--no-color"], {}),
        (["status", "--no-color"], {"FORCE_COLOR": "1"}),
    ]:
        shown = written(command, **env)
        assert b"chat" in shown
        assert not COLOUR.search(shown), command


def test_a_pipe_has_none_whatever_is_forced(
    chat: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    for command in (["slot", "list"], ["status"], ["top"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "hal0", *command], capture_output=True, check=False
        )
        assert b"chat" in done.stdout or command == ["--help"]
        assert b"\x1b" not in done.stdout + done.stderr


def test_top_shows_what_changes_until_q_and_leaves_the_terminal_as_it_was(chat: Database) -> None:
    with on_a_terminal(["top"], {}) as terminal:
        terminal.until("m-chat")
        seen = len(terminal.written)
        make_slots(chat, "later")
        ask_load(chat, "later")
        terminal.until("validate", since=seen)
        terminal.press(b"q")
        assert terminal.end() == 0
        assert LEFT in terminal.written[-60:]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_top_as_cleanly(chat: Database, number: signal.Signals) -> None:
    with on_a_terminal(["top"], {}) as terminal:
        terminal.until("m-chat")
        terminal.process.send_signal(number)
        assert terminal.end() == 130
        assert LEFT in terminal.written[-60:]


def test_top_says_since_when_the_api_is_away_and_goes_on_when_it_is_back(
    settings: Settings, db: Database
) -> None:
    make_slots(db, "chat")
    with ExitStack() as api:
        url = api.enter_context(serving(settings, db))
        with on_a_terminal(["top"], {"HAL0_URL": url, "TZ": "CXT-05:30"}) as terminal:
            terminal.until("m-chat")
            api.close()
            terminal.until("away since ")
            terminal.until(" CXT: the API at ")
            api.enter_context(serving(settings, db, int(url.rpartition(":")[2])))
            seen = len(terminal.written)
            make_slots(db, "later")
            terminal.until("m-later", since=seen)
            terminal.press(b"q")
            assert terminal.end() == 0
            last = terminal.written.split(HOME)[-1]
            assert b"m-later" in last
            assert b"away" not in last
