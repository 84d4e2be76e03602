"""A campaign of kill -9 under mixed traffic: nothing is lost, whoever dies, wherever."""

from pathlib import Path

import pytest

from tests.chaos.campaign import Campaign, Plan, table_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def test_under_random_deaths_nothing_is_lost_doubled_or_torn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At least 300 jobs and 30 deaths over eight slots, with answers; `make chaos` lasts longer."""
    plan = Plan(seed=4, seconds=20, jobs=300, kills=30, requests=5)
    report = Campaign(tmp_path, plan).run()
    with capsys.disabled():
        print()  # noqa: T201
        for name, value in table_of([report]):
            print(f"{name:28}{value:>12}")  # noqa: T201
    assert list(report.violations) == []
    assert report.jobs >= plan.jobs
    assert report.kills >= plan.kills
    assert report.requests["whole"] >= plan.requests
    assert report.deaths_at, "no worker died at a named point"
