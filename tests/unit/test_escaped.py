"""What an engine says acts neither on a log nor on a terminal."""

import json
import logging
import re

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.cli.client import Refused
from hal0.cli.lines import Lines
from hal0.cli.outcome import show_failure
from hal0.cli.show import as_json_text, facts, table
from hal0.logs import LINE, LineFormatter
from hal0.masks import escaped

EVIL = "bad\n2026-01-01 ERROR forged\r\x1b[31mred\x00\x9b1m\ud800"
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def record(message: str, *args: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("hal0.x", logging.WARNING, __file__, 1, message, args, None)
    made.__dict__.update(more)
    return made


def test_a_record_is_one_line_whatever_is_in_it() -> None:
    line = LineFormatter(LINE).format(record("engine: %s", EVIL, slot=EVIL))
    assert "\n" not in line
    assert not ACTS.search(line)
    assert r"engine: bad\n2026-01-01 ERROR forged\r\u001b[31mred" in line


def test_no_line_of_a_traceback_looks_like_a_record() -> None:
    told = record("fails")
    try:
        raise ValueError(EVIL)
    except ValueError as exc:
        told.exc_info = (type(exc), exc, exc.__traceback__)
    _, *rest = LineFormatter(LINE).format(told).split("\n")
    assert rest
    assert all(line.startswith("  ") for line in rest)
    assert not any(ACTS.search(line) for line in rest)


def test_no_command_hands_it_on_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    job = {"id": 1, "kind": "load", "slot": "chat"}
    show_failure({**job, "error": {"code": "x", "detail": EVIL, "evidence": {"message": EVIL}}})
    facts({"detail": EVIL, "nested": {"a": EVIL}, "list": [EVIL], "rows": [{"a": EVIL}]})
    table(["one"], [[EVIL], [[EVIL]]])
    Lines().line(EVIL)
    Lines().progress(EVIL, 1, 2)
    refused = Refused(409, {"detail": EVIL, "code": "x", "evidence": {"message": EVIL}})
    click.echo("\n".join([refused.text, *refused.more]))
    shown = "".join(capsys.readouterr())
    assert "forged" in shown
    assert not re.search("^2026", shown, re.MULTILINE)
    assert not ACTS.search(shown)


@given(st.recursive(st.text() | st.none(), st.lists))
def test_json_means_the_same_after_it(value: object) -> None:
    shown = as_json_text([value, EVIL])
    assert json.loads(shown) == [value, EVIL]
    assert not ACTS.search(shown)


@pytest.mark.parametrize("text", ["", "plain", "größer → ß", "{}[]\\ \" '", "日本"])
def test_what_is_to_be_read_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text
