"""What a load may say besides the name: which options count, which keep a backend from starting."""

from collections.abc import Mapping
from typing import Any

from tests.fakes.lemond.backend import NOT_STARTED, LoadError

TYPES: dict[str, tuple[type, ...]] = {
    "ctx_size": (int,),
    "llamacpp_args": (str,),
    "llamacpp_backend": (str,),
    "llamacpp_device": (str,),
    "merge_args": (bool,),
    "auto_evict": (bool,),
    "evict_idle_timeout": (int, float),
    "downsize_idle_timeout": (int, float),
    "evict_weight_factor": (int, float),
}
SHOWN = ("ctx_size", "llamacpp_args", "llamacpp_backend")
RESERVED_ARGS = (
    *("--ctx-size", "--device", "--embedding", "--embeddings", "--jinja", "--metrics", "--mmproj"),
    *("--mmproj-auto", "--mmproj-url", "--model", "--model-draft", "--no-jinja", "--no-mmproj"),
    *("--no-mmproj-auto", "--port", "--rerank", "--reranking", "--spec-draft-model"),
    *("-c", "-dev", "-m", "-md", "-mm", "-mmu"),
)
KNOWN_ARGS = (
    *("--threads", "-t", "--threads-batch", "-tb", "--batch-size", "-b", "--ubatch-size", "-ub"),
    *("--parallel", "-np", "--n-gpu-layers", "-ngl", "--flash-attn", "-fa", "--cache-type-k"),
    *("-ctk", "--cache-type-v", "-ctv", "--no-mmap", "--mlock", "--seed", "--temp", "--verbose"),
    "--shim-delay",  # of the backend that the captures were made with
)


def defaults(ctx_size: int) -> dict[str, Any]:
    """Return what holds for a load that says nothing."""
    return {
        "ctx_size": ctx_size,
        "llamacpp_args": "",
        "llamacpp_backend": "cpu",
        "llamacpp_device": "",
        "merge_args": True,
        "auto_evict": None,
        "evict_idle_timeout": 300,
        "downsize_idle_timeout": 60,
        "evict_weight_factor": 1.0,
    }


def known(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a body; a value of a wrong type counts as not given, as in lemond."""
    return {
        key: value
        for key, value in given.items()
        if key in TYPES and (value is None or type(value) in TYPES[key])
    }


def resolved(asked: Mapping[str, Any], saved: Mapping[str, Any], ctx_size: int) -> dict[str, Any]:
    """Return every option of a load: omitted = saved or default, null = default."""
    options = defaults(ctx_size)
    for key, value in {**saved, **known(asked)}.items():
        if value is not None and not (key == "ctx_size" and value <= 0):
            options[key] = value
    if options["llamacpp_backend"] == "auto":
        options["llamacpp_backend"] = "cpu"
    return options


def shown(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that health repeats."""
    return {key: options[key] for key in SHOWN}


def check(options: Mapping[str, Any]) -> None:
    """Raise LoadError for options that no backend starts with."""
    if options["llamacpp_backend"] != "cpu":
        raise LoadError("'llamacpp.backend' must be one of: auto, cpu")
    flags = [word for word in options["llamacpp_args"].split() if word.startswith("-")]
    for flag in flags:
        if flag in RESERVED_ARGS:
            raise LoadError(
                "Invalid custom llama-server arguments:\n"
                f"Argument '{flag}' is managed by Lemonade and cannot be overridden.\n"
                f"Reserved arguments: {', '.join(RESERVED_ARGS)}"
            )
    if not set(flags) <= set(KNOWN_ARGS):
        raise LoadError(NOT_STARTED)
