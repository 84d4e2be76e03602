"""Words, sizes and times as an operator reads them."""

from datetime import timedelta

import pytest

from hal0.advice import with_names
from hal0.page.render import coded, plain
from hal0.page.words import CAUSES, countdown, gib, lasted, rate
from hal0.states import Cause


def test_every_cause_has_words_and_no_two_have_the_same() -> None:
    assert set(CAUSES) == set(Cause)
    assert len(set(CAUSES.values())) == len(Cause)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (-3, "0.0 s"),
        (9.94, "9.9 s"),
        (59.6, "1 min"),
        (12, "12 s"),
        (312, "5 min 12 s"),
        (7860, "2 h 11 min"),
        (7200, "2 h"),
        (3 * 86400 + 3600, "3 d 1 h"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert lasted(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(18, "0:18"), (130, "2:10"), (3730, "1:02:10"), (-5, "0:00")]
)
def test_what_is_left_is_told_as_a_clock(seconds: float, text: str) -> None:
    assert countdown(timedelta(seconds=seconds)) == text


def test_sizes_are_gib_and_rates_mib() -> None:
    assert (gib(12.1 * 2**30), gib(3 * 2**20)) == ("12.1 GiB", "3.0 MiB")
    assert (rate(48 * 2**20), rate(1.5 * 2**20)) == ("48 MiB/s", "1.5 MiB/s")


def test_commands_are_marked_and_nothing_in_them_is_markup() -> None:
    text = "run `hal0 <b>`, then \x1b[0m wait"
    assert coded(text) == "run <code>hal0 &lt;b&gt;</code>, then \\u001b[0m wait"


def test_a_token_that_a_row_holds_is_not_shown() -> None:
    assert plain({"said": "hal0_" + "a" * 43}) == '{"said": "hal0_…"}'


def test_an_advice_is_told_for_the_slot_that_it_is_about() -> None:
    text = "see `hal0 job show ID` of SLOT, then `hal0 slot load SLOT --wait`"
    assert with_names(text, "chat", 7) == (
        "see `hal0 job show 7` of SLOT, then `hal0 slot load chat --wait`"
    )
