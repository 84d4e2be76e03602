"""What the embedded engine reads out of the body of a load."""

from typing import Any

import pytest

from hal0.embedded.options import (
    ArgumentsError,
    LoadOptions,
    OptionError,
    read_child_arguments,
    read_options,
)


@pytest.mark.parametrize("body", [{}, {"ctx_size": None, "llamacpp_args": None}, {"ctx_size": -1}])
def test_null_and_absent_are_the_default(body: dict[str, Any]) -> None:
    assert read_options(body) == LoadOptions(4096, "")


@pytest.mark.parametrize("value", ["big", True, 255, 1 << 21, 4096.0, []])
def test_a_context_size_that_cannot_be_meant_is_refused(value: object) -> None:
    with pytest.raises(OptionError, match="ctx_size"):
        read_options({"ctx_size": value})


@pytest.mark.parametrize(
    "args", ["--port 1", "--thread 4", "--threads x", "--threads", "x", "--model /x", "'", "-h"]
)
def test_an_argument_that_is_not_known_is_refused(args: str) -> None:
    with pytest.raises(ArgumentsError, match="Invalid custom"):
        read_options({"llamacpp_args": args})


def test_a_backend_that_is_not_there_is_refused() -> None:
    assert read_options({"llamacpp_backend": "cpu"}) == LoadOptions()
    with pytest.raises(ArgumentsError, match="must be one of: auto, cpu"):
        read_options({"llamacpp_backend": "vulkan"})


def test_the_child_reads_what_the_engine_writes() -> None:
    options = read_options({"ctx_size": 512, "llamacpp_args": "--threads 2 --mlock"})
    given = read_child_arguments(
        ["--parent", "1", "--model", "/m/-a b.gguf", "--alias=-a", *options.as_arguments()]
    )
    assert (given.ctx_size, given.threads, given.mlock, given.alias) == (512, 2, True, "-a")
