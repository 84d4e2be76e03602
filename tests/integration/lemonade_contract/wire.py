"""What was captured from lemond 11.7, and when an answer is the same as the captured one.

The same: status, content type, every key, every type, and every value but those in `VARYING`, which
hang on the machine, the moment or the model. Of those a number is held to being zero or not.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

WIRE = Path(__file__).parents[2] / "fixtures" / "lemonade_wire"
INDEX = json.loads((WIRE / "INDEX.json").read_text())
CAPTURES = {
    path.name[:3]: json.loads(path.read_text()) for path in sorted(WIRE.glob("[0-9]*.json"))
}

VARYING = {
    *("last_use", "pid", "backend_url", "launch_command", "created", "system_fingerprint"),
    *("content", "text", "timings", "usage", "size", "size_bytes", "max_context_window"),
    *("time_to_first_token", "tokens_per_second", "cpu_percent"),
    *("bytes_downloaded", "bytes_previously_downloaded", "bytes_total", "total_download_size"),
    *("cumulative_bytes_downloaded", "overall_bytes_downloaded", "percent"),
}
SHAPE_ONLY = {"013", "015", "126"}
"""What describes the machine, the build and the sampler: keys and types alone are compared."""
CUT = re.compile(r"\.\.\. \d+ entries, truncated by recorder")


@dataclass(frozen=True)
class Folders:
    """Where the captured server's folders are here."""

    extra: Path
    own: Path

    def ours(self, text: str) -> str:
        """Return captured text with our paths."""
        text = text.replace("/srv/lemonade/extra", str(self.extra))
        return text.replace("/srv/lemonade/models", str(self.own))

    def theirs(self, text: str) -> str:
        """Return our text with the captured paths."""
        text = text.replace(str(self.extra), "/srv/lemonade/extra")
        return text.replace(str(self.own), "/srv/lemonade/models")


def request_of(client: httpx.Client, number: str, folders: Folders) -> httpx.Request:
    """Return the captured request, to be sent to a server of ours."""
    asked = CAPTURES[number]["request"]
    body = asked.get("json")
    content = asked.get("raw") if body is None else folders.ours(json.dumps(body))
    headers = {"Content-Type": "application/json", **(asked.get("headers") or {})}
    return client.build_request(asked["method"], asked["path"], content=content, headers=headers)


def check(number: str, answer: httpx.Response, folders: Folders) -> None:
    """Hold an answer against its capture."""
    captured = CAPTURES[number]["response"]
    assert answer.status_code == captured["status"], f"{number}: {answer.text[:500]}"
    kind = captured["headers"].get("content-type")
    assert answer.headers.get("content-type") == kind, number
    text = folders.theirs(answer.text)
    if kind == "text/event-stream":
        _check_lines(number, text, captured)
    elif kind == "application/json":
        found, expected = json.loads(text), captured["body"]
        if number in SHAPE_ONLY:
            found, expected = shape(found), shape(expected)
        _compare(number, found, expected)
    else:
        assert text == captured["body"], number


def _check_lines(number: str, text: str, captured: dict[str, Any]) -> None:
    """Compare the lines that the recorder kept, which are the first and the last ones."""
    lines = _told(text.split("\n"))
    first = _told([line for _, line in captured["first_lines"]])
    last = _told([line for _, line in captured["last_lines"]])
    found = lines[: len(first)] + lines[-len(last) :]
    assert len(found) == len(first) + len(last), f"{number}: {lines}"
    for ours, theirs in zip(found, first + last, strict=True):
        if theirs.startswith("data: {"):
            parsed = (json.loads(line.removeprefix("data: ")) for line in (ours, theirs))
            _compare(number, *parsed)
        else:
            assert ours == theirs, number


def _told(lines: list[str]) -> list[str]:
    return [line for line in lines if line and line != ": ping"]


def _compare(where: str, found: Any, expected: Any, key: str = "") -> None:
    where = f"{where}.{key}" if key else where
    if isinstance(expected, dict) and isinstance(found, dict) and key not in VARYING:
        assert sorted(found) == sorted(expected), where
        for name, value in expected.items():
            _compare(where, found[name], value, name)
    elif isinstance(expected, list) and isinstance(found, list) and key not in VARYING:
        if expected and CUT.fullmatch(str(expected[-1])):
            expected = expected[:-1]
            found = found[: len(expected)]
        assert len(found) == len(expected), f"{where}: {found}"
        for item, value in zip(found, expected, strict=True):
            _compare(where, item, value)
    elif key in VARYING:
        assert shape(found) == shape(expected) or isinstance(expected, dict | list), where
        assert type(found) is not int or bool(found) == bool(expected), f"{where}: {found}"
    else:
        assert _plain(found) == _plain(expected), where


def _plain(value: object) -> object:
    """Leave out of a text what hangs on the catalog, the parser and chance."""
    if not isinstance(value, str):
        return value
    value = re.sub(r"and \d+ more\.", "and N more.", value)
    value = re.sub(r"^chatcmpl-.*", "chatcmpl-", value)
    return re.sub(r"(?s)(Invalid JSON in request body:).*", r"\1", value)


def shape(value: object) -> object:
    """Return keys and types; a list is as its longest item."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [shape(max(value, key=lambda item: len(str(item))))] if value else []
    return "number" if type(value) in (int, float) else type(value).__name__
