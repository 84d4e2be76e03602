"""Every rule of the protocol is shown by a test."""

import ast
from pathlib import Path
from types import ModuleType

import pytest

from tests.machine import test_rules_of_engines, test_rules_of_jobs, test_rules_of_users
from tests.machine.rules import RULES

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


def test_every_rule_is_shown_by_one_test() -> None:
    modules = (test_rules_of_jobs, test_rules_of_engines, test_rules_of_users)
    shown = [rule for module in modules for rule in _shown_by(module)]
    assert sorted([*shown, *ELSEWHERE]) == sorted(RULES)


@pytest.mark.parametrize(("file", "name"), ELSEWHERE.values(), ids=list(ELSEWHERE))
def test_the_tests_that_show_a_rule_elsewhere_are_there(file: str, name: str) -> None:
    tree = ast.parse(Path(__file__).parents[2].joinpath(file).read_text())
    assert name in [one.name for one in tree.body if isinstance(one, ast.FunctionDef)]
