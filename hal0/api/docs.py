"""The description of the API as a page for people: made of the OpenAPI document, without a script.

All that it says stands in the document; nothing of it comes from another machine.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any, Final

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import exchange, openapi
from hal0.api.page_answers import html
from hal0.api.schemas import Query
from hal0.page.render import asset_path, coded

Json = Mapping[str, Any]
METHODS: Final = ("get", "post", "patch", "delete")
BOUNDS: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "maxLength": "{} characters at most",
    "maxItems": "{} entries at most",
    "pattern": "matches {}",
    "default": "default {}",
}
"""What a schema says of a value, and how a sentence says it."""


def shown(document: Json) -> dict[str, Any]:
    """Return what the template shows of a document."""
    responses = document["components"]["responses"]
    found = [
        _operation(method, path, said[method], responses)
        for path, said in document["paths"].items()
        for method in METHODS
        if method in said
    ]
    by_part = groupby(sorted(found, key=lambda one: str(one["part"])), lambda one: one["part"])
    return {
        "version": document["info"]["version"],
        "description": document["info"]["description"].split("\n\n"),
        "parts": [{"name": name, "operations": list(of_part)} for name, of_part in by_part],
        "shapes": [
            {
                "name": name,
                "about": schema.get("description", ""),
                "fields": _fields(schema),
                "kind": kind_of(schema),
            }
            for name, schema in document["components"]["schemas"].items()
        ],
        "codes": document["x-error-codes"],
    }


def _operation(method: str, path: str, said: Json, responses: Json) -> dict[str, Any]:
    body = said.get("requestBody", {}).get("content", {})
    return {
        "part": said["tags"][0],
        "id": said["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": said["summary"],
        "role": said["x-role"],
        "parameters": [_parameter(one) for one in said["parameters"]],
        "body": Markup(", ").join(kind_of(one["schema"]) for one in body.values()),
        "answers": [
            answer
            for status, one in said["responses"].items()
            for answer in _answers(status, one, responses)
        ],
    }


def _parameter(one: Json) -> dict[str, Any]:
    about = one.get("description") or about_of(one["schema"])
    return {
        "name": one["name"],
        "kind": Markup("{} <span class=dim>{}</span>").format(kind_of(one["schema"]), one["in"]),
        "is_required": one.get("required", False),
        "about": about,
    }


def _answers(status: str, one: Json, responses: Json) -> Iterator[dict[str, Any]]:
    if "$ref" in one:
        one = responses[_name_in(one)]
    for media_type, content in one.get("content", {"": None}).items():
        is_success = status.startswith("2")
        what = kind_of(content["schema"]) if content and is_success else coded(one["description"])
        yield {"status": status, "media_type": media_type, "what": what}


def _fields(schema: Json) -> list[dict[str, Any]]:
    required = schema.get("required", ())
    return [
        {
            "name": name,
            "kind": kind_of(of_field),
            "is_required": name in required,
            "about": about_of(of_field),
        }
        for name, of_field in schema.get("properties", {}).items()
    ]


def about_of(schema: Json) -> str:
    """Return what a schema says of a value beside its kind, as a sentence."""
    said = [schema["description"]] if "description" in schema else []
    for key, words in BOUNDS.items():
        if schema.get(key) is not None:
            value = schema[key]
            said.append(words.format(value if isinstance(value, str) else json.dumps(value)))
    return "; ".join(said)


def kind_of(schema: Json) -> Markup:
    """Return in one word or a few what a value is; shapes are links."""
    if "$ref" in schema:
        name = _name_in(schema)
        return Markup('<a href="#{}">{}</a>').format(name, name)
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema and "properties" not in schema:
            return Markup(" or ").join(kind_of(one) for one in schema[choice])
    if "enum" in schema or "const" in schema:
        values: Sequence[Any] = schema.get("enum") or [schema["const"]]
        return Markup(" ").join(Markup("<code>{}</code>").format(one) for one in values)
    if schema.get("type") == "array":
        return Markup("list of {}").format(kind_of(schema.get("items", {})))
    return Markup("{}").format(schema.get("type", "anything"))


def _name_in(schema: Json) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["coded"] = coded
    text = (files("hal0.api") / "docs.html").read_text(encoding="utf-8")
    return environment.from_string(text, {"asset": asset_path})


def page_of(document: Json) -> str:
    """Return the page of a document."""
    return _template().render(shown(document))


async def show_docs(request: Request) -> Response:
    """Show people what this API can do."""
    exchange.query_of(request, Query)

    def render() -> str:
        return page_of(json.loads(openapi.text_of(request.app)))

    return html(await run_in_threadpool(render))


ROUTES = [Route("/api/v1/docs", show_docs, methods=["GET"], include_in_schema=False)]
