"""Whether every line of behaviours B and C is shown by tests that exist: the tables say which."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def told(page: Path) -> dict[str, list[str]]:
    """Return the table in a module's docstring: line of the behaviours -> names of tests."""
    table: dict[str, list[str]] = {}
    text = ast.get_docstring(ast.parse(page.read_text(encoding="utf-8"))) or ""
    rows = re.findall(r"^(?:([BC]\d+)| ) +(test_\w+)$", text, re.MULTILINE)
    line = ""
    for begun, name in rows:
        line = begun or line
        table.setdefault(line, []).append(name)
    return table


def all_tests() -> set[str]:
    trees = (ast.parse(page.read_text(encoding="utf-8")) for page in TESTS.rglob("test_*.py"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, functions)}


@pytest.mark.parametrize(("letter", "lines"), [("B", 15), ("C", 17)])
def test_every_line_names_tests_that_exist(letter: str, lines: int) -> None:
    table = told(TESTS / "acceptance" / f"test_behaviours_{letter.lower()}.py")
    assert list(table) == [f"{letter}{number}" for number in range(1, lines + 1)]
    named = {name for names in table.values() for name in names}
    assert named <= all_tests(), named - all_tests()
