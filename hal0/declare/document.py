"""What a file of slots and models says, and all that is wrong with one.

    [models.tiny]
    source = "hf://org/repo/tiny.gguf"

    [slots.chat]
    model = "tiny"
    options = { ctx_size = 8192 }

What the table of a slot leaves out is the default: the file is the whole truth of the slots that it
names, and says nothing of the others.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from hal0.declare.fields import ModelName, SlotName
from hal0.declare.models import places_of
from hal0.declare.setup import Declared, ModelSetup, SlotSetup
from hal0.errors import InvalidRequest
from hal0.refusals import refused, validated
from hal0.slots.spec import check_idle_times


class Document(Declared):
    """All that a file declares, by name."""

    models: dict[ModelName, ModelSetup] = Field({})
    slots: dict[SlotName, SlotSetup] = Field({})


def read(text: str) -> Document:
    """Return what a file of this text declares; raises InvalidRequest that lists what is wrong."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # of a number too long, of nesting too deep
        raise InvalidRequest(f"this is no TOML that can be read: {exc}") from exc
    if unquoted := list(_unquoted(values.get("models"))):
        raise refused(unquoted)
    document = validated(Document, values)
    if faults := [*_without_place(document), *_contradictory(document)]:
        raise refused(faults)
    return document


def _unquoted(models: Any) -> Iterator[tuple[str, str]]:
    """Yield the tables that only a dot in a name has made: `[models.qwen2.5]` is two names."""
    for name, table in models.items() if isinstance(models, dict) else ():
        for key, value in table.items() if isinstance(table, dict) else ():
            if isinstance(value, dict) and key not in ModelSetup.model_fields:
                whole = f'[models."{name}.{key}"]'
                yield f"models.{name}.{key}", f"a name with a dot stands in quotes, as in {whole}"


def _without_place(document: Document) -> Iterator[tuple[str, str]]:
    for name, setup in document.models.items():
        try:
            places_of(name, setup)
        except InvalidRequest as exc:
            yield f"models.{name}", exc.detail


def _contradictory(document: Document) -> Iterator[tuple[str, str]]:
    for name, setup in document.slots.items():
        if setup.idle_after_s is None or setup.unload_after_s is None:
            continue  # the other is a setting of the API, which alone knows it
        try:
            check_idle_times(setup.idle_after_s, setup.unload_after_s)
        except InvalidRequest as exc:
            yield f"slots.{name}", exc.detail
