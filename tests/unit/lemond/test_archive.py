"""What of a tarball is unpacked, and what is refused before anything is written."""

import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from hal0.errors import BadTarball, DiskFull, LemondError
from hal0.lemond.archive import MAX_BYTES, MAX_MEMBERS, MAX_NAME, unpack
from tests.tarballs import member, server, tarball

PROGRAM = member("lemond", b"program", mode=0o755)
LINK = tarfile.SYMTYPE
HARD = tarfile.LNKTYPE


def unpacked(tmp_path: Path, content: bytes) -> Path:
    packed = tmp_path / "server.tar"
    packed.write_bytes(content)
    return unpack(packed, tmp_path / "new", reserve_bytes=0)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("below", ["", "./", "lemonade-embeddable/"])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_server_is_found_at_the_top_or_in_the_only_folder_and_all_can_run_it(
    tmp_path: Path, below: str, umask: int
) -> None:
    os.umask(umask)
    root = unpacked(tmp_path, server("1", below=below))
    assert names(root) == {
        *("lemond", "resources", "resources/defaults.json", "lib", "lib/libserver.so.1"),
        *("lib/libserver.so", "bin", "bin/server"),
    }
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [root, *root.rglob("*")]}
    assert modes.pop(root / "resources/defaults.json") == 0o644
    assert set(modes.values()) == {0o755}
    assert (root / "bin/server").resolve() == root / "lemond"
    assert (root / "lib/libserver.so").read_bytes() == b"library"


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_any_compression_that_python_knows_is_read(tmp_path: Path, compression: str) -> None:
    content = tarball([PROGRAM], compression=compression)
    assert (unpacked(tmp_path, content) / "lemond").read_bytes() == b"program"


def test_a_hard_link_to_a_file_before_it_is_that_file(tmp_path: Path) -> None:
    root = unpacked(tmp_path, tarball([PROGRAM, member("same", type=HARD, linkname="lemond")]))
    assert (root / "same").samefile(root / "lemond")


@pytest.mark.parametrize(("packed", "given"), [(0o700, 0o755), (0o6777, 0o755), (0o600, 0o644)])
def test_what_one_may_do_with_a_file_all_may_but_change_it(
    tmp_path: Path, packed: int, given: int
) -> None:
    root = unpacked(tmp_path, tarball([PROGRAM, member("file", b"x", mode=packed)]))
    assert stat.S_IMODE((root / "file").stat().st_mode) == given


EVIL: dict[str, list[tuple[Any, ...]]] = {
    "up": [member("../outside", b"x")],
    "up in the middle": [member("a/../../outside", b"x")],
    "absolute": [member("/outside", b"x")],
    "link up": [member("link", type=LINK, linkname="../outside")],
    "link up from a folder": [member("a/link", type=LINK, linkname="../../outside")],
    "link up behind": [member("a/link", type=LINK, linkname="b/../../../outside")],
    "link by way of another": [
        member("here", type=LINK, linkname="lib"),
        member("link", type=LINK, linkname="here/../outside"),
    ],
    "link absolute": [member("link", type=LINK, linkname="/etc")],
    "link to nothing": [member("link", type=LINK, linkname="")],
    "below a link": [member("a", type=LINK, linkname="b"), member("a/c", b"x")],
    "a link where others lie": [member("a/c", b"x"), member("a", type=LINK, linkname="b")],
    "below a file": [member("a", b"x"), member("a/c", b"x")],
    "twice": [member("a", b"x"), member("a", b"y")],
    "a link, then a file": [member("a", type=LINK, linkname="b"), member("a", b"y")],
    "hard link up": [member("hard", type=HARD, linkname="../outside")],
    "hard link absolute": [member("hard", type=HARD, linkname="/etc/passwd")],
    "hard link to what comes later": [
        member("hard", type=HARD, linkname="later"),
        member("later", b"x"),
    ],
    "hard link to a link": [
        member("link", type=LINK, linkname="lemond"),
        member("hard", type=HARD, linkname="link"),
    ],
    "device": [member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "block device": [member("disk", type=tarfile.BLKTYPE, devmajor=8)],
    "fifo": [member("fifo", type=tarfile.FIFOTYPE)],
    "control characters": [member("a\x1b[31m", b"x")],
    "long name": [member("a" * (MAX_NAME + 1), b"x")],
    "the name of hal0's own note": [member("hal0-pin.json", b"x")],
}


@pytest.mark.parametrize("what", EVIL)
def test_a_member_that_could_do_harm_has_all_refused_and_nothing_written(
    tmp_path: Path, what: str
) -> None:
    with pytest.raises(BadTarball) as caught:
        unpacked(tmp_path, tarball([PROGRAM, *EVIL[what]]))
    assert names(tmp_path) == {"server.tar"}
    assert caught.value.detail.isprintable()
    assert caught.value.evidence["member"] in {info.name[:MAX_NAME] for info, _ in EVIL[what]}


def test_more_bytes_than_any_server_has_are_refused_by_what_the_header_says(
    tmp_path: Path,
) -> None:
    bomb = tarfile.TarInfo("bomb")
    bomb.size = MAX_BYTES
    content = tarball([PROGRAM], compression="")[:1024] + bomb.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(BadTarball, match=str(MAX_BYTES)):
        unpacked(tmp_path, content)
    assert names(tmp_path) == {"server.tar"}


def test_more_members_than_any_server_has_are_refused(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    with pytest.raises(BadTarball, match=str(MAX_MEMBERS)):
        unpacked(tmp_path, folder.tobuf() * (MAX_MEMBERS + 1))
    assert names(tmp_path) == {"server.tar"}


@pytest.mark.parametrize(
    "members",
    [
        [],
        [member("README", b"no program")],
        [member("lemond", b"not executable")],
        [member("lemond", type=tarfile.DIRTYPE)],
        [member("lemond", type=LINK, linkname="other"), member("other", b"x", mode=0o755)],
        [member("a/lemond", b"x", mode=0o755), member("b", b"one of two")],
        [member("a/b/lemond", b"too deep", mode=0o755)],
    ],
)
def test_a_tarball_without_the_program_is_no_server(
    tmp_path: Path, members: list[tuple[Any, ...]]
) -> None:
    with pytest.raises(BadTarball, match="no program lemond"):
        unpacked(tmp_path, tarball(members))
    assert names(tmp_path) == {"server.tar"}


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_what_is_damaged_is_said_to_be_no_tarball(tmp_path: Path, compression: str) -> None:
    content = tarball([member("lemond", os.urandom(9000), mode=0o755)], compression=compression)
    for at, damaged in enumerate([content[:5000], content[:40], b"<html>", b"", content[9:]]):
        base = tmp_path / str(at)
        base.mkdir()
        with pytest.raises(BadTarball):
            unpacked(base, damaged)


def test_what_has_no_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    packed = tmp_path / "server.tar"
    packed.write_bytes(server("1"))
    with pytest.raises(DiskFull):
        unpack(packed, tmp_path / "new", reserve_bytes=2**60)
    assert names(tmp_path) == {"server.tar"}


def test_a_python_that_cannot_unpack_safely_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(LemondError, match=r"3\.11\.4"):
        unpacked(tmp_path, server("1"))
    assert names(tmp_path) == {"server.tar"}
