"""Which options a load may carry: a closed, typed set, all of them sent on every load.

llama.cpp's router takes none with a load: its models have theirs from its preset file.

An option that a load leaves out reverts to the engine's saved or default value and makes it reload
the model; a free-form argument that llama.cpp does not understand makes Lemonade drop every model
it has, like a bad file does. So nothing goes through that is not in the tables here.
"""

import shlex
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

Backend = Literal["auto", "cpu", "vulkan", "rocm", "cuda", "metal", "system"]

CACHE_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
UNQUANTISED: Final = ("f32", "f16", "bf16")

WITHOUT: Final = frozenset({"llamacpp"})
"""Kinds of engine that take no options with a load."""

MAX_LINE: Final = 2000
"""Characters of a line of arguments; all of them together need a tenth of that."""

Check = Callable[[str], str]


def _number(low: int, high: int) -> Check:
    def check(text: str) -> str:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"takes a whole number from {low} to {high}, not {text!r}")
        return str(int(text))

    return check


def _one_of(*values: str) -> Check:
    def check(text: str) -> str:
        if text not in values:
            raise ValueError(f"takes one of {', '.join(values)}, not {text!r}")
        return text

    return check


FLAGS: Final[Mapping[str, Check | None]] = {
    "--threads": _number(1, 1024),
    "--threads-batch": _number(1, 1024),
    "--batch-size": _number(1, 65536),
    "--ubatch-size": _number(1, 65536),
    "--parallel": _number(1, 256),
    "--n-gpu-layers": _number(0, 9999),
    "--flash-attn": _one_of("on", "off", "auto"),
    "--cache-type-k": _one_of(*CACHE_TYPES),
    "--cache-type-v": _one_of(*CACHE_TYPES),
    "--no-mmap": None,
    "--mlock": None,
}
"""Flags of llama.cpp that cannot keep it from starting; None = a flag without a value."""


def canonical_args(value: object) -> str:
    """Return llama.cpp arguments as one line in the order of `FLAGS`: equal sets, equal text.

    `value` is a line, a list of words, or None. Raises ValueError for a flag that is not in
    `FLAGS`, a repeated one, or a bad value.
    """
    found = _parse(_words(value))
    is_quantised = found.get("--cache-type-v", "f16") not in UNQUANTISED
    if is_quantised and found.get("--flash-attn") == "off":
        raise ValueError("a quantised --cache-type-v needs --flash-attn on or auto")
    return " ".join(
        f"{flag} {found[flag]}" if found[flag] else flag for flag in FLAGS if flag in found
    )


def _words(value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str) and len(value) > MAX_LINE:
        raise ValueError(f"is longer than {MAX_LINE} characters")
    if isinstance(value, str):
        return shlex.split(value)
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        return list(value)
    raise ValueError("must be a line of text or a list of words")


def _parse(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    rest = iter(words)
    for flag in rest:
        if flag not in FLAGS:
            raise ValueError(f"{flag!r} is not an argument that hal0 passes on; {', '.join(FLAGS)}")
        if flag in found:
            raise ValueError(f"{flag} is given twice")
        check = FLAGS[flag]
        if check is None:
            found[flag] = ""
            continue
        try:
            found[flag] = check(next(rest, ""))
        except ValueError as exc:
            raise ValueError(f"{flag} {exc}") from exc
    return found


class LoadOptions(BaseModel):
    """What a load may say besides the model's name; equal values are equal loads."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    ctx_size: int = Field(4096, ge=256, le=1_048_576, description="context length in tokens")
    llamacpp_backend: Backend | None = Field(
        None, description="build of llama.cpp; none = the engine's own choice"
    )
    llamacpp_args: Annotated[
        str, BeforeValidator(canonical_args, json_schema_input_type=str | list[str] | None)
    ] = Field(
        "",
        description="arguments of llama.cpp from the allow-list, as a line or a list of words",
        json_schema_extra={"examples": ["--threads 4 --flash-attn on"]},
    )


def parse(options: Mapping[str, Any]) -> LoadOptions:
    """Return checked options with every default filled in; raises ValueError, one line a fault."""
    try:
        return LoadOptions.model_validate(dict(options))
    except ValidationError as exc:
        raise ValueError(
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
        ) from exc


def complete(
    kind: str, given: Mapping[str, Any], kept: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return all options of a load at an engine of this kind: as given, else kept, else default.

    Raises ValueError, one line a fault.
    """
    if kind not in WITHOUT:
        return parse({**(kept or {}), **given}).model_dump(mode="json")
    if given:
        raise ValueError(
            f"an engine of kind {kind} takes none with a load, and {', '.join(given)} was given; "
            "set it in the preset file of llama-server (--models-preset)"
        )
    return {}


UNSAVED: Final[Mapping[str, Any]] = {
    "auto_evict": False,
    "evict_idle_timeout": None,
    "downsize_idle_timeout": None,
    "evict_weight_factor": None,
    "llamacpp_device": None,
    "merge_args": None,
}
"""Options of Lemonade that are no slot's; left out, they would be what its app saved for the model.

Null is the server's own default. That it does not unload by itself is said, whatever its default.
"""


def wire_body(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON of a load; a backend that was not chosen goes as null.

    Null makes Lemonade ignore what an earlier load or its app saved for the model.
    """
    return {"model_name": name, **parse(options).model_dump(), **UNSAVED}


def as_held(wanted: Mapping[str, Any], listed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a model that somebody else loaded, in the words of a slot's own.

    What the slot leaves to the engine, and what the engine does not tell, is as wanted: a reload
    would bring about the same.
    """
    return {
        name: value if value is None or name not in listed else _as_said(name, listed[name], value)
        for name, value in wanted.items()
    }


def is_as_wanted(wanted: Mapping[str, Any], listed: Mapping[str, Any]) -> bool:
    """Whether a load with these options would change nothing about a model listed with those."""
    return as_held(wanted, listed) == wanted


def _as_said(name: str, listed: object, wanted: object) -> object:
    if name != "llamacpp_args":
        return listed
    try:
        return canonical_args(listed)
    except ValueError:
        return listed
