"""A step in words: what is to come, field for field."""

from collections.abc import Iterator
from typing import Any, Final

from hal0.declare.steps import Act, Change, Noun, Step

SIGNS: Final = {Act.CREATE: "+", Act.CHANGE: "~", Act.DELETE: "-"}


def title_of(step: Step) -> str:
    """Return the step in a line: `~ slot chat`."""
    return f"{SIGNS[step.act]} {step.noun} {step.name}"


def lines_of(step: Step) -> Iterator[str]:
    """Yield what it changes: `model: tiny -> big`; of what is new, `model: big`."""
    for change in step.changes:
        new = word(change.new, _none_of(step, change))
        if step.act is Act.CREATE:
            yield f"{change.field}: {new}"
        else:
            yield f"{change.field}: {word(change.old, _none_of(step, change))} -> {new}"


def word(value: Any, none: str = "none") -> str:
    """Return a value as people write it; `none` is what there is instead of one."""
    if value is None:
        return none
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) or '""'


def _none_of(step: Step, change: Change) -> str:
    return "default" if step.noun is Noun.SLOT and change.field != "model" else "none"
