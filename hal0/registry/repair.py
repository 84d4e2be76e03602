"""How the registered content of a file comes to its place again, for whoever reads a refusal.

The advice names `SLOT` and `ID`: only who shows the refusal of a job knows of which slot it is.
"""

from pathlib import Path

from hal0.registry.files import FileIdentity, ModelFile
from hal0.registry.sources import Source


def advice_for(file: ModelFile, found: FileIdentity) -> str:
    """Say what to do about a file, found to be of other content than registered.

    Linking anew what is one file with its source changes nothing, so it must be put right at the
    source; and only a pull, as of a new load, sees what took a source's place.
    """
    if file.source is None:
        return "put the registered file there, then `hal0 job retry ID --wait`"
    origin = Source.parse(file.source).path
    if origin is not None and _is_linked(Path(origin), found):
        return f"put the right file at {origin}, its source, then `hal0 slot load SLOT --wait`"
    return (
        "have it brought again with `hal0 slot pull SLOT --again --wait`, or put the registered "
        "file there; then `hal0 job retry ID --wait`"
    )


def is_one_with_its_source(source: str | None, path: Path) -> bool:
    """Tell whether the file of a model is its source under a second name; False = nobody knows."""
    origin = None if source is None else Source.parse(source).path
    try:
        return origin is not None and path.samefile(origin)
    except OSError:
        return False


def _is_linked(origin: Path, found: FileIdentity) -> bool:
    """Tell whether a source and a model's file are one file under two names."""
    try:
        status = origin.lstat()
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (found.device, found.inode)
