"""Whether the files of a model are fit to load: the only place that decides it (ADR-0007).

Over all files of the model, cheap checks first; the first failure wins:

    1 existence    FileNotFound, FileUnreadable   opened once; what follows uses that descriptor
    2 size         SizeMismatch                   skipped where no size is registered
    3 header       NotAGguf, Truncated            skipped for other formats; shards must be complete
    4 checksum     ChecksumMismatch               skipped where no sha256 is registered

The verdict of 3 and 4 is remembered by file identity and expected digest, good or bad: what did not
change is not read again. Whoever loads calls `ensure_unchanged` right before the load is sent. What
changes after that is the race that ADR-0007 accepts. Hashing takes minutes, so callers run this
outside the clock of the load. Whether the engine opens this very file is asked elsewhere.
"""

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from hal0 import clock
from hal0.errors import (
    ChecksumMismatch,
    FileChanged,
    FileNotFound,
    FileUnreadable,
    NotAGguf,
    PreloadError,
    SizeMismatch,
    Truncated,
)
from hal0.registry.checksum import sha256
from hal0.registry.files import FileIdentity, ModelFile, about, open_model_file
from hal0.registry.gguf import read_header
from hal0.registry.repair import advice_for
from hal0.registry.shards import ensure_complete

__all__ = [
    "CheckedFile",
    "FileIdentity",
    "ModelFile",
    "Progress",
    "Verdict",
    "Verdicts",
    "ensure_unchanged",
    "open_model_file",
    "validate_files",
]

