"""What a Lemonade server must be told before hal0 can rely on it: four keys of its `config.json`.

    host               127.0.0.1: nobody else's machine asks it
    max_loaded_models  -1: it drops no model to make room for another
    auto_evict         false: nor one that was not used for a while; hal0 does that
    extra_models_dir   the models folder: it opens the very files that hal0 has checked

Everything else in the file stays. It is read when the server starts, and this is the one time that
hal0 writes it (ADR-0006). The folder belongs to the server's user, who may not be ours: no link
that lies in it is followed, and what is written gets the folder's owner.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

from hal0.errors import LemondError
from hal0.folders import make_folder, sync_folder
from hal0.lemond.places import CONFIG

Change = Literal["written", "unchanged"]
_SPARE: Final = f".{CONFIG}.new"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def configure(folder: Path, models: Path) -> Change:
    """Set the four keys in the server's folder, which is made; say whether anything was to be set.

    Raises LemondError for a file that is no JSON object; OSError.
    """
    wanted = {
        "host": "127.0.0.1",
        "max_loaded_models": -1,
        "auto_evict": False,
        "extra_models_dir": str(models),
    }
    with _opened(folder) as at:
        before = _read(folder / CONFIG, at)
        after = before | wanted
        if json.dumps(before) == json.dumps(after):  # 0 and false are equal to Python alone
            return "unchanged"
        _replace(at, json.dumps(after, indent=2, ensure_ascii=False))
        return "written"


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    if not folder.exists():
        make_folder(folder.parent, mode=0o750)
        folder.mkdir(mode=0o750)
        _give_away(folder, folder.parent.stat())
        sync_folder(folder.parent)
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield at
    finally:
        os.close(at)


def _read(path: Path, at: int) -> dict[str, Any]:
    try:
        with os.fdopen(os.open(CONFIG, _READ, dir_fd=at), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise _bad(path, str(exc.strerror)) from exc
    except ValueError as exc:
        raise _bad(path, str(exc)) from exc
    if not isinstance(found, dict):
        raise _bad(path, "it is no JSON object")
    return found


def _replace(at: int, text: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_SPARE, dir_fd=at)
    with os.fdopen(os.open(_SPARE, _MAKE, 0o640, dir_fd=at), "w", encoding="utf-8") as file:
        _give_away(file.fileno(), os.fstat(at))
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(_SPARE, CONFIG, src_dir_fd=at, dst_dir_fd=at)
    os.fsync(at)


def _give_away(path: Path | int, to: os.stat_result) -> None:
    """Give what root made to the owner of the folder that it lies in."""
    if os.geteuid() == 0:
        os.chown(path, to.st_uid, to.st_gid)


def _bad(path: Path, how: str) -> LemondError:
    return LemondError(
        f"{path} cannot be read as the server's settings: {how}; mend it, or move it away",
        evidence={"path": str(path), "reason": how},
    )
