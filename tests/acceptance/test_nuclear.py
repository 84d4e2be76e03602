"""`make nuclear`, as README shows it: one bad file, with preload validation and without."""

import re
import subprocess
import sys

import pytest

from tests.acceptance.house import ROOT

pytestmark = pytest.mark.slow
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = r"<!-- nuclear output -->\n```\n(.+?)```\n<!-- /nuclear output -->"
PASSING = re.compile(r"\w+: job \d+ \w+( queued| running|: hash .*|: waits for .*)")
"""What a command says of a job on its way; how much of that depends on the machine's speed."""


def without_what_varies(output: str) -> list[str]:
    """Return the lines of a show without its times and the width of its columns."""
    steps = [line for line in output.splitlines() if not PASSING.fullmatch(line)]
    same = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+", "<time>", "\n".join(steps))
    same = re.sub(r"after \d+\.\d s", "after <n> s", same)
    return [" ".join(line.split()) for line in same.splitlines()]


def test_the_show_is_as_the_readme_shows_it() -> None:
    """Also each claim of it: it ends with 1 at the first that does not hold."""
    command = [sys.executable, "-m", "tests.nuclear"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = re.search(SHOWN, README, re.DOTALL)
    assert shown
    assert without_what_varies(done.stdout) == without_what_varies(shown[1])
