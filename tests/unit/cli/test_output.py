"""Commands whose output cannot be written, as real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hal0.access.tokens import TokenState, all_tokens
from hal0.db import Database
from hal0.settings import Settings

ROOT = Path(__file__).parents[3]


def hal0(settings: Settings, line: str) -> "subprocess.CompletedProcess[str]":
    """Run `hal0 <line>` by a shell, with its redirections."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m hal0 {line}', sys.executable],
        cwd=ROOT,
        env={**os.environ, "HAL0_HOME": str(settings.home)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("to", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", ["version", "version --json", "db info", "token list"])
def test_an_output_that_cannot_be_written_is_told_in_a_sentence(
    db: Database, settings: Settings, command: str, to: str
) -> None:
    done = hal0(settings, f"{command} {to}")
    assert done.returncode == 1
    assert done.stderr.startswith("hal0: the output cannot be written: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("to", [">/dev/full", ">&-", "--json >/dev/full"])
def test_a_token_that_nobody_could_read_is_revoked(
    db: Database, settings: Settings, to: str
) -> None:
    done = hal0(settings, f"token create alice --role writer {to}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "hal0: the text of token alice could not be printed, so it was revoked; make one of "
        "another name"
    )
    with db.read() as tx:
        assert [token.state for token in all_tokens(tx).rows] == [TokenState.REVOKED]


def test_no_file_of_a_command_gets_a_descriptor_that_was_closed(
    db: Database, settings: Settings
) -> None:
    done = hal0(settings, "db upgrade <&- >&- 2>&-")
    assert done.returncode == 1
    db.ensure_readable()
