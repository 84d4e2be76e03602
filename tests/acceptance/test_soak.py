"""Two minutes of clients that come and go while slots are loaded and unloaded: SERVING was true."""

import os
from pathlib import Path

import pytest

from tests.soak.soak import Plan, Soak
from tests.soak.table import lines_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420), pytest.mark.xdist_group("soak")]

SECONDS = float(os.environ.get("SOAK_SECONDS", "96"))
"""With the silence in the middle and at the end two minutes; `make soak` runs for longer."""


def test_slots_serve_when_somebody_is_served_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Soak(tmp_path, Plan(seed=6, seconds=SECONDS)).run()
    with capsys.disabled():
        print("", *lines_of(report), sep="\n")  # noqa: T201
    assert list(report.violations) == []
    assert report.figures["requests"] > 5 * SECONDS
    # Whether a stream runs just when its slot is emptied by force is chance: it is shown alone.
    happened = ("left by their clients", "woken by requests", "by machines")
    assert all(report.figures[f"  {what}"] for what in happened), report.figures
