"""What a hub says of a file: its commit, its size, its sha256 and where its bytes are.

Asked with `huggingface_hub`, the optional extra `hub`; the bytes then come like any other download,
from a URL that names the commit. One HEAD request and the redirects that stay at the hub: nothing
is downloaded, nothing is written.

The library reads HF_* and the files of a login of its own accord. What counts is passed or set:

    endpoint   always passed, so HF_ENDPOINT is not looked at
    token      always passed; False where there is none, so neither HF_TOKEN nor the token of
               whoever logged in on this machine is sent
    telemetry  switched off for this process: it asks the hub for a list of agents and keeps it
               under HF_HOME, once a day, on the way to its User-Agent
    retries    none, it would sleep as long as the hub says; the job tries again
    time       10 s for each step, and `wait_s` for all of it (a name server, or an answer that
               comes byte by byte, has no limit there), in a thread that is left behind then

HF_HUB_OFFLINE is obeyed, and proxies and certificates are those of the environment. The
library sends the token on when the endpoint redirects within its own origin or to the public hub.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from hal0 import __version__
from hal0.clock import monotonic_ms
from hal0.errors import (
    HubNotInstalled,
    PullError,
    SettingsError,
    SourceBadAnswer,
    SourceNotFound,
    SourceRefused,
    SourceUnreachable,
)
from hal0.registry.checksum import Interrupted
from hal0.registry.reach import PUBLIC_HUB
from hal0.registry.sources import HubFile
from hal0.registry.web import BUSY, GONE, MAX_RETRY_AFTER_S, REFUSED, retry_after_s
from hal0.settings import Settings

WAIT_S: Final = 30.0
STEP_S: Final = 10.0
LOOK_EVERY_S: Final = 0.2

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_VISIBLE: Final = re.compile(r"[!-~]+")
_HINT: Final = "put a token that may read it in a file and set HAL0_HUB_TOKEN_FILE"


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """A file at one commit.

    `sha256` is what the hub keeps of large files, None of small ones. `authorization` is the value
    of a header that only the origin of `url` may get; None where no token is set.
    """

    url: str
    commit: str
    size_bytes: int | None
    sha256: str | None
    authorization: str | None


def resolve(
    file: HubFile,
    *,
    endpoint: str | None,
    token: str | None,
    wait_s: float = WAIT_S,
    should_stop: Callable[[], bool] = lambda: False,
) -> HubAnswer:
    """Ask a hub, None = the public one, which bytes a file is; from any thread.

    Raises HubNotInstalled; SourceNotFound of a repository, revision or file; SourceRefused;
    SourceUnreachable, also when `wait_s` is over; SourceBadAnswer; SettingsError of the endpoint;
    Interrupted when `should_stop` says so.
    """
    asked = _Asked(file, _checked_endpoint(endpoint), _checked_token(file, token))
    _import_library(file)
    return _within(asked, wait_s, should_stop)


def token_of(settings: Settings) -> str | None:
    """Return the token that the settings name a file of, None for none. Raises SourceRefused."""
    path = settings.hub_token_file
    try:
        return None if path is None else path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as exc:
        raise SourceRefused(
            f"HAL0_HUB_TOKEN_FILE={path} cannot be read: {exc}", evidence={"path": str(path)}
        ) from exc


@dataclass(frozen=True, slots=True)
class _Asked:
    file: HubFile
    endpoint: str
    token: str | None

    @property
    def source(self) -> str:
        return self.file.text

    def answer(self, step_s: float) -> HubAnswer:
        """Ask the hub; raises our errors alone."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        with _hub_errors(self):
            found = get_hf_file_metadata(
                hf_hub_url(
                    self.file.repo,
                    self.file.path,
                    revision=self.file.revision,
                    endpoint=self.endpoint,
                ),
                token=self.token or False,
                timeout=step_s,
                library_name="hal0",
                library_version=__version__,
                endpoint=self.endpoint,
                retry_on_errors=False,
            )
            commit = self._checked_commit(found.commit_hash)
            return HubAnswer(
                url=hf_hub_url(
                    self.file.repo, self.file.path, revision=commit, endpoint=self.endpoint
                ),
                commit=commit,
                size_bytes=self._checked_size(found.size),
                sha256=found.etag if _SHA256.fullmatch(found.etag or "") else None,
                authorization=None if self.token is None else f"Bearer {self.token}",
            )

    def _checked_commit(self, commit: str | None) -> str:
        if commit is None or _COMMIT.fullmatch(commit) is None:
            raise self.bad("it names no commit, so it is no hub, or a proxy answers in its place")
        if self.file.is_pinned and commit != self.file.revision:
            raise self.bad(f"it answers for commit {commit}")
        return commit

    def _checked_size(self, size: int | None) -> int | None:
        if size is not None and not 0 <= size < 2**63:
            raise self.bad(f"it says that the file has {size} bytes")
        return size

    def without_token(self, text: str) -> str:
        """Return a text that a server may have had a hand in."""
        return text.replace(self.token, "***") if self.token else text

    def bad(self, how: str) -> SourceBadAnswer:
        """Build the error for an answer of no use."""
        return SourceBadAnswer(
            f"{self.source}: the answer of {self.endpoint} is of no use: {how}",
            evidence=self.evidence(reason=how),
        )

    def evidence(self, **more: object) -> dict[str, Any]:
        """Return what every error tells."""
        return {"source": self.source, "endpoint": self.endpoint, **more}


