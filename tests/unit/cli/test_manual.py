"""The manual page says what the commands say, and is installed with them."""

import re
import tomllib
from pathlib import Path

from hal0.cli import COMMANDS
from hal0.cli.manual import manual
from hal0.settings import Settings

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "man" / "hal0.1"


def test_the_page_is_as_the_code_writes_it() -> None:
    to_do = "run `python -m hal0.cli.manual > docs/man/hal0.1`"
    assert PAGE.read_text(encoding="utf-8") == manual(), to_do


def test_every_command_and_every_setting_has_its_place() -> None:
    page = manual().replace(r"\-", "-")
    told = set(re.findall(r"^\.SS hal0 ([\w-]+)", page, re.MULTILINE))
    assert told == set(COMMANDS)
    for name in Settings.model_fields:
        assert f"\\fBHAL0_{name.upper()}\\fR" in page


def test_no_line_of_text_is_taken_for_a_request() -> None:
    requests = re.findall(r"^[.'](\S*)", manual(), re.MULTILINE)
    assert set(requests) <= {"TH", "SH", "SS", "TP", "PP", "B", "nf", "fi"}
    assert manual().isascii(), "an old pager shows nothing else"


def test_the_wheel_has_it_where_man_looks() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shared = built["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared == {"docs/man/hal0.1": "share/man/man1/hal0.1"}
