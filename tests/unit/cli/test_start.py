"""What the command costs before it does anything, and what it says of itself."""

import json
import subprocess
import sys

import pytest

from hal0 import __version__
from hal0.cli import COMMANDS
from tests.unit.cli.conftest import Run

HEAVY = {"sqlalchemy", "httpx", "starlette", "uvicorn", "pydantic", "rich", "huey", "alembic"}
PROBE = """
import json, resource, sys
from hal0.cli import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime
print(json.dumps({"code": code, "cpu": cpu, "modules": sorted(sys.modules)}), file=sys.stderr)
"""
CPU_LIMIT_S = 0.6
"""The promise is 0.2 s; a loaded machine that runs two tests at once gets three times that."""


def _probe(*args: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *args], capture_output=True, text=True, check=True
    )
    last: dict[str, object] = json.loads(done.stderr.splitlines()[-1])
    return last


@pytest.mark.parametrize(
    "args", [["--help"], ["slot", "--help"], ["job", "list", "--help"], ["--version"]]
)
def test_help_is_cheap_and_imports_nothing_heavy(args: list[str]) -> None:
    seen = _probe(*args)
    assert seen["code"] == 0
    assert HEAVY.isdisjoint(seen["modules"])  # type: ignore[arg-type]
    assert seen["cpu"] < CPU_LIMIT_S  # type: ignore[operator]


def test_a_verb_that_asks_the_api_imports_nothing_heavy_either(nobody_answers: str) -> None:
    seen = _probe("slot", "list")
    assert seen["code"] == 7
    assert HEAVY.isdisjoint(seen["modules"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_and_helps(run: Run, name: str) -> None:
    done = run(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert "Usage: hal0" in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_of_help_is_cut_off(run: Run, name: str) -> None:
    assert "..." not in run(name, "--help").out.partition("Commands:")[2]


def test_help_names_the_settings_that_a_command_needs(run: Run) -> None:
    for name in ("HAL0_HOME", "HAL0_URL", "HAL0_TOKEN_FILE"):
        assert name in run("--help").out


def test_the_version_is_told_as_text_and_as_json(run: Run) -> None:
    assert run("--version").out == f"hal0 {__version__}\n"
    assert json.loads(run("version", "--json").out) == {"version": __version__}


@pytest.mark.parametrize("args", [["nothing"], ["slot", "show"], ["slot", "list", "--colour"]])
def test_a_wrong_command_line_is_usage(run: Run, args: list[str]) -> None:
    done = run(*args)
    assert (done.code, done.out) == (2, "")
    assert "Usage" in done.err


def test_python_m_hal0_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hal0", "version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"hal0 {__version__}\n"
