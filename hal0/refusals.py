"""In which words a field that does not fit is refused: what it takes, and what was given instead.

pydantic finds what is wrong; its own words are for who writes Python. A kind of fault that is not
in the table keeps them, so a new one is told clumsily and never lost.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hal0.errors import InvalidRequest
from hal0.masks import masked

MAX_TOLD: Final = 20
"""So many bad fields are named in the detail and in the evidence; then it is no slip any more."""

A_KEY: Final = "[key]"
"""How pydantic says that it means the key of an entry, which stands before it."""

MAX_SHOWN: Final = 60
MAX_TEXT: Final = 400
"""So many characters of a name or a value are shown, and of what a room of hal0 says of it."""

WORDS: Final[Mapping[str, str]] = {
    "missing": "must be given",
    "string_type": "takes a text, not {given}",
    "string_too_long": "takes {max_length} characters at most",
    "bool_type": "takes true or false, not {given}",
    "bool_parsing": "takes true or false, not {given}",
    "int_type": "takes a whole number, not {given}",
    "int_from_float": "takes a whole number, not {given}",
    "int_parsing": "takes a whole number, not {given}",
    "int_parsing_size": "takes a whole number of fewer digits",
    "float_type": "takes a number, not {given}",
    "float_parsing": "takes a number, not {given}",
    "finite_number": "takes a number, not {given}",
    "greater_than": "takes more than {gt}, not {given}",
    "greater_than_equal": "takes {ge} or more, not {given}",
    "less_than_equal": "takes {le} or less, not {given}",
    "literal_error": "takes {expected}, not {given}",
    "enum": "takes {expected}, not {given}",
    "list_type": "takes a list, not {given}",
    "too_long": "takes {max_length} entries at most, not {actual_length}",
    "dict_type": "takes an object, not {given}",
    "model_type": "takes an object, not {given}",
    "model_attributes_type": "takes an object, not {given}",
    "url_parsing": "is no URL: {error}",
}

S = TypeVar("S", bound=BaseModel)


def validated(schema: type[S], values: Mapping[str, Any]) -> S:
    """Return `values` as `schema`; raises InvalidRequest."""
    try:
        return schema.model_validate(values)
    except ValidationError as exc:
        found = exc.errors(include_url=False)
        problems = [(_field(error), _problem(schema, error)) for error in found[:MAX_TOLD]]
        raise refused(problems, untold=len(found) - len(problems)) from exc


def refused(problems: Sequence[tuple[str, str]], untold: int = 0) -> InvalidRequest:
    """Return the error that names these fields, each with what is wrong; "" = the whole."""
    told = problems[:MAX_TOLD]
    untold += len(problems) - len(told)
    texts = [f"{field}: {problem}" if field else problem for field, problem in told]
    if untold:
        texts.append(f"and {untold} more")
    fields = [{"field": field, "problem": problem} for field, problem in told]
    return InvalidRequest("; ".join(texts), evidence={"fields": fields})


def _field(error: ErrorDetails) -> str:
    return _short(".".join(str(step) for step in error["loc"] if step != A_KEY))


def _problem(schema: type[BaseModel], error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        known = _names_beside(schema, error["loc"])
        return f"is unknown; known are {', '.join(known)}" if known else "is unknown; none is taken"
    words = WORDS.get(error["type"])
    if words is None:
        return _short(error["msg"].removeprefix("Value error, "), MAX_TEXT)
    about = {name: _plain(value) for name, value in error.get("ctx", {}).items()}
    return words.format(given=_shown(error["input"]), **about)


def _names_beside(schema: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Return what may stand where a field is that may not; `place` leads there from `schema`."""
    steps = iter(place[:-1])
    for step in steps:
        if isinstance(step, str) and step in schema.model_fields:
            annotation = schema.model_fields[step].annotation
            schema = _schema_in(annotation) or schema
            if get_origin(annotation) is dict:
                next(steps, None)  # a key that people chose, which may be called as a field is
    return [field.alias or name for name, field in schema.model_fields.items()]


def _schema_in(annotation: Any) -> type[BaseModel] | None:
    """Return the schema in `Schema`, `Schema | None`, `list[Schema]` or `dict[str, Schema]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_schema_in(inner) for inner in get_args(annotation))
    return next((schema for schema in found if schema is not None), None)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return _short(repr(value) if isinstance(value, str) else json.dumps(value, default=str))


def _plain(value: Any) -> Any:
    """Return 3 for 3.0, for fields whose bounds are floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _short(text: str, limit: int = MAX_SHOWN) -> str:
    """Leave out the middle of what is longer: what to do stands at the end."""
    text, half = masked(text), limit // 2
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"
