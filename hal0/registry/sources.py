"""Where a model's bytes may come from: files of this machine, by absolute path or file:// URL."""

from typing import Final
from urllib.parse import unquote, urlsplit

from hal0.errors import InvalidRequest

NETWORK: Final = frozenset({"http", "https", "hf", "huggingface", "ftp", "s3"})


def local_source(source: str) -> str:
    """Return the absolute path that `source` names; no file is looked at. Raises InvalidRequest."""
    scheme, colon, _ = source.partition(":")
    if colon and scheme.lower() in NETWORK:
        raise InvalidRequest(
            f"{source!r}: sources on the network arrive in a later version; "
            "fetch the file and name its path"
        )
    path = _path_of_url(source) if source.lower().startswith("file:") else source
    if not path.startswith("/") or "\0" in path or path.endswith("/"):
        raise InvalidRequest(f"{source!r} is not the absolute path of a file, nor its file:// URL")
    return path


def _path_of_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment:
        raise InvalidRequest(f"{url!r} names a file of another machine, or more than a file")
    return unquote(parts.path)
