"""`python -m hal0`."""

import sys

from hal0.cli import main

if __name__ == "__main__":
    sys.exit(main())
