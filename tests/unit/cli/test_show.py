"""How a table looks on a terminal."""

import os
import pty
import re
import subprocess
import sys
from io import StringIO

import pytest
from freezegun import freeze_time
from rich.console import Console

from hal0.cli.layout import laid_out
from hal0.cli.show import facts, size_of

CODE = """
from hal0.cli.show import table
table(["slot", "at", "cause", "code", "about"], [
    ["chat", "2026-11-22 05:38:30 CET", "fetch_started", "preload.checksum_mismatch", "2 warnings"],
    ["a", "2026-11-22 05:38:30 CET", "loaded", None, "waits for the lane of engine default, " * 2],
])
"""


def on_a_terminal(**env: str) -> str:
    """Return what a table writes to a terminal of no known width, without its colours."""
    ours, theirs = pty.openpty()
    without = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    env = {**without, "TERM": "xterm", **env}
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


def test_what_has_no_room_on_a_terminal_stands_below_its_row_with_its_name() -> None:
    assert [line.rstrip() for line in on_a_terminal(COLUMNS="80").splitlines()] == [
        "SLOT  AT (CET)        CAUSE          CODE",
        "chat  11-22 05:38:30  fetch_started  preload.checksum_mismatch",
        "  about: 2 warnings",
        "a     11-22 05:38:30  loaded         -",
        "  about: waits for the lane of engine default, waits for the lane of engine",
        "  default,",
    ]


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 * 1024**2, "5.0 MiB"),
        (3 * 1024**3 // 2, "1.5 GiB"),
        (2 * 1024**4, "2.0 TiB"),
        (None, "-"),
    ],
)
def test_bytes_are_said_in_the_unit_that_fits(count: int | None, said: str) -> None:
    assert size_of(count) == said


@pytest.mark.parametrize("columns", range(20, 130, 7))
def test_no_word_is_lost_or_broken_and_no_line_too_long(columns: int) -> None:
    said = on_a_terminal(COLUMNS=str(max(columns, 30)))
    words = "chat 05:38:30 fetch_started preload.checksum_mismatch 2 warnings lane default,"
    assert [word for word in words.split() if word not in said] == []
    assert max(len(line.rstrip()) for line in said.splitlines()) <= max(columns, 30)


@pytest.mark.parametrize("env", [{}, {"TERM": "dumb"}, {"TERM": "dumb", "COLUMNS": "80"}])
def test_where_no_width_is_known_each_row_is_one_line_that_nothing_cuts(
    env: dict[str, str],
) -> None:
    head, first, second = on_a_terminal(**env).splitlines()
    assert head.split() == ["SLOT", "AT", "CAUSE", "CODE", "ABOUT"]
    assert first.endswith("fetch_started  preload.checksum_mismatch  2 warnings")
    assert second.endswith(" engine default, waits for the lane of engine default,")


def test_times_of_two_zones_keep_theirs_and_of_another_year_that() -> None:
    def shown(*times: str) -> list[str]:
        terminal = Console(width=30, file=StringIO())
        rows = [["chat", time, "evicted_by_engine"] for time in times]
        terminal.print(laid_out(["slot", "at", "cause"], rows, 30, {}))
        return [line[6:].rstrip() for line in terminal.file.getvalue().splitlines()]  # type: ignore[attr-defined]

    with freeze_time("2026-11-22 12:00:00"):
        two = shown("2026-10-25 02:10:00 CEST", "2026-10-25 02:10:00 CET", "-")
        assert two[:2] == ["AT", "2026-10-25 02:10:00 CEST"]
        past = shown("2025-12-31 23:00:00 CET", "2026-01-01 00:00:00 CET", "-")
        assert past[:2] == ["AT (CET)", "2025-12-31 23:00:00"]


def test_what_is_shown_of_one_thing_has_sizes_for_bytes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts({"progress": {"done_bytes": 98362432, "rate_bytes_s": 2**30}, "size_bytes": None})
    said = capsys.readouterr().out.splitlines()
    assert said == ["progress:", "  done: 93.8 MiB", "  rate: 1.0 GiB/s", "size      -"]


def test_a_wide_terminal_shows_a_row_in_a_line() -> None:
    said = on_a_terminal(COLUMNS="200")
    assert "lane of engine default, waits for the lane of engine default," in said
    assert "2026-11-22 05:38:30 CET" in said
