"""`python -m hal0.embedded`: the engine, with the settings of the environment."""

import sys

from hal0.embedded import serve
from hal0.errors import SettingsError
from hal0.settings import Settings

if __name__ == "__main__":
    try:
        sys.exit(serve(Settings.load()))
    except SettingsError as exc:
        sys.stderr.write(f"hal0 engine: {exc.detail}\n")
        sys.exit(2)
