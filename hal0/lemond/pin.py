"""Which tarball is to be installed: a file that an operator writes, and hal0 ships none.

    {"version": "11.7.0", "tarball_url": "https://…/….tar.gz", "sha256": "…"}

The digest is what a download is believed by, so the URL may be any that a pull may ask for
(`reach.py`); without TLS only that of a host in HAL0_PULL_PRIVATE_HOSTS.
"""

import os
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from hal0.errors import BadPin, HostNotAllowed, InvalidRequest
from hal0.hosts import HostList
from hal0.opening import open_regular
from hal0.registry.reach import ensure_allowed, host_of
from hal0.registry.sources import Source, SourceKind
from hal0.settings import Settings

MAX_BYTES: Final = 64 * 1024
NAMED_BY: Final = 12
"""So many digits of the digest are in a version's name; two tarballs of one version differ."""

Version = Annotated[
    str, StringConstraints(pattern=r"^[0-9A-Za-z](?:[0-9A-Za-z._+-]{0,62}[0-9A-Za-z])?\z")
]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}\z", to_lower=True)]


class Pin(BaseModel):
    """One tarball; `sha256` in lowercase hex. Whom a URL may name, the context says: Settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Version
    tarball_url: str
    sha256: Digest

    @field_validator("tarball_url")
    @classmethod
    def _may_be_asked(cls, url: str, info: ValidationInfo) -> str:
        problem = _problem_of(url, info.context) if info.context else None
        if problem is not None:
            raise ValueError(problem)
        return url

    @classmethod
    def read(cls, path: Path, settings: Settings) -> Self:
        """Read a pin file. Raises BadPin that names the file and each bad field."""
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as exc:
            raise BadPin(
                f"{path} cannot be read: {exc.strerror}", evidence={"path": str(path)}
            ) from exc
        if len(content) > MAX_BYTES:
            raise _bad(path, {"*": f"is longer than {MAX_BYTES} bytes, which no pin needs"})
        try:
            return cls.model_validate_json(content, context=settings)
        except ValidationError as exc:
            raise _bad(path, dict(map(_told, exc.errors()))) from exc

    @property
    def name(self) -> str:
        """What the version is called in the folder of versions."""
        return f"{self.version}-{self.sha256[:NAMED_BY]}"

    @property
    def source(self) -> Source:
        """Where the tarball is."""
        return Source.parse(self.tarball_url)


def _problem_of(url: str, settings: Settings) -> str | None:
    """Return why this is no URL that may be asked for a tarball; None = it is one."""
    try:
        source = Source.parse(url)
        if source.kind is not SourceKind.WEB:
            return "is no https:// URL"
        is_private = HostList.of(settings.pull_private_hosts or ()).has(host_of(url))
        if not url.lower().startswith("https:") and not is_private:
            return "is no https:// URL, and its host is none of HAL0_PULL_PRIVATE_HOSTS"
        ensure_allowed(settings, source)
    except (InvalidRequest, HostNotAllowed) as exc:
        return exc.detail
    return None


def _told(error: ErrorDetails) -> tuple[str, str]:
    """Return a field, `*` for the file as a whole, and what is wrong with it."""
    name = ".".join(map(str, error["loc"])) or "*"
    return name, error["msg"].removeprefix("Value error, ")


def _bad(path: Path, fields: dict[str, str]) -> BadPin:
    told = "; ".join(f"{name}: {problem}" for name, problem in fields.items())
    return BadPin(
        f"{path} is no pin of a Lemonade server: {told}",
        evidence={"path": str(path), "fields": fields},
    )
