"""How a table looks on a terminal."""

import os
import pty
import re
import subprocess
import sys

CODE = """
from hal0.cli.show import table
table(["slot", "at", "cause", "code", "about"], [
    ["chat", "2026-11-22 05:38:30Z", "fetch_started", "preload.checksum_mismatch", "two warnings"],
    ["a", "2026-11-22 05:38:30Z", "loaded", "-", "waits for the lane of engine default, " * 2],
])
"""


def on_a_terminal(columns: int) -> str:
    """Return what a table writes to a terminal of so many columns, without its colours."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    try:
        subprocess.run([sys.executable, "-c", CODE], stdout=theirs, env=env, check=True)
    finally:
        os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:  # how Linux says that nobody writes to a terminal any more
        pass
    finally:
        os.close(ours)
    return re.sub(r"\x1b\[[\d;]*m", "", written.decode())


def test_no_word_is_broken_on_a_terminal_of_80_columns() -> None:
    said = on_a_terminal(80)
    for word in ("SLOT", "ABOUT", "2026-11-22 05:38:30Z", "fetch_started", "warnings", "default,"):
        assert word in said, said
    assert "preload.checksum_mismatch" in said


def test_a_wide_terminal_shows_a_row_in_a_line() -> None:
    assert "lane of engine default, waits for the lane of engine default," in on_a_terminal(200)
