"""The embedded engine: Lemonade's wire over llama.cpp, one child process a model.

    caller -> CallLog -> Guard -> routes -> Residents -> Child (a process with one llama.cpp server)

It answers as lemond 11.7 does (status, error shapes, health), so that hal0 has one adapter for
both. Where it deliberately differs:

* a model that cannot be loaded fails alone: nothing else is evicted, nothing is tried twice;
* an unload without a name is refused (400) instead of unloading everything;
* a chat to a model that is not loaded is refused (404 `model_not_loaded`): it loads nothing;
* requests to loaded models go on while another model is loaded, and health always answers;
* models are the files of one folder; a file that is missing is 404, not a download;
* options of a wrong type are refused (400) instead of ignored;
* health carries `pid`, the engine's own process.

Nothing here is imported before `serve` is called: a child process needs none of it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hal0.settings import Settings


def serve(settings: "Settings") -> int:
    """Serve until SIGTERM or SIGINT and return the exit code: 0, or 1 if it could not begin."""
    from hal0.embedded.server import run

    return run(settings)
