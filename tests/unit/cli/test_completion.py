"""Tab completes commands, options and names; nothing is said when the API is away."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hal0.db import Database
from tests.ledger import make_slots
from tests.rows import ask_load
from tests.unit.cli.conftest import Run

SHELLS = ["bash", "zsh", "fish"]
TYPED = {
    "bash": {"COMP_WORDS": "hal0 slot load c", "COMP_CWORD": "3"},
    "zsh": {"COMP_WORDS": "hal0 slot load c", "COMP_CWORD": "3"},
    "fish": {"COMP_WORDS": "hal0 slot load c", "COMP_CWORD": "c"},
}
OFFERED = {
    "bash": ["plain,chat", "plain,code"],
    "zsh": ["plain", "chat", "offline", "plain", "code", "offline"],
    "fish": ["plain,chat\toffline", "plain,code\toffline"],
}


def offered(shell: str, **typed: str) -> "subprocess.CompletedProcess[str]":
    """Ask as a shell's script does."""
    env = {**os.environ, **typed, "_HAL0_COMPLETE": f"{shell}_complete"}
    command = [sys.executable, "-m", "hal0"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_is_offered_the_names_that_there_are(
    db: Database, api_url: str, shell: str
) -> None:
    make_slots(db, "chat", "code", "other")
    done = offered(shell, **TYPED[shell])
    assert (done.stdout.splitlines(), done.stderr) == (OFFERED[shell], "")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("hal0 slot load chat --model m", ["m-chat"]),
        ("hal0 audit --cause engine_", ["engine_restarted", "engine_lost", "engine_returned"]),
        ("hal0 slot create new --engine d", ["default"]),
        ("hal0 job cancel ", ["4", "3", "2", "1"]),
        ("hal0 job retry ", []),
        ("hal0 audit --slot ", ["chat"]),
        ("hal0 au", ["audit"]),
        ("hal0 audit --format n", ["ndjson"]),
    ],
)
def test_what_is_offered_fits_to_where_it_is_typed(
    db: Database, api_url: str, words: str, names: list[str]
) -> None:
    make_slots(db, "chat")
    ask_load(db)
    place = str(len(words.split(" ")) - 1)
    done = offered("bash", COMP_WORDS=words, COMP_CWORD=place)
    assert [line.removeprefix("plain,") for line in done.stdout.split()] == names


def test_an_api_that_is_away_offers_nothing_and_says_nothing(nobody_answers: str) -> None:
    done = offered("bash", **TYPED["bash"])
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_printed_for_each_shell(run: Run, shell: str) -> None:
    done = run("completion", shell)
    assert (done.code, done.err) == (0, "")
    assert f"{shell}_complete" in done.out
    assert run("completion", "tcsh").code == 2


def test_a_real_bash_completes_with_it(db: Database, api_url: str, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    make_slots(db, "chat", "code")
    program = tmp_path / "hal0"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hal0 "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(hal0 completion bash)"
        COMP_WORDS=(hal0 slot load c) COMP_CWORD=3
        _hal0_completion hal0
        echo "${COMPREPLY[@]}"
    """
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("chat code\n", "")
