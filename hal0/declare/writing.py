"""What is there as the text of a file that declares it: sorted, and without what is the default."""

from pathlib import Path, PurePath
from typing import Any, Final

import tomlkit
from tomlkit.items import Table

from hal0.declare.models import OPEN
from hal0.declare.setup import SlotSetup
from hal0.declare.slots import FIELDS
from hal0.declare.steps import Json, There
from hal0.engines.options import LoadOptions
from hal0.errors import InvalidRequest
from hal0.registry.names import final_paths
from hal0.registry.sources import Source

HEAD: Final = "Written by `hal0 export`; `hal0 apply` brings about what it says."
HIDDEN: Final = "a source here has a query, which is not shown: add it, where a pull needs it"


def text_of(there: There) -> str:
    """Return the file: what it says is what is there, but for the queries of sources."""
    document = tomlkit.document()
    document.add(tomlkit.comment(HEAD))
    for noun, shown, table_of in (
        ("models", there.models, _model),
        ("slots", there.slots, _slot),
    ):
        if shown:
            tables = tomlkit.table(is_super_table=True)
            for name in sorted(shown):
                tables.append(name, table_of(shown[name]))
            document.add(tomlkit.nl())
            document.append(noun, tables)
    return document.as_string()


def _model(model: Json) -> Table:
    table, files = tomlkit.table(), _files(model)
    if any(file["has_query"] for file in model["files"]):
        table.add(tomlkit.comment(HIDDEN))
    if len(files) == 1 and "source" in files[0] and not {"role", "name"} & set(files[0]):
        table.update(files[0])
    else:
        table.append("files", _lines(files))
    if model["format"] != "gguf":
        table.append("format", model["format"])
    if model["allow_copy"]:
        table.append("allow_copy", tomlkit.boolean("true"))
    return table


def _files(model: Json) -> list[dict[str, Any]]:
    """Return each file as it is declared, without what need not be said."""
    said = []
    for file, name in zip(model["files"], _suggested(model), strict=True):
        place = PurePath(file["path"]).name
        facts = {
            "role": None if file["role"] == "main" and file["source"] else file["role"],
            "source": file["source"],
            "name": None if place == name else place,
            **{field: None if field in file["noted"] else file[field] for field in OPEN},
        }
        said.append({field: value for field, value in facts.items() if value is not None})
    return said


def _suggested(model: Json) -> list[str | None]:
    """Return what each file would be called by its source alone; None = nobody can say."""
    sources = [file["source"] for file in model["files"]]
    try:
        names = [Source.parse(source).file_name if source else "" for source in sources]
        return [path.name for path in final_paths(Path("/"), model["name"], names)]
    except InvalidRequest:
        return [None] * len(sources)


def _lines(files: list[dict[str, Any]]) -> tomlkit.items.Array:
    lines = tomlkit.array().multiline(multiline=True)
    for file in files:
        inline = tomlkit.inline_table()
        inline.update(file)
        lines.append(inline)
    return lines


def _slot(slot: Json) -> Table:
    table, plain = tomlkit.table(), SlotSetup()
    for field in FIELDS:
        value = slot["wanted_model" if field == "model" else field]
        if value != getattr(plain, field):
            table.append(field, _number(value))
    usual = LoadOptions().model_dump(mode="json")
    options = {name: value for name, value in slot["options"].items() if value != usual.get(name)}
    if options:
        inline = tomlkit.inline_table()
        inline.update(options)
        table.append("options", inline)
    return table


def _number(value: Any) -> Any:
    """Return 300 for 300.0: REST shows times as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
