"""How the fields of a form, or of a query whose names may repeat, become a checked value."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar, get_origin
from urllib.parse import parse_qsl

from pydantic import BaseModel
from starlette.requests import Request

from hal0.api import exchange
from hal0.api.json_body import body_bytes
from hal0.errors import InvalidRequest
from hal0.refusals import refused, validated

TYPE: Final = "application/x-www-form-urlencoded"
MAX_FIELDS: Final = 1100
"""One more box than a table of the page has, many times over."""

S = TypeVar("S", bound=BaseModel)


async def form_of(request: Request, schema: type[S]) -> S:
    """Return the form that a page sent; raises TooLarge, TooSlow, InvalidRequest."""
    kind = request.headers.get("content-type", TYPE)
    if kind.partition(";")[0].strip().lower() != TYPE:
        raise refused([("Content-Type", f"takes a form, {TYPE}")])
    body = await body_bytes(request, exchange.settings_of(request).request_timeout_s)
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as exc:  # UnicodeDecodeError too
        raise InvalidRequest("the body is no form that hal0 can read") from exc
    values = _collected(pairs, schema)
    request.state.body = values
    return validated(schema, values)


def query_of(request: Request, schema: type[S]) -> S:
    """Return the checked query, in which the names of lists may repeat; raises InvalidRequest."""
    return validated(schema, _collected(request.query_params.multi_items(), schema))


def _collected(pairs: Sequence[tuple[str, str]], schema: type[BaseModel]) -> dict[str, Any]:
    lists = {
        name for name, field in schema.model_fields.items() if get_origin(field.annotation) is list
    }
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in lists:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise refused([(name, "is given twice")])
        else:
            values[name] = value
    return values