def _checked_endpoint(endpoint: str | None) -> str:
    """Return the endpoint without a slash at its end; raises SettingsError."""
    if endpoint is None:
        return PUBLIC_HUB
    try:
        parts = urlsplit(endpoint)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or not _VISIBLE.fullmatch(endpoint) or set(endpoint) & set("@?#"):
        raise SettingsError(
            "HAL0_HUB_ENDPOINT is not the URL of a hub, as in https://host, without a user name"
        )
    return endpoint.rstrip("/")


def _checked_token(file: HubFile, token: str | None) -> str | None:
    """Return a token that fits in a header; None = there is none. Raises SourceRefused."""
    if not token:
        return None
    if _VISIBLE.fullmatch(token) is None:
        raise SourceRefused(
            f"{file.text}: what is in HAL0_HUB_TOKEN_FILE is no token: "
            "it must be one line of visible ASCII characters",
            evidence={"source": file.text},
        )
    return token


def _import_library(file: HubFile) -> None:
    """Import huggingface_hub, without its telemetry; raises HubNotInstalled."""
    try:
        import httpx2  # noqa: F401
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url  # noqa: F401
    except ImportError as exc:
        raise HubNotInstalled(
            f"{file.text} needs huggingface_hub, which cannot be imported ({exc}): "
            "install hal0 with its extra `hub`",
            evidence={"source": file.text},
        ) from exc
    constants.HF_HUB_DISABLE_TELEMETRY = True


def _within(asked: _Asked, wait_s: float, should_stop: Callable[[], bool]) -> HubAnswer:
    """Ask in a thread of its own, and wait for it no longer than that."""
    future: Future[HubAnswer] = Future()

    def run() -> None:
        try:
            future.set_result(asked.answer(min(STEP_S, wait_s)))
        except BaseException as exc:  # noqa: BLE001 - raised again by whoever waits
            future.set_exception(exc)

    threading.Thread(target=run, name="hub", daemon=True).start()
    until_ms = monotonic_ms() + int(wait_s * 1000)
    while True:
        try:
            return future.result(min(LOOK_EVERY_S, wait_s))
        except TimeoutError as exc:
            if should_stop():
                raise Interrupted from exc
            if monotonic_ms() >= until_ms:
                raise SourceUnreachable(
                    f"{asked.source}: {asked.endpoint} did not answer within {wait_s:g} s",
                    evidence=asked.evidence(wait_s=wait_s),
                ) from exc


@contextmanager
def _hub_errors(asked: _Asked) -> Iterator[None]:
    """Map what the library raises; the one place where that is done."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.OfflineModeIsEnabled as exc:
        raise SourceRefused(
            f"{asked.source}: HF_HUB_OFFLINE is set for this process, so no hub is asked; unset it",
            evidence=asked.evidence(),
        ) from exc
    except errors.HFValidationError as exc:
        raise SourceNotFound(
            f"{asked.source}: {asked.file.repo} is no name of a repository; "
            "register the model anew, with one that is",
            evidence=asked.evidence(),
        ) from exc
    except errors.HfHubHTTPError as exc:
        raise _refusal(asked, exc.response.status_code, exc.response.headers) from exc
    except (
        httpx2.InvalidURL,
        httpx2.TooManyRedirects,
        httpx2.UnsupportedProtocol,
        ValueError,
    ) as exc:
        raise asked.bad("it redirects in a circle, or to what is no URL") from exc
    except (httpx2.HTTPError, OSError) as exc:
        why = asked.without_token(str(exc)) or type(exc).__name__
        raise SourceUnreachable(
            f"{asked.source}: {asked.endpoint} cannot be reached, or broke off: {why}",
            evidence=asked.evidence(reason=why),
        ) from exc


def _refusal(asked: _Asked, status: int, headers: Mapping[str, str]) -> PullError:
    """Return what an error of the hub means, in our words: its own might repeat the token."""
    repo, code = asked.file.repo, headers.get("X-Error-Code")
    evidence = asked.evidence(http_status=status)
    said = f"{asked.source}: {asked.endpoint} answered {status}"
    missing = {
        "RepoNotFound": f"there is no {repo}, or it is private; then {_HINT}",
        "RevisionNotFound": f"{repo} has no branch, tag or commit {asked.file.revision or 'main'}",
        "EntryNotFound": f"{repo} has no file {asked.file.path} at that revision",
    }
    if code in missing or status in GONE:
        why = missing.get(code or "", "register the model anew, with a source that is there")
        return SourceNotFound(f"{said}: {why}", evidence=evidence)
    if code == "GatedRepo":
        why = f"{repo} is gated: accept its conditions at the hub, and {_HINT}"
        return SourceRefused(f"{said}: {why}", evidence=evidence)
    if status in REFUSED:
        why = f"{repo} is not for this caller, or not there at all; {_HINT}"
        return SourceRefused(f"{said}: {why}", evidence=evidence)
    if status in BUSY or status >= 500:
        after_s = _retry_after_s(headers)
        return SourceUnreachable(said, evidence=evidence, retry_after_s=after_s)
    return SourceBadAnswer(said, evidence=evidence)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the hub wants to be left alone: Retry-After, or what is left of a quota."""
    from huggingface_hub.utils import parse_ratelimit_headers

    after_s = retry_after_s(headers)
    quota = parse_ratelimit_headers(headers)
    if after_s is not None:
        return after_s
    if quota is not None and quota.remaining == 0:
        return min(float(quota.reset_in_seconds), MAX_RETRY_AFTER_S)
    return None
