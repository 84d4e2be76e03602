"""What a load may ask of llama.cpp, and how it is said to a child process.

The parent reads a request into `LoadOptions` and hands it to the child as a command line; both
sides use the same parser, so what the parent lets through the child understands.
"""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

CTX_SIZE: Final = 4096
CTX_SIZES: Final = range(256, 1_048_577)
BACKENDS: Final = (None, "auto", "cpu")
CACHE_TYPES: Final = {
    "f32": 0,
    "f16": 1,
    "bf16": 30,
    "q8_0": 8,
    "q4_0": 2,
    "q4_1": 3,
    "iq4_nl": 20,
    "q5_0": 6,
    "q5_1": 7,
}
"""Numbers of ggml's types, which its file format fixes."""
FLASH_ATTENTION: Final = {"auto": -1, "off": 0, "on": 1}


class OptionError(ValueError):
    """A field of a load has a type or range that cannot be meant."""


class ArgumentsError(ValueError):
    """`llamacpp_args` or `llamacpp_backend` asks for what this engine does not do."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The options of one load, defaults filled in; equal = nothing to reload for."""

    ctx_size: int = CTX_SIZE
    llamacpp_args: str = ""

    def as_recipe(self) -> dict[str, Any]:
        """Return them as health shows them."""
        return {
            "ctx_size": self.ctx_size,
            "llamacpp_args": self.llamacpp_args,
            "llamacpp_backend": "cpu",
        }

    def as_arguments(self) -> list[str]:
        """Return the command line that `child_parser` reads."""
        return ["--ctx-size", str(self.ctx_size), *shlex.split(self.llamacpp_args)]


def read_options(body: Mapping[str, Any]) -> LoadOptions:
    """Return the options of a load's body; null and absent are the default.

    Raises OptionError or ArgumentsError. Fields that Lemonade knows and this engine has no use for
    are ignored, as Lemonade ignores what it does not know.
    """
    ctx_size = body.get("ctx_size")
    if ctx_size is None or ctx_size == -1:
        ctx_size = CTX_SIZE
    if not isinstance(ctx_size, int) or isinstance(ctx_size, bool) or ctx_size not in CTX_SIZES:
        raise OptionError(
            f"ctx_size must be a whole number from {CTX_SIZES[0]} to {CTX_SIZES[-1]}, or -1"
        )
    if body.get("llamacpp_backend") not in BACKENDS:
        raise ArgumentsError("'llamacpp.backend' must be one of: auto, cpu")
    args = body.get("llamacpp_args")
    if not isinstance(args, str | None):
        raise OptionError("llamacpp_args must be text")
    try:
        words = shlex.split(args or "")
        tuning_parser().parse_args(words)
    except ValueError as exc:
        raise ArgumentsError(f"Invalid custom llama-server arguments:\n{exc}") from exc
    return LoadOptions(ctx_size, shlex.join(words))


class RaisingParser(argparse.ArgumentParser):
    """A parser that raises ValueError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with argparse's message."""
        raise ValueError(message)


def tuning_parser() -> RaisingParser:
    """Return the parser of what `llamacpp_args` may hold: flags of llama-server, by their names."""
    parser = RaisingParser(add_help=False, allow_abbrev=False)
    for flag, low, high in (
        ("--threads", 1, 1024),
        ("--threads-batch", 1, 1024),
        ("--batch-size", 1, 65536),
        ("--ubatch-size", 1, 65536),
        ("--parallel", 1, 256),
        ("--n-gpu-layers", 0, 9999),
    ):
        parser.add_argument(flag, type=_whole(low, high))
    parser.add_argument("--flash-attn", choices=FLASH_ATTENTION)
    parser.add_argument("--cache-type-k", choices=CACHE_TYPES)
    parser.add_argument("--cache-type-v", choices=CACHE_TYPES)
    parser.add_argument("--no-mmap", action="store_true")
    parser.add_argument("--mlock", action="store_true")
    return parser


def read_child_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return a child's whole command line; raises ValueError."""
    parser = tuning_parser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--mmproj", default="")
    parser.add_argument("--alias", required=True)
    parser.add_argument("--ctx-size", type=int, required=True)
    return parser.parse_args(arguments)


class _whole:  # noqa: N801 - argparse shows the type's name
    def __init__(self, low: int, high: int) -> None:
        self._range = range(low, high + 1)

    def __call__(self, text: str) -> int:
        if not (text.isascii() and text.isdigit()) or int(text) not in self._range:
            raise ValueError
        return int(text)

    def __repr__(self) -> str:
        return f"whole number from {self._range[0]} to {self._range[-1]}"
