"""The dispatcher speaks ASGI itself: of the web's library it knows the names of types alone.

What a request and a response of that library cost is most of what a plain proxy costs. The import
rules cannot say so, for they see a foreign package as one.
"""

import ast
from pathlib import Path

import pytest

import hal0.dispatcher

ROOM = Path(hal0.dispatcher.__file__).parent


@pytest.mark.parametrize("page", sorted(ROOM.glob("*.py")), ids=lambda page: page.stem)
def test_nothing_but_types_is_imported_of_starlette(page: Path) -> None:
    steps = [*ast.walk(ast.parse(page.read_text(encoding="utf-8")))]
    names = {str(step.module) for step in steps if isinstance(step, ast.ImportFrom)}
    names |= {one.name for step in steps if isinstance(step, ast.Import) for one in step.names}
    assert {name for name in names if name.startswith("starlette")} <= {"starlette.types"}
