"""A token that stands where it does not belong is cut down before anybody sees it."""

import logging
import sys

import pytest

from hal0.logs import LINE, LineFormatter
from hal0.masks import holds_token, masked

TOKEN = "hal0_" + "aB3_-" * 8 + "xyz"


def test_a_token_in_a_text_is_cut_down_to_its_prefix() -> None:
    line = f"GET /x?token={TOKEN}&also={TOKEN}x HTTP/1.1"
    assert holds_token(line)
    assert masked(line) == "GET /x?token=hal0_…&also=hal0_…x HTTP/1.1"


@pytest.mark.parametrize("text", ["", "hal0_", "hal0_short", TOKEN[:-1], "HAL0_HOME=/x", "hal0.db"])
def test_what_is_no_token_stays_as_it_is(text: str) -> None:
    assert masked(text) == text
    assert not holds_token(text)


def test_no_line_of_the_log_has_a_token_in_it_and_no_traceback() -> None:
    try:
        raise ValueError(f"cannot send {TOKEN}")
    except ValueError:
        record = logging.LogRecord(
            "hal0", logging.ERROR, "", 1, "%s failed", (TOKEN,), sys.exc_info()
        )
    record.request_id = TOKEN
    text = LineFormatter(LINE).format(record)
    assert TOKEN not in text
    assert text.count("hal0_…") == 3
