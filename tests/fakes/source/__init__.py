"""A file server that serves well by default and badly on demand: a real one, in threads.

    with Source() as source:
        source.put("dir/tiny.gguf", content)
        source.script("dir/tiny.gguf", Manner(drop_after=9, times=1), Manner(status=503, times=2))
        ... source.url("dir/tiny.gguf") ... source.requests ... source.release()

How it can misbehave is in `tests/fakes/source/manner.py`, how it serves in `answer.py`, what a hub
adds in `hub.py`. It listens when the constructor returns, at 127.0.0.1 and a free port.
"""

from tests.fakes.source.manner import Manner
from tests.fakes.source.server import Source

__all__ = ["Manner", "Source"]
