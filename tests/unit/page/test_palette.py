"""Whether everyone can read the page: contrasts by WCAG 2.2, computed of the palette itself."""

import re
from collections.abc import Mapping
from importlib.resources import files

import pytest

from hal0.states import JobState, SlotState

CSS = (files("hal0.page") / "assets" / "page.css").read_text(encoding="utf-8")
TEXT, SIGN = 4.5, 3.0
"""What the level AA asks for of text, and of what is seen beside a word."""
SURFACES = ("card", "ground", "field", "chip", "alert")
STATES = [str(state) for state in SlotState]


def palette(scheme: str) -> Mapping[str, str]:
    light, *dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    night = re.findall(
        r"@media \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", CSS, re.DOTALL
    )
    assert dark == night  # and at night alone
    found = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", light))
    return (
        found
        if scheme == "light"
        else {**found, **dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", night[0]))}
    )


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_measure_is_the_one_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_on_everything_that_it_stands_on(scheme: str) -> None:
    colours = palette(scheme)
    pairs = [(text, on) for text in ("ink", "dim", "link") for on in SURFACES]
    pairs += [("main", "card"), ("error", "card"), ("error", "alert")]
    seen = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in seen.items() if ratio < TEXT} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_sign_and_the_strip_of_every_state_can_be_told_from_the_card(scheme: str) -> None:
    colours = palette(scheme)
    seen = {state: contrast(colours[state], colours["card"]) for state in STATES}
    assert {state: ratio for state, ratio in seen.items() if ratio < SIGN} == {}


def test_every_state_has_a_colour_and_a_sign_of_its_own() -> None:
    signs = (files("hal0.page") / "templates" / "signs.html").read_text(encoding="utf-8")
    drawn = dict(re.findall(r'id="sign-(\w+)"[^>]*>(.*?)</symbol>', signs))
    assert {*STATES, *map(str, JobState)} <= drawn.keys()
    assert len({drawn[state] for state in STATES}) == len(STATES)
    for scheme in ("light", "dark"):
        assert len({palette(scheme)[state] for state in STATES}) == len(STATES)


def test_colours_stand_in_the_palette_alone() -> None:
    rest = CSS[CSS.index("* { box-sizing") :]
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;, )])", rest) == []
