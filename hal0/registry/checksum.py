"""What the sha256 of an open file is, at the speed of OpenSSL and without holding it in memory."""

import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK_BYTES: Final = 2**20  # 64 KiB to 1 MiB cost the same CPU, 8 MiB half as much again
PROGRESS_BYTES: Final = 16 * 2**20


class Interrupted(Exception):  # noqa: N818 - nothing went wrong: the worker was told to stop
    """The caller asked to stop; what was done so far may be thrown away or taken up again."""


def sha256(
    fd: int,
    *,
    on_progress: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    limit_bytes: int | None = None,
) -> str:
    """Return the digest of a regular file, in lowercase hex, whatever the descriptor's position.

    `on_progress` gets the bytes done, every 16 MiB and at the end. `should_stop` is asked before
    each MiB; when it says yes, Interrupted is raised. At most `limit_bytes` are read, so that a
    file that someone appends to has an end. Raises OSError as the disk gives it.
    """
    digest = hashlib.sha256()
    feed(
        digest,
        fd,
        on_progress=on_progress,
        should_stop=should_stop,
        limit_bytes=limit_bytes,
    )
    return digest.hexdigest()


def feed(
    digest: "_Hash",
    fd: int,
    *,
    on_progress: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    limit_bytes: int | None = None,
) -> int:
    """Put a file's bytes from its beginning into `digest`; return how many. Else as `sha256`."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    buffer = memoryview(bytearray(CHUNK_BYTES))
    done, reported = 0, 0
    while limit_bytes is None or done < limit_bytes:
        if should_stop is not None and should_stop():
            raise Interrupted
        room = CHUNK_BYTES if limit_bytes is None else min(CHUNK_BYTES, limit_bytes - done)
        count = os.preadv(fd, [buffer[:room]], done)
        if count == 0:
            break
        digest.update(buffer[:count])
        done += count
        if on_progress is not None and done - reported >= PROGRESS_BYTES:
            on_progress(done)
            reported = done
    if on_progress is not None and (done != reported or done == 0):
        on_progress(done)
    return done
