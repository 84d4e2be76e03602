"""Every rule of the protocol is shown by a test, or named with what will bring it."""

import ast
from pathlib import Path
from types import ModuleType

import pytest

from tests.machine import test_rules_of_engines, test_rules_of_jobs
from tests.machine.rules import NOT_YET, RULES

ELSEWHERE = {
    "stuck_owner_is_killed": (
        "tests/unit/jobs/test_rescue.py",
        "test_a_silent_owner_is_killed_before_its_job_is_taken",
    ),
}
"""Shown with a real process, which this package has not."""


def _shown_by(module: ModuleType) -> list[str]:
    tests = (one for name, one in vars(module).items() if name.startswith("test_"))
    return [test.rule for test in tests if hasattr(test, "rule")]


def test_every_rule_is_shown_by_one_test_or_is_not_yet_there() -> None:
    shown = _shown_by(test_rules_of_jobs) + _shown_by(test_rules_of_engines)
    missing = {rule for rule in NOT_YET if rule in RULES}
    assert sorted([*shown, *ELSEWHERE, *missing]) == sorted(RULES)


@pytest.mark.parametrize(("file", "name"), ELSEWHERE.values(), ids=list(ELSEWHERE))
def test_the_tests_that_show_a_rule_elsewhere_are_there(file: str, name: str) -> None:
    tree = ast.parse(Path(__file__).parents[2].joinpath(file).read_text())
    assert name in [one.name for one in tree.body if isinstance(one, ast.FunctionDef)]


@pytest.mark.parametrize("rule", NOT_YET)
def test_a_rule_that_is_not_there_yet_is_said_so(rule: str) -> None:
    pytest.skip(f"not yet: {rule}: {NOT_YET[rule]}")