KEPT_FACTS: Final = (
    "tensor_count",
    "split_no",
    "split_count",
    "split_tensor_count",
    "unsized_types",
)
Skipped = Literal["size", "header", "extent", "checksum"]
SETTLED_S: Final = 0.05  # ctime ticks every 1 to 10 ms; see "racy git" for the same trouble
REMEMBERED: Final = {error.code: error for error in (NotAGguf, Truncated, ChecksumMismatch)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What steps 3 and 4 found about one identity; `code` is None when the file is good.

    `evidence` of a good GGUF file holds what the check of its shards needs. `sha256` is what was
    found, None when no digest was expected.
    """

    identity: FileIdentity
    expected_sha256: str | None
    sha256: str | None
    code: str | None = None
    detail: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Verdicts(Protocol):
    """Where verdicts outlive the process; a format is part of the key."""

    def recall(
        self, identity: FileIdentity, expected_sha256: str | None, model_format: str, /
    ) -> Verdict | None:
        """Return the verdict remembered for exactly this identity, digest and format."""

    def remember(self, verdict: Verdict, model_format: str, /) -> None:
        """Keep a verdict in place of an earlier one of the same key."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the hashing is; bytes count over all files that are hashed in this validation."""

    phase: Literal["hash"]
    path: Path
    role: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file that is fit to load, and which checks could not be made.

    `skipped`: "size" and "checksum" when unregistered, "header" when not a GGUF, "extent" when
    tensors have a type whose size hal0 does not know.
    """

    file: ModelFile
    identity: FileIdentity
    sha256: str | None
    is_remembered: bool
    skipped: tuple[Skipped, ...]


def validate_files(
    files: Sequence[ModelFile],
    *,
    format: str,  # noqa: A002 - the glossary's word for it
    verdicts: Verdicts,
    rehash: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[CheckedFile]:
    """Check every file of a model (ADR-0007) and return them in the order given.

    `rehash` reads files again whose verdict is remembered. Raises the PreloadError of the first
    failure, with `{path, role, expected, found}` as evidence; FileChanged when a file was written
    while it was read, of which nothing is remembered; Interrupted when `should_stop` says so.
    """
    if not files:
        raise FileNotFound("the model has no files", evidence={"expected": "a file", "found": None})
    with ExitStack() as opened:
        checks = []
        for file in files:
            fd = open_model_file(file, has_folder=len(files) > 1)  # as `final_paths` says
            opened.callback(os.close, fd)
            checks.append(_Check(file, fd, format, verdicts))
        for check in checks:
            check.compare_size()
        for check in checks if not rehash else ():
            check.recall()
        unread = [check for check in checks if check.verdict is None]
        _wait_until_settled(unread)
        for check in unread:
            check.read_header()
        ensure_complete([(check.file, check.facts) for check in checks])
        _hash([check for check in unread if check.expected is not None], on_progress, should_stop)
        return [check.conclude() for check in checks]


def ensure_unchanged(files: Sequence[tuple[Path, FileIdentity]]) -> None:
    """Look at each path once more, right before a load is sent (ADR-0007).

    Raises FileChanged with both identities; `found` is None when nothing is there any more.
    """
    for path, identity in files:
        try:
            found = FileIdentity.from_stat(path.stat())
        except OSError:
            found = None
        if found != identity:
            what = "is gone" if found is None else "is another"
            raise FileChanged(
                f"{path} {what} than the file that was validated; validate it again",
                evidence={
                    "path": str(path),
                    "expected": identity.as_json(),
                    "found": found and found.as_json(),
                },
            )


def remember_fetched(
    file: ModelFile,
    identity: FileIdentity,
    *,
    format: str,  # noqa: A002 - the glossary's word for it
    verdicts: Verdicts,
) -> None:
    """Remember that a file was hashed on its way: its next validation need not read it again.

    `file.sha256` is what was found, `identity` what was given its final name. Whether the file is
    fit to load is said by `validate_files` alone. Raises DatabaseError.
    """
    try:
        with ExitStack() as opened:
            fd = open_model_file(file)
            opened.callback(os.close, fd)
            check = _Check(file, fd, format, verdicts)
            if check.identity == identity:
                _wait_until_settled([check])
                check.read_header()
                check.trust(str(file.sha256))
    except PreloadError:
        return


def _wait_until_settled(checks: Sequence["_Check"]) -> None:
    """Let the file system's clock tick if a file was written just now.

    A model that was brought a moment ago would otherwise be hashed again before its next load.
    """
    youngest_s = min((check.age_s() for check in checks), default=SETTLED_S)
    if 0 <= youngest_s <= SETTLED_S:
        time.sleep(SETTLED_S - youngest_s + 0.001)


def _hash(
    checks: Sequence["_Check"],
    on_progress: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    total = sum(check.identity.size_bytes for check in checks)
    before = 0
    for check in checks:

        def report(done: int, check: _Check = check, before: int = before) -> None:
            if on_progress is not None:
                file = check.file
                on_progress(Progress("hash", file.path, file.role, before + done, total))

        report(0)
        check.hash(report, should_stop)
        before += check.identity.size_bytes


@contextmanager
def _reading(file: ModelFile) -> Iterator[None]:
    """Turn a failing disk into FileUnreadable."""
    try:
        yield
    except OSError as exc:
        evidence = {"expected": "a readable file", "found": exc.strerror, "errno": exc.errno}
        raise about(FileUnreadable, file, f"reading it failed: {exc.strerror}", evidence) from exc


class _Check:
    """One file on its way through the steps, held open until the last."""

    def __init__(self, file: ModelFile, fd: int, model_format: str, verdicts: Verdicts) -> None:
        self.file = file
        self.expected = file.sha256.lower() if file.sha256 else None
        self.verdict: Verdict | None = None
        self.facts: Mapping[str, Any] = {}
        self._is_gguf = model_format == "gguf"
        self._format = model_format
        self._verdicts = verdicts
        self._is_remembered = False
        self._fd = fd
        self.identity = FileIdentity.from_stat(os.fstat(self._fd))
        self._was_settled = False

    def compare_size(self) -> None:
        expected, found = self.file.size_bytes, self.identity.size_bytes
        if expected is not None and expected != found:
            raise self._refusal(
                SizeMismatch,
                f"it has {found} bytes, registered are {expected}",
                {"expected": expected, "found": found},
            )

    def recall(self) -> None:
        """Take over what is remembered; raises a bad verdict again."""
        verdict = self._verdicts.recall(self.identity, self.expected, self._format)
        if verdict is None:
            return
        if verdict.code is None:
            self.verdict, self.facts, self._is_remembered = verdict, verdict.evidence, True
        elif verdict.code in REMEMBERED:
            error = REMEMBERED[verdict.code]
            raise self._refusal(error, verdict.detail or "", verdict.evidence)

    def age_s(self) -> float:
        """Return how long ago the file was last written, linked or touched, in seconds."""
        return clock.utc_now().timestamp() - self.identity.ctime_ns / 1e9

    def read_header(self) -> None:
        self._was_settled = self.age_s() > SETTLED_S
        if not self._is_gguf:
            return
        try:
            with _reading(self.file), io.FileIO(self._fd, closefd=False) as raw:
                header = read_header(raw, self.identity.size_bytes)
            if not header.tensor_count and (header.split_count or 1) <= 1:
                raise NotAGguf("it has no tensors", evidence={"expected": "tensors", "found": 0})
        except (NotAGguf, Truncated) as exc:
            self._remember(None, exc)
            raise self._refusal(type(exc), exc.detail, exc.evidence) from exc
        facts = asdict(header)
        self.facts = {key: facts[key] for key in KEPT_FACTS}
        if self.expected is None:
            self._remember(None, None)

    def hash(
        self, on_progress: Callable[[int], None], should_stop: Callable[[], bool] | None
    ) -> None:
        with _reading(self.file):
            found = sha256(
                self._fd,
                on_progress=on_progress,
                should_stop=should_stop,
                limit_bytes=self.identity.size_bytes,
            )
        error = None
        if found != self.expected:
            error = ChecksumMismatch(
                f"its sha256 is {found}, registered is {self.expected}",
                evidence={"expected": self.expected, "found": found},
            )
        self._remember(found, error)
        if error is not None:
            raise self._refusal(type(error), error.detail, error.evidence)

    def _refusal(
        self, error: type[PreloadError], detail: str, evidence: Mapping[str, Any]
    ) -> PreloadError:
        """Build the error of a file whose content is not the registered one, with what to do."""
        advice = advice_for(self.file, self.identity)
        return about(error, self.file, f"{detail}; {advice}", evidence)

    def trust(self, found: str) -> None:
        """Take over a digest that was made of these bytes before they had their name."""
        self._remember(found, None)

    def conclude(self) -> CheckedFile:
        made: dict[Skipped, bool] = {
            "size": self.file.size_bytes is not None,
            "header": self._is_gguf,
            "extent": not self.facts.get("unsized_types"),
            "checksum": self.expected is not None,
        }
        return CheckedFile(
            file=self.file,
            identity=self.identity,
            sha256=None if self.verdict is None else self.verdict.sha256,
            is_remembered=self._is_remembered,
            skipped=tuple(check for check, is_made in made.items() if not is_made),
        )

    def _remember(self, found: str | None, error: PreloadError | None) -> None:
        """Keep a verdict, unless the file was written while, or just before, it was read."""
        now = FileIdentity.from_stat(os.fstat(self._fd))
        if now != self.identity:
            raise about(
                FileChanged,
                self.file,
                "it was changed while it was read",
                {"expected": self.identity.as_json(), "found": now.as_json()},
            ) from error
        self.verdict = Verdict(
            identity=self.identity,
            expected_sha256=self.expected,
            sha256=found,
            code=None if error is None else error.code,
            detail=None if error is None else error.detail,
            evidence=self.facts if error is None else error.evidence,
        )
        if self._was_settled:
            self._verdicts.remember(self.verdict, self._format)
