"""Where a model's bytes may come from: a file of this machine, a URL, or a file of a model hub.

    /data/tiny.gguf, file:///data/tiny.gguf       this machine
    https://host/dir/tiny.gguf                    any web server; http:// too
    hf://org/repo/dir/tiny.gguf[@revision]        a hub; a pull pins the commit that it found, and
                                                  what follows the last @ is the revision

A path says where a file lies and nothing else: absolute, without `.` and `..`, none of the kernel's
own files. That no link lies on the way is seen when it is opened (`place.py`). A source is kept in
rows and shown to people, so it may hold no password: what opens a hub is in HAL0_HUB_TOKEN_FILE. A
refusal repeats neither a password nor a query, for answers are kept too. No file is looked at and
nothing is asked here.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from hal0.errors import InvalidRequest

MAX_LENGTH: Final = 4096
MAX_NAME_BYTES: Final = 200  # 255 less room for `.part`, `.bad` and the like
KNOWN: Final = "an absolute path, file:///…, https://…, http://… or hf://org/repo/file[@revision]"

# What huggingface_hub takes for a name, and not the prefix of what is no model.
_REPO: Final = re.compile(
    r"(?!(?:datasets|spaces|models|kernels|buckets)/)(?!.*(?:--|\.\.))(?!.*\.git$)"
    r"\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?",
    re.ASCII,
)
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_WEB: Final = re.compile(r"https?:", re.IGNORECASE)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_PASSWORD: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/*)[^/?#]*@")
_NO_FILES: Final = {"proc", "sys"}  # what they show is made up by the kernel when it is read
_NOT_IN_A_LINE: Final = {"Cc", "Cs", "Zl", "Zp"}  # controls, halves of characters, line ends


class SourceKind(StrEnum):
    """How the bytes of a source are had."""

    LOCAL = "local"
    WEB = "web"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository at a hub; no revision = what is newest when it is pulled."""

    repo: str
    path: str
    revision: str | None

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which always means the same bytes."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    @property
    def text(self) -> str:
        """The source as it is written."""
        at = "" if self.revision is None else f"@{self.revision}"
        return f"hf://{self.repo}/{self.path}{at}"

    def pinned(self, commit: str) -> str:
        """Return the text of this source at a commit."""
        return replace(self, revision=commit).text


