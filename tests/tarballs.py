"""Tarballs of a Lemonade server for tests: small ones, and ones that nobody should unpack."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gz": partial(gzip.compress, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
PROGRAM = b"#!/bin/sh\nexec echo lemond %s\n"


def member(name: str, content: bytes = b"", *, mode: int = 0o644, **fields: Any) -> tuple[Any, ...]:
    """Describe one member; `fields` are those of TarInfo, as `type` and `linkname`."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tarball(members: Iterable[tuple[Any, ...]], *, compression: str = "gz") -> bytes:
    """Pack them as they are, whatever they say; the same members give the same bytes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return COMPRESSED[compression](packed.getvalue())


def server(version: str, *, below: str = "lemonade/", padding: bytes = b"") -> bytes:
    """Pack a server as its vendor does: a folder with the program and what it needs."""
    return tarball(
        [
            member(f"{below}lemond", PROGRAM % version.encode(), mode=0o755),
            member(f"{below}resources/defaults.json", b'{"port": 13305}'),
            member(f"{below}lib/libserver.so.1", b"library" + padding, mode=0o755),
            member(f"{below}lib/libserver.so", type=tarfile.SYMTYPE, linkname="libserver.so.1"),
            member(f"{below}bin/server", type=tarfile.SYMTYPE, linkname="../lemond"),
        ]
    )


def write_pin(path: Path, version: str, url: str, content: bytes) -> str:
    """Write the pin of a tarball and return what its version is called."""
    digest = sha256(content).hexdigest()
    path.write_text(json.dumps({"version": version, "tarball_url": url, "sha256": digest}))
    return f"{version}-{digest[:12]}"
