"""How templates become HTML: escaping is on for all of them, and nothing is undefined silently."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from hal0.advice import with_names
from hal0.masks import escaped, masked
from hal0.page import words
from hal0.page.machine import lines_of, sized
from hal0.tables import as_text

_HOME: Final = files("hal0.page")
_KINDS: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_DIGITS: Final = 12
_IMPORTED: Final = re.compile(rb'(?<=")\./([a-z]+\.js)(?=";)')


@cache
def asset_path(name: str) -> str:
    """Return the path of an asset, which changes when it does, or what it imports."""
    stem, dot, ending = name.rpartition(".")
    digest = hashlib.sha256(_content(name)).hexdigest()[:_DIGITS]
    return f"/assets/{stem}-{digest}{dot}{ending}"


@cache
def assets() -> Mapping[str, tuple[str, bytes]]:
    """Return every asset by its path: its media type, its bytes."""
    names = [place.name for place in (_HOME / "assets").iterdir()]
    return {asset_path(name): (_media_type(name), _content(name)) for name in names}


@cache
def modules() -> tuple[str, ...]:
    """Return the paths of all scripts, so that a browser need not find one after the other."""
    return tuple(sorted(path for path in assets() if path.endswith(".js")))


def _media_type(name: str) -> str:
    return f"{_KINDS[name[name.rindex('.') :]]}; charset=utf-8"


@cache
def _content(name: str) -> bytes:
    """Return the bytes of an asset, with what it imports under the paths that it is served at.

    Modules import each other in one direction, or this would never end.
    """
    return _IMPORTED.sub(
        lambda found: asset_path(found[1].decode()).encode(),
        (_HOME / "assets" / name).read_bytes(),
    )


def render(template: str, **shown: Any) -> str:
    """Return a template as HTML; a name that it does not know raises UndefinedError."""
    return _environment().get_template(f"{template}.html").render(shown)


def instant(at: datetime, form: str = "clock") -> Markup:
    """Return an instant: UTC as it is written here, local time where page.js runs.

    `form` is `clock` (the day too, unless it is today) or `minute`.
    """
    return Markup('<time datetime="{}" data-as="{}" title="{}">{}</time>').format(
        as_text(at), form, f"{as_text(at)[:19].replace('T', ' ')} UTC", f"{at:%H:%M:%S} UTC"
    )


def until(at: datetime, now: datetime) -> Markup:
    """Return how long it is until an instant; page.js counts it down."""
    return Markup('<time datetime="{}" data-as="left">{}</time>').format(
        as_text(at), words.countdown(at - now)
    )


def elapsed(at: datetime, now: datetime) -> Markup:
    """Return how long ago an instant was; page.js counts on."""
    return Markup('<time datetime="{}" data-as="ago">{}</time>').format(
        as_text(at), words.lasted((now - at).total_seconds())
    )


def plain(value: object) -> str:
    """Return a text of elsewhere, or JSON of a value: readable, and without a token in it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return masked(escaped(text, keep="\n\t"))


def advised(error: Mapping[str, Any], slot: str, job_id: int | None) -> Markup:
    """Return what an error says, with its commands as they are typed for this slot."""
    return coded(with_names(str(error["detail"]), slot, job_id))


def coded(text: str) -> Markup:
    """Return a text with what stands in backquotes as code."""
    parts = plain(text).split("`")
    marked = (Markup("<code>{}</code>") if at % 2 else Markup("{}") for at in range(len(parts)))
    return Markup("").join(form.format(part) for form, part in zip(marked, parts, strict=True))


def _source(name: str) -> str:
    return (_HOME / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(asset=asset_path, modules=modules, causes=words.CAUSES)
    environment.filters.update(
        instant=instant,
        until=until,
        elapsed=elapsed,
        plain=plain,
        coded=coded,
        advised=advised,
        gib=words.gib,
        sized=sized,
        machine=lines_of,
        rate=words.rate,
        lasted=words.lasted,
        quoted=lambda text: quote(str(text), safe=""),
        iso=as_text,
    )
    return environment