@dataclass(frozen=True, slots=True)
class Source:
    """Where one file comes from. `text` is what rows keep.

    `path` is set for a file of this machine, `url` for a web server, `hub` for a hub.
    """

    kind: SourceKind
    text: str
    file_name: str
    path: PurePosixPath | None = None
    url: str | None = None
    hub: HubFile | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a source as an operator writes it, or as a row has it. Raises InvalidRequest."""
        _ensure_one_line(text)
        found = _SCHEME.match(text)
        scheme = found[1].lower() if found else ""
        if scheme in {"", "file"}:
            path = local_source(text)
            return cls(SourceKind.LOCAL, path, _file_name(text, path), path=PurePosixPath(path))
        if scheme in {"http", "https"}:
            return cls(SourceKind.WEB, text, _web_name(text), url=text)
        if scheme == "hf":
            hub = _hub_file(text)
            return cls(SourceKind.HUB, text, _file_name(text, hub.path), hub=hub)
        raise InvalidRequest(f"{_shown(text)}: {scheme}: is no source that hal0 knows: use {KNOWN}")

    @property
    def shown(self) -> str:
        """The source for messages and answers."""
        return shown_source(self.text)


def shown_source(text: str) -> str:
    """Return what people may see of a source as a row has it: a URL without its query.

    The query may be a signature. No text is refused here.
    """
    return text.partition("?")[0] if _WEB.match(text) else text


def checked_source(text: str) -> str:
    """Return the text of a source as rows keep it: of a local one its path. Raises InvalidRequest.

    Where the name's ending would lead an engine astray (a page, a folder), `Source.parse` refuses.
    """
    return Source.parse(text).text


def local_source(source: str) -> str:
    """Return the absolute path that `source` names; no file is looked at. Raises InvalidRequest."""
    path = _path_of_url(source) if source.lower().startswith("file:") else source
    _ensure_one_line(path)
    if not path.startswith("/") or path.endswith("/"):
        raise InvalidRequest(f"{_shown(source)} is not a source that hal0 knows: use {KNOWN}")
    return checked_path(path)


def checked_path(path: str) -> str:
    """Return the absolute path of a file if that is all it says. Raises InvalidRequest."""
    _ensure_one_line(path)
    if not path.startswith("/"):
        raise InvalidRequest(f"{_shown(path)} is no absolute path")
    parts = path[1:].split("/")
    if set(parts) & {"", ".", ".."}:
        raise InvalidRequest(
            f"{_shown(path)}: a path has no part that is empty, '.' or '..'; name the file itself"
        )
    if parts[0] in _NO_FILES:
        raise InvalidRequest(f"{_shown(path)}: what is in /{parts[0]} are no files of a disk")
    return path


def checked_name(name: str) -> str:
    """Return what a file in the models folder can be called. Raises InvalidRequest."""
    if "/" in name:
        raise InvalidRequest(f"{_shown(name)}: a file's name has no slash")
    _ensure_one_line(name)
    return _file_name(name, name)


def _ensure_one_line(text: str) -> None:
    if len(text) > MAX_LENGTH or any(unicodedata.category(char) in _NOT_IN_A_LINE for char in text):
        raise InvalidRequest(
            f"{_shown(text)}: a source, path or name is one line of at most {MAX_LENGTH} characters"
        )


def _shown(text: str) -> str:
    """Return what a refusal may repeat of a source: its beginning, no password, no query."""
    if _SCHEME.match(text):
        text = text.partition("?")[0]
        if found := _PASSWORD.match(text):
            text = f"{found[1]}***@{text[found.end() :]}"
    return repr(text[:80])


def _path_of_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"{_shown(url)}: its path is no UTF-8") from exc
    except ValueError as exc:
        raise InvalidRequest(f"{_shown(url)} is no URL") from exc
    if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment:
        raise InvalidRequest(f"{_shown(url)} names a file of another machine, or more than a file")
    return path


def _web_name(url: str) -> str:
    """Return the file's name in a URL, or raise InvalidRequest for what is no URL of a file."""
    if _PASSWORD.match(url):
        raise InvalidRequest(
            "the source holds a user name or password, which would be kept in rows and shown; "
            "leave it out of the URL"
        )
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as exc:
        raise InvalidRequest(f"{_shown(url)} is no URL: its host or port is none") from exc
    if not host or port == 0 or any(char.isspace() for char in url):
        raise InvalidRequest(
            f"{_shown(url)} is no URL: it needs a host, as in https://host/file.gguf"
        )
    if "#" in url:
        raise InvalidRequest(f"{_shown(url)}: a source has no #fragment")
    return _file_name(url, unquote(parts.path))


def _hub_file(text: str) -> HubFile:
    rest, at, last = text[len("hf://") :].rpartition("@")
    rest, revision = (rest, last) if at else (last, None)
    parts = rest.split("/")
    repo, path = "/".join(parts[:2]), "/".join(parts[2:])
    problem = None
    if not text.lower().startswith("hf://") or len(parts) < 3:
        problem = "it names no file: hf://org/repo/file[@revision]"
    elif not _REPO.fullmatch(repo):
        problem = "its first two parts are no org/repo of a model"
    elif any(part in {"", ".", ".."} for part in parts[2:]) or "\\" in rest or "?" in rest:
        problem = "its file is no path inside the repository"
    elif revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        problem = f"{revision!r} is no branch, tag or commit"
    if problem:
        raise InvalidRequest(f"{_shown(text)}: {problem}")
    file = HubFile(repo, path, revision)
    _ensure_one_line(file.pinned("c" * 40))  # as a pull will keep it
    return file


def _file_name(text: str, path: str) -> str:
    """Return the last part of a path if a file in the models folder can be called so."""
    name = path.rpartition("/")[2]
    if not name.isprintable():
        raise InvalidRequest(
            f"{_shown(text)}: the name of its file has characters that do not print"
        )
    if name in {"", ".", ".."} or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidRequest(
            f"{_shown(text)}: its last part must be a file's name of at most {MAX_NAME_BYTES} bytes"
        )
    return name
