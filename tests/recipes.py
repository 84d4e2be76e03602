"""The recipes that README gives to auditors, word for word, and what it shows of their output."""

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
PART = re.compile(r"^## For auditors\n(.*?)(?=^## )", re.MULTILINE | re.DOTALL)
RECIPE = re.compile(
    r"^### (?P<question>.+?)\n(?P<text>(?:(?!^#).)*?)"
    r"^```sql\n(?P<sql>.*?)^```\n+```\n(?P<shown>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A question, the statement that answers it, and what `sqlite3 -box` printed in some run."""

    question: str
    sql: str
    shown: str

    @property
    def view(self) -> str:
        """The view that it reads."""
        found: str = re.findall(r"\baudit_\w+", self.sql)[0]
        return found

    @property
    def columns_shown(self) -> list[str]:
        """The heads of the columns in the output."""
        return [cell.strip() for cell in self.shown.splitlines()[1].strip("│").split("│")]


def part() -> str:
    """Return the part of README for auditors."""
    found = PART.search(README.read_text(encoding="utf-8"))
    assert found, "README has no part for auditors"
    return found[1]


def recipes() -> dict[str, Recipe]:
    """Return the recipes by the view that each reads."""
    found = [Recipe(m["question"], m["sql"], m["shown"]) for m in RECIPE.finditer(part())]
    assert len(found) == part().count("```sql")
    return {recipe.view: recipe for recipe in found}
