"""The closed set of load options."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.embedded.options import tuning_parser
from hal0.engines.options import (
    FLAGS,
    UNSAVED,
    LoadOptions,
    canonical_args,
    complete,
    parse,
    wire_body,
)


def test_every_option_goes_over_the_wire_also_when_none_is_given() -> None:
    assert wire_body("ga", {}) == {
        "model_name": "ga",
        "ctx_size": 4096,
        "llamacpp_backend": None,
        "llamacpp_args": "",
        **UNSAVED,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"ctx_size": 255},
        {"ctx_size": 1_048_577},
        {"ctx_size": "4096"},
        {"ctx_size": True},
        {"ctx_size": 4096.0},
        {"llamacpp_backend": "nonsense"},
        {"llamacpp_args": "--port 1"},
        {"llamacpp_args": "--model x"},
        {"llamacpp_args": "-t 4"},
        {"llamacpp_args": "--threads"},
        {"llamacpp_args": "--threads 0"},
        {"llamacpp_args": "--threads 4x"},
        {"llamacpp_args": "--threads ٤"},
        {"llamacpp_args": "--threads=4"},
        {"llamacpp_args": "--threads 4 --threads 4"},
        {"llamacpp_args": "--flash-attn"},
        {"llamacpp_args": "--flash-attn --mlock"},
        {"llamacpp_args": "--cache-type-k f17"},
        {"llamacpp_args": "--cache-type-v q8_0 --flash-attn off"},
        {"llamacpp_args": "--threads '4"},
        {"llamacpp_args": 4},
        {"llamacpp_args": ["--threads", 4]},
        {"pinned": True},
        {"unknown": 1},
    ],
)
def test_what_is_not_in_the_set_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        parse(options)


def test_a_refused_flag_is_told_with_those_that_are_allowed() -> None:
    with pytest.raises(ValueError, match=r"'--port' is not an argument .* --threads"):
        parse({"llamacpp_args": "--port 1"})


def test_arguments_in_another_order_are_the_same_options() -> None:
    first = parse({"llamacpp_args": "--mlock  --threads 04"})
    second = parse({"llamacpp_args": ["--threads", "4", "--mlock"]})
    assert first == second == LoadOptions(llamacpp_args="--threads 4 --mlock")


@pytest.mark.parametrize("kind", ["embedded", "lemonade"])
def test_what_is_not_given_is_kept_and_what_is_not_kept_is_the_default(kind: str) -> None:
    kept = {"ctx_size": 512, "llamacpp_args": "--mlock"}
    assert complete(kind, {"ctx_size": 1024}, kept) == {
        "ctx_size": 1024,
        "llamacpp_backend": None,
        "llamacpp_args": "--mlock",
    }
    with pytest.raises(ValueError, match="ctx_size"):
        complete(kind, {"ctx_size": 1})


def test_a_router_takes_no_options_and_keeps_none() -> None:
    assert complete("llamacpp", {}, {"ctx_size": 512}) == {}
    with pytest.raises(ValueError, match="ctx_size was given; set it in the preset"):
        complete("llamacpp", {"ctx_size": 4096})


@given(st.text())
def test_no_text_gets_through_that_is_not_canonical(text: str) -> None:
    try:
        line = canonical_args(text)
    except ValueError:
        return
    assert canonical_args(line) == line
    assert {word for word in line.split() if word.startswith("-")} <= set(FLAGS)


SAMPLES = {"--flash-attn": "auto", "--cache-type-k": "q8_0", "--cache-type-v": "f16"}


@pytest.mark.parametrize("flag", FLAGS)
def test_the_embedded_engine_takes_every_flag_that_hal0_sends(flag: str) -> None:
    words = [flag] if FLAGS[flag] is None else [flag, SAMPLES.get(flag, "7")]
    assert canonical_args(words)
    assert any(vars(tuning_parser().parse_args(words)).values())
